package node

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hadal/perms"
	"hadal/protocol"
)

// ruled is a configuration with rules.
func ruled(text string) func(*Config) {
	return func(c *Config) {
		c.Permission = perms.DefaultConfig()
		c.Permission.Type, c.Permission.Options.Permissions = "config", text
	}
}

const restOfRules = `
event: {"*": {publish: true, subscribe: true, listen: true}}
rpc: {"*": {provide: true, request: true}}
presence: {"*": {allow: true}}
`

// The rule is judged on the very state that the write lands on: however many write
// at once, the value only rises.
func TestAValueThatMayOnlyRiseOnlyRisesUnderAThousandWriters(t *testing.T) {
	n := run(t, ruled(`record:
  "*": {create: true, read: true, write: true}
  "only-up/$x": {create: true, read: true, write: "!oldData || !oldData.value || data.value > oldData.value"}
`+restOfRules))
	watcher := login(t, n, "watcher")
	watcher.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeCreateAndRead, Names: []string{"only-up/r"}, CorrelationID: "0", Has: protocol.HasCorrelationID})
	watcher.hear(protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead)
	watcher.hear(protocol.TopicRecord, protocol.RecordReadResponse)
	const clients, each = 20, 50
	var accepted atomic.Int64
	var all sync.WaitGroup
	for c := range clients {
		p := login(t, n, "writer"+strconv.Itoa(c))
		all.Go(func() {
			for i := range each {
				m := protocol.Message{
					Topic: protocol.TopicRecord, Action: protocol.RecordUpdate, Name: "only-up/r", Version: -1,
					Data:          fmt.Sprintf(`{"value":%d,"by":%d}`, 1+(i*clients+c*7)%(clients*each), c),
					CorrelationID: strconv.Itoa(i), IsWriteAck: true, Has: protocol.HasVersion | protocol.HasCorrelationID,
				}
				p.say(m)
				got, err := p.read()
				switch {
				case err != nil:
					t.Error(err)
					return
				case got.Action == protocol.RecordWriteAcknowledgement:
					accepted.Add(1)
				case got.Action != protocol.RecordMessageDenied:
					t.Errorf("a write was answered by %s", got.Action.Name(got.Topic))
					return
				}
			}
		})
	}
	all.Wait()
	last := 0
	for range accepted.Load() {
		m := watcher.hear(protocol.TopicRecord, protocol.RecordUpdate)
		var value, by int
		if _, err := fmt.Sscanf(m.Data, `{"value":%d,"by":%d}`, &value, &by); err != nil {
			t.Fatal(err)
		}
		if value <= last {
			t.Fatalf("the value went from %d to %d", last, value)
		}
		last = value
	}
	if accepted.Load() < 2 || last != clients*each {
		t.Errorf("%d writes were accepted, the last is %d, want it to be %d", accepted.Load(), last, clients*each)
	}
}

func TestRulesReferToRecordsEverywhere(t *testing.T) {
	n := run(t, ruled(`record:
  "*": {create: true, read: true, write: true, delete: true}
  "purchase/$id": {create: true, read: "_('buyer/' + user.id).trusted === true", write: "_('item/' + data.item).stock > 0"}
event: {"*": {subscribe: true}, "news/$topic": {publish: "_('editor/' + user.id).topic === $topic"}}
rpc: {"*": {provide: true, request: true}}
presence: {"*": {allow: true}}
`))
	op := operator{n.Node}
	for name, data := range map[string]string{
		"item/7": `{"stock":1}`, "item/8": `{"stock":0}`, "editor/ada": `{"topic":"sea"}`, "buyer/ada": `{"trusted":true}`,
	} {
		if _, err := op.Set(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
	}
	ada, bob := login(t, n, "ada"), login(t, n, "bob")
	write := func(item string) protocol.Message {
		return protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "purchase/" + item, Version: -1, Data: `{"item":"` + item + `"}`,
			CorrelationID: "1", IsWriteAck: true, Has: protocol.HasVersion | protocol.HasCorrelationID,
		}
	}
	read := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "purchase/7"}
	emit := func(topic string) protocol.Message {
		return protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "news/" + topic, Data: `1`}
	}
	for _, step := range []struct {
		who  *peer
		say  protocol.Message
		want protocol.Action
	}{
		{ada, write("7"), protocol.RecordWriteAcknowledgement},
		{ada, write("8"), protocol.RecordMessageDenied},
		{ada, write("9"), protocol.RecordMessagePermissionError}, // a missing item makes the rule fail
		{ada, read, protocol.RecordReadResponse},
		{bob, read, protocol.RecordMessagePermissionError},
		{ada, emit("land"), protocol.EventMessageDenied},
		{bob, emit("sea"), protocol.EventMessagePermissionError},
	} {
		step.who.say(step.say)
		got, err := step.who.read()
		if err != nil {
			t.Fatal(err)
		}
		if got.Action != step.want || got.Topic != step.say.Topic {
			t.Errorf("%s of %s was answered by %s, want %s", step.say.Action.Name(step.say.Topic), step.say.Name,
				got.Action.Name(got.Topic), step.want.Name(step.say.Topic))
		}
	}
	bob.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"news/sea"}, CorrelationID: "0", Has: protocol.HasCorrelationID})
	bob.hear(protocol.TopicEvent, protocol.EventSubscribe)
	ada.say(emit("sea"))
	bob.hear(protocol.TopicEvent, protocol.EventEmit)
}

// A rule that nobody can judge is refused before anything runs, with its place.
func TestARuleThatIsNoneStopsTheStart(t *testing.T) {
	cfg := Default()
	cfg.DataDir = t.TempDir()
	ruled("record: {\"*\": {read: \"user.id = 'ada'\"}}\n" + restOfRules)(&cfg)
	err := cfg.Validate()
	if err == nil || !strings.Contains(err.Error(), `record: path "*": rule read: line 1, column`) {
		t.Errorf("Validate = %v", err)
	}
}
