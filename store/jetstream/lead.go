package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"
)

// This file has the owner's server lead the owner's streams (replicas.go says why). Appends
// wait while a leader changes, so all that can be done before is.
const (
	// leadPatience bounds the change of a leader, which takes 0.1 to 0.2 seconds.
	leadPatience = time.Second
	// leadAgain is how often the owner looks whether its server leads its streams, and
	// leadSoon how long after it has failed to make it so, then twice that, and so on, whatever
	// happens meanwhile: replicas that catch up need a leader that stays.
	leadAgain = 10 * time.Second
	leadSoon  = 500 * time.Millisecond
	// leadLag is how much the server may lack when it is made the leader, which then it gets
	// while no more is added.
	leadLag = 256
	// leadCatchUp is how long it is waited for meanwhile.
	leadCatchUp = 200 * time.Millisecond
)

var errCatchesUp = errors.New("the owner's server still catches up")

// Lead has a server lead both streams, the LOG first, and returns when it does, or says
// why not: ctx ends, the server keeps no replica or lacks something. Appends wait
// meanwhile. It may be called from anywhere.
func (l *Logged) Lead(ctx context.Context, server string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*leadPatience)
	defer cancel()
	err := l.leadApart(ctx, &l.mu, server)
	if err == nil {
		err = l.statesLink.leadApart(ctx, &l.statesLink.mu, server)
	}
	return err
}

// leadApart is lead for who does not hold the store's mu. It takes it only when the server
// is about to be able to lead, as appends wait for it.
func (s *link) leadApart(ctx context.Context, mu *sync.Mutex, server string) error {
	if !s.replicated.Load() {
		return nil
	}
	err := s.retryReplicated(ctx, 2*leadPatience, func(ctx context.Context) error {
		st, err := statusOf(ctx, s)
		if err != nil || st.Leader == server {
			return err
		}
		return st.successor(server, leadLag)
	})
	if err != nil {
		return s.notLed(server, err)
	}
	mu.Lock()
	defer mu.Unlock()
	return s.lead(ctx, server)
}

// successor is nil when a server can be made the leader, at most lag changes behind. Else the
// group would elect somebody else.
func (st *StreamStatus) successor(server string, lag uint64) error {
	i := slices.IndexFunc(st.Replicas, func(r Replica) bool { return r.Server == server })
	if i < 0 {
		return fmt.Errorf("server %s keeps no replica", server)
	}
	if r := &st.Replicas[i]; r.Offline || !r.Current && (lag == 0 || r.Lag > lag) {
		return fmt.Errorf("the replica on server %s is not current, it lacks %d changes: %w", server, r.Lag, errMoved)
	}
	return nil
}

func (s *link) notLed(server string, err error) error {
	return fmt.Errorf("have server %s lead stream %s: %w", server, s.stream, err)
}

// lead moves the leader of one stream. The caller holds the store's mu, so that a server
// which lacks a little gets it, or lacks too much.
func (s *link) lead(ctx context.Context, server string) error {
	if !s.replicated.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*leadPatience)
	defer cancel()
	var last error
	begun := time.Now()
	err := s.retryReplicated(ctx, 2*leadPatience, func(ctx context.Context) error {
		st, err := statusOf(ctx, s)
		if err != nil {
			return err
		}
		if st.Leader == server {
			s.term = st.term
			return nil
		}
		if err := st.successor(server, 0); err != nil {
			if last == nil && passing(err) && time.Since(begun) > leadCatchUp { // nor while leaders change
				return errors.New(err.Error()) // nothing to wait for
			}
			return err
		}
		last = fmt.Errorf("server %s leads, not yet %s: %w", st.Leader, server, errMoved)
		reply, err := s.request(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+s.stream, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, server))
		if err != nil {
			return err
		}
		if err := errorIn(gjson.ParseBytes(reply.Data)); err != nil {
			return err
		}
		return last // see whether it happened
	})
	if err != nil {
		return s.notLed(server, errors.Join(err, last))
	}
	return nil
}

// isCurrent asks LogOptions.Current.
func (l *Logged) isCurrent(ctx context.Context) bool {
	if l.opts.Current == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*leadPatience)
	defer cancel()
	select {
	case l.looking <- struct{}{}:
	case <-ctx.Done():
		return false // the last question has not been answered
	}
	answer := make(chan bool, 1)
	go func() { // a server that hangs keeps it, and not the store
		answer <- l.opts.Current(l.stream) && l.opts.Current(l.statesLink.stream)
		<-l.looking
	}()
	select {
	case is := <-answer:
		return is
	case <-ctx.Done():
		return false
	}
}

// kickLead has keepLead look.
func (l *Logged) kickLead() {
	select {
	case l.leads <- struct{}{}:
	default:
	}
}

// keepLead has LogOptions.Leader lead the streams while this store owns the partition.
func (l *Logged) keepLead(ctx context.Context) {
	pause := leadSoon
	var rest time.Time // until then it is left alone
	timer := time.NewTimer(leadAgain)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.leads:
			if left := time.Until(rest); left > 0 {
				timer.Reset(left)
				continue
			}
		case <-timer.C:
		}
		timer.Reset(leadAgain)
		l.state.Lock()
		ready := l.ready
		l.state.Unlock()
		if !ready || !l.replicated.Load() {
			continue
		}
		err := errCatchesUp
		if l.isCurrent(ctx) {
			err = l.Lead(ctx, l.opts.Leader)
		}
		if err != nil && ctx.Err() == nil {
			l.log.Debug("the streams are led elsewhere", "stream", l.stream, "err", err)
			timer.Reset(pause)
			rest = time.Now().Add(pause)
			pause = min(2*pause, leadAgain)
		} else {
			pause, rest = leadSoon, time.Time{}
		}
	}
}
