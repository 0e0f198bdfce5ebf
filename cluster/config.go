package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config says whether a node runs alone or is one of a cluster, and how the nodes
// of the cluster find and trust each other. The keys are Hadal's own.
type Config struct {
	// Name is the name of the cluster, the same on every node. Empty is a node that
	// runs alone.
	Name string `yaml:"name"`
	// Listen is the address and port for the other nodes, such as 10.0.0.1:6222: the
	// embedded NATS servers meet there, raft and the links between nodes on the next
	// port.
	Listen string `yaml:"listen"`
	// Advertise is the address and port at which the others reach Listen, when it is
	// another one, as with containers.
	Advertise string `yaml:"advertise"`
	// Join lists addresses of nodes to meet at a start, this one among them or not. A
	// name may stand for several addresses.
	Join []string `yaml:"join"`
	// BootstrapExpect is how many core nodes have to see each other before they make
	// a new cluster. 0 is as many as Join lists, this node included.
	BootstrapExpect int `yaml:"bootstrapExpect"`
	// Secret is what the nodes know of each other by, at least 16 bytes: the
	// certificates between nodes are made from it. Either it or tls is required.
	Secret string `yaml:"secret"`
	// TLS names the certificates between nodes, instead of secret.
	TLS TLSFiles `yaml:"tls"`
	// Role is "core" for a node that votes and keeps data, or "edge" for one that
	// carries clients only.
	Role Role `yaml:"role"`
	// Partitions is how many parts the records are kept in, each with an owner of its
	// own. It counts when the cluster is made, and never changes afterwards.
	Partitions int `yaml:"partitions"`
	// Replicas is on how many core nodes each record is kept: 1, 3 or 5. 0 is 5 where
	// there are so many core nodes, else 3.
	Replicas int `yaml:"replicas"`
	// FailureTimeout is how long a node may be silent before the others take over what
	// it owns. A shorter time is noticed sooner, and sooner by mistake.
	FailureTimeout time.Duration `yaml:"failureTimeout"`
	// FastFailover has JetStream elect new leaders within a second, by timers that it
	// does not offer to be set; without it that takes up to ten seconds.
	FastFailover bool `yaml:"fastFailover"`
	// DrainTime is over how long a node that leaves spreads the goodbyes to its
	// clients.
	DrainTime time.Duration `yaml:"drainTime"`
	// PublicURL is where clients reach this very node, such as
	// wss://a.example.com/deepstream: clients of a node that leaves are sent to those of
	// the others. Empty leaves it to the clients to come back.
	PublicURL string `yaml:"publicUrl"`
}

// TLSFiles are PEM files: this node's certificate (and what is between it and the
// authority), its key, and the authorities that sign the certificates of nodes. The
// certificate must be good for servers and for clients. A URI in it of the form
// hadal:///CLUSTER or hadal:///CLUSTER/NODE-ID, where it has one, binds it to them.
type TLSFiles struct {
	// CertFile is this node's certificate, followed by its chain. They are all read again when
	// they change.
	CertFile string `yaml:"certFile"`
	// KeyFile is its private key.
	KeyFile string `yaml:"keyFile"`
	// CAFile holds the authorities that sign the certificates of nodes, and nothing else.
	CAFile string `yaml:"caFile"`
}

// DefaultConfig is a node that runs alone.
func DefaultConfig() Config {
	return Config{
		Listen: "0.0.0.0:6222", Role: RoleCore, Partitions: 6, FailureTimeout: time.Second, FastFailover: true,
		DrainTime: 10 * time.Second,
	}
}

// Enabled says whether the node is one of a cluster.
func (c Config) Enabled() bool { return c.Name != "" }

// leastSecret is how many bytes a secret has at least.
const leastSecret = 16

// Validate joins every mistake, each opening with its key.
func (c Config) Validate() error {
	var errs []error
	add := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("cluster."+key+": "+format, args...))
	}
	if !c.Enabled() {
		for key, set := range map[string]bool{
			"join": len(c.Join) > 0, "secret": c.Secret != "", "advertise": c.Advertise != "", "bootstrapExpect": c.BootstrapExpect != 0,
		} {
			if set {
				add("name", "must be set where cluster.%s is: a node without it runs alone", key)
				break
			}
		}
		return errors.Join(errs...)
	}
	if strings.ContainsFunc(c.Name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`.*>/\"`, r) }) || len(c.Name) > 64 {
		add("name", "%q is not a name for a cluster: use up to 64 letters, digits, - and _", c.Name)
	}
	if err := checkAddr(c.Listen, true); err != nil {
		add("listen", "%v", err)
	}
	if c.Advertise != "" {
		if err := checkAddr(c.Advertise, false); err != nil {
			add("advertise", "%v", err)
		}
	}
	for i, addr := range c.Join {
		if err := checkAddr(addr, false); err != nil {
			add(fmt.Sprintf("join[%d]", i), "%v", err)
		}
	}
	if len(c.Join) == 0 {
		add("join", "is empty, so that no other node could be found: list addresses of the cluster's nodes")
	}
	if n := c.BootstrapExpect; n < 0 || n == 1 {
		add("bootstrapExpect", "%d core nodes are no cluster: it begins with at least two, and three keep records when one is lost", n)
	}
	files := 0
	for _, f := range []string{c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile} {
		if f != "" {
			files++
		}
	}
	switch {
	case files > 0 && files < 3:
		add("tls", "needs certFile, keyFile and caFile")
	case files == 3 && c.Secret != "":
		add("secret", "is set as well as cluster.tls: keep one of them")
	case files == 0 && c.Secret == "":
		add("secret", "must be set, or cluster.tls: nodes trust nobody who cannot prove to belong to them")
	case files == 0 && len(c.Secret) < leastSecret:
		add("secret", "is too short: it must have at least %d bytes (openssl rand -hex 32 makes one)", leastSecret)
	}
	if c.Role != RoleCore && c.Role != RoleEdge {
		add("role", "%q is not one of core, edge", c.Role)
	}
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		add("partitions", "%d is not between 1 and %d", c.Partitions, maxPartitions)
	}
	switch c.Replicas {
	case 0, 1, 3, 5:
	default:
		add("replicas", "%d is not one of 0, 1, 3, 5", c.Replicas)
	}
	if c.FailureTimeout < 500*time.Millisecond || c.FailureTimeout > time.Minute {
		add("failureTimeout", "%v is not between 500ms and 1m", c.FailureTimeout)
	}
	if c.DrainTime < 0 {
		add("drainTime", "%v is negative", c.DrainTime)
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss") {
		add("publicUrl", "%q is not where clients connect: write it as wss://a.example.com/deepstream", c.PublicURL)
	}
	return errors.Join(errs...)
}

// checkAddr says what is wrong with an address. Raft and the links use the next port.
func checkAddr(addr string, listen bool) error {
	host, port, err := net.SplitHostPort(addr)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || portErr != nil:
		return fmt.Errorf("%q is not an address with a port: write it as host:6222", addr)
	case host == "" && !listen:
		return fmt.Errorf("%q has no host", addr)
	case n == 0 || n == 65535:
		return fmt.Errorf("%q: the port must be between 1 and 65534, because the next one is used too", addr)
	}
	return nil
}
