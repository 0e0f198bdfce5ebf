package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// control is how nodes ask each other for what concerns the cluster itself: that the
// leader changes the table, that another node says how it is. Requests are few, and
// each is served on a goroutine of its own. A message is
//
//	format (1) · controlAsk | controlReply | controlFailed (1) · id (8) · payload
//
// where the id is the asking node's.
type control struct {
	bus   Bus
	serve func(ctx context.Context, peer string, request []byte) ([]byte, error)

	mu      sync.Mutex
	ctx     context.Context              // guarded by mu; nil unless Run runs
	last    uint64                       // guarded by mu
	waiting map[uint64]chan<- controlEnd // guarded by mu
	busy    map[string]int               // guarded by mu; requests of a peer that are being served
	served  sync.WaitGroup
}

type controlEnd struct {
	reply []byte
	err   error
}

const (
	controlFormat = 1

	controlAsk    = 1
	controlReply  = 2
	controlFailed = 3 // the payload is the text of the error

	controlHead = 10
	// controlAtOnce is how many requests of one peer are served at once; more are
	// refused.
	controlAtOnce = 64
	// controlTime bounds the serving of a request.
	controlTime = 10 * time.Second
)

// errNoLink means that the peer cannot be asked now.
var errNoLink = errors.New("there is no link to the node")

// errLinkEnded means that what was asked may have been done or not.
var errLinkEnded = errors.New("the link to the node ended before it answered")

// newControl returns a control whose requests are served by serve.
func newControl(bus Bus, serve func(ctx context.Context, peer string, request []byte) ([]byte, error)) *control {
	c := &control{bus: bus, serve: serve, waiting: make(map[uint64]chan<- controlEnd), busy: make(map[string]int)}
	bus.Handle(KindNode, c)
	return c
}

// Run serves until ctx ends, and returns when nothing is being served any more.
func (c *control) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.served.Wait()
	return nil
}

// ask asks a peer, and waits for its answer. The error of the peer's serve comes
// back as text.
func (c *control) ask(ctx context.Context, peer string, request []byte) ([]byte, error) {
	end := make(chan controlEnd, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = end
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if !c.bus.Send(peer, KindNode, controlMessage(controlAsk, id, request)) {
		return nil, errNoLink
	}
	// A link that ends may take the answer with it.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case e := <-end:
			return e.reply, e.err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			if !c.bus.Linked(peer) {
				return nil, errLinkEnded
			}
		}
	}
}

func controlMessage(what byte, id uint64, payload []byte) []byte {
	b := make([]byte, 0, controlHead+len(payload))
	b = append(b, controlFormat, what)
	b = binary.BigEndian.AppendUint64(b, id)
	return append(b, payload...)
}

// Up implements Handler.
func (c *control) Up(string) {}

// Down implements Handler.
func (c *control) Down(string) {}

// Published implements Handler: nothing is.
func (c *control) Published(string, uint16, []byte) {}

// Hear implements Handler. What is not understood is of a version that asks for what this
// one does not have; who asked finds out by its deadline.
func (c *control) Hear(peer string, b []byte) {
	if len(b) < controlHead || b[0] != controlFormat {
		return
	}
	what, id := b[1], binary.BigEndian.Uint64(b[2:])
	payload := append([]byte(nil), b[controlHead:]...)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch what {
	case controlReply, controlFailed:
		if end := c.waiting[id]; end != nil {
			delete(c.waiting, id)
			if what == controlFailed {
				end <- controlEnd{err: errors.New(string(payload))}
			} else {
				end <- controlEnd{reply: payload}
			}
		}
	case controlAsk:
		if c.ctx == nil || c.busy[peer] >= controlAtOnce {
			c.bus.Send(peer, KindNode, controlMessage(controlFailed, id, []byte("the node is busy or ending")))
			return
		}
		c.busy[peer]++
		ctx := c.ctx
		c.served.Go(func() {
			defer func() {
				c.mu.Lock()
				if c.busy[peer]--; c.busy[peer] == 0 {
					delete(c.busy, peer)
				}
				c.mu.Unlock()
			}()
			ctx, done := context.WithTimeout(ctx, controlTime)
			defer done()
			answer := controlMessage(controlReply, id, nil)
			reply, err := c.serve(ctx, peer, payload)
			if err != nil {
				answer = controlMessage(controlFailed, id, fmt.Append(nil, err))
			} else {
				answer = append(answer, reply...)
			}
			c.bus.Send(peer, KindNode, answer) // who asked notices when the link has ended
		})
	}
}
