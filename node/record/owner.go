package record

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store"
)

// Bounds of the owner's work.
const (
	batchNames   = store.MaxOps // names in one append
	batchBytes   = 256 << 10    // of names and data, one larger record excepted
	batchEffects = 8192         // requests answered by one append
	loadsAtOnce  = 64           // loads under way
	loadsWaiting = 4096         // loads queued behind them before requests are held back
	turn         = 512          // requests served before the channels are looked at again

	holdTime      = 2 * time.Second // how long requests wait for a failed store to come back
	appendTimeout = 10 * time.Second
	// fullPause is how long a batch that was acknowledged before it was durable
	// rests while the store has no room for it.
	fullPause = 250 * time.Millisecond
)

// MaxBatch is the most bytes of names and JSON that one append holds, when a
// record has at most maxSize bytes and a name at most maxName.
func MaxBatch(maxSize, maxName int) int { return batchBytes + maxSize + maxName }

var (
	// errRefusing means that the store has been failing for longer than holdTime.
	errRefusing = errors.New("store does not accept writes")
	// errUnknown means that an append failed and could not be repeated in time.
	errUnknown = errors.New("the store did not answer; the write may have been made all the same")
	// errFull means that the store had no room for the batch; nothing was written.
	errFull = errors.New("the server's disk has no room or takes no writes; nothing was written, try again later")
)

// batch is a group of changes that become durable together, and what happens
// when they have.
type batch struct {
	ops     []store.Op
	entries []*entry // of ops, by index
	bytes   int
	effects []effect
	served  []*request // leave their lanes then
	// doubtful says that an append of it has failed, so that it may have been written.
	doubtful bool
}

// effect is what happens when a batch is durable, or with an error when it will not
// be.
type effect struct {
	of *request // which will be among the served, or nil
	do func(err error)
}

// end makes happen what waits for the batch, also what comes to wait for it meanwhile.
func (b *batch) end(err error) {
	for i := 0; i < len(b.effects); i++ {
		b.effects[i].do(err)
	}
	for i := 0; i < len(b.served); i++ {
		b.served[i].leave()
	}
}

func (b *batch) full() bool {
	return len(b.ops) >= batchNames || b.bytes >= batchBytes || len(b.effects) >= batchEffects
}

func (b *batch) empty() bool { return len(b.ops) == 0 }

// owner serves the requests for one partition, on one goroutine: every method
// but those that say otherwise belongs to run.
type owner struct {
	room      *Room
	partition int
	cfg       Config
	maxSize   int
	fast      bool // answer before the commit
	moves     bool // another node may be the next owner
	store     store.Store
	knower    store.Knower // store, or nil if it is none
	epoch     uint64
	subs      *sub.Registry
	listen    *listen.Registry
	rules     checker
	log       *slog.Logger
	stats     *counters
	observe   func(time.Duration)

	mail    *mailbox
	backlog []*request // taken from mail; next is the first not served
	next    int
	cache   *cache
	ready   []*entry // loaded entries whose queue waits to be served
	toLoad  []*entry // entries whose load has to wait its turn
	loads   int      // loads under way
	parked  int      // requests whose rules wait for other records
	loaded  chan loadResult

	open     *batch
	flying   *batch // being appended, or nil
	held     *batch // whose append failed and will be repeated, or nil
	telling  *batch // which is durable, and of which not everybody has been told, or nil
	appended chan error
	answered int           // requests that the last append has served
	turn     chan struct{} // is rung when a turn may be free (turns.go)
	awaits   bool          // a turn

	fault    error               // why the store was given up; nil when all is well
	refusing bool                // fault has lasted longer than holdTime
	ending   bool                // the process waits for nothing any more
	doubt    map[string]struct{} // names whose last append has an unknown outcome
	stalled  []*entry            // entries in doubt with a queue
	refenced chan struct{}
	hold     *time.Timer

	// Of the lease (lease.go).
	lapsed    bool // without a lease: nothing that has come since is served
	barred    bool // for longer than holdTime: what comes is refused
	lapsedAt  time.Time
	lookAgain *time.Timer

	// Of the loss of the partition (lose.go).
	losing          bool
	early, returned []*request // what was not begun, in this order

	interest map[string][]interest // of other nodes, by name (interest.go)
	repair   map[string]knowledge  // what subscribers here know, as long as nobody has looked
	owed     map[string]struct{}   // names of repair of which other nodes know no more than that
	toMend   []string              // names of repair that have their turn yet
	// absent are names without an entry of which subscribers here were told last that there
	// is no such record. Those without subscribers are swept out when there are absentSweep.
	absent      map[string]struct{}
	absentSweep int
	mendLater   bool      // one of them could not be loaded
	mendAt      time.Time // they have another turn then, if not zero

	cachedBytes, cachedRecords int64 // as told to stats

	// stuck are requests of other nodes that wait until what was answered before has been
	// taken, in order.
	stuck   map[*link][]*request
	closing bool // the room ends: they wait no more

	helpers sync.WaitGroup // loads, appends and fencing
	// work ends when run returns; it is for what begins deep inside of it.
	work context.Context
}

// run serves until ctx ends and everything that was asked before has been answered,
// or until lost is closed; then what was not begun is left in back.
func (o *owner) run(ctx context.Context, lost <-chan struct{}) {
	defer o.helpers.Wait()
	defer o.count(0, 0)
	defer o.forgetAll()
	defer o.setFault(nil)
	defer o.setBarred(false)
	defer o.lookAgain.Stop()
	defer o.room.turns.leave(o)
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	o.work = work
	done := ctx.Done()
	for {
		more := o.serve(work)
		o.submit(work)
		o.cache.limit = o.room.cacheShare.Load()
		o.cache.trim()
		o.count(o.cache.bytes, int64(len(o.cache.entries)))
		o.room.flushLinks()
		if done == nil && !more && o.idle() || o.losing && o.settled() {
			return
		}
		bell := o.mail.bell
		if !o.accepting() {
			bell = nil // what waits there is not lost: serve looks after every event
		}
		var again <-chan struct{}
		if more {
			again = always
		}
		// A select costs by the number of its channels: those that have nothing to say now
		// are left out.
		var (
			appended chan error
			loaded   chan loadResult
			refenced chan struct{}
			turn     chan struct{}
			hold     <-chan time.Time
			look     <-chan time.Time
		)
		if o.flying != nil {
			appended = o.appended
		}
		if o.loads > 0 {
			loaded = o.loaded
		}
		if o.awaits {
			turn = o.turn
		}
		if o.fault != nil || o.losing || o.closing {
			refenced, hold = o.refenced, o.hold.C
		}
		if o.lapsed || !o.mendAt.IsZero() {
			look = o.lookAgain.C
		}
		select {
		case <-bell:
		case <-again:
		case <-turn:
		case err := <-appended:
			o.settle(work, err)
		case l := <-loaded:
			o.arrive(work, l)
		case <-refenced:
			o.resume(work)
		case <-look:
			o.look()
			switch wait := time.Until(o.mendAt); {
			case o.mendAt.IsZero() || o.lapsed:
			case wait > 0:
				o.lookAgain.Reset(wait)
			default:
				o.mendAt = time.Time{}
				o.mend()
			}
		case <-lost:
			lost = nil
			o.lose()
		case <-hold:
			if o.losing {
				o.unwind(o.open, true)
				o.open = &batch{}
				stop() // ends the append that has no answer
				continue
			}
			o.ending = done == nil
			o.refuse(work)
			o.drop(work)
		case <-done:
			done = nil
			o.mail.stop(errStopped)
			o.closing = true
			for l := range o.stuck {
				o.unstick(l)
			}
			o.refuse(work)
			if o.fast && !o.losing {
				o.hold.Reset(appendTimeout)
			}
		}
	}
}

// always is ready: a turn that ended early goes on, and whatever else is ready
// has its chance in between.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// accepting says whether requests may be served now.
func (o *owner) accepting() bool {
	return !o.open.full() && len(o.toLoad) < loadsWaiting && (o.fault == nil || o.refusing) && !o.losing && (!o.lapsed || o.barred)
}

// count tells stats what the cache holds, together with those of other owners.
func (o *owner) count(bytes, records int64) {
	if bytes != o.cachedBytes {
		o.stats.cacheBytes.Add(bytes - o.cachedBytes)
		o.cachedBytes = bytes
	}
	if records != o.cachedRecords {
		o.stats.cacheRecords.Add(records - o.cachedRecords)
		o.cachedRecords = records
	}
}

// idle says that nothing is under way and nothing waits. While requests are held
// back some may be in the mailbox.
func (o *owner) idle() bool {
	return o.accepting() && o.flying == nil && o.held == nil && o.open.empty() && o.loads == 0 && len(o.toLoad) == 0 &&
		o.parked == 0 && len(o.ready) == 0 && len(o.stalled) == 0 && o.next == len(o.backlog)
}

// serve handles what may be handled now, up to a turn, and says whether there
// is more.
func (o *owner) serve(ctx context.Context) bool {
	for served := 0; o.accepting(); served++ {
		if served == turn {
			return true
		}
		if n := len(o.ready); n > 0 {
			e := o.ready[n-1]
			o.ready[n-1], o.ready = nil, o.ready[:n-1]
			e.ready = false
			o.drain(e)
			continue
		}
		if o.next == len(o.backlog) {
			clear(o.backlog)
			o.backlog, o.next = o.mail.take(o.backlog[:0]), 0
			if len(o.backlog) == 0 {
				return false
			}
			// Whatever is computed from now on for what was taken is computed for somebody
			// who asked before this moment, in which nobody else was the owner.
			if o.look(); !o.accepting() {
				return false
			}
		}
		r := o.backlog[o.next]
		o.next++
		if o.barred && o.bar(r) {
			continue
		}
		o.dispatch(ctx, r)
	}
	return false
}

// drain serves the queue of a loaded entry as far as the batch has room.
func (o *owner) drain(e *entry) {
	for len(e.queue) > 0 && e.loaded && e.parked == nil && o.accepting() {
		r := e.queue[0]
		e.queue[0], e.queue = nil, e.queue[1:]
		o.handle(e, r)
	}
	switch {
	case len(e.queue) == 0:
		e.queue = nil
	case e.loaded && e.parked == nil:
		o.makeReady(e)
	}
}

func (o *owner) makeReady(e *entry) {
	if !e.ready {
		e.ready = true
		o.ready = append(o.ready, e)
	}
}

// dispatch takes a request to its record, loading that if need be.
func (o *owner) dispatch(ctx context.Context, r *request) {
	if r.remote != nil && o.stick(r) {
		return
	}
	switch r.kind {
	case kindSubscribeAndHead:
		o.subscribeAndHead(ctx, r)
		r.leave()
		return
	case kindCall:
		r.trip.call()
		return
	case kindPeerGone:
		o.forgetLink(r.trip.peer)
		return
	case kindForget:
		o.forget(r)
		r.leave()
		return
	case kindRejudgeMany:
		o.rejudgeMany(ctx, r)
		return
	case kindResyncMany:
		o.resyncMany(r)
		return
	case kindFlush:
		if r.group.left.Add(-1) == 0 {
			o.flush(r)
		}
		return
	case kindSnapshot:
		o.snapshot(ctx, r.name, func(s state, err error) {
			if o.losing && errors.Is(err, errMoved) {
				o.handBack(r)
				return
			}
			r.reply(result{s, err})
			r.leave()
		})
		return
	}
	e := o.cache.get(r.name)
	if e == nil {
		stands := r.kind == kindSubscribe || r.kind == kindRejudge
		// Whether there is a record must be known for when another node becomes the owner.
		lasts := stands && r.remote != nil || r.kind == kindSubscribe && o.moves
		if !r.kind.needsState() && !lasts && !(stands && o.rules.ReadsRecord(protocol.RecordSubscribe, r.name)) {
			o.handle(nil, r)
			return
		}
		e = o.enter(r.name)
		if !e.loaded && o.overwrites(r) {
			e.loaded, e.blind = true, true
		}
		if !e.loaded {
			e.queue = append(e.queue, r)
			o.load(ctx, e)
			return
		}
	}
	if !e.loaded || len(e.queue) > 0 || e.parked != nil {
		e.queue = append(e.queue, r)
		return
	}
	o.handle(e, r)
}

// handle serves a request whose record is at hand. e is nil when the request
// needs no record and none is in memory.
func (o *owner) handle(e *entry, r *request) {
	r.waits = false
	switch r.kind {
	case kindRead, kindHead, kindSubscribeAndRead, kindSubscribeCreateAndRead, kindSubscribeAndHeadOne:
		o.read(e, r)
	case kindWrite:
		o.write(e, r)
	case kindDelete:
		o.delete(e, r)
	case kindNotify:
		o.notify(e, r)
	case kindSubscribe, kindUnsubscribe:
		o.subscription(e, r)
	case kindRejudge:
		o.rejudge(e, r)
	case kindResync:
		o.resync(e, r)
	case kindMarker:
		o.whenDurable(e, r, func(error) { r.group.finish() })
	case kindOperatorGet, kindOperatorSet, kindOperatorDelete:
		o.operator(e, r)
	}
	if !r.waits {
		o.finish(e, r)
	}
}

// finish ends a request that was served, now or with the batch that it waits for.
func (o *owner) finish(e *entry, r *request) {
	if b := o.bearer(e); b != nil && !o.fast {
		b.served = append(b.served, r)
		return
	}
	r.leave()
}

// bearer is the batch of which the present state of e is to be told, or nil when that
// may be now. Something may come to be served while a batch is told: it must not
// overtake what others have yet to hear of the same record.
func (o *owner) bearer(e *entry) *batch {
	switch {
	case e == nil:
		return nil
	case e.batch != nil:
		return e.batch
	default:
		return o.telling
	}
}

// apply makes s the state of e. It becomes durable with the open batch.
func (o *owner) apply(e *entry, s state) {
	before := len(e.state.data)
	switch {
	case o.fast || e.volatile:
		e.was = recollection{}
	case e.batch == nil && !e.blind:
		e.was = recollection{e.state, true}
	}
	e.blind = false
	o.cache.put(e, s)
	if e.volatile {
		return
	}
	op := store.Op{Record: store.Record{Name: e.name, Version: s.version, Data: s.data}, Delete: !s.exists}
	if e.batch == o.open {
		o.open.bytes += len(s.data) - before
		o.open.ops[e.op] = op
		return
	}
	e.batch, e.op = o.open, len(o.open.ops)
	o.open.ops = append(o.open.ops, op)
	o.open.entries = append(o.open.entries, e)
	o.open.bytes += len(e.name) + len(s.data)
}

// after runs do, for r, when the present state of e may be told, which may be now, or
// with an error when it will not be. A nil e has no state. r is what handle serves,
// or nil.
func (o *owner) after(e *entry, r *request, do func(err error)) {
	if o.fast {
		do(nil)
		return
	}
	o.whenDurable(e, r, do)
}

// whenDurable runs do when the present state of e is durable, or with an error when it
// will not be.
func (o *owner) whenDurable(e *entry, r *request, do func(err error)) {
	if b := o.bearer(e); b != nil {
		b.effects = append(b.effects, effect{r, do})
		return
	}
	do(nil)
}

// afterAll runs do when everything so far is durable.
func (o *owner) afterAll(do func(err error)) {
	switch {
	case !o.open.empty():
		o.open.effects = append(o.open.effects, effect{nil, do})
	case o.flying != nil:
		o.flying.effects = append(o.flying.effects, effect{nil, do})
	case o.held != nil:
		o.held.effects = append(o.held.effects, effect{nil, do})
	case o.telling != nil:
		o.telling.effects = append(o.telling.effects, effect{nil, do})
	default:
		do(nil)
	}
}

// flush replies when every request that came before has been answered: those in
// batches, and those that wait for a load. It looks at every record in memory,
// which is fine for the few flushes there are.
func (o *owner) flush(r *request) {
	g := newGroup(1, func() {
		o.room.flushLinks()
		r.reply(result{})
	})
	for _, e := range o.cache.entries {
		if len(e.queue) > 0 || e.parked != nil {
			g.left.Add(1)
			e.queue = append(e.queue, &request{kind: kindMarker, name: e.name, group: g, reply: r.reply})
		}
	}
	o.afterAll(func(error) { g.finish() })
}

// settle ends the append under way.
func (o *owner) settle(ctx context.Context, err error) {
	b := o.flying
	o.flying = nil
	switch {
	case err == nil:
	case o.losing:
		o.fall(b, err)
		return
	default:
		o.fail(ctx, b, err)
		return
	}
	o.answered = len(b.served)
	o.stats.commits.Add(1)
	o.stats.committed.Add(int64(len(b.ops)))
	for i, e := range b.entries {
		switch op := &b.ops[i]; {
		case e.batch == b:
			e.batch, e.was = nil, recollection{}
		case e.batch != nil && !o.fast: // whose next change is under way
			e.was = recollection{state{op.Version, op.Data, !op.Delete}, true}
		}
	}
	o.telling = b
	if o.fault != nil && !o.losing {
		o.back(ctx) // before anybody is told
	}
	b.end(nil)
	o.telling = nil
}

func hasPrefix(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
