package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"hadal/protocol"
)

// outcome is how a command has ended: an entry of the body of the answer, as JSON text.
type outcome struct {
	success bool
	text    []byte
}

// done is the outcome of a command that has nothing to tell.
var done = outcome{success: true, text: []byte(`{"success":true}`)}

// failure is an error object (spec 04 §8).
type failure struct {
	topic string
	// event is the constant, code its number beside the topic; 0 where it has none.
	event string
	code  int
	// text is for people.
	text string
	// more is appended: members with a comma before each.
	more string
}

// outcome is the failure as an entry of the answer.
func (f failure) outcome() outcome {
	b := append([]byte(`{"success":false,"errorTopic":`), quote(f.topic)...)
	b = append(append(b, `,"errorEvent":`...), quote(f.event)...)
	if f.code != 0 {
		b = strconv.AppendInt(append(b, `,"errorCode":`...), int64(f.code), 10)
	}
	b = append(append(b, `,"error":`...), quote(f.text)...)
	b = append(append(b, f.more...), '}')
	return outcome{text: b}
}

// quote is a text as JSON.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return b
}

// Outcomes that no message of the node's says.
var (
	timedOut = failure{topic: "connection", event: "HTTP_REQUEST_TIMEOUT",
		text: "The command was not answered in time: whether it was carried out is not known."}.outcome()
	notBegun = failure{topic: "connection", event: "HTTP_REQUEST_TIMEOUT",
		text: "The command was not begun in time, and not carried out."}.outcome()
	notRun = failure{topic: "connection", event: "ANSWER_TOO_LARGE",
		text: "The answers to this request take all the memory there is for them: ask for less in one request. The command was not carried out."}.outcome()
	untold = failure{topic: "connection", event: "ANSWER_TOO_LARGE",
		text: "The answer to the command does not fit into the memory there is for answers: ask for less in one request."}.outcome()
)

// topicOf is a topic as error objects have it.
func topicOf(t protocol.Topic) string { return strings.ToLower(t.String()) }

// failed is the outcome of a command that m refuses.
func (c *command) failed(m *protocol.Message) outcome {
	asked := c.message.Action.Name(c.message.Topic)
	f := failure{topic: topicOf(c.message.Topic), event: m.Action.Name(m.Topic), code: int(m.Action)}
	name := m.Name
	if name == "" {
		name = c.message.Name
	}
	switch {
	case m.Topic == protocol.TopicParser:
		f.text = fmt.Sprintf("%s: the server does not serve this: the feature is off.", f.event)
	case m.Action == protocol.Denied(m.Topic):
		f.text = fmt.Sprintf("Message denied. Action %q is not permitted", asked)
		if c.message.Topic == protocol.TopicEvent {
			f.more = `,"errorAction":"emit"`
		} else {
			f.more = fmt.Sprintf(`,"action":%d`, int(c.message.Action))
		}
		if name != "" {
			f.text += fmt.Sprintf(" for %q", name)
		}
		f.text += "."
		return f.outcome()
	default:
		f.text = describe(m, asked, name)
	}
	if name != "" {
		f.more = `,"errorParams":` + string(quote(name))
	}
	return f.outcome()
}

// describe is an error in words.
func describe(m *protocol.Message, asked, name string) string {
	event := m.Action.Name(m.Topic)
	var said string
	if m.Topic == protocol.TopicRecord && m.Data != "" && json.Unmarshal([]byte(m.Data), &said) == nil {
		return fmt.Sprintf("%s: %s of %q: %s.", event, asked, name, said)
	}
	switch event {
	case "MESSAGE_PERMISSION_ERROR":
		said = "the permission rule could not be judged"
	case "INVALID_MESSAGE_DATA", "INVALID_PRESENCE_USERS":
		said = "a name, a path or the data cannot be used"
	case "RECORD_NOT_FOUND":
		said = "there is no such record"
	case "NO_RPC_PROVIDER":
		return fmt.Sprintf("No provider is available for rpc %q.", name)
	case "RESPONSE_TIMEOUT":
		return fmt.Sprintf("Response timeout: the provider of rpc %q did not answer in time.", name)
	case "ACCEPT_TIMEOUT":
		return fmt.Sprintf("Accept timeout: no provider of rpc %q took the call in time.", name)
	default:
		said = "it could not be carried out"
	}
	return fmt.Sprintf("%s: %s of %q: %s.", event, asked, name, said)
}

// answerEmit hears refusals only: that there is none is the answer (see call.run).
func answerEmit(c *command, m *protocol.Message) (outcome, bool) { return c.failed(m), true }

func answerRPC(c *command, m *protocol.Message) (outcome, bool) {
	if m.Topic != protocol.TopicRPC {
		return c.failed(m), true
	}
	switch m.Action {
	case protocol.RPCAccept:
		return outcome{}, false
	case protocol.RPCResponse:
		if m.Data == "" {
			return done, true
		}
		return outcome{success: true, text: wrap(`{"success":true,"data":`, m.Data, `}`)}, true
	case protocol.RPCRequestError:
		// The error is what the provider said, whatever that is.
		data := m.Data
		if data == "" {
			data = "null"
		}
		return outcome{text: wrap(`{"success":false,"errorTopic":"rpc","error":`, data, `}`)}, true
	}
	return c.failed(m), true
}

func answerRecord(c *command, m *protocol.Message) (outcome, bool) {
	if m.Topic != record {
		return c.failed(m), true
	}
	switch m.Action {
	case protocol.RecordReadResponse:
		return outcome{success: true, text: wrap(fmt.Sprintf(`{"success":true,"version":%d,"data":`, m.Version), m.Data, `}`)}, true
	case protocol.RecordHeadResponse:
		return outcome{success: true, text: fmt.Appendf(nil, `{"success":true,"version":%d}`, m.Version)}, true
	case protocol.RecordWriteAcknowledgement, protocol.RecordDeleteSuccess:
		return done, true
	case protocol.RecordNotify:
		if m.IsAck {
			return done, true
		}
	case protocol.RecordVersionExists:
		f := failure{
			topic: "record", event: "VERSION_EXISTS", code: int(m.Action),
			text: fmt.Sprintf("Record update failed. Version %d exists for record %q.", c.message.Version, c.message.Name),
		}
		f.more = fmt.Sprintf(`,"currentVersion":%d,"currentData":%s`, m.Version, m.Data)
		return f.outcome(), true
	case protocol.RecordInvalidVersion:
		f := failure{
			topic: "record", event: "INVALID_VERSION", code: int(m.Action),
			text: fmt.Sprintf("Record update failed. Version %d is not valid for record %q, whose version is %d.", c.message.Version, c.message.Name, m.Version),
		}
		f.more = fmt.Sprintf(`,"currentVersion":%d`, m.Version)
		return f.outcome(), true
	}
	return c.failed(m), true
}

func answerPresence(c *command, m *protocol.Message) (outcome, bool) {
	switch {
	case m.Topic != presence:
	case m.Action == protocol.PresenceQueryResponse:
		return outcome{success: true, text: wrap(`{"success":true,"users":`, m.Data, `}`)}, true
	case m.Action == protocol.PresenceQueryAllResponse:
		names := m.Names
		if names == nil {
			names = []string{}
		}
		list, err := json.Marshal(names)
		if err != nil {
			panic(err) // strings always marshal
		}
		return outcome{success: true, text: wrap(`{"success":true,"users":`, string(list), `}`)}, true
	}
	return c.failed(m), true
}

// wrap joins three texts in one allocation.
func wrap(before, text, after string) []byte {
	b := make([]byte, 0, len(before)+len(text)+len(after))
	return append(append(append(b, before...), text...), after...)
}
