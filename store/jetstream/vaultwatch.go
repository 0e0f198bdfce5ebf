package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"hadal/auth/vault"
	"hadal/store"
)

// The stream's leader repeats every message that it has committed, with its sequence, on
// another subject, to all servers where somebody watches. No sequence is left out, so a
// message that got lost on the way is noticed at the next one, and read from the leader.
// That nothing was lost at the end, and that this node is still in touch with a majority,
// is what the leader is asked for every vaultTouch, which is all that an idle vault costs.

const (
	// vaultTouch is how often the leader is asked how far it is while somebody watches.
	vaultTouch = 3 * time.Second
	// vaultTouchAgain is the time after which it is asked again when it has not answered.
	vaultTouchAgain = 500 * time.Millisecond
	// vaultTouchTime bounds one answer.
	vaultTouchTime = 1500 * time.Millisecond
	// vaultLostAfter is how many times in a row it may not answer: a new leader is
	// elected meanwhile.
	vaultLostAfter = 3
	// vaultHeard is how many repeated messages wait to be handled; more are read later.
	vaultHeard = 4096
)

// vaultHub follows the stream while there are watchers.
type vaultHub struct {
	v    *Vault
	stop context.CancelFunc
	// begun is closed when the fan's revision is the stream's, ended when nothing runs.
	begun, ended chan struct{}

	// Of the goroutine.
	isBegun bool
	missed  int // how many answers in a row did not come

	mu sync.Mutex
	// early are the entries that end before the server deletes them. Guarded by mu.
	early map[string]vaultEarly
}

// vaultEarly is an entry that a timer ends.
type vaultEarly struct {
	revision uint64
	timer    *time.Timer
}

// Watch implements vault.Vault.
func (v *Vault) Watch(ctx context.Context, prefix string, w vault.Watcher) error {
	if err := vault.CheckPrefix(ctx, prefix); err != nil {
		return err
	}
	hub, leave, err := v.enterHub()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(v.open, func() { cancel(vault.ErrNotReady) })()
	select {
	case <-hub.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return v.fan.Watch(ctx, prefix, w, func(ctx context.Context, prefix string, each func(vault.Entry) error) error {
		err := v.list(ctx, prefix, func(m *vaultMessage) error {
			err := each(m.Entry)
			hub.note(m)
			return err
		})
		if err != nil && ctx.Err() == nil {
			v.log.Debug("a watcher of logins waits for the store", "err", err)
		}
		return err
	})
}

// enterHub has the stream followed until leave is called.
func (v *Vault) enterHub() (hub *vaultHub, leave func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, nil, vault.ErrNotReady
	}
	if v.watchers++; v.watchers == 1 {
		ctx, stop := context.WithCancel(context.Background())
		before := v.hub
		hub := &vaultHub{v: v, stop: stop, begun: make(chan struct{}), ended: make(chan struct{}), early: make(map[string]vaultEarly)}
		v.hub = hub
		v.hubs.Go(func() {
			defer close(hub.ended)
			if before != nil {
				<-before.ended
			}
			hub.run(ctx)
		})
	}
	hub = v.hub
	return hub, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.watchers--; v.watchers == 0 {
			hub.stop()
		}
	}, nil
}

// run follows the stream until the last watcher has left, or the vault is closed.
func (h *vaultHub) run(ctx context.Context) {
	defer h.forgetAll()
	heard := make(chan *nats.Msg, vaultHeard)
	var handled <-chan *nats.Msg // heard, once it is known what comes after
	var sub *nats.Subscription
	defer func() {
		if sub != nil {
			if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
				h.v.log.Debug("a subscription was left to the connection", "err", err)
			}
		}
	}()
	touched := make(chan touch, 1)
	var touching sync.WaitGroup
	defer touching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.v.stopCh:
			return
		case msg := <-handled:
			h.take(ctx, msg)
		case <-next.C:
			var err error
			if sub == nil {
				if sub, err = h.v.nc.ChanSubscribe(vaultRepeats+">", heard); err != nil {
					next.Reset(h.lost(err))
					continue
				}
			}
			touching.Go(func() { touched <- h.touch(ctx) })
		case t := <-touched:
			if t.err == nil {
				t.err = h.upTo(ctx, t.last)
			}
			if t.err != nil {
				next.Reset(h.lost(t.err))
				continue
			}
			h.missed, handled = 0, heard
			next.Reset(vaultTouch)
		}
	}
}

// touch is what the leader says.
type touch struct {
	last uint64 // the stream's last sequence
	err  error
}

func (h *vaultHub) touch(ctx context.Context) touch {
	ctx, cancel := context.WithTimeout(ctx, vaultTouchTime)
	defer cancel()
	info, err := h.v.streamInfo(ctx)
	if err == nil && !info.Led {
		err = errNotLed
	}
	return touch{info.LastSeq, err}
}

// lost notes that the leader did not answer, and returns when it is to be asked again.
func (h *vaultHub) lost(err error) time.Duration {
	if h.missed++; h.missed >= vaultLostAfter {
		h.v.fan.Lose(fmt.Errorf("the store of logins is out of reach: %w", err))
	}
	return vaultTouchAgain
}

// upTo makes sure that the watchers have heard of everything up to a sequence that the
// stream has.
func (h *vaultHub) upTo(ctx context.Context, last uint64) error {
	at := h.v.fan.At()
	switch {
	case !h.isBegun:
		h.v.fan.Reset(last)
		h.isBegun = true
		close(h.begun)
		return nil
	case last < at && h.missed > 0:
		// The stream was made anew, or a power cut took its end.
		h.v.fan.Reset(last)
		h.v.fan.Lose(errors.New("the store of logins has begun anew"))
		return nil
	}
	return h.fill(ctx, last)
}

// fill reads what the watchers have not heard of, up to a sequence.
func (h *vaultHub) fill(ctx context.Context, last uint64) error {
	for at := h.v.fan.At(); at < last; {
		var m vaultMessage
		err := h.v.retry(ctx, patience, func(ctx context.Context) (err error) {
			m, err = h.v.message(ctx, getNext(at+1, h.v.subjects+">"))
			return err
		})
		switch {
		case errors.Is(err, store.ErrNotFound), err == nil && m.Revision > last:
			h.v.fan.Reset(last) // the rest has been replaced, or has expired
			return nil
		case err != nil:
			return err
		}
		h.tell(&m)
		at = m.Revision
	}
	return nil
}

// getNext is the request for the first message from a sequence on.
func getNext(seq uint64, filter string) []byte {
	b := append(strconv.AppendUint([]byte(`{"no_hdr":true,"seq":`), seq, 10), `,"next_by_subj":"`...)
	return append(append(b, filter...), `"}`...)
}

// take handles a repeated message.
func (h *vaultHub) take(ctx context.Context, msg *nats.Msg) {
	seq, err := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
	at := h.v.fan.At()
	if err != nil || seq <= at {
		return // it was read meanwhile; what is no sequence is found missing
	}
	if seq > at+1 {
		if err := h.fill(ctx, seq-1); err != nil {
			h.v.log.Debug("changes of logins could not be read, and are tried again", "err", err)
			return // found missing again by the next one, or the next touch
		}
	}
	m, err := h.v.decode(vaultSubjects+strings.TrimPrefix(msg.Subject, vaultRepeats), seq, msg.Data)
	if err != nil {
		h.v.log.Error("a change of logins cannot be read", "err", err)
		h.v.fan.Reset(seq)
		h.v.fan.Lose(err)
		return
	}
	h.tell(&m)
}

// tell tells the watchers of a message.
func (h *vaultHub) tell(m *vaultMessage) {
	c := vault.Change{Entry: m.Entry, Gone: !m.live()}
	if c.Gone {
		c.Value, c.Ends = nil, time.Time{}
	}
	h.v.fan.Tell(c)
	h.note(m)
}

// note sets or stops the timer of an entry.
func (h *vaultHub) note(m *vaultMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, ok := h.early[m.Key]
	if ok && was.revision >= m.Revision {
		return
	}
	if ok {
		was.timer.Stop()
		delete(h.early, m.Key)
	}
	if !m.early() || h.early == nil {
		return
	}
	key, revision := m.Key, m.Revision
	h.early[key] = vaultEarly{revision, time.AfterFunc(time.Until(time.Unix(m.ends, 0)), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.early[key].revision == revision {
			delete(h.early, key)
			h.v.fan.Tell(vault.Change{Entry: vault.Entry{Key: key, Revision: revision}, Gone: true})
		}
	})}
}

// forgetAll stops all timers.
func (h *vaultHub) forgetAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.early {
		e.timer.Stop()
	}
	h.early = nil
}
