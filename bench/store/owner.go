package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hadal/store"
)

// The bounds of node/record's owner.
const (
	batchNames   = store.MaxOps
	batchBytes   = 256 << 10
	batchEffects = 8192
	turn         = 512

	appendTimeout = 10 * time.Second
)

// write is one change on its way, and its writer's to use again when done.
type write struct {
	name, data string
	version    int32 // the one it follows, or -1 for whatever is there
	done       chan error
}

// record is what the owner remembers of a name.
type record struct {
	version int32
	batch   *batch // the newest one that holds a change of it, until durable
	op      int    // its index there
}

type batch struct {
	ops    []store.Op
	names  []*record // of ops, by index
	bytes  int
	writes []*write
}

func (b *batch) full() bool {
	return len(b.ops) >= batchNames || b.bytes >= batchBytes || len(b.writes) >= batchEffects
}

// owner commits in groups as the owner in node/record does: a change goes into
// the open batch, changes of the same name fold into one, and as soon as no
// append is under way the open batch is appended. No timer is involved. All
// names are in memory, so nothing is ever loaded.
//
// One append is under way at a time: that is the contract of store.Store.
type owner struct {
	store   store.Store
	records map[string]*record

	mu   sync.Mutex
	box  []*write      // guarded by mu
	bell chan struct{} // rung when box may be no longer empty

	open, flying *batch // flying is nil when no append is under way
	backlog      []*write
	next         int // the first of backlog that is not in a batch
	appended     chan error
	appends      int
	helper       sync.WaitGroup
}

func newOwner(s store.Store) *owner {
	return &owner{
		store: s, records: make(map[string]*record), bell: make(chan struct{}, 1),
		open: &batch{}, appended: make(chan error, 1),
	}
}

// put hands a write over; its done hears of the end. It may be called from
// anywhere.
func (o *owner) put(w *write) {
	o.mu.Lock()
	first := len(o.box) == 0
	o.box = append(o.box, w)
	o.mu.Unlock()
	if first {
		select {
		case o.bell <- struct{}{}:
		default:
		}
	}
}

// run serves until ctx ends. Writers must have ended before.
func (o *owner) run(ctx context.Context) {
	defer o.helper.Wait()
	for {
		more := o.serve()
		o.submit(ctx)
		if more {
			select {
			case err := <-o.appended:
				o.settle(err)
			default:
			}
			continue
		}
		bell := o.bell
		if o.open.full() {
			bell = nil // what waits there is not lost: serve looks after every event
		}
		select {
		case <-bell:
		case err := <-o.appended:
			o.settle(err)
		case <-ctx.Done():
			return
		}
	}
}

// serve moves up to a turn of writes into the open batch and says whether there is
// more and room for it.
func (o *owner) serve() bool {
	for served := 0; !o.open.full(); served++ {
		if served == turn {
			return true
		}
		if o.next == len(o.backlog) {
			clear(o.backlog)
			o.mu.Lock()
			o.backlog, o.box = o.box, o.backlog[:0]
			o.mu.Unlock()
			o.next = 0
			if len(o.backlog) == 0 {
				return false
			}
		}
		o.handle(o.backlog[o.next])
		o.next++
	}
	return false
}

func (o *owner) handle(w *write) {
	r := o.records[w.name]
	if r == nil {
		r = &record{}
		o.records[w.name] = r
	}
	if w.version >= 0 && w.version != r.version {
		w.done <- fmt.Errorf("%s has version %d, not %d", w.name, r.version, w.version)
		return
	}
	r.version++
	op := store.Op{Record: store.Record{Name: w.name, Version: r.version, Data: w.data}}
	b := o.open
	b.writes = append(b.writes, w)
	if r.batch == b {
		b.bytes += len(w.data) - len(b.ops[r.op].Data)
		b.ops[r.op] = op
		return
	}
	r.batch, r.op = b, len(b.ops)
	b.ops = append(b.ops, op)
	b.names = append(b.names, r)
	b.bytes += len(w.name) + len(w.data)
}

// submit starts the append of the open batch if none is under way.
func (o *owner) submit(ctx context.Context) {
	if o.flying != nil || len(o.open.ops) == 0 {
		return
	}
	b := o.open
	o.flying, o.open = b, &batch{}
	o.helper.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, appendTimeout)
		defer cancel()
		o.appended <- o.store.Append(ctx, b.ops)
	})
}

// settle ends the append under way.
func (o *owner) settle(err error) {
	b := o.flying
	o.flying = nil
	o.appends++
	for _, r := range b.names {
		if r.batch == b {
			r.batch = nil
		}
	}
	for _, w := range b.writes {
		w.done <- err
	}
}
