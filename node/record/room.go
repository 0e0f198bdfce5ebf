package record

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/gjson"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
	"hadal/store"
)

// ErrNotFound is what the operator gets for a record that does not exist.
var ErrNotFound = errors.New("record not found")

// ErrInvalid is what the operator gets for a record that cannot be.
var ErrInvalid = errors.New("record is not valid")

// checker judges a rule on the very state that an action lands on; perms.Live
// is one. Called on the owner, it must not block.
type checker interface {
	// Judge returns 0 when the user may, and the refusing action otherwise. When
	// wanted is not empty the rule refers to records that known does not know, and
	// nothing is decided.
	Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool,
		known func(name string) (data string, exists, known bool)) (refused protocol.Action, wanted []string)
	// ReadsRecord says whether the rule reads the record itself or others.
	ReadsRecord(a protocol.Action, name string) bool
}

// Room serves the RECORD topic.
type Room struct {
	seated  atomic.Pointer[[]*seat] // one a partition; nil as long as the table knows none
	subs    *sub.Registry
	listen  *listen.Registry
	rules   checker
	table   cluster.Table
	bus     cluster.Bus
	open    func(ctx context.Context, partition int) (store.Store, error)
	cfg     Config
	keep    KeepConfig
	log     *slog.Logger
	observe func(time.Duration)
	stats   counters

	lanes     sync.Map // client id → *lane, of clients that have asked for something
	operators *lane

	ids        atomic.Uint64 // of what is sent to other nodes
	owned      atomic.Int64  // partitions
	turns      turns         // of the owners
	cacheShare atomic.Int64  // of one of them, in bytes

	links   atomic.Pointer[map[string]*link] // by peer; replaced, never changed
	linking sync.Mutex                       // held while it is replaced
	scans   scans
	filters map[string]int           // by heads; guarded by linking
	heads   atomic.Pointer[[]string] // what peers were told of them; changed under linking
	wide    atomic.Int32             // peers that have filters
}

// Deps are the rooms and services that records need. All are required.
type Deps struct {
	Table cluster.Table
	Bus   cluster.Bus
	// Open opens the store of a partition that this node shall own. It is called when
	// that is so, and again after a failure, and returns when ctx ends; the store is
	// closed when it is so no more.
	Open    func(ctx context.Context, partition int) (store.Store, error)
	Subs    *sub.Registry
	Listen  *listen.Registry
	Rules   checker
	Log     *slog.Logger
	Observe func(time.Duration) // is told the time from receipt to commit of each write
}

// New wires the room, and has the bus tell it of links. Nothing happens before Run; the
// table may be opened later.
func New(cfg Config, keep KeepConfig, d Deps) *Room {
	r := &Room{
		subs: d.Subs, listen: d.Listen, rules: d.Rules, table: d.Table, bus: d.Bus, open: d.Open,
		cfg: cfg, keep: keep, log: d.Log, observe: d.Observe, operators: newLane(), filters: make(map[string]int),
		scans: scans{asked: make(map[uint64]*scanAsked), serving: make(map[scanKey]*scanServing)},
	}
	r.links.Store(&map[string]*link{})
	r.heads.Store(new([]string))
	r.share()
	d.Bus.Handle(cluster.KindRecord, r)
	return r
}

// newOwner makes the owner of a partition that this node has taken over.
func (r *Room) newOwner(partition int, epoch uint64, st store.Store) *owner {
	stopped := func() *time.Timer {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	o := &owner{
		room: r, partition: partition, epoch: epoch, store: st,
		cfg: r.cfg, maxSize: r.keep.MaxSize, fast: r.keep.Durability == "fast", moves: r.table.Changed() != nil,
		subs: r.subs, listen: r.listen, rules: r.rules, log: r.log, observe: r.observe, stats: &r.stats,
		mail: newMailbox(len(r.seats()) == 1), cache: newCache(r.cacheShare.Load()),
		open: &batch{}, doubt: make(map[string]struct{}), interest: make(map[string][]interest),
		repair: make(map[string]knowledge), owed: make(map[string]struct{}),
		stuck: make(map[*link][]*request),
		hold:  stopped(), lookAgain: stopped(),
		loaded:   make(chan loadResult, loadsAtOnce),
		appended: make(chan error, 1), turn: make(chan struct{}, 1),
		refenced: make(chan struct{}, 1),
		absent:   make(map[string]struct{}), absentSweep: absentLeast,
	}
	o.cache.evicted = o.remember
	o.knower, _ = st.(store.Knower)
	return o
}

// share divides the memory of the cache among the owners.
func (r *Room) share() { r.cacheShare.Store(r.keep.CacheBytes / max(1, r.owned.Load())) }

// Run takes over the partitions that this node owns, whenever that changes, and serves
// until ctx ends and all that was asked before is answered. An error means that a
// partition cannot be taken over, and never will be.
func (r *Room) Run(ctx context.Context) error {
	r.opened(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.scans.mu.Lock()
	r.scans.ctx = ctx
	r.scans.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { r.watch(ctx) })
	for _, s := range r.seats() {
		running.Go(func() {
			defer s.end()
			if err := s.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	r.scans.mu.Lock()
	r.scans.ctx = nil
	r.scans.mu.Unlock()
	r.scans.running.Wait()
	r.flushLinks()
	var failed *startError
	if err := context.Cause(ctx); errors.As(err, &failed) {
		return err
	}
	return nil
}

// watch moves the seats with the table.
func (r *Room) watch(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		changed := r.table.Changed()
		if changed == nil { // it never does, and there are no peers
			second.Stop()
		}
		r.look()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-second.C:
			for _, s := range r.seats() {
				s.listen()
			}
		}
	}
}

// look has all seats look at the table and the links.
func (r *Room) look() {
	for _, s := range r.seats() {
		s.move()
		s.ring()
	}
}

// partition is the partition of a name.
func (r *Room) partition(name string) int {
	if len(r.seats()) <= 1 {
		return 0
	}
	return cluster.Partition(cluster.Slot(name), len(r.seats()))
}

// seat is that of a name's partition.
func (r *Room) seat(name string) *seat { return r.seats()[r.partition(name)] }

// seats are those of all partitions. There are none before the table is open, and
// then the room serves nothing yet.
func (r *Room) seats() []*seat {
	if p := r.seated.Load(); p != nil {
		return *p
	}
	n := r.table.Partitions()
	if n == 0 {
		return nil
	}
	all := make([]*seat, n)
	for p := range all {
		all[p] = newSeat(r, p)
	}
	r.seated.CompareAndSwap(nil, &all)
	return *r.seated.Load()
}

// opened returns when the table is open, or ctx ends.
func (r *Room) opened(ctx context.Context) {
	for ctx.Err() == nil {
		changed := r.table.Changed()
		if len(r.seats()) > 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

const (
	// bulkInFlight is how many reads of one bulk request are asked of the owner at
	// once: two of them are under way.
	bulkInFlight = laneHeavy / 2
	// bulkPart is how many names of a bulk request that reads no data become
	// requests at once. A request is a hundred times what a short name is.
	bulkPart = 1024
)

// Handle serves a message whose shape the pipeline has checked: single-name
// actions have a name, path and action agree. It runs on the client's reader.
func (r *Room) Handle(c sub.Client, m *protocol.Message) {
	base := request{
		client: c, name: m.Name, action: m.Action, correlationID: m.CorrelationID,
		has: m.Has, writeAck: m.IsWriteAck,
	}
	switch m.Action {
	case protocol.RecordRead:
		base.kind = kindRead
		r.put(&base)
	case protocol.RecordHead:
		base.kind = kindHead
		r.put(&base)
	case protocol.RecordDelete:
		base.kind = kindDelete
		r.put(&base)
	case protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordErase, protocol.RecordPatchMulti,
		protocol.RecordCreateAndUpdate, protocol.RecordCreateAndPatch:
		r.write(&base, m)
	case protocol.RecordSubscribeCreateAndRead:
		r.readMany(base, kindSubscribeCreateAndRead, m)
	case protocol.RecordSubscribeAndRead:
		r.readMany(base, kindSubscribeAndRead, m)
	case protocol.RecordSubscribeAndHead:
		r.headMany(base, m)
	case protocol.RecordSubscribe:
		r.each(base, kindSubscribe, m, base.ack())
	case protocol.RecordUnsubscribe:
		r.each(base, kindUnsubscribe, m, base.ack())
	case protocol.RecordNotify:
		ack := base.ack()
		ack.Names = append([]string(nil), m.Names...)
		// Each name is announced once: a list of one name could else be worth many
		// times its size to every subscriber.
		m.Names = distinct(m.Names)
		r.each(base, kindNotify, m, ack)
	case protocol.RecordListen, protocol.RecordUnlisten, protocol.RecordListenAccept, protocol.RecordListenReject:
		r.listen.Handle(c, m)
	}
}

// Closed forgets a client that has gone. It runs on the client's reader, after
// its last message.
func (r *Room) Closed(c sub.Client) {
	r.listen.Closed(c)
	r.lanes.Delete(c.ID())
	// Whatever of its requests is still under way finds that it has gone.
	for _, name := range r.subs.RemoveClient(c) {
		r.listen.Changed(name)
		s := r.seat(name)
		s.mu.Lock()
		s.mayForget(name)
		s.mu.Unlock()
	}
	for _, l := range *r.links.Load() {
		l.closed(c.ID())
	}
}

// put hands requests of one kind, for one partition, to the owner, when there is room
// for them. When the room has stopped the process is ending and the client is being
// closed: nobody is left to answer.
func (r *Room) put(reqs ...*request) bool {
	if len(r.seats()) == 0 {
		return false
	}
	l := r.operators
	if c := reqs[0].client; c != nil {
		l = r.lane(c)
		l.enter(reqs)
	}
	if r.seatOf(reqs[0]).put(l, reqs...) {
		return true
	}
	for _, req := range reqs {
		req.free()
	}
	return false
}

// putEach is put for requests of any partitions.
func (r *Room) putEach(reqs []*request) bool {
	if len(r.seats()) == 1 {
		return len(reqs) == 0 || r.put(reqs...)
	}
	parts := make(map[int][]*request)
	for _, req := range reqs {
		p := r.partition(req.name)
		parts[p] = append(parts[p], req)
	}
	for _, part := range parts {
		if !r.put(part...) {
			return false
		}
	}
	return true
}

// seatOf is where a request waits for its owner.
func (r *Room) seatOf(req *request) *seat {
	if req.kind == kindSubscribeAndHead {
		if len(req.names) == 0 {
			return r.seats()[0]
		}
		return r.seat(req.names[0])
	}
	return r.seat(req.name)
}

// lane is the client's own. It is called on the client's reader.
func (r *Room) lane(c sub.Client) *lane {
	l, ok := r.lanes.Load(c.ID())
	if !ok {
		l, _ = r.lanes.LoadOrStore(c.ID(), newLane())
	}
	return l.(*lane)
}

// write checks a write as far as possible without the record, and queues it.
func (r *Room) write(req *request, m *protocol.Message) {
	req.kind, req.came = kindWrite, time.Now()
	req.version, req.data, req.path = m.Version, m.Data, m.Path
	if err := r.parse(req); err != nil {
		r.stats.refused.Add(1)
		req.answer(&protocol.Message{
			Action: protocol.RecordInvalidMessageData, Name: m.Name, Version: m.Version, Data: m.Data, Path: m.Path,
			OriginalAction: req.normalised(), IsError: true, IsWriteAck: m.IsWriteAck, CorrelationID: m.CorrelationID,
			Has: m.Has & (protocol.HasVersion | protocol.HasCorrelationID | protocol.HasPath),
		})
		return
	}
	if req.action == protocol.RecordCreateAndPatch && hasPrefix(req.name, r.cfg.StorageHotPathPrefixes) {
		req.answer(&protocol.Message{
			Action: protocol.RecordInvalidPatchOnHotpath, Name: m.Name, OriginalAction: m.Action,
			IsError: m.IsWriteAck, IsWriteAck: m.IsWriteAck, CorrelationID: m.CorrelationID, Has: m.Has & protocol.HasCorrelationID,
		})
		return
	}
	r.put(req)
}

var (
	errNotJSON  = errors.New("data is not JSON")
	errNotShape = errors.New("record data must be an object or an array")
	errNotMulti = errors.New("data must be a list of {path, data}")
)

// parse reads the payload of a write and turns paths into changes.
func (r *Room) parse(req *request) error {
	if req.data != "" && !jsonpath.ValidJSON(req.data) {
		return errNotJSON
	}
	switch req.action {
	case protocol.RecordPatch, protocol.RecordErase, protocol.RecordCreateAndPatch:
		p, err := jsonpath.Parse(req.path)
		if err != nil {
			return err
		}
		req.changes = []change{{path: p, value: req.data, remove: req.data == ""}}
		return nil
	case protocol.RecordPatchMulti:
		return req.parseMulti()
	case protocol.RecordCreateAndUpdate:
		if hasPrefix(req.name, r.cfg.StorageHotPathPrefixes) && req.data != "" {
			return nil // last writer wins with whatever it wrote (spec 08 §3.5)
		}
	}
	if k := jsonpath.Kind(req.data); k != '{' && k != '[' {
		return errNotShape
	}
	return nil
}

func (r *request) parseMulti() error {
	list := gjson.Parse(r.data)
	if !list.IsArray() {
		return errNotMulti
	}
	var err error
	list.ForEach(func(_, op gjson.Result) bool {
		if !op.IsObject() {
			err = errNotMulti
			return false
		}
		c := change{remove: true}
		found := false
		op.ForEach(func(key, value gjson.Result) bool {
			switch key.Str {
			case "path":
				if found = value.Type == gjson.String; found {
					c.path, err = jsonpath.Parse(value.Str)
				}
			case "data":
				c.value, c.remove = value.Raw, false
			}
			return err == nil
		})
		if err == nil && !found {
			err = errNotMulti
		}
		r.changes = append(r.changes, c)
		return err == nil
	})
	if err == nil && len(r.changes) == 0 {
		err = errNotMulti
	}
	return err
}

// readMany serves the subscriptions that read: the ack comes first, whatever
// becomes of the names (spec 15, traps 7 and 8), then one answer for each. A
// client that does not take its answers is not asked for more on its behalf.
func (r *Room) readMany(base request, k kind, m *protocol.Message) {
	ack := base.ack()
	ack.Names = m.Names
	base.answer(ack)
	base.kind = k
	for names := range slices.Chunk(m.Names, bulkInFlight) {
		base.client.Pace()
		if base.client.Gone() || !r.putEach(split(base, names, nil)) {
			return // nobody waits for the rest
		}
	}
}

// headMany serves SUBSCRIBEANDHEAD: part by part, because the owner looks at all
// names of a request in one turn, and must have loaded the unknown ones of one
// part before it is given more.
func (r *Room) headMany(base request, m *protocol.Message) {
	base.kind = kindSubscribeAndHead
	parts := r.headParts(m.Names)
	for i, names := range parts {
		part := base
		part.names = names
		part.last = i == len(parts)-1
		if part.last {
			r.put(&part)
			return
		}
		served := make(chan struct{})
		part.group = newGroup(1, func() { close(served) })
		if !r.put(&part) {
			return
		}
		<-served
		base.client.Pace()
		if base.client.Gone() {
			return
		}
	}
}

// headParts splits names into parts of one partition each, one at least.
func (r *Room) headParts(names []string) [][]string {
	if len(names) == 0 {
		return [][]string{nil}
	}
	of := make([][]string, max(1, len(r.seats())))
	if len(of) == 1 {
		of[0] = names
	} else {
		for _, name := range names {
			p := r.partition(name)
			of[p] = append(of[p], name)
		}
	}
	var parts [][]string
	for _, names := range of {
		for part := range slices.Chunk(names, bulkPart) {
			parts = append(parts, slices.Clone(part))
		}
	}
	return parts
}

// each serves a request that is acknowledged once when all its names are done.
func (r *Room) each(base request, k kind, m *protocol.Message, ack *protocol.Message) {
	if len(m.Names) == 0 {
		base.answer(ack)
		return
	}
	base.kind = k
	asked := base
	g := newGroup(len(m.Names), func() { asked.answer(ack) })
	for names := range slices.Chunk(m.Names, bulkPart) {
		if !r.putEach(split(base, names, g)) {
			return
		}
		base.client.Pace()
		if base.client.Gone() {
			return
		}
	}
}

// distinct returns names without repetitions, in their order.
func distinct(names []string) []string {
	seen := make(map[string]struct{}, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		_, twice := seen[name]
		seen[name] = struct{}{}
		return twice
	})
}

// split makes one request a name.
func split(base request, names []string, g *group) []*request {
	all := make([]request, len(names))
	reqs := make([]*request, len(names))
	for i, name := range names {
		all[i] = base
		all[i].name, all[i].group = name, g
		reqs[i] = &all[i]
	}
	return reqs
}
