package node

import (
	"fmt"
	"strings"

	"hadal/protocol"
)

// RateLimit is an entry of rateLimits: how many messages of one kind a user may send.
type RateLimit struct {
	// Topic is EVENT, RECORD, RPC or PRESENCE.
	Topic string `yaml:"topic"`
	// Action is what the client asks, such as EMIT, SUBSCRIBE, CREATEANDUPDATE or
	// REQUEST. Without one the limit is on all of the topic together, but for answers of
	// providers and for what takes something back (UNSUBSCRIBE, UNLISTEN, UNPROVIDE).
	Action string `yaml:"action"`
	// PerSecond is how many such messages a second a user may send in the long run.
	PerSecond int `yaml:"perSecond"`
	// Burst is how many at once, after a rest; without it as many as in a second. It may
	// not be below a hundredth of PerSecond.
	Burst int `yaml:"burst"`
	// Role is the role (serverData.role) that the limit is for; without one, any. For
	// each message the first entry that fits its user, topic and action counts alone.
	Role string `yaml:"role"`
}

func (c Config) validateRateLimits(m *mistakes) {
	for i, l := range c.RateLimits {
		at := fmt.Sprintf("rateLimits[%d].", i)
		topic, ok := limitedTopic(l.Topic)
		if !ok {
			m.add(at+"topic", "%q is not one of EVENT, RECORD, RPC, PRESENCE", l.Topic)
		} else if l.Action != "" && len(limitedActions(topic, l.Action)) == 0 {
			m.add(at+"action", "%q is nothing that a client asks of topic %s: use one of %s, or leave it out for all", l.Action, l.Topic,
				strings.Join(actionNames(topic), ", "))
		}
		m.min(at+"perSecond", int64(l.PerSecond), 1)
		m.min(at+"burst", int64(l.Burst), 0)
		if l.Burst > 0 && l.Burst < l.PerSecond/leastBurst {
			m.add(at+"burst", "%d is less than a %dth of perSecond, %d, which could then not be reached", l.Burst, leastBurst, l.PerSecond)
		}
	}
}

// limitedTopic is the topic of a name as rateLimits has it.
func limitedTopic(name string) (protocol.Topic, bool) {
	for t := protocol.TopicEvent; t <= protocol.TopicPresence; t++ {
		if strings.EqualFold(t.String(), name) {
			return t, true
		}
	}
	return 0, false
}

// limitedActions are the actions that a name stands for; empty is those of a whole
// topic that ask for something.
func limitedActions(t protocol.Topic, name string) []protocol.Action {
	var list []protocol.Action
	for a := protocol.Action(0); a < countedActions; a++ {
		if shapeOf(t, a) == unknownAction {
			continue
		}
		if name == "" && !takesBack(t, a) || strings.EqualFold(a.Name(t), name) {
			list = append(list, a)
		}
	}
	return list
}

// actionNames are all names that may stand as an action.
func actionNames(t protocol.Topic) []string {
	var names []string
	for a := protocol.Action(0); a < countedActions; a++ {
		if shapeOf(t, a) != unknownAction {
			names = append(names, a.Name(t))
		}
	}
	return names
}

// takesBack says that an action answers the server, or takes back what was asked:
// to refuse it would cost more than to serve it.
func takesBack(t protocol.Topic, a protocol.Action) bool {
	switch t {
	case protocol.TopicEvent:
		return a == protocol.EventUnsubscribe || a == protocol.EventUnlisten || a == protocol.EventListenAccept || a == protocol.EventListenReject
	case protocol.TopicRecord:
		return a == protocol.RecordUnsubscribe || a == protocol.RecordUnlisten || a == protocol.RecordListenAccept || a == protocol.RecordListenReject
	case protocol.TopicRPC:
		return a == protocol.RPCUnprovide || a == protocol.RPCAccept || a == protocol.RPCReject || a == protocol.RPCResponse || a == protocol.RPCRequestError
	case protocol.TopicPresence:
		return a == protocol.PresenceUnsubscribe || a == protocol.PresenceUnsubscribeAll
	}
	return false
}
