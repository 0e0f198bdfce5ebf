package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// Place is this node's place in its cluster: the Table and the Bus that rooms stand
// on, and the embedded server below. Rooms may have it before it is open: until then
// nobody owns anything, and nobody is linked. A node that runs alone has a Place too,
// and nobody else needs to know.
type Place struct {
	cfg Config
	log *slog.Logger

	opened chan struct{}
	inner  atomic.Pointer[inner] // nil until Open

	mu       sync.Mutex
	handlers map[Kind]Handler // guarded by mu; until Run
}

// inner is what Open has made.
type inner struct {
	table    Table
	bus      Bus
	settings settings
	server   *Server // nil when nothing is kept
	joined   *joined // nil for a node that runs alone
}

var (
	_ Table = (*Place)(nil)
	_ Bus   = (*Place)(nil)
)

// NewPlace returns the place of a node before it is open. It opens nothing.
func NewPlace(cfg Config, log *slog.Logger) *Place {
	return &Place{cfg: cfg, log: log, opened: make(chan struct{}), handlers: make(map[Kind]Handler)}
}

// PlaceOptions is what Open needs to know.
type PlaceOptions struct {
	// Name is the node's, for people.
	Name string
	// Dir is the data directory, or nil for a node alone that keeps nothing.
	Dir *Dir
	// Describe is what this node answers to those who Ask. nil is nothing.
	Describe func() []byte
	// Server configures the embedded server; its Dir is set by Open. nil is none.
	Server *Options
}

// Open takes the place: alone, or in the cluster, which takes as long as it takes to find the
// other nodes. It returns when this node knows the table, or with an error that names what
// is in the way. It is called once; Close must be called after it has succeeded.
func (p *Place) Open(ctx context.Context, opts PlaceOptions) error {
	if p.cfg.Enabled() {
		if b := opts.Dir.Belongs(); b != nil && b.Name != p.cfg.Name {
			return fmt.Errorf("data directory %s belongs to a node of cluster %q, and cluster.name is %q", opts.Dir.Path(), b.Name, p.cfg.Name)
		}
		j, err := join(ctx, p.cfg, opts, p.log)
		if err != nil {
			return err
		}
		p.enter(&inner{table: j.raft, bus: bus{j.links, j.slots}, settings: j, server: j.server, joined: j})
		return nil
	}
	in := &inner{bus: Alone{}, settings: new(soloSettings)}
	if opts.Dir == nil {
		in.table = NewSoloInMemory(opts.Name)
	} else {
		if b := opts.Dir.Belongs(); b != nil {
			return fmt.Errorf("data directory %s belongs to a node of cluster %q: set cluster.name", opts.Dir.Path(), b.Name)
		}
		in.table = NewSolo(opts.Dir, opts.Name)
	}
	if opts.Server != nil {
		server := *opts.Server
		server.Dir = opts.Dir
		var err error
		if in.server, err = Start(ctx, server); err != nil {
			return err
		}
	}
	p.enter(in)
	return nil
}

// enter makes the place what it is from now on.
func (p *Place) enter(in *inner) {
	p.inner.Store(in)
	close(p.opened)
}

// Ask asks another node how it is: what its Describe says.
func (p *Place) Ask(ctx context.Context, peer string) ([]byte, error) {
	in := p.inner.Load()
	if in == nil || in.joined == nil {
		return nil, ErrAlone
	}
	return in.joined.control.ask(ctx, peer, nil)
}

// Run keeps the place until ctx ends: from here on there are links to other nodes. All
// rooms that want to hear of them have said so by Handle. An error means that this node
// has no place any more.
func (p *Place) Run(ctx context.Context) error {
	in := p.inner.Load()
	if in == nil {
		return errors.New("run: the place is not open")
	}
	p.mu.Lock()
	for k, h := range p.handlers {
		in.bus.Handle(k, h)
	}
	p.handlers = nil
	p.mu.Unlock()
	if in.joined != nil {
		in.joined.run()
	}
	switch {
	case in.joined != nil:
		return in.joined.wait(ctx)
	case in.server == nil:
		<-ctx.Done()
		return nil
	}
	return in.server.Supervise(ctx)
}

// Close gives the place up. Run has ended, and what stands on the server is closed.
func (p *Place) Close() {
	in := p.inner.Load()
	switch {
	case in == nil:
	case in.joined != nil:
		in.joined.close()
	case in.server != nil:
		in.server.Close()
	}
}

// Adopts says whether this node has to copy the records that it kept while it ran alone
// into the cluster, and then call RecordsComplete.
func (p *Place) Adopts() bool {
	in := p.inner.Load()
	if in == nil || in.joined == nil || !in.joined.adopts {
		return false
	}
	number, _ := p.Setting(recordsSetting)
	return number == 0
}

// AwaitRecords returns when the cluster has all the records that it begins with. Nobody
// should be let in before.
func (p *Place) AwaitRecords(ctx context.Context) error {
	in := p.inner.Load()
	if in == nil || in.joined == nil {
		return nil
	}
	for {
		changed := p.Changed()
		if number, _ := p.Setting(recordsSetting); number > 0 {
			return nil
		}
		if b := in.joined.dir.Belongs(); b.founded() && !b.adopts() {
			return p.RecordsComplete(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// RecordsComplete says to all nodes that the cluster has the records that it begins with.
func (p *Place) RecordsComplete(ctx context.Context) error {
	return p.SetFirst(ctx, recordsSetting, []byte(p.Self().ID))
}

// Replicas is how many nodes are to keep a partition: 1 on a node that runs alone.
func (p *Place) Replicas(partition int) int {
	if in := p.inner.Load(); in != nil && in.joined != nil {
		return max(len(in.joined.raft.Replicas(partition)), 1)
	}
	return 1
}

// Server is the embedded server, or nil before Open and when nothing is kept.
func (p *Place) Server() *Server {
	if in := p.inner.Load(); in != nil {
		return in.server
	}
	return nil
}

// ClusterID implements Table.
func (p *Place) ClusterID() string {
	if in := p.inner.Load(); in != nil {
		return in.table.ClusterID()
	}
	return ""
}

// Self implements Table.
func (p *Place) Self() Member {
	if in := p.inner.Load(); in != nil {
		return in.table.Self()
	}
	return Member{}
}

// Members implements Table.
func (p *Place) Members() []Member {
	if in := p.inner.Load(); in != nil {
		return in.table.Members()
	}
	return nil
}

// Partitions implements Table.
func (p *Place) Partitions() int {
	if in := p.inner.Load(); in != nil {
		return in.table.Partitions()
	}
	return 0
}

// Owner implements Table.
func (p *Place) Owner(partition int) Ownership {
	if in := p.inner.Load(); in != nil {
		return in.table.Owner(partition)
	}
	return Ownership{}
}

// Holds implements Table.
func (p *Place) Holds(partition int) bool {
	in := p.inner.Load()
	return in != nil && in.table.Holds(partition)
}

// Changed implements Table: opening is a change.
func (p *Place) Changed() <-chan struct{} {
	if in := p.inner.Load(); in != nil {
		return in.table.Changed()
	}
	return p.opened
}

// Handle implements Bus.
func (p *Place) Handle(k Kind, h Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handlers == nil {
		panic("cluster: Handle after Run")
	}
	p.handlers[k] = h
}

// Send implements Bus.
func (p *Place) Send(peer string, k Kind, payload []byte) bool {
	in := p.inner.Load()
	return in != nil && in.bus.Send(peer, k, payload)
}

// Offer implements Bus.
func (p *Place) Offer(peer string, k Kind, payload []byte) bool {
	in := p.inner.Load()
	return in != nil && in.bus.Offer(peer, k, payload)
}

// Linked implements Bus.
func (p *Place) Linked(peer string) bool {
	in := p.inner.Load()
	return in != nil && in.bus.Linked(peer)
}

// Publish implements Bus.
func (p *Place) Publish(k Kind, slot uint16, payload []byte) {
	if in := p.inner.Load(); in != nil {
		in.bus.Publish(k, slot, payload)
	}
}

// Join implements Bus. What is joined before Open is not heard of: no client is there
// then who could want to.
func (p *Place) Join(k Kind, slot uint16) {
	if in := p.inner.Load(); in != nil {
		in.bus.Join(k, slot)
	}
}

// Leave implements Bus.
func (p *Place) Leave(k Kind, slot uint16) {
	if in := p.inner.Load(); in != nil {
		in.bus.Leave(k, slot)
	}
}
