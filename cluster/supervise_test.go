package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// eventually asks again and again, for as long as patience lasts, until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	give := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// supervise supervises s until the test ends, or the function is called.
func supervise(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Supervise(ctx); err != nil {
			t.Errorf("Supervise: %v", err)
		}
	})
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func restarts(s *Server, n uint64) func() error {
	return func() error {
		if st := s.Stats(); st.Restarts < n {
			return errors.New("it did not restart")
		}
		return s.Ready()
	}
}

func TestAStoppedJetStreamIsRestartedInItsPlace(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{SyncAlways: true})
	supervise(t, s)
	js, err := jetstream.New(s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2) {
		if _, err := js.Publish(t.Context(), "s.x", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := s.server().ShutdownJetStream(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "JetStream is there again", restarts(s, i+1))
		// The same connection goes on.
		eventually(t, "a message is stored", func() error {
			ack, err := js.Publish(t.Context(), "s.x", []byte("hello"))
			if err == nil && ack.Sequence != 2*(i+1) {
				t.Errorf("sequence %d, want %d", ack.Sequence, 2*(i+1))
			}
			return err
		})
	}
}

func TestARestartEndsRequestsUnderWay(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	nc, err := s.Dial("another")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// Somebody who listens and does not answer.
	for _, nc := range []*nats.Conn{s.Conn(), nc} {
		sub, err := nc.SubscribeSync("ask")
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan error, 1)
		go func() {
			_, err := nc.Request("ask", nil, time.Minute)
			answers <- err
		}()
		if _, err := sub.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
		if err := s.restart(t.Context(), errStopped); err != nil {
			t.Fatal(err)
		}
		if err := <-answers; !errors.Is(err, nats.ErrDisconnected) {
			t.Errorf("the request ended with %v", err)
		}
		// The subscription outlives the restart.
		if err := nc.Publish("ask", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.NextMsg(patience); err != nil {
			t.Errorf("NextMsg: %v", err)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSuspicionsThatGoOnRestartAServerThatLooksWell(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	supervise(t, s)
	s.Suspect(errors.New("no answer"))
	s.mu.Lock()
	s.doubts.first = s.doubts.first.Add(-doubtFor)
	s.mu.Unlock()
	s.Suspect(errors.New("no answer"))
	eventually(t, "it restarts", restarts(s, 1))
	if st := s.Stats(); st.Suspicions != 2 || st.Restarts != 1 || st.DiskFree == 0 || st.DiskReserve == 0 || st.DiskTotal == 0 {
		t.Errorf("Stats = %+v", st)
	}
	if err := s.Conn().FlushTimeout(patience); err != nil {
		t.Errorf("Flush: %v", err)
	}
}

func TestARestartThatFailsIsTriedAgain(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	streams := filepath.Join(s.dir, "jetstream")
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(streams, streams+".away"); err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, streams)
	supervise(t, s)
	eventually(t, "the failure is told", func() error {
		err := s.Ready()
		if err == nil || !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "storage directory is not a directory") {
			return errors.Join(errors.New("not told"), err)
		}
		return nil
	})
	if st := s.Stats(); st.FailedRestarts == 0 || st.Restarts > 0 || st.TroubledSince.IsZero() {
		t.Errorf("Stats = %+v", st)
	}
	if err := s.Room(1); !errors.Is(err, errStopped) {
		t.Errorf("Room = %v, want that it has stopped", err)
	}
	if err := os.Remove(streams); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(streams+".away", streams); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it restarts", restarts(s, 1))
}

// A stream has its directory before the server knows of it.
func TestAStreamThatIsBeingMadeIsNotMissing(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	streams := filepath.Join(s.dir, "jetstream", "$G", "streams")
	makeStreamDir := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(streams, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	well := func(when string) {
		t.Helper()
		if err, _ := s.ill(); err != nil {
			t.Errorf("%s it is ill: %v", when, err)
		}
	}
	makeStreamDir("NEW")
	if got := complaintsOf(s.server()); len(got) != 1 || !strings.HasSuffix(got[0], notRecovered) {
		t.Fatalf("complaints = %q, want one that ends in %q", got, notRecovered)
	}
	well("while a stream is made")
	s.Close()

	// Nor is one that had been given up before the start.
	s = startServer(t, s.opts.Dir, Options{})
	well("with half a stream")
	if err := s.restart(t.Context(), errStopped); err != nil {
		t.Fatal(err)
	}
	well("still")
	// But one that a restart did not open is.
	makeStreamDir("LOST")
	if err := s.restart(t.Context(), errStopped); err != nil {
		t.Fatal(err)
	}
	if err, reads := s.ill(); err == nil || !reads || !strings.Contains(err.Error(), "LOST") {
		t.Errorf("ill = %v, %v, want that LOST is missing", err, reads)
	}
}

func TestSupervisionEndsWithItsContextAndLeavesNothing(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	stop := supervise(t, s)
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it restarts", restarts(s, 1))
	stop()
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	// After Close there is nothing to restart.
	supervise(t, s)
	s.Suspect(errors.New("late"))
	if st := s.Stats(); st.Restarts != 1 {
		t.Errorf("%d restarts, want 1", st.Restarts)
	}
}

func TestRestartsLeaveNothingBehind(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	restart := func() {
		if err := s.restart(t.Context(), errStopped); err != nil {
			t.Fatal(err)
		}
		if err := s.Conn().FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	before := runtime.NumGoroutine()
	for range 20 {
		restart()
	}
	eventually(t, "goroutines are gone", func() error {
		if n := runtime.NumGoroutine(); n > before+3 {
			return errors.New("there are more than before")
		}
		return nil
	})
}

func TestRestartsHavePausesBetweenThem(t *testing.T) {
	var p pauses
	now := time.Unix(1_000_000, 0)
	if left := p.left(now); left > 0 {
		t.Errorf("the first restart waits %v", left)
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		p.restarted(now)
		if left := p.left(now); left != want*time.Second {
			t.Errorf("the next restart waits %v, want %v s", left, want)
		}
		now = now.Add(want * time.Second)
	}
	now = now.Add(calm + time.Second)
	p.restarted(now)
	if left := p.left(now); left != firstPause {
		t.Errorf("after calm the next restart waits %v, want %v", left, firstPause)
	}
}

func TestDoubtsGrowOnlyWhileTheyGoOn(t *testing.T) {
	var d doubts
	now := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		after time.Duration
		grown bool
	}{{0, false}, {doubtFor - 1, false}, {1, true}, {doubtQuiet, true}, {doubtQuiet + 1, false}, {20 * time.Second, true}} {
		now = now.Add(tt.after)
		d.add(now, errors.New("no answer"))
		if got := d.grown(); got != tt.grown {
			t.Errorf("after %v more grown = %v, want %v", tt.after, got, tt.grown)
		}
	}
}
