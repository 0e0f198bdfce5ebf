package target

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hadal/node/admin"
)

// Spec says which nodes to start.
type Spec struct {
	Binary string            // hadal
	Nodes  int               // 1 is a node that runs alone, more are a cluster
	Config string            // the text of their configuration file
	Files  map[string]string // what lies beside it, by name
	Env    []string
}

// readyIn is how long nodes have to become a cluster in which every partition has an owner.
const readyIn = 2 * time.Minute

// StartNodes starts nodes on loopback, with data of their own, which goes with Stop, and returns when
// they serve clients. HADAL_ variables of this program's own environment are not theirs:
// they would be keys of the configuration.
func StartNodes(ctx context.Context, s Spec) (_ []*Node, err error) {
	binary, err := filepath.Abs(s.Binary)
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HADAL_") })
	env = append(env, s.Env...)
	nodes := make([]*Node, s.Nodes)
	args := make([][]string, s.Nodes)
	if s.Nodes > 1 {
		env = append(env, "HADAL_CLUSTER_SECRET=a cluster for a bench, on loopback")
		join, err := freePairs(s.Nodes)
		if err != nil {
			return nil, err
		}
		for i, address := range join {
			args[i] = []string{"--node-name", string(rune('a' + i)), "--cluster-name", "bench", "--cluster-listen", address,
				"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(s.Nodes)}
		}
	}
	errs := make([]error, s.Nodes)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { nodes[i], errs[i] = startOne(ctx, binary, s, args[i], env) })
	}
	wg.Wait()
	nodes = slices.DeleteFunc(nodes, func(n *Node) bool { return n == nil })
	err = errors.Join(errs...)
	if err == nil {
		err = awaitOwners(ctx, nodes)
	}
	if err != nil {
		return nil, errors.Join(err, StopNodes(nodes))
	}
	return nodes, nil
}

func startOne(ctx context.Context, binary string, s Spec, args, env []string) (_ *Node, err error) {
	n := &Node{}
	if n.dir, err = os.MkdirTemp("", "hadal-"); err != nil {
		return nil, err
	}
	n.DataDir = filepath.Join(n.dir, "data")
	file := filepath.Join(n.dir, "config.yml")
	err = os.WriteFile(file, []byte(s.Config), 0o600)
	for name, text := range s.Files {
		err = errors.Join(err, os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600))
	}
	if err == nil {
		err = n.start(ctx, binary, append(args, "--config", file, "--host", "127.0.0.1"), env)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir))
	}
	return n, nil
}

// StopNodes stops all nodes at once.
func StopNodes(nodes []*Node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// freePairs are addresses on loopback where neither the port nor the next one is listened
// on, below the ports that the system takes for outgoing connections.
func freePairs(n int) ([]string, error) {
	var found []string
	for try := 0; len(found) < n; try++ {
		if try == 1000 {
			return nil, errors.New("no two free ports in a row between 20000 and 32000 on loopback")
		}
		port := 20000 + 2*rand.IntN(6000)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if !slices.Contains(found, address) && unused(address) && unused(fmt.Sprintf("127.0.0.1:%d", port+1)) {
			found = append(found, address)
		}
	}
	return found, nil
}

func unused(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// awaitOwners waits until all nodes are ready and every partition has an owner.
func awaitOwners(ctx context.Context, nodes []*Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	for _, n := range nodes {
		for !n.serves(ctx, len(nodes) > 1) {
			if err := Pause(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("the nodes do not become ready: %w", err)
			}
		}
	}
	return nil
}

func (n *Node) serves(ctx context.Context, clustered bool) bool {
	web := "http" + strings.TrimPrefix(n.URL, "ws")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, web[:strings.LastIndexByte(web, '/')]+"/readyz", nil)
	if err != nil {
		return false
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return false
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		return false
	}
	if !clustered {
		return true
	}
	c := admin.OverSocket(n.Socket)
	defer c.Close()
	s, err := c.Cluster(ctx)
	if err != nil || len(s.Partitions) == 0 {
		return false
	}
	return !slices.ContainsFunc(s.Partitions, func(p admin.PartitionStatus) bool { return p.Owner == "" })
}
