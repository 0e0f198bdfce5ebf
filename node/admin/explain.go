package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"hadal/perms"
)

// Explainer tells why the rules in force decide as they do; perms.Live is one. It
// reads the node's own records where the question gives none.
type Explainer interface {
	Explain(ctx context.Context, q perms.Query) (*perms.Explanation, error)
}

// maxQuery bounds a question in bytes: some records may stand in it.
const maxQuery = 16 << 20

// explain answers a question about the rules. It changes nothing, and is a POST
// because data that is asked about belongs in no URL.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	var q perms.Query
	if err := decodeQuery(http.MaxBytesReader(w, r.Body, maxQuery), &q); err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, fmt.Sprintf("read the question: %v", err))
		return
	}
	x, err := s.deps.Explainer.Explain(r.Context(), q)
	switch {
	case err == nil:
		answer(w, http.StatusOK, x)
	case errors.Is(err, perms.ErrQuery):
		refuse(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusGatewayTimeout, err.Error())
	default:
		if r.Context().Err() == nil {
			s.deps.Log.Error("admin request failed", "path", r.URL.Path, "err", err)
		}
		refuse(w, http.StatusInternalServerError, err.Error())
	}
}

// decodeQuery reads one question and nothing else. A key that it does not know
// would be a question that is not answered.
func decodeQuery(r io.Reader, q *perms.Query) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(q); err != nil {
		return err
	}
	switch err := dec.Decode(new(json.RawMessage)); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errors.New("there is more than one")
}

// Explain asks the node why its rules decide as they do.
func (c *Client) Explain(ctx context.Context, q perms.Query) (*perms.Explanation, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("write the question: %w", err)
	}
	var x perms.Explanation
	if err := c.decode(ctx, http.MethodPost, "/explain", nil, bytes.NewReader(body), &x); err != nil {
		return nil, err
	}
	return &x, nil
}
