//go:build unix

package endpoint

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// sliced is a socket that brings a stream in given pieces, each by one read, and then ends.
type sliced struct {
	net.Conn // nobody needs it
	left     [][]byte
	ends     [2]int // of a pair of sockets
	wrote    []byte
}

// mostPiece is what a buffer of the reader takes, whatever it holds already.
const mostPiece = readChunk - longestHeader

func newSliced(t testing.TB, pieces [][]byte) *sliced {
	s := &sliced{}
	for _, p := range pieces {
		s.left = slices.AppendSeq(s.left, slices.Chunk(p, mostPiece))
	}
	var err error
	if s.ends, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sliced) free(t testing.TB) {
	for _, fd := range s.ends {
		if err := syscall.Close(fd); err != nil {
			t.Error(err)
		}
	}
}

// Read is that of a net.Conn and takes a piece, or as much of one as fits.
func (s *sliced) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.left[0])
	if s.left[0] = s.left[0][n:]; len(s.left[0]) == 0 {
		s.left = s.left[1:]
	}
	return n, nil
}

func (s *sliced) Write(p []byte) (int, error) {
	s.wrote = append(s.wrote, p...)
	return len(p), nil
}

func (*sliced) SetWriteDeadline(time.Time) error { return nil }
func (*sliced) SetReadDeadline(time.Time) error  { return nil }
func (*sliced) SetDeadline(time.Time) error      { return nil }
func (*sliced) Close() error                     { return nil }

// raw is the syscall.RawConn of a sliced.
type raw struct{ *sliced }

func (r raw) Control(func(uintptr)) error { return errors.ErrUnsupported }

func (r raw) Read(f func(uintptr) bool) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	piece := r.left[0]
	r.left = r.left[1:]
	if n, err := syscall.Write(r.ends[0], piece); n != len(piece) {
		return err
	}
	if !f(uintptr(r.ends[1])) {
		return errors.New("nothing was read although there is something")
	}
	return nil
}

func (r raw) Write(func(uintptr) bool) error { return nil } // nothing at once

// recorder is a codec that notes what it is given.
type recorder struct{ got [][]byte }

func (*recorder) Form() protocol.Form            { return protocol.FormBinary }
func (*recorder) Frame(*protocol.Message) []byte { return nil }
func (r *recorder) Decode(b []byte, _ func(*protocol.Message)) error {
	r.got = append(r.got, b)
	return nil
}

// hijacked is a ResponseWriter whose socket can be taken.
type hijacked struct{ nc net.Conn }

func (hijacked) Header() http.Header         { return http.Header{} }
func (hijacked) Write(p []byte) (int, error) { return len(p), nil }
func (hijacked) WriteHeader(int)             {}
func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReaderSize(h.nc, 16), bufio.NewWriterSize(h.nc, 16)), nil
}

// gorillaOver is gorilla's side of a server's connection.
func gorillaOver(t testing.TB, nc net.Conn, limit int64) *websocket.Conn {
	t.Helper()
	up := websocket.Upgrader{ReadBufferSize: controlFrame, WriteBufferSize: controlFrame}
	c, err := up.Upgrade(hijacked{nc}, &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(limit)
	return c
}

// outcomeOf is what a connection makes of a stream.
type outcomeOf struct {
	messages [][]byte
	end      Reason
	wrote    []byte // pongs and a close frame
}

// readByGorilla is what gorilla alone makes of a stream of binary messages.
func readByGorilla(t testing.TB, stream []byte, limit int64) (o outcomeOf) {
	nc := newSliced(t, [][]byte{stream})
	defer nc.free(t)
	c := gorillaOver(t, nc, limit)
	nc.wrote = nil
	for {
		kind, b, err := c.ReadMessage()
		if err != nil {
			o.end, o.wrote = reasonOf(err), nc.wrote
			return o
		}
		if kind == websocket.TextMessage {
			o.end = TextFrame // what follows is not looked at
			return o
		}
		o.messages = append(o.messages, b)
	}
}

// readByUs is what the wire and gorilla make of it together, when it comes in pieces.
func readByUs(t testing.TB, s *Server, early []byte, pieces [][]byte) (o outcomeOf) {
	nc := newSliced(t, pieces)
	defer nc.free(t)
	codec := &recorder{}
	d := &Dialect{Name: "recorded", Options: &s.cfg.WebSocket, Binary: true, Codec: func() Codec { return codec }}
	c := s.newConn(nc, early, &auth.Attempt{}, d, false)
	defer func() {
		c.wire.in.release()
		s.removed(c)
	}()
	ws := gorillaOver(t, &c.wire, s.melody.Config.MaxMessageSize)
	c.wire.in.sock, c.wire.in.readFn = raw{nc}, c.wire.in.readNow
	c.wire.upgraded = true
	nc.wrote = nil
	for {
		kind, b, err := ws.ReadMessage()
		if err == nil {
			c.receive(b, kind == websocket.BinaryMessage)
		}
		o.messages, o.wrote = codec.got, nc.wrote
		switch {
		case c.Gone():
			o.end = c.wire.reason()
			return o
		case err != nil:
			o.end = reasonOf(err)
			return o
		}
	}
}

// cut cuts a stream into pieces of chance lengths, of which many are short.
func cut(stream []byte, rng *rand.Rand) (pieces [][]byte) {
	for len(stream) > 0 {
		n := 1 + rng.IntN(20)
		if rng.IntN(2) == 0 {
			n = 1 + rng.IntN(len(stream))
		}
		n = min(n, len(stream))
		pieces, stream = append(pieces, stream[:n]), stream[n:]
	}
	return pieces
}

// newReadServer is a server of which only connections are made.
func newReadServer(t testing.TB) *Server {
	s, err := New(testConfig(), anybody, &funcReceiver{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sameAsGorilla reads a stream in both ways.
func sameAsGorilla(t *testing.T, s *Server, stream []byte, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	want := readByGorilla(t, stream, s.melody.Config.MaxMessageSize)
	early := stream[:rng.IntN(len(stream)+1)]
	if rng.IntN(2) == 0 {
		early = nil
	}
	got := readByUs(t, s, bytes.Clone(early), cut(stream[len(early):], rng))
	if len(got.messages) != len(want.messages) {
		t.Fatalf("%d messages, gorilla alone makes %d of it", len(got.messages), len(want.messages))
	}
	for i := range got.messages {
		if !bytes.Equal(got.messages[i], want.messages[i]) {
			t.Fatalf("message %d is %q, gorilla alone makes %q of it", i, got.messages[i], want.messages[i])
		}
	}
	if got.end != want.end {
		t.Fatalf("it ends as %v, with gorilla alone as %v", got.end, want.end)
	}
	if got.end != TextFrame && !bytes.Equal(got.wrote, want.wrote) {
		t.Fatalf("gorilla wrote %q, and %q when it is alone", got.wrote, want.wrote)
	}
}

// FuzzMessagesAreThoseOfGorilla checks that whatever is taken out of a stream before gorilla
// sees it, and wherever the stream is cut, the messages, the answers and the end are those of gorilla.
func FuzzMessagesAreThoseOfGorilla(f *testing.F) {
	binaryFrame := func(n int) []byte { return clientFrame(websocket.BinaryMessage, bytes.Repeat([]byte("x"), n)) }
	fragment := func(opcode byte, b string) []byte {
		frame := clientFrame(websocket.BinaryMessage, []byte(b))
		frame[0] = opcode
		return frame
	}
	ping, bye := clientFrame(websocket.PingMessage, []byte("p")), clientFrame(websocket.CloseMessage, []byte{3, 0xe8})
	long := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 5)
	for _, stream := range [][]byte{
		slices.Concat(binaryFrame(0), binaryFrame(1), binaryFrame(125), binaryFrame(126), binaryFrame(300), bye),
		slices.Concat(binaryFrame(5), ping, binaryFrame(9000), ping, binaryFrame(7)),
		slices.Concat(binaryFrame(5), fragment(0x02, "ab"), ping, fragment(0, "cd"), fragment(0x80, "e"), binaryFrame(6)),
		slices.Concat(fragment(0x02, "ab"), binaryFrame(6)), // a message within a message
		fragment(0x80, "ab"), // the end of none
		slices.Concat(binaryFrame(3), fragment(0xc2, "rsv")),
		slices.Concat(binaryFrame(3), fragment(0x83, "opcode 3")),
		slices.Concat(binaryFrame(3), []byte{0x82, 1, 'x'}), // not masked
		slices.Concat(binaryFrame(3), clientFrame(websocket.TextMessage, []byte("text")), binaryFrame(3)),
		slices.Concat(long, []byte("mask"), []byte("hello"), binaryFrame(3)), // longer than it need be
		slices.Concat(binaryFrame(1), binaryFrame(maxLoginMessage+1)),
		{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		fragment(0x09, "a ping in fragments"),
	} {
		for seed := range uint64(4) {
			f.Add(stream, seed)
		}
	}
	s := newReadServer(f)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) { sameAsGorilla(t, s, stream, seed) })
}

// Streams of frames that clients do send, which a fuzzer hardly finds.
func TestMessagesOfAnyMixAreThoseOfGorilla(t *testing.T) {
	s := newReadServer(t)
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var stream []byte
		for range 1 + rng.IntN(12) {
			payload := make([]byte, []int{0, 1, 7, 60, 130, 3000, 9000}[rng.IntN(7)])
			for i := range payload {
				payload[i] = byte(rng.Uint32())
			}
			switch rng.IntN(8) {
			case 0:
				stream = append(stream, clientFrame(websocket.PingMessage, payload[:min(len(payload), 125)])...)
			case 1: // in fragments, with a ping between them
				first, last := clientFrame(websocket.BinaryMessage, payload[:len(payload)/2]), clientFrame(websocket.BinaryMessage, payload[len(payload)/2:])
				first[0], last[0] = opBinary, finalBit|opContinuation
				stream = append(slices.Concat(stream, first, clientFrame(websocket.PingMessage, nil)), last...)
			default:
				stream = append(stream, clientFrame(websocket.BinaryMessage, payload)...)
			}
		}
		sameAsGorilla(t, s, stream, seed)
	}
}

func TestHalfAHeaderHoldsNoBuffer(t *testing.T) {
	s := newReadServer(t)
	frame := clientFrame(websocket.BinaryMessage, make([]byte, 300))
	for n := 1; n < 8; n++ {
		nc := newSliced(t, [][]byte{frame[:n]})
		c := s.newConn(nc, nil, &auth.Attempt{}, s.speak["/deepstream"], false)
		c.wire.in.sock, c.wire.in.readFn = raw{nc}, c.wire.in.readNow
		if _, err := c.wire.Read(make([]byte, controlFrame)); !errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes of a header: %v, want the end of the stream", n, err)
		}
		if c.wire.in.buf != nil {
			t.Errorf("%d bytes of a header hold a buffer", n)
		}
		nc.free(t)
		s.removed(c)
	}
}

// A client that does not wait may send all of it in one piece.
func TestALargeMessageBehindAnotherBehindTheLoginIsTaken(t *testing.T) {
	got := make(chan int, 2)
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(_ *Conn, m *protocol.Message) { got <- len(m.Data) }})
	c := ts.rawDial(t)
	large := `"` + strings.Repeat("x", 2*maxLoginMessage) + `"`
	var stream []byte
	for _, m := range []*protocol.Message{challenge(), request(`{}`), emit("a", "1"), emit("a", large)} {
		stream = append(stream, clientFrame(websocket.BinaryMessage, protocol.Append(nil, m))...)
	}
	c.write([]byte(upgradeRequest("/deepstream")))
	c.upgraded()
	c.write(stream)
	for _, want := range []int{1, len(large)} {
		if n := await(t, "message", got); n != want {
			t.Errorf("a message of %d bytes, want %d", n, want)
		}
	}
}
