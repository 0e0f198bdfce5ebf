package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"hadal/auth"
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
	owner  *owner
	listen *listen.Registry
	cfg    Config
	stats  counters

	lanes     sync.Map // client id → *lane, of clients that have asked for something
	operators *lane
}

// Deps are the rooms and services that records need. All are required.
type Deps struct {
	Store   store.Store
	Epoch   uint64 // at which this node owns the partition
	Subs    *sub.Registry
	Listen  *listen.Registry
	Rules   checker
	Log     *slog.Logger
	Observe func(time.Duration) // is told the time from receipt to commit of each write
}

// New wires the room. Nothing happens before Run.
func New(cfg Config, keep KeepConfig, d Deps) *Room {
	r := &Room{listen: d.Listen, cfg: cfg, operators: newLane()}
	hold := time.NewTimer(time.Hour)
	hold.Stop()
	r.owner = &owner{
		cfg: cfg, maxSize: keep.MaxSize, fast: keep.Durability == "fast", store: d.Store, epoch: d.Epoch,
		subs: d.Subs, listen: d.Listen, rules: d.Rules, log: d.Log, observe: d.Observe,
		stats: &r.stats,
		mail:  newMailbox(), cache: newCache(keep.CacheBytes),
		open: &batch{}, doubt: make(map[string]struct{}), hold: hold,
		loaded:   make(chan loadResult, loadsAtOnce),
		appended: make(chan error, 1),
		refenced: make(chan struct{}, 1),
	}
	return r
}

// Run takes the partition over and serves until ctx ends and all that was asked
// before is answered.
func (r *Room) Run(ctx context.Context) error {
	if err := r.owner.store.Fence(ctx, r.owner.epoch); err != nil {
		r.owner.mail.stop()
		return fmt.Errorf("take over records: %w", err)
	}
	r.stats.ready.Store(true)
	r.owner.run(ctx)
	r.stats.ready.Store(false)
	return nil
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
	l := r.lane(c)
	r.lanes.Delete(c.ID())
	// When the room has stopped nothing is left to forget.
	_ = r.owner.mail.put(l, &request{kind: kindClosed, client: c})
}

// put hands requests of one kind to the owner, when there is room for them. When
// the room has stopped the process is ending and the client is being closed:
// nobody is left to answer.
func (r *Room) put(reqs ...*request) bool {
	l := r.operators
	if c := reqs[0].client; c != nil {
		l = r.lane(c)
		l.enter(reqs)
	}
	if r.owner.mail.put(l, reqs...) == nil {
		return true
	}
	for _, req := range reqs {
		req.leave()
	}
	return false
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
		if base.client.Gone() || !r.put(split(base, names, nil)...) {
			return // nobody waits for the rest
		}
	}
}

// headMany serves SUBSCRIBEANDHEAD: part by part, because the owner looks at all
// names of a request in one turn, and must have loaded the unknown ones of one
// part before it is given more.
func (r *Room) headMany(base request, m *protocol.Message) {
	base.kind = kindSubscribeAndHead
	for rest := m.Names; ; {
		part := base
		n := min(len(rest), bulkPart)
		part.names, rest = slices.Clone(rest[:n]), rest[n:]
		part.last = len(rest) == 0
		if part.last {
			r.put(&part)
			return
		}
		served := make(chan struct{})
		part.group = &group{left: 1, done: func() { close(served) }}
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

// each serves a request that is acknowledged once when all its names are done.
func (r *Room) each(base request, k kind, m *protocol.Message, ack *protocol.Message) {
	if len(m.Names) == 0 {
		base.answer(ack)
		return
	}
	base.kind = k
	asked := base
	g := &group{left: len(m.Names), done: func() { asked.answer(ack) }}
	for names := range slices.Chunk(m.Names, bulkPart) {
		if !r.put(split(base, names, g)...) {
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
