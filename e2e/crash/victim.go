//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/record"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store"
	"hadal/store/jetstream"
)

// How a victim keeps its records: so that a checkpoint is nearly always under way,
// and hardly a record is in memory when it is asked for.
const (
	checkpointAge = 100 * time.Millisecond
	cacheBytes    = 64 << 10
	maxRecord     = 1 << 20
	messageRoom   = 16 << 10
)

// runVictim is the process that is killed: it opens the data directory, tells what
// is there, and writes until its end.
func runVictim(args []string) error {
	flags := flag.NewFlagSet("victim", flag.ContinueOnError)
	dir := flags.String("dir", "", "data directory")
	seed := flags.Uint64("seed", 1, "of the writes")
	checkOnly := flags.Bool("check", false, "tell what is there, and end")
	second := flags.Bool("second", false, "let a second owner take over")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	v := &victim{
		pipe: pipe{os.NewFile(3, "events")}, seed: *seed,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	d, err := cluster.OpenDir(*dir)
	if err != nil {
		return err
	}
	server, err := cluster.Start(ctx, cluster.Options{Dir: d, SyncAlways: true, MaxMessage: maxRecord + messageRoom, Log: v.log})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	v.dir, v.server = d.Path(), server
	err = v.live(ctx, d.Epoch(), *checkOnly, *second)
	stop()
	err = errors.Join(err, v.end())
	server.Close()
	return errors.Join(err, d.Close())
}

// victim is one life of the records, with one owner or two.
type victim struct {
	pipe   pipe
	seed   uint64
	log    *slog.Logger
	dir    string
	server *cluster.Server

	running sync.WaitGroup
	stores  []store.Store   // in the order of opening
	known   [allNames]known // what the writers believe
}

// live returns when it may end, which without checkOnly is never.
func (v *victim) live(ctx context.Context, epoch uint64, checkOnly, second bool) error {
	first, err := v.own(ctx, epoch)
	if err != nil {
		return err
	}
	if err := v.check(ctx, first, 0); err != nil || checkOnly {
		return err
	}
	v.watch(ctx, first)
	v.pipe.tell(event{kind: loadBegins})
	v.load(ctx, first, 0)
	if second {
		<-time.After(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		if err := v.takeOver(ctx, first, epoch+1); err != nil {
			return err
		}
	}
	v.running.Wait()
	return nil
}

// own opens the store and takes it over. Each owner keeps marks of its own, as if it
// were on a node of its own.
func (v *victim) own(ctx context.Context, epoch uint64) (*record.Room, error) {
	mark := filepath.Join(v.dir, fmt.Sprintf("mark-%d-", len(v.stores)))
	state, err := v.server.Dial("state") // the server's end closes it
	if err != nil {
		return nil, err
	}
	st, err := jetstream.OpenLogged(ctx, v.server.Conn(), jetstream.LogOptions{
		Options: jetstream.Options{MaxRecord: maxRecord, Mark: mark + "state", Log: v.log},
		LogMark: mark + "log", StateConn: state, CheckpointAge: checkpointAge,
	})
	if err != nil {
		return nil, err
	}
	v.stores = append(v.stores, st)
	keep := record.DefaultKeepConfig()
	keep.CacheBytes = cacheBytes
	subs := sub.NewRegistry()
	table := claim{cluster.NewSoloInMemory("victim"), epoch}
	r := record.New(record.DefaultConfig(), keep, record.Deps{
		Table: table, Bus: cluster.Alone{}, Open: func(context.Context, int) (store.Store, error) { return kept{st}, nil },
		Subs: subs, Listen: listen.New(protocol.TopicRecord, listen.DefaultConfig(), subs, table, cluster.Alone{}, v.log),
		Rules: allowAll{}, Log: v.log, Observe: func(time.Duration) {},
	})
	taken, fail := context.WithCancelCause(ctx)
	v.running.Go(func() {
		if err := r.Run(ctx); err != nil {
			fail(err)
		}
	})
	if err := r.Flush(taken); err != nil {
		if cause := context.Cause(taken); cause != nil {
			err = cause
		}
		return nil, err
	}
	return r, nil
}

// claim is the table of an owner who has not heard of another.
type claim struct {
	*cluster.Solo
	epoch uint64
}

// Owner implements cluster.Table.
func (c claim) Owner(partition int) cluster.Ownership {
	o := c.Solo.Owner(partition)
	o.Epoch = c.epoch
	return o
}

// kept is a store that end closes.
type kept struct{ store.Store }

// Close does nothing.
func (kept) Close() error { return nil }

// end waits for the owners and closes their stores.
func (v *victim) end() error {
	v.running.Wait()
	var errs []error
	for _, st := range v.stores {
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

// check tells all there is, in the name of a writer: in a scan, and by reading each
// record.
func (v *victim) check(ctx context.Context, r *record.Room, who uint8) error {
	v.pipe.tell(event{kind: scanBegins, who: who})
	err := r.Scan(ctx, "", func(rec store.Record) error {
		n, ok := numberOf(rec.Name)
		if !ok {
			return fmt.Errorf("there is a record %q, which nobody wrote", rec.Name)
		}
		v.pipe.tell(event{kind: found, who: who, name: n, version: rec.Version, hash: hashOf(rec.Data)})
		return nil
	})
	if err != nil {
		return err
	}
	v.pipe.tell(event{kind: scanEnds, who: who})
	for n := range uint16(allNames) {
		rec, err := r.Get(ctx, nameOf(n))
		switch {
		case errors.Is(err, record.ErrNotFound):
			v.known[n].set(0)
			v.pipe.tell(event{kind: missing, who: who, name: n})
		case err != nil:
			return err
		default:
			v.known[n].set(rec.Version)
			v.pipe.tell(event{kind: read, who: who, name: n, version: rec.Version, hash: hashOf(rec.Data)})
		}
	}
	return nil
}

// takeOver makes a second owner of the records while the writers of the first go
// on.
func (v *victim) takeOver(ctx context.Context, first *record.Room, epoch uint64) error {
	second, err := v.own(ctx, epoch)
	if err != nil {
		return err
	}
	// What the first one had durable before the fence is told before.
	if err := first.Flush(ctx); err != nil {
		return err
	}
	v.pipe.tell(event{kind: takeover})
	if err := v.check(ctx, second, secondOwner); err != nil {
		return err
	}
	v.pipe.tell(event{kind: loadBegins})
	v.load(ctx, second, secondOwner)
	return nil
}

// allowAll are rules that allow everything.
type allowAll struct{}

func (allowAll) Judge(*auth.User, protocol.Action, string, string, string, bool, func(string) (string, bool, bool)) (protocol.Action, []string) {
	return protocol.ActionUnknown, nil
}

func (allowAll) ReadsRecord(protocol.Action, string) bool { return false }
