package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"hadal/protocol"
)

// bare is the bare writer, which says where the limit is: a process of ours that lets
// everybody in and from then on only copies the bytes of a publisher to its subscribers, one
// write each for all that one read brought. It decodes nothing, checks nothing and
// keeps nothing; what it needs is what the kernel asks for the connections.
type bare struct{ binary string }

// BareCommand is the argument of `hadal bench` that starts the bare writer.
const BareCommand = "bare-writer"

func (bare) name() string { return "bare" }

func (bare) fits(sc *Scenario) string {
	if !sc.bare {
		return "it only copies events"
	}
	return ""
}

func (b bare) start(ctx context.Context, _ *Scenario) (*server, error) {
	return launch(ctx, b.name(), []string{b.binary, "bench", BareCommand}, nil)
}

// BareWriter is the bare writer's process: it says its URL on out, as peers do, and runs until
// ctx ends.
func BareWriter(ctx context.Context, out io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })() // Accept says that it is over
	if _, err := fmt.Fprintf(out, "about=a bare socket writer: it copies frames and knows no protocol\nurl=ws://%s/\n", listener.Addr()); err != nil {
		return err
	}
	w := &bareWriter{subscribers: map[string][]net.Conn{}, conns: map[net.Conn]struct{}{}}
	defer w.close()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		conn = newBareConn(conn)
		w.serving.Go(func() {
			w.add(conn)
			defer w.remove(conn)
			_ = w.serve(conn) // a client that has gone
		})
	}
}

type bareWriter struct {
	serving sync.WaitGroup

	mu          sync.Mutex
	subscribers map[string][]net.Conn // guarded by mu
	conns       map[net.Conn]struct{} // guarded by mu
}

func (w *bareWriter) add(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
}

func (w *bareWriter) remove(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	_ = c.Close() // it may be closed
}

func (w *bareWriter) close() {
	w.mu.Lock()
	for c := range w.conns {
		_ = c.Close() // whoever reads it ends
	}
	w.mu.Unlock()
	w.serving.Wait()
}

// serve answers what a client needs to get in; from its first event on it copies.
func (w *bareWriter) serve(c net.Conn) error {
	in := bufio.NewReaderSize(c, 4096)
	req, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	if err := req.Body.Close(); err != nil {
		return err
	}
	const upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
	if _, err := io.WriteString(c, upgraded); err != nil {
		return err
	}
	var m protocol.Message
	for {
		head, err := in.Peek(maskedHeader)
		if err != nil {
			return err
		}
		size, header, ok := maskedFrame(head)
		if !ok {
			return errors.New("a frame that our clients do not send")
		}
		frame, err := in.Peek(header + size)
		if err != nil {
			return err
		}
		if err := protocol.Decode(frame[header:], &m); err != nil {
			return err
		}
		if m.Topic == protocol.TopicEvent && m.Action == protocol.EventEmit {
			return w.copy(in, w.of(m.Name))
		}
		if err := w.answer(c, &m); err != nil {
			return err
		}
		if _, err := in.Discard(header + size); err != nil {
			return err
		}
	}
}

func (w *bareWriter) of(name string) []net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.subscribers[name]
}

// answer is what a server would say.
func (w *bareWriter) answer(c net.Conn, m *protocol.Message) error {
	answer := protocol.Message{Topic: m.Topic, Action: m.Action, CorrelationID: m.CorrelationID, IsAck: true}
	switch {
	case m.Topic == protocol.TopicEvent:
		w.mu.Lock()
		for _, name := range m.Names {
			w.subscribers[string([]byte(name))] = append(w.subscribers[name], c)
		}
		w.mu.Unlock()
	case m.Action == protocol.ConnectionPing:
		answer = protocol.Message{Topic: m.Topic, Action: protocol.ConnectionPong}
	case m.Topic == protocol.TopicAuth:
		answer = protocol.Message{Topic: m.Topic, Action: protocol.AuthAuthSuccessful}
	default:
		answer = protocol.Message{Topic: m.Topic, Action: protocol.ConnectionAccept}
	}
	_, err := c.Write(protocol.Append([]byte{finalBinary, byte(protocol.Size(&answer))}, &answer)) // always short
	return err
}

// What frames of our clients begin with: two bytes and the mask, or four and the mask.
const (
	finalBinary  = 0x82
	maskedHeader = 6
	longHeader   = 8
	longest16    = 126
)

// maskedFrame is the size of a client's frame and of its header.
func maskedFrame(head []byte) (size, header int, ok bool) {
	switch n := int(head[1] & 0x7f); {
	case n < longest16:
		return n, maskedHeader, true
	case n == longest16:
		return int(binary.BigEndian.Uint16(head[2:4])), longHeader, true
	}
	return 0, 0, false
}

// copy gives the frames of a publisher to its subscribers, without their masks, which are 0.
func (w *bareWriter) copy(in *bufio.Reader, to []net.Conn) error {
	in = bufio.NewReaderSize(in, 64<<10)
	out := make([]byte, 0, 64<<10)
	for {
		out = out[:0]
		for {
			head, err := in.Peek(maskedHeader)
			if err != nil {
				return err
			}
			size, header, ok := maskedFrame(head)
			if !ok {
				return errors.New("a frame that our clients do not send")
			}
			frame, err := in.Peek(header + size)
			if err != nil {
				return err
			}
			out = append(append(out, frame[:header-4]...), frame[header:]...)
			out[len(out)-size-header+4+1] &= 0x7f // no mask
			if _, err := in.Discard(header + size); err != nil {
				return err
			}
			if in.Buffered() < maskedHeader {
				break
			}
			head, err = in.Peek(maskedHeader)
			if err != nil {
				return err
			}
			if size, header, ok = maskedFrame(head); ok && in.Buffered() < header+size {
				break
			}
		}
		for _, c := range to {
			_, _ = c.Write(out) // one that has gone
		}
	}
}
