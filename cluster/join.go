package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Times of joining.
const (
	joinPoll     = 250 * time.Millisecond // between rounds of questions
	joinAsk      = 2 * time.Second        // a question and its answer
	joinProgress = 10 * time.Second       // how often the log hears of no progress
	maxJoin      = 256 << 10              // a message, in bytes
	maxKnown     = 1024                   // addresses that were learned from others
)

// NodeInfo is what a node says about itself to whoever asks.
type NodeInfo struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Role        Role   `json:"role"`
	Incarnation uint64 `json:"incarnation"`
	// Address is where its Port is, Routes where its NATS routes are: host and port.
	Address string `json:"address"`
	Routes  string `json:"routes"`
	// ClusterID is the cluster that the node's disk belongs to; empty while it has
	// only run alone, or never.
	ClusterID string `json:"clusterId,omitempty"`
	// Formed says that the cluster exists: its raft group has been bootstrapped.
	Formed bool `json:"formed,omitempty"`
	// Leader is the Address of the node that leads it, if it is known.
	Leader string `json:"leader,omitempty"`
	// SoloRecords says that the disk holds records of a node that ran alone.
	SoloRecords bool `json:"soloRecords,omitempty"`
	// Run is random, of each process: two processes with one ID have a data directory and
	// its copy. Empty is not known.
	Run string `json:"run,omitempty"`
}

// Founder is a node that a cluster begins with.
type Founder struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Routes  string `json:"routes"`
	// SoloRecords says that the node brings the records that the cluster begins with;
	// of one founder at most.
	SoloRecords bool `json:"soloRecords,omitempty"`
}

// Formation is how a node gets into its cluster. Once persisted it is a promise: the
// node founds this cluster with these founders or none.
type Formation struct {
	ClusterID string `json:"clusterId"`
	// Founders are in order of their ids. They are empty for a node that joins a
	// cluster which exists.
	Founders []Founder `json:"founders,omitempty"`
	// Leader is, of a cluster that exists, the Address of the node to be let in by.
	Leader string `json:"-"`
}

// Founds says whether the node is to bootstrap the cluster with the founders, rather
// than to ask the leader to be let in. Every founder does, with the same list, but one
// that comes when the cluster exists and may have changed its members since.
func (f Formation) Founds() bool { return len(f.Founders) > 0 && f.Leader == "" }

// equal says whether two are the same promise.
func (f Formation) equal(g Formation) bool {
	return f.ClusterID == g.ClusterID && slices.Equal(f.Founders, g.Founders)
}

// hasFounder says whether a node is one of the founders.
func (f Formation) hasFounder(id string) bool { return slices.Contains(f.ids(), id) }

// ids are those of the founders.
func (f Formation) ids() []string {
	ids := make([]string, len(f.Founders))
	for i, founder := range f.Founders {
		ids[i] = founder.ID
	}
	return ids
}

// JoinOptions say how a node finds its cluster.
type JoinOptions struct {
	// Seeds are host:port of nodes' Ports; a host may stand for several addresses.
	// This node may be among them.
	Seeds []string
	// Expect is how many core nodes found a cluster. 0 is as many as there are Seeds,
	// and this node where it is not among them; at least two, each seed a single node.
	Expect int
	// Self is this node. With Formed, Discover only looks for the leader.
	Self NodeInfo
	// Promised is what Persist has kept (Dir.Formation), or nil.
	Promised *Formation
	// Persist keeps a promise on disk (Dir.KeepFormation) before anybody hears of it: after a crash
	// Promised is either what it was or this. Once it has succeeded it is not called again.
	Persist func(Formation) error
}

// Joiner is how nodes find each other before they are a cluster, and again when they
// have lost each other. It answers on the Port as long as that runs: whoever is looking
// needs those who have found.
//
// # How a cluster is founded
//
// Every node asks all others that it knows of, again and again. If one of them is in a
// cluster that exists, it joins that. Else, when as many core nodes as expected see
// each other, these are the founders (the smallest ids, if there are more), and each
// announces the list in its answers. When the smallest of them sees that all of them
// announce the same list, it draws a cluster id, promises the formation (that id, that
// list) and proposes it to the others, each of which promises it if it has promised
// nothing else and announces that very list. To promise is to persist, before anybody is
// told. A founder that sees that every founder has promised bootstraps.
//
// A node never takes a promise back and never makes a second one. A formation needs
// all its founders, so of two that have a founder in common at most one can ever be.
// Two without one would need two lists of expected length among nodes that do not
// see each other: so a node founds nothing unless those expected are more than half
// of all that its seeds name or that it sees. A crash anywhere in between is harmless: a
// node that has promised goes on with its promise after a restart, and one that has
// not knows nothing of it. The price is that a founder whose disk is lost before it has
// promised leaves the others waiting; they say for whom, and an operator clears their data
// directories, which hold nothing of a cluster yet.
type Joiner struct {
	opts    JoinOptions
	log     *slog.Logger
	resolve func(ctx context.Context, host string) ([]string, error)
	ask     func(ctx context.Context, address string, q question) (answer, error)
	found   *founding

	mu    sync.Mutex
	known map[string]bool // addresses learned from others; guarded by mu
}

// NewJoiner makes a joiner and answers on the port, once that runs.
func NewJoiner(opts JoinOptions, port *Port, log *slog.Logger) (*Joiner, error) {
	if opts.Expect < 0 {
		return nil, fmt.Errorf("--bootstrap-expect %d: expect at least one node", opts.Expect)
	}
	if opts.Persist == nil && opts.Promised == nil && !opts.Self.Formed {
		return nil, errors.New("cluster: JoinOptions.Persist is nil")
	}
	for _, seed := range opts.Seeds {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			return nil, fmt.Errorf("--join %q: %w; write host:port", seed, err)
		}
	}
	j := newJoiner(opts, log)
	j.resolve = net.DefaultResolver.LookupHost
	j.ask = func(ctx context.Context, address string, q question) (answer, error) {
		ctx, cancel := context.WithTimeout(ctx, joinAsk)
		defer cancel()
		return askOverPort(ctx, port, address, q)
	}
	port.handle(protocolJoin, j.serve)
	return j, nil
}

func newJoiner(opts JoinOptions, log *slog.Logger) *Joiner {
	return &Joiner{opts: opts, log: log, known: make(map[string]bool), found: newFounding(opts)}
}

// Formed says that this node is now in a cluster that exists, or what it says of it has
// changed: others are told from now on. leader is an Address, or empty.
func (j *Joiner) Formed(clusterID, leader string) { j.found.formed(clusterID, leader) }

// question is what a node asks another.
type question struct {
	// From is who asks.
	From NodeInfo `json:"from"`
	// Propose is a formation that From asks to promise.
	Propose *Formation `json:"propose,omitempty"`
}

// answer is what a node answers.
type answer struct {
	Node NodeInfo `json:"node"`
	// Announced are the ids of the founders that the node has in mind, sorted.
	Announced []string `json:"announced,omitempty"`
	// Promised is the formation that the node has promised.
	Promised *Formation `json:"promised,omitempty"`
	// Known are Ports of nodes that it knows.
	Known []string `json:"known,omitempty"`
	// Refused says why a proposal was not promised.
	Refused string `json:"refused,omitempty"`
}

// askOverPort asks a node.
func askOverPort(ctx context.Context, port *Port, address string, q question) (answer, error) {
	var a answer
	conn, err := port.dial(ctx, protocolJoin, address)
	if err != nil {
		return a, err
	}
	defer hangUp(conn)
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	defer stop()
	if err := writeJSON(conn, q, maxJoin); err != nil {
		return a, remoteAlert(err)
	}
	if err := readJSON(conn, &a, maxJoin); err != nil {
		return a, remoteAlert(err)
	}
	if id := certifiedNode(conn); a.Node.ID == "" || id != "" && id != a.Node.ID {
		return a, refuse(refusedOtherNode, "node %q answers with the certificate of node %q", a.Node.ID, id)
	}
	return a, nil
}

// serve answers a node.
func (j *Joiner) serve(ctx context.Context, conn *tls.Conn) {
	ctx, cancel := context.WithTimeout(ctx, joinAsk)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	defer stop()
	var q question
	err := readJSON(conn, &q, maxJoin)
	if id := certifiedNode(conn); err == nil && id != "" && id != q.From.ID {
		err = refuse(refusedOtherNode, "node %q asks with the certificate of node %q", q.From.ID, id)
	}
	if err == nil {
		err = writeJSON(conn, j.reply(q), maxJoin)
	}
	if err != nil {
		j.log.Debug("question of a peer not answered", "peer", conn.RemoteAddr().String(), "err", err)
		hangUp(conn)
		return
	}
	closeSoftly(conn)
}

// reply answers a question, and learns of who asks.
func (j *Joiner) reply(q question) answer {
	a := j.found.answer(q)
	if a.Node.twin(q.From) {
		j.log.Warn("another process looks for the cluster with this node's id", "peer", q.From.Address, "name", q.From.Name, "err", ErrCopied)
		return a // its address is not this node's
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.learn(q.From.Address)
	for address := range j.known {
		if len(a.Known) == 64 {
			break
		}
		a.Known = append(a.Known, address)
	}
	return a
}

// learn notes an address. Under mu.
func (j *Joiner) learn(address string) {
	if _, _, err := net.SplitHostPort(address); err == nil && len(j.known) < maxKnown {
		j.known[address] = true
	}
}

// Meet has this node tell who asks of other nodes' Ports, too: those of members.
func (j *Joiner) Meet(addresses []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, address := range addresses {
		j.learn(address)
	}
}

// Discover finds this node's cluster: one that exists, or one that it founds together
// with others. The Port must run, or nobody finds this node, and it not itself. It asks until it knows, or ctx ends. An error that is not of ctx says what
// an operator has to put right.
func (j *Joiner) Discover(ctx context.Context) (Formation, error) {
	var told time.Time
	var status string
	for {
		view, trouble := j.round(ctx)
		step, err := j.found.next(view)
		if ctx.Err() != nil {
			return Formation{}, ctx.Err()
		}
		if err != nil {
			return Formation{}, err
		}
		if step.done != nil {
			j.log.Info("cluster found", "cluster", step.done.ClusterID, "founder", step.done.Founds(), "leader", step.done.Leader)
			return *step.done, nil
		}
		if now := time.Now(); step.waits != status || now.Sub(told) >= joinProgress {
			status, told = step.waits, now
			j.log.Info("looking for the cluster", "state", step.waits, "unreachable", trouble)
		}
		if step.propose != nil && j.propose(ctx, *step.propose, view.answers) {
			continue
		}
		// Not in step with others, who might ask at the same moment for ever.
		wait := time.NewTimer(joinPoll/2 + rand.N(joinPoll))
		select {
		case <-ctx.Done():
			wait.Stop()
			return Formation{}, ctx.Err()
		case <-wait.C:
		}
	}
}

// located is an answer and where it came from.
type located struct {
	answer
	address string
}

// view is what one round of questions has shown.
type view struct {
	answers []located // one for each node but this, by id
	// possible is how many nodes the seeds may stand for, this one included.
	possible int
	// several is a seed that stands for more than one node, or empty.
	several string
	// twin is another process with this node's id, or nil.
	twin *located
}

// round asks everybody. It says who could not be asked, and why.
func (j *Joiner) round(ctx context.Context) (v view, trouble string) {
	self := j.found.self()
	var mu sync.Mutex
	var wg sync.WaitGroup
	byID := make(map[string]located)
	asked := map[string]bool{self.Address: true}
	troubles := make(map[string]string)
	selfNamed := false
	// ask asks one address, once. Under mu.
	ask := func(address string) {
		if asked[address] {
			return
		}
		asked[address] = true
		wg.Go(func() {
			a, err := j.ask(ctx, address, question{From: self})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				troubles[address] = err.Error()
				return
			}
			if self.twin(a.Node) {
				v.twin = &located{a, address}
				return
			}
			byID[a.Node.ID] = located{a, address}
		})
	}
	seeds := make(map[string][]string) // addresses of each
	for _, seed := range slices.Compact(slices.Sorted(slices.Values(j.opts.Seeds))) {
		if seed == self.Address {
			selfNamed = true
			v.possible++
			continue
		}
		addresses, err := j.lookUp(ctx, seed)
		if err != nil {
			mu.Lock()
			troubles[seed] = err.Error()
			mu.Unlock()
		}
		seeds[seed] = addresses
		n := max(1, families(addresses))
		if n > 1 {
			v.several = seed
		}
		v.possible += n
		mu.Lock()
		for _, address := range addresses {
			ask(address)
		}
		mu.Unlock()
	}
	j.mu.Lock()
	known := slices.Collect(maps.Keys(j.known))
	j.mu.Unlock()
	mu.Lock()
	for _, address := range known {
		ask(address)
	}
	for _, founder := range j.found.founders() {
		if founder.ID != self.ID {
			ask(founder.Address)
		}
	}
	mu.Unlock()
	wg.Wait()
	j.mu.Lock()
	for _, a := range byID {
		j.learn(a.Node.Address)
		for _, address := range a.Known {
			j.learn(address)
		}
	}
	// What was learned and does not answer is not asked for ever.
	for address := range troubles {
		delete(j.known, address)
	}
	j.mu.Unlock()
	if me, ok := byID[self.ID]; ok {
		for _, addresses := range seeds {
			selfNamed = selfNamed || slices.Contains(addresses, me.address)
		}
		delete(byID, self.ID)
	}
	if !selfNamed {
		v.possible++
	}
	v.answers = slices.SortedFunc(maps.Values(byID), func(a, b located) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	var words []string
	for _, address := range slices.Sorted(maps.Keys(troubles)) {
		words = append(words, address+": "+troubles[address])
	}
	return v, strings.Join(words, "; ")
}

// lookUp are the addresses behind a seed.
func (j *Joiner) lookUp(ctx context.Context, seed string) ([]string, error) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{seed}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinAsk)
	defer cancel()
	hosts, err := j.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	addresses := make([]string, len(hosts))
	for i, h := range hosts {
		addresses[i] = net.JoinHostPort(h, port)
	}
	return addresses, nil
}

// families is how many nodes the addresses of one name may stand for: a node may have
// one of each family.
func families(addresses []string) int {
	six := 0
	for _, address := range addresses {
		if strings.HasPrefix(address, "[") {
			six++
		}
	}
	return max(six, len(addresses)-six)
}

// propose asks the founders to promise. What comes of it shows in the next round; it
// says whether all that answer have.
func (j *Joiner) propose(ctx context.Context, f Formation, answers []located) bool {
	var wg sync.WaitGroup
	var failed atomic.Bool
	for _, a := range answers {
		if !slices.Contains(f.ids(), a.Node.ID) {
			continue
		}
		wg.Go(func() {
			got, err := j.ask(ctx, a.address, question{From: j.found.self(), Propose: &f})
			if err == nil && got.Refused != "" {
				err = errors.New(got.Refused)
			}
			if err != nil {
				failed.Store(true)
				j.log.Warn("founder has not promised", "peer", a.Node.Name, "err", err)
			}
		})
	}
	wg.Wait()
	return !failed.Load()
}
