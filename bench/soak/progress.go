package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progressEvery is how often a line is printed.
const progressEvery = 10 * time.Second

// progress tells on a line every few seconds how far a phase is.
type progress struct {
	name  string
	out   io.Writer
	total atomic.Int64
	done  atomic.Int64
	began time.Time
	stop  chan struct{}
	ended chan struct{}
}

func newProgress(name string, out io.Writer) *progress {
	p := &progress{name: name, out: out, began: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		every := time.NewTicker(progressEvery)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				p.print()
			case <-p.stop:
				p.print()
				return
			}
		}
	}()
	return p
}

func (p *progress) print() {
	took := time.Since(p.began)
	done := p.done.Load()
	fmt.Fprintf(p.out, "%s: %d of %d in %v, %.0f a second\n", p.name, done, p.total.Load(), took.Round(time.Second/10), float64(done)/took.Seconds())
}

func (p *progress) end() {
	close(p.stop)
	<-p.ended
}
