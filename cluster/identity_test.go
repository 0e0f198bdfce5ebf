package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const testSecret = "0123456789abcdef0123456789abcdef"

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// secretIdentity is the identity of a node of cluster "prod".
func secretIdentity(t testing.TB, node string) *Identity {
	t.Helper()
	return identityOf(t, IdentityConfig{Cluster: "prod", Node: node, Secret: testSecret})
}

func identityOf(t testing.TB, cfg IdentityConfig) *Identity {
	t.Helper()
	id, err := NewIdentity(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shake makes a handshake over loopback (in a pipe both could block writing) and returns what each side says of it; the
// client after it has read a byte, as it learns late that it is refused.
func shake(t testing.TB, accepting, dialling *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		a, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		conn := tls.Server(a, accepting)
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		conn.Close()
		done <- err
	}()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(b, dialling)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	b.Close()
	return <-done, clientErr
}

// wantReason checks why a peer was refused.
func wantReason(t *testing.T, what string, err error, reason, word string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: accepted, want %q", what, reason)
		return
	}
	if got := reasonOf(err); got != reason || !strings.Contains(err.Error(), word) {
		t.Errorf("%s: %q, %v, want %q with %q", what, got, err, reason, word)
	}
}

func TestNodesWithOneSecretTrustEachOther(t *testing.T) {
	a, b := secretIdentity(t, "a"), secretIdentity(t, "b")
	if string(a.ca.Raw) != string(b.ca.Raw) {
		t.Error("two nodes derive different authorities from one secret")
	}
	if s, c := shake(t, a.ServerConfig("x"), b.ClientConfig("x")); s != nil || c != nil {
		t.Errorf("handshake = %v, %v", s, c)
	}
	if s, c := shake(t, a.RouteConfig(), b.RouteConfig()); s != nil || c != nil {
		t.Errorf("handshake of routes = %v, %v", s, c)
	}
	if got := peerOf(a.current.Load().cert.Leaf); got != (certified{"prod", "a"}) {
		t.Errorf("the certificate is for %+v", got)
	}
}

func TestCertificatesOfDifferentTimesVerifyEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := secretIdentity(t, "a")
		time.Sleep(50 * 24 * time.Hour) // in the bubble
		b := secretIdentity(t, "b")
		first := a.current.Load()
		if s, c := shake(t, a.ServerConfig(), b.ClientConfig()); s != nil || c != nil {
			t.Errorf("handshake after 50 days = %v, %v", s, c)
		}
		if a.current.Load() == first {
			t.Error("the certificate was not renewed in time")
		}
		time.Sleep(2 * 365 * 24 * time.Hour)
		if s, c := shake(t, b.ServerConfig(), a.ClientConfig()); s != nil || c != nil {
			t.Errorf("handshake after two years = %v, %v", s, c)
		}
	})
}

func TestStrangersAreRefusedInWords(t *testing.T) {
	a := secretIdentity(t, "a")
	other := identityOf(t, IdentityConfig{Cluster: "prod", Node: "b", Secret: strings.Repeat("x", 32)})
	_, c := shake(t, a.ServerConfig(), other.ClientConfig())
	wantReason(t, "the client, wrong secret", c, refusedAuthority, "cluster.secret")
	// A client that does not care is refused by the server.
	careless := other.ClientConfig()
	careless.VerifyConnection = nil
	s, c := shake(t, a.ServerConfig(), careless)
	wantReason(t, "the server, wrong secret", s, refusedAuthority, "cluster.secret")
	wantReason(t, "a client refused", c, refusedByPeer, "")

	named := identityOf(t, IdentityConfig{Cluster: "staging", Node: "b", Secret: testSecret})
	careless = named.ClientConfig()
	careless.VerifyConnection = nil
	s, _ = shake(t, a.ServerConfig(), careless)
	wantReason(t, "other cluster name", s, refusedCluster, `"staging"`)
	// For routes the accepting side is the same.
	s, _ = shake(t, a.RouteConfig(), careless)
	wantReason(t, "other cluster name on a route", s, refusedCluster, `"staging"`)

	bare := a.ClientConfig()
	bare.GetClientCertificate = nil
	s, _ = shake(t, a.ServerConfig(), bare)
	wantReason(t, "no certificate", s, refusedNoCertificate, "certificate")
	s, _ = shake(t, a.RouteConfig(), bare)
	wantReason(t, "no certificate on a route", s, refusedNoCertificate, "certificate")

	old := a.ClientConfig()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if s, _ := shake(t, a.ServerConfig(), old); s == nil {
		t.Error("TLS 1.2 is accepted")
	}
}

func TestAnIdentityThatCannotWorkIsRefused(t *testing.T) {
	for _, tt := range []struct {
		what, word string
		cfg        IdentityConfig
	}{
		{"nothing", "cluster.secret", IdentityConfig{Cluster: "prod", Node: "a"}},
		{"a short secret", "openssl", IdentityConfig{Cluster: "prod", Node: "a", Secret: "short"}},
		{"both", "remove the other", IdentityConfig{Cluster: "prod", Node: "a", Secret: testSecret, Files: TLSFiles{CertFile: "x"}}},
		{"no name", "cluster name", IdentityConfig{Node: "a", Secret: testSecret}},
		{"a name with a space", "cluster name", IdentityConfig{Cluster: "a b", Node: "a", Secret: testSecret}},
		{"a name that ends with a dot", "cluster name", IdentityConfig{Cluster: "a.", Node: "a", Secret: testSecret}},
		{"missing file", "keyFile", IdentityConfig{Cluster: "prod", Node: "a", Files: TLSFiles{CertFile: os.DevNull}}},
	} {
		_, err := NewIdentity(tt.cfg, quiet())
		if err == nil || !strings.Contains(err.Error(), tt.word) || strings.Contains(err.Error(), "short secret") {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.word)
		}
	}
}

// authority issues certificates as an operator would.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue writes a certificate that ends after d, for the usages and the URI.
func (a *authority) issue(files TLSFiles, d time.Duration, uri string, usages ...x509.ExtKeyUsage) {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(d), ExtKeyUsage: usages,
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		files.CertFile: {Type: "CERTIFICATE", Bytes: der},
		files.KeyFile:  {Type: "PRIVATE KEY", Bytes: raw},
		files.CAFile:   {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

func testFiles(t testing.TB) TLSFiles {
	dir := t.TempDir()
	return TLSFiles{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), CAFile: filepath.Join(dir, "ca")}
}

func TestCertificateFilesAreTakenAnewWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, files := newAuthority(t), testFiles(t)
		a.issue(files, 25*time.Hour, "", bothUsages...)
		log := &lines{}
		id, err := NewIdentity(IdentityConfig{Cluster: "prod", Node: "n", Files: files}, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextOf(t)
		done := make(chan error, 1)
		go func() { done <- id.Run(ctx) }()
		synctest.Wait()
		if !log.has("expires soon") || !log.has("days=1") {
			t.Errorf("the log says %q, want the days that are left", log.String())
		}
		if s, c := shake(t, id.ServerConfig("x"), id.ClientConfig("x")); s != nil || c != nil {
			t.Errorf("handshake = %v, %v", s, c)
		}
		// Half a pair is no pair.
		whole, err := os.ReadFile(files.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.KeyFile, whole[:len(whole)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * filesPoll)
		synctest.Wait()
		if !log.has("cannot be renewed") {
			t.Errorf("the log says %q, want the damaged key", log.String())
		}
		a.issue(files, 40*time.Hour, "", bothUsages...)
		time.Sleep(2 * filesPoll)
		synctest.Wait()
		if left := time.Until(id.Expires()); left < 39*time.Hour || !log.has("renewed") {
			t.Errorf("the certificate in use ends in %v", left)
		}
		if s, c := shake(t, id.ServerConfig("x"), id.ClientConfig("x")); s != nil || c != nil {
			t.Errorf("handshake after renewal = %v, %v", s, c)
		}
		// It expires, and nobody renews it.
		other := identityOf(t, IdentityConfig{Cluster: "prod", Node: "m", Files: files})
		time.Sleep(45 * time.Hour)
		synctest.Wait()
		if !log.has("has expired") {
			t.Errorf("the log does not say that the certificate has expired")
		}
		careless := other.ClientConfig()
		careless.VerifyConnection = nil
		s, _ := shake(t, id.ServerConfig(), careless)
		wantReason(t, "an expired certificate", s, refusedExpired, "renew it there")
		if _, err := NewIdentity(IdentityConfig{Cluster: "prod", Node: "n", Files: files}, quiet()); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("a start with an expired certificate = %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestCertificateFilesThatPeersWouldRefuseAreRefusedAtTheStart(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		what, uri, word string
		usages          []x509.ExtKeyUsage
	}{
		{"for servers only", "", "as a client's", bothUsages[:1]},
		{"for clients only", "", "as a server's", bothUsages[1:]},
		{"for another cluster", "hadal:///staging", `"staging"`, bothUsages},
	} {
		files := testFiles(t)
		a.issue(files, time.Hour, tt.uri, tt.usages...)
		if _, err := NewIdentity(IdentityConfig{Cluster: "prod", Node: "n", Files: files}, quiet()); err == nil || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.word)
		}
	}
	files := testFiles(t)
	a.issue(files, time.Hour, "", bothUsages...)
	newAuthority(t).issue(TLSFiles{CertFile: filepath.Join(t.TempDir(), "x"), KeyFile: filepath.Join(t.TempDir(), "y"), CAFile: files.CAFile}, time.Hour, "", bothUsages...)
	if _, err := NewIdentity(IdentityConfig{Cluster: "prod", Node: "n", Files: files}, quiet()); err == nil {
		t.Error("a certificate of another authority is accepted")
	}
}

func TestOneAuthorityForTwoClustersKeepsThemApart(t *testing.T) {
	a, files := newAuthority(t), testFiles(t)
	a.issue(files, time.Hour, "", bothUsages...)
	prod := identityOf(t, IdentityConfig{Cluster: "prod", Node: "n", Files: files})
	staging := identityOf(t, IdentityConfig{Cluster: "staging", Node: "m", Files: files})
	s, c := shake(t, prod.ServerConfig(), staging.ClientConfig())
	wantReason(t, "the server", s, refusedCluster, "cluster.name")
	wantReason(t, "the client", c, refusedByPeer, "")
	if !errors.As(remoteAlert(c), new(*refusal)) {
		t.Errorf("remoteAlert = %v", remoteAlert(c))
	}
}

// routed starts an embedded server with one route configuration for both ends.
func routed(t *testing.T, name string, id *Identity, routes ...*url.URL) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: name, Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Routes: routes,
		Cluster: server.ClusterOpts{Name: "prod", Host: "127.0.0.1", Port: -1, PoolSize: -1, TLSConfig: id.RouteConfig(), TLSTimeout: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return s
}

func TestRoutesOfTheEmbeddedServerAreVerifiedByUsAtBothEnds(t *testing.T) {
	a := routed(t, "a", secretIdentity(t, "a"))
	to := &url.URL{Scheme: "nats", Host: a.ClusterAddr().String()}
	b := routed(t, "b", secretIdentity(t, "b"), to)
	until(t, "a route between nodes of the cluster", func() bool { return a.NumRoutes() == 1 && b.NumRoutes() == 1 })

	// A stranger that refuses nobody is refused by the end that accepts.
	var asked, refused atomic.Int64
	watch := func(id *Identity, careless bool) *tls.Config {
		c := id.RouteConfig()
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			asked.Add(1)
			err := id.verify(cs, false)
			if err != nil {
				refused.Add(1)
			}
			if careless {
				return nil
			}
			return err
		}
		return c
	}
	stranger := identityOf(t, IdentityConfig{Cluster: "prod", Node: "s", Secret: strings.Repeat("s", 32)})
	start := func(c *tls.Config) *server.Server {
		s, err := server.NewServer(&server.Options{
			ServerName: "s", Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Routes: []*url.URL{to},
			Cluster: server.ClusterOpts{Name: "prod", Host: "127.0.0.1", Port: -1, PoolSize: -1, TLSConfig: c, TLSTimeout: 10},
		})
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		return s
	}
	s := start(watch(stranger, true))
	until(t, "the stranger tries three times", func() bool { return asked.Load() >= 3 })
	if a.NumRoutes() != 1 || s.NumRoutes() != 0 {
		t.Errorf("%d routes and %d, want the stranger out", a.NumRoutes(), s.NumRoutes())
	}
	s.Shutdown()
	s.WaitForShutdown()
	// And the end that dials refuses a stranger.
	refused.Store(0)
	s = start(watch(stranger, false))
	until(t, "the one who dials refuses", func() bool { return refused.Load() >= 1 })
	if s.NumRoutes() != 0 {
		t.Error("a route with a stranger")
	}
	s.Shutdown()
	s.WaitForShutdown()
}
