package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// How the embedded server is looked after.
const (
	// lookAgain is the time between two looks while something is wrong.
	lookAgain = 250 * time.Millisecond
	// firstPause and lastPause bound the time from one restart to the next. The
	// first restart after calm comes at once.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	calm       = 2 * time.Minute
	// Suspicions that go on for doubtFor are a reason to restart a server that
	// looks well itself. After a quiet doubtQuiet they begin anew.
	doubtFor   = 5 * time.Second
	doubtQuiet = time.Minute
	// startProbe and restartProbe are how many bytes are written to find out
	// whether a directory can be written.
	startProbe   = 4 << 10
	restartProbe = 1 << 20
	// tellEvery is how often a full disk is logged while writes are refused.
	tellEvery = time.Minute
)

// errStopped means that there is no embedded server, or none with JetStream.
var errStopped = errors.New("JetStream has stopped")

// Stats is what a Server counts.
type Stats struct {
	// Restarts counts those that ended well, FailedRestarts the others.
	Restarts, FailedRestarts uint64
	// Suspicions counts the calls of Suspect.
	Suspicions uint64
	// TroubledSince is when the trouble that Ready tells of began, or zero. A disk
	// that is merely full is none.
	TroubledSince time.Time
	// DiskTotal, DiskFree and DiskReserve are bytes: of the volume, available to us,
	// and kept free of these. They are zero when the system does not say.
	DiskTotal, DiskFree, DiskReserve int64
}

// Stats returns what is counted, and looks at the disk.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	if s.trouble != nil {
		st.TroubledSince = s.trouble.since
	}
	s.mu.Unlock()
	// An error is Ready's to tell.
	if sp, err := look(s.dir); err == nil {
		st.DiskTotal, st.DiskFree, st.DiskReserve = sp.total, sp.free, s.disk.kept(sp.total)
	}
	return st
}

// trouble is why the embedded server cannot be written to.
type trouble struct {
	reason error
	since  time.Time
	waits  error // why it is not restarted yet, or could not be; may be nil
}

// Error implements error.
func (t *trouble) Error() string {
	text := fmt.Sprintf("the embedded server takes no writes since %s: %v", t.since.UTC().Format(time.RFC3339), t.reason)
	if t.waits != nil {
		text += fmt.Sprintf("; not restarted yet: %v", t.waits)
	}
	return text
}

// Unwrap makes it what it waits for as well, such as ErrDiskFull.
func (t *trouble) Unwrap() error { return errors.Join(t.reason, t.waits) }

// Room is nil when so many bytes may be written to the data directory now, or says
// what is in the way: no room above the reserve (ErrDiskFull), a file system that
// is read-only or cannot be reached, or an embedded server that takes no writes.
// It costs about a microsecond and never waits for the disk.
func (s *Server) Room(bytes int64) error {
	err := s.hasRoom(bytes)
	if stopped := (*trouble)(nil); err != nil && !errors.As(err, &stopped) {
		s.tell(err)
	}
	return err
}

// hasRoom is Room, and tells the log nothing.
func (s *Server) hasRoom(bytes int64) error {
	s.mu.Lock()
	t := s.trouble
	s.mu.Unlock()
	if t != nil {
		return t
	}
	return s.disk.room(bytes)
}

// Ready says why nothing can be written now, or nil. It may be asked from
// anywhere. In a cluster it says as well why this server cannot do its part: no leader
// of the meta group, a stream of its own that is not current, no route to anybody; that
// looks at every stream, so it is not for every write. It never waits for the disk, but
// in a cluster may take a quarter of a second, to be sure that it is none of those
// moments without a heartbeat.
func (s *Server) Ready() error {
	s.mu.Lock()
	t := s.trouble
	s.mu.Unlock()
	if t != nil {
		return t
	}
	if s.opts.Cluster != nil {
		if err := s.joined(); err != nil {
			return err
		}
	}
	return s.disk.room(0)
}

// tell logs that the disk has no room, but not with every write.
func (s *Server) tell(err error) {
	now := time.Now()
	s.mu.Lock()
	silent := now.Sub(s.told) < tellEvery
	if !silent {
		s.told = now
	}
	s.mu.Unlock()
	if !silent {
		s.log.Error("writes are refused", "err", err)
	}
}

// Suspect says that the embedded server does not do what it is asked, though it
// may look well. Supervise then looks, and restarts it in any case when the
// suspicions go on. It may be called from anywhere and never waits.
func (s *Server) Suspect(err error) {
	s.mu.Lock()
	s.stats.Suspicions++
	s.doubts.add(time.Now(), err)
	s.mu.Unlock()
	s.look()
}

// look has Supervise look at the server's health.
func (s *Server) look() {
	select {
	case s.alarm <- struct{}{}:
	default: // it will
	}
}

// doubts are the suspicions of late.
type doubts struct {
	first, last time.Time
	err         error // the last
}

func (d *doubts) add(now time.Time, err error) {
	if now.Sub(d.last) > doubtQuiet {
		d.first = now
	}
	d.last, d.err = now, err
}

// grown says whether they have gone on for long enough.
func (d *doubts) grown() bool { return d.last.Sub(d.first) >= doubtFor }

// pauses is the time from each restart to the next: none at first, then more and
// more, until there was calm.
type pauses struct {
	pause time.Duration
	last  time.Time
}

// left is how long a restart has to wait yet.
func (p *pauses) left(now time.Time) time.Duration { return p.last.Add(p.pause).Sub(now) }

// restarted notes that a restart ended.
func (p *pauses) restarted(now time.Time) {
	if now.Sub(p.last) > p.pause+calm {
		p.pause = 0
	}
	p.pause = min(max(2*p.pause, firstPause), lastPause)
	p.last = now
}

// Supervise restarts the embedded server when it has stopped, or hangs, or a stream has
// stopped, or Suspect goes on being called; not before the data directory can be written
// and has room again. It returns nil when ctx ends, and an error when the server hangs and
// does not end, so that the process has to. It does nothing, and sets no timer, until the
// server logs something or Suspect is called.
func (s *Server) Supervise(ctx context.Context) error {
	var p pauses
	s.look()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.alarm:
			if err := s.attend(ctx, &p); err != nil {
				return err
			}
		}
	}
}

// attend looks at the server and does what there is to do, until all is well or
// ctx ends. The error is that nothing can be done.
func (s *Server) attend(ctx context.Context, p *pauses) error {
	var failed error // the last restart
	for ctx.Err() == nil {
		reason, reads := s.ill()
		if reason == nil {
			s.recovered()
			return nil
		}
		first := s.troubled(reason, failed) // at once, as to find out more may take time
		waits := s.restartable(reads)
		if waits == nil && s.removed() {
			waits = ErrServerRemoved
		}
		if waits != nil {
			s.troubled(reason, waits)
		}
		if first {
			s.log.Error("embedded server takes no writes", "err", reason, "waits", waits)
			if errors.Is(reason, errHangs) {
				s.log.Error("embedded server hangs: this is where", "goroutines", stacks())
			}
		}
		pause := p.left(time.Now())
		if waits != nil {
			pause = lookAgain
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		if errors.Is(reason, errHangs) {
			// It may only have been slow, with the disk.
			if now, _ := s.ill(); !errors.Is(now, errHangs) {
				continue
			}
		}
		if failed = s.restart(ctx, reason); errors.Is(failed, errNoEnd) {
			return failed
		}
		p.restarted(time.Now())
	}
	return nil
}

// ill says what is wrong with the server, and whether it can still be read.
func (s *Server) ill() (reason error, reads bool) {
	s.mu.Lock()
	srv, health, closed, d, first, started := s.srv, s.health, s.closed, s.doubts, s.first, s.started
	s.mu.Unlock()
	switch {
	case closed:
		return nil, false
	case srv != nil && s.opts.Cluster != nil && !s.opts.Cluster.JetStream:
		return nil, false // it keeps nothing
	case srv == nil || !srv.JetStreamEnabled():
		return errStopped, false
	}
	all, err := health.complaints(s.hangAfter)
	switch {
	case err != nil:
		return err, false
	case s.opts.Cluster != nil:
		return illInCluster(all, d), true
	}
	for _, e := range all {
		// A stream that is being made has a directory and is not there. One that was
		// not there at the first start is no different afterwards.
		missing := strings.HasSuffix(e, notRecovered)
		if !missing || slices.Contains(started, e) && !slices.Contains(first, e) {
			return errors.New(e), true
		}
	}
	if d.grown() {
		return fmt.Errorf("the store goes on failing: %w", d.err), true
	}
	return nil, true
}

// complaints is what the server's own health check finds: streams with a write
// error, and directories of streams that it could not open, which end in
// notRecovered.
type complaints []string

const notRecovered = "could not be recovered"

func complaintsOf(srv *server.Server) (all complaints) {
	// It looks no further when it has not found out in a millisecond that it takes
	// connections, which happens on a machine that is busy.
	for range connLooks {
		errs := srv.Healthz(&server.HealthzOptions{Details: true}).Errors
		all = all[:0]
		for _, e := range errs {
			all = append(all, e.Error)
		}
		if !slices.ContainsFunc(errs, func(e server.HealthzError) bool { return e.Type == server.HealthzErrorConn }) {
			break
		}
		time.Sleep(connPause)
	}
	return all
}

// connLooks is how often it is asked at most, and connPause the time between.
const (
	connLooks = 100
	connPause = 20 * time.Millisecond
)

// restartable says why a restart would be of no use or do harm now. A server that
// can be read is not given up before it could be written again. One that is dead
// is worth a restart on a full disk, too, but not in a cluster: there the others serve
// what it cannot, and it would stop again at the first vote that it has to write down.
func (s *Server) restartable(reads bool) error {
	// Most often this is the answer, and cheaper than to look at all files.
	if reads || s.opts.Cluster != nil {
		if err := s.disk.room(0); err != nil {
			return err
		}
	}
	_, size, err := youngBlocks(s.dir, s.opts.SyncInterval)
	if err != nil {
		return withCure(err)
	}
	d := s.disk
	if !reads && s.opts.Cluster == nil {
		d.reserve = restartProbe
	}
	if err := d.room(size); err != nil {
		return err
	}
	return probe(s.dir, restartProbe)
}

// restart puts a new server in the place of the old one.
func (s *Server) restart(ctx context.Context, reason error) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.log.Warn("embedded server restarts", "err", reason)
	began := time.Now()
	old := s.take()
	s.hangUp()
	err := endWithin(old, s.end, s.endAfter)
	if err == nil {
		err = settle(s.dir, s.opts.SyncInterval)
	}
	if err == nil {
		err = s.boot(ctx)
	}
	took := time.Since(began).Round(time.Millisecond)
	s.mu.Lock()
	s.doubts = doubts{}
	if err == nil {
		s.stats.Restarts++
	} else {
		s.stats.FailedRestarts++
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Error("embedded server did not restart", "took", took, "err", err)
		return err
	}
	s.log.Info("embedded server restarted", "took", took)
	return nil
}

// troubled notes what is wrong, for Room and Ready. It says whether all was well
// before.
func (s *Server) troubled(reason, waits error) bool {
	t := &trouble{reason: reason, since: time.Now(), waits: waits}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.trouble == nil
	if !first {
		t.since = s.trouble.since
	}
	s.trouble = t
	return first
}

// recovered notes that nothing is wrong any more.
func (s *Server) recovered() {
	s.mu.Lock()
	before := s.trouble
	s.trouble = nil
	s.mu.Unlock()
	if before != nil {
		s.log.Info("embedded server takes writes again", "after", time.Since(before.since).Round(time.Millisecond))
	}
}
