package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
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

// flood is clients that log in as fast as they are answered.
type flood struct {
	name    string
	clients int
	// from is the address of a client's attempt.
	from func(client, attempt int) net.IP
}

// own is one address for each client.
func own(client, _ int) net.IP { return net.IPv4(127, 1, byte(client/250), byte(1+client%250)) }

// another is an address that no attempt had before, until there have been millions.
func another(client, attempt int) net.IP {
	n := client*9973 + attempt
	return net.IPv4(127, byte(50+n/250/250%150), byte(n/250%250), byte(1+n%250))
}

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

// cell is a quantile in milliseconds.
func (t *took) cell(quantile float64) string { return fmt.Sprintf("%.0f", ms(t.hist, quantile)) }

// suffer measures how others are served while a flood goes on.
func (v *victim) suffer(ctx context.Context, f flood, length time.Duration) (_ *result, err error) {
	r := &result{events: newHistogram(), known: &took{hist: newHistogram()}, fresh: &took{hist: newHistogram()}}
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

	flooding, stop := context.WithCancel(ctx)
	var crowd, others sync.WaitGroup
	defer crowd.Wait()
	defer stop()
	var attempts, begun atomic.Int64
	for i := range f.clients {
		crowd.Go(func() { v.flood(flooding, f, i, &attempts, &begun) })
	}
	// A flood is measured when it goes on: when each client has been answered twice.
	for began := time.Now(); begun.Load() < int64(f.clients); {
		if time.Since(began) > settle {
			return nil, fmt.Errorf("after %v only %d of %d clients have been answered: let fewer flood", settle, begun.Load(), f.clients)
		}
		if err := target.Pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
	before := attempts.Load()
	end := time.Now().Add(length)
	var heard error
	others.Go(func() { heard = events(ctx, publisher, subscriber, end, r.events) })
	for i := 0; time.Now().Before(end) && err == nil; i++ {
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
	r.attempts = attempts.Load() - before
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

// flood is one client of a flood: a wrong password, a right one, and so on. What becomes
// of them is nothing to it. It counts its attempts, and itself once it goes on.
func (v *victim) flood(ctx context.Context, f flood, client int, attempts, begun *atomic.Int64) {
	for i := 0; ctx.Err() == nil; i++ {
		secret := password
		if i%2 == 0 {
			secret = "wrong " + strconv.Itoa(i)
		}
		conn, err := target.Login(ctx, dialer(f.from(client, i)), v.node.URL, params(mallory, secret))
		if err == nil {
			_ = conn.Close() // the flood goes on whatever it says
		}
		attempts.Add(1)
		if i == 1 {
			begun.Add(1)
		}
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
