package cluster

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogEvery is how often the same complaint of raft's is logged above debug.
const raftLogEvery = 10 * time.Second

// newRaftLog gives raft's log to ours. Its narration is for debugging; what changes is
// logged by us. Its errors are warnings, each at most once in raftLogEvery: a node that
// is away is complained of twenty times a second. Once stopped is true nothing is: what
// is torn down complains.
func newRaftLog(log *slog.Logger, stopped *atomic.Bool) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(&raftLogSink{log: log, stopped: stopped, said: make(map[string]time.Time)})
	return l
}

type raftLogSink struct {
	log     *slog.Logger
	stopped *atomic.Bool
	mu      sync.Mutex
	said    map[string]time.Time // guarded by mu; raft has some thirty complaints
}

// Accept implements hclog.SinkAdapter.
func (s *raftLogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level >= hclog.Error && !s.stopped.Load() && s.due(msg) {
		s.log.Warn("raft complains", append([]any{"what", msg}, args...)...)
		return
	}
	s.log.Debug("raft says", append([]any{"what", msg, "level", level.String()}, args...)...)
}

func (s *raftLogSink) due(msg string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.said[msg]; ok && now.Sub(last) < raftLogEvery {
		return false
	}
	s.said[msg] = now
	return true
}
