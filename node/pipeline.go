package node

import (
	"slices"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/perms"
	"hadal/protocol"
)

// room is a feature as the pipeline sees it.
type room interface {
	// Handle serves a message that is well shaped and allowed. It is called on
	// the client's reader; m and m.Names are reused after it returns.
	Handle(c sub.Client, m *protocol.Message)
	// Closed forgets a client, after its last message.
	Closed(c sub.Client)
}

// door judges a message before any record is at hand; perms.Live is one.
type door interface {
	Door(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) perms.Verdict
	Generation() uint64
}

const (
	// maxName is the longest name in bytes that a client may use. Names are keys
	// everywhere, and patterns are matched against them.
	maxName = 4096
	// maxCorrelationID is the longest correlation id in bytes. It comes back with
	// every answer, and a message with a list of names may have very many.
	maxCorrelationID = 1024
	// pace is how many names of a list are refused before the client has to take
	// its answers.
	pace = 256
)

// pipeline is the way of every message of a logged-in client: its shape, then
// its rule, then the room for its topic (spec 07 §3, spec 15 traps 51 and 52).
// The name that is checked is the name that is used, because a message has
// either one name or a list, never both, when it leaves fit.
type pipeline struct {
	rates *rateLimits // nil where nothing is limited

	rooms [protocol.TopicPresence + 1]room // by topic; nil where a feature is off
	rules door
	// session answers what a client asks about its own login; nil where there is none.
	session session
}

// session is the login of a client as the pipeline sees it.
type session interface {
	// renew answers a call of protocol.CallRefresh.
	renew(c sub.Client, m *protocol.Message)
	// remind is called when a client has subscribed to protocol.EventExpiring.
	remind(c sub.Client)
}

// receive is called on the client's reader.
func (p *pipeline) receive(c sub.Client, m *protocol.Message) {
	var r room
	if int(m.Topic) < len(p.rooms) {
		r = p.rooms[m.Topic]
	}
	if r == nil {
		c.Answer(&protocol.Message{Topic: protocol.TopicParser, Action: protocol.ParserUnknownTopic, OriginalAction: m.Action})
		return
	}
	shape := shapeOf(m.Topic, m.Action)
	if shape == unknownAction {
		c.Answer(&protocol.Message{Topic: protocol.TopicParser, Action: protocol.ParserUnknownAction, OriginalAction: m.Action})
		return
	}
	if !fit(shape, m) {
		refuseShape(c, m)
		return
	}
	m.Judged = p.rules.Generation() // before they are asked: see sub.Gate
	if p.rates != nil && !p.rates.admit(c, m) {
		p.deny(c, m)
		return
	}
	if m.Topic == protocol.TopicRPC && m.Action == protocol.RPCRequest && m.Name == protocol.CallRefresh && p.session != nil {
		p.session.renew(c, m) // no rule may keep a client from it
		return
	}
	switch {
	case m.Topic == protocol.TopicRecord && m.Action == protocol.RecordSubscribeCreateAndRead:
		// Acknowledged whatever becomes of its names (spec 15, trap 8): which rules
		// apply depends on which records exist, so the room judges them all.
	case shape == bulk && len(m.Names) > 0:
		if !p.admit(c, m) {
			return
		}
	case shape != bulk:
		v := p.rules.Door(c.User(), m.Topic, m.Action, m.Name, m.Data)
		if refused := refusal(m.Topic, v); refused != 0 {
			refuse(c, m, m.Name, refused)
			return
		}
	}
	remind := m.Topic == protocol.TopicEvent && m.Action == protocol.EventSubscribe && p.session != nil && slices.Contains(m.Names, protocol.EventExpiring)
	r.Handle(c, m)
	if remind {
		p.session.remind(c)
	}
}

// admit drops exactly the names that the user may not use, and says whether
// any are left.
func (p *pipeline) admit(c sub.Client, m *protocol.Message) bool {
	user := c.User()
	kept, refused := m.Names[:0], 0
	for _, name := range m.Names {
		if action := refusal(m.Topic, p.rules.Door(user, m.Topic, m.Action, name, m.Data)); action != 0 {
			refuse(c, m, name, action)
			if refused++; refused%pace == 0 {
				c.Pace()
			}
			continue
		}
		kept = append(kept, name)
	}
	m.Names = kept
	return len(kept) > 0
}

// refusal is the action that a client is told of a verdict, or 0 when it may go on.
func refusal(t protocol.Topic, v perms.Verdict) protocol.Action {
	switch v {
	case perms.Deny:
		return protocol.Denied(t)
	case perms.Fail:
		return protocol.PermissionError(t)
	}
	return 0
}

// refuse tells the client that a rule refused, or could not be judged.
func refuse(c sub.Client, m *protocol.Message, name string, action protocol.Action) {
	c.Answer(&protocol.Message{
		Topic: m.Topic, Action: action, Name: name, OriginalAction: m.Action, IsError: true,
		IsWriteAck: m.IsWriteAck, CorrelationID: m.CorrelationID, Has: m.Has & protocol.HasCorrelationID,
	})
}

// refuseShape tells the client that its message makes no sense. What it wrote
// comes back, so that a write that waits for an ack is settled.
func refuseShape(c sub.Client, m *protocol.Message) {
	action := map[protocol.Topic]protocol.Action{
		protocol.TopicEvent:    protocol.EventInvalidMessageData,
		protocol.TopicRecord:   protocol.RecordInvalidMessageData,
		protocol.TopicRPC:      protocol.RPCInvalidMessageData,
		protocol.TopicPresence: protocol.PresenceInvalidPresenceUsers,
	}[m.Topic]
	answer := protocol.Message{
		Topic: m.Topic, Action: action, OriginalAction: m.Action, IsError: true, IsWriteAck: m.IsWriteAck,
	}
	if len(m.Name) <= maxName {
		answer.Name = m.Name
	}
	if len(m.CorrelationID) <= maxCorrelationID {
		answer.CorrelationID, answer.Has = m.CorrelationID, m.Has&protocol.HasCorrelationID
	}
	c.Answer(&answer)
}

// shape is which fields an action works with.
type shape uint8

const (
	unknownAction shape = iota // clients may not send it
	nameless                   // neither name nor names
	single                     // one name
	bulk                       // a list of names
	write                      // one name, and data: UPDATE, PATCH_MULTI and the like
	patch                      // one name, a path, and perhaps data
	erase                      // one name and a path
)

// shapeOf knows every action that a client may send (spec 01 §5).
func shapeOf(t protocol.Topic, a protocol.Action) shape {
	switch t {
	case protocol.TopicRecord:
		switch a {
		case protocol.RecordRead, protocol.RecordHead, protocol.RecordDelete,
			protocol.RecordListen, protocol.RecordUnlisten, protocol.RecordListenAccept, protocol.RecordListenReject:
			return single
		case protocol.RecordUpdate, protocol.RecordCreateAndUpdate, protocol.RecordPatchMulti:
			return write
		case protocol.RecordPatch, protocol.RecordCreateAndPatch:
			return patch
		case protocol.RecordErase:
			return erase
		case protocol.RecordSubscribe, protocol.RecordUnsubscribe, protocol.RecordSubscribeAndHead,
			protocol.RecordSubscribeAndRead, protocol.RecordSubscribeCreateAndRead, protocol.RecordNotify:
			return bulk
		}
	case protocol.TopicEvent:
		switch a {
		case protocol.EventEmit, protocol.EventListen, protocol.EventUnlisten,
			protocol.EventListenAccept, protocol.EventListenReject:
			return single
		case protocol.EventSubscribe, protocol.EventUnsubscribe:
			return bulk
		}
	case protocol.TopicRPC:
		switch a {
		case protocol.RPCRequest, protocol.RPCAccept, protocol.RPCReject, protocol.RPCResponse, protocol.RPCRequestError:
			return single
		case protocol.RPCProvide, protocol.RPCUnprovide:
			return bulk
		}
	case protocol.TopicPresence:
		switch a {
		case protocol.PresenceQueryAll, protocol.PresenceSubscribeAll, protocol.PresenceUnsubscribeAll:
			return nameless
		case protocol.PresenceQuery, protocol.PresenceSubscribe, protocol.PresenceUnsubscribe:
			return bulk
		}
	}
	return unknownAction
}

// fit makes m what its action says it is, or says that it cannot be: an UPDATE
// with a path is a PATCH from here on, a list beside a single name is gone.
func fit(s shape, m *protocol.Message) bool {
	// Clients have the only name of a list for its id, too: the official one when it
	// discards a record, and the text dialect always. It is not longer than a name.
	if len(m.CorrelationID) > maxCorrelationID && !(s == bulk && len(m.Names) == 1 && m.CorrelationID == m.Names[0]) {
		return false
	}
	if s == bulk {
		m.Name = ""
		for _, name := range m.Names {
			if name == "" || len(name) > maxName {
				return false
			}
		}
		return true
	}
	m.Names = m.Names[:0]
	if s == nameless {
		m.Name = ""
		return true
	}
	if m.Name == "" || len(m.Name) > maxName {
		return false
	}
	hasPath := m.Carries(protocol.HasPath)
	switch s {
	case write:
		if !hasPath {
			return true
		}
		switch m.Action {
		case protocol.RecordUpdate:
			m.Action = protocol.RecordPatch
		case protocol.RecordCreateAndUpdate:
			m.Action = protocol.RecordCreateAndPatch
		default:
			return false
		}
		return m.Path != ""
	case patch:
		return hasPath && m.Path != ""
	case erase:
		return hasPath && m.Path != "" && m.Data == ""
	}
	return true
}
