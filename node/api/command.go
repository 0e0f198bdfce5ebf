package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"hadal/protocol"
)

// command is one entry of a batch, as the message that it is for the node.
type command struct {
	kind    *kind
	message protocol.Message
}

// kind is one sort of command (spec 04 §7).
type kind struct {
	topic, action string
	number        int // in kinds
	// name is the property that holds the one name, or the list of names; empty where
	// there is none.
	name string
	// list says that it is a list of names.
	list bool
	// more are the properties besides, all of which need not be there.
	more []string
	// reads says that nothing changes by it.
	reads bool
	// message is the topic and action of the message; those that need more than the name
	// are made by fill.
	of   protocol.Topic
	as   protocol.Action
	fill func(*protocol.Message, properties) error
	// answer makes of a message for the caller what the command is answered, or leaves it
	// unanswered. See answer.go.
	answer func(*command, *protocol.Message) (outcome, bool)
}

const (
	record   = protocol.TopicRecord
	presence = protocol.TopicPresence
)

// kinds are all commands. A kind is known by its topic, action and, where two share
// these, by the properties that are there.
var kinds = []*kind{
	{topic: "event", action: "emit", name: "eventName", more: []string{"data"}, of: protocol.TopicEvent, as: protocol.EventEmit, fill: fillData, answer: answerEmit},
	{topic: "rpc", action: "make", name: "rpcName", more: []string{"data"}, of: protocol.TopicRPC, as: protocol.RPCRequest, fill: fillData, answer: answerRPC},
	{topic: "record", action: "read", name: "recordName", reads: true, of: record, as: protocol.RecordRead, answer: answerRecord},
	{topic: "record", action: "head", name: "recordName", reads: true, of: record, as: protocol.RecordHead, answer: answerRecord},
	{topic: "record", action: "write", name: "recordName", more: []string{"path", "data", "version"}, of: record, as: protocol.RecordCreateAndUpdate, fill: fillWrite, answer: answerRecord},
	{topic: "record", action: "delete", name: "recordName", of: record, as: protocol.RecordDelete, answer: answerRecord},
	{topic: "record", action: "notify", name: "recordNames", list: true, of: record, as: protocol.RecordNotify, answer: answerRecord},
	{topic: "list", action: "read", name: "listName", reads: true, of: record, as: protocol.RecordRead, answer: answerRecord},
	{topic: "list", action: "write", name: "listName", more: []string{"data", "version"}, of: record, as: protocol.RecordCreateAndUpdate, fill: fillListWrite, answer: answerRecord},
	{topic: "list", action: "delete", name: "listName", of: record, as: protocol.RecordDelete, answer: answerRecord},
	{topic: "presence", action: "query", more: []string{"names"}, reads: true, of: presence, as: protocol.PresenceQueryAll, fill: fillQuery, answer: answerPresence},
}

func init() {
	for i, k := range kinds {
		k.number = i
	}
}

// properties are those of a command. Of equal keys the last counts, as for JSON.parse.
type properties map[string]gjson.Result

// text is a property that is a text.
func (p properties) text(key string) (string, error) {
	v := p[key]
	if v.Type != gjson.String {
		return "", fmt.Errorf("%s: must be a string", key)
	}
	return v.Str, nil
}

// texts is a property that is a list of texts.
func (p properties) texts(key string) ([]string, error) {
	if !p[key].IsArray() {
		return nil, fmt.Errorf("%s: must be an array of strings", key)
	}
	list := []string{}
	var err error
	p[key].ForEach(func(_, v gjson.Result) bool {
		if v.Type != gjson.String {
			err = fmt.Errorf("%s: must be an array of strings", key)
			return false
		}
		list = append(list, v.Str)
		return true
	})
	return list, err
}

// has says whether there is a property; null is one.
func (p properties) has(key string) bool { return p[key].Exists() }

// parse makes a command of an entry of a batch.
func parse(v gjson.Result) (command, error) {
	if !v.IsObject() {
		return command{}, errors.New("must be an object")
	}
	p := make(properties)
	v.ForEach(func(key, value gjson.Result) bool {
		p[key.String()] = value
		return true
	})
	topic, err := p.text("topic")
	if err != nil {
		return command{}, err
	}
	action, err := p.text("action")
	if err != nil {
		return command{}, err
	}
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.topic == topic && k.action == action })
	if i < 0 {
		return command{}, fmt.Errorf("there is no such topic and action: use one of %s", actionsOf(topic))
	}
	k := kinds[i]
	for key := range p {
		if key != "topic" && key != "action" && key != k.name && !slices.Contains(k.more, key) {
			return command{}, fmt.Errorf("%q: is no property of %s %s", clip(key), topic, action)
		}
	}
	c := command{kind: k, message: protocol.Message{Topic: k.of, Action: k.as}}
	m := &c.message
	switch {
	case k.list:
		if m.Names, err = p.texts(k.name); err == nil && slices.Contains(m.Names, "") {
			err = fmt.Errorf("%s: must not hold an empty string", k.name)
		}
	case k.name != "":
		m.Has = protocol.HasName
		if m.Name, err = p.text(k.name); err != nil || m.Name == "" {
			err = fmt.Errorf("%s: must be a string that is not empty", k.name)
		}
	}
	if err == nil && k.fill != nil {
		err = k.fill(m, p)
	}
	return c, err
}

// actionsOf are the actions of a topic, or all topics when it has none.
func actionsOf(topic string) string {
	var some, all []string
	for _, k := range kinds {
		all = append(all, k.topic+" "+k.action)
		if k.topic == topic {
			some = append(some, k.topic+" "+k.action)
		}
	}
	if some == nil {
		some = all
	}
	return strings.Join(some, ", ")
}

// clip bounds what comes back of what a caller made up.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// fillData takes data that may be anything, or absent.
func fillData(m *protocol.Message, p properties) error {
	if p.has("data") {
		m.Has, m.Data = m.Has|protocol.HasData, compact(p["data"].Raw)
	}
	return nil
}

// compact is JSON without the space between its parts, which people send to a server that
// keeps and relays data as it came.
func compact(raw string) string {
	if !strings.ContainsAny(raw, " \t\r\n") {
		return raw
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(raw)); err != nil {
		panic(err) // the body was found to be JSON
	}
	return b.String()
}

// fillWrite takes a record, or the value of a path in it.
func fillWrite(m *protocol.Message, p properties) error {
	path := ""
	if p.has("path") {
		var err error
		if path, err = p.text("path"); err != nil {
			return err
		}
	}
	data := p["data"]
	switch {
	case !data.Exists():
		return errors.New("data: is missing")
	case path != "": // an empty one is none
		m.Action, m.Path, m.Has = protocol.RecordCreateAndPatch, path, m.Has|protocol.HasPath
	case data.Type != gjson.JSON:
		return errors.New("data: must be an object or an array, unless there is a path")
	}
	return fillWritten(m, p)
}

// fillListWrite takes a list.
func fillListWrite(m *protocol.Message, p properties) error {
	if _, err := p.texts("data"); err != nil {
		return err
	}
	return fillWritten(m, p)
}

// fillWritten takes what every write has.
func fillWritten(m *protocol.Message, p properties) error {
	m.Data, m.Version, m.IsWriteAck = compact(p["data"].Raw), -1, true
	m.Has |= protocol.HasData | protocol.HasVersion
	if !p.has("version") {
		return nil
	}
	v := p["version"]
	if v.Type != gjson.Number || v.Num != math.Trunc(v.Num) || v.Num < -1 || v.Num > math.MaxInt32 {
		return fmt.Errorf("version: must be an integer from -1 to %d", math.MaxInt32)
	}
	if v.Num > 0 { // 0 forces, like -1: clients rely on it (spec 15, trap 43)
		m.Version = int32(v.Num)
	}
	return nil
}

// fillQuery asks for some users, or for all.
func fillQuery(m *protocol.Message, p properties) (err error) {
	if !p.has("names") {
		return nil
	}
	m.Action = protocol.PresenceQuery
	if m.Names, err = p.texts("names"); err == nil && slices.Contains(m.Names, "") {
		err = errors.New("names: must not hold an empty string")
	}
	return err
}
