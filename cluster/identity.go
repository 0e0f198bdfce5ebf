package cluster

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MinSecret is how many bytes a cluster's secret must have.
const MinSecret = 16

// Of the certificates that a node makes itself.
const (
	leafBefore = 7 * 24 * time.Hour  // how far a peer's clock may be behind
	leafAfter  = 60 * 24 * time.Hour // how long one is good
	leafRenew  = 30 * 24 * time.Hour // how much of that is left when the next is made
)

// IdentityConfig says how nodes of a cluster know each other. Either the secret or
// the files are given.
type IdentityConfig struct {
	// Cluster is the name of the cluster.
	Cluster string
	// Node is this node's id.
	Node string
	// Secret is known to all nodes and to nobody else. Whoever connects can guess at
	// it at leisure, so it should be random: `openssl rand -hex 32`.
	Secret string
	// Files hold certificates that somebody else issues.
	Files TLSFiles
}

// Identity is what a node shows to other nodes, and how it knows theirs: mutual TLS
// 1.3, always.
//
// A peer is trusted when its certificate leads to the cluster's authority, is good
// for its end of the connection, and names no other cluster and no other node than
// it says it is. Names of hosts do not matter: a node is reached by many. So that a
// certificate that names no cluster (one of somebody's own authority) does not get
// into the wrong one by mistake, the side that dials says the cluster's name in
// place of the host's (SNI), and the other side compares.
//
// With a secret the authority is derived from it: each node computes the same key and
// the same certificate, byte for byte, and signs its own certificate with it, whose key is
// random and never leaves memory. It is renewed while the node runs, at the first
// handshake when half of its time is over. Made so, the node's id in it can be relied on. With files
// it is the authority's affair what it signs.
type Identity struct {
	cluster, node string
	log           *slog.Logger
	files         TLSFiles           // empty with a secret
	ca            *x509.Certificate  // with a secret
	caKey         ed25519.PrivateKey // with a secret
	caPool        *x509.CertPool     // with a secret

	current atomic.Pointer[credentials]
	mu      sync.Mutex // held while current is replaced
}

// credentials are what a handshake needs.
type credentials struct {
	cert     tls.Certificate
	roots    *x509.CertPool
	from, to time.Time // between which every certificate up to the authority is good
	raw      rawFiles  // to notice a change
}

// clusterName is what a cluster may be called: it stands in certificates, in place of
// a host's name, and in subjects.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]*\.?[A-Za-z0-9_-]+)*$`)

// CheckClusterName says what is wrong with the name of a cluster.
func CheckClusterName(name string) error {
	if len(name) > 63 || !clusterName.MatchString(name) {
		return fmt.Errorf("cluster name %q: use up to 63 letters, digits, hyphens, underscores and single dots", name)
	}
	return nil
}

// NewIdentity derives or reads what the configuration names. The error says what to
// change; it never holds the secret.
func NewIdentity(cfg IdentityConfig, log *slog.Logger) (*Identity, error) {
	if err := CheckClusterName(cfg.Cluster); err != nil {
		return nil, err
	}
	if cfg.Node == "" || strings.Contains(cfg.Node, "/") {
		return nil, fmt.Errorf("node id %q cannot stand in a certificate", cfg.Node)
	}
	id := &Identity{cluster: cfg.Cluster, node: cfg.Node, log: log, files: cfg.Files}
	switch {
	case cfg.Secret != "" && cfg.Files != (TLSFiles{}):
		return nil, errors.New("cluster.secret and cluster.tls are both given: nodes know each other by one of them, remove the other")
	case cfg.Secret != "":
		if len(cfg.Secret) < MinSecret {
			return nil, fmt.Errorf("cluster.secret has %d bytes, at least %d are needed; make one with: openssl rand -hex 32", len(cfg.Secret), MinSecret)
		}
		if err := id.derive(cfg.Secret); err != nil {
			return nil, fmt.Errorf("cluster.secret: %w", err)
		}
		if _, err := id.credentials(); err != nil {
			return nil, err
		}
	case cfg.Files != (TLSFiles{}):
		raw, err := cfg.Files.read()
		if err != nil {
			return nil, err
		}
		c, err := newCredentials(raw, cfg.Files, cfg.Cluster)
		if err != nil {
			return nil, err
		}
		id.current.Store(c)
	default:
		return nil, errors.New("nodes need something to know each other by: give all of them the same cluster.secret (openssl rand -hex 32), or certificates in cluster.tls")
	}
	return id, nil
}

// derive makes the authority from the secret. Nothing in it depends on when or where.
func (id *Identity) derive(secret string) error {
	seed, err := hkdf.Key(sha256.New, []byte(secret), []byte("hadal cluster authority 1"), id.cluster, ed25519.SeedSize)
	if err != nil {
		return err
	}
	id.caKey = ed25519.NewKeyFromSeed(seed)
	public := id.caKey.Public().(ed25519.PublicKey)
	digest := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "hadal cluster " + id.cluster},
		NotBefore:             time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		SubjectKeyId:          digest[:20],
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	// Ed25519 signs without chance: the same bytes everywhere.
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, id.caKey)
	if err != nil {
		return err
	}
	if id.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	id.caPool = x509.NewCertPool()
	id.caPool.AddCert(id.ca)
	return nil
}

// credentials are the current ones. Those of a secret are renewed here, so that the
// clock may jump and no timer has to be right.
func (id *Identity) credentials() (*credentials, error) {
	now := time.Now()
	if c := id.current.Load(); c != nil && (id.ca == nil || c.fresh(now)) {
		return c, nil
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if c := id.current.Load(); c != nil && c.fresh(now) {
		return c, nil
	}
	c, err := id.issue(now)
	if err != nil {
		return nil, fmt.Errorf("make this node's certificate: %w", err)
	}
	id.current.Store(c)
	return c, nil
}

// fresh says whether made credentials need no renewal.
func (c *credentials) fresh(now time.Time) bool {
	return now.After(c.from) && now.Before(c.to.Add(-leafRenew))
}

// issue makes a certificate for this node.
func (id *Identity) issue(now time.Time) (*credentials, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id.node, Organization: []string{"hadal cluster " + id.cluster}},
		NotBefore:    now.Add(-leafBefore),
		NotAfter:     now.Add(leafAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "hadal", Path: "/" + id.cluster + "/" + id.node}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, id.ca, public, id.caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &credentials{
		cert:  tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		roots: id.caPool, from: leaf.NotBefore, to: leaf.NotAfter,
	}, nil
}

// ServerConfig is for the side that accepts connections.
func (id *Identity) ServerConfig(alpn ...string) *tls.Config {
	c := id.config(alpn)
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate() }
	c.ClientAuth = tls.RequireAnyClientCert // verified in VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error { return id.verify(cs, true) }
	return c
}

// ClientConfig is for the side that dials, by whatever name or address.
func (id *Identity) ClientConfig(alpn ...string) *tls.Config {
	c := id.config(alpn)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.certificate() }
	c.ServerName = id.serverName()
	c.InsecureSkipVerify = true // not by host name: verified in VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error { return id.verify(cs, false) }
	return c
}

// RouteConfig is for whoever takes one configuration for both ends, as the embedded NATS server
// does for its routes. It clones it and sets ServerName where that is empty, which here
// it is not; at the accepting end GetConfigForClient puts ServerConfig in its place.
// The server warns that verification by host name is off, which is meant so.
func (id *Identity) RouteConfig() *tls.Config {
	c := id.ClientConfig()
	server := id.ServerConfig()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil }
	// In use only if the hook were not: it must not be the weak place.
	c.ClientAuth = server.ClientAuth
	c.GetCertificate = server.GetCertificate
	return c
}

// config is what both ends have in common.
func (id *Identity) config(alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: alpn,
		// A resumed session would not show the certificate anew.
		SessionTicketsDisabled: true,
		// Batches are written whole; small records at the start would only cost.
		DynamicRecordSizingDisabled: true,
	}
}

// certificate is this node's.
func (id *Identity) certificate() (*tls.Certificate, error) {
	c, err := id.credentials()
	if err != nil {
		return nil, err
	}
	return &c.cert, nil
}

// serverName stands where the name of a host would.
func (id *Identity) serverName() string { return serverName(id.cluster) }

func serverName(cluster string) string { return cluster + ".hadal" }

// refusal is why a peer is refused, or why it refuses us.
type refusal struct {
	reason string // one of a few, for counting
	text   string
}

func (r *refusal) Error() string { return r.text }

// refuse makes a refusal.
func refuse(reason, format string, args ...any) error {
	return &refusal{reason: reason, text: fmt.Sprintf(format, args...)}
}

// Reasons to refuse a certificate.
const (
	refusedNoCertificate = "no certificate"
	refusedAuthority     = "unknown authority"
	refusedExpired       = "certificate expired"
	refusedEarly         = "certificate not yet valid"
	refusedCertificate   = "bad certificate"
	refusedCluster       = "other cluster name"
)

// verify is the whole check of a peer, at both ends.
func (id *Identity) verify(cs tls.ConnectionState, accepting bool) error {
	if len(cs.PeerCertificates) == 0 {
		return refuse(refusedNoCertificate, "the peer shows no certificate")
	}
	// First, because with a secret another cluster's authority is another one too.
	if accepting && cs.ServerName != id.serverName() {
		return refuse(refusedCluster, "the peer wants cluster %q, this is %q; cluster.name must be the same on all nodes",
			strings.TrimSuffix(cs.ServerName, ".hadal"), id.cluster)
	}
	c, err := id.credentials()
	if err != nil {
		return err
	}
	leaf := cs.PeerCertificates[0]
	usage := x509.ExtKeyUsageServerAuth
	if accepting {
		usage = x509.ExtKeyUsageClientAuth
	}
	between := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return id.explain(leaf, err)
	}
	peer := peerOf(leaf)
	if peer.cluster != "" && peer.cluster != id.cluster {
		return refuse(refusedCluster, "the peer's certificate is for cluster %q, this is %q", peer.cluster, id.cluster)
	}
	return nil
}

// explain says in words why a certificate is refused.
func (id *Identity) explain(leaf *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch now := time.Now(); {
	case errors.As(err, &unknown) && id.ca != nil:
		return refuse(refusedAuthority, "the peer's certificate is not of this cluster: cluster.secret and cluster.name must be the same on all nodes")
	case errors.As(err, &unknown):
		return refuse(refusedAuthority, "the peer's certificate %q is signed by no authority in %s", leaf.Subject, id.files.CAFile)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return refuse(refusedEarly, "the peer's certificate %q is good from %s on, and here it is %s; set the clocks",
			leaf.Subject, invalid.Cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refuse(refusedExpired, "the peer's certificate %q expired on %s, and here it is %s; renew it there, or set the clocks",
			leaf.Subject, invalid.Cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return refuse(refusedCertificate, "the peer's certificate %q: %v", leaf.Subject, err)
}

// certified is what a certificate says about its node. Either may be empty.
type certified struct{ cluster, node string }

// peerOf reads the certificate of a node.
func peerOf(leaf *x509.Certificate) certified {
	for _, u := range leaf.URIs {
		if u.Scheme != "hadal" {
			continue
		}
		cluster, node, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		return certified{cluster: cluster, node: node}
	}
	return certified{}
}
