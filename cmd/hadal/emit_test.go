package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rogpeppe/go-internal/testscript"

	"hadal/node/admin"
	"hadal/protocol"
)

// emitEvent is `emit USER NAME DATA [NAME DATA…]`: a client publishes events on the
// node whose data is in data, and waits until they are judged.
func emitEvent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args)%2 != 1 {
		ts.Fatalf("usage: emit USER NAME DATA...")
	}
	c := admin.OverSocket(filepath.Join(ts.MkAbs("data"), admin.SocketName))
	defer c.Close()
	text, err := c.Info(context.Background())
	ts.Check(err)
	var info struct{ Address string }
	ts.Check(json.Unmarshal([]byte(text), &info))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+info.Address+"/deepstream", nil)
	ts.Check(err)
	defer ws.Close()
	ts.Check(ws.SetReadDeadline(time.Now().Add(patience)))
	say := func(m protocol.Message) { ts.Check(ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, &m))) }
	await := func(topic protocol.Topic, action protocol.Action) {
		for {
			_, frame, err := ws.ReadMessage()
			ts.Check(err)
			var m protocol.Message
			ts.Check(protocol.Decode(frame, &m))
			if m.Topic == topic && m.Action == action {
				return
			}
		}
	}
	say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x", SDKVersion: "7.0.5", SDKType: "javascript"})
	await(protocol.TopicConnection, protocol.ConnectionAccept)
	say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: fmt.Sprintf(`{"username":%q}`, args[0])})
	await(protocol.TopicAuth, protocol.AuthAuthSuccessful)
	for i := 1; i < len(args); i += 2 {
		say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: args[i], Data: args[i+1]})
	}
	// What comes after is answered after.
	say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
	await(protocol.TopicConnection, protocol.ConnectionPong)
}
