package node

import (
	"testing"

	"hadal/protocol"
)

func TestARuleThatReadsOnlyOtherRecordsMayGuardASubscription(t *testing.T) {
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.Permission.Type = "config"
		c.Permission.Options.Permissions = map[string]any{
			"record":   map[string]any{"*": map[string]any{"read": "_('perm/x') === null", "create": true, "write": true}},
			"event":    map[string]any{"*": map[string]any{"publish": true}},
			"rpc":      map[string]any{"*": map[string]any{"provide": true}},
			"presence": map[string]any{"*": map[string]any{"allow": true}},
		}
	})
	a := login(t, n, "ada")
	a.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: []string{"r"}})
	a.hear(protocol.TopicRecord, protocol.RecordSubscribe)
}
