package node

import (
	"fmt"
	"strings"
	"testing"

	"hadal/protocol"
)

// joinAs5 connects as a user by MQTT 5, with properties of CONNECT.
func joinAs5(t *testing.T, n *running, user, properties string) *thing {
	t.Helper()
	c := dialThing(t, n)
	c.say(packet(0x10, text("MQTT")+"\x05\xc2\x00\x00"+string(rune(len(properties)))+properties+text("id-"+user)+text(user)+text("x")))
	if p, err := c.read(); err != nil || len(p) < 4 || p[:1] != "\x20" || p[3] != 0 {
		t.Fatalf("CONNACK: %q, %v", p, err)
	}
	return c
}

// subscribe5 is a SUBSCRIBE of MQTT 5 for one filter.
func subscribe5(id byte, filter string) string {
	return packet(0x82, "\x00"+string(rune(id))+"\x00"+text(filter)+"\x00")
}

func publish5(retain byte, topic, payload string) string {
	return packet(0x30|retain, text(topic)+"\x00"+payload)
}

func TestMQTTSendsNoLargerPacketThanTheClientTakes(t *testing.T) {
	n := run(t, speaking(""))
	const most = 100
	small := joinAs5(t, n, "small", "\x27\x00\x00\x00"+string(rune(most)))
	large, b := joinAs5(t, n, "large", ""), login(t, n, "b")
	write := func(id, data string) {
		b.say(protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "state/r", Data: data, Version: -1, IsWriteAck: true,
			CorrelationID: id, Has: protocol.HasVersion | protocol.HasCorrelationID,
		})
		b.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)
	}
	exact := fmt.Sprintf(`{"v":%q}`, strings.Repeat("x", most-len(publish5(0, "state/r", `{"v":""}`))))
	tooLarge := fmt.Sprintf(`{"v":%q}`, strings.Repeat("y", most))
	write("1", tooLarge)
	small.say(subscribe5(1, "state/r"))
	small.hear(packet(0x90, "\x00\x01\x00\x00")) // and nothing retained before it
	large.say(subscribe5(1, "state/r"))
	large.hear(publish5(1, "state/r", tooLarge))
	large.hear(packet(0x90, "\x00\x01\x00\x00"))
	for id, data := range []string{tooLarge, exact} {
		write(fmt.Sprint(id+2), data)
		large.hear(publish5(0, "state/r", data))
	}
	small.hear(publish5(0, "state/r", exact)) // of exactly as many bytes as it takes
	if got := n.endpoint.Stats().Oversize; got != 2 {
		t.Errorf("%d messages were kept back, want 2", got)
	}
}

func TestMQTTGivesAUserAShareOfTheWildcards(t *testing.T) {
	n := run(t, func(c *Config) {
		speaking("")(c)
		c.MQTT.MaxWildcards, c.MQTT.MaxWildcardsInAll = 1, 8
	})
	first, second, third, other := joinAs(t, n, "a"), joinAs(t, n, "a"), joinAs(t, n, "a"), joinAs(t, n, "b")
	for _, c := range []*thing{first, second} { // two are a quarter
		c.say(subscribe(1, "x/#"))
		c.hear("\x90\x03\x00\x01\x00")
	}
	third.say(subscribe(1, "x/#"))
	third.hear("\x90\x03\x00\x01\x80")
	other.say(subscribe(1, "x/#"))
	other.hear("\x90\x03\x00\x01\x00")
	first.say(packet(0xa2, "\x00\x02"+text("x/#")))
	first.hear("\xb0\x02\x00\x02")
	third.say(subscribe(2, "x/#"))
	third.hear("\x90\x03\x00\x02\x00")
	metricsHave(t, n, `hadal_wildcard_refused_total 1`)
}

func TestMQTTIsToldWhenRulesEndASubscription(t *testing.T) {
	const rules = "record: {\"*\": {create: true, read: true, write: true}}\n"
	n := run(t, speaking(rules))
	a, five, record, filter, b := joinAs(t, n, "a"), joinAs5(t, n, "five", ""), joinAs5(t, n, "record", ""), joinAs(t, n, "filter"), joinAs(t, n, "b")
	a.say(subscribe(1, "x"))
	a.hear("\x90\x03\x00\x01\x00")
	five.say(subscribe5(1, "x"))
	five.hear(packet(0x90, "\x00\x01\x00\x00"))
	record.say(subscribe5(1, "state/r"))
	record.hear(packet(0x90, "\x00\x01\x00\x00"))
	filter.say(subscribe(1, "#"))
	filter.hear("\x90\x03\x00\x01\x00")
	b.say(subscribe(1, "y"))
	b.hear("\x90\x03\x00\x01\x00")
	cfg := n.cfg
	closed := strings.Replace(restOfRules, `event: {"*": {publish: true, subscribe: true, listen: true}}`,
		`event: {"*": {publish: true, subscribe: true, listen: true}, "x": {publish: true, subscribe: false}}`, 1)
	ruled("record: {\"*\": {create: true, read: false, write: true}}\n" + closed)(&cfg)
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	const notAuthorized = "\xe0\x01\x87"
	five.hear(notAuthorized)
	five.hearEnd()
	record.hear(notAuthorized)
	record.hearEnd()
	a.hearEnd()
	// Who comes again is told what it may not.
	again := joinAs(t, n, "a")
	again.say(subscribe(2, "x", "y"))
	again.hear("\x90\x04\x00\x02\x80\x00")
	// Whom the rules took nothing by name stays, and hears what it may.
	b.say(publish("x", "1"))
	b.say(publish("z", "2"))
	b.settle()
	b.settle()
	filter.hear(publish("z", `"2"`))
	metricsHave(t, n,
		`hadal_connections_closed_total{reason="subscription not allowed any more"} 3`,
		`hadal_endpoint_connections_total{endpoint="mqtt"} 6`,
		`hadal_wildcard_filters{topic="EVENT"} 1`,
		`hadal_wildcard_messages_total{topic="EVENT",what="delivered"} 1`,
		`hadal_wildcard_messages_total{topic="EVENT",what="withheld"} 1`,
		`hadal_wildcard_messages_total{topic="EVENT",what="judged"} 2`,
		`hadal_wildcard_messages_total{topic="EVENT",what="overflow"} 0`,
		`hadal_wildcard_refused_total 0`,
		`hadal_messages_too_large_total 0`,
	)
}

func TestEachDialectHasItsMetricsLabel(t *testing.T) {
	n := run(t, speaking(""))
	login(t, n, "b")
	joinAs(t, n, "m")
	text := speak(t, n, "/deepstream-v3")
	text.want("C¦A+")
	json := speak(t, n, "/deepstream-json")
	json.say(`{"topic":2,"action":5,"url":"u","protocolVersion":"0.1a"}`)
	if _, err := json.read(); err != nil {
		t.Fatal(err)
	}
	_, res := listenTo(t, n, "?event=e")
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	waitFor(t, "the stream is a connection", func() bool { return n.endpoint.Stats().Dialects["sse"].Open == 1 })
	var want []string
	for _, dialect := range []string{"ws-binary", "ws-text", "ws-json", "mqtt", "sse"} {
		want = append(want, fmt.Sprintf(`hadal_endpoint_connections{endpoint=%q} 1`, dialect), fmt.Sprintf(`hadal_endpoint_connections_total{endpoint=%q} 1`, dialect))
	}
	metricsHave(t, n, want...)
	m := joinAs(t, n, "wild")
	m.say(subscribe(1, "+"))
	m.hear("\x90\x03\x00\x01\x00")
	filters := make([]string, n.cfg.MQTT.MaxWildcards)
	for i := range filters {
		filters[i] = fmt.Sprintf("%d/+", i)
	}
	m.say(subscribe(2, filters...))
	if _, err := m.read(); err != nil {
		t.Fatal(err)
	}
	metricsHave(t, n, `hadal_wildcard_refused_total 1`)
}
