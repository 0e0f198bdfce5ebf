package node

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLoggerKeepsToItsLevel(t *testing.T) {
	for level, want := range map[LogLevel]string{
		LogDebug: "DEBUG INFO WARN ERROR", LogInfo: "INFO WARN ERROR", LogWarn: "WARN ERROR", LogError: "ERROR", LogOff: "",
	} {
		var b bytes.Buffer
		c := Default()
		c.LogLevel, c.Logger.Type = level, "json"
		log := NewLogger(c, &b)
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(context.Background(), l, "hello", "name", "a b")
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			var entry struct{ Level, Msg, Name string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg != "hello" || entry.Name != "a b" {
				t.Errorf("line %q is %+v (%v)", line, entry, err)
			}
			got = append(got, entry.Level)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("level %v logs %q, want %q", level, s, want)
		}
	}
}

func TestLoggerWritesTextByDefault(t *testing.T) {
	var b bytes.Buffer
	NewLogger(Default(), &b).Info("hello", "name", "a b")
	if got := b.String(); !strings.Contains(got, `level=INFO msg=hello name="a b"`) {
		t.Errorf("got %q", got)
	}
}

func TestLinesForATerminalBeginWithWhatAPersonReads(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.Local)
	for _, tt := range []struct {
		level slog.Level
		msg   string
		attrs []any
		want  string
	}{
		{slog.LevelInfo, "clients connect here", []any{"url", "ws://x"}, "03:04:05.678 INFO  clients connect here  url=ws://x\n"},
		{slog.LevelError, "stopped", nil, "03:04:05.678 ERROR stopped\n"},
		{slog.LevelWarn, "a \x1b[2J b", []any{"err", "c\nd", "took", time.Second}, `03:04:05.678 WARN  "a \x1b[2J b"  err="c\nd" took=1s` + "\n"},
		{slog.LevelWarn, "keys as ours", []any{"level", 1, "time", 2, "msg", 3}, "03:04:05.678 WARN  keys as ours  level=1 time=2 msg=3\n"},
		{slog.LevelDebug, "too much", nil, ""},
	} {
		var b bytes.Buffer
		h := newTerminalHandler(&b, slog.LevelInfo)
		r := slog.NewRecord(at, tt.level, tt.msg, 0)
		r.Add(tt.attrs...)
		if h.Enabled(t.Context(), tt.level) {
			if err := h.Handle(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
		if got := b.String(); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestLoggersMadeFromOneAnotherShareTheTerminal(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newTerminalHandler(&b, slog.LevelInfo))
	part := log.With("part", "a b").WithGroup("g")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				log.Info("one")
				part.Info("two", "x", 1)
			}
		})
	}
	wg.Wait()
	got := map[string]int{}
	for line := range strings.Lines(b.String()) {
		_, line, _ = strings.Cut(line, " ")
		got[line]++
	}
	if one, two := got["INFO  one\n"], got["INFO  two  part=\"a b\" g.x=1\n"]; one != 400 || two != 400 {
		t.Errorf("got %v, want each line 400 times", got)
	}
}
