package node_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster/clustertest"
	"hadal/node/event"
	"hadal/node/listen"
	"hadal/node/presence"
	"hadal/node/record"
	"hadal/node/rpc"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store"
	"hadal/store/storetest"
)

// The chaos tests run the rooms of three nodes over a network, a table and a store
// that come from a seed, do to them what hardware and operators do, and verify what
// clients were shown. A seed that fails prints itself, and replays:
//
//	go test ./node -run TestChaos -chaos.seed 17
var (
	chaosSeed  = flag.Int64("chaos.seed", -1, "the only seed to run, whose history is printed")
	chaosFirst = flag.Uint64("chaos.first", 0, "the first seed to run")
)

// seeds is how many seeds run: HADAL_CHAOS_SEEDS, or 200.
func seeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("HADAL_CHAOS_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 200
}

const (
	chaosNodes      = 3
	chaosPartitions = 6
	chaosClients    = 10
	chaosFaults     = 20
)

// act is something that clients do, so many times in the sum of all weights.
type act struct {
	weight int
	do     func(*chaosClient, context.Context)
}

// chaos is one run.
type chaos struct {
	t    *testing.T
	net  *clustertest.Net
	logs []*storetest.Replicated // by partition
	ctx  context.Context
	wg   sync.WaitGroup

	acts   []act
	greets []func(*chaosClient, context.Context)
	hears  map[protocol.Topic]func(*chaosClient, context.Context, *protocol.Message)

	ids     atomic.Uint64 // of connections
	ops     atomic.Int64  // what clients have said
	quiet   atomic.Bool   // faults are over
	resting atomic.Bool   // clients only listen

	mu        sync.Mutex
	processes map[int]*process // those that run, by machine; guarded by mu

	wrong mistakes
}

func (c *chaos) note(e clustertest.Event) { c.net.History.Note(e) }

func (c *chaos) fail(format string, args ...any) { c.t.Errorf(format, args...) }

// process is what runs on one start of a machine.
type process struct {
	chaos *chaos
	node  *clustertest.Node
	rooms map[protocol.Topic]chaosRoom
	users *presence.Room

	mu    sync.Mutex
	over  bool    // guarded by mu
	conns []*conn // guarded by mu
}

// chaosRoom is a room as clients reach it.
type chaosRoom interface {
	Handle(c sub.Client, m *protocol.Message)
	Closed(c sub.Client)
}

// start starts a machine with all its rooms.
func (c *chaos) start(index int) {
	n := c.net.Start(index)
	ctx, crash := context.WithCancel(c.ctx)
	p := &process{chaos: c, node: n, rooms: make(map[protocol.Topic]chaosRoom)}
	for _, run := range p.wire() {
		c.wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				c.fail("%s: %v", n.Name(), err)
			}
		})
	}
	c.wg.Go(func() { _ = n.Run(ctx) }) // how it ends is in the history
	c.wg.Go(func() {
		<-n.Dead()
		p.end()
		crash()
	})
	c.mu.Lock()
	c.processes[index] = p
	c.mu.Unlock()
}

// chaosListen lets a name that nobody accepted be offered again soon.
var chaosListen = listen.Config{
	ShuffleProviders: true, ResponseTimeout: 500 * time.Millisecond, RematchInterval: 2 * time.Second, MatchCooldown: time.Second,
}

// wire makes the rooms and returns what has to run.
func (p *process) wire() (runs []func(context.Context) error) {
	log := slog.New(slog.DiscardHandler)
	bus, table := p.node.Bus(), p.node.Table()
	eventSubs := sub.NewRegistry()
	eventListen := listen.New(protocol.TopicEvent, chaosListen, eventSubs, table, bus, log)
	p.rooms[protocol.TopicEvent] = event.New(eventSubs, eventListen, bus, log)
	p.users = presence.New(bus, table, log)
	p.rooms[protocol.TopicPresence] = p.users
	calls := rpc.New(rpc.Config{AckTimeout: 500 * time.Millisecond, ResponseTimeout: 2 * time.Second}, bus, table, log)
	p.rooms[protocol.TopicRPC] = calls
	recordSubs := sub.NewRegistry()
	recordListen := listen.New(protocol.TopicRecord, chaosListen, recordSubs, table, bus, log)
	records := record.New(record.DefaultConfig(), p.chaos.keep(), record.Deps{
		Table: table, Bus: bus, Open: p.openLog, Subs: recordSubs, Listen: recordListen,
		Rules: anyRecord{}, Log: log, Observe: func(time.Duration) {},
	})
	p.rooms[protocol.TopicRecord] = records
	return append(runs, eventListen.Run, recordListen.Run, p.users.Run, calls.Run, records.Run)
}

// openLog opens the log of a partition, which is wherever a majority of nodes is.
func (p *process) openLog(_ context.Context, partition int) (store.Store, error) {
	return p.chaos.logs[partition].Open(func(ctx context.Context) error {
		return p.node.Reach(ctx, fmt.Sprint("log ", partition))
	}), nil
}

// pick is some process, or nil.
func (c *chaos) pick(r *rand.Rand) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.processes[r.IntN(chaosNodes)]
}

// add notes a connection, unless the process has ended.
func (p *process) add(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.conns = append(p.conns, c)
	}
	return !p.over
}

// end breaks all connections.
func (p *process) end() {
	p.mu.Lock()
	p.over = true
	conns := p.conns
	p.mu.Unlock()
	for _, c := range conns {
		c.leave()
	}
}

func (p *process) login(c *conn) { p.users.Login(c) }

func (p *process) handle(c *conn, m *protocol.Message) {
	if r := p.rooms[m.Topic]; r != nil {
		r.Handle(c, m)
	}
}

func (p *process) closed(c *conn) {
	for _, topic := range []protocol.Topic{protocol.TopicEvent, protocol.TopicRecord, protocol.TopicRPC, protocol.TopicPresence} {
		if r := p.rooms[topic]; r != nil {
			r.Closed(c)
		}
	}
}

// What happens at which time of a run.
const (
	chaosSettle = 4 * time.Second  // from the start to the first client
	chaosCalm   = 12 * time.Second // from the last fault until nothing of it is left
	chaosWork   = 3 * time.Second  // of clients, when it is calm
	chaosRest   = 15 * time.Second // until all that was asked has ended
)

// mistakes are made on purpose, for tests that must find them.
type mistakes struct {
	noFence bool // the logs take appends of owners that were replaced
	early   bool // owners answer before the commit (records.durability: fast)
}

// runChaos runs one seed and returns what happened and how much clients said.
func runChaos(t *testing.T, cfg clustertest.Config, wrong mistakes) (events []clustertest.Event, ops int64) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cfg.Nodes, cfg.Partitions = chaosNodes, chaosPartitions
		c := &chaos{t: t, wrong: wrong, net: clustertest.New(cfg), ctx: ctx, processes: make(map[int]*process)}
		c.acts = []act{{6, actOnEvents}, {1, actOnPresence}, {3, eventListening.act}, {3, recordListening.act}, {4, actOnCalls}, {16, actOnRecords}}
		c.greets = append(c.greets, greetPresence)
		c.hears = map[protocol.Topic]func(*chaosClient, context.Context, *protocol.Message){
			protocol.TopicEvent: hearEvents, protocol.TopicPresence: hearPresence, protocol.TopicRPC: hearCalls, protocol.TopicRecord: hearRecords,
		}
		for p := range chaosPartitions {
			log := storetest.NewReplicated(c.net.Rand(fmt.Sprint("log ", p)))
			log.NoFence = wrong.noFence
			c.logs = append(c.logs, log)
		}
		for i := range chaosNodes {
			c.start(i)
		}
		wait := func(d time.Duration) {
			if err := c.net.Sleep(ctx, "chaos", d); err != nil {
				t.Error(err)
			}
		}
		wait(chaosSettle)
		for i := range chaosClients {
			u := &chaosClient{chaos: c, number: i, r: c.net.Rand(fmt.Sprint("client ", i))}
			c.wg.Go(func() { u.run(ctx) })
		}
		if err := c.net.Torment(ctx, clustertest.Torment{Faults: chaosFaults, Between: time.Second, Start: c.start, Others: c.storeFaults()}); err != nil {
			t.Error(err)
		}
		wait(chaosCalm)
		if err := c.net.Settled(); err != nil {
			t.Errorf("%v after the last fault: %v", chaosCalm, err)
		}
		c.quiet.Store(true)
		c.note(clustertest.Event{What: clustertest.Quiet})
		wait(chaosWork)
		c.resting.Store(true)
		wait(chaosRest)
		c.askAll()
		wait(time.Second)
		c.noteTruth()
		events, ops = c.net.History.Events(), c.ops.Load()
		cancel()
		c.wg.Wait()
		c.net.Close()
	})
	return events, ops
}

// askAll asks every node who is online, for every connection that there is.
func (c *chaos) askAll() {
	for i := range chaosNodes {
		c.mu.Lock()
		p := c.processes[i]
		c.mu.Unlock()
		p.mu.Lock()
		conns := p.conns
		p.mu.Unlock()
		for _, conn := range conns {
			if !conn.Gone() {
				p.handle(conn, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAll})
			}
		}
	}
}

// callBound is the longest that a call may take: with pauses of its caller's node.
const callBound = 30 * time.Second

// orderTime is how long the search for an order of one record's requests may take. It
// takes milliseconds, seconds on a machine with much else to do, or for ever.
const orderTime = 2 * time.Minute

// verifyChaos says what is wrong with a history.
func verifyChaos(events []clustertest.Event) (wrong []error) {
	wrong = append(wrong, clustertest.EventsOnceAndInOrder(events)...)
	wrong = append(wrong, clustertest.EventsArriveInQuiet(events, time.Second)...)
	wrong = append(wrong, clustertest.Linearizable(events, orderTime)...)
	wrong = append(wrong, clustertest.OneStateEachVersion(events)...)
	wrong = append(wrong, clustertest.LiveUpdatesRunForward(events)...)
	wrong = append(wrong, clustertest.CallsEndOnce(events, callBound)...)
	ofEvent, ofRecord := eventListening.can(events), recordListening.can(events)
	wrong = append(wrong, clustertest.OneProviderEach(events,
		func(conn, name string) bool { return ofEvent(conn, name) || ofRecord(conn, name) },
		func(name string) bool { return strings.HasPrefix(name, recordListening.prefix) })...)
	wrong = append(wrong, clustertest.PresenceTellsTheTruth(events, 3*time.Second)...)
	return wrong
}

// keepHistory writes a history down: with -artifacts it stays.
func keepHistory(t *testing.T, events []clustertest.Event) {
	path := filepath.Join(t.ArtifactDir(), "history.txt")
	if err := os.WriteFile(path, []byte(clustertest.Tail(events, len(events), nil)), 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("the whole history, kept with -artifacts: %s", path)
}

func TestChaos(t *testing.T) {
	first, last := *chaosFirst, *chaosFirst+seeds()
	if *chaosSeed >= 0 {
		first, last = uint64(*chaosSeed), uint64(*chaosSeed)+1
	}
	var total atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		for seed := first; seed < last; seed++ {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				events, ops := runChaos(t, clustertest.Config{Seed: seed}, mistakes{})
				total.Add(ops)
				wrong := verifyChaos(events)
				for _, err := range wrong[:min(len(wrong), 10)] {
					t.Error(err)
				}
				if ops < 1000 {
					t.Errorf("clients said %d things, want 1000", ops)
				}
				if t.Failed() {
					t.Logf("replay with: go test ./node -run TestChaos -chaos.seed %d\n%s", seed, clustertest.Tail(events, 40, nil))
				}
				if t.Failed() || *chaosSeed >= 0 {
					keepHistory(t, events)
				}
			})
		}
	})
	if n := int64(last - first); total.Load() > 0 {
		t.Logf("%d seeds, %d things said by clients a seed", n, total.Load()/n)
	}
}

// mistakeSeeds is within how many seeds a mistake must be found.
const mistakeSeeds = 60

// findMistake runs seeds until the verifiers say that something is wrong.
func findMistake(t *testing.T, cfg clustertest.Config, wrong mistakes) {
	for cfg.Seed = range uint64(mistakeSeeds) {
		events, _ := runChaos(t, cfg, wrong)
		if found := verifyChaos(events); len(found) > 0 {
			t.Logf("seed %d: %v", cfg.Seed, found[0])
			return
		}
	}
	t.Errorf("not found in %d seeds", mistakeSeeds)
}

// These mistakes are made in a table, a store or a configuration of the test, so they
// need no build of their own; chaos_mutant_test.go has one that does.
func TestChaosFindsMistakes(t *testing.T) {
	for name, m := range map[string]struct {
		cfg   clustertest.Config
		wrong mistakes
	}{
		"no fence":             {wrong: mistakes{noFence: true}},
		"no lease":             {cfg: clustertest.Config{NoLease: true}},
		"answer before commit": {wrong: mistakes{early: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findMistake(t, m.cfg, m.wrong)
		})
	}
}
