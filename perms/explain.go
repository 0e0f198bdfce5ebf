package perms

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hadal/auth"
	"hadal/perms/expr"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
)

// DefaultNow is what rules see as now in an explanation that does not say: always
// the same, so that the same question has the same answer.
const DefaultNow = 1_700_000_000_000

// Query is a question that Explain answers: may this user do that?
type Query struct {
	// User is who asks; empty is a client that logged in without a name. UserData is
	// the user's server data.
	User     string          `json:"user,omitempty"`
	UserData json.RawMessage `json:"userData,omitempty"`
	// Action is a section and an action of the protocol, in any spelling
	// (record.createAndUpdate, event.EMIT), or a rule type (record.write).
	Action string `json:"action"`
	Name   string `json:"name,omitempty"`
	// Data is what is sent. With Path it goes there in the record; without, it is the
	// whole record that a write would leave.
	Data json.RawMessage `json:"data,omitempty"`
	Path string          `json:"path,omitempty"`
	// OldData is the record as it is; null for one that does not exist. Without it,
	// the record is read.
	OldData json.RawMessage `json:"oldData,omitempty"`
	// References are records that the rule may refer to, null for one that does not
	// exist. Others are read.
	References map[string]json.RawMessage `json:"references,omitempty"`
	// Now is the time in milliseconds; DefaultNow without one.
	Now int64 `json:"now,omitempty"`
	// ShowSecrets shows the values of keys such as password and token.
	ShowSecrets bool `json:"showSecrets,omitempty"`
}

// ErrQuery is the error of a question that makes no sense; the error around it says
// what to ask instead.
var ErrQuery = errors.New("this cannot be explained")

// Explanation is why rules decide as they do. The same rules, Query and records
// give the same explanation.
type Explanation struct {
	// Verdict is allow, deny or error. Answer is the action that the client gets
	// where it is not allow, and Reason says why in one sentence.
	Verdict string `json:"verdict"`
	Answer  string `json:"answer,omitempty"`
	Reason  string `json:"reason"`

	User          string `json:"user"`
	Authenticated bool   `json:"authenticated"`
	// Action is what was judged, and Number what rules see of it.
	Topic  string `json:"topic"`
	Action string `json:"action"`
	Number int    `json:"number"`
	Name   string `json:"name"`
	// Exists says whether there is a record of that name, for actions on records.
	Exists *bool `json:"exists,omitempty"`
	Now    int64 `json:"now"`

	// Checks are the rules that the action needs.
	Checks []Check `json:"checks"`
}

// Check is one rule that was asked.
type Check struct {
	Section string `json:"section"`
	Rule    string `json:"rule"` // its type
	Verdict string `json:"verdict,omitempty"`
	// Decides says that the verdict of all is this one's.
	Decides bool `json:"decides"`
	// Skipped is why the rule was not asked.
	Skipped string `json:"skipped,omitempty"`
	// Path and Text are of the rule that was found, if there is one.
	Path string `json:"path,omitempty"`
	Text string `json:"text,omitempty"`
	// Paths are all that match the name, best first, and some that nearly do.
	Paths []Candidate `json:"paths"`
	// Variables are those that the rule mentions.
	Variables []Variable `json:"variables,omitempty"`
	// Records are those it refers to, in the order in which they were asked for, and
	// Runs how often it ran.
	Records []Referred `json:"records,omitempty"`
	Runs    int        `json:"runs,omitempty"`
	// Steps are the parts of the rule in the last run, and Failure why it failed.
	Steps   []Step `json:"steps,omitempty"`
	Failure string `json:"failure,omitempty"`
}

// Candidate is a path that was looked at.
type Candidate struct {
	Path    string `json:"path"`
	Matches bool   `json:"matches"`
	Chosen  bool   `json:"chosen"`
	// Why says why it decides, or why not.
	Why string `json:"why"`
}

// Variable is a variable of a rule. Value is JSON, or undefined.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Referred is a record that a rule refers to.
type Referred struct {
	Name   string `json:"name"`
	Exists bool   `json:"exists"`
	Value  string `json:"value,omitempty"`
	// Run is the run that asked for it.
	Run int `json:"run"`
}

// Step is a part of a rule with its value; see expr.Step.
type Step struct {
	Text      string `json:"text"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	Depth     int    `json:"depth"`
	Evaluated bool   `json:"evaluated"`
	Value     string `json:"value,omitempty"`
	Failed    string `json:"failed,omitempty"`
	Decides   bool   `json:"decides"`
}

// maxShown is how many characters of a document an explanation shows.
const maxShown = 1000

// Explain answers a question as Door and Judge would, and says why. records are
// asked for what the question does not give; with nil there are no others. The
// error Is ErrQuery for a question that makes no sense, or is that of records.
func (r *Rules) Explain(ctx context.Context, q Query, records Records) (*Explanation, error) {
	x := &explainer{rules: r, query: q, records: records}
	if err := x.prepare(ctx); err != nil {
		return nil, err
	}
	if err := x.judge(ctx); err != nil {
		return nil, err
	}
	return &x.Explanation, nil
}

// Explain is Rules.Explain of the rules in force and the records of the node.
func (l *Live) Explain(ctx context.Context, q Query) (*Explanation, error) {
	return l.Load().Explain(ctx, q, l.records)
}

// explainer is one Explain.
type explainer struct {
	Explanation
	rules   *Rules
	query   Query
	records Records

	user      *auth.User
	topic     protocol.Topic
	action    protocol.Action
	demand    demand
	data, old string
	exists    bool
}

func badQuery(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrQuery, fmt.Sprintf(format, args...))
}

// prepare reads the question.
func (x *explainer) prepare(ctx context.Context) error {
	q := &x.query
	for _, doc := range []struct {
		what string
		raw  json.RawMessage
	}{{"userData", q.UserData}, {"data", q.Data}, {"oldData", q.OldData}} {
		if len(doc.raw) > 0 && !json.Valid(doc.raw) {
			return badQuery("%s is not JSON: text needs quotes of its own", doc.what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(q.References)) {
		if !json.Valid(q.References[name]) {
			return badQuery("the record %q is not JSON: text needs quotes of its own", name)
		}
	}
	var err error
	if x.topic, x.action, err = parseAction(q.Action, q.Path != ""); err != nil {
		return err
	}
	x.demand = demandOf(x.topic, x.action)
	switch nameless := x.demand.how == nameless; {
	case nameless:
		q.Name = "undefined" // what is judged then
	case q.Name == "":
		return badQuery("a name is missing: which %s is it?", map[protocol.Topic]string{
			protocol.TopicRecord: "record", protocol.TopicEvent: "event", protocol.TopicRPC: "rpc", protocol.TopicPresence: "user"}[x.topic])
	}
	if q.User == "" {
		q.User = auth.Anonymous
	}
	x.user = &auth.User{ID: q.User}
	if raw := given(q.UserData); raw != "" {
		x.user.ServerData = raw
	}
	if x.topic == protocol.TopicRecord {
		if err := x.prepareRecord(ctx); err != nil {
			return err
		}
	} else {
		x.data = string(q.Data)
	}
	x.User, x.Authenticated, x.Name, x.Now = x.user.ID, !x.user.IsAnonymous(), q.Name, cmp.Or(q.Now, DefaultNow)
	x.Topic, x.Action, x.Number = x.topic.String(), x.action.Name(x.topic), int(x.action)
	return nil
}

// given is a document, or empty for one that does not exist.
func given(raw json.RawMessage) string {
	if s := strings.TrimSpace(string(raw)); s != "null" {
		return s
	}
	return ""
}

// prepareRecord finds the record as it is, and as it would become.
func (x *explainer) prepareRecord(ctx context.Context) error {
	q := &x.query
	switch x.old = given(q.OldData); {
	case len(q.OldData) > 0:
		x.exists = x.old != ""
	case x.records != nil:
		var err error
		if x.old, x.exists, err = x.records.Read(ctx, q.Name); err != nil {
			return fmt.Errorf("read record %q: %w", q.Name, err)
		}
	}
	x.Exists = &x.exists
	writes := x.demand.how == both || x.demand.first == recWrite && x.demand.how == one
	switch {
	case !writes && q.Path != "" && x.action != protocol.RecordErase:
		return badQuery("a path is for what writes: leave it out")
	case !writes:
		return nil
	case q.Path == "":
		x.data = string(q.Data)
		return nil
	case len(q.Data) == 0:
		return badQuery("data is missing: what goes to %q?", q.Path)
	}
	path, err := jsonpath.Parse(q.Path)
	if err != nil {
		return badQuery("the path %q: %v", q.Path, err)
	}
	if x.data, err = jsonpath.Set(x.old, path, string(q.Data)); err != nil {
		return badQuery("the data does not fit into the record at %q: %v", q.Path, err)
	}
	return nil
}

// sectionTopics are the topics of the sections.
var sectionTopics = [sectionCount]protocol.Topic{
	secRecord: protocol.TopicRecord, secEvent: protocol.TopicEvent, secRPC: protocol.TopicRPC, secPresence: protocol.TopicPresence,
}

// ruleActions are the actions that stand for rule types that no action is named for.
var ruleActions = map[string]protocol.Action{
	"record.write": protocol.RecordUpdate, "event.publish": protocol.EventEmit, "presence.allow": protocol.PresenceQuery,
}

// parseAction reads an action. With a path, an update is a patch (spec 07 §8).
func parseAction(text string, path bool) (protocol.Topic, protocol.Action, error) {
	flat := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
	}
	section, name, _ := strings.Cut(text, ".")
	id := slices.Index(sectionNames[:], flat(section))
	if id < 0 {
		return 0, 0, badQuery("the action %q: write it as record.update, event.emit, rpc.request or presence.query", text)
	}
	topic := sectionTopics[id]
	a, ok := ruleActions[sectionNames[id]+"."+flat(name)]
	can := slices.Clone(ruleNames[id])
	for n := range protocol.Action(len(demands[topic])) {
		if demandOf(topic, n).how == never {
			continue
		}
		spelled := flat(n.Name(topic))
		if !slices.Contains(can, spelled) {
			can = append(can, spelled)
		}
		if !ok && spelled == flat(name) {
			a, ok = n, true
		}
	}
	if !ok {
		return 0, 0, badQuery("the action %q: %s has %s", text, sectionNames[id], strings.Join(can, ", "))
	}
	if topic == protocol.TopicRecord && path {
		switch a {
		case protocol.RecordUpdate:
			a = protocol.RecordPatch
		case protocol.RecordCreateAndUpdate:
			a = protocol.RecordCreateAndPatch
		}
	}
	return topic, a, nil
}

// judge is Rules.judge, told.
func (x *explainer) judge(ctx context.Context) error {
	d := x.demand
	switch {
	case d.how == free:
		x.settle(Allow, "no rule guards this action")
		return nil
	case d.claims && reserved(x.Name) && !(d.how == readOrCreate && x.exists):
		x.settle(Deny, "names under hadal/ are the server's own: no rule can allow this, and none is asked")
		return nil
	case d.calls && reserved(x.Name):
		x.settle(Allow, "calls to names under hadal/ are answered by the server itself: no rule is asked")
		return nil
	case d.hears && x.Name == protocol.EventExpiring:
		x.settle(Allow, "the server tells a client by "+protocol.EventExpiring+" what concerns that client alone: no rule is asked")
		return nil
	case x.rules.open:
		x.settle(Allow, `permission.type is "none": everybody may do everything`)
		return nil
	}
	section := x.rules.sections[d.section]
	found := section.search(x.Name)
	first, firstCheck, err := x.check(ctx, d.first, found.rules[d.first], d.firstAs(x.action))
	if err != nil {
		return err
	}
	x.Checks = append(x.Checks, firstCheck)
	verdict, by := first, 0
	switch {
	case d.how == both || d.how == readOrCreate && !x.exists:
		second, check, err := x.check(ctx, d.second, found.rules[d.second], d.secondAs(x.action))
		if err != nil {
			return err
		}
		x.Checks = append(x.Checks, check)
		if v := first.and(second); v != first {
			verdict, by = v, 1
		}
	case d.how == readOrCreate:
		x.Checks = append(x.Checks, Check{
			Section: sectionNames[d.section], Rule: ruleNames[d.section][d.second], Paths: []Candidate{},
			Skipped: "the record exists, so it need not be created",
		})
	}
	x.Checks[by].Decides = true
	x.settle(verdict, x.Checks[by].reason())
	return nil
}

// settle sets the verdict.
func (x *explainer) settle(v Verdict, reason string) {
	x.Verdict, x.Reason = told(v), reason
	if x.Checks == nil {
		x.Checks = []Check{}
	}
	switch v {
	case Deny:
		x.Answer = protocol.Denied(x.topic).Name(x.topic)
	case Fail:
		x.Answer = protocol.PermissionError(x.topic).Name(x.topic)
	}
}

// told is a verdict as explanations and tests call it.
func told(v Verdict) string {
	if v == Fail {
		return "error"
	}
	return v.String()
}

// check asks one rule.
func (x *explainer) check(ctx context.Context, s slot, m match, as protocol.Action) (Verdict, Check, error) {
	id := x.demand.section
	c := Check{Section: sectionNames[id], Rule: ruleNames[id][s], Paths: candidates(x.rules.sections[id], x.Name, s, m)}
	if m.rule == nil {
		c.Verdict = told(Deny)
		return Deny, c, nil
	}
	c.Path, c.Text = m.path, m.text
	if m.expr == nil {
		v := verdictOf(m.allow)
		c.Verdict = told(v)
		return v, c, nil
	}
	if id == secRecord && m.expr.UsesData() && x.data == "" {
		return Deny, c, badQuery("the rule looks at data: say what is sent")
	}
	env := &expr.Env{
		User: expr.User{ID: x.user.ID, Authenticated: x.Authenticated, Data: userDataOf(x.user)},
		Data: dataOf(x.data), OldData: oldOf(x.old, x.exists),
		Now: x.Now, Action: int(as), Name: x.Name, Vars: m.vars,
	}
	c.Variables = x.variables(m, as)
	err := x.run(ctx, m, env, &c)
	trace := m.expr.ExplainHiding(env, x.secret())
	for _, s := range trace.Steps {
		c.Steps = append(c.Steps, Step(s))
	}
	v := verdictOf(trace.Allowed)
	if err = cmp.Or(err, trace.Err); err != nil {
		v, c.Failure = Fail, err.Error()
	}
	c.Verdict = told(v)
	return v, c, nil
}

// run gives env the records that the rule refers to, as refer does.
func (x *explainer) run(ctx context.Context, m match, env *expr.Env, c *Check) error {
	for c.Runs < x.rules.limit {
		c.Runs++
		if _, err := m.expr.Eval(env); !errors.Is(err, expr.ErrPending) {
			return nil
		}
		for _, name := range slices.Clone(env.Wanted()) {
			raw, ok := x.query.References[name]
			data, exists := given(raw), given(raw) != ""
			if !ok && x.records != nil {
				var err error
				if data, exists, err = x.records.Read(ctx, name); err != nil {
					return fmt.Errorf("%w: %q: %w", errNoSuch, name, err)
				}
			}
			env.Answer(name, oldOf(data, exists))
			c.Records = append(c.Records, Referred{Name: name, Exists: exists, Value: x.show(data), Run: c.Runs})
		}
	}
	return errTooDeep
}

// secret says which keys are hidden.
func (x *explainer) secret() func(string) bool {
	if x.query.ShowSecrets {
		return nil
	}
	return secretKey
}

// show is a document for people.
func (x *explainer) show(raw string) string {
	if raw == "" {
		return ""
	}
	text, ok := expr.Hide(raw, x.secret())
	if !ok {
		return "(no JSON)"
	}
	if r := []rune(text); len(r) > maxShown {
		return string(r[:maxShown]) + "…"
	}
	return text
}

// variables are those that the rule reads, in the order of their names.
func (x *explainer) variables(m match, as protocol.Action) []Variable {
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			return "(no JSON)"
		}
		return string(b)
	}
	values := map[string]string{
		"data": cmp.Or(x.show(x.data), "undefined"), "oldData": cmp.Or(x.show(x.old), "null"),
		"name": quoted(x.Name), "now": fmt.Sprint(x.Now), "action": fmt.Sprint(int(as)),
		"user": fmt.Sprintf(`{"id":%s,"isAuthenticated":%t,"data":%s}`, quoted(x.user.ID), x.Authenticated, cmp.Or(x.show(x.user.ServerData), "null")),
	}
	if x.exists && x.old == "" {
		values["oldData"] = "(no JSON)"
	}
	for _, n := range x.rules.sections[m.section].all() {
		if n.text == m.path {
			for i, v := range n.vars {
				values[v] = quoted(m.vars[i])
			}
		}
	}
	var list []Variable
	for _, read := range m.expr.Reads() {
		name, _, _ := strings.Cut(read, ".")
		name, _, _ = strings.Cut(name, "[")
		if value, ok := values[name]; ok && !slices.ContainsFunc(list, func(v Variable) bool { return v.Name == name }) {
			list = append(list, Variable{name, value})
		}
	}
	return list
}

// reason is the outcome of a check in one sentence.
func (c *Check) reason() string {
	where := fmt.Sprintf("%s %q: rule %s", c.Section, c.Path, c.Rule)
	switch {
	case c.Path == "":
		return fmt.Sprintf("no path that matches the name has a rule %s, and what no rule allows is denied", c.Rule)
	case len(c.Steps) == 0:
		return where + " is always " + strings.TrimSpace(c.Text)
	case c.Verdict == "error":
		return where + " fails, which denies: " + c.Failure
	}
	verb := "allows"
	if c.Verdict == "deny" {
		verb = "denies"
	}
	for _, s := range c.Steps {
		if s.Decides {
			return fmt.Sprintf("%s %s, because %s is %s", where, verb, s.Text, s.Value)
		}
	}
	return where + " " + verb
}

// all are the section's paths, best first.
func (s *section) all() []*node {
	var list []*node
	for _, nodes := range s.byPrefix {
		list = append(list, nodes...)
	}
	slices.SortFunc(list, func(a, b *node) int { return cmp.Compare(a.rank, b.rank) })
	return list
}

// maxNear is how many paths are told that do not match.
const maxNear = 3

// candidates tells of the paths that match a name, and of some that nearly do.
func candidates(in *section, name string, s slot, m match) []Candidate {
	list := []Candidate{}
	var near []Candidate
	var chosen *node
	for _, n := range in.all() {
		c := Candidate{Path: n.text, Matches: n.matches(name)}
		defines := n.rules[s] != nil
		switch {
		case !c.Matches:
			if c.Why = nearly(n.path, name); c.Why != "" && defines && len(near) < maxNear {
				near = append(near, c)
			}
			continue
		case defines && chosen == nil:
			chosen, c.Chosen = n, true
			c.Why = "the longest that matches and has the rule"
		case !defines:
			c.Why = "has no such rule"
		case n.length == chosen.length:
			c.Why = "as long, but stands earlier in the file"
		default:
			c.Why = fmt.Sprintf("shorter: %d against %d characters", n.length, chosen.length)
		}
		list = append(list, c)
	}
	return append(list, near...)
}

// nearly says why a path does not match a name that it was probably meant for, or
// nothing.
func nearly(p *path, name string) string {
	for _, c := range []struct{ text, why string }{
		{strings.NewReplacer(`"`, "", `'`, "").Replace(p.text), "does not match: it has quotes in it"},
		{strings.TrimRight(p.text, "/"), "does not match: it ends with a slash"},
		{p.text + "/", "does not match: the name ends with a slash"},
	} {
		if c.text == p.text {
			continue
		}
		if other, err := compilePath(c.text); err == nil && other.matches(name) {
			return c.why
		}
	}
	if other, err := compilePath(strings.ToLower(p.text)); err == nil && other.matches(strings.ToLower(name)) {
		return "does not match: upper and lower case differ"
	}
	if len(p.vars) > 0 && p.wild != wildNone {
		var b strings.Builder
		for _, piece := range p.pieces() {
			if len(piece) > 1 {
				piece = "*"
			}
			b.WriteString(piece)
		}
		if other, err := compilePath(b.String()); err == nil && other.matches(name) {
			return "does not match: " + strings.Join(p.vars, ", ") + " is at least one character and no slash"
		}
	}
	return ""
}
