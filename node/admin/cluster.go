package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Cluster is what the admin API shows and does of the cluster. Any node can be asked,
// of any node; one that runs alone is a cluster of one.
type Cluster interface {
	// Status is what this node knows of the cluster.
	Status(ctx context.Context) (ClusterStatus, error)
	// Drain has a node give away what it owns, get nothing new, and say goodbye to its
	// clients; or, with on false, ends that.
	Drain(ctx context.Context, node string, on bool) error
	// Remove has the cluster forget a node that does not run any more.
	Remove(ctx context.Context, node string) error
	// Move makes a node the owner of a partition.
	Move(ctx context.Context, partition int, node string) error
}

// ErrNoSuchNode, ErrNotPossible and ErrNoQuorum are what a Cluster refuses with; the text
// around them says what and why.
var (
	ErrNoSuchNode  = errors.New("no such node")
	ErrNotPossible = errors.New("not possible")
	ErrNoQuorum    = errors.New("the cluster has no leader")
)

// ClusterStatus is what a node knows of its cluster.
type ClusterStatus struct {
	// ID is random, made with the cluster; Name is for people, and empty for a node
	// that runs alone.
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// Self is the id of the node that was asked, Leader that of raft's leader, empty
	// when there is none, Term its term.
	Self   string `json:"self"`
	Leader string `json:"leader,omitempty"`
	Term   uint64 `json:"term"`
	// Nodes are all nodes, by name.
	Nodes []NodeStatus `json:"nodes"`
	// Partitions are all of them, in order.
	Partitions []PartitionStatus `json:"partitions"`
	// Logins is the stream of what logins keep. It is not there where a node runs alone, or
	// while nobody can say.
	Logins *StreamStatus `json:"logins,omitempty"`
}

// NodeStatus is what is known of a node.
type NodeStatus struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Role is core or edge; Voter says whether it has a vote.
	Role  string `json:"role"`
	Voter bool   `json:"voter"`
	// Alive says whether the cluster counts on it, Linked whether the node that was
	// asked has a link to it.
	Alive    bool `json:"alive"`
	Linked   bool `json:"linked"`
	Draining bool `json:"draining"`
	// Unfit says that it cannot write to its disk, so it owns no records; as it last told.
	Unfit bool `json:"unfit"`
	// Address is where the other nodes reach it, URL where clients do, if it says so.
	Address string `json:"address,omitempty"`
	URL     string `json:"url,omitempty"`
	// Version and Clients are as it last told.
	Version string `json:"version,omitempty"`
	Clients int    `json:"clients"`
	// Partitions is how many it owns.
	Partitions int `json:"partitions"`
}

// PartitionStatus is what is known of a partition.
type PartitionStatus struct {
	Partition int `json:"partition"`
	// Owner is the id of a node, empty when there is none.
	Owner string `json:"owner,omitempty"`
	Epoch uint64 `json:"epoch"`
	// Replicas are the ids of the nodes that keep it.
	Replicas []string `json:"replicas,omitempty"`
	// Streams are what the node that was asked can say of its streams.
	Streams []StreamStatus `json:"streams,omitempty"`
}

// StreamStatus is what is known of a stream.
type StreamStatus struct {
	Name string `json:"name"`
	// Leader is the id of the node that leads it.
	Leader string `json:"leader,omitempty"`
	// Replicas is how many nodes are to keep it, Current how many of them are up to
	// date, Lag by how many messages the last one is behind.
	Replicas int    `json:"replicas"`
	Current  int    `json:"current"`
	Lag      uint64 `json:"lag"`
	// Behind are those that are not up to date.
	Behind []Behind `json:"behind,omitempty"`
	// Messages and Bytes are what it holds.
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// Behind is a node whose replica of a stream is not up to date, as the stream's leader
// sees it.
type Behind struct {
	Node string `json:"node"`
	Lag  uint64 `json:"lag"`
	// Offline says that the leader has not heard of it for a while, Seen how long ago it did,
	// in seconds.
	Offline bool    `json:"offline,omitempty"`
	Seen    float64 `json:"seen"`
}

// clusterTime bounds a request about the cluster.
const clusterTime = 30 * time.Second

// clusterAPI answers the requests about the cluster.
type clusterAPI struct{ cluster Cluster }

func (a clusterAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /cluster", func(w http.ResponseWriter, r *http.Request) {
		ctx, done := context.WithTimeout(r.Context(), clusterTime)
		defer done()
		s, err := a.cluster.Status(ctx)
		if err != nil {
			a.failed(w, err)
			return
		}
		answer(w, http.StatusOK, s)
	})
	a.action(mux, "POST /cluster/drain", func(ctx context.Context, q url.Values) error {
		on, err := strconv.ParseBool(q.Get("on"))
		if err != nil {
			return &badQuery{"say on=true or on=false"}
		}
		return a.cluster.Drain(ctx, q.Get("node"), on)
	})
	a.action(mux, "POST /cluster/remove", func(ctx context.Context, q url.Values) error {
		return a.cluster.Remove(ctx, q.Get("node"))
	})
	a.action(mux, "POST /cluster/move", func(ctx context.Context, q url.Values) error {
		p, err := strconv.Atoi(q.Get("partition"))
		if err != nil {
			return &badQuery{"partition must be a number"}
		}
		return a.cluster.Move(ctx, p, q.Get("node"))
	})
}

// badQuery is what is wrong with a request.
type badQuery struct{ text string }

// Error implements error.
func (e *badQuery) Error() string { return e.text }

// action serves a change, which answers with nothing.
func (a clusterAPI) action(mux *http.ServeMux, pattern string, do func(context.Context, url.Values) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, done := context.WithTimeout(r.Context(), clusterTime)
		defer done()
		if err := do(ctx, r.URL.Query()); err != nil {
			a.failed(w, err)
			return
		}
		answer(w, http.StatusOK, struct{}{})
	})
}

func (a clusterAPI) failed(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	bad := (*badQuery)(nil)
	switch {
	case errors.As(err, &bad):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNoSuchNode):
		status = http.StatusNotFound
	case errors.Is(err, ErrNotPossible):
		status = http.StatusConflict
	case errors.Is(err, ErrNoQuorum), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	refuse(w, status, err.Error())
}

// Cluster is what the node knows of its cluster.
func (c *Client) Cluster(ctx context.Context) (s ClusterStatus, err error) {
	err = c.decode(ctx, http.MethodGet, "/cluster", nil, nil, &s)
	return s, err
}

// Drain has a node, by name or id, give away what it owns and say goodbye to its
// clients; or ends that.
func (c *Client) Drain(ctx context.Context, node string, on bool) error {
	return c.act(ctx, "/cluster/drain", url.Values{"node": {node}, "on": {strconv.FormatBool(on)}})
}

// RemoveNode has the cluster forget a node, by name or id.
func (c *Client) RemoveNode(ctx context.Context, node string) error {
	return c.act(ctx, "/cluster/remove", url.Values{"node": {node}})
}

// MovePartition makes a node, by name or id, the owner of a partition.
func (c *Client) MovePartition(ctx context.Context, partition int, node string) error {
	return c.act(ctx, "/cluster/move", url.Values{"partition": {strconv.Itoa(partition)}, "node": {node}})
}

func (c *Client) act(ctx context.Context, path string, query url.Values) error {
	return c.decode(ctx, http.MethodPost, path, query, nil, &struct{}{})
}
