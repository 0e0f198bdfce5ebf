package cluster

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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/cluster/freeport"
)

// network gives nodes on the loopback interface certificates from a CA of the test's
// own, and cuts them off from each other as a dead machine would be: connections end,
// nobody says good-bye, and new ones fail.
type network struct {
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	pool  *x509.CertPool

	mu    sync.Mutex
	conns map[net.Conn][2]string // guarded by mu; routes, and the nodes at their ends
	cut   map[string]bool        // guarded by mu; nodes that are cut off
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

// node is the TLS of a node.
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

// unplug cuts a node off.
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

// plug ends unplug.
func (n *network) plug(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, name)
}

// fleet is some servers of one cluster, in this process.
type fleet struct {
	net     *network
	routes  []string
	members []*Server
}

// nodeName is the name of a member in the network.
func nodeName(i int) string { return fmt.Sprint("node ", i) }

// startFleet starts n servers and waits until they are a meta group.
func startFleet(t testing.TB, n int) *fleet {
	t.Helper()
	f := &fleet{net: newNetwork(t), routes: freePorts(t, n), members: make([]*Server, n)}
	for i := range n {
		f.start(t, i, t.TempDir())
	}
	f.await(t, n)
	return f
}

// freePorts are addresses on loopback that are the test's. The next port of each is, too.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	all, release, err := freeport.Claim(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return all
}

// start starts the member on a data directory.
func (f *fleet) start(t testing.TB, i int, path string) *Server {
	t.Helper()
	dir, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(f.routes[i])
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), Options{
		Dir: dir, SyncAlways: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Cluster: &ClusterOptions{Name: "test", Host: "127.0.0.1", Port: number, Routes: f.routes, TLS: f.net.node(t, nodeName(i)), JetStream: true},
	})
	if err != nil {
		t.Fatalf("Start of member %d: %v", i, err)
	}
	f.members[i] = s
	t.Cleanup(func() { f.stop(t, s) })
	return s
}

// stop stops a server and gives its directory back, if it has not happened.
func (f *fleet) stop(t testing.TB, s *Server) {
	t.Helper()
	s.Close()
	if err := s.opts.Dir.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// await waits until every member knows so many peers, and a leader.
func (f *fleet) await(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, s := range f.members {
		if s == nil {
			continue
		}
		if err := s.AwaitPeers(ctx, n); err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
	}
}

// stream makes a stream of three replicas, and returns a way to publish to it.
func (f *fleet) stream(t testing.TB, via *Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(via.Conn())
	if err != nil {
		t.Fatal(err)
	}
	retry(t, "the stream is made", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3})
		return err
	})
	return js
}

// retry is eventually for benchmarks, too.
func retry(t testing.TB, what string, ask func() error) {
	t.Helper()
	give := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// hasRoutes says whether a server has routes to so many others.
func hasRoutes(s *Server, want int) func() error {
	return func() error {
		if got := s.Routed(); got != want {
			return fmt.Errorf("routes to %d others", got)
		}
		return nil
	}
}

// publish stores a message. Where nobody leads there is no answer, and another attempt helps.
func publish(t testing.TB, js jetstream.JetStream) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "s.x", []byte("hello"))
		return err
	}
}

// leader is the member that leads the stream, or -1.
func (f *fleet) leader(t testing.TB, js jetstream.JetStream) int {
	t.Helper()
	found := -1
	retry(t, "the stream has a leader", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		info, err := js.Stream(ctx, "S")
		if err != nil {
			return err
		}
		for i, s := range f.members {
			if s != nil && s.opts.Dir.NodeID() == info.CachedInfo().Cluster.Leader {
				found = i
				return nil
			}
		}
		return errors.New("it has none")
	})
	return found
}

func TestThreeServersFormACluster(t *testing.T) {
	f := startFleet(t, 3)
	js := f.stream(t, f.members[0])
	retry(t, "a message is stored", publish(t, js))
	for i, s := range f.members {
		retry(t, fmt.Sprintf("member %d is ready", i), s.Ready)
		peers, led := s.Peers()
		if len(peers) != 3 || !led {
			t.Errorf("member %d knows %+v, led %v, want three", i, peers, led)
		}
		retry(t, fmt.Sprintf("member %d has routes to both others", i), hasRoutes(s, 2))
		if got, want := s.Store(), filepath.Join(s.opts.Dir.Path(), "nats-cluster"); got != want {
			t.Errorf("Store = %s, want %s", got, want)
		}
		if host, _, err := net.SplitHostPort(s.srv.Addr().String()); err != nil || host != "127.0.0.1" {
			t.Errorf("member %d listens for clients on %v, want the loopback interface", i, s.srv.Addr())
		}
	}
	for _, auth := range []nats.Option{nats.UserInfo("app", "x"), nats.UserInfo("", ""), nats.Name("nobody")} {
		if nc, err := nats.Connect("nats://"+f.members[0].srv.Addr().String(), auth); err == nil {
			t.Error("a stranger may connect to the client port")
			nc.Close()
		}
	}
	if err := f.members[0].SetRoutes([]string{"x"}); err == nil {
		t.Error("SetRoutes took a route that is none")
	}
}

func TestConnectionsAreMadeWhileRoutesChange(t *testing.T) {
	f := startFleet(t, 2)
	s := f.members[0]
	more := append(freePorts(t, 1), f.routes...)
	stop, changing := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				changing <- nil
				return
			default:
			}
			if err := s.SetRoutes([][]string{more, f.routes}[i%2]); err != nil {
				changing <- err
				return
			}
		}
	}()
	for i := range 200 {
		nc, err := s.Dial("test")
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		nc.Close()
	}
	close(stop)
	if err := <-changing; err != nil {
		t.Error(err)
	}
}

func TestAStrangerHasNoRoute(t *testing.T) {
	f := startFleet(t, 2)
	stranger := &fleet{net: newNetwork(t), routes: append(freePorts(t, 1), f.routes...), members: make([]*Server, 1)}
	s := stranger.start(t, 0, t.TempDir())
	if s.Routed() != 0 || f.members[0].Routed() != 1 {
		t.Errorf("the stranger has %d routes, the member %d, want 0 and 1", s.Routed(), f.members[0].Routed())
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "meta") {
		t.Errorf("Ready of a server alone in a cluster = %v, want that there is no meta leader", err)
	}
}

func TestServersMeetByTheirIdentities(t *testing.T) {
	all := freePorts(t, 3)
	start := func(i int, secret string, routes []string) *Server {
		dir := openDir(t, t.TempDir())
		id, err := NewIdentity(IdentityConfig{Cluster: "test", Node: dir.NodeID(), Secret: secret}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		addr, err := net.ResolveTCPAddr("tcp", all[i])
		if err != nil {
			t.Fatal(err)
		}
		return startServer(t, dir, Options{
			Cluster: &ClusterOptions{Name: "test", Host: "127.0.0.1", Port: addr.Port, Routes: routes, TLS: id.RouteConfig(), JetStream: i < 2},
		})
	}
	a, b := start(0, "one secret of one cluster", all[:2]), start(1, "one secret of one cluster", all[:2])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stranger := start(2, "another secret altogether", all)
	for _, s := range []*Server{a, b} {
		if err := s.AwaitPeers(ctx, 2); err != nil {
			t.Fatal(err)
		}
		retry(t, "a member has a route to the other", hasRoutes(s, 1))
	}
	if got := stranger.Routed(); got != 0 {
		t.Errorf("who has another secret has routes to %d others", got)
	}
}

// With the timers of stock nobody stands for election before stockTimers.minElection; with
// ours somebody has been elected by then, unless the machine is busy with something else,
// hence more than one round.
func TestALeaderThatDiesIsReplacedSoon(t *testing.T) {
	f := startFleet(t, 3)
	js := f.stream(t, f.members[0])
	const enough = 10
	for i := range enough {
		retry(t, "a message is stored", publish(t, js))
		dead := f.leader(t, js)
		var err error
		if js, err = jetstream.New(f.members[(dead+1)%3].Conn()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		f.net.unplug(nodeName(dead))
		// Who keeps the table tells them, and sees to it until there is a leader: elect.go.
		groups := []map[string]string{{}, {}, {}}
		gone, turn := []string{f.members[dead].opts.Dir.NodeID()}, 0
		retry(t, "the others elect a leader", func() error {
			left := 0
			for i, s := range f.members {
				if i == dead {
					continue
				}
				stands := func(string) bool { return turn%20 == 0 && (dead+1+turn/20%2)%3 == i }
				if err := s.campaign(gone, groups[i], stands); err != nil {
					return err
				}
				left += s.settleLeaders(gone, groups[i])
			}
			if turn++; left > 0 {
				return fmt.Errorf("%d groups have none", left)
			}
			return nil
		})
		retry(t, "a message is stored without the leader", publish(t, js))
		took := time.Since(began)
		t.Logf("round %d: the next message was stored %v after the leader was cut off", i, took.Round(time.Millisecond))
		f.net.plug(nodeName(dead))
		retry(t, "the member is ready again", f.members[dead].Ready)
		if took < stockTimers.minElection-500*time.Millisecond {
			return
		}
	}
	t.Errorf("in none of %d rounds was a leader replaced soon: the election timers are not what they should be", enough)
}

func TestAMemberThatStartsAgainCatchesUp(t *testing.T) {
	f := startFleet(t, 3)
	if c := f.members[0].server().JetStreamConfig(); !c.SyncAlways || c.SyncInterval != tidyEvery {
		t.Errorf("a member that syncs always looks after its files every %v (syncs always: %v), want %v", c.SyncInterval, c.SyncAlways, tidyEvery)
	}
	js := f.stream(t, f.members[0])
	retry(t, "a message is stored", publish(t, js))
	path := f.members[2].opts.Dir.Path()
	f.stop(t, f.members[2])
	retry(t, "a message is stored without it", publish(t, js))
	s := f.start(t, 2, path)
	f.await(t, 3)
	retry(t, "it is ready", s.Ready)
}

func TestTimersAreWhatTheServerUses(t *testing.T) {
	release, err := useTimers(fastTimers)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if got := currentTimers(); got != fastTimers {
		t.Errorf("the timers are %+v, want %+v", got, fastTimers)
	}
	if err := fastTimers.used(); err != nil {
		t.Error(err)
	}
	if err := stockTimers.used(); !errors.Is(err, errNoTimers) {
		t.Errorf("the check of other timers = %v, want errNoTimers", err)
	}
	if _, err := useTimers(stockTimers); err == nil {
		t.Error("the timers changed below a server")
	}
	release()
	release()
}

func TestAServerOfAClusterIsRestartedInItsPlace(t *testing.T) {
	f := startFleet(t, 3)
	js := f.stream(t, f.members[0])
	retry(t, "a message is stored", publish(t, js))
	s := f.members[f.leader(t, js)]
	supervise(t, s)
	// As it does itself when the disk is full.
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	s.look()
	retry(t, "JetStream is there again", restarts(s, 1))
	retry(t, "it has routes to both others", hasRoutes(s, 2)) // to be ready it needs one
	retry(t, "a message is stored", publish(t, js))
}

func TestAFullDiskKeepsAServerOfAClusterFromRestarting(t *testing.T) {
	f := startFleet(t, 2)
	s := f.members[0]
	s.disk.reserve = 1 << 60
	if err := s.server().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if reason, reads := s.ill(); !errors.Is(reason, errStopped) || reads {
		t.Errorf("ill = %v, %v, want that JetStream has stopped", reason, reads)
	}
	if err := s.restartable(false); !errors.Is(err, ErrDiskFull) {
		t.Errorf("restartable = %v, want ErrDiskFull: it would stop at its first vote", err)
	}
}

func TestAServerIsRemovedAndAnotherTakesItsPlace(t *testing.T) {
	f := startFleet(t, 3)
	js := f.stream(t, f.members[0])
	retry(t, "a message is stored", publish(t, js))
	gone := f.members[2]
	name := gone.opts.Dir.NodeID()
	if got, want := peerID(name), gone.srv.Node(); got != want {
		t.Errorf("peerID = %s, the server says %s", got, want)
	}
	f.stop(t, gone)
	// The wiped node comes back under a new name.
	f.start(t, 2, t.TempDir())
	f.await(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.members[0].RemovePeer(ctx, name); err != nil {
		t.Fatalf("RemovePeer: %v", err)
	}
	if err := f.members[0].RemovePeer(ctx, name); err != nil {
		t.Errorf("RemovePeer of a server that is not there: %v", err)
	}
	retry(t, "three are left", func() error {
		for _, s := range f.members {
			if peers, led := s.Peers(); len(peers) != 3 || !led {
				return fmt.Errorf("%+v", peers)
			}
		}
		return nil
	})
	retry(t, "the stream lies on the new one, too", func() error {
		info, err := js.Stream(ctx, "S")
		if err != nil {
			return err
		}
		c := info.CachedInfo().Cluster
		if len(c.Replicas) != 2 || !c.Replicas[0].Current || !c.Replicas[1].Current {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	retry(t, "it is ready", f.members[2].Ready)
}

func TestARemovedServerStaysAway(t *testing.T) {
	f := startFleet(t, 3)
	s := f.members[2]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	supervise(t, s)
	if err := f.members[0].RemovePeer(ctx, s.opts.Dir.NodeID()); err != nil {
		t.Fatal(err)
	}
	retry(t, "it says so", func() error {
		if err := s.Ready(); !errors.Is(err, ErrServerRemoved) {
			return fmt.Errorf("Ready = %v", err)
		}
		return nil
	})
	if n := s.Stats().Restarts; n != 0 {
		t.Errorf("it restarted %d times", n)
	}
}

func TestRoutesAreAddedWhileItRuns(t *testing.T) {
	f := &fleet{net: newNetwork(t), routes: freePorts(t, 2), members: make([]*Server, 2)}
	all := f.routes
	f.routes = all[:1]
	a := f.start(t, 0, t.TempDir())
	f.routes = []string{all[1], all[1]} // only itself
	b := f.start(t, 1, t.TempDir())
	if err := a.SetRoutes(all); err != nil {
		t.Fatal(err)
	}
	f.await(t, 2)
	if err := a.SetRoutes(all); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Server{a, b} {
		retry(t, "it has a route to the other", hasRoutes(s, 1))
	}
}

func TestAnEdgeCarriesMessagesAndKeepsNothing(t *testing.T) {
	f := startFleet(t, 2)
	dir := openDir(t, t.TempDir())
	edge := startServer(t, dir, Options{Cluster: &ClusterOptions{Name: "test", Host: "127.0.0.1", Routes: f.routes, TLS: f.net.node(t, "edge")}})
	supervise(t, edge)
	retry(t, "it is ready", edge.Ready)
	if peers, led := edge.Peers(); len(peers) != 0 || led {
		t.Errorf("Peers = %v, %v, want none", peers, led)
	}
	if peers, _ := f.members[0].Peers(); len(peers) != 2 {
		t.Errorf("the meta group counts on %d servers, want 2", len(peers))
	}
	sub, err := edge.Conn().SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	retry(t, "a message arrives", func() error {
		if err := f.members[0].Conn().Publish("x", []byte("hello")); err != nil {
			return err
		}
		_, err := sub.NextMsg(50 * time.Millisecond)
		return err
	})
}

func TestOptionsOfAClusterAreChecked(t *testing.T) {
	good := newNetwork(t).node(t, "a")
	tests := []struct {
		name string
		opts ClusterOptions
		want string
	}{
		{"no name", ClusterOptions{TLS: good}, "name"},
		{"a name with a space", ClusterOptions{Name: "a b", TLS: good}, "name"},
		{"no TLS", ClusterOptions{Name: "a"}, "TLS"},
		{"TLS without clients' certificates", ClusterOptions{Name: "a", TLS: &tls.Config{}}, "certificate"},
		{"TLS that verifies nobody", ClusterOptions{Name: "a", TLS: &tls.Config{ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true}}, "verify"},
		{"a route without a port", ClusterOptions{Name: "a", TLS: good, Host: "127.0.0.1", Routes: []string{"b"}}, "host:port"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Start(t.Context(), Options{Dir: openDir(t, t.TempDir()), Cluster: &tt.opts})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v, want an error about %s", err, tt.want)
			}
			if s != nil {
				s.Close()
			}
		})
	}
}
