// Package node is one running server: the only room that knows all others. New
// joins them, Run starts them and stops them in reverse. Every message of a
// client walks through the pipeline (pipeline.go) into the room of its topic.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/auth/vault"
	"hadal/cluster"
	"hadal/node/admin"
	"hadal/node/api"
	"hadal/node/endpoint"
	"hadal/node/event"
	"hadal/node/listen"
	"hadal/node/mqtt"
	"hadal/node/presence"
	"hadal/node/record"
	"hadal/node/rpc"
	"hadal/node/sse"
	"hadal/node/sub"
	"hadal/perms"
	"hadal/protocol"
)

// Version is the version of the program; the build sets it.
var Version = "development"

// drainTime is how long a stop waits for what clients still have to get.
const drainTime = 10 * time.Second

// Node is one server. New makes it; Run runs it once.
type Node struct {
	cfg Config
	log *slog.Logger

	place    *cluster.Place
	vault    *vault.Slot // what logins need on disk; filled by Run
	accounts *accounts
	auth     *auth.Live // what a reload exchanges of logins
	// logins are all that decide who a client is, with the roles of whomever they accept.
	logins auth.Authenticator
	// tokens are the cluster's own; asked by auth, like registration, before the configured
	// strategies.
	tokens *tokens.Room
	// registration is nil when it is off.
	registration *register.Room
	// api is nil without an HTTP API.
	api   *api.Server
	rules *perms.Live
	pipe  pipeline

	eventSubs, recordSubs     *sub.Registry
	eventListen, recordListen *listen.Registry
	event                     *event.Room
	rpc                       *rpc.Room
	presence                  *presence.Room

	endpoint *endpoint.Server
	mqtt     *mqtt.Server // nil when it is off
	admin    *admin.Server
	metrics  *metrics
	started  chan struct{} // closed when clients can log in
	since    time.Time

	apiKeys atomic.Pointer[[]auth.APIKey] // in force

	reloading   sync.Mutex    // held over a Reload
	permission  perms.Config  // as it was loaded last; guarded by reloading
	ownRules    []byte        // its rules; guarded by reloading
	rulesNumber atomic.Uint64 // of the cluster's rules that are in force

	mu       sync.Mutex
	draining drainState    // guarded by mu
	state    string        // what the node is doing, when it is not ready; guarded by mu
	record   *record.Room  // nil before its store stands; guarded by mu
	store    *recordStores // likewise; guarded by mu
}

// New joins the rooms. It reads certificates, users and rules, so that what is
// wrong with them is found before anything runs; it opens nothing else.
func New(cfg Config, log *slog.Logger) (*Node, error) {
	slot := vault.NewSlot()
	var n *Node // is there before anybody logs in
	accounts, err := newAccounts(cfg, slot, func(ctx context.Context) bool { return n.loginsCrowded(ctx) }, log)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	strategies, err := accounts.strategies(cfg)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	rules, err := perms.New(cfg.Permission)
	if err != nil {
		return nil, fmt.Errorf("permission: %w", err)
	}
	place := cluster.NewPlace(cfg.Cluster, log)
	n = &Node{
		cfg: cfg, log: log, state: "starting", permission: cfg.Permission,
		place: place, vault: slot, accounts: accounts,
		eventSubs: sub.NewRegistry(), recordSubs: sub.NewRegistry(),
		presence: presence.New(place, place, log), rpc: rpc.New(cfg.RPC, place, place, log),
		started: make(chan struct{}), since: time.Now(),
	}
	n.apiKeys.Store(&cfg.APIKeys)
	if n.tokens, err = n.newTokens(); err != nil {
		return nil, err
	}
	if n.registration, err = n.newRegistration(); err != nil {
		return nil, err
	}
	n.auth = auth.NewLive(n.waysIn(strategies))
	n.logins = auth.WithRoles(n.auth, n.accounts.roles, cfg.Roles)
	n.rules = perms.NewLive(rules, references{n}, log)
	n.eventListen = listen.New(protocol.TopicEvent, cfg.Listen, n.eventSubs, place, place, log)
	n.recordListen = listen.New(protocol.TopicRecord, cfg.Listen, n.recordSubs, place, place, log)
	n.event = event.New(n.eventSubs, n.eventListen, place, log)
	n.pipe.rules, n.pipe.session = n.rules, n
	for topic, r := range map[protocol.Topic]room{
		protocol.TopicEvent:    enabled(cfg.EnabledFeatures.Event, n.event),
		protocol.TopicRPC:      enabled(cfg.EnabledFeatures.RPC, n.rpc),
		protocol.TopicPresence: enabled(cfg.EnabledFeatures.Presence, n.presence),
	} {
		n.pipe.rooms[topic] = r
	}
	n.pipe.rates = newRateLimits(cfg.RateLimits)
	n.metrics = newMetrics(n)
	health := admin.NewHealth(n.Ready)
	port := cfg.Endpoint()
	port.HTTP.MaxConnections = maxConnections(port.HTTP.MaxConnections, log)
	routes := n.tokens.Routes()
	routes[tokens.PathRefresh] = crossOrigin(routes[tokens.PathRefresh], port.HTTP.AllowsOrigin)
	routes[cfg.HTTPServer.Options.HealthCheckPath] = health.Check()
	routes["/healthz"] = health.Alive()
	routes["/readyz"] = health.Ready()
	if n.registration != nil {
		maps.Copy(routes, n.registration.Routes())
	}
	n.openAPI(routes)
	n.endpoint, err = endpoint.New(port, n.logins, receiver{n}, routes, log)
	if err != nil {
		return nil, err
	}
	if n.registration != nil {
		n.endpoint.Guard(n.registration.Guard)
	}
	if err := n.openMQTT(routes); err != nil {
		return nil, err
	}
	if cfg.SSE.Enabled {
		routes[cfg.SSE.URLPath] = sse.New(cfg.SSE, n.endpoint, n.logins, log)
	}
	n.admin, err = admin.New(cfg.Admin, admin.Deps{
		Socket: filepath.Join(cfg.DataDir, admin.SocketName), Records: operator{n}, Logins: operator{n}, Users: n.accounts, Cluster: members{n}, Rules: n.rules, Explainer: n.rules,
		Routes: n.tokens.OperatorRoutes(), Metrics: n.metrics.handler(), Health: health, Info: n.Info, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// enabled is r, or no room when the feature is off.
func enabled(on bool, r room) room {
	if !on {
		return nil
	}
	return r
}

// Run serves until ctx ends, then drains: it accepts nobody any more, makes
// durable and answers what was asked, says goodbye to the clients, and returns
// when nothing is left running. Every step of the way out is bounded.
func (n *Node) Run(ctx context.Context) error {
	if err := n.endpoint.Listen(ctx); err != nil {
		return err
	}
	// Again, if the way out below has run; a start that fails must let go of the port.
	defer n.logError("close port", func() error { return n.endpoint.Shutdown(context.WithoutCancel(ctx)) })
	dir, err := cluster.OpenDir(n.cfg.DataDir)
	if err != nil {
		return err
	}
	defer n.logError("release data directory", dir.Close)
	if err := n.admin.Listen(ctx); err != nil {
		return err
	}
	defer n.logError("close admin", n.admin.Close)
	defer n.accounts.stores.Close()
	usualGC := relaxGC()
	defer usualGC()
	n.setState("joining the cluster")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ports := &ports{node: n, stop: stop}
	defer ports.end()
	if n.cfg.Cluster.Enabled() {
		// It may wait long for other nodes, and says so; whoever looks after processes must
		// not take it for dead.
		n.endpoint.Hold(true)
		ports.begin(ctx)
	}
	st, err := n.openStores(ctx, dir)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer st.shutDown()
	n.setState("starting")
	records := record.New(n.cfg.Record, n.cfg.Records, record.Deps{
		Table: n.place, Bus: n.place, Open: st.Open, Subs: n.recordSubs, Listen: n.recordListen,
		Rules: n.rules, Log: n.log, Observe: n.metrics.observeWrite,
	})
	n.pipe.rooms[protocol.TopicRecord] = enabled(n.cfg.EnabledFeatures.Record, records)
	n.mu.Lock()
	n.record, n.store = records, st
	n.mu.Unlock()

	// The rooms outlive the endpoint: they end when it has drained.
	rooms, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	// What the records stand on is looked after until they have ended: they may wait
	// for it to come back.
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	var supervision sync.WaitGroup
	defer supervision.Wait()
	defer stopBelow()
	supervision.Go(func() {
		if err := n.place.Run(below); err != nil && below.Err() == nil {
			stop(fmt.Errorf("cluster: %w", err))
		}
	})
	var background sync.WaitGroup
	defer background.Wait()
	defer stopRooms()
	defer ports.end() // while the rooms can still answer
	for name, run := range map[string]func(context.Context) error{
		"records": records.Run, "rpc": n.rpc.Run, "presence": n.presence.Run, "rules": n.followRules, "drain": n.followDrain, "replicas": st.keepReplicas,
		"tokens":          n.tokens.Run,
		"accounts":        n.accounts.run,
		"auth":            n.auth.Run,
		"registration":    n.runRegistration,
		"http api":        n.runAPI,
		"event listening": n.eventListen.Run, "record listening": n.recordListen.Run,
		"rate limits": n.pipe.rates.Run,
	} {
		background.Go(func() {
			if err := run(rooms); err != nil && rooms.Err() == nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	// Nobody is let in before the records are served.
	if err := records.Flush(ctx); err != nil {
		return fmt.Errorf("start records: %w", causeOf(ctx, err))
	}
	usualGC()
	if err := n.joinRules(ctx); err != nil {
		return err
	}
	if err := st.openLogins(ctx); err != nil {
		return err
	}
	if err := n.adopt(ctx, dir, records); err != nil {
		return err
	}
	n.vault.Put(st.loginStore())
	n.setState("")
	ports.begin(ctx)
	n.endpoint.Hold(false)
	close(n.started)
	n.announce()

	<-ctx.Done()
	n.setState("stopping")
	n.log.Info("stopping", "cause", context.Cause(ctx))
	n.leave(context.WithoutCancel(ctx))
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	n.logError("flush records", func() error {
		// The clients get a goodbye also where nothing can be made durable any more.
		flushing, done := context.WithTimeout(grace, drainTime/2)
		defer done()
		return records.Flush(flushing)
	})
	n.logError("close clients", func() error { return n.endpoint.Shutdown(grace) })
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	n.log.Info("stopped")
	return nil
}

// causeOf is why ctx has ended, or err while it has not.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// ports are those of the node, for clients and for its operator, while they are served.
type ports struct {
	node *Node
	stop context.CancelCauseFunc

	begun   sync.Once
	running sync.WaitGroup
	cancel  context.CancelFunc // set by begin
}

// begin serves them, if nobody has yet, until end.
func (s *ports) begin(ctx context.Context) {
	s.begun.Do(func() {
		ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
		for name, serve := range map[string]func(context.Context) error{"clients": s.node.endpoint.Serve, "admin": s.node.admin.Serve} {
			s.running.Go(func() {
				if err := serve(ctx); err != nil {
					s.stop(fmt.Errorf("%s: %w", name, err))
				}
			})
		}
	})
}

// end returns when nothing of them runs.
func (s *ports) end() {
	if s.cancel != nil {
		s.cancel()
	}
	s.running.Wait()
}

// logError does something on the way out, where an error can only be told.
func (n *Node) logError(what string, do func() error) {
	if err := do(); err != nil {
		n.log.Error(what+" failed", "err", err)
	}
}

// announce says where clients connect, as lines that a person reads and a
// script can wait for: the last one says started.
func (n *Node) announce() {
	scheme, web := "ws", "http"
	if n.endpoint.Secure() {
		scheme, web = "wss", "https"
	}
	addrs := reachable(n.Addr())
	for _, addr := range addrs {
		for _, e := range n.cfg.ConnectionEndpoints {
			if e.Type != typeHTTP {
				n.log.Info("clients connect here", "url", scheme+"://"+addr+e.Options.URLPath, "type", e.Type)
			}
		}
	}
	if cfg, ok := n.cfg.api(); ok {
		n.log.Info("the HTTP API is here", "url", web+"://"+addrs[0]+cfg.PostPath)
	}
	n.log.Info("health is here", "url", web+"://"+addrs[0]+n.cfg.HTTPServer.Options.HealthCheckPath)
	n.log.Info("admin is here", "socket", n.admin.Socket())
	if addr := n.admin.Addr(); addr != nil {
		n.log.Info("admin is here too", "url", "http://"+addr.String())
	}
	if (n.cfg.Tokens.Enabled() || n.cfg.Registration.Enabled()) && slices.ContainsFunc(n.cfg.Auth, func(a auth.Config) bool { return a.Type == "none" }) {
		n.log.Warn("everybody may log in under any name, also those of tokens and of registered clients: name another strategy, such as file, in auth", "key", "auth")
	}
	if n.cfg.Permission.Type == "none" {
		n.log.Warn("every client may do everything: set permission.type to config and write rules", "key", "permission.type")
	}
	if limit, ok := maxFiles(); ok {
		n.warnOfFewFiles(limit)
	}
	n.log.Info("started", "event", "INFO", "server", n.cfg.ServerName, "version", Version)
}

// reachable is where clients reach a listener on addr, at least one: every address of
// the machine, this machine's own first, when it listens on all of them.
func reachable(addr net.Addr) []string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return []string{addr.String()}
	}
	port := strconv.Itoa(tcp.Port)
	all := []string{net.JoinHostPort("127.0.0.1", port)}
	// Without them the first one still is true.
	ours, _ := net.InterfaceAddrs()
	for _, a := range ours {
		if a, ok := a.(*net.IPNet); ok && a.IP.IsGlobalUnicast() {
			all = append(all, net.JoinHostPort(a.IP.String(), port))
		}
	}
	return all
}

// fewFiles is a limit of open files that a node with many clients will reach.
const fewFiles = 4096

// warnOfFewFiles tells an operator beforehand that clients will not get in.
func (n *Node) warnOfFewFiles(limit uint64) {
	if limit < fewFiles {
		n.log.Warn("the system allows few open files, and each client needs one: raise the limit (ulimit -n, LimitNOFILE=)", "limit", limit)
	}
}

// Addr is the address clients connect to, when Started is closed.
func (n *Node) Addr() net.Addr { return n.endpoint.Addr() }

// Started is closed when clients can log in.
func (n *Node) Started() <-chan struct{} { return n.started }

// Ready lists why the node does not serve fully, or nothing.
func (n *Node) Ready() []admin.Reason {
	n.mu.Lock()
	state := n.state
	if state == "" && n.draining != serving {
		state = "draining"
	}
	n.mu.Unlock()
	if state != "" {
		return []admin.Reason{{Part: "node", Why: "the node is " + state, NoLogin: true}}
	}
	var reasons []admin.Reason
	for _, err := range []error{n.serving().Ready(), n.stored().ready()} {
		if err != nil {
			reasons = append(reasons, admin.Reason{Part: "records", Why: err.Error()})
		}
	}
	if logins := n.stored().loginStore(); logins != nil {
		if err := logins.ready(context.Background()); err != nil { // bounded by itself
			reasons = append(reasons, admin.Reason{Part: "logins", Why: err.Error()})
		}
	}
	return reasons
}

// Info is what an operator asks first.
func (n *Node) Info() any {
	return map[string]any{
		"serverName": n.cfg.ServerName, "version": Version, "go": runtime.Version(),
		"platform": runtime.GOOS + "/" + runtime.GOARCH, "dataDir": n.cfg.DataDir,
		"address": fmt.Sprint(n.Addr()), "records": n.cfg.Records.Store, "sync": n.cfg.Records.Sync,
		"permission": n.cfg.Permission.Type, "started": n.since,
	}
}

// serving is the record room, or nil before its store stands.
func (n *Node) serving() *record.Room {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.record
}

// stored is what the record room keeps its records in; serving is not nil.
func (n *Node) stored() *recordStores {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.store
}

func (n *Node) setState(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = s
}

// receiver is the node as the endpoint sees it.
type receiver struct{ *Node }

// Opened is called when a client has logged in.
func (n receiver) Opened(c *endpoint.Conn) {
	if n.pipe.rates != nil {
		c.Attach(n.pipe.rates.opened(c.User(), c.RemoteAddr()))
	}
	if n.cfg.EnabledFeatures.Presence {
		n.presence.Login(c)
	}
	n.tokens.Opened(tokenClient{c, n.Node})
	n.judgeKey(c)
	if n.registration != nil {
		n.registration.Opened(registeredConn{c})
	}
}

// Receive is called for each message of a client that has logged in.
func (n receiver) Receive(c *endpoint.Conn, m *protocol.Message) { n.pipe.receive(c, m) }

// Closed is called when such a client has gone.
func (n receiver) Closed(c *endpoint.Conn) {
	n.tokens.Closed(tokenClient{c, n.Node})
	if n.registration != nil {
		n.registration.Closed(registeredConn{c})
	}
	for _, r := range n.pipe.rooms {
		if r != nil {
			r.Closed(c)
		}
	}
	if s, ok := c.Attached().(*spending); ok {
		n.pipe.rates.closed(s)
	}
}
