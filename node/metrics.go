package node

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hadal/cluster"
	"hadal/node/endpoint"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store/jetstream"
)

// metrics asks every room for its Stats when it is asked itself. Labels are
// topics, actions, results and reasons: a bounded set, never a name or a user.
type metrics struct {
	node     *Node
	registry *prometheus.Registry
	writes   prometheus.Histogram
}

func newMetrics(n *Node) *metrics {
	m := &metrics{node: n, registry: prometheus.NewRegistry()}
	m.writes = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "hadal_record_write_seconds",
		Help:    "Time from receipt of a record write to its commit.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 17), // 0.1 ms to 6.5 s
	})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hadal_build_info", Help: "Always 1; the labels say what runs."}, []string{"version", "go"})
	build.WithLabelValues(Version, runtime.Version()).Set(1)
	m.registry.MustRegister(m, m.writes, build, n.accounts.asked.webhook, n.accounts.asked.keySets,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observeWrite(d time.Duration) { m.writes.Observe(d.Seconds()) }

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hadal_"+name, help, labels, nil)
}

var (
	descSockets       = desc("sockets", "TCP connections of the public port, those that speak HTTP included.")
	descNotLoggedIn   = desc("sockets_not_logged_in", "TCP connections of the public port without a login.")
	descTurnedAway    = desc("sockets_refused_total", "TCP connections turned away to bound their number, by reason.", "reason")
	descOutdated      = desc("clients_outdated_total", "Clients older than clients.warnBelow or clients.refuseBelow, by what became of them.", "result")
	descSubsRefused   = desc("subscriptions_refused_total", "Subscriptions and provided procedures beyond maxSubscriptions of their client.", "topic")
	descRateRefused   = desc("messages_refused_total", "Messages beyond rateLimits, by the entry that refused them; an empty action or role is every one.", "topic", "action", "role")
	descListenRefused = desc("listen_refused_total", "Patterns refused and switched off, and matches skipped because too much time was wasted.", "topic", "reason")
	descOpen          = desc("connections", "Open client connections, logged in or not.")
	descConnections   = desc("connections_total", "Client connections since start.")
	descSpoken        = desc("endpoint_connections", "Open client connections by endpoint, as connectionEndpoints names them.", "endpoint")
	descSpokenTotal   = desc("endpoint_connections_total", "Client connections since start by endpoint.", "endpoint")
	descLogins        = desc("logins_total", "Login attempts by result.", "result")
	descClosed        = desc("connections_closed_total", "Ended connections by reason.", "reason")
	descIn            = desc("messages_in_total", "Messages from clients.", "topic", "action")
	descOut           = desc("messages_out_total", "Messages queued for clients.", "topic", "action")
	descOversize      = desc("messages_too_large_total", "Messages that were not sent because their client takes no such large ones (MQTT 5).")
	descUndecodable   = desc("frames_undecodable_total", "Frames from clients that were no message.")
	descBytes         = desc("websocket_bytes_total", "Bytes on client connections, above TLS.", "direction")
	descPanics        = desc("panics_total", "Mistakes of the server that ended a connection.")
	descDecisions     = desc("permission_decisions_total", "Decisions of permission rules.", "section", "rule", "result")
	descSubs          = desc("subscriptions", "Subscriptions.", "topic")
	descSubNames      = desc("subscribed_names", "Names with at least one subscriber.", "topic")
	descFilters       = desc("wildcard_filters", "Subscriptions with wildcards.", "topic")
	descWild          = desc("wildcard_messages_total", "Messages for subscriptions with wildcards: delivered, and withheld by the rules; judged are those of both whose verdict was not known yet; overflow are clients cut off because too many waited for one.", "topic", "what")
	descWildRefused   = desc("wildcard_refused_total", "Subscriptions with wildcards beyond maxWildcards and maxWildcardsInAll.")
	descEvents        = desc("events_total", "Events emitted, delivered and refused by this node, published to and received from others, and not understood.", "what")
	descRPCs          = desc("rpc_calls_total", "Remote procedure calls by how they ended.", "end")
	descRPCRunning    = desc("rpc_running", "Remote procedure calls under way.")
	descRPCServing    = desc("rpc_serving", "Remote procedure calls of other nodes' clients that providers here are asked.")
	descRPCPeers      = desc("rpc_peer_calls_total", "Remote procedure calls between nodes: put to another, returned by it without an answer, served for it; crowded are answers that were replaced by an error, as too much waited for the other.", "what")
	descProviders     = desc("rpc_providers", "Providers of remote procedures.")
	descUsers         = desc("presence_users", "Users that are online.")
	descUsersAway     = desc("presence_users_elsewhere", "Those of them that other nodes have.")
	descSetNames      = desc("cluster_set_names", "Names that nodes tell each other of: own, and those of others, each for each node.", "set", "whose")
	descSetMessages   = desc("cluster_set_messages_total", "Messages about such names, and those that were not understood.", "set", "what")
	descMembers       = desc("cluster_members", "Nodes of the cluster.", "state")
	descTerm          = desc("cluster_term", "Raft's term: it rises with every election.")
	descLinks         = desc("cluster_links", "Nodes that this one has a link with.")
	descLinkBytes     = desc("cluster_link_bytes_total", "Bytes on links, above TLS.", "direction")
	descLinkMessages  = desc("cluster_link_messages_total", "Messages on links.", "direction")
	descLinkQueued    = desc("cluster_link_queued_bytes", "Bytes that wait for other nodes.")
	descLinkEnds      = desc("cluster_link_ends_total", "Links that ended, by reason.", "reason")
	descStrangers     = desc("cluster_refused_total", "Connections to the port for other nodes that were refused, by reason.", "reason")
	descSlots         = desc("cluster_slot_payloads_total", "Events between nodes: published where another node listens, heard, dropped, missed, not understood.", "what")
	descPatterns      = desc("listen_patterns", "Patterns that providers listen to.", "topic")
	descProvided      = desc("listen_provided", "Subscribed names that a provider serves.", "topic")
	descWrites        = desc("record_writes_total", "Record writes by result.", "result")
	descCommits       = desc("record_commits_total", "Batches of record changes made durable.")
	descCommitted     = desc("record_committed_total", "Record states in those batches.")
	descLoads         = desc("record_loads_total", "Records loaded from the store, by result.", "result")
	descAppendFails   = desc("record_append_errors_total", "Batches whose commit failed.")
	descCache         = desc("record_cache_bytes", "Memory that cached records occupy.")
	descCacheNames    = desc("record_cache_records", "Cached records.")
	descOwned         = desc("record_partitions_owned", "Partitions of the records that this node owns.")
	descRecordPeers   = desc("record_peer_requests_total", "Requests for records between nodes: put to another, received, not served here any more, put again.", "what")
	descResyncs       = desc("record_resyncs_total", "Comparisons of what subscribers know with a new owner, of some hundred names each.")
	descInterests     = desc("record_interests", "Names that other nodes have subscribers of, each for each node.")
	descLogPending    = desc("record_log_pending_bytes", "Bytes of the log that wait for a checkpoint; as much is held in memory.")
	descLogDirty      = desc("record_log_pending_records", "Records whose last change waits for a checkpoint.")
	descLogBytes      = desc("record_log_bytes", "Bytes that the log occupies on disk.")
	descStateBytes    = desc("record_state_bytes", "Bytes that the records occupy on disk, without what is yet to be compacted.")
	descStateCount    = desc("record_state_messages", "Records and tombstones in the records' own files.")
	descTombstones    = desc("record_state_tombstones", "Removals since the last compaction.")
	descCheckpoints   = desc("record_checkpoints_total", "Checkpoints of the log by result.", "result")
	descChecked       = desc("record_checkpoint_timestamp_seconds", "When the last checkpoint ended well, in Unix time; 0 before the first.")
	descLoginCount    = desc("login_store_entries", "Entries of the store of logins: users, roles, registrations, tokens, and removals that are remembered.")
	descLoginBytes    = desc("login_store_bytes", "Bytes that they occupy.")
	descLoginCalls    = desc("login_store_calls_total", "Calls of the store of logins by what they did and how they ended.", "call", "result")
	descRestarts      = desc("store_restarts_total", "Restarts of the embedded server by result.", "result")
	descDiskTotal     = desc("disk_bytes", "Size of the volume that holds the records.")
	descDiskFree      = desc("disk_free_bytes", "Bytes free on it.")
	descDiskReserve   = desc("disk_reserve_bytes", "Bytes of it that are kept free: record writes are refused when there are no more.")
	descTokens        = desc("tokens_total", "Tokens minted, refreshed, given again to who asked twice, and renewed on a connection; families ended because a refresh token was used twice; revocations and kicks made here.", "what")
	descTokenSessions = desc("token_sessions", "Connections that logged in with a token.")
	descRevocations   = desc("token_revocations", "Revocations that this node knows of.")
	descTokensKnown   = desc("token_revocations_known", "1 when this node knows what is revoked; without that it takes no tokens.")
	descRegistration  = desc("registration_requests_total", "Requests of HTTP to register, log in and unregister clients, by result.", "call", "result")
	descRegLogins     = desc("registration_logins_total", "Credentials of registered clients that were judged, by result.", "result")
	descRegEnded      = desc("registration_ended_total", "Connections closed because the login of their registered client was over.")
	descRegClients    = desc("registration_clients", "Registered clients, as far as this node has heard.")
	descRegOpen       = desc("registration_connections", "Connections of registered clients.")
	descKeysLoaded    = desc("key_set_loaded_timestamp_seconds", "When the set of keys of tokens (jwksUrl) that is the oldest was loaded, in Unix time; 0 before the first.")
	descAPIRequests   = desc("http_requests_total", "Requests of the HTTP API by what they were for and the first digit of the status.", "for", "status")
	descAPICommands   = desc("http_commands_total", "Commands of the HTTP API by result.", "topic", "action", "result")
	descAPILogins     = desc("http_logins_total", "Logins of requests of the HTTP API by result.", "result")
	descAPIRunning    = desc("http_running", "Requests of the HTTP API that run.")
	descAPIKeys       = desc("http_idempotency_keys", "Requests of the HTTP API with an Idempotency-Key whose answers are kept, of those made to this node since its start.")
	descAPIPanics     = desc("http_panics_total", "Mistakes of the server that ended a request of the HTTP API.")
	descReady         = desc("ready", "1 when the node serves fully.")
)

// Describe implements prometheus.Collector. It names nothing, because which
// metrics there are depends on what has happened.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	n := m.node
	e := n.endpoint.Stats()
	gauge(descOpen, float64(e.Open))
	count(descConnections, float64(e.Connections))
	for name, d := range e.Dialects {
		gauge(descSpoken, float64(d.Open), name)
		count(descSpokenTotal, float64(d.Connections), name)
	}
	gauge(descSockets, float64(e.Sockets))
	gauge(descNotLoggedIn, float64(e.NotLoggedIn))
	for reason, v := range e.Refused {
		count(descTurnedAway, float64(v), reason)
	}
	for result, v := range e.Outdated {
		count(descOutdated, float64(v), result)
	}
	for result, v := range e.Logins {
		count(descLogins, float64(v), result)
	}
	for reason, v := range e.Closed {
		count(descClosed, float64(v), reason)
	}
	for l, v := range byLabel(e.In) {
		count(descIn, v, l.topic, l.action)
	}
	for l, v := range byLabel(e.Out) {
		count(descOut, v, l.topic, l.action)
	}
	refused := make(map[RateLimit]uint64) // two entries may say the same
	for _, l := range n.pipe.rates.stats() {
		refused[RateLimit{Topic: l.Topic, Action: l.Action, Role: l.Role}] += l.Refused
	}
	for l, v := range refused {
		count(descRateRefused, float64(v), strings.ToUpper(l.Topic), strings.ToUpper(l.Action), l.Role)
	}
	count(descOversize, float64(e.Oversize))
	count(descUndecodable, float64(e.Undecodable))
	count(descBytes, float64(e.BytesIn), "in")
	count(descBytes, float64(e.BytesOut), "out")
	count(descPanics, float64(e.Panics))
	for _, d := range n.rules.Stats() {
		count(descDecisions, float64(d.Count), d.Section, d.Rule, d.Result)
	}
	for topic, subs := range map[string]*sub.Registry{"EVENT": n.eventSubs, "RECORD": n.recordSubs} {
		st := subs.Stats()
		gauge(descSubs, float64(st.Subscriptions), topic)
		gauge(descSubNames, float64(st.Names), topic)
		count(descSubsRefused, float64(st.Refused), topic)
		wild := subs.WildStats()
		gauge(descFilters, float64(wild.Filters), topic)
		count(descWild, float64(wild.Delivered), topic, "delivered")
		count(descWild, float64(wild.Withheld), topic, "withheld")
		count(descWild, float64(wild.Judged), topic, "judged")
		count(descWild, float64(wild.Overflows), topic, "overflow")
	}
	if n.mqtt != nil {
		count(descWildRefused, float64(n.mqtt.WildcardsRefused()))
	}
	ev := n.event.Stats()
	count(descEvents, float64(ev.Emitted), "emitted")
	count(descEvents, float64(ev.Delivered), "delivered")
	count(descEvents, float64(ev.Refused), "refused")
	count(descEvents, float64(ev.Published), "published")
	count(descEvents, float64(ev.Received), "received")
	count(descEvents, float64(ev.Unknown), "unknown")
	calls := n.rpc.Stats()
	for end, v := range map[string]uint64{
		"response": calls.Responses, "error": calls.Errors, "no provider": calls.NoProvider,
		"accept timeout": calls.AcceptTimeouts, "response timeout": calls.ResponseTimeouts, "abandoned": calls.Abandoned,
	} {
		count(descRPCs, float64(v), end)
	}
	gauge(descRPCRunning, float64(calls.Running))
	gauge(descRPCServing, float64(calls.Serving))
	count(descRPCPeers, float64(calls.Forwarded), "forwarded")
	count(descRPCPeers, float64(calls.Returned), "returned")
	count(descRPCPeers, float64(calls.Served), "served")
	count(descRPCPeers, float64(calls.Unknown), "unknown")
	count(descRPCPeers, float64(calls.Crowded), "crowded")
	gauge(descProviders, float64(calls.Providers))
	count(descSubsRefused, float64(calls.Full), "RPC")
	present := n.presence.Stats()
	gauge(descUsers, float64(present.Users))
	gauge(descUsersAway, float64(present.Elsewhere))
	for set, st := range map[string]cluster.SetStats{"rpc": n.rpc.Peers(), "presence": n.presence.Peers()} {
		gauge(descSetNames, float64(st.Own), set, "own")
		gauge(descSetNames, float64(st.Others), set, "others")
		count(descSetMessages, float64(st.Sent), set, "sent")
		count(descSetMessages, float64(st.Heard), set, "heard")
		count(descSetMessages, float64(st.Invalid), set, "unknown")
	}
	count(descSubsRefused, float64(present.Refused), "PRESENCE")
	n.collectCluster(count, gauge)
	for topic, l := range map[string]*listen.Registry{"EVENT": n.eventListen, "RECORD": n.recordListen} {
		st := l.Stats()
		gauge(descPatterns, float64(st.Patterns), topic)
		gauge(descProvided, float64(st.Provided), topic)
		count(descListenRefused, float64(st.Refused), topic, "pattern refused")
		count(descListenRefused, float64(st.SwitchedOff), topic, "pattern switched off")
		count(descListenRefused, float64(st.Skipped), topic, "match skipped")
	}
	n.collectTokens(count, gauge)
	n.collectRegistration(count, gauge)
	n.collectKeySets(gauge)
	n.collectAPI(count, gauge)
	if ready := len(n.Ready()) == 0; ready {
		gauge(descReady, 1)
	} else {
		gauge(descReady, 0)
	}
	records := n.serving()
	if records == nil {
		return
	}
	r := records.Stats()
	count(descWrites, float64(r.Writes), "accepted")
	count(descWrites, float64(r.Refused-r.Conflicts), "refused")
	count(descWrites, float64(r.Conflicts), "conflict")
	count(descWrites, float64(r.Denied), "denied")
	count(descCommits, float64(r.Commits))
	count(descCommitted, float64(r.Committed))
	count(descLoads, float64(r.Loads-r.LoadErrors), "ok")
	count(descLoads, float64(r.LoadErrors), "failed")
	count(descAppendFails, float64(r.AppendErrors))
	gauge(descCache, float64(r.CacheBytes))
	gauge(descCacheNames, float64(r.CacheRecords))
	gauge(descOwned, float64(r.Owned))
	count(descRecordPeers, float64(r.Forwarded), "forwarded")
	count(descRecordPeers, float64(r.Received), "received")
	count(descRecordPeers, float64(r.Moved), "moved")
	count(descRecordPeers, float64(r.Resent), "resent")
	count(descResyncs, float64(r.Resyncs))
	gauge(descInterests, float64(r.Interests))
	n.collectStores(count, gauge)
	if l := n.stored().loginStore(); l != nil {
		entries, bytes := l.size(context.Background()) // bounded by itself
		gauge(descLoginCount, entries)
		gauge(descLoginBytes, bytes)
		for call, v := range l.Calls() {
			count(descLoginCalls, float64(v), call.Op, call.Outcome)
		}
	}
}

// collectCluster tells of the other nodes, where there are any.
func (n *Node) collectCluster(count, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	s, ok := n.place.Stats()
	if !ok {
		return
	}
	alive, dead := 0, 0
	for _, m := range n.place.Members() {
		if m.Alive {
			alive++
		} else {
			dead++
		}
	}
	gauge(descMembers, float64(alive), "alive")
	gauge(descMembers, float64(dead), "dead")
	gauge(descTerm, float64(s.Term))
	gauge(descLinks, float64(s.Links.Links))
	gauge(descLinkQueued, float64(s.Links.Queued))
	for direction, t := range map[string]cluster.Traffic{"out": s.Links.Sent, "in": s.Links.Received} {
		count(descLinkBytes, float64(t.Bytes), direction)
		count(descLinkMessages, float64(t.Messages), direction)
	}
	for reason, v := range s.Links.Ends {
		count(descLinkEnds, float64(v), reason)
	}
	refused := make(map[string]uint64)
	for _, by := range []map[string]uint64{s.Port.Refused, s.Links.Refused} {
		for reason, v := range by {
			refused[reason] += v
		}
	}
	for reason, v := range refused {
		count(descStrangers, float64(v), reason)
	}
	for what, v := range map[string]uint64{
		"published": s.Slots.Published, "heard": s.Slots.Heard, "dropped": s.Slots.Dropped, "missed": s.Slots.Missed, "unknown": s.Slots.Malformed,
	} {
		count(descSlots, float64(v), what)
	}
}

// collectStores adds up what the stores of this node's partitions count.
func (n *Node) collectStores(count, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	st := n.stored()
	if st.server == nil {
		return
	}
	disk := st.server.Stats()
	count(descRestarts, float64(disk.Restarts), "ok")
	count(descRestarts, float64(disk.FailedRestarts), "failed")
	gauge(descDiskTotal, float64(disk.DiskTotal))
	gauge(descDiskFree, float64(disk.DiskFree))
	gauge(descDiskReserve, float64(disk.DiskReserve))
	var sum jetstream.LogStats
	for _, one := range st.all() {
		l := one.Stats(context.Background()) // bounded by itself
		sum.Pending += l.Pending
		sum.Dirty += l.Dirty
		sum.Bytes += l.Bytes
		sum.State.Bytes += l.State.Bytes
		sum.State.Messages += l.State.Messages
		sum.State.Tombstones += l.State.Tombstones
		sum.Checkpoints += l.Checkpoints
		sum.CheckpointFailures += l.CheckpointFailures
		if sum.LastCheckpoint.IsZero() || !l.LastCheckpoint.IsZero() && l.LastCheckpoint.Before(sum.LastCheckpoint) {
			sum.LastCheckpoint = l.LastCheckpoint
		}
	}
	gauge(descLogPending, float64(sum.Pending))
	gauge(descLogDirty, float64(sum.Dirty))
	gauge(descLogBytes, float64(sum.Bytes))
	gauge(descStateBytes, float64(sum.State.Bytes))
	gauge(descStateCount, float64(sum.State.Messages))
	gauge(descTombstones, float64(sum.State.Tombstones))
	count(descCheckpoints, float64(sum.Checkpoints), "ok")
	count(descCheckpoints, float64(sum.CheckpointFailures), "failed")
	at := 0.0
	if !sum.LastCheckpoint.IsZero() {
		at = float64(sum.LastCheckpoint.UnixMilli()) / 1000
	}
	gauge(descChecked, at)
}

// messageLabels are those of a count of messages.
type messageLabels struct{ topic, action string }

// byLabel adds up what has the same labels, which Prometheus wants to see once: any
// client can make up actions.
func byLabel(counts []endpoint.MessageCount) map[messageLabels]float64 {
	sums := make(map[messageLabels]float64)
	for _, c := range counts {
		sums[messageLabels{c.Topic.String(), actionLabel(c.Topic, c.Action)}] += float64(c.N)
	}
	return sums
}

// actionLabel is the action's name; all numbers that the protocol does not know
// share one.
func actionLabel(t protocol.Topic, a protocol.Action) string {
	if !a.Known(t) {
		return "UNKNOWN"
	}
	return a.Name(t)
}
