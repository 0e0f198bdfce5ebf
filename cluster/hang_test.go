package cluster

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestAServerThatHangsIsAskedOnceAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		release := make(chan struct{})
		c := newCheckup(nil, func(*server.Server) complaints {
			asked.Add(1)
			<-release
			return complaints{"late"}
		})
		for range 3 {
			began := time.Now()
			if _, err := c.complaints(hangAfter); !errors.Is(err, errHangs) {
				t.Errorf("%v of a server that hangs", err)
			}
			if took := time.Since(began); took != hangAfter {
				t.Errorf("it took %v to give up, want %v", took, hangAfter)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("a server that hangs was asked %d times, want once: each question keeps a goroutine", n)
		}
		close(release)
		synctest.Wait()
		if all, err := c.complaints(hangAfter); err != nil || !slices.Equal(all, complaints{"late"}) {
			t.Errorf("%q %v once it answers again", all, err)
		}
	})
}

func TestAServerThatHangsIsRestarted(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	s.hangAfter = 50 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	s.mu.Lock()
	s.health = newCheckup(s.srv, func(*server.Server) complaints { <-release; return nil })
	s.mu.Unlock()
	if err, reads := s.ill(); !errors.Is(err, errHangs) || reads {
		t.Fatalf("ill = %v, %v, want that it hangs", err, reads)
	}
	supervise(t, s)
	s.look()
	eventually(t, "it restarts", restarts(s, 1))
	eventually(t, "it is well", s.Ready)
}

func TestAServerThatDoesNotEndEndsTheProcess(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	release, ended := make(chan struct{}), make(chan struct{})
	s.endAfter = 50 * time.Millisecond
	s.end = func(srv *server.Server) {
		defer close(ended)
		<-release
		shutDown(srv)
	}
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	err := s.Supervise(t.Context())
	if !errors.Is(err, errNoEnd) || !strings.Contains(err.Error(), "started again") {
		t.Errorf("Supervise = %v, want an error that names the cure", err)
	}
	if err := s.Ready(); err == nil {
		t.Error("it is ready")
	}
	close(release)
	<-ended
}
