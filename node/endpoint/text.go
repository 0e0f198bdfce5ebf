package endpoint

import "hadal/protocol"

// Text is the dialect of clients 2.x and 3.x (spec 02).
func Text(options *WebSocketConfig) Dialect {
	return Dialect{Name: "ws-text", Options: options, Codec: func() Codec { return protocol.Text{} }, Greets: true}
}

// JSON is the dialect of one JSON object a message (spec 03).
func JSON(options *WebSocketConfig) Dialect {
	return Dialect{Name: "ws-json", Options: options, Codec: func() Codec { return protocol.JSON{} }}
}
