package bench

import (
	"context"
	"fmt"
	"strings"

	"hadal/protocol"
)

// permissionScenarios are the same load under rules of different kinds.
var permissionScenarios = alike(func(sc *Scenario) {
	sc.Unit, sc.Clients, sc.Window, sc.new = "delivery", 10, 16, func() driver { return &permissions{} }
}, []Scenario{
	{Name: "permissions/none", Text: "10 publishers with a subscriber each, 16 events in flight each, without permission rules"},
	{Name: "permissions/constant", Text: "the same under rules that are true", Rules: publishRule(`true`)},
	{Name: "permissions/user", Text: "the same under a rule about who publishes", Rules: publishRule(`"user.id !== 'nobody'"`)},
	{Name: "permissions/payload", Text: "the same under a rule about what is published", Rules: publishRule(`"typeof data === 'string' && data.length < 100000"`)},
	{Name: "permissions/reference", Text: "the same under a rule about a record", Rules: publishRule(`"_('` + referred + `').open === true"`)},
})

// referred is the record that a rule refers to.
const referred = "bench/referred"

// publishRule are rules that allow everything and ask one question of those who publish.
func publishRule(rule string) string {
	return fmt.Sprintf(`presence:
  "*": {allow: true}
record:
  "*": {create: true, write: true, read: true, delete: true, listen: true, notify: true}
event:
  "*": {publish: %s, subscribe: true, listen: true}
rpc:
  "*": {provide: true, request: true}
`, rule)
}

type permissions struct{ pairs }

func (d permissions) setup(ctx context.Context, l *load) error {
	if strings.Contains(l.scenario.Rules, referred) {
		c, err := l.connect(ctx, "writer", 1)
		if err != nil {
			return err
		}
		m := l.write(referred, true)
		m.Data, m.CorrelationID = `{"open":true}`, "1"
		if err := ask(c[0], m, protocol.RecordWriteAcknowledgement); err != nil {
			return fmt.Errorf("write the record of the rule: %w", err)
		}
	}
	return d.pairs.setup(ctx, l)
}
