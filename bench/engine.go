package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// View is told what a run does while it does it. Its methods are called by one goroutine.
type View interface {
	// Begin says which measurement of how many begins.
	Begin(sc *Scenario, target string, round, number, of int)
	// Phase says what it does now, and for how long if that is known.
	Phase(name string, d time.Duration)
	// Sample is the newest reading of the measured time.
	Sample(s Sample)
	// Done is the end of a measurement.
	Done(r *Run)
}

// every is how often a run is sampled.
const every = 200 * time.Millisecond

// Measure runs the scenarios. The result has whatever was measured, also with an error, which
// says that the run was ended, not that a scenario failed: that stands in its Run.
func Measure(ctx context.Context, s Settings, program Program, view View) (*Result, error) {
	began := time.Now()
	res := &Result{Format: Format, When: began.UTC().Round(time.Second), Program: program, Machine: thisMachine(), Settings: s.shown()}
	subjects, chosen := s.subjects(), choose(s.Scenarios)
	of := len(subjects) * len(chosen) * s.Rounds
	number := 0
	for _, sc := range chosen {
		for round := range s.Rounds {
			for _, subject := range subjects {
				number++
				if ctx.Err() != nil {
					return res, context.Cause(ctx)
				}
				view.Begin(sc, subject.name(), round, number, of)
				run := Run{Scenario: sc.Name, Target: subject.name(), Round: round, Unit: sc.Unit}
				if why := subject.fits(sc); why != "" {
					run.Notes = append(run.Notes, "left out: "+why)
					run.Skipped = true
				} else if err := res.one(ctx, s, sc, subject, view, &run); err != nil {
					run.Error = err.Error()
				}
				view.Done(&run)
				res.Runs = append(res.Runs, run)
				res.Took = time.Since(began).Seconds()
			}
		}
	}
	return res, ctx.Err()
}

// one measures one scenario on one subject.
func (res *Result) one(ctx context.Context, s Settings, sc *Scenario, subject subject, view View, run *Run) (err error) {
	view.Phase("start", 0)
	srv, err := subject.start(ctx, sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	res.met(srv.facts)
	if !srv.known() {
		run.Notes = append(run.Notes, "the server's processes are not known: no CPU, no memory")
	}
	_, run.MemoryIdle = srv.usage()
	l := newLoad(s, sc, srv)
	run.Clients, run.Window, run.Rate = l.clients, l.window, l.rate
	l.goes(l.beat)
	err = l.measure(ctx, sc.new(), view, run)
	err = errors.Join(err, l.end())
	run.Facts, run.Ledger = l.facts, l.ledger()
	run.judge()
	if err == nil && run.Messages == 0 {
		err = errStill
	}
	return srv.blame(err)
}

// met notes what a target is.
func (res *Result) met(f TargetFacts) {
	for i := range res.Targets {
		if res.Targets[i].Name == f.Name {
			return
		}
	}
	res.Targets = append(res.Targets, f)
}

// measure runs a driver and reads the meter around it.
func (l *load) measure(ctx context.Context, d driver, view View, run *Run) error {
	view.Phase("connect", 0)
	if err := l.unlessFailed(d.setup(ctx, l)); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	run.Load = loadAverage()
	driving, stop := context.WithCancel(ctx)
	defer stop()
	driven := make(chan error, 1)
	_, ends := d.(finite)
	if ends {
		l.meter.begin()
	}
	go func() { driven <- d.drive(driving, l) }()
	ended, err := l.watch(ctx, ends, view, driven, run)
	stop()
	if !ended {
		view.Phase("drain", 0)
		err = errors.Join(err, <-driven)
	}
	if err == nil {
		err = l.drain(ctx)
	}
	if err == nil {
		view.Phase("check", 0)
		err = d.check(ctx, l)
	}
	return l.unlessFailed(err)
}

// watch waits for the end of the measured time and samples it. It says whether the driver
// has ended.
func (l *load) watch(ctx context.Context, ends bool, view View, driven <-chan error, run *Run) (ended bool, err error) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	var over <-chan time.Time
	warm := make(<-chan time.Time)
	measuring := ends
	if ends {
		view.Phase("measure", 0)
	} else {
		view.Phase("warm up", l.WarmUp)
		warm = time.After(l.WarmUp)
	}
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case err := <-l.failed:
			return false, err
		case err := <-driven:
			if err == nil && !ends {
				err = errors.New("the load ended before its time")
			}
			l.meter.finish(run)
			return true, err
		case <-warm:
			view.Phase("measure", l.Time)
			l.meter.begin()
			l.sentBefore = l.dueSent.Load()
			measuring, over = true, time.After(l.Time)
		case <-over:
			l.meter.finish(run)
			if l.rate > 0 {
				// One more: of a few messages a second one is always between two readings.
				sent := float64(l.dueSent.Load() - l.sentBefore + 1)
				run.Kept = min(sent/(l.rate*run.Seconds), 1)
			}
			return false, nil
		case <-ticks.C:
			if measuring {
				view.Sample(l.meter.sample())
			}
		}
	}
}

// unlessFailed is the error of a goroutine of the load, if there is one, or err.
func (l *load) unlessFailed(err error) error {
	select {
	case failed := <-l.failed:
		return failed
	default:
		return err
	}
}

// What a run must say of itself.
const (
	keptEnough = 0.99
	lateMicros = 1000.0
)

// judge adds notes on what a reader might miss.
func (r *Run) judge() {
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if r.Rate > 0 && r.Kept < keptEnough && r.Seconds > 0 {
		note("could not keep the rate: %.0f %% of %g a second were sent", 100*r.Kept, r.Rate)
	}
	if r.LagP99 > lateMicros {
		note("the generator was late itself: %.1f ms at its 99th percentile, which the latencies contain", r.LagP99/1000)
	}
	if g := r.Ledger; !g.Clean() {
		note("%d lost, %d twice, %d out of order, of %d", g.Lost, g.Duplicated, g.OutOfOrder, g.Due)
	}
}
