package mqtt

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"hadal/node/endpoint"
	"hadal/protocol"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hooks is where the broker asks what to do. All of it runs on the reader of the client.
type hooks struct {
	broker.HookBase
	server *Server
}

// ID implements broker.Hook.
func (h *hooks) ID() string { return "hadal" }

// Provides implements broker.Hook.
func (h *hooks) Provides(b byte) bool {
	return bytes.IndexByte([]byte{
		broker.OnConnect, broker.OnConnectAuthenticate, broker.OnACLCheck, broker.OnPacketRead, broker.OnSubscribe, broker.OnUnsubscribe, broker.OnPublish,
	}, b) >= 0
}

// sessionOf is the session of a client of the broker.
func sessionOf(cl *broker.Client) *session { return cl.Net.Conn.(*pipe).session }

// OnConnect implements broker.Hook: what of a CONNECT does not depend on who it is.
func (h *hooks) OnConnect(cl *broker.Client, pk packets.Packet) error {
	if pk.ProtocolVersion == 5 && pk.Properties.AuthenticationMethod != "" {
		_ = h.server.broker.SendConnack(cl, packets.ErrBadAuthenticationMethod, false, nil) // the client is on its way out
		return packets.ErrBadAuthenticationMethod
	}
	c := sessionOf(cl)
	c.client, c.v5 = cl, pk.ProtocolVersion == 5
	if c.v5 {
		c.conn.Load().Speak(protocol.FormMQTT5)
		c.conn.Load().Takes(int(pk.Properties.MaximumPacketSize))
	}
	if pk.Connect.WillFlag {
		c.will = &will{topic: pk.Connect.WillTopic, payload: string(pk.Connect.WillPayload), retain: pk.Connect.WillRetain}
	}
	// The broker's own will, session and takeover are not used: its ids never meet.
	cl.Properties.Will, cl.Properties.Clean = broker.Will{}, true
	cl.ID = strconv.FormatUint(c.conn.Load().ID(), 10)
	return nil
}

// OnConnectAuthenticate implements broker.Hook: CONNECT is the login.
func (h *hooks) OnConnectAuthenticate(cl *broker.Client, pk packets.Packet) bool {
	c := sessionOf(cl)
	conn := c.conn.Load()
	if !conn.Login(params(&pk.Connect)) {
		c.will = nil
		c.ended(endpoint.TooManyAuthAttempts)
		return false
	}
	conn.Patience(time.Duration(pk.Connect.Keepalive) * time.Second * 3 / 2)
	if id := pk.Connect.ClientIdentifier; id != "" {
		c.key = conn.User().ID + "\x00" + id
		h.server.enter(c)
	}
	return true
}

// params are the parameters of a login. A password without a name is a token.
func params(p *packets.ConnectParams) string {
	b := []byte{'{'}
	add := func(key string, value []byte) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(b, '"'), key...)
		b = append(append(b, `":`...), quote(string(value))...)
	}
	switch {
	case len(p.Username) > 0:
		add("username", p.Username)
		if p.PasswordFlag {
			add("password", p.Password)
		}
	case len(p.Password) > 0:
		add("token", p.Password)
	}
	return string(append(b, '}'))
}

// OnACLCheck implements broker.Hook. A subscription was judged by OnSubscribe; our rules
// judge what is published.
func (h *hooks) OnACLCheck(cl *broker.Client, topic string, write bool) bool {
	return write || sessionOf(cl).granted[topic]
}

// OnPacketRead implements broker.Hook.
func (h *hooks) OnPacketRead(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	c := sessionOf(cl)
	switch {
	case pk.FixedHeader.Type == packets.Disconnect:
		if pk.ReasonCode != packets.CodeDisconnectWillMessage.Code {
			c.will = nil
		}
		c.ended(endpoint.ClientClosed)
	case pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Qos == 2:
		c.sayBye(packets.ErrQosNotSupported.Code)
		return pk, packets.ErrRejectPacket // ends the connection
	case pk.FixedHeader.Type == packets.Publish && reserved(pk.TopicName) && pk.FixedHeader.Qos > 0 && pk.PacketID > 0:
		c.refuse(pk.PacketID) // the broker drops it without a word
	}
	return pk, nil
}

// OnSubscribe implements broker.Hook. Whatever is asked for, deliveries are of QoS 0.
func (h *hooks) OnSubscribe(cl *broker.Client, pk packets.Packet) packets.Packet {
	c := sessionOf(cl)
	filters := make([]string, len(pk.Filters))
	for i := range pk.Filters {
		pk.Filters[i].Qos = 0
		filters[i] = pk.Filters[i].Filter
	}
	granted := c.subscribe(filters)
	c.granted = make(map[string]bool, len(granted))
	for i, f := range filters {
		pk.Filters[i].Filter = flat(f)
		c.granted[flat(f)] = granted[f]
	}
	return pk
}

// flat is a filter as the broker is told it, whose own tree of filters nobody uses: in one
// level, since each costs a kilobyte there. In place of the slash stands what no filter has.
func flat(filter string) string { return strings.ReplaceAll(filter, "/", "\x00") }

// OnUnsubscribe implements broker.Hook.
func (h *hooks) OnUnsubscribe(cl *broker.Client, pk packets.Packet) packets.Packet {
	filters := make([]string, len(pk.Filters))
	for i := range pk.Filters {
		filters[i] = pk.Filters[i].Filter
		pk.Filters[i].Filter = flat(filters[i])
	}
	sessionOf(cl).unsubscribe(filters)
	return pk
}

// OnPublish implements broker.Hook. The broker itself delivers nothing.
func (h *hooks) OnPublish(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	sessionOf(cl).publish(pk.TopicName, string(pk.Payload), pk.FixedHeader.Retain, pk.FixedHeader.Qos > 0, pk.PacketID)
	return pk, packets.ErrRejectPacket
}
