package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ClusterOptions has an embedded server be one of a cluster. Its name there is the
// node's id.
//
// A server in a cluster has to listen for clients as well: it does so on the loopback
// interface, on a port that the system picks, and lets nobody in who does not know a
// password that is random and never leaves this process.
type ClusterOptions struct {
	// Name is the cluster's. Servers of different names refuse each other.
	Name string
	// Host and Port are where other servers connect to. Port 0 means any free one,
	// which stays the same until Close.
	Host string
	Port int
	// Advertise is what others are told to connect to, host:port. Empty means the
	// addresses of Host.
	Advertise string
	// Routes are servers to connect to, host:port; this one may be among them. One that
	// can be reached is enough, it tells of the others. When the meta group is first
	// formed it waits for as many servers with JetStream as there are routes, at least 2.
	Routes []string
	// TLS is used at both ends of every route, such as Identity.RouteConfig. It must verify
	// clients (ClientAuth and ClientCAs, or VerifyConnection) and servers.
	TLS *tls.Config
	// JetStream says whether this server keeps streams: false on edge nodes.
	JetStream bool
	// StockTimers leaves the times of JetStream's elections as they are, 4 to 9 seconds.
	// Without it a dead leader is replaced in about one. All servers of a cluster should
	// agree.
	StockTimers bool
}

// natsClusterDir is the embedded server's directory in a cluster.
const natsClusterDir = "nats-cluster"

// The users of the embedded server of a cluster.
const (
	userApp    = "app"    // everything of ours
	userSystem = "system" // removes servers
)

// Routes between servers.
const (
	// A route on which nothing is heard for this long, twice, is given up.
	routePing = time.Second
	// routeErrorEvery is how many attempts to connect go by from one log line to the next.
	routeErrorEvery = 60
	// routeRetries is how often a server that was heard of is tried again, once a second;
	// those of Routes are tried for ever.
	routeRetries = 300
	// readyLooks is how often Ready looks at a server that was ready, readyPause apart,
	// before it says that it is not.
	readyLooks = 5
	readyPause = 50 * time.Millisecond
	// routeLines about routes are logged in each routeLinesEvery.
	routeLines      = 10
	routeLinesEvery = time.Minute
)

// ErrServerRemoved means that the cluster has removed this server: it may come back under
// another name, which is another node id, only.
var ErrServerRemoved = errors.New("this server was removed from the cluster; to bring the node back start it with an empty data directory")

// check says what is wrong with the options.
func (c *ClusterOptions) check() error {
	switch {
	case c.Name == "" || strings.ContainsAny(c.Name, " \t\r\n"):
		return fmt.Errorf("the cluster's name is %q: it must not be empty nor hold spaces", c.Name)
	case c.TLS == nil:
		return errors.New("routes need TLS")
	case c.TLS.ClientAuth < tls.RequireAnyClientCert:
		return errors.New("the TLS of routes must ask the other side for a certificate")
	case c.TLS.InsecureSkipVerify && c.TLS.VerifyConnection == nil:
		return errors.New("the TLS of routes must verify the other side's certificate")
	}
	return nil
}

// joinCluster completes the options of a server in a cluster.
func (s *Server) joinCluster(opts *server.Options) error {
	c := s.opts.Cluster
	s.mu.Lock()
	routes, port := s.routes, s.port
	s.mu.Unlock()
	urls, err := routeURLs(routes)
	if err != nil {
		return err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	opts.DontListen = false // routes would wait for it for ever
	opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
	opts.NoSystemAccount = false
	opts.CustomClientAuthentication = &insiders{password: s.password}
	opts.DisableJetStreamBanner = true
	opts.ReconnectErrorReports, opts.ConnectErrorReports = routeErrorEvery, routeErrorEvery
	if !c.JetStream {
		opts.JetStream = false
	}
	opts.Routes = urls
	opts.Cluster = server.ClusterOpts{
		Name: c.Name, Host: c.Host, Port: port, Advertise: c.Advertise,
		TLSConfig: c.TLS, TLSTimeout: 5,
		PingInterval: routePing, MaxPingsOut: 2, WriteDeadline: 10 * time.Second,
		ConnectRetries: routeRetries,
		// One connection for our own traffic, and by default one for that of the streams,
		// which goes by the system account: neither stands behind the other.
		PoolSize:    1,
		NoAdvertise: true, // of the clients' ports, which are nobody else's
	}
	return nil
}

// routeURLs turns addresses, host:port, into what the server wants.
func routeURLs(routes []string) ([]*url.URL, error) {
	urls := make([]*url.URL, len(routes))
	for i, r := range routes {
		host, port, err := net.SplitHostPort(r)
		if _, numErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || numErr != nil {
			return nil, fmt.Errorf("the route %q is not of the form host:port", r)
		}
		urls[i] = &url.URL{Scheme: "nats-route", Host: r}
	}
	return urls, nil
}

// setTimers has JetStream's raft go by the timers that are wanted. Once they are,
// they stay until Close.
func (s *Server) setTimers() error {
	c := s.opts.Cluster
	if c == nil || s.release != nil {
		return nil
	}
	want := fastTimers
	if c.StockTimers {
		want = stockTimers
	}
	release, err := useTimers(want)
	s.release = release
	return err
}

// insiders lets this process's own connections in, and nobody else.
type insiders struct {
	password string
	srv      atomic.Pointer[server.Server]
}

var _ server.Authentication = (*insiders)(nil)

// Check implements server.Authentication.
func (i *insiders) Check(c server.ClientAuthentication) bool {
	srv, opts := i.srv.Load(), c.GetOpts()
	if srv == nil || subtle.ConstantTimeCompare([]byte(opts.Password), []byte(i.password)) != 1 {
		return false
	}
	switch opts.Username {
	case userApp:
		c.RegisterUser(&server.User{Username: userApp, Account: srv.GlobalAccount()})
	case userSystem:
		c.RegisterUser(&server.User{Username: userSystem, Account: srv.SystemAccount()})
	default:
		return false
	}
	return true
}

// Store is the directory that the server keeps its data in.
func (s *Server) Store() string { return s.dir }

// RouteAddr is where this server listens for others, or empty when it is alone.
func (s *Server) RouteAddr() string {
	srv := s.server()
	if srv == nil || s.opts.Cluster == nil || srv.ClusterAddr() == nil {
		return ""
	}
	return srv.ClusterAddr().String()
}

// SetRoutes replaces ClusterOptions.Routes. New ones are tried at once and for ever;
// connections to those that are gone from the list are closed, unless the other side
// made them. It does not change how many servers the meta group is of.
func (s *Server) SetRoutes(routes []string) error {
	if s.opts.Cluster == nil {
		return errors.New("a server alone has no routes")
	}
	if _, err := routeURLs(routes); err != nil {
		return err
	}
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	same := slices.Equal(s.routes, routes)
	s.routes = slices.Clone(routes)
	srv := s.srv
	s.mu.Unlock()
	if same || srv == nil {
		return nil // a restart takes them
	}
	opts, err := s.serverOptions()
	if err == nil {
		s.reloading.Lock()
		err = srv.ReloadOptions(opts)
		s.reloading.Unlock()
	}
	if err != nil {
		return fmt.Errorf("change the routes: %w", err)
	}
	return nil
}

// Routed is the number of other servers that this one is connected to.
func (s *Server) Routed() int {
	srv := s.server()
	if srv == nil || s.opts.Cluster == nil {
		return 0
	}
	return srv.NumRemotes()
}

// ServerPeer is a server that the meta group counts on for its majority.
type ServerPeer struct {
	// ID is what the meta group calls it by.
	ID string
	// Name is the node's id; empty for one that this server has not heard of since its
	// start.
	Name string
	// Leader says that it leads the meta group.
	Leader bool
	// Online says that it has not said goodbye, and was heard of within minutes, Current
	// that it has all of what the meta group decided, as far as the leader knows, and Lag
	// how many decisions it lacks. They are about others only where this server leads.
	Online, Current bool
	Lag             uint64
}

// Peers are the servers of the meta group, by name, and whether it has a leader: without
// one no stream can be made or changed. There are none on a server alone or on an edge.
func (s *Server) Peers() (peers []ServerPeer, led bool) {
	srv := s.server()
	if srv == nil || s.opts.Cluster == nil || !s.opts.Cluster.JetStream {
		return nil, false
	}
	info, err := srv.Jsz(nil)
	if err != nil || info.Meta == nil {
		return nil, false // JetStream has stopped, as Ready says
	}
	m, self := info.Meta, srv.Name()
	for _, r := range m.Replicas {
		if r.Name != self {
			peers = append(peers, ServerPeer{ID: r.Peer, Name: r.Name, Leader: r.Name == m.Leader, Online: !r.Offline, Current: r.Current, Lag: r.Lag})
		}
	}
	peers = append(peers, ServerPeer{ID: peerID(self), Name: self, Leader: self == m.Leader, Online: true, Current: srv.JetStreamIsCurrent()})
	slices.SortFunc(peers, func(a, b ServerPeer) int { return strings.Compare(a.Name, b.Name) })
	return peers, m.Leader != ""
}

// AwaitPeers returns when the meta group has a leader and n servers or more, or ctx ends.
func (s *Server) AwaitPeers(ctx context.Context, n int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		peers, led := s.Peers()
		if led && len(peers) >= n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the meta group knows %d of %d servers, has a leader: %v: %w", len(peers), n, led, context.Cause(ctx))
		}
	}
}

// RemovePeer takes a server out of the meta group, which counts on it until then, and
// out of the streams that it kept, for which other servers are chosen where there are any.
// It needs a majority of the group and is no error for a server that is not in it. Remove
// one at a time, when all others are well, and only what will not come back under that
// name. It tries until ctx ends.
func (s *Server) RemovePeer(ctx context.Context, name string) error {
	return s.removePeer(ctx, peerID(name))
}

// removePeer is RemovePeer of the server with an id: the leader knows the name of those
// only that it has heard of since its start.
func (s *Server) removePeer(ctx context.Context, id string) error {
	if s.opts.Cluster == nil {
		return errors.New("a server alone has no peers")
	}
	nc, err := s.dial("remove peer", userSystem)
	if err != nil {
		return err
	}
	defer nc.Close()
	request, err := json.Marshal(server.JSApiMetaServerRemoveRequest{Peer: id})
	if err != nil {
		return err
	}
	for {
		err := tryRemovePeer(ctx, nc, request)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove server %s from the meta group: %w", id, errors.Join(context.Cause(ctx), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tryRemovePeer is one attempt.
func tryRemovePeer(ctx context.Context, nc *nats.Conn, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, server.JSApiRemoveServer, request)
	if err != nil {
		return err
	}
	var answer server.JSApiMetaServerRemoveResponse
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return err
	}
	if e := answer.Error; e != nil && e.ErrCode != uint16(server.JSClusterServerNotMemberErr) {
		return e
	}
	return nil
}

// peerID is how the meta group calls a server: as the server's own getHash, which
// RemovePeer's test compares.
func peerID(name string) string {
	const digits, size = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 8
	sum := sha256.Sum256([]byte(name))
	for i := range size {
		sum[i] = digits[int(sum[i]%byte(len(digits)))]
	}
	return string(sum[:size])
}

// joined says why this server cannot do its part in the cluster, or nil.
func (s *Server) joined() error {
	s.mu.Lock()
	srv, health := s.srv, s.health
	s.mu.Unlock()
	if srv == nil {
		return errStopped
	}
	if !s.opts.Cluster.JetStream {
		if srv.NumRemotes() == 0 {
			return errors.New("no other server of the cluster is connected")
		}
		return nil
	}
	// A replica that has not heard of its leader for two heartbeats calls itself unwell, which
	// happens to every one now and then.
	for look := range readyLooks {
		if look > 0 {
			time.Sleep(readyPause)
		}
		all, err := health.complaints(s.hangAfter)
		if err != nil {
			s.look() // nobody else may notice
			return err
		}
		if len(all) == 0 {
			s.mu.Lock()
			s.wasReady = true
			s.mu.Unlock()
			return nil
		}
		s.mu.Lock()
		again := s.wasReady && look < readyLooks-1
		s.wasReady = again
		s.mu.Unlock()
		if !again {
			return errors.New(all[0])
		}
	}
	return nil
}

// StreamCurrent says whether this server has made all that it has of a stream its own, and
// is not catching up. It may be called from anywhere; it blocks while the server hangs.
func (s *Server) StreamCurrent(stream string) bool {
	srv := s.server()
	if srv == nil {
		return false
	}
	return len(srv.Healthz(&server.HealthzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Stream: stream, Details: true}).Errors) == 0
}

// illInCluster says why a server whose JetStream runs needs a restart, or nil. A raft
// group whose write-ahead log cannot be written stops for good, as a stream of one
// replica does. For want of space JetStream stops as a whole, reads too, which ill sees.
// Nobody but Supervise begins either again; the others of the group go on meanwhile. What
// passes by itself, no leader or a stream that catches up, is none, nor is a store that
// goes on failing for it: a minority that restarted would be no better off.
func illInCluster(all complaints, d doubts) error {
	for _, e := range all {
		if strings.Contains(e, "write error") || strings.Contains(e, "apply error") || strings.Contains(e, "is not running") {
			return errors.New(e)
		}
	}
	if len(all) == 0 && d.grown() {
		return fmt.Errorf("the store goes on failing: %w", d.err)
	}
	return nil
}

// removed says whether JetStream stopped because the cluster removed this server. The
// server logs it, and then deletes what it knew of the meta group, as at no other end.
func (s *Server) removed() bool {
	s.mu.Lock()
	srv, lines := s.srv, s.lines
	s.mu.Unlock()
	if c := s.opts.Cluster; c == nil || !c.JetStream || srv == nil || srv.JetStreamEnabled() {
		return false
	}
	lines.mu.Lock()
	told := lines.removed
	lines.mu.Unlock()
	_, err := os.Stat(filepath.Join(s.dir, server.JetStreamStoreDir, server.DEFAULT_SYSTEM_ACCOUNT, "_js_", "_meta_"))
	return told || errors.Is(err, os.ErrNotExist)
}
