package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// wires joins two controls, as a Bus of each, on goroutines as links do.
type wires struct {
	Alone
	name string
	mu   sync.Mutex
	cut  bool
	to   *wires
	in   chan []byte
	h    Handler
}

func (w *wires) Handle(_ Kind, h Handler) { w.h = h }

func (w *wires) Linked(string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cut
}

func (w *wires) Send(_ string, _ Kind, payload []byte) bool {
	if !w.Linked("") {
		return false
	}
	w.to.in <- append([]byte(nil), payload...)
	return true
}

func (w *wires) Offer(peer string, k Kind, payload []byte) bool { return w.Send(peer, k, payload) }

func (w *wires) run(ctx context.Context) {
	for {
		select {
		case b := <-w.in:
			w.h.Hear(w.to.name, b)
		case <-ctx.Done():
			return
		}
	}
}

func TestNodesAskEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		a, b := &wires{name: "a", in: make(chan []byte, 100)}, &wires{name: "b", in: make(chan []byte, 100)}
		a.to, b.to = b, a
		hold := make(chan struct{})
		asking := newControl(a, func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("not me") })
		serving := newControl(b, func(ctx context.Context, peer string, request []byte) ([]byte, error) {
			switch string(request) {
			case "fail":
				return nil, errors.New("no " + peer)
			case "wait":
				select {
				case <-hold:
				case <-ctx.Done():
				}
			}
			return append([]byte("of "+peer+": "), request...), nil
		})
		for _, w := range []*wires{a, b} {
			go w.run(ctx)
		}
		if _, err := asking.ask(ctx, "b", []byte("early")); err == nil || !strings.Contains(err.Error(), "ending") {
			t.Errorf("before Run: %v", err)
		}
		go func() { _ = asking.Run(ctx) }()
		go func() { _ = serving.Run(ctx) }()
		synctest.Wait()
		if got, err := asking.ask(ctx, "b", []byte("hello")); err != nil || string(got) != "of a: hello" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := asking.ask(ctx, "b", []byte("fail")); err == nil || err.Error() != "no a" {
			t.Errorf("got %v, want the other's error", err)
		}
		if _, err := serving.ask(ctx, "a", nil); err == nil || err.Error() != "not me" {
			t.Errorf("got %v, want the other's error", err)
		}
		ended := make(chan error)
		go func() {
			_, err := asking.ask(ctx, "b", []byte("wait"))
			ended <- err
		}()
		synctest.Wait()
		for _, w := range []*wires{a, b} {
			w.mu.Lock()
			w.cut = true
			w.mu.Unlock()
		}
		if err := <-ended; !errors.Is(err, errLinkEnded) {
			t.Errorf("got %v, want that the link ended", err)
		}
		if _, err := asking.ask(ctx, "b", nil); !errors.Is(err, errNoLink) {
			t.Errorf("got %v, want that there is no link", err)
		}
		close(hold)
		for _, rubbish := range []string{"", "\x01", "\x02\x01aaaaaaaa", "\x01\x09aaaaaaaa", "\x01\x02aaaaaaaa"} {
			serving.Hear("a", []byte(rubbish))
		}
	})
}
