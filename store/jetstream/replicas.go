package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/gjson"

	"hadal/store"
)

// A stream with replicas is kept by a raft group of servers, one of which leads it.
// It does what a stream of one server does, and these things more:
//
//   - It may have no leader for about a second, and for some seconds when the node that had
//     it goes on living. Then a request is refused (503, no
//     responders) or, as long as nobody has noticed that the leader is gone, lost. So
//     requests that may be sent twice have short timeouts and are sent again, for as
//     long as their callers are patient. An append is never sent twice: when it has no
//     answer after watchAfter, and the stream is led by another server than it was sent
//     to, or nobody says by which, its outcome is unknown, like after any other error, and
//     the next fence finds out. One that is merely slow is waited for.
//   - A leader that was cut off answers from what it has until it notices, at most four
//     seconds later. It cannot append, so a Fence that is misled by it is refused
//     and begins again; what looks like damage in a fence is believed only when it goes on
//     (doubted). A Load that it answers could be stale, also for the owner. It asks
//     all servers at once and the first answer counts, so the owner's own server has
//     to lead STATE (Lead): then an answer of the past comes from the owner's server
//     only, when that is cut off itself, and whoever asks the owner asks its lease first.
//   - A consumer reads from any replica, also one that lags. A replay ends with the
//     owner's fence and a scan with the fence that it put there itself, so both wait for
//     what a replica lacks.
//   - Direct gets are answered by any replica, too, and are switched off.
//   - A message that most replicas have acknowledged is not lost with one of them. A
//     hole in the LOG is corruption (LogOptions.AllowHoles).
//
// A deposed owner can do no more than with one server: its appends and floors are
// refused by the LOG, its batches and its second fence by STATE, and a late purge
// removes what STATE has (log.go). All of these are decided by the leader that has a
// majority, in the order of the stream.
const (
	// replicaAttempt is how long an answer may take at first. An attempt that took as
	// long for nothing makes the next one longer (longer), up to replicaMaxAttempt.
	replicaAttempt    = 150 * time.Millisecond
	replicaMaxAttempt = 1200 * time.Millisecond
	// replicaPatience is the least that anybody waits, if the context does not end: an
	// election, and what has queued up behind it.
	replicaPatience = 6 * time.Second
	// watchAfter is how long an append may go without an answer until its leader is looked
	// for, then again and again; watchAttempt is how long that may take, and after
	// watchAttempts without success there is none. A new leader is there half a second after
	// the old one has died, and knows nothing of the append.
	watchAfter    = 400 * time.Millisecond
	watchAttempt  = 500 * time.Millisecond
	watchAttempts = 3
	// askPatience bounds requests that the meta leader answers, who has to have things
	// decided, and purges.
	askPatience = 2 * time.Second
	// openPatience bounds the opening of a stream while nobody answers.
	openPatience = 20 * time.Second
	// doubtPatience is how long what looks like damage is doubted.
	doubtPatience = 6 * time.Second
	// replicaScanWait is how long a scan waits for the next message of a replica.
	replicaScanWait = 2 * time.Second
	// shortReplay is how many messages of the LOG are asked for by number, replayWindow at a
	// time, rather than read through a consumer: that one has to be made by the meta leader,
	// who may have died with the owner.
	shortReplay  = 20_000
	replayWindow = 64
)

// Answers to a stream that too few servers are there for, and to one that somebody else
// made in the same moment.
const (
	codeNoPeers = 10005
	codeInUse   = 10058
)

// attemptKey is the context key of how long one request may take.
type attemptKey struct{}

// retryReplicated is retry for a stream with replicas: try's requests are bounded one
// by one.
func (s *link) retryReplicated(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	give := time.Now().Add(max(patience, replicaPatience))
	believe := time.Now().Add(doubtPatience)
	for attempt := replicaAttempt; ; {
		begun := time.Now()
		err := try(context.WithValue(ctx, attemptKey{}, attempt))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !passing(err) || time.Now().After(give) || errors.Is(err, store.ErrCorrupt) && time.Now().After(believe) {
			return err
		}
		if s.log != nil {
			s.log.Debug("asking a stream again", "stream", s.stream, "err", err, "took", time.Since(begun))
		}
		if time.Since(begun) >= attempt {
			attempt = longer(attempt)
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
}

// longer is how long the next attempt may take when one got no answer: more, as the server
// may be slow, and not much more, as what was sent while a stream had no leader is lost, and
// waited for in vain.
func longer(attempt time.Duration) time.Duration { return min(attempt*3/2, replicaMaxAttempt) }

// rest waits a moment before the next attempt.
func (s *link) rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stopCh:
		return store.ErrClosed
	case <-time.After(retryPause):
		return nil
	}
}

// each bounds one request within a retry.
func (s *link) each(ctx context.Context) (context.Context, context.CancelFunc) {
	if attempt, ok := ctx.Value(attemptKey{}).(time.Duration); ok {
		return context.WithTimeout(ctx, attempt)
	}
	return ctx, func() {}
}

// request asks the server something that may be asked twice.
func (s *link) request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := s.each(ctx)
	defer cancel()
	return s.nc.RequestWithContext(ctx, subject, data)
}

// errNobodyLeads ends an append that is not going to be answered.
var errNobodyLeads = errors.New("the stream is not led by the server any more that the append was sent to, so its outcome is not known")

// publishWatched is publish for appends. The caller holds the store's mu.
func (s *link) publishWatched(ctx context.Context, msg *nats.Msg) (uint64, error) {
	if !s.replicated.Load() {
		return s.publish(ctx, msg)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Add(1)
	term := s.term
	timer := time.AfterFunc(watchAfter, func() {
		defer watching.Done()
		s.watch(ctx, cancel, term)
	})
	seq, err := s.publish(ctx, msg)
	if err != nil && errors.Is(context.Cause(ctx), errNobodyLeads) {
		err = errNobodyLeads
	}
	cancel(nil)
	if timer.Stop() {
		watching.Done()
	}
	watching.Wait()
	return seq, err
}

// watch ends an append when the stream's leader is not who it was in term.
func (s *link) watch(ctx context.Context, cancel context.CancelCauseFunc, term string) {
	for failed := 0; ; {
		actx, acancel := context.WithTimeout(ctx, watchAttempt)
		info, err := s.streamInfo(actx)
		acancel()
		pause := watchAfter
		if failed++; err == nil {
			failed = 0
		} else {
			pause = retryPause
		}
		if failed == watchAttempts || err == nil && info.Term != term {
			cancel(errNobodyLeads)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// asking bounds a request that the meta leader answers.
func (s *link) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.replicated.Load() {
		return context.WithTimeout(ctx, askPatience)
	}
	return ctx, func() {}
}

// doubted is corrupt, which with replicas is believed only when it is still so after a
// while: a leader that was deposed may have answered.
func (s *link) doubted(subject string, seq uint64, reason string) error {
	err := s.corrupt(subject, seq, reason)
	if s.replicated.Load() {
		err = fmt.Errorf("%w: %w", errMoved, err)
	}
	return err
}

// endHere puts the fence at the end of the stream, where it stands for "up to here".
// The caller holds mu.
func (s *Store) endHere() error {
	s.state.Lock()
	err, base := s.usableLocked(), s.base
	e := entry{fence: true, epoch: s.epoch, floor: s.floor, dead: s.dead}
	s.state.Unlock()
	if err != nil {
		return err
	}
	// Not with the caller's context: a reader who goes away must not fence off the store.
	wctx, cancel := within(context.Background())
	defer cancel()
	_, err = s.moveFence(wctx, base, &e)
	if isWrongSequence(err) {
		err = fmt.Errorf("after sequence %d: %w: %w", base, store.ErrFenced, err)
	}
	return err
}

// replayEach reads the LOG message by message, at its leader.
func (l *Logged) replayEach(ctx context.Context, r *replay) error {
	type answer struct {
		subject string
		seq     uint64
		payload []byte
		err     error
	}
	var window [replayWindow]answer
	for r.next <= r.end {
		n := min(r.end-r.next+1, replayWindow)
		// The first of many waits for the others' data, too.
		actx := context.WithValue(ctx, attemptKey{}, replicaMaxAttempt)
		var asking sync.WaitGroup
		for i := range n {
			asking.Go(func() {
				a := &window[i]
				a.subject, a.seq, a.payload, a.err = l.raw(actx, getBySequence(r.next+i))
			})
		}
		asking.Wait()
		for i := range n {
			a := &window[i]
			if errors.Is(a.err, store.ErrNotFound) {
				a.err = l.doubted(l.subjects, r.next, "the message is missing or cannot be read")
			}
			if a.err == nil {
				a.err = l.take(r, a.subject, a.seq, a.payload)
			}
			if a.err != nil {
				return a.err
			}
			*a = answer{}
		}
	}
	return nil
}

// foundStream is a stream as the server has it.
type foundStream struct {
	jetstream.StreamConfig
	created time.Time
}

// born tells the stream from others of its name, for a mark. With one server it is 0:
// a stream that was there and is not is lost, and the mark has to tell.
func (f *foundStream) born() int64 {
	if f.Replicas <= 1 {
		return 0
	}
	return f.created.UnixNano()
}

// ensure finds a stream or makes it. One that exists keeps its number of replicas, and
// what follows from it; all else becomes what cfg says.
func ensure(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (foundStream, error) {
	give := time.Now().Add(openPatience)
	for attempt := replicaAttempt; ; {
		begun := time.Now()
		found, err := ensureOnce(ctx, js, cfg, attempt)
		if err == nil || ctx.Err() != nil || cfg.Replicas <= 1 || !opening(err) || time.Now().After(give) {
			return found, err
		}
		if time.Since(begun) >= attempt {
			attempt = longer(attempt)
		}
		select {
		case <-ctx.Done():
			return found, context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
}

// opening says whether an error may be gone in a moment, when a stream is opened.
func opening(err error) bool {
	api, ok := errors.AsType[*apiError](translate(err))
	return passing(translate(err)) || ok && (api.ErrCode == codeNoPeers || api.ErrCode == codeInUse) || errors.Is(err, jetstream.ErrJetStreamNotEnabled)
}

// ensureOnce is one attempt. Looking whether the stream is there takes as long as
// attempt at most: the stream's leader answers, and a node that takes over asks just when
// that one may have died, and its request be lost.
func ensureOnce(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, attempt time.Duration) (foundStream, error) {
	look := ctx
	if cfg.Replicas > 1 {
		var cancel, ended context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askPatience)
		defer cancel()
		look, ended = context.WithTimeout(ctx, attempt)
		defer ended()
	}
	was, err := js.Stream(look, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		made, err := js.CreateStream(ctx, cfg)
		if err != nil {
			return foundStream{}, err
		}
		return foundStream{made.CachedInfo().Config, made.CachedInfo().Created}, nil
	}
	if err != nil {
		return foundStream{}, err
	}
	info := was.CachedInfo()
	found := foundStream{info.Config, info.Created}
	cfg.Replicas = found.Replicas
	cfg.AllowDirect = cfg.AllowDirect && cfg.Replicas <= 1
	if cfg.Discard == jetstream.DiscardNew && cfg.MaxMsgsPerSubject <= 0 { // the LOG
		cfg.MaxBytes = max(cfg.MaxBytes, int64(info.State.Bytes)+cfg.MaxBytes/4)
	}
	if sameStream(&found.StreamConfig, &cfg) {
		return found, nil
	}
	now, err := js.UpdateStream(ctx, cfg)
	if err != nil {
		return foundStream{}, err
	}
	found.StreamConfig = now.CachedInfo().Config
	return found, nil
}

// sameStream compares what ensure's callers set.
func sameStream(a, b *jetstream.StreamConfig) bool {
	return a.Description == b.Description && slices.Equal(a.Subjects, b.Subjects) && a.Storage == b.Storage &&
		a.Retention == b.Retention && a.Discard == b.Discard && max(a.MaxMsgsPerSubject, 0) == max(b.MaxMsgsPerSubject, 0) &&
		a.MaxMsgs == b.MaxMsgs && a.MaxBytes == b.MaxBytes && a.AllowAtomicPublish == b.AllowAtomicPublish &&
		a.Duplicates == b.Duplicates && a.AllowDirect == b.AllowDirect &&
		a.AllowMsgTTL == b.AllowMsgTTL && a.SubjectDeleteMarkerTTL == b.SubjectDeleteMarkerTTL && (a.RePublish == nil) == (b.RePublish == nil)
}

// Replica is one server that keeps a stream.
type Replica struct {
	Server string
	// Leader says that it leads the stream's group, Current that it has everything,
	// Offline that the leader has not heard of it for a while.
	Leader, Current, Offline bool
	// Lag is how many changes it lacks, Seen how long ago the leader heard of it.
	Lag  uint64
	Seen time.Duration
}

// StreamStatus is how a stream is replicated.
type StreamStatus struct {
	Stream string
	// Wanted is how many replicas the stream shall have.
	Wanted int
	// Leader is the server that leads it, or empty.
	Leader string
	// Replicas are those that it has, by name. A stream on a server alone has none.
	Replicas []Replica
	// Messages and Bytes are what it holds.
	Messages, Bytes uint64

	term string // as termOf
}

// Whole says whether all wanted replicas are there and have everything.
func (s *StreamStatus) Whole() bool {
	return s.Leader != "" && len(s.Replicas) == s.Wanted && !slices.ContainsFunc(s.Replicas, func(r Replica) bool { return !r.Current || r.Offline })
}

// Status is how the two streams of a partition are replicated, the LOG first. It asks
// their leaders, whoever they are: the caller need not own the partition.
func Status(ctx context.Context, nc *nats.Conn, partition int) ([]StreamStatus, error) {
	var all []StreamStatus
	for _, name := range []string{LogName(partition), Name(partition)} {
		st, err := statusOf(ctx, &link{nc: nc, stream: name})
		if err != nil {
			return all, fmt.Errorf("ask for stream %s: %w", name, err)
		}
		all = append(all, st)
	}
	return all, nil
}

// Streams is Status of this store's streams.
func (l *Logged) Streams(ctx context.Context) ([]StreamStatus, error) {
	return Status(ctx, l.nc, l.opts.Partition)
}

// statusOf asks once.
func statusOf(ctx context.Context, s *link) (StreamStatus, error) {
	reply, err := s.request(ctx, "$JS.API.STREAM.INFO."+s.stream, nil)
	if err != nil {
		return StreamStatus{}, err
	}
	answer := gjson.ParseBytes(reply.Data)
	if err := errorIn(answer); err != nil {
		return StreamStatus{}, err
	}
	c := answer.Get("cluster")
	st := StreamStatus{
		Stream: s.stream, Wanted: int(answer.Get("config.num_replicas").Int()), Leader: c.Get("leader").Str,
		Messages: answer.Get("state.messages").Uint(), Bytes: answer.Get("state.bytes").Uint(), term: termOf(answer),
	}
	if st.Leader != "" {
		st.Replicas = append(st.Replicas, Replica{Server: st.Leader, Leader: true, Current: true})
	}
	c.Get("replicas").ForEach(func(_, r gjson.Result) bool {
		st.Replicas = append(st.Replicas, Replica{
			Server: r.Get("name").Str, Current: r.Get("current").Bool() && !r.Get("pending").Bool(), Offline: r.Get("offline").Bool(),
			Lag: r.Get("lag").Uint(), Seen: time.Duration(r.Get("active").Int()),
		})
		return true
	})
	slices.SortFunc(st.Replicas, func(a, b Replica) int { return strings.Compare(a.Server, b.Server) })
	return st, nil
}

// termOf tells the time in office of a stream's leader from any other.
func termOf(info gjson.Result) string {
	c := info.Get("cluster")
	return c.Get("leader").Str + " since " + c.Get("leader_since").Str
}

// SetReplicas changes how many servers keep the streams, 1, 3 or 5, the LOG first, one
// after the other. It returns when all replicas have everything, or ctx ends; then it
// may be called again. The store is used meanwhile. Which servers they are is chosen by
// the meta leader; of those there are now it drops the leader last.
func (l *Logged) SetReplicas(ctx context.Context, n int) error {
	for _, s := range []*link{&l.link, &l.statesLink.link} {
		if n > 1 {
			l.statesLink.direct.Store(false)
			s.replicated.Store(true)
		}
		if err := s.setReplicas(ctx, n); err != nil {
			return fmt.Errorf("stream %s shall have %d replicas: %w", s.stream, n, err)
		}
		s.replicated.Store(n > 1)
	}
	return nil
}

func (s *link) setReplicas(ctx context.Context, n int) error {
	asked := false
	for {
		err := s.replicasOnce(ctx, n, &asked)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if !opening(err) {
			return err
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
}

// replicasOnce asks for n replicas, unless that is done, and looks whether they are
// there.
func (s *link) replicasOnce(ctx context.Context, n int, asked *bool) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if !*asked {
		was, err := s.js.Stream(ctx, s.stream)
		if err != nil {
			return translate(err)
		}
		cfg := was.CachedInfo().Config
		if cfg.Replicas != n {
			cfg.Replicas = n
			cfg.AllowDirect = false
			if _, err := s.js.UpdateStream(ctx, cfg); err != nil {
				return translate(err)
			}
		}
		*asked = true
	}
	st, err := statusOf(ctx, s)
	if err == nil && !st.Whole() {
		err = fmt.Errorf("it is kept by %+v: %w", st.Replicas, errMoved)
	}
	return err
}
