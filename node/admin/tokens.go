package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Kick has the cluster close the connections of a user. paths is what stands before a user
// in the path of one's sessions. A node without tokens cannot, and the error says so.
func (c *Client) Kick(ctx context.Context, paths, user string) error {
	err := c.decode(ctx, http.MethodDelete, paths+url.PathEscape(user), nil, nil, &struct{}{})
	if missing := (*statusError)(nil); errors.As(err, &missing) && missing.status == http.StatusNotFound {
		return errors.New("this node cannot kick: add a key to tokens.signingKeys, on every node, and reload them")
	}
	return err
}

// Post asks the node by a JSON body, as its paths for tokens are, and returns its answer
// as JSON text.
func (c *Client) Post(ctx context.Context, path string, body any) (json.RawMessage, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	var answer json.RawMessage
	err = c.decode(ctx, http.MethodPost, path, nil, bytes.NewReader(text), &answer)
	return answer, err
}
