package perms

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"hadal/perms/expr"
)

// Coverage counts how often each rule was judged, and each branch of its expression
// evaluated, and to what. Processors do not contend for the counters: each has
// its own, more or less, which Report adds up.
//
// A nil Coverage counts nothing.
type Coverage struct {
	rules  *Rules
	since  time.Time
	shards [][]atomic.Uint64
}

// The counters of one rule: how often it failed, and then for each branch how often
// it was falsy and truthy. That of the whole rule comes first.
func (r *rule) size() int { return 1 + 2*len(r.branches) }

// maxShards bounds the memory of a Coverage, not how many processors may count.
const maxShards = 32

// numberCounters gives every rule its place in a Coverage.
func (r *Rules) numberCounters() {
	n := 0
	for rule := range r.each {
		rule.counters = n
		n += rule.size()
	}
}

// each goes through the rules in the order of the file.
func (r *Rules) each(yield func(*rule) bool) {
	for _, s := range r.sections {
		if s == nil {
			continue
		}
		for _, rule := range s.rules {
			if !yield(rule) {
				return
			}
		}
	}
}

// newCoverage begins at zero.
func (r *Rules) newCoverage() *Coverage {
	n := 0
	for rule := range r.each {
		n += rule.size()
	}
	c := &Coverage{rules: r, since: time.Now().UTC()}
	c.shards = make([][]atomic.Uint64, min(runtime.GOMAXPROCS(0), maxShards))
	for i := range c.shards {
		c.shards[i] = make([]atomic.Uint64, n)
	}
	return c
}

// StartCoverage has what these rules decide counted from now on, if it is not yet.
// It is for rules that are in no Live, which has a switch of its own.
func (r *Rules) StartCoverage() *Coverage {
	if c := r.coverage.Load(); c != nil {
		return c
	}
	c := r.newCoverage()
	r.coverage.Store(c)
	return c
}

// shardNumbers hold numbers that tell processors apart: a sync.Pool gives each what it
// gave back itself, if it can.
var shardNumbers = sync.Pool{New: func() any {
	n := int(lastShard.Add(1))
	return &n
}}

var lastShard atomic.Uint32

// shardNumber is a number that others seldom have at the same time.
func shardNumber() int {
	p := shardNumbers.Get().(*int)
	n := *p
	shardNumbers.Put(p)
	return n
}

// of is the rule's counters that are best used here.
func (c *Coverage) of(r *rule) []atomic.Uint64 {
	shard := c.shards[shardNumber()%len(c.shards)]
	return shard[r.counters : r.counters+r.size()]
}

// constant counts a decision of a rule that is no expression.
func (c *Coverage) constant(r *rule) {
	if c != nil {
		c.countConstant(r)
	}
}

func (c *Coverage) countConstant(r *rule) {
	i := 1
	if r.allow {
		i = 2
	}
	c.of(r)[i].Add(1)
}

// hits is where an evaluation of the rule counts its branches. A rule that refers
// to records runs several times, and only the last counts, so that gets a draft.
func (c *Coverage) hits(r *rule) []atomic.Uint64 {
	switch {
	case c == nil:
		return nil
	case r.expr.UsesReferences():
		return make([]atomic.Uint64, r.size()-1)
	}
	return c.of(r)[1:]
}

// judged counts what is not counted during the evaluation, which ended in v.
func (c *Coverage) judged(r *rule, env *expr.Env, v Verdict) {
	if c != nil && (v == Fail || r.expr.UsesReferences()) {
		c.countJudged(r, env, v)
	}
}

func (c *Coverage) countJudged(r *rule, env *expr.Env, v Verdict) {
	counters := c.of(r)
	if v == Fail {
		counters[0].Add(1)
	}
	if !r.expr.UsesReferences() {
		return
	}
	for i := range env.Hits {
		if n := env.Hits[i].Load(); n > 0 {
			counters[1+i].Add(n)
		}
	}
}

// sum is one counter over all shards.
func (c *Coverage) sum(i int) (n uint64) {
	for _, shard := range c.shards {
		n += shard[i].Load()
	}
	return n
}

// carry takes over what old has counted for rules that are the same.
func (c *Coverage) carry(old *Coverage) {
	c.since = old.since
	before := make(map[ruleKey]*rule)
	for rule := range old.rules.each {
		before[rule.key()] = rule
	}
	for rule := range c.rules.each {
		same := before[rule.key()]
		if same == nil {
			continue
		}
		for i := range rule.size() {
			c.shards[0][rule.counters+i].Store(old.sum(same.counters + i))
		}
	}
}

// ruleKey is what makes a rule the same after a reload.
type ruleKey struct {
	section sectionID
	slot    slot
	path    string
	text    string
}

func (r *rule) key() ruleKey { return ruleKey{r.section, r.slot, r.path, r.text} }

// Report is what has been counted so far.
func (c *Coverage) Report() CoverageReport {
	report := CoverageReport{Format: CoverageFormat, Since: c.since, Rules: []RuleCoverage{}}
	for rule := range c.rules.each {
		rc := RuleCoverage{
			Section: sectionNames[rule.section], Path: rule.path,
			Rule: ruleNames[rule.section][rule.slot], Text: rule.text, Constant: rule.expr == nil,
			Failed: c.sum(rule.counters),
		}
		for i, b := range rule.branches {
			at := rule.counters + 1 + 2*i
			rc.Branches = append(rc.Branches, BranchCoverage{
				Text: b.Text, Line: b.Line, Column: b.Column, Length: b.Length, False: c.sum(at), True: c.sum(at + 1),
			})
		}
		rc.Denied, rc.Allowed = rc.Branches[0].False, rc.Branches[0].True
		if rc.Constant {
			rc.Branches = nil
		}
		report.Rules = append(report.Rules, rc)
	}
	return report
}

// CoverageFormat is the format of a CoverageReport that is written as JSON.
const CoverageFormat = "hadal rules coverage 1"

// CoverageReport is a Coverage for people, and for files: reports of several nodes,
// and of tests, can be added up.
type CoverageReport struct {
	Format string `json:"format"`
	// Counting says whether it still goes on.
	Counting bool `json:"counting"`
	// Since is when it began, or was last set to zero.
	Since time.Time `json:"since,omitzero"`
	// Rules are in the order of the file.
	Rules []RuleCoverage `json:"rules"`
}

// RuleCoverage is how often one rule was judged, with what result.
type RuleCoverage struct {
	Section string `json:"section"`
	Path    string `json:"path"`
	// Rule is the rule type, such as read, and Text what the file says.
	Rule     string `json:"rule"`
	Text     string `json:"text"`
	Constant bool   `json:"constant,omitempty"`
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	Failed   uint64 `json:"failed"`
	// Branches are the whole expression and the operands of its && || ?? and ?:;
	// constant rules have none.
	Branches []BranchCoverage `json:"branches,omitempty"`
}

// BranchCoverage is how often a part of a rule was evaluated, and to what.
type BranchCoverage struct {
	// Text is cut where it is long.
	Text string `json:"text"`
	// Line and Column are in the rule's text, and begin at 1.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Length is that of all of it, in characters.
	Length int    `json:"length"`
	True   uint64 `json:"true"`
	False  uint64 `json:"false"`
}

// Judged is how often the rule was judged.
func (r RuleCoverage) Judged() uint64 { return r.Allowed + r.Denied + r.Failed }

// Ways are how many ways there are through the rule, and how many of them were
// taken: two for each branch, one for a constant.
func (r RuleCoverage) Ways() (taken, all int) {
	if r.Constant {
		return int(min(r.Judged(), 1)), 1
	}
	for _, b := range r.Branches {
		for _, n := range []uint64{b.True, b.False} {
			if all++; n > 0 {
				taken++
			}
		}
	}
	return taken, all
}

// Ways adds up those of all rules.
func (r CoverageReport) Ways() (taken, all int) {
	for _, rule := range r.Rules {
		t, a := rule.Ways()
		taken, all = taken+t, all+a
	}
	return taken, all
}

// Add adds what another report has counted for rules that this one has too, with
// section, path, rule type and text, and returns how many others it has.
func (r *CoverageReport) Add(other CoverageReport) (left int) {
	type key struct{ section, path, rule, text string }
	ours := make(map[key]*RuleCoverage, len(r.Rules))
	for i := range r.Rules {
		rule := &r.Rules[i]
		ours[key{rule.Section, rule.Path, rule.Rule, rule.Text}] = rule
	}
	for _, theirs := range other.Rules {
		rule := ours[key{theirs.Section, theirs.Path, theirs.Rule, theirs.Text}]
		if rule == nil || len(rule.Branches) != len(theirs.Branches) {
			left++
			continue
		}
		rule.Allowed += theirs.Allowed
		rule.Denied += theirs.Denied
		rule.Failed += theirs.Failed
		for i, b := range theirs.Branches {
			rule.Branches[i].True += b.True
			rule.Branches[i].False += b.False
		}
	}
	r.Counting = r.Counting || other.Counting
	if r.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(r.Since) {
		r.Since = other.Since
	}
	return left
}

// liveCoverage is the coverage of the rules in force. It outlives being switched
// off, and reloads.
type liveCoverage struct {
	mu   sync.Mutex
	kept *Coverage // nil before it was first switched on; guarded by mu
}

// CountCoverage switches coverage on or off. What was counted stays.
func (l *Live) CountCoverage(on bool) {
	l.coverage.mu.Lock()
	defer l.coverage.mu.Unlock()
	l.countCoverage(l.rules.Load(), on)
}

// countCoverage wants coverage.mu.
func (l *Live) countCoverage(r *Rules, on bool) {
	if !on {
		r.coverage.Store(nil)
		return
	}
	if l.coverage.kept == nil {
		l.coverage.kept = r.newCoverage()
	}
	r.coverage.Store(l.coverage.kept)
}

// ResetCoverage begins again at zero, and leaves on what is on.
func (l *Live) ResetCoverage() {
	l.coverage.mu.Lock()
	defer l.coverage.mu.Unlock()
	r := l.rules.Load()
	l.coverage.kept = nil
	if r.coverage.Load() != nil {
		l.countCoverage(r, true)
	}
}

// Coverage is what has been counted; without anything, the rules in force at zero.
func (l *Live) Coverage() CoverageReport {
	l.coverage.mu.Lock()
	defer l.coverage.mu.Unlock()
	r, c := l.rules.Load(), l.coverage.kept
	if c == nil {
		c = r.newCoverage()
		c.since = time.Time{}
	}
	report := c.Report()
	report.Counting = r.coverage.Load() != nil
	return report
}

// replace puts r in force. What is being judged by the rules before it may be
// counted too late for the coverage that r takes over.
func (l *Live) replace(r *Rules) {
	l.coverage.mu.Lock()
	defer l.coverage.mu.Unlock()
	on := r.covered
	if old := l.rules.Load(); old != nil {
		if old == r {
			return
		}
		// The configuration switches when it changes, and else leaves it to the operator.
		if r.covered == old.covered {
			on = old.coverage.Load() != nil
		}
		if before := l.coverage.kept; before != nil {
			l.coverage.kept = r.newCoverage()
			l.coverage.kept.carry(before)
		}
	}
	l.countCoverage(r, on)
	l.rules.Store(r)
}
