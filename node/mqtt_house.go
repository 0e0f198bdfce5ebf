package node

import (
	"context"
	"fmt"
	"net/http"

	"hadal/auth"
	"hadal/node/mqtt"
	"hadal/node/sub"
	"hadal/protocol"
)

// house is the node as clients of MQTT need it.
type house struct{ *Node }

// openMQTT serves MQTT, if it is switched on: at its port, and on its path among routes.
func (n *Node) openMQTT(routes map[string]http.Handler) (err error) {
	if !n.cfg.MQTT.Enabled {
		return nil
	}
	if n.mqtt, err = mqtt.New(n.cfg.MQTT, n.endpoint, house{n}, n.log); err != nil {
		return fmt.Errorf("mqtt.%w", err)
	}
	if path := n.cfg.MQTT.URLPath; path != "" {
		routes[path] = n.mqtt
	}
	return nil
}

// Watch implements mqtt.House.
func (h house) Watch(t protocol.Topic, filter string, w *sub.Watcher) sub.Added {
	switch room := h.serving(); {
	case t == protocol.TopicEvent && h.cfg.EnabledFeatures.Event:
		return h.event.Watch(filter, w)
	case t == protocol.TopicRecord && h.cfg.EnabledFeatures.Record && room != nil:
		return room.Watch(filter, h.cfg.MQTT.Heads(filter), w)
	}
	return sub.Refused
}

// Unwatch implements mqtt.House.
func (h house) Unwatch(t protocol.Topic, filter string, w *sub.Watcher) {
	switch room := h.serving(); {
	case t == protocol.TopicEvent:
		h.event.Unwatch(filter, w)
	case room != nil:
		room.Unwatch(filter, h.cfg.MQTT.Heads(filter), w)
	}
}

// MayHear implements mqtt.House.
func (h house) MayHear(u *auth.User, o *protocol.Outbound) (ok, keep bool) {
	if o.Topic != protocol.TopicRecord {
		return refusal(o.Topic, h.rules.Door(u, o.Topic, protocol.EventSubscribe, o.Name, "")) == 0, h.rules.Steady(o.Topic, protocol.EventSubscribe, o.Name)
	}
	keep = h.rules.Steady(o.Topic, protocol.RecordSubscribe, o.Name)
	data := o.Result
	switch {
	case o.Action == protocol.RecordUpdate:
		data = o.Data
	case o.Action == protocol.RecordDeleted && !keep:
		// What the rule would have to look at is gone; what is not there anybody might see.
		return false, false
	}
	room := h.serving()
	return room != nil && room.MayHear(context.Background(), u, o.Name, data), keep // it bounds itself
}

// Generation implements mqtt.House.
func (h house) Generation() uint64 { return h.rules.Generation() }
