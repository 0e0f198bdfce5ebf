package perms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hadal/auth"
	"hadal/perms/expr"
	"hadal/protocol"
)

// Records is what rules ask of the record room: the content of a record, as JSON
// text, as it was last committed. Read may be called from anywhere and many times
// at once; it must not wait for anything that waits for a rule.
type Records interface {
	Read(ctx context.Context, name string) (data string, exists bool, err error)
}

// Known gives the records that rules at the owner refer to (_()), as far as they
// have been fetched: the content, whether the record exists, and whether it is
// known at all.
type Known = func(name string) (data string, exists, known bool)

// doorTime is how long one message may wait at the door for the records that its
// rules refer to. Its client waits with it, and nobody else.
const doorTime = 5 * time.Second

// question is a message, or a part of it, that rules are asked about.
type question struct {
	user   *auth.User
	topic  protocol.Topic
	action protocol.Action // for the variable action
	name   string
	// data is the JSON text that came, or that the record would become; empty when
	// there is none. old is the record, which only its owner has.
	data, old string
	exists    bool

	records Records   // at the door, or nil
	known   Known     // at the owner, or nil
	until   time.Time // doorTime from the first look at a record

	coverage *Coverage // counts the rules that are judged, or nil

	// What came out of it beside the verdict.
	wanted  []string // at the owner: the records that are to be fetched
	failure error    // why the verdict is Fail
}

var (
	errTooDeep = errors.New("the records that the rule refers to lead to too many others (permission.options.maxRuleIterations)")
	errNoSuch  = errors.New("a record that the rule refers to could not be read")
)

// envs are for anybody.
var envs = sync.Pool{New: func() any { return new(expr.Env) }}

// dataOf is the JSON text of an event or a call; without one there is no data.
func dataOf(raw string) expr.Doc {
	if raw == "" {
		return expr.Doc{}
	}
	return expr.Unchecked(raw)
}

// oldOf is the content of a record.
func oldOf(raw string, exists bool) expr.Doc {
	if !exists {
		return expr.Null()
	}
	return expr.Unchecked(raw)
}

// atDoor judges the rule where no record is at hand.
func (m match) atDoor(q *question, limit int) Verdict {
	if m.rule != nil && m.needsRecord {
		return NeedRecord
	}
	return m.judge(q, limit)
}

// judge judges the rule. A match without a rule is one that was not found. limit
// is maxRuleIterations.
func (m match) judge(q *question, limit int) Verdict {
	switch {
	case m.rule == nil:
		return Deny
	case m.expr == nil:
		q.coverage.constant(m.rule)
		return verdictOf(m.allow)
	}
	env := envs.Get().(*expr.Env)
	m.fill(env, q)
	v := Pending
	if m.expr.UsesReferences() {
		v = m.refer(env, q, limit)
		env.Forget()
	} else {
		v = m.decide(env, q)
	}
	q.coverage.judged(m.rule, env, v)
	// What one rule does not mention is what the last one left: it is not read, and
	// kept from being kept alive.
	if m.expr.UsesData() || m.expr.UsesOldData() {
		env.Data, env.OldData = expr.Doc{}, expr.Doc{}
	}
	if m.expr.UsesUser() {
		env.User = expr.User{}
	}
	envs.Put(env)
	return v
}

// decide judges a rule that has all it needs.
func (m match) decide(env *expr.Env, q *question) Verdict {
	ok, err := m.expr.Eval(env)
	if err != nil {
		q.failure = err
		return Fail
	}
	return verdictOf(ok)
}

func verdictOf(allow bool) Verdict {
	if allow {
		return Allow
	}
	return Deny
}

// fill makes env what the rule sees of q, as far as it looks.
func (m match) fill(env *expr.Env, q *question) {
	if m.expr.UsesUser() {
		env.User = expr.User{ID: q.user.ID, Authenticated: !q.user.IsAnonymous(), Data: userDataOf(q.user)}
	}
	if m.expr.UsesData() {
		env.Data = dataOf(q.data)
	}
	if m.expr.UsesOldData() {
		env.OldData = oldOf(q.old, q.exists)
	}
	if m.expr.UsesNow() {
		env.Now = time.Now().UnixMilli()
	}
	env.Action, env.Name, env.Vars, env.Hits = int(q.action), q.name, m.vars, q.coverage.hits(m.rule)
}

// userDataOf is what the login says of a user.
func userDataOf(u *auth.User) expr.Doc {
	if u.ServerData == "" {
		return expr.Null()
	}
	return expr.Unchecked(u.ServerData)
}

// refer judges a rule that refers to other records: it runs until it lacks none,
// from the start each time, and at most limit times (spec 07 §7).
func (m match) refer(env *expr.Env, q *question, limit int) Verdict {
	for range limit {
		ok, err := m.expr.Eval(env)
		switch {
		case err == nil:
			return verdictOf(ok)
		case !errors.Is(err, expr.ErrPending):
			q.failure = err
			return Fail
		}
		clear(env.Hits) // it was not all there, so what was counted did not happen
		switch err := q.answer(env); {
		case err != nil:
			q.failure = err
			return Fail
		case len(q.wanted) > 0:
			return Pending
		}
	}
	q.failure = errTooDeep
	return Fail
}

// answer gives env the records that it wants, or leaves in q.wanted which of them
// are not known yet.
func (q *question) answer(env *expr.Env) error {
	wanted := slices.Clone(env.Wanted())
	if q.known == nil {
		return q.read(env, wanted)
	}
	for _, name := range wanted {
		if data, exists, known := q.known(name); known {
			env.Answer(name, oldOf(data, exists))
		} else {
			q.wanted = append(q.wanted, name)
		}
	}
	return nil
}

// read fetches records at the door, all at once.
func (q *question) read(env *expr.Env, names []string) error {
	if q.records == nil {
		return errNoSuch
	}
	if q.until.IsZero() {
		q.until = time.Now().Add(doorTime)
	}
	ctx, cancel := context.WithDeadline(context.Background(), q.until)
	defer cancel()
	records := q.records
	docs := make([]expr.Doc, len(names))
	errs := make([]error, len(names))
	fetch := func(i int) {
		data, exists, err := records.Read(ctx, names[i])
		if err != nil {
			errs[i] = fmt.Errorf("%w: %w", errNoSuch, err)
			return
		}
		docs[i] = oldOf(data, exists)
	}
	var others sync.WaitGroup
	for i := 1; i < len(names); i++ {
		others.Go(func() { fetch(i) })
	}
	fetch(0)
	others.Wait()
	for i, name := range names {
		env.Answer(name, docs[i])
	}
	return errors.Join(errs...)
}
