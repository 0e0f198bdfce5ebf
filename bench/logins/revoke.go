package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"hadal/bench/target"
)

const (
	apiSecret = "the secret of a backend that revokes"
	// revokeNodes are in the cluster, and clientsEach of the user that is revoked on each.
	revokeNodes, clientsEach = 3, 10
)

// revocations measures how long connections outlive the revocation of their token: each
// round is a user with connections on every node, revoked at the first one. What is told
// is from the answer to the backend to the end of a connection on another node, as its
// client sees it.
func revocations(ctx context.Context, s settings, out io.Writer) (err error) {
	nodes, err := target.StartNodes(ctx, target.Spec{Binary: s.node, Nodes: revokeNodes, Config: fmt.Sprintf(
		"auth: []\nlogLevel: warn\npermission: {type: none}\ntokens:\n  signingKeys: [{id: a, alg: HS256, secret: the signing secret of this measure}]\n  apiSecret: %s\n", apiSecret)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.StopNodes(nodes)) }()
	outlived := newHistogram()
	rounds := 0
	for end := time.Now().Add(s.time); time.Now().Before(end); rounds++ {
		took, err := revokeOne(ctx, nodes, user(rounds))
		if err != nil {
			return err
		}
		for _, d := range took {
			record(outlived, d)
		}
	}
	fmt.Fprintf(out, "%d revocations, %d connections on other nodes, load %s: closed after the answer within (ms) p50 %.1f, p99 %.1f, longest %.1f\n",
		rounds, outlived.TotalCount(), load(), ms(outlived, 50), ms(outlived, 99), ms(outlived, 100))
	return nil
}

// revokeOne is one round.
func revokeOne(ctx context.Context, nodes []*target.Node, name string) (took []time.Duration, err error) {
	var minted struct {
		Token string `json:"token"`
	}
	if err := post(ctx, nodes[0], "/auth/token", map[string]string{"id": name}, &minted); err != nil {
		return nil, err
	}
	login, err := json.Marshal(map[string]string{"token": minted.Token})
	if err != nil {
		return nil, err
	}
	var clients []*target.Client
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, n := range nodes[1:] {
		for range clientsEach {
			c, err := target.Login(ctx, dialer(home), n.URL, string(login))
			if err != nil {
				return nil, err
			}
			clients = append(clients, c)
		}
	}
	ended, errs := make([]time.Time, len(clients)), make([]error, len(clients))
	var all sync.WaitGroup
	for i, c := range clients {
		if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
			return nil, err
		}
		all.Go(func() {
			_, errs[i] = c.Hear()
			ended[i] = time.Now()
		})
	}
	err = post(ctx, nodes[0], "/auth/revoke", map[string]string{"id": name}, &struct{}{})
	answered := time.Now()
	if err != nil {
		for _, c := range clients {
			err = errors.Join(err, c.SetDeadline(answered)) // nobody ends them now
		}
	}
	all.Wait()
	for i := range clients {
		if !errors.Is(errs[i], target.ErrClosed) {
			err = errors.Join(err, fmt.Errorf("connection %d of %s was not closed: %w", i, name, errs[i]))
		}
		took = append(took, max(ended[i].Sub(answered), 0))
	}
	return took, err
}

// post asks a node as a backend does.
func post(ctx context.Context, n *target.Node, path string, body, answer any) (err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	port := strings.TrimSuffix("http"+strings.TrimPrefix(n.URL, "ws"), "/deepstream")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, port+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+apiSecret)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", path, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(answer)
}
