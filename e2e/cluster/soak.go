//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// How much the soak does.
const (
	soakCycles  = 60
	soakClients = 2000 // in each cycle
	soakWrites  = 20   // of each client
	soakNames   = 200
	// warmUp is how many cycles nothing is said of: caches fill, pools grow.
	warmUp = 6
	// For so many cycles at the end the least is taken: JetStream holds in memory what it has
	// written of a block until it begins another, after some thirty cycles, so what a node has
	// rises by 50 MB and falls again.
	lastCycles = 30
	// A node must be back in this band above where it was when it was warm.
	goroutineBand = 50
	memoryBand    = 48 << 20
)

// reading is how a node is when nobody uses it.
type reading struct {
	goroutines float64
	rss        int64
}

// soak lets clients come and go.
func soak(ctx context.Context, s *settings) (summary string, err error) {
	err = withRig(ctx, s, s.node, "nodes", "", func(r *rig) error {
		warm := make([]reading, len(r.nodes))
		last := make([]reading, len(r.nodes)) // the least of the last cycles
		for cycle := range soakCycles {
			began := time.Now()
			if err := soakCycle(ctx, r, cycle); err != nil {
				return err
			}
			took := time.Since(began)
			var parts []string
			for i, n := range r.nodes {
				now, err := idle(ctx, n)
				if err != nil {
					return err
				}
				switch {
				case cycle < warmUp:
					warm[i].goroutines = max(warm[i].goroutines, now.goroutines)
					warm[i].rss = max(warm[i].rss, now.rss)
				case cycle <= soakCycles-lastCycles: // the least from here on
					last[i] = now
				default:
					last[i].goroutines = min(last[i].goroutines, now.goroutines)
					last[i].rss = min(last[i].rss, now.rss)
				}
				parts = append(parts, fmt.Sprintf("%s %.0f goroutines, %d MB", n.name, now.goroutines, now.rss>>20))
			}
			say("cycle %d of %d, %v: %s", cycle+1, soakCycles, took.Round(time.Millisecond), strings.Join(parts, "; "))
		}
		var wrong []string
		for i, n := range r.nodes {
			if last[i].goroutines > warm[i].goroutines+goroutineBand {
				wrong = append(wrong, fmt.Sprintf("node %s has %.0f goroutines, and had %.0f when it was warm", n.name, last[i].goroutines, warm[i].goroutines))
			}
			if last[i].rss > warm[i].rss+memoryBand {
				wrong = append(wrong, fmt.Sprintf("node %s has %d MB, and had %d when it was warm", n.name, last[i].rss>>20, warm[i].rss>>20))
			}
		}
		if len(wrong) > 0 {
			return violation(strings.Join(wrong, "; "))
		}
		summary = fmt.Sprintf("%d clients came, subscribed, wrote %d times each and went: every node is within %d goroutines and %d MB of where it was when warm",
			soakCycles*soakClients, soakWrites, goroutineBand, memoryBand>>20)
		return nil
	})
	return summary, err
}

// idle waits until a node has no clients and as many goroutines as a moment ago, and
// reads it.
func idle(ctx context.Context, n *node) (now reading, err error) {
	give := time.Now().Add(patience)
	for before := -1.0; ; {
		m, err := n.metrics(ctx)
		if err != nil {
			return now, fmt.Errorf("node %s: %w", n.name, err)
		}
		now = reading{m["go_goroutines"], target.RSS(n.pid())}
		if m["hadal_connections"] == 0 && now.goroutines == before {
			return now, nil
		}
		if time.Now().After(give) {
			return now, nil // its readings tell
		}
		before = now.goroutines
		if err := target.Pause(ctx, 500*time.Millisecond); err != nil {
			return now, err
		}
	}
}

// soakCycle has clients come, use the cluster and go, some without a word.
func soakCycle(ctx context.Context, r *rig, cycle int) error {
	const atOnce = 100
	var wg sync.WaitGroup
	errs := make([]error, atOnce)
	for lane := range atOnce {
		wg.Go(func() {
			for i := lane; i < soakClients && errs[lane] == nil; i += atOnce {
				errs[lane] = soakClient(ctx, r.nodes[i%len(r.nodes)], cycle*soakClients+i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func soakClient(ctx context.Context, n *node, number int) (err error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	s, err := dial(ctx, n, fmt.Sprintf("s%d", number))
	if err != nil {
		return err
	}
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("soak/%d", (number*7+i*31)%soakNames))
	}
	s.conn.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndRead, Names: names, CorrelationID: "1", Has: protocol.HasCorrelationID})
	// These are of this client alone: what a node keeps of names that are gone adds up.
	own := []string{fmt.Sprintf("own/%d/a", number), fmt.Sprintf("own/%d/b", number)}
	s.conn.Queue(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: append(own, names...), CorrelationID: "2", Has: protocol.HasCorrelationID})
	s.conn.Queue(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: own, CorrelationID: "3", Has: protocol.HasCorrelationID})
	s.conn.Queue(&protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: own, CorrelationID: "4", Has: protocol.HasCorrelationID})
	for i := range soakWrites {
		q := question{kind: write, name: fmt.Sprintf("soak/%d", (number+i*13)%soakNames), version: anyVersion, value: fmt.Sprint(number)}
		m := q.message()
		s.conn.Queue(&m)
		s.conn.Queue(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: names[i%len(names)], Data: `"x"`, Has: protocol.HasName | protocol.HasData})
	}
	err = s.conn.Flush()
	for answered := 0; err == nil && answered < soakWrites; answered++ {
		_, err = s.conn.Until(protocol.RecordWriteAcknowledgement)
	}
	switch {
	case err != nil:
		s.close()
		return fmt.Errorf("client %d at node %s: %w", number, n.name, err)
	case number%3 == 0:
		return s.conn.Reset()
	case number%3 == 1:
		return s.conn.Close()
	default:
		return s.conn.Leave()
	}
}
