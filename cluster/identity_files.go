package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// How files are looked after.
const (
	filesPoll   = 5 * time.Second     // how often they are read for changes
	expiryTold  = 24 * time.Hour      // how often the log is told
	expiryAhead = 30 * 24 * time.Hour // how long beforehand
)

// rawFiles are the content of the three files.
type rawFiles [3][]byte

// read reads the files.
func (files TLSFiles) read() (raw rawFiles, err error) {
	for i, f := range []struct{ key, name string }{
		{"certFile", files.CertFile}, {"keyFile", files.KeyFile}, {"caFile", files.CAFile},
	} {
		if f.name == "" {
			return raw, fmt.Errorf("cluster.tls.%s is missing: certFile, keyFile and caFile belong together", f.key)
		}
		b, err := os.ReadFile(f.name)
		if err != nil {
			return raw, fmt.Errorf("cluster.tls.%s: %w", f.key, err)
		}
		raw[i] = b
	}
	return raw, nil
}

// newCredentials checks that a node of the cluster would accept what the files hold.
func newCredentials(raw rawFiles, files TLSFiles, cluster string) (*credentials, error) {
	c := &credentials{raw: raw}
	var err error
	if c.cert, err = tls.X509KeyPair(c.raw[0], c.raw[1]); err != nil {
		return nil, fmt.Errorf("cluster.tls: certificate %s with key %s: %w", files.CertFile, files.KeyFile, err)
	}
	if c.cert.Leaf == nil {
		if c.cert.Leaf, err = x509.ParseCertificate(c.cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("cluster.tls: certificate %s: %w", files.CertFile, err)
		}
	}
	c.roots = x509.NewCertPool()
	if !c.roots.AppendCertsFromPEM(c.raw[2]) {
		return nil, fmt.Errorf("cluster.tls: %s holds no certificate in PEM form", files.CAFile)
	}
	if peer := peerOf(c.cert.Leaf); peer.cluster != "" && peer.cluster != cluster {
		return nil, fmt.Errorf("cluster.tls: certificate %s is for cluster %q, this is %q", files.CertFile, peer.cluster, cluster)
	}
	return c, c.check(files, time.Now())
}

// check verifies our own certificate as a peer will, and notes how long it is good.
func (c *credentials) check(files TLSFiles, now time.Time) error {
	between := x509.NewCertPool()
	for _, der := range c.cert.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("cluster.tls: certificate %s: %w", files.CertFile, err)
		}
		between.AddCert(cert)
	}
	leaf := c.cert.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("cluster.tls: certificate %s expired on %s; renew it, other nodes refuse it",
			files.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("cluster.tls: certificate %s is good from %s on, and the clock says %s",
			files.CertFile, leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	for _, use := range []struct {
		name  string
		usage x509.ExtKeyUsage
	}{{"server", x509.ExtKeyUsageServerAuth}, {"client", x509.ExtKeyUsageClientAuth}} {
		chains, err := leaf.Verify(x509.VerifyOptions{
			Roots: c.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use.usage},
		})
		if err != nil {
			return fmt.Errorf("cluster.tls: other nodes would refuse certificate %s as a %s's: %w", files.CertFile, use.name, err)
		}
		c.from, c.to = leaf.NotBefore, leaf.NotAfter
		// The longest-lived way to the authority counts, and on it the first to end.
		var best time.Time
		for _, chain := range chains {
			ends := leaf.NotAfter
			for _, cert := range chain {
				if cert.NotAfter.Before(ends) {
					ends = cert.NotAfter
				}
			}
			if ends.After(best) {
				best = ends
			}
		}
		c.to = best
	}
	return nil
}

// Reload reads the files again and takes them if they are good; connections that
// exist stay. It says whether anything was new. With a secret there is nothing to
// read. It may be called at any time.
func (id *Identity) Reload() (bool, error) {
	if id.ca != nil {
		return false, nil
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	raw, err := id.files.read()
	if err != nil {
		return false, err
	}
	if old := id.current.Load(); slices.EqualFunc(raw[:], old.raw[:], bytes.Equal) {
		return false, nil
	}
	c, err := newCredentials(raw, id.files, id.cluster)
	if err != nil {
		return false, err
	}
	id.current.Store(c)
	return true, nil
}

// Expires is when this node's certificate, or an authority above it, is no longer
// good.
func (id *Identity) Expires() time.Time { return id.current.Load().to }

// Run looks after the files until ctx ends: it takes new ones, and tells the log
// when those in use are about to expire. They are read rather than watched: some
// places where they are kept (mounted secrets, network file systems) tell nobody.
func (id *Identity) Run(ctx context.Context) error {
	if id.ca != nil {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(filesPoll)
	defer ticker.Stop()
	var told time.Time
	var trouble string
	for {
		now, end := time.Now(), id.Expires()
		due := now.Sub(told) >= expiryTold || told.Before(end) && !now.Before(end)
		if due && id.tellExpiry(now) {
			told = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		before := id.current.Load()
		switch err := id.renew(); {
		case err != nil:
			// A pair that is being replaced may not match for a moment.
			if text := err.Error(); text != trouble {
				trouble = text
				id.log.Error("cluster certificate cannot be renewed, the old one stays in use", "err", err)
			}
		case id.current.Load() != before:
			trouble, told = "", time.Time{}
		default:
			trouble = ""
		}
	}
}

// renew is Reload, and tells the log of what is new.
func (id *Identity) renew() error {
	changed, err := id.Reload()
	if changed {
		id.log.Info("cluster certificate renewed", "expires", id.Expires().UTC())
	}
	return err
}

// errExpired is what the log is told when it is too late.
var errExpired = errors.New("other nodes refuse this one until the files of cluster.tls are renewed")

// tellExpiry tells the log if there is something to tell.
func (id *Identity) tellExpiry(now time.Time) bool {
	left := id.Expires().Sub(now)
	switch {
	case left <= 0:
		id.log.Error("cluster certificate has expired", "expired", id.Expires().UTC(), "err", errExpired)
	case left <= expiryAhead:
		id.log.Warn("cluster certificate expires soon", "days", int(left/(24*time.Hour)), "expires", id.Expires().UTC())
	default:
		return false
	}
	return true
}
