//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hadal/bench/target"
)

// authority signs the certificates of nodes, in files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte // what nodes trust: its own certificate, and those of others after it
}

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority " + name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{dir: dir, cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// file is where a node's file of a kind is: crt, key or ca.
func (a *authority) file(n *node, kind string) string { return filepath.Join(a.dir, n.name+"."+kind) }

// environment has a node use its files.
func (a *authority) environment(n *node) []string {
	return []string{
		"HADAL_CLUSTER_TLS_CERTFILE=" + a.file(n, "crt"), "HADAL_CLUSTER_TLS_KEYFILE=" + a.file(n, "key"),
		"HADAL_CLUSTER_TLS_CAFILE=" + a.file(n, "ca"),
	}
}

// make makes a certificate for a node, and its key, as PEM.
func (a *authority) make(n *node, good time.Duration) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "node " + n.name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(good), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// issue gives a node a new certificate that is good for so long, and what to trust.
func (a *authority) issue(n *node, good time.Duration) error {
	cert, key, err := a.make(n, good)
	return errors.Join(err,
		os.WriteFile(a.file(n, "key"), key, 0o600),
		os.WriteFile(a.file(n, "crt"), cert, 0o600),
		os.WriteFile(a.file(n, "ca"), a.pem, 0o600))
}

// shows is the certificate that a node shows to others, on the port for links.
func (a *authority) shows(n *node) (*x509.Certificate, error) {
	cert, key, err := a.make(n, time.Hour)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: answerIn}, Config: &tls.Config{
		ServerName: "e2e.hadal", Certificates: []tls.Certificate{pair}, NextProtos: []string{"hadal-join/1"},
		InsecureSkipVerify: true, // it is looked at
	}}
	conn, err := d.Dial("tcp", net.JoinHostPort(n.host, fmt.Sprint(n.peerPort+1)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// renew gives every node a new certificate, tells it, and sees that it shows that one.
func (o *ordeals) renew(ctx context.Context, good time.Duration, nodes ...*node) error {
	for _, n := range nodes {
		before, err := o.authority.shows(n)
		if err != nil {
			return err
		}
		if err := errors.Join(o.authority.issue(n, good), n.signal(syscall.SIGHUP)); err != nil {
			return err
		}
		if err := until(ctx, patience, func() string {
			now, err := o.authority.shows(n)
			switch {
			case err != nil:
				return err.Error()
			case now.SerialNumber.Cmp(before.SerialNumber) == 0:
				return fmt.Sprintf("node %s still shows its old certificate", n.name)
			}
			return ""
		}); err != nil {
			return err
		}
	}
	return nil
}

// shortLived is how long a certificate is good that is about to expire.
const shortLived = 10 * time.Second

// rotateCertificates has running nodes change their certificates, and the authority that
// signs them; lets that of one node expire, and renews it.
func rotateCertificates(ctx context.Context, o *ordeals) error {
	n := o.last()
	lives := o.lives()
	second, err := newAuthority(o.dir, "second")
	if err != nil {
		return err
	}
	// All trust both before anybody shows what the second has signed.
	old := o.authority.pem
	own := second.pem
	o.authority.pem = append(append([]byte(nil), old...), own...)
	if err := o.renew(ctx, time.Hour, o.nodes...); err != nil {
		return err
	}
	second.pem, o.authority = o.authority.pem, second
	if err := o.renew(ctx, time.Hour, o.nodes...); err != nil {
		return err
	}
	o.authority.pem = own
	if err := errors.Join(o.renew(ctx, time.Hour, o.nodes...), o.authority.issue(o.spare, time.Hour)); err != nil {
		return err
	}
	say("every node shows a certificate of the new authority, and trusts no other")
	if err := o.reconnect(ctx, n); err != nil {
		return err
	}
	if err := asViolation(o.awaitReady(ctx, patience)); err != nil {
		return err
	}
	if err := o.expire(ctx, n); err != nil {
		return err
	}
	for i, life := range o.lives() {
		if life != lives[i] {
			return violation(fmt.Sprintf("node %s is another process than before its certificates changed", o.nodes[i].name))
		}
	}
	return nil
}

// lives are the ids of the processes.
func (o *ordeals) lives() (pids []int) {
	for _, n := range o.nodes {
		pids = append(pids, n.pid())
	}
	return pids
}

// reconnect has all connections of a node with others end, and be made anew.
func (o *ordeals) reconnect(ctx context.Context, n *node) error {
	if _, err := (&nemesis{rig: o.rig}).isolate(n, true, true); err != nil {
		return err
	}
	wait(ctx, 5*time.Second) // longer than links and routes bear
	return o.net.heal()
}

// expire lets a node's certificate expire, and renews it.
func (o *ordeals) expire(ctx context.Context, n *node) error {
	if err := o.renew(ctx, shortLived, n); err != nil {
		return err
	}
	wait(ctx, shortLived)
	other := o.others(n)[0]
	since := other.logged()
	if err := o.reconnect(ctx, n); err != nil {
		return err
	}
	if err := n.awaitSaid(ctx, patience, 0, "cluster certificate has expired", "cluster.tls"); err != nil {
		return err
	}
	if err := other.awaitSaid(ctx, patience, since, "node "+n.name, "expired on", "renew it there"); err != nil {
		return err
	}
	if err := until(ctx, patience, func() string {
		for _, m := range o.others(n) {
			text, err := (&target.Node{Socket: m.socket()}).Ask(ctx, "/metrics")
			if err != nil {
				return err.Error()
			}
			if strings.Contains(string(text), `hadal_cluster_refused_total{reason="certificate expired"} `) {
				return ""
			}
		}
		return "no node counts that it has refused an expired certificate"
	}); err != nil {
		return err
	}
	if n.ready(ctx) {
		return violation(fmt.Sprintf("node %s says that it is ready, and no other lets it in", n.name))
	}
	if err := o.writable(ctx, n); err != nil {
		return err
	}
	say("%s is refused, the others go on", n.name)
	if err := o.authority.issue(n, time.Hour); err != nil { // and nobody tells it
		return err
	}
	return o.isWhole(ctx, "its files were renewed", n)
}
