package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"hadal/store"
)

// This file lists what is kept, for the operator: names and whole records of all
// partitions. What another node owns comes from there in pages, the next one when the
// one before has been worked off.

const (
	// scansAtOnce is how many lists one peer may have under way here.
	scansAtOnce = 8
	// scanPatience is how long a peer may take for a page.
	scanPatience = time.Minute
)

var (
	errScanEnded = errors.New("the records were moved to another node meanwhile; try again")
	errScans     = errors.New("too many lists at once; try again later")
)

// scans are the lists under way.
type scans struct {
	mu      sync.Mutex
	asked   map[uint64]*scanAsked    // of peers, by id; guarded by mu
	serving map[scanKey]*scanServing // for peers; guarded by mu
	ctx     context.Context          // while the room runs; guarded by mu
	running sync.WaitGroup
}

// scanAsked is a list that a peer makes for us.
type scanAsked struct {
	link  *link
	pages chan *frame // closed when the link has ended; there is one page at a time
}

type scanKey struct {
	link *link
	id   uint64
}

// scanServing is one that we make for a peer.
type scanServing struct {
	more chan struct{}
	stop context.CancelFunc
}

// Names calls fn for the name of every stored record that begins with prefix,
// in no promised order. Records kept in memory only are not among them.
func (r *Room) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return r.scan(ctx, prefix, false, func(rec store.Record) error { return fn(rec.Name) })
}

// Scan is Names with the whole record.
func (r *Room) Scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	return r.scan(ctx, prefix, true, fn)
}

func (r *Room) scan(ctx context.Context, prefix string, data bool, fn func(store.Record) error) error {
	for _, s := range r.seats() {
		o, l, epoch, err := s.whom(ctx)
		switch {
		case err != nil:
		case o == nil:
			err = r.scans.ask(ctx, l, &frame{kind: frameScan, partition: s.partition, epoch: epoch, data: data, prefix: prefix}, fn)
		default:
			err = scanStore(ctx, o.store, prefix, data, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func scanStore(ctx context.Context, st store.Store, prefix string, data bool, fn func(store.Record) error) error {
	if data {
		return st.Scan(ctx, prefix, fn)
	}
	return st.Names(ctx, prefix, func(name string) error { return fn(store.Record{Name: name}) })
}

// whom waits for an owner, here or behind a link.
func (s *seat) whom(ctx context.Context) (o *owner, l *link, epoch uint64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, holdTime, errNoOwner)
	defer cancel()
	tick := time.NewTicker(seatTick)
	defer tick.Stop()
	for {
		if o := s.owner.Load(); o != nil {
			return o, nil, 0, nil
		}
		s.mu.Lock()
		l, epoch := s.link, s.epoch
		s.mu.Unlock()
		if l != nil {
			return nil, l, epoch, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, 0, context.Cause(ctx)
		}
	}
}

// ask has a peer make a list.
func (c *scans) ask(ctx context.Context, l *link, f *frame, fn func(store.Record) error) error {
	f.id = l.room.ids.Add(1)
	a := &scanAsked{l, make(chan *frame, 1)}
	c.mu.Lock()
	c.asked[f.id] = a
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.asked, f.id)
		c.mu.Unlock()
	}()
	if l.down.Load() {
		return errScanEnded
	}
	l.emit(f)
	for {
		l.flush()
		select {
		case <-ctx.Done():
			l.emit(&frame{kind: frameStop, partition: f.partition, id: f.id})
			l.flush()
			return context.Cause(ctx)
		case page, ok := <-a.pages:
			if !ok {
				return errScanEnded
			}
			for i, name := range page.names {
				rec := store.Record{Name: name}
				if page.data {
					rec.Version, rec.Data = page.knows[i].version, page.knows[i].data
				}
				if err := fn(rec); err != nil {
					l.emit(&frame{kind: frameStop, partition: f.partition, id: f.id})
					l.flush()
					return err
				}
			}
			if page.text != "" {
				return errors.New(page.text)
			}
			if page.last {
				return nil
			}
			l.emit(&frame{kind: frameMore, partition: f.partition, id: f.id})
		}
	}
}

// hear takes a frame that is about a list.
func (c *scans) hear(l *link, s *seat, f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
	case framePage:
		if a := c.asked[f.id]; a != nil && a.link == l {
			select {
			case a.pages <- f:
			default: // one that nobody asked for
			}
		}
	case frameMore:
		if v := c.serving[scanKey{l, f.id}]; v != nil {
			select {
			case v.more <- struct{}{}:
			default:
			}
		}
	case frameStop:
		if v := c.serving[scanKey{l, f.id}]; v != nil {
			v.stop()
		}
	case frameScan:
		c.begin(l, s, f)
	}
}

// begin makes a list for a peer. The caller holds mu.
func (c *scans) begin(l *link, s *seat, f *frame) {
	refuse := func(err error) {
		l.emit(&frame{kind: framePage, partition: f.partition, id: f.id, last: true, text: err.Error()})
		l.flush()
	}
	o := s.owner.Load()
	if o == nil || o.epoch != f.epoch || c.ctx == nil {
		refuse(errScanEnded)
		return
	}
	n := 0
	for key := range c.serving {
		if key.link == l {
			n++
		}
	}
	if n >= scansAtOnce {
		refuse(errScans)
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	v := &scanServing{make(chan struct{}, 1), stop}
	key := scanKey{l, f.id}
	c.serving[key] = v
	prefix, data := strings.Clone(f.prefix), f.data
	c.running.Go(func() {
		defer stop()
		err := v.serve(ctx, o.store, l, s.partition, f.id, prefix, data)
		if err != nil && ctx.Err() == nil {
			refuse(err)
		}
		c.mu.Lock()
		delete(c.serving, key)
		c.mu.Unlock()
	})
}

// serve sends page after page.
func (v *scanServing) serve(ctx context.Context, st store.Store, l *link, partition int, id uint64, prefix string, data bool) error {
	page, size := &frame{kind: framePage, partition: partition, id: id, data: data}, 0
	err := scanStore(ctx, st, prefix, data, func(rec store.Record) error {
		page.names = append(page.names, rec.Name)
		if data {
			page.knows = append(page.knows, knowledge{version: rec.Version, exists: true, sure: true, data: rec.Data})
		}
		if size += len(rec.Name) + len(rec.Data); size < payloadBytes {
			return nil
		}
		l.emit(page)
		l.flush()
		page, size = &frame{kind: framePage, partition: partition, id: id, data: data}, 0
		patience := time.NewTimer(scanPatience)
		defer patience.Stop()
		select {
		case <-v.more:
			return nil
		case <-patience.C:
			return fmt.Errorf("%w: no word for %v", errScanEnded, scanPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	page.last = true
	l.emit(page)
	l.flush()
	return nil
}

// drop ends what was under way over a link.
func (c *scans) drop(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, a := range c.asked {
		if a.link == l {
			close(a.pages)
			delete(c.asked, id)
		}
	}
	for key, v := range c.serving {
		if key.link == l {
			v.stop()
		}
	}
}
