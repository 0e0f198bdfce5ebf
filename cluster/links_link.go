package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Framing of format 1: four bytes of length of the payload, big endian, one of kind,
// the payload.
const (
	frameHead = 5

	// kindControl is the link's own: an empty frame is a sign of life, one byte is a
	// control message. Unknown ones are ignored.
	kindControl Kind = 0

	controlBye byte = 1 // the sender ends the link and has sent everything
)

// Sizes of buffers, in bytes.
const (
	// A chunk is what one write takes: what TLS puts into one record.
	linkChunk = 16 << 10
	// What a link that was busy keeps.
	linkKeep = 32 // chunks
	// What is read at once. Larger payloads get a buffer of their own.
	linkRead = 64 << 10
	// A larger buffer of a payload is not kept.
	linkKeepRead = 1 << 20
)

// Reasons why a link ends.
const (
	endQueueFull = "queue full"        // the peer takes less than rooms send
	endTooLarge  = "message too large" // a room sent it: our own mistake
	endSilent    = "peer silent"
	endStalled   = "peer takes nothing"
	endBroken    = "connection broken"
	endPeerLeft  = "peer left"
	endBadFrame  = "bad frame"
	endReplaced  = "replaced" // the peer has dialled anew
	endRemoved   = "peer removed"
	endOlder     = "peer restarted" // the table knows a newer incarnation
	endStopped   = "stopped"        // this node stops
)

// link is one connection with a peer, from hello to its end.
type link struct {
	peer        string
	conn        net.Conn
	incarnation uint64
	format      int
	limit       int // of waiting
	largest     int // of a payload
	keepalive   time.Duration
	up          atomic.Uint32 // a bit for each kind whose Up has begun
	wake        chan struct{} // of capacity 1: there is something to write
	done        chan struct{} // closed at the end
	wrote       atomic.Uint64 // chunks
	reading     readState

	sent, received *counter

	mu      sync.Mutex
	chunks  [][]byte // what waits, all but the last full; guarded by mu
	waiting int      // bytes not yet written; guarded by mu
	free    [][]byte // chunks to use again; guarded by mu
	closing bool     // takes nothing more; guarded by mu
	ended   string   // the reason, once done is closed; guarded by mu
}

// readState tells the watch whether the reader waits, and for how long already.
type readState struct {
	waits atomic.Bool
	reads atomic.Uint64
}

// send queues a message. One for which there is no room ends the link.
func (k *link) send(kind Kind, payload []byte) bool {
	sent, full := k.put(kind, payload, k.limit)
	if full {
		k.end(endQueueFull)
	}
	return sent
}

// offer queues a message if that leaves half of the queue to others, or nothing waits.
func (k *link) offer(kind Kind, payload []byte) bool {
	sent, _ := k.put(kind, payload, k.limit/2)
	return sent
}

// put queues a message, unless more than limit bytes would wait with it: then the link is full.
// One larger than that may wait alone, as far as the link's own limit goes.
func (k *link) put(kind Kind, payload []byte, limit int) (sent, full bool) {
	if kind == kindControl || k.up.Load()&(1<<kind) == 0 {
		return false, false // nobody has heard Up yet: for this kind there is no link
	}
	if len(payload) > k.largest {
		k.end(endTooLarge)
		return false, false
	}
	k.mu.Lock()
	if k.closing {
		k.mu.Unlock()
		return false, false
	}
	n := frameHead + len(payload)
	if k.waiting+n > limit && (k.waiting > 0 || n > k.limit) {
		k.mu.Unlock()
		return false, true
	}
	k.queue(kind, payload)
	k.mu.Unlock()
	k.ring()
	k.sent.messages.Add(1)
	return true, false
}

// queue appends a frame. Under mu.
func (k *link) queue(kind Kind, payload []byte) {
	var head [frameHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
	head[4] = byte(kind)
	k.fill(head[:])
	k.fill(payload)
	k.waiting += frameHead + len(payload)
}

// fill appends bytes to the chunks. Under mu.
func (k *link) fill(b []byte) {
	for len(b) > 0 {
		last := len(k.chunks) - 1
		if last < 0 || len(k.chunks[last]) == linkChunk {
			var chunk []byte
			if n := len(k.free); n > 0 {
				chunk, k.free = k.free[n-1], k.free[:n-1]
			} else {
				chunk = make([]byte, 0, linkChunk)
			}
			k.chunks = append(k.chunks, chunk)
			last++
		}
		n := min(len(b), linkChunk-len(k.chunks[last]))
		k.chunks[last] = append(k.chunks[last], b[:n]...)
		b = b[n:]
	}
}

// ring wakes the writer.
func (k *link) ring() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// write writes what is queued until the link ends.
func (k *link) write() {
	var batch [][]byte
	for {
		k.mu.Lock()
		batch, k.chunks = k.chunks, batch[:0]
		k.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-k.wake:
				continue
			case <-k.done:
				return
			}
		}
		for i, chunk := range batch {
			// A deadline each: a slow peer makes progress, a stuck one does not.
			err := k.conn.SetWriteDeadline(time.Now().Add(3 * k.keepalive))
			if err == nil {
				_, err = k.conn.Write(chunk)
			}
			if err != nil {
				reason := endBroken
				if errors.Is(err, os.ErrDeadlineExceeded) {
					reason = endStalled
				}
				k.end(reason)
				return
			}
			k.wrote.Add(1)
			k.sent.bytes.Add(uint64(len(chunk)))
			batch[i] = nil
			k.mu.Lock()
			k.waiting -= len(chunk)
			if len(k.free) < linkKeep {
				k.free = append(k.free, chunk[:0])
			}
			k.mu.Unlock()
		}
	}
}

// watch sends signs of life and misses the peer's, until the link ends. When ctx ends
// it lets the queue be written and says goodbye.
func (k *link) watch(ctx context.Context) {
	ticker := time.NewTicker(k.keepalive / 2)
	defer ticker.Stop()
	var wrote, reads uint64
	idle, silent := 0, 0 // ticks; a pause of this process is one
	for {
		select {
		case <-k.done:
			return
		case <-ctx.Done():
			k.leave()
			return
		case <-ticker.C:
		}
		if n := k.wrote.Load(); n != wrote {
			wrote, idle = n, 0
		} else if idle++; idle >= 2 {
			idle = 0
			k.ping()
		}
		// While a room is busy with what came there is nobody to hear the peer.
		if n := k.reading.reads.Load(); n != reads || !k.reading.waits.Load() {
			reads, silent = n, 0
		} else if silent++; silent >= 6 {
			k.end(endSilent)
		}
	}
}

// ping queues a sign of life, unless something waits anyway. A link that has been
// idle gives back its buffers but one.
func (k *link) ping() {
	k.mu.Lock()
	if k.closing || k.waiting > 0 {
		k.mu.Unlock()
		return
	}
	if len(k.free) > 1 {
		clear(k.free[1:])
		k.free = k.free[:1]
	}
	k.queue(kindControl, nil)
	k.mu.Unlock()
	k.ring()
}

// leave writes what is queued and a goodbye, and waits a second for the peer to hang
// up.
func (k *link) leave() {
	k.mu.Lock()
	if !k.closing {
		k.closing = true
		k.queue(kindControl, []byte{controlBye})
	}
	k.mu.Unlock()
	k.ring()
	timer := time.NewTimer(k.keepalive)
	defer timer.Stop()
	select {
	case <-k.done:
	case <-timer.C:
		k.end(endStopped)
	}
}

// end ends the link, for the first reason given. It never blocks.
func (k *link) end(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended != "" {
		return
	}
	if k.closing && reason == endBroken {
		reason = endStopped // the peer has heard our goodbye
	}
	k.ended = reason
	k.closing = true
	k.chunks = nil
	close(k.done)
	hangUp(k.conn)
}

// reason is why the link has ended.
func (k *link) reason() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended
}

// read reads until the link ends, and returns the reason.
func (k *link) read(l *Links) (reason string) {
	err := readFrames(watchedReader{k}, k.largest, func(kind Kind, payload []byte) error {
		if kind == kindControl {
			if len(payload) == 1 && payload[0] == controlBye {
				return errBye
			}
			return nil
		}
		k.received.messages.Add(1)
		if kind >= kinds || l.handlers[kind] == nil {
			l.unhandled.Add(1)
			return nil
		}
		// What the peer sends on a link that we have ended is not heard any more: the
		// room was perhaps told by Send already.
		select {
		case <-k.done:
			return net.ErrClosed
		default:
		}
		l.handlers[kind].Hear(k.peer, payload)
		return nil
	})
	switch {
	case errors.Is(err, errBye):
		return endPeerLeft
	case errors.Is(err, errFrame):
		return endBadFrame
	}
	return endBroken
}

// What ends reading, beside errors of the connection.
var (
	errBye   = errors.New("the peer has left")
	errFrame = errors.New("bad frame")
)

// watchedReader reads from a link's connection and tells the watch.
type watchedReader struct{ k *link }

func (r watchedReader) Read(b []byte) (int, error) {
	s := &r.k.reading
	s.waits.Store(true)
	n, err := r.k.conn.Read(b)
	s.waits.Store(false)
	s.reads.Add(1)
	r.k.received.bytes.Add(uint64(n))
	return n, err
}

// readFrames reads frames until there are no more, or hear wants none. A payload is valid
// during the call. It trusts no length: memory grows with what really comes.
func readFrames(from io.Reader, largest int, hear func(kind Kind, payload []byte) error) error {
	r := bufio.NewReaderSize(from, linkRead)
	var own []byte
	for {
		head, err := r.Peek(frameHead)
		if err != nil {
			return err
		}
		n, kind := int64(binary.BigEndian.Uint32(head)), Kind(head[4])
		if n > int64(largest) {
			return fmt.Errorf("%w: %d bytes, at most %d are allowed", errFrame, n, largest)
		}
		if _, err := r.Discard(frameHead); err != nil {
			return err
		}
		if n <= linkRead {
			payload, err := r.Peek(int(n))
			if err != nil {
				return err
			}
			if err := hear(kind, payload); err != nil {
				return err
			}
			if _, err := r.Discard(int(n)); err != nil {
				return err
			}
			continue
		}
		if own, err = readPayload(r, own[:0], int(n)); err != nil {
			return err
		}
		if err := hear(kind, own); err != nil {
			return err
		}
		if cap(own) > linkKeepRead {
			own = nil
		}
	}
}

// readPayload reads n bytes into a buffer that grows as they come.
func readPayload(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(n, max(2*cap(b), 2*linkRead)))
			copy(grown, b)
			b = grown
		}
		m, err := io.ReadFull(r, b[len(b):min(cap(b), n)])
		b = b[:len(b)+m]
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
