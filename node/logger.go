package node

import (
	"io"
	"log/slog"
)

// NewLogger makes the log that cfg asks for, writing to w. With level off
// nothing is written.
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
	if cfg.Logger.Type == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
