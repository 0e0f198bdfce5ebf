package record

import "sync"

// gateWidth is how many requests of one client whose answers may carry a record may
// be under way. The answers are as large as records, and the client's reader sees
// that it should wait for them to be taken (sub.Client.Pace) only when they have
// been given: so many may come at once. Patches
// cost the owner as much, so they are counted too, or others would wait for very
// many of them. Whole records of the version -1 pass beside the gate.
const gateWidth = 128

// gate counts the requests of one client that are under way. Its reader enters,
// the owner leaves.
type gate struct {
	mu    sync.Mutex
	space *sync.Cond // only the client's reader waits for it
	used  int        // guarded by mu
}

func newGate() *gate {
	g := &gate{}
	g.space = sync.NewCond(&g.mu)
	return g
}

// enter waits for room for n requests, at most gateWidth, and takes it. The owner
// serves everything it has been given, so the wait ends.
func (g *gate) enter(n int) {
	g.mu.Lock()
	for g.used+n > gateWidth {
		g.space.Wait()
	}
	g.used += n
	g.mu.Unlock()
}

// leave gives the room of one request back, when it has been answered.
func (g *gate) leave() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.used--
	g.mu.Unlock()
	g.space.Signal()
}
