package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

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
