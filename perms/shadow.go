package perms

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/protocol"
)

// shadow judges what the rules in force judge by a candidate, too, right after
// them, and notes where the two differ. It decides nothing.
//
// It runs where the message is judged, because everything is at hand there: the
// data, the record as it is at this moment, and the records that the rules in
// force had read. Nothing is copied and nothing fetched; a candidate that refers to
// records that were not read has no verdict, which is noted as unknown. Most rules
// are the same in both files, and those are not judged again. What the others cost
// is measured, and when that is more than shadowShare of the time, messages are
// left out for a while, and counted.
type shadow struct {
	candidate *Rules
	log       *slog.Logger
	began     time.Time
	budget    budget

	compared, skipped tally

	mu    sync.Mutex
	kinds map[differs]*kind // guarded by mu
	other uint64            // differences of more kinds than maxKinds; guarded by mu
}

const (
	// shadowShare is the part of one processor that a candidate may use: one in so
	// many. What it does not use it may catch up on for shadowBurst.
	shadowShare = 10
	shadowBurst = time.Second

	maxKinds    = 1000
	maxExamples = 5
	// maxExampleName is the length of names in examples, in bytes.
	maxExampleName = 256
)

// unknownVerdict is the candidate's where it needs records that were not read.
const unknownVerdict = "unknown"

// differs is one kind of difference.
type differs struct {
	section           sectionID
	active, candidate Decision
}

type kind struct {
	count  uint64
	latest [maxExamples]Example
}

// Decision is a verdict and the rule that it came from.
type Decision struct {
	// Path is empty where no path has such a rule, or there are no rules.
	Path string `json:"path"`
	// Rule is the rule type, such as read.
	Rule string `json:"rule"`
	// Verdict is allow, deny, fail, or for a candidate unknown.
	Verdict string `json:"verdict"`
}

// Difference is how often the same two rules decided differently.
type Difference struct {
	Section   string   `json:"section"`
	Active    Decision `json:"active"`
	Candidate Decision `json:"candidate"`
	Count     uint64   `json:"count"`
	// Examples are the latest few messages, the latest first.
	Examples []Example `json:"examples"`
}

// Example is a message that was judged differently. It holds no data.
type Example struct {
	Time   time.Time `json:"time"`
	User   string    `json:"user"`
	Action string    `json:"action"`
	Name   string    `json:"name"`
}

// ShadowReport is what a candidate would have decided so far.
type ShadowReport struct {
	// Seconds is how long it has gone on.
	Seconds float64 `json:"seconds"`
	// Compared counts the decisions that both were asked for.
	Compared uint64 `json:"compared"`
	// Different counts those of them that differ. Differences has them by kind, the
	// most frequent first.
	Different   uint64       `json:"different"`
	Differences []Difference `json:"differences"`
	// Unknown are those where the candidate needs records that were not read.
	Unknown []Difference `json:"unknown"`
	// Dropped counts decisions that were not compared, to save time.
	Dropped uint64 `json:"dropped"`
	// Other counts differences of which no kind was kept.
	Other uint64 `json:"other"`
	// End says that this is the last report.
	End bool `json:"end,omitempty"`
}

// ErrShadowRuns means that there is a candidate already.
var ErrShadowRuns = errors.New("a candidate is being judged already: wait for it, or end it")

// Shadow judges by candidate beside the rules in force until ctx ends, and
// calls fn with what it found: once it has begun, every so often, and in the end.
// An error of fn ends it, too.
func (l *Live) Shadow(ctx context.Context, candidate *Rules, every time.Duration, fn func(ShadowReport) error) error {
	s := newShadow(candidate, l.log)
	if !l.shadow.CompareAndSwap(nil, s) {
		return ErrShadowRuns
	}
	l.log.Info("candidate rules are tried beside those in force")
	defer func() {
		l.shadow.Store(nil)
		r := s.report()
		l.log.Info("candidate rules were tried", "compared", r.Compared, "different", r.Different, "dropped", r.Dropped)
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		r := s.report()
		r.End = ctx.Err() != nil
		if err := fn(r); err != nil || r.End {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func newShadow(candidate *Rules, log *slog.Logger) *shadow {
	return &shadow{candidate: candidate, log: log, began: time.Now(), kinds: make(map[differs]*kind)}
}

// door compares a verdict at the door. What goes on to a record's owner is compared
// there.
func (s *shadow) door(q *question, active *Rules, a protocol.Action, v Verdict, by decided) {
	if by.slot == noSlot || q.topic == protocol.TopicRecord && (v == Allow || v == NeedRecord) && a != protocol.RecordListen {
		return
	}
	s.compare(q, active, a, v, by, (*Rules).door)
}

// owner compares a verdict at a record's owner.
func (s *shadow) owner(q *question, active *Rules, a protocol.Action, v Verdict, by decided) {
	if by.slot == noSlot {
		return
	}
	judge := (*Rules).judge
	if a == protocol.RecordSubscribe && !q.exists && !active.ReadsRecord(a, q.name) {
		judge = (*Rules).door // the record was not looked at
	}
	s.compare(q, active, a, v, by, judge)
}

func (s *shadow) compare(q *question, active *Rules, a protocol.Action, v Verdict, by decided,
	judge func(*Rules, *question, protocol.Action) (Verdict, decided)) {
	d := demandOf(q.topic, a)
	if same(active, s.candidate, d, q.name) {
		s.compared.add()
		return
	}
	now := time.Since(s.began)
	if !s.budget.left(now) {
		s.skipped.add()
		return
	}
	known := q.known
	if read, ok := q.records.(*readRecords); ok {
		known = read.known
	}
	if known == nil {
		known = unknown
	}
	asked := question{user: q.user, topic: q.topic, name: q.name, data: q.data, old: q.old, exists: q.exists, known: known}
	w, with := judge(s.candidate, &asked, a)
	s.compared.add()
	if v != w {
		s.note(&asked, a, d.section, decision(d.section, v, by), decision(d.section, w, with))
	}
	s.budget.spend(now, time.Since(s.began)-now)
}

// same says whether the rules that decide are the same in both.
func same(active, candidate *Rules, d demand, name string) bool {
	if active.open || candidate.open {
		return active.open == candidate.open
	}
	a, c := active.sections[d.section].find(name), candidate.sections[d.section].find(name)
	two := d.how == both || d.how == readOrCreate
	return active.limit == candidate.limit &&
		a.rules[d.first].same(c.rules[d.first]) && (!two || a.rules[d.second].same(c.rules[d.second]))
}

func (m match) same(n match) bool {
	if m.rule == nil || n.rule == nil {
		return m.rule == n.rule
	}
	return m.path == n.path && m.text == n.text
}

func decision(id sectionID, v Verdict, by decided) Decision {
	d := Decision{Rule: ruleNames[id][by.slot], Verdict: v.String()}
	if by.rule != nil {
		d.Path = by.path
	}
	if v == NeedRecord || v == Pending {
		d.Verdict = unknownVerdict
	}
	return d
}

// note notes a difference. The strings of q are pieces of a frame.
func (s *shadow) note(q *question, a protocol.Action, id sectionID, active, candidate Decision) {
	e := Example{
		Time: time.Now().UTC(), User: shown(q.user.ID), Action: a.Name(q.topic), Name: shown(q.name),
	}
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("candidate rules would decide otherwise", "user", e.User, "action", e.Action, "name", e.Name,
			"section", sectionNames[id], "active", active, "candidate", candidate)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	is := differs{id, active, candidate}
	k := s.kinds[is]
	switch {
	case k == nil && len(s.kinds) >= maxKinds:
		s.other++
		return
	case k == nil:
		k = &kind{}
		s.kinds[is] = k
	}
	k.latest[k.count%maxExamples] = e
	k.count++
}

// shown is a copy of a name for an example.
func shown(name string) string {
	if len(name) > maxExampleName {
		return strings.ToValidUTF8(name[:maxExampleName], "") + "…"
	}
	return strings.ToValidUTF8(strings.Clone(name), "\uFFFD")
}

func (s *shadow) report() ShadowReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := ShadowReport{
		Seconds: time.Since(s.began).Seconds(), Compared: s.compared.sum(), Dropped: s.skipped.sum(), Other: s.other,
		Different: s.other, Differences: []Difference{}, Unknown: []Difference{},
	}
	for is, k := range s.kinds {
		d := Difference{Section: sectionNames[is.section], Active: is.active, Candidate: is.candidate, Count: k.count}
		for i := range min(k.count, maxExamples) {
			d.Examples = append(d.Examples, k.latest[(k.count-1-i)%maxExamples])
		}
		if is.candidate.Verdict == unknownVerdict {
			r.Unknown = append(r.Unknown, d)
			continue
		}
		r.Different += k.count
		r.Differences = append(r.Differences, d)
	}
	for _, list := range [][]Difference{r.Differences, r.Unknown} {
		slices.SortFunc(list, func(a, b Difference) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Section, b.Section),
				a.Active.compare(b.Active), a.Candidate.compare(b.Candidate))
		})
	}
	return r
}

func (d Decision) compare(e Decision) int {
	return cmp.Or(cmp.Compare(d.Path, e.Path), cmp.Compare(d.Rule, e.Rule), cmp.Compare(d.Verdict, e.Verdict))
}

// watch is the records of a question, which remember what is read of them.
func (s *shadow) watch(q *question) Records {
	if q.records == nil {
		return nil
	}
	return &readRecords{from: q.records}
}

// readRecords remember what is read of them, for one message.
type readRecords struct {
	from Records

	mu   sync.Mutex
	read map[string]record // guarded by mu
}

// record is the content of a record as it was read.
type record struct {
	data   string
	exists bool
}

// Read reads a record.
func (r *readRecords) Read(ctx context.Context, name string) (data string, exists bool, err error) {
	data, exists, err = r.from.Read(ctx, name)
	if err != nil {
		return data, exists, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.read == nil {
		r.read = make(map[string]record)
	}
	r.read[name] = record{data, exists}
	return data, exists, nil
}

// known is the Known of what was read.
func (r *readRecords) known(name string) (data string, exists, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, known := r.read[name]
	return rec.data, rec.exists, known
}

// budget bounds a candidate's time: what takes d uses up d*shadowShare of the clock.
type budget struct {
	until atomic.Int64 // what of the clock is used up
}

func (b *budget) left(now time.Duration) bool { return b.until.Load() <= int64(now) }

func (b *budget) spend(now, d time.Duration) {
	for {
		until := b.until.Load()
		next := max(until, int64(now-shadowBurst)) + int64(d)*shadowShare
		if b.until.CompareAndSwap(until, next) {
			return
		}
	}
}

// tally is a counter that processors do not contend for.
type tally [16]counter

func (t *tally) add() { t[shardNumber()%len(t)].n.Add(1) }

func (t *tally) sum() (n uint64) {
	for i := range t {
		n += t[i].n.Load()
	}
	return n
}
