package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

func startServer(t *testing.T, dir *Dir, opts Options) *Server {
	t.Helper()
	opts.Dir = dir
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestTheServerKeepsStreamsAcrossRestarts(t *testing.T) {
	dir := openDir(t, t.TempDir())
	for _, sync := range []bool{true, false, true} {
		s := startServer(t, dir, Options{SyncAlways: sync, MaxMessage: 3 << 20})
		if got := s.Conn().MaxPayload(); got != 3<<20 {
			t.Errorf("MaxPayload = %d, want 3 MiB", got)
		}
		if s.srv.Addr() != nil {
			t.Errorf("the server listens on %v", s.srv.Addr())
		}
		js, err := jetstream.New(s.Conn())
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxMsgs: -1})
		if err != nil {
			t.Fatal(err)
		}
		before := stream.CachedInfo().State.Msgs
		ack, err := js.Publish(t.Context(), "s.x", make([]byte, 2<<20))
		if err != nil || ack.Sequence != before+1 {
			t.Fatalf("Publish = %+v, %v, want sequence %d", ack, err, before+1)
		}
		s.Close()
		s.Close()
		if !s.Conn().IsClosed() {
			t.Error("the connection is open after Close")
		}
	}
}

func TestConnectionsOfOnesOwn(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{})
	nc, err := s.Dial("another")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Conn().Publish("x", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "hello" {
		t.Errorf("NextMsg = %v, %v", m, err)
	}
}

func TestAServerThatCannotStartNamesItsDirectory(t *testing.T) {
	tests := []struct {
		name  string
		block func(t *testing.T, nats string)
		opts  Options
		want  string
	}{
		{"a file is in its place", func(t *testing.T, nats string) { writeTestFile(t, nats) }, Options{}, "not a directory"},
		{"a file is in the place of its streams", func(t *testing.T, nats string) {
			if err := os.Mkdir(nats, 0o700); err != nil {
				t.Fatal(err)
			}
			writeTestFile(t, filepath.Join(nats, "jetstream"))
		}, Options{}, "storage directory is not a directory"},
		{"messages are too large", func(*testing.T, string) {}, Options{MaxMessage: 65 << 20}, "too large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := openDir(t, t.TempDir())
			nats := filepath.Join(dir.Path(), natsDir)
			tt.block(t, nats)
			tt.opts.Dir = dir
			_, err := Start(t.Context(), tt.opts)
			if err == nil || !strings.Contains(err.Error(), nats) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v, want %q and the directory", err, tt.want)
			}
		})
	}
}

func writeTestFile(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnEndedContextStopsTheStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{Dir: openDir(t, t.TempDir())}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want Canceled", err)
	}
}

func TestServerWarningsReachTheLog(t *testing.T) {
	var out strings.Builder
	heard := 0
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), heard: func() { heard++ }}
	l.Noticef("notice %d", 1)
	l.Debugf("debug %d", 1)
	l.Tracef("trace %d", 1)
	if out.Len() > 0 || l.fatal() != nil {
		t.Errorf("log = %q, fatal = %v, want nothing", out.String(), l.fatal())
	}
	l.Warnf("warn %d", 1)
	l.Errorf("error %d", 2)
	l.Fatalf("fatal %d", 3)
	l.Fatalf("fatal %d", 4)
	for _, want := range []string{"level=WARN", `err="warn 1"`, "level=ERROR", `err="error 2"`, `err="fatal 3"`, `err="fatal 4"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log has no %s:\n%s", want, out.String())
		}
	}
	if heard != 5 {
		t.Errorf("%d lines were heard, want 5: all but debug and trace", heard)
	}
	if err := l.fatal(); err == nil || err.Error() != "fatal 3" {
		t.Errorf("fatal = %v, want the first", err)
	}
}
