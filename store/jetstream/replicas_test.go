//go:build !race

// Three servers in one process are too slow under the race detector to keep the times
// that elections go by: these run without it, by make test-replicas.

package jetstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/cluster/freeport"
	"hadal/store"
	"hadal/store/storetest"
)

// The election timers that room cluster sets, see cluster/timers.go.

//go:linkname natsMinElection github.com/nats-io/nats-server/v2/server.minElectionTimeout
var natsMinElection time.Duration

//go:linkname natsMaxElection github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var natsMaxElection time.Duration

//go:linkname natsHeartbeat github.com/nats-io/nats-server/v2/server.hbInterval
var natsHeartbeat time.Duration

//go:linkname natsLostQuorum github.com/nats-io/nats-server/v2/server.lostQuorumInterval
var natsLostQuorum time.Duration

//go:linkname natsLostQuorumCheck github.com/nats-io/nats-server/v2/server.lostQuorumCheck
var natsLostQuorumCheck time.Duration

// They are longer here: the race detector on a busy machine holds up heartbeats, and an
// append whose leader is deposed for that fails a test which knows no retries.
func init() {
	natsMinElection, natsMaxElection, natsHeartbeat = 1500*time.Millisecond, 3*time.Second, 100*time.Millisecond
	natsLostQuorum, natsLostQuorumCheck = 2*time.Second, time.Second
}

// network cuts servers on the loopback interface off from each other, as in room
// cluster: connections end, nobody says good-bye, and new ones fail.
type network struct {
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	pool  *x509.CertPool

	mu    sync.Mutex
	conns map[net.Conn][2]string // guarded by mu; routes, and the servers at their ends
	cut   map[string]bool        // guarded by mu; servers that are cut off
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{pool: x509.NewCertPool(), conns: make(map[net.Conn][2]string), cut: make(map[string]bool)}
	var err error
	if n.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &n.caKey.PublicKey, n.caKey)
	if err != nil {
		t.Fatal(err)
	}
	if n.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	n.pool.AddCert(n.ca)
	return n
}

func (n *network) node(t testing.TB, name string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: n.ca.NotBefore, NotAfter: n.ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, n.ca, &key.PublicKey, n.caKey)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      n.pool, ClientCAs: n.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	accepts := conf.Clone()
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := accepts.Clone()
		c.VerifyConnection = func(state tls.ConnectionState) error {
			peer := state.PeerCertificates[0].Subject.CommonName
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.cut[name] || n.cut[peer] {
				return errors.New("the cable is out")
			}
			n.conns[hello.Conn] = [2]string{name, peer}
			return nil
		}
		return c, nil
	}
	return conf
}

func (n *network) unplug(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[name] = true
	for conn, ends := range n.conns {
		if ends[0] == name || ends[1] == name {
			conn.Close()
			delete(n.conns, conn)
		}
	}
}

func (n *network) plug(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, name)
}

// group is some servers of one cluster.
type group struct {
	net   *network
	addrs []string
	dirs  []string
	srvs  []*server.Server
	conns []*nats.Conn // one to each
	parts atomic.Int32 // partitions given away
}

func newGroup(t testing.TB, n int) *group {
	t.Helper()
	addrs, release, err := freeport.Claim(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	g := &group{net: newNetwork(t), addrs: addrs, srvs: make([]*server.Server, n), conns: make([]*nats.Conn, n)}
	for range n {
		g.dirs = append(g.dirs, t.TempDir())
	}
	t.Cleanup(g.stop)
	g.start(t)
	return g
}

// member is the name of a server.
func member(i int) string { return fmt.Sprint("m", i) }

// start starts all servers and waits until they are a meta group.
func (g *group) start(t testing.TB) {
	t.Helper()
	for i := range g.srvs {
		addr, err := net.ResolveTCPAddr("tcp", g.addrs[i])
		if err != nil {
			t.Fatal(err)
		}
		opts := &server.Options{
			ServerName: member(i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: g.dirs[i], SyncAlways: true,
			MaxPayload: 4 << 20, MaxPending: 512 << 20, NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{
				Name: "test", Host: "127.0.0.1", Port: addr.Port, TLSConfig: g.net.node(t, member(i)), TLSTimeout: 10,
				PingInterval: time.Second, MaxPingsOut: 2, PoolSize: 1,
			},
		}
		for _, a := range g.addrs {
			opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: a})
		}
		srv, err := server.NewServer(opts)
		if err != nil {
			t.Fatalf("NewServer: %v", err)
		}
		srv.SetLoggerV2(quiet{t}, false, false, false)
		srv.Start()
		g.srvs[i] = srv
	}
	for i, srv := range g.srvs {
		if !srv.ReadyForConnections(time.Minute) {
			t.Fatal("a server did not start")
		}
		nc, err := nats.Connect("", nats.InProcessServer(srv), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatalf("Connect: %v", err)
		}
		g.conns[i] = nc
	}
	until(t, "there is a meta group", func() error {
		for i, srv := range g.srvs {
			info, err := srv.Jsz(nil)
			if err != nil {
				return err
			}
			if info.Meta == nil || info.Meta.Leader == "" || info.Meta.Size != len(g.srvs) || srv.Healthz(nil).Error != "" {
				return fmt.Errorf("%s: %+v, %s", member(i), info.Meta, srv.Healthz(nil).Error)
			}
		}
		return nil
	})
}

func (g *group) stop() {
	for i, srv := range g.srvs {
		if g.conns[i] != nil {
			g.conns[i].Close()
		}
		if srv != nil {
			srv.Shutdown()
		}
	}
	for _, srv := range g.srvs {
		if srv != nil {
			srv.WaitForShutdown()
		}
	}
}

// quiet keeps the server's lines, which tell of elections and lost routes.
type quiet struct{ t testing.TB }

func (quiet) Noticef(string, ...any) {}
func (quiet) Debugf(string, ...any)  {}
func (quiet) Tracef(string, ...any)  {}
func (l quiet) Warnf(format string, v ...any) {
	fmt.Fprintf(l.t.Output(), "server: "+format+"\n", v...)
}
func (l quiet) Errorf(format string, v ...any) {
	fmt.Fprintf(l.t.Output(), "server: "+format+"\n", v...)
}
func (l quiet) Fatalf(format string, v ...any) { l.t.Errorf("server: "+format, v...) }

// logged opens a partition's store through a server.
func (g *group) logged(t testing.TB, via int, opts LogOptions) *Logged {
	t.Helper()
	if opts.Replicas == 0 {
		opts.Replicas = 3
	}
	if opts.CheckpointAge == 0 {
		opts.CheckpointAge = time.Hour
	}
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := OpenLogged(context.Background(), g.conns[via], opts)
	if err != nil {
		t.Fatalf("OpenLogged: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

// drop deletes a partition's streams when the test ends, so that they do not slow down
// others.
func (g *group) drop(t testing.TB, partition int) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		js, err := jetstream.New(g.conns[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{Name(partition), LogName(partition)} {
			if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Errorf("DeleteStream: %v", err)
			}
		}
	})
}

// Not beside other tests, as are those below that know no retries: on a machine that is
// busy enough leaders change.
func TestReplicatedStreamsKeepTheContract(t *testing.T) {
	g := newGroup(t, 3)
	storetest.Run(t, func(t *testing.T) store.Store {
		p := int(g.parts.Add(1))
		g.drop(t, p)
		return g.logged(t, p%3, LogOptions{Options: Options{Partition: p}, CheckpointAge: 100 * time.Millisecond, Leader: member(p % 3)})
	})
}

// sharedGroup opens a partition through one server after the other.
type sharedGroup struct {
	*group
	partition int
	opened    int
	open      []*Logged
}

func (g *sharedGroup) Open(t *testing.T) store.Store {
	g.opened++
	l, err := OpenLogged(context.Background(), g.conns[g.opened%3], LogOptions{
		Options: Options{Partition: g.partition, Replicas: 3, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, CheckpointAge: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatalf("OpenLogged: %v", err)
	}
	g.open = append(g.open, l)
	return l
}

func (g *sharedGroup) Restart(t *testing.T) {
	g.close(t)
	g.stop()
	g.start(t)
}

func (g *sharedGroup) close(t *testing.T) {
	for _, l := range g.open {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	g.open = nil
}

func TestReplicatedStreamsAreHandedFromOwnerToOwner(t *testing.T) {
	servers := newGroup(t, 3)
	storetest.RunShared(t, func(t *testing.T) storetest.Shared {
		g := &sharedGroup{group: servers, partition: int(servers.parts.Add(1))}
		servers.drop(t, g.partition)
		t.Cleanup(func() { g.close(t) })
		return g
	})
}

// owner appends versions of its own record until the log is somebody else's, fencing
// anew after every failure, as the record room does.
type owner struct {
	l     *Logged
	epoch uint64
	name  string
	acked []int32 // versions
	tried int32
	ended error
	gap   time.Duration // the longest time from one acknowledgement to the next
}

func (o *owner) run(ctx context.Context) {
	last := time.Now()
	for ctx.Err() == nil {
		o.tried++
		err := o.l.Append(ctx, []store.Op{storetest.Put(o.name, o.tried, `{}`), storetest.Put("shared", o.tried, fmt.Sprintf(`{"epoch":%d}`, o.epoch))})
		if err == nil {
			o.acked = append(o.acked, o.tried)
			o.gap = max(o.gap, time.Since(last))
			last = time.Now()
			continue
		}
		if errors.Is(err, store.ErrRefused) {
			o.ended = err // never: it would be taken for "nothing was written"
			return
		}
		// As the record room does: as long as it takes, unless the log is somebody else's.
		for err = o.l.Fence(ctx, o.epoch); err != nil; err = o.l.Fence(ctx, o.epoch) {
			if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrCorrupt) || ctx.Err() != nil {
				o.ended = err
				return
			}
		}
	}
}

// Owners that overlap, each never told to stop, while the leader of the LOG is cut off
// again and again: what was acknowledged is there, nothing that was not tried is, and each
// owner ends with ErrFenced.
func TestOverlappingOwnersLoseNothingWhileLeadersDie(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	watch := g.logged(t, 0, LogOptions{CheckpointAge: 50 * time.Millisecond})
	if err := watch.Fence(ctx, 1); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	var owners []*owner
	var running sync.WaitGroup
	const rounds = 6
	for round := range rounds {
		// Through a server that stays; the others of the pair are cut off in turn.
		via := round % 3
		dead := leaderOf(t, watch, 0)
		if dead == via {
			via = (via + 1) % 3
		}
		o := &owner{l: g.logged(t, via, LogOptions{CheckpointAge: 50 * time.Millisecond, Leader: member(via)}), epoch: uint64(round + 2), name: fmt.Sprint("own ", round)}
		owners = append(owners, o)
		g.net.unplug(member(dead))
		begun := time.Now()
		until(t, "the next owner takes over", func() error { return o.l.Fence(ctx, o.epoch) })
		t.Logf("round %d: taken over %v after the leader was cut off", round, time.Since(begun).Round(time.Millisecond))
		running.Go(func() { o.run(ctx) })
		until(t, "it appends", func() error {
			st := o.l.Stats(ctx)
			if st.Appends < 20 {
				return fmt.Errorf("%+v", st)
			}
			return nil
		})
		g.net.plug(member(dead))
		until(t, "all are well", func() error {
			for i, srv := range g.srvs {
				if h := srv.Healthz(nil); h.Error != "" {
					return fmt.Errorf("%s: %s", member(i), h.Error)
				}
			}
			return nil
		})
	}
	last := g.logged(t, 0, LogOptions{})
	until(t, "the last owner takes over", func() error { return last.Fence(ctx, rounds+2) })
	until(t, "every other owner ends", func() error {
		done := make(chan struct{})
		go func() { running.Wait(); close(done) }()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for i, o := range owners {
		if !errors.Is(o.ended, store.ErrFenced) {
			t.Errorf("owner %d ended with %v, want ErrFenced", i, o.ended)
		}
		got, err := last.Load(ctx, o.name)
		if err != nil {
			t.Errorf("Load %s: %v", o.name, err)
			continue
		}
		// The last version is the last acknowledged one, or one whose outcome was unknown.
		if want := o.acked[len(o.acked)-1]; got.Version < want || got.Version > o.tried {
			t.Errorf("%s is at version %d, acknowledged was %d, tried %d", o.name, got.Version, want, o.tried)
		}
		t.Logf("owner %d: %d acknowledged of %d tried, longest gap %v", i, len(o.acked), o.tried, o.gap.Round(time.Millisecond))
	}
	if r, err := last.Load(ctx, "shared"); err != nil || r.Data != fmt.Sprintf(`{"epoch":%d}`, rounds+1) {
		t.Errorf("the shared record is %v, %v, want the last owner's", r, err)
	}
	if r, err := last.Load(ctx, "nobody's"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load of what never was = %v, %v", r, err)
	}
}

// leaderOf is the member that leads one of the streams: 0 the LOG, 1 STATE.
func leaderOf(t testing.TB, l *Logged, which int) (leader int) {
	t.Helper()
	until(t, "the stream has a leader", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		all, err := l.Streams(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Sscanf(all[which].Leader, "m%d", &leader)
		return err
	})
	return leader
}

// A server that catches up needs a leader that stays, also while the store is fenced again
// and again, as it is whenever a leader goes.
func TestTheOwnersServerDoesNotLeadWhileItCatchesUp(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	var caughtUp atomic.Bool
	var looks atomic.Int64
	first := g.logged(t, 0, LogOptions{})
	leader := leaderOf(t, first, 0)
	l := g.logged(t, 0, LogOptions{Leader: member((leader + 1) % 3), Current: func(string) bool {
		looks.Add(1)
		return caughtUp.Load()
	}})
	for epoch := range uint64(20) {
		if err := l.Fence(t.Context(), epoch+1); err != nil {
			t.Fatalf("Fence: %v", err)
		}
		if got := leaderOf(t, l, 0); got != leader {
			t.Fatalf("member %d was made the leader while it catches up", got)
		}
	}
	until(t, "the store looks", func() error {
		if looks.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	caughtUp.Store(true)
	until(t, "it leads when it has caught up", func() error {
		if got := leaderOf(t, l, 0); got == leader {
			return fmt.Errorf("member %d leads", got)
		}
		return nil
	})
}

func TestTheOwnersServerLeadsBothStreams(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	l := g.logged(t, 0, LogOptions{Leader: member(2)})
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	for which := range 2 {
		until(t, "the server named in the options leads", func() error {
			if got := leaderOf(t, l, which); got != 2 {
				return fmt.Errorf("member %d leads stream %d", got, which)
			}
			return nil
		})
	}
	if err := l.Lead(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "keeps no replica") {
		t.Errorf("Lead of a server that is not there = %v", err)
	}
	other := g.logged(t, 1, LogOptions{})
	for i := range 3 {
		until(t, "the leader that was asked for", func() error {
			if err := other.Lead(t.Context(), member(i)); err != nil {
				return err
			}
			for which := range 2 { // l may have had its own server lead again by then
				if got := leaderOf(t, l, which); got != i {
					return fmt.Errorf("member %d leads stream %d, want %d", got, which, i)
				}
			}
			return nil
		})
		if err := l.Append(t.Context(), []store.Op{storetest.Put("a", int32(i), `{}`)}); err != nil {
			t.Errorf("Append after a change of leaders: %v", err)
		}
	}
	until(t, "both have three current replicas", func() error {
		all, err := Status(t.Context(), g.conns[0], 0)
		if err != nil {
			return err
		}
		for _, st := range all {
			if !st.Whole() || st.Wanted != 3 || len(st.Replicas) != 3 {
				return fmt.Errorf("%s is %+v", st.Stream, st)
			}
		}
		return nil
	})
}

func TestReplicasChangeWhileTheStoreIsUsed(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 5)
	l := g.logged(t, 0, LogOptions{CheckpointAge: 20 * time.Millisecond})
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	o := &owner{l: l, epoch: 1, name: "a"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { o.run(ctx) })
	for _, n := range []int{5, 3, 5} {
		begun := time.Now()
		sctx, scancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err := l.SetReplicas(sctx, n)
		scancel()
		if err != nil {
			t.Fatalf("SetReplicas(%d): %v", n, err)
		}
		t.Logf("%d replicas after %v", n, time.Since(begun).Round(time.Millisecond))
		// Who opens it with another number in mind does not change it.
		g.logged(t, 1, LogOptions{})
		for which := range 2 {
			all, err := l.Streams(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := all[which]; got.Wanted != n || len(got.Replicas) != n {
				t.Errorf("%s has %d replicas, want %d", got.Stream, len(got.Replicas), n)
			}
		}
	}
	cancel()
	running.Wait()
	if !errors.Is(o.ended, context.Canceled) && o.ended != nil {
		t.Errorf("the owner ended with %v", o.ended)
	}
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Load(t.Context(), "a"); err != nil || r.Version < o.acked[len(o.acked)-1] {
		t.Errorf("Load = %v, %v, acknowledged was %d", r, err, o.acked[len(o.acked)-1])
	}
	t.Logf("%d appends, longest gap %v", len(o.acked), o.gap.Round(time.Millisecond))
}

func TestAHoleInAReplicatedLogIsCorruption(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	for _, allow := range []bool{false, true} {
		p := int(g.parts.Add(1))
		l := g.logged(t, 0, LogOptions{Options: Options{Partition: p}, AllowHoles: allow})
		if err := l.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		logAppend(t, l, storetest.Put("a", 1, `1`))
		hole := l.base + 1
		logAppend(t, l, storetest.Put("b", 1, `1`))
		stream, err := l.js.Stream(t.Context(), l.stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.DeleteMsg(t.Context(), hole); err != nil {
			t.Fatal(err)
		}
		err = l.Fence(t.Context(), 2)
		if allow && err != nil || !allow && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("holes allowed %v: Fence = %v", allow, err)
		}
	}
}

func TestAMarkIsForTheStreamThatItWasWrittenFor(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	dir := t.TempDir()
	opts := LogOptions{Options: Options{Mark: filepath.Join(dir, "mark")}, LogMark: filepath.Join(dir, "mark-log")}
	l := g.logged(t, 0, opts)
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for i := range int32(5) {
		logAppend(t, l, storetest.Put("a", i, `1`))
	}
	if got, err := l.acknowledged(); err != nil || got != l.base {
		t.Errorf("the mark says %d, %v, want %d", got, err, l.base)
	}
	l = g.logged(t, 0, opts)
	if got, err := l.acknowledged(); err != nil || got == 0 {
		t.Errorf("the mark says %d, %v to the next one", got, err)
	}
	for _, name := range []string{LogName(0), Name(0)} {
		if err := l.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	l = g.logged(t, 0, opts)
	if got, err := l.acknowledged(); err != nil || got != 0 {
		t.Errorf("the mark says %d, %v about a stream that was made anew", got, err)
	}
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Errorf("Fence: %v", err)
	}
	// One that says too much about this stream is believed, but not at once.
	if err := l.mark.write(1000); err != nil {
		t.Fatal(err)
	}
	if err := l.Fence(t.Context(), 2); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Fence with a mark behind the stream's end = %v, want ErrCorrupt", err)
	}
}

func TestAStreamThatIsAsItShallBeIsNotChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	l, err := OpenLogged(t.Context(), r.nc, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	changed := make(chan string, 10)
	if _, err := r.nc.Subscribe("$JS.API.STREAM.UPDATE.*", func(m *nats.Msg) { changed <- m.Subject }); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range []int64{0, 1 << 20} {
		again, err := OpenLogged(t.Context(), r.nc, LogOptions{LogBytes: bytes})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-changed:
		if got != "$JS.API.STREAM.UPDATE."+LogName(0) || len(changed) > 0 {
			t.Errorf("%s was changed, and %d more; want the LOG once", got, len(changed))
		}
	case <-time.After(time.Minute):
		t.Error("the LOG's size was not changed")
	}
}

// A minority can neither fence nor append, and says so in bounded time with an error that
// means "unknown".
func TestAMinorityFailsInBoundedTime(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	l := g.logged(t, 0, LogOptions{Leader: member(0)})
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	logAppend(t, l, storetest.Put("a", 1, `1`))
	g.net.unplug(member(0))
	err := l.Append(t.Context(), []store.Op{storetest.Put("a", 2, `2`)})
	if err == nil || errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrFenced) {
		t.Errorf("Append in a minority = %v, want another error than ErrRefused, ErrFull and ErrFenced", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := l.Fence(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Fence in a minority = %v, want the end of its context", err)
	}
	// Meanwhile the majority goes on.
	other := g.logged(t, 1, LogOptions{})
	until(t, "another owner takes over", func() error { return other.Fence(t.Context(), 2) })
	logAppend(t, other, storetest.Put("b", 1, `1`))
	g.net.plug(member(0))
	until(t, "the deposed owner learns it", func() error {
		err := l.Fence(t.Context(), 1)
		if !errors.Is(err, store.ErrFenced) {
			return fmt.Errorf("Fence = %v", err)
		}
		return nil
	})
	if r, err := other.Load(t.Context(), "a"); err != nil || r.Version > 2 {
		t.Errorf("Load = %v, %v", r, err)
	}
}

// A short tail is asked for by number, a long one goes through a consumer on whichever
// replica.
func TestTheTailIsReplayedEitherWay(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	l := g.logged(t, 0, LogOptions{})
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	const n = 3*replayWindow + 1
	for i := range int32(n) {
		logAppend(t, l, storetest.Put("a", i, `1`))
	}
	for i, short := range []uint64{0, 1, 0, 1} {
		next := g.logged(t, i%3, LogOptions{Options: Options{shortReplay: short}})
		if err := next.Fence(t.Context(), uint64(i+2)); err != nil {
			t.Fatalf("Fence: %v", err)
		}
		if r, err := next.Load(t.Context(), "a"); err != nil || r.Version != n-1 {
			t.Errorf("Load = %v, %v", r, err)
		}
	}
}

// What an owner may still have under way when another takes over: nothing of it changes
// what that one has.
func TestWhatADeposedOwnerDoesLateChangesNothing(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	old, next := g.logged(t, 0, LogOptions{}), g.logged(t, 1, LogOptions{})
	ctx := t.Context()
	if err := old.Fence(ctx, 1); err != nil {
		t.Fatal(err)
	}
	logAppend(t, old, storetest.Put("a", 1, `1`), storetest.Put("b", 1, `1`))
	checkpoint(t, old)
	logAppend(t, old, storetest.Put("a", 2, `2`))
	floor := old.floor
	if err := next.Fence(ctx, 2); err != nil {
		t.Fatal(err)
	}
	logAppend(t, next, storetest.Put("a", 3, `3`))

	// A purge that was on its way.
	if err := old.purge(ctx, floor); err != nil {
		t.Errorf("purge: %v", err) // nothing refuses it
	}
	// A batch of a checkpoint, the floor behind it, an append.
	if err := old.statesLink.Append(ctx, []store.Op{storetest.Put("a", 2, `"late"`), storetest.Put("b", 2, `"late"`)}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("batch to STATE = %v, want ErrFenced", err)
	}
	if err := old.raiseFloor(ctx, old.base, old.fences); !errors.Is(err, store.ErrFenced) {
		t.Errorf("floor = %v, want ErrFenced", err)
	}
	if err := old.Append(ctx, []store.Op{storetest.Put("a", 3, `"late"`)}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Append = %v, want ErrFenced", err)
	}
	// A second fence of STATE alone, and of both.
	if err := old.statesLink.Fence(ctx, 1); !errors.Is(err, store.ErrFenced) {
		t.Errorf("fence of STATE = %v, want ErrFenced", err)
	}
	if err := old.Fence(ctx, 1); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Fence = %v, want ErrFenced", err)
	}

	logAppend(t, next, storetest.Put("b", 2, `"new"`))
	checkpoint(t, next)
	last := g.logged(t, 2, LogOptions{})
	if err := last.Fence(ctx, 3); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]store.Op{"a": storetest.Put("a", 3, `3`), "b": storetest.Put("b", 2, `"new"`)} {
		if got, err := last.Load(ctx, name); err != nil || got != want.Record {
			t.Errorf("%s = %v, %v, want %v", name, got, err, want.Record)
		}
	}
}

func TestWhoCanLeadNextHasAllOrNearlyAll(t *testing.T) {
	st := StreamStatus{Leader: "a", Replicas: []Replica{
		{Server: "a", Leader: true, Current: true}, {Server: "b", Current: true}, {Server: "c", Lag: 5}, {Server: "d", Current: true, Offline: true},
	}}
	for _, test := range []struct {
		server string
		lag    uint64
		ok     bool
	}{{"b", 0, true}, {"c", 0, false}, {"c", 4, false}, {"c", 5, true}, {"d", 9, false}, {"e", 9, false}} {
		err := st.successor(test.server, test.lag)
		if got := err == nil; got != test.ok {
			t.Errorf("successor(%q, %d) = %v, want ok %v", test.server, test.lag, err, test.ok)
		}
		if wait := !test.ok && test.server != "e"; err != nil && passing(err) != wait {
			t.Errorf("successor(%q, %d) = %v, passing %v", test.server, test.lag, err, passing(err))
		}
	}
}
