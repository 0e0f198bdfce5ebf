package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// maxAnswer is the length in bytes of the longest answer that is read of another
	// server, and of the longest headers.
	maxAnswer = 64 << 10
	// idleConnection is how long a connection is kept for the next request.
	idleConnection = 90 * time.Second
	// complainAgain is how often the log hears of one kind of failure.
	complainAgain = 10 * time.Second
)

var errLongAnswer = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)

// parseURL reads the URL of another server. What is wrong with it is said without it: it
// may hold a secret.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("is missing")
	case err != nil:
		return nil, errors.New("is no URL: write it as https://auth.example.com/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("does not begin with https:// or http://")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case u.User != nil:
		return nil, errors.New("holds a user and password: remove them, and send them as a header, if they are needed")
	case u.Fragment != "":
		return nil, errors.New("holds a #, which is not sent")
	}
	return u, nil
}

// plain says whether others can read on the way what is sent to a server.
func plain(u *url.URL) bool {
	if u.Scheme == "https" || strings.EqualFold(u.Hostname(), "localhost") {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err != nil || !a.Unmap().IsLoopback()
}

// newTransport makes the connections of one strategy to its server, at most conns of
// them, which are used again. Mistakes open with key, the strategy's options.
func newTransport(key string, o ClientTLS, conns int) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		pool := x509.NewCertPool()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.tls.caFile: %w", key, err))
		} else if !pool.AppendCertsFromPEM(pem) {
			errs = append(errs, fmt.Errorf("%s.tls.caFile: %s holds no certificate in PEM", key, o.CAFile))
		}
		config.RootCAs = pool
	}
	switch {
	case o.CertFile == "" && o.KeyFile == "":
	case o.CertFile == "":
		errs = append(errs, fmt.Errorf("%s.tls.certFile: is missing, but keyFile is set", key))
	case o.KeyFile == "":
		errs = append(errs, fmt.Errorf("%s.tls.keyFile: is missing, but certFile is set", key))
	default:
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.tls.certFile: %w", key, err))
		}
		config.Certificates = []tls.Certificate{cert}
	}
	dialer := &net.Dialer{}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    conns,
		MaxConnsPerHost:        conns,
		IdleConnTimeout:        idleConnection,
		MaxResponseHeaderBytes: maxAnswer,
	}, errors.Join(errs...)
}

// whyFailed is the error of a request without the URL that net/http puts in front.
func whyFailed(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it took too long")
	}
	return err
}

// readAnswer reads a body to its end.
func readAnswer(body io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = errLongAnswer
	}
	return b, err
}

// complaints tell the log of failures that come with every login, now and then.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // when each was told; guarded by mu
	left map[string]int       // how many were not; guarded by mu
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, last: make(map[string]time.Time), left: make(map[string]int)}
}

// tell logs text, one of a few, as an error that the operator has to do something about.
func (c *complaints) tell(text string, attrs ...any) {
	now := time.Now()
	c.mu.Lock()
	last, told := c.last[text]
	if told && now.Sub(last) < complainAgain {
		c.left[text]++
		c.mu.Unlock()
		return
	}
	if left := c.left[text]; left > 0 {
		attrs = append(attrs, "untold", left)
	}
	c.last[text], c.left[text] = now, 0
	c.mu.Unlock()
	c.log.Error(text, attrs...)
}
