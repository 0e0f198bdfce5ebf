package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// NewLogger makes the log that cfg asks for, writing to w. With level off
// nothing is written. Text on a terminal is laid out for a person, and else for
// programs, as key=value throughout.
func NewLogger(cfg Config, w io.Writer) *slog.Logger {
	if cfg.LogLevel == LogOff {
		return slog.New(slog.DiscardHandler)
	}
	level := slog.LevelInfo
	for _, n := range levelNames {
		if n.level == cfg.LogLevel {
			level = n.slog
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	f, isFile := w.(*os.File)
	switch {
	case cfg.Logger.Type == "json":
		return slog.New(slog.NewJSONHandler(w, opts))
	case isFile && term.IsTerminal(int(f.Fd())):
		return slog.New(newTerminalHandler(w, level))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// terminalHandler writes lines for a person who watches: the time of day, the
// level, the message, and then the attributes as slog's own text has them.
type terminalHandler struct {
	attrs slog.Handler // writes attributes alone, into line
	out   *terminal
}

// terminal is what a handler and those made from it share.
type terminal struct {
	mu   sync.Mutex
	w    io.Writer
	line bytes.Buffer // guarded by mu
}

func newTerminalHandler(w io.Writer, level slog.Level) *terminalHandler {
	out := &terminal{w: w}
	return &terminalHandler{out: out, attrs: slog.NewTextHandler(&out.line, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			// Level and message stand in front; Handle empties the message.
			if _, ok := a.Value.Any().(slog.Level); len(groups) == 0 && (ok || a.Key == slog.MessageKey && a.Value.String() == "") {
				return slog.Attr{}
			}
			return a
		},
	})}
}

// Enabled implements slog.Handler.
func (h *terminalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.attrs.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *terminalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	line := &h.out.line
	line.Reset()
	// A message is a fixed phrase or a warning about the configuration, which may
	// quote what stands there: nothing of it may steer the terminal.
	msg := r.Message
	if strings.ContainsFunc(msg, func(c rune) bool { return !strconv.IsPrint(c) }) {
		msg = strconv.Quote(msg)
	}
	fmt.Fprintf(line, "%s %-5s %s  ", r.Time.Format("15:04:05.000"), r.Level, msg)
	r.Time, r.Message = time.Time{}, "" // which leaves them out
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.w.Write(append(bytes.TrimRight(line.Bytes(), " \n"), '\n'))
	return err
}

// WithAttrs implements slog.Handler.
func (h *terminalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &terminalHandler{h.attrs.WithAttrs(attrs), h.out}
}

// WithGroup implements slog.Handler.
func (h *terminalHandler) WithGroup(name string) slog.Handler {
	return &terminalHandler{h.attrs.WithGroup(name), h.out}
}
