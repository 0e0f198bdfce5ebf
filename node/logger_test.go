package node

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
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
