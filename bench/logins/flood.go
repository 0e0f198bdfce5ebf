package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hadal/bench/target"
	"hadal/protocol"
)

const (
	// eventEvery is how often the subscriber gets an event, loginEvery how often each of
	// the two kinds of newcomers logs in.
	eventEvery = 20 * time.Millisecond
	loginEvery = time.Second
	// answerTime is how long one of them may take; more is a failure of the node.
	answerTime = 90 * time.Second
)

// home is the address of those who are logged in; stranger one that is new.
var home = net.IPv4(127, 0, 0, 1)

func stranger(i int) net.IP { return net.IPv4(127, 2, byte(i/250), byte(1+i%250)) }

func dialer(ip net.IP) *net.Dialer {
	return &net.Dialer{Timeout: answerTime, LocalAddr: &net.TCPAddr{IP: ip}}
}

// result is how others were served.
type result struct {
	events       *hdrhistogram.Histogram // microseconds
	known, fresh *took
	attempts     int64 // of the flood
}

// took is how long logins took, and what went wrong with them.
type took struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram // microseconds; guarded by mu
	errs []error                 // guarded by mu
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, answerTime.Microseconds(), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), answerTime.Microseconds())) // in range by construction
}

func ms(h *hdrhistogram.Histogram, quantile float64) float64 {
	return float64(h.ValueAtQuantile(quantile)) / 1000
}

// cell is a quantile in milliseconds, if anybody logged in.
func (t *took) cell(quantile float64) string {
	if t.hist.TotalCount() == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", ms(t.hist, quantile))
}

// suffer measures how others are served while a flood goes on.
func (v *victim) suffer(ctx context.Context, f flood, length time.Duration) (r *result, err error) {
	r = &result{events: newHistogram(), known: &took{hist: newHistogram()}, fresh: &took{hist: newHistogram()}}
	publisher, err := target.Login(ctx, dialer(home), v.node.URL, params(v.newcomer(), password))
	if err != nil {
		return nil, err
	}
	defer publisher.Close()
	subscriber, err := target.Login(ctx, dialer(home), v.node.URL, params(v.newcomer(), password))
	if err != nil {
		return nil, err
	}
	defer subscriber.Close()

	crowd, err := startCrowd(ctx, v.node.URL, f)
	if err != nil {
		return nil, err
	}
	defer func() {
		n, stopped := crowd.stop()
		if err = errors.Join(err, stopped); err == nil {
			r.attempts = n
		}
	}()
	var others sync.WaitGroup
	end := time.Now().Add(length)
	var heard error
	others.Go(func() { heard = events(ctx, publisher, subscriber, end, r.events) })
	for !f.idle && time.Now().Before(end) && err == nil {
		for _, kind := range []struct {
			t  *took
			ip net.IP
		}{{r.known, home}, {r.fresh, stranger(v.next)}} {
			name := v.newcomer()
			others.Go(func() { v.login(ctx, name, kind.ip, kind.t) })
		}
		err = target.Pause(ctx, loginEvery)
	}
	others.Wait()
	return r, errors.Join(err, heard, errors.Join(r.known.errs...), errors.Join(r.fresh.errs...))
}

// login logs somebody in who was never there, again when he is told that the node is
// busy, as every client does.
func (v *victim) login(ctx context.Context, name string, ip net.IP, t *took) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	began := time.Now()
	c, err := target.Login(ctx, dialer(ip), v.node.URL, params(name, password))
	for errors.Is(err, target.ErrClosed) && ctx.Err() == nil {
		if target.Pause(ctx, 100*time.Millisecond) == nil {
			c, err = target.Login(ctx, dialer(ip), v.node.URL, params(name, password))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		record(t.hist, time.Since(began))
		err = c.Close()
	}
	if err != nil {
		t.errs = append(t.errs, fmt.Errorf("%s: %w", name, err))
	}
}

// events publishes one each eventEvery until end, and notes how long after it was due each
// arrives.
func events(ctx context.Context, publisher, subscriber *target.Client, end time.Time, h *hdrhistogram.Histogram) error {
	if err := subscriber.Say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"e"}, CorrelationID: "0"}); err != nil {
		return err
	}
	if _, err := subscriber.Until(protocol.EventSubscribe); err != nil {
		return err
	}
	began := time.Now()
	count := int(end.Sub(began)/eventEvery) + 1
	if err := subscriber.SetDeadline(end.Add(answerTime)); err != nil {
		return err
	}
	var publishing sync.WaitGroup
	defer publishing.Wait()
	var failed error
	publishing.Go(func() {
		for i := 0; i < count && failed == nil; i++ {
			if failed = target.Pause(ctx, time.Until(began.Add(time.Duration(i)*eventEvery))); failed == nil {
				failed = publisher.Say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "e", Data: strconv.Itoa(i), Has: protocol.HasData})
			}
		}
		if failed != nil {
			_ = subscriber.SetDeadline(time.Now()) // who waits hears of it
		}
	})
	for i := range count {
		m, err := subscriber.Until(protocol.EventEmit)
		if err != nil {
			publishing.Wait()
			return errors.Join(failed, err)
		}
		if m.Data != strconv.Itoa(i) {
			publishing.Wait()
			return fmt.Errorf("event %s came in the place of %d", m.Data, i)
		}
		record(h, time.Since(began.Add(time.Duration(i)*eventEvery)))
	}
	publishing.Wait()
	return failed
}
