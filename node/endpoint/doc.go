// Package endpoint is the public port: it serves HTTP and, on paths of their own, the
// WebSocket connections of clients, from the first byte to login, messages and
// goodbye. It knows who a client is and what it may send next, and nothing of
// what messages mean: those of logged-in clients go to a Receiver.
//
// # A connection
//
// The HTTP handler checks the upgrade request, takes the socket away from the
// HTTP server and returns, so that the server's buffers and stack are freed; a
// goroutine of ours then lets melody (over gorilla/websocket) do the rest. What
// melody believes to be the socket is our wire. An upgrade request that arrives in
// one piece on a port without TLS, as most do, comes to the handler without the
// HTTP server (front.go), which would cost as much as all the rest of a login.
//
//	socket ─► wire.Read ─────────────────────────────────► Conn.receive ─► Receiver
//	socket ─► wire.Read ─► gorilla ─► melody's read pump ─► Conn.receive ─► Receiver
//	socket ◄─ writer, or a pump ◄─ wire.queue ◄─ Conn.Answer, Conn.Send
//	socket ◄─ wire.Write ◄─ gorilla ◄─ melody's write pump: close frames; and pongs
//
// A message that is one frame and was read whole, as nearly all are, does not go through
// gorilla (in.go), which would cost as much as the rest of a small event and 512 bytes
// of garbage. Gorilla sees the other frames, whole and in their places, and makes of them what
// it always does.
//
// Frames are encoded once, shared by all who get them, and wait in the wire's
// queue. The first one puts the wire on the list of its writer. There is one for
// each processor; it writes everything that waits in a wire, small frames copied
// together, then goes on to the next wire. So one goroutine is woken for a
// broadcast and not one for each subscriber, and what comes while it is at work
// leaves with the rest: one deepstream message stays one WebSocket frame, but
// many frames leave in one system call. A writer never waits. What a socket does
// not take at once, large frames, and all above TLS are written by a pump, a
// goroutine that lives while something waits. Pongs and close frames, which gorilla
// makes, go behind what was queued before them.
//
// A frame that comes alone (protocol.Message.Alone) and finds nothing waiting is
// written by who pushes it, if the socket is plain and takes it at once: the
// writer need not be woken for one frame. That costs the pusher a system call, at
// times under a lock of sub; so only readers ask for it, for what they send on to
// few, and only while messages come to them one by one: a burst is better written
// together.
//
// Most connections are idle, and then they are little but the stacks of melody's two
// goroutines, so what is on those while they wait counts. Go gives new goroutines 4 KiB
// instead of 2 as soon as those there are use more than 1120 bytes each on average, so a
// few variables in Conn.run or wire.Read would cost each connection 2 KiB: its write pump
// needs 600 bytes. A test adds them up.
//
// # Dialects
//
// A path of the port speaks one Dialect, whose Codec turns frames into messages and back;
// without a codec it is the binary protocol. What is broadcast is put into bytes once for
// each protocol.Form in use and shared; what a client is answered goes through its own
// codec, which may remember what it asked. A client that does not speak WebSocket has a
// Plain connection: its reader, which knows the dialect, logs it in and hands its messages
// on, and there is no melody. All else, from the gate to the goodbye, is the same for all,
// and no room can tell them apart.
//
// # Too much for a client
//
// Answers to a client's own requests are never dropped. While more of them wait
// than queueSoftLimit, the reader does not take the client's next message, so
// its TCP window closes. Broadcasts cannot be held back: a client over the soft
// limit that takes nothing for queueStall, or over queueHardLimit, is cut off
// as a slow consumer, which is counted. So is one for which answers wait that
// are four times queueHardLimit and do not move, or sixteen times, which only
// other clients can bring about, by answering rpcs. Nothing is ever skipped in silence.
//
// # Strangers
//
// Anybody can connect; what that costs us is bounded (gate.go). The port has at
// most maxConnections sockets, derived from the limit of open files less a
// reserve, so that the store, the operator and health always get theirs. When
// they are taken, upgrades are refused with 503 while httpSpare further sockets
// still get answers of HTTP, so that health can be asked; beyond that sockets are
// reset as they are accepted.
//
// Sockets that have not logged in are bounded by maxUnauthenticated, for each
// address by maxUnauthenticatedPerAddress, and never more than half of all. When
// there are too many, the oldest that has no login under way goes, not the newest:
// a client logs in within a moment, so an attack would have to bring thousands of
// connections in that moment to get in its way, while those that only sit there
// make room. Thus many ordinary users may share one address; only if more of them
// than the limit log in at the same time do some have to try again. Behind a proxy
// in trustedProxies each forwarded address counts for itself, and the proxy not at
// all.
//
// Before login a message is at most maxLoginMessage long, and maxStrays useless
// ones end the connection. A TLS handshake, a request with its body, and an answer
// each have a time from their beginning to their end, in which nothing that
// trickles buys more. Logins are bounded where passwords are checked (package
// auth): one that cannot wait there ends with close code 1013, never with a refusal
// that a person would take for a wrong password. Nothing that strangers do is
// logged above info, but that they were turned away, every few seconds.
//
// # Login
//
// A connection is new, challenged, then open (spec 06 §1). A login runs on a
// goroutine of its own, so that the reader notices when the client goes: then
// the login's context ends and its result is dropped. A message that arrives
// meanwhile waits, on the reader, for the verdict, and is judged by the state it
// leads to. So there is one login at a time, in the order sent (spec 15, trap 26).
//
// # The end
//
// Whatever ends a connection first gives the reason (Reason), which is counted
// and logged. From then on Gone is true, nothing is queued or received, and what
// was queued before is still written, followed by a close frame, unless the
// client is cut off. After a close frame the socket is half closed and read
// for up to two seconds, or the last frames could be lost to a reset.
//
// One sweep over all connections, not a timer for each, finds those that are
// silent, not logged in in time, or stuck. Deadlines of gorilla and melody are
// not used.
//
// Locks: Server.mu, gate.mu and a wire's two; see wire. Server.mu is never held
// over a call of a Conn that writes, gate.mu over no call at all.
package endpoint
