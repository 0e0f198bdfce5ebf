//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"hadal/bench/target"
)

const (
	// backend is the secret by which tokens are minted in ordeals.
	backend = "the secret of the backend of the ordeals"
	// ordealKey is that of every registered client.
	ordealKey = "the key of a registered client, of 32 bytes"
	// cutOffIn is how long a node that is cut off may take to end the connections of those
	// who may have been revoked: it notices in ten seconds, and has a grace of one. The
	// rest is for a machine that does other things.
	cutOffIn = 30 * time.Second
)

// withLogins is the configuration of ordeals: that of all nodes, with tokens and
// registrations.
var withLogins = configuration + fmt.Sprintf(`
allowOpenFallback: true
tokens: {signingKeys: [{id: one, alg: HS256, secret: "a secret of the nodes, for tokens alone"}], apiSecret: %q, offlineGrace: 1s}
registration: {mode: open, userPrefix: client/}
`, backend)

// configure has the nodes of ordeals use it.
func (o *ordeals) configure() error {
	file := filepath.Join(o.dir, "ordeals.yml")
	for _, n := range append(slices.Clone(o.nodes), o.spare) {
		n.config = file
	}
	return os.WriteFile(file, []byte(withLogins), 0o600)
}

// login is somebody who logs in by what can be taken back.
type login struct{ what, params string }

// cutOffFromLogins cuts a node off for longer than tokens.offlineGrace. It must end who
// logged in by what others may have taken back, and let none of them in; let back, it has
// them come again, but for who was taken back meanwhile.
func cutOffFromLogins(ctx context.Context, o *ordeals) error {
	n, other := o.last(), o.nodes[0]
	logins, err := o.logins(ctx, other, "stays")
	if err != nil {
		return err
	}
	goes := login{"a client that is unregistered", params("clientID", "goes", "authKey", ordealKey)}
	if _, err := other.post(ctx, "/register", goes.params, ""); err != nil {
		return asViolation(err)
	}
	elsewhere, err := enterAt(ctx, other, logins[0])
	if err != nil {
		return asViolation(err)
	}
	defer elsewhere.close()
	var here []*session
	defer func() {
		for _, s := range here {
			s.close()
		}
	}()
	for _, l := range append(logins, goes) {
		s, err := enterAt(ctx, n, l)
		if err != nil {
			return asViolation(err)
		}
		here = append(here, s)
	}
	if _, err := (&nemesis{rig: o.rig}).isolate(n, true, true); err != nil {
		return err
	}
	began := time.Now()
	for i, s := range here {
		if err := s.isEnded(began.Add(cutOffIn)); err != nil {
			return violation(fmt.Sprintf("node %s is cut off, and the connection of %s: %v", n.name, append(logins, goes)[i].what, err))
		}
	}
	ended := time.Since(began)
	if m, err := n.metrics(ctx); err != nil || m["hadal_token_revocations_known"] != 0 {
		return violation(fmt.Sprintf("node %s is cut off, and says that it knows %v of what is revoked: %v", n.name, m["hadal_token_revocations_known"], err))
	}
	if err := refusesAll(ctx, n, logins); err != nil {
		return err
	}
	if err := until(ctx, patience, func() string {
		// The cut may have taken the leader of what logins keep.
		_, err := other.post(ctx, "/unregister", params("clientID", "goes"), "Bearer "+backend)
		return textOf(err)
	}); err != nil {
		return err
	}
	if _, _, err := elsewhere.ask(question{kind: head, name: "cut off"}); err != nil {
		return violation(fmt.Sprintf("another node was cut off, and node %s ended the connection of %s: %v", other.name, logins[0].what, err))
	}
	if err := o.net.heal(); err != nil {
		return err
	}
	healed := time.Now()
	for _, l := range logins {
		if err := until(ctx, patience, func() string {
			s, err := enterAt(ctx, n, l)
			if err == nil {
				s.close()
			}
			return textOf(err)
		}); err != nil {
			return err
		}
	}
	say("%s ended the connections of %d logins %v after it was cut off, and let them in %v after it was let back", n.name, len(here),
		ended.Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	if err := refusesAll(ctx, n, []login{goes}); err != nil {
		return err
	}
	return o.isWhole(ctx, "it was let back", n)
}

// logins registers a client at a node, logs it in, and has a token minted.
func (o *ordeals) logins(ctx context.Context, n *node, client string) ([]login, error) {
	pair := params("clientID", client, "authKey", ordealKey)
	if _, err := n.post(ctx, "/register", pair, ""); err != nil {
		return nil, asViolation(err)
	}
	bearer, err := n.post(ctx, "/login", pair, "")
	if err != nil {
		return nil, asViolation(err)
	}
	minted, err := n.post(ctx, "/auth/token", `{"id":"ann","ttl":"1h"}`, "Bearer "+backend)
	if err != nil {
		return nil, asViolation(err)
	}
	return []login{
		{"a token", params("token", minted.Get("token").String())},
		{"a registered client with its key", pair},
		{"a registered client with its token", params("token", bearer.Get("bearerToken").String())},
	}, nil
}

// params is a JSON object of texts without anything to escape.
func params(pairs ...string) string {
	text := "{"
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf("%q:%q", pairs[i], pairs[i+1])
	}
	return text + "}"
}

// enterAt logs in at a node.
func enterAt(ctx context.Context, n *node, l login) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	conn, err := target.Login(ctx, &net.Dialer{}, n.url(), l.params)
	if err != nil {
		return nil, fmt.Errorf("%s at node %s: %w", l.what, n.name, err)
	}
	return &session{conn, n}, nil
}

// refusesAll says which of those who log in at once the node lets in, or nil.
func refusesAll(ctx context.Context, n *node, logins []login) error {
	errs := make([]error, len(logins))
	var all sync.WaitGroup
	for i, l := range logins {
		all.Go(func() {
			s, err := enterAt(ctx, n, l)
			if err == nil {
				s.close()
				errs[i] = violation(fmt.Sprintf("node %s lets %s in", n.name, l.what))
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// isEnded waits until the server ends the connection with a word.
func (s *session) isEnded(by time.Time) error {
	if err := s.conn.SetDeadline(by); err != nil {
		return err
	}
	for {
		switch _, err := s.conn.Hear(); {
		case errors.Is(err, target.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("was to be closed: %w", late(err))
		}
	}
}

// post asks the node by HTTP. An answer that is no success is an error.
func (n *node) post(ctx context.Context, path, body, authorization string) (gjson.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.web()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return gjson.Result{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return gjson.Result{}, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return gjson.Result{}, err
	}
	if res.StatusCode/100 != 2 {
		return gjson.Result{}, fmt.Errorf("node %s answers %s with %s: %s", n.name, path, res.Status, text)
	}
	return gjson.ParseBytes(text), nil
}

// textOf is an error's text, or nothing.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
