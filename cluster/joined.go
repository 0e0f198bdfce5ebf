package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftDir is where raft keeps its log, in the data directory.
const raftDir = "raft"

const (
	// gatherTime bounds the start of the embedded server of a cluster: its meta group needs
	// a majority of the core nodes, which may be started one by one.
	gatherTime = 24 * time.Hour
	// tendEvery is how often a node of a cluster looks after what the table does not tell.
	tendEvery = 2 * time.Second
)

// recordsSetting is set when the cluster's records are all there: at once where it began
// without any, or when those of a node that ran alone have been copied.
const recordsSetting = "records"

// joined is what the place of a node in a cluster is made of. All of it runs from join
// until close.
type joined struct {
	cfg      Config
	log      *slog.Logger
	dir      *Dir
	identity *Identity
	port     *Port
	joiner   *Joiner
	raft     *Raft
	links    *Links
	server   *Server
	slots    *SlotBus
	control  *control

	strangers map[string]bool // ids of the meta group that were no members at the last look; of tend

	adopts bool // this node brings the records that the cluster begins with

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	endRaft context.CancelFunc
	raftEnd sync.WaitGroup
}

// bus is the Bus of a node in a cluster.
type bus struct {
	*Links
	slots *SlotBus
}

var _ Bus = bus{}

// Handle implements Bus.
func (b bus) Handle(k Kind, h Handler) {
	b.Links.Handle(k, h)
	if k == KindEvent { // of all kinds, this one is published
		b.slots.Handle(k, h)
	}
}

// Publish implements Bus.
func (b bus) Publish(k Kind, slot uint16, payload []byte) { b.slots.Publish(k, slot, payload) }

// Join implements Bus.
func (b bus) Join(k Kind, slot uint16) { b.slots.Join(k, slot) }

// Leave implements Bus.
func (b bus) Leave(k Kind, slot uint16) { b.slots.Leave(k, slot) }

// join finds the cluster, or founds it with others, and takes this node's place in it. It
// may take as long as it takes the others to be there.
func join(ctx context.Context, cfg Config, opts PlaceOptions, log *slog.Logger) (_ *joined, err error) {
	j := &joined{cfg: cfg, log: log, dir: opts.Dir}
	if cfg.Role == RoleCore && opts.Server == nil {
		return nil, errors.New("a core node keeps records")
	}
	j.ctx, j.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err == nil {
			return
		}
		if cause := context.Cause(j.ctx); cause != nil && !errors.Is(err, cause) {
			err = errors.Join(err, cause)
		}
		j.close()
	}()
	// What fails in the background ends the start as well.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(j.ctx, func() { stop(context.Cause(j.ctx)) })()

	self, err := j.listen(opts.Name)
	if err != nil {
		return nil, err
	}
	formation, err := j.found(ctx, self)
	if err != nil {
		return nil, err
	}
	if err := j.enterTable(ctx, self, formation); err != nil {
		return nil, err
	}
	j.links = NewLinks(LinksConfig{}, LinkSelf{ID: self.ID, Name: self.Name, Incarnation: self.Incarnation, ClusterID: j.raft.ClusterID()}, j.port, log)
	if err := j.startServer(ctx, opts.Server); err != nil {
		return nil, err
	}
	j.slots = NewSlotBus(j.server, log)
	describe := opts.Describe
	j.control = newControl(bus{j.links, j.slots}, func(context.Context, string, []byte) ([]byte, error) {
		if describe == nil {
			return nil, nil
		}
		return describe(), nil
	})
	return j, nil
}

// listen opens the port for the other nodes, and says who this one is.
func (j *joined) listen(name string) (self Peer, err error) {
	j.identity, err = NewIdentity(IdentityConfig{
		Cluster: j.cfg.Name, Node: j.dir.NodeID(), Secret: j.cfg.Secret, Files: j.cfg.TLS,
	}, j.log)
	if err != nil {
		return self, err
	}
	listen, err := NextPort(j.cfg.Listen)
	if err != nil {
		return self, err
	}
	advertise, routes := "", j.cfg.Listen
	if j.cfg.Advertise != "" {
		if advertise, err = NextPort(j.cfg.Advertise); err != nil {
			return self, err
		}
		routes = j.cfg.Advertise
	}
	j.port = NewPort(PortConfig{Listen: listen, Advertise: advertise}, j.identity, j.log)
	if err := j.port.Listen(); err != nil {
		return self, err
	}
	j.background("certificates", j.identity.Run)
	j.background("cluster port", j.port.Run)
	return Peer{
		Member: Member{ID: j.dir.NodeID(), Name: name, Incarnation: j.dir.Epoch(), Role: j.cfg.Role, URL: j.cfg.PublicURL},
		NATS:   routes, Raft: j.port.Address(),
	}, nil
}

// background runs a part until close; one that fails ends the place.
func (j *joined) background(what string, run func(context.Context) error) {
	j.wg.Go(func() {
		if err := run(j.ctx); err != nil && j.ctx.Err() == nil {
			j.cancel(fmt.Errorf("%s: %w", what, err))
		}
	})
}

// found finds out into which cluster this node belongs, and with whom it begins.
func (j *joined) found(ctx context.Context, self Peer) (Formation, error) {
	belongs := j.dir.Belongs()
	seeds := make([]string, 0, len(j.cfg.Join))
	for _, addr := range j.cfg.Join {
		seed, err := NextPort(addr)
		if err != nil {
			return Formation{}, fmt.Errorf("cluster.join: %w", err)
		}
		seeds = append(seeds, seed)
	}
	info := NodeInfo{
		ID: self.ID, Name: self.Name, Role: self.Role, Incarnation: self.Incarnation,
		Address: self.Raft, Routes: self.NATS, SoloRecords: j.dir.HoldsAlone(), Run: newID(),
	}
	opts := JoinOptions{Seeds: seeds, Expect: j.cfg.BootstrapExpect, Self: info}
	if belongs != nil {
		opts.Self.ClusterID, opts.Self.Formed = belongs.ClusterID, belongs.Joined
		if len(belongs.Founders) > 0 {
			opts.Promised = &Formation{ClusterID: belongs.ClusterID, Founders: belongs.Founders}
		}
	}
	opts.Persist = func(f Formation) error {
		return j.dir.Promise(Belonging{Name: j.cfg.Name, ClusterID: f.ClusterID, Founders: f.Founders})
	}
	var err error
	if j.joiner, err = NewJoiner(opts, j.port, j.log); err != nil {
		return Formation{}, err
	}
	if belongs != nil && belongs.Joined {
		if err := j.joiner.Twin(ctx, j.cfg.FailureTimeout); err != nil {
			return Formation{}, j.ofDir(err)
		}
		return Formation{ClusterID: belongs.ClusterID, Founders: belongs.Founders}, nil // raft knows the others
	}
	f, err := j.joiner.Discover(ctx)
	return f, j.ofDir(err)
}

// ofDir names the data directory where an error is about what it makes of this node.
func (j *joined) ofDir(err error) error {
	for _, what := range []error{ErrRemoved, ErrCopied, ErrOldIncarnation} {
		if errors.Is(err, what) {
			return fmt.Errorf("data directory %s: %w", j.dir.Path(), err)
		}
	}
	return err
}

// enterTable runs raft, and returns when this node has a table in which it is a member.
func (j *joined) enterTable(ctx context.Context, self Peer, f Formation) error {
	belongs := j.dir.Belongs()
	again := belongs != nil && belongs.Joined
	if !again && j.dir.HoldsAlone() && !f.Founds() {
		return fmt.Errorf("data directory %s holds records of a node that ran alone, and cluster %s exists already: start with an empty one, and bring the records in by hadal records export and import", j.dir.Path(), f.ClusterID)
	}
	var err error
	j.raft, err = NewRaft(RaftOptions{
		Dir: filepath.Join(j.dir.Path(), raftDir), Self: self, Stream: j.port.Raft(),
		// A founder's promise is in the table, too, from the moment that there is one.
		Returns:        again || f.hasFounder(self.ID),
		FailureTimeout: j.cfg.FailureTimeout, Replicas: j.cfg.Replicas, Log: j.log,
	})
	if err != nil {
		return err
	}
	// Raft ends before the port does, over which it says goodbye.
	var ctxRaft context.Context
	ctxRaft, j.endRaft = context.WithCancel(j.ctx)
	j.raftEnd.Go(func() {
		if err := j.raft.Run(ctxRaft); err != nil && ctxRaft.Err() == nil {
			j.cancel(fmt.Errorf("raft: %w", j.ofDir(err)))
		}
	})
	addresses := []string{}
	if f.Leader != "" {
		addresses = append(addresses, f.Leader)
	}
	for _, founder := range f.Founders {
		addresses = append(addresses, founder.Address)
		if founder.ID == self.ID {
			j.adopts = founder.SoloRecords
		}
	}
	if f.Founds() && !again {
		peers := make([]Peer, len(f.Founders))
		for i, founder := range f.Founders {
			peers[i] = Peer{Member: Member{ID: founder.ID, Name: founder.Name, Role: RoleCore}, NATS: founder.Routes, Raft: founder.Address}
		}
		err := j.raft.Bootstrap(ctx, peers, f.ClusterID, j.cfg.Name, j.cfg.Partitions, 0)
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) { // it is, since before a crash
			return err
		}
		j.joiner.Formed(f.ClusterID, "")
	}
	for _, addr := range j.cfg.Join {
		if seed, err := NextPort(addr); err == nil {
			addresses = append(addresses, seed)
		}
	}
	j.log.Info("joining the cluster", "name", j.cfg.Name, "cluster", f.ClusterID)
	if err := j.joinTable(ctx, distinctAddrs(addresses)); err != nil {
		return fmt.Errorf("join cluster %s: %w", j.cfg.Name, j.ofDir(err))
	}
	select {
	case <-j.raft.Formed():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if id := j.raft.ClusterID(); id != f.ClusterID {
		return fmt.Errorf("cluster id %s was to be joined, and %s answered", f.ClusterID, id)
	}
	if name := j.raft.ClusterName(); name != j.cfg.Name {
		return fmt.Errorf("cluster.name is %q, and the cluster's is %q", j.cfg.Name, name)
	}
	j.joiner.Formed(f.ClusterID, "")
	j.dir.partitions(j.raft.Partitions())
	return j.dir.Promise(Belonging{Name: j.cfg.Name, ClusterID: f.ClusterID, Founders: f.Founders, Joined: true})
}

// nameFreeAfter is for how many failure timeouts a node waits for its name. One that
// returns at once without its data finds the cluster still counting on what it was.
const nameFreeAfter = 10

// joinTable becomes a member, when no other node that lives has the name.
func (j *joined) joinTable(ctx context.Context, addresses []string) error {
	give := time.NewTimer(nameFreeAfter * j.cfg.FailureTimeout)
	defer give.Stop()
	again := time.NewTicker(max(j.cfg.FailureTimeout/4, time.Millisecond))
	defer again.Stop()
	for {
		err := j.raft.Join(ctx, addresses)
		// Whether a copy runs is judged by what is heard of it, so it is asked more than once.
		if !errors.Is(err, ErrNameTaken) && !errors.Is(err, ErrCopied) {
			return err
		}
		select {
		case <-again.C:
		case <-give.C:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// distinctAddrs are the addresses without repetitions.
func distinctAddrs(all []string) []string {
	var out []string
	for _, a := range all {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// startServer starts the embedded server, and returns when it can be used.
func (j *joined) startServer(ctx context.Context, opts *Options) error {
	var o Options
	if opts != nil {
		o = *opts
	}
	host, port, err := net.SplitHostPort(j.cfg.Listen)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	o.Dir, o.Log = j.dir, j.log
	o.Cluster = &ClusterOptions{
		Name: j.cfg.Name, Host: host, Port: n, Advertise: j.cfg.Advertise, Routes: j.routes(),
		TLS: j.identity.RouteConfig(), JetStream: j.cfg.Role == RoleCore, StockTimers: !j.cfg.FastFailover,
	}
	if j.server, err = Start(ctx, o); err != nil {
		return err
	}
	j.background("embedded server", j.server.Supervise)
	if j.cfg.Role == RoleEdge {
		return nil
	}
	if len(j.routes()) == 1 { // JetStream's groups begin when a route is up
		j.log.Warn("a cluster of one core node serves nothing until another core node has joined: start one with this node in its cluster.join, or set no cluster.name")
	}
	ctx, done := context.WithTimeout(ctx, gatherTime)
	defer done()
	return j.server.AwaitPeers(ctx, 1)
}

// routes are the core nodes' addresses for NATS, this one's among them.
func (j *joined) routes() []string { return routesTo(j.raft.Peers()) }

// routesTo are the core nodes' addresses for NATS, each once and sorted. While one that
// came back without its data replaces what it was, two members have the same address;
// when one of them goes the connection must not, as whatever is on its way is lost with it.
func routesTo(peers []Peer) (all []string) {
	for _, p := range peers {
		if p.Role == RoleCore {
			all = append(all, p.NATS)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// run begins what needs the rooms' handlers.
func (j *joined) run() {
	j.background("links", j.links.Run)
	j.background("slots", j.slots.Run)
	j.background("control", j.control.Run)
	j.background("members", j.follow)
	j.background("fitness", j.watchFitness)
	if j.cfg.Role == RoleCore && j.cfg.FastFailover {
		j.background("elections", j.elect)
	}
}

// follow has the links and the server know who the members are, until ctx ends.
func (j *joined) follow(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		changed := j.raft.Changed()
		var peers []PeerAddr
		for _, p := range j.raft.Peers() {
			peers = append(peers, PeerAddr{ID: p.ID, Name: p.Name, Addr: p.Raft, Incarnation: p.Incarnation})
		}
		j.links.SetPeers(peers)
		if err := j.server.SetRoutes(j.routes()); err != nil {
			j.log.Error("routes to the cluster's nodes not set", "err", err)
		}
		for again := true; again; {
			select {
			case <-changed:
				again = false
			case <-tick.C:
				j.tend(ctx)
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// tend looks after what has no event of its own: it tells who asks who leads, and, on the
// leader, has the meta group forget who is no member any more.
func (j *joined) tend(ctx context.Context) {
	s := j.raft.Status()
	members, ids := make(map[string]string), make(map[string]bool)
	for _, m := range s.Members {
		members[m.ID] = m.Raft
		ids[peerID(m.ID)] = true
	}
	j.joiner.Formed(s.ClusterID, members[s.Leader])
	j.joiner.Meet(slices.Collect(maps.Values(members)))
	before := j.strangers
	j.strangers = nil
	if s.Leader != s.Node || j.cfg.Role != RoleCore {
		return
	}
	peers, led := j.server.Peers()
	if !led {
		return
	}
	strangers := strangersAmong(peers, ids)
	j.strangers = strangers
	for id := range strangers {
		if !before[id] {
			continue // this node may only be about to hear of it, or to lead no more
		}
		ctx, done := context.WithTimeout(ctx, tendEvery)
		err := j.server.removePeer(ctx, id)
		done()
		if err != nil {
			j.log.Warn("a server that is no member any more is not forgotten yet", "peer", id, "err", err)
			continue
		}
		j.log.Info("the meta group has forgotten a server that is no member any more", "peer", id)
		return // one at a time
	}
}

// strangersAmong are the servers of the meta group that belong to no member. Whether they
// are online does not matter: one that was killed counts as such for minutes, and a member
// joins the table before its server starts.
func strangersAmong(peers []ServerPeer, members map[string]bool) map[string]bool {
	strangers := make(map[string]bool)
	for _, p := range peers {
		if p.ID != "" && !members[p.ID] {
			strangers[p.ID] = true
		}
	}
	return strangers
}

// close ends it all, and returns when nothing of it runs.
func (j *joined) close() {
	if j.endRaft != nil {
		j.endRaft()
		j.raftEnd.Wait()
	}
	j.cancel(nil)
	j.wg.Wait()
	if j.server != nil {
		j.server.Close()
	}
}

// wait returns when ctx ends, or with what has ended the place.
func (j *joined) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-j.ctx.Done():
		return context.Cause(j.ctx)
	}
}

// Setting implements settings.
func (j *joined) Setting(name string) (uint64, []byte) {
	value, number := j.raft.Setting(name)
	return number, value
}

// SetSetting implements settings.
func (j *joined) SetSetting(ctx context.Context, name string, value []byte, expected uint64) error {
	return j.raft.Set(ctx, name, value, expected)
}
