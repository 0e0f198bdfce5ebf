package endpoint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// certPoll is how often the certificate files are looked at. Looking is cheap,
// and works where file events do not: over network mounts, for the symbolic
// links of Kubernetes secrets, for files that are renamed into place.
const certPoll = 2 * time.Second

// certificate is the key and certificate in use, and where they came from.
type certificate struct {
	ssl     SSLConfig
	log     *slog.Logger
	poll    time.Duration
	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // one reload at a time
	loaded string     // the stamp of the files last read; guarded by mu
}

// loadCertificate reads the certificate for the first time.
func loadCertificate(ssl SSLConfig, log *slog.Logger) (*certificate, error) {
	c := &certificate{ssl: ssl, log: log, poll: certPoll}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// config is how connections are made with it.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// reload reads the files and uses them for new connections; on an error the
// ones before stay.
func (c *certificate) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = c.stamp() // before reading: a change in between is seen at the next look
	key, err := pemText("ssl.key", c.ssl.Key)
	if err != nil {
		return err
	}
	cert, err := pemText("ssl.cert", c.ssl.Cert)
	if err != nil {
		return err
	}
	if c.ssl.CA != "" {
		ca, err := pemText("ssl.ca", c.ssl.CA)
		if err != nil {
			return err
		}
		cert = append(append(cert, '\n'), ca...)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("ssl.key %s and ssl.cert %s cannot be used: %w", place(c.ssl.Key), place(c.ssl.Cert), err)
	}
	c.current.Store(&pair)
	leaf, now := pair.Leaf, time.Now()
	attrs := []any{"name", place(c.ssl.Cert), "subject", leaf.Subject.String(), "expires", leaf.NotAfter}
	switch {
	case now.After(leaf.NotAfter):
		c.log.Warn("certificate has expired", attrs...)
	case now.Before(leaf.NotBefore):
		c.log.Warn("certificate is not valid yet", attrs...)
	default:
		c.log.Info("certificate loaded", attrs...)
	}
	return nil
}

// watch reloads the files when they have changed and then stayed the same from
// one look to the next, so that a pair that is being replaced is not read half.
func (c *certificate) watch(stop <-chan struct{}) {
	ticker := time.NewTicker(c.poll)
	defer ticker.Stop()
	seen := c.stamp()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		before := seen
		seen = c.stamp()
		c.mu.Lock()
		loaded := c.loaded
		c.mu.Unlock()
		if seen == loaded || seen != before {
			continue
		}
		if err := c.reload(); err != nil {
			c.log.Error("new certificate cannot be used, the old one stays", "err", err)
		}
	}
}

// stamp is a text that changes when one of the files does.
func (c *certificate) stamp() string {
	var b strings.Builder
	for _, s := range []string{c.ssl.Key, c.ssl.Cert, c.ssl.CA} {
		if s == "" || isPEM(s) {
			continue
		}
		info, err := os.Stat(s)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", s, err)
			continue
		}
		fmt.Fprintf(&b, "%s: %d bytes %d\n", s, info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

// isPEM tells text from the path of a file.
func isPEM(s string) bool { return strings.Contains(s, "-----BEGIN") }

// place is where a value comes from, for a message: never the key itself.
func place(s string) string {
	if isPEM(s) {
		return "(text)"
	}
	return s
}

// pemText is the text of a value, or of the file it names.
func pemText(key, value string) ([]byte, error) {
	if isPEM(value) {
		return []byte(value), nil
	}
	b, err := os.ReadFile(value)
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return nil, fmt.Errorf("%s: cannot read %s: %w", key, value, perr.Err)
	}
	return b, err
}
