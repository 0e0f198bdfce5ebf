package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Client speaks to the admin API of a running node. It may be used by many at
// once.
type Client struct {
	http  *http.Client
	base  string
	token string
}

// OverSocket is a client of the node whose unix socket is at path.
func OverSocket(path string) *Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	return &Client{http: &http.Client{Transport: transport}, base: "http://localhost"}
}

// OverTCP is a client of the node whose admin.listen is reached at base, such
// as http://127.0.0.1:6021, with its admin.token.
func OverTCP(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("admin URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("admin URL %q: write it as http://127.0.0.1:6021", base)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // the token is for the node alone
	return &Client{http: &http.Client{Transport: transport}, base: strings.TrimRight(base, "/"), token: token}, nil
}

// Close ends the connections that the client keeps for its next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request. Every status but 200 is an error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without our made-up host
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	var f failure
	if json.Unmarshal(text, &f) == nil && f.Error == "" {
		f.Error = f.Detail
	}
	if f.Error == "" {
		return nil, &statusError{resp.StatusCode, string(bytes.TrimSpace(text))}
	}
	if resp.StatusCode == http.StatusNotFound && path == "/record" {
		return nil, fmt.Errorf("%s: %w", query.Get("name"), ErrNotFound)
	}
	return nil, errors.New(f.Error)
}

// statusError is an answer that is none of the node's own.
type statusError struct {
	status int
	text   string
}

// Error implements error.
func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.text) }

// decode sends a request and reads its whole answer into v.
func (c *Client) decode(ctx context.Context, method, path string, query url.Values, body io.Reader, v any) error {
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// Info is what the node says of itself, as JSON text.
func (c *Client) Info(ctx context.Context) (string, error) {
	var info json.RawMessage
	err := c.decode(ctx, http.MethodGet, "/info", nil, nil, &info)
	return string(info), err
}

// Get reads a record; an error that Is ErrNotFound means that there is none.
func (c *Client) Get(ctx context.Context, name string) (Record, error) {
	resp, err := c.do(ctx, http.MethodGet, "/record", url.Values{"name": {name}}, nil)
	if err != nil {
		return Record{}, err
	}
	defer resp.Body.Close()
	line, err := io.ReadAll(resp.Body)
	if err != nil {
		return Record{}, fmt.Errorf("read the answer: %w", err)
	}
	return parseRecord(line)
}

// Set writes a record and returns its version.
func (c *Client) Set(ctx context.Context, name, data string) (int32, error) {
	var v struct{ Version int32 }
	err := c.decode(ctx, http.MethodPut, "/record", url.Values{"name": {name}}, strings.NewReader(data), &v)
	return v.Version, err
}

// Delete removes a record; an error that Is ErrNotFound means that there is none.
func (c *Client) Delete(ctx context.Context, name string) error {
	return c.decode(ctx, http.MethodDelete, "/record", url.Values{"name": {name}}, nil, &struct{}{})
}

// Names calls fn for the name of every record that begins with prefix.
func (c *Client) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return c.lines(ctx, "/records", url.Values{"prefix": {prefix}}, func(line []byte) error {
		var name string
		var odd struct{ Name64 []byte }
		err := json.Unmarshal(line, &name)
		if bytes.HasPrefix(line, []byte("{")) {
			err = json.Unmarshal(line, &odd)
			name = string(odd.Name64)
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return fn(name)
	})
}

// Export calls fn with a line of JSON, its end included, for every record whose
// name begins with prefix, and then with the line that ends an export. Import
// takes such lines.
func (c *Client) Export(ctx context.Context, prefix string, fn func(line []byte) error) error {
	return c.export(ctx, url.Values{"prefix": {prefix}}, fn)
}

// Backup is Export of all records and of what logins keep: the hashes of passwords, say.
func (c *Client) Backup(ctx context.Context, fn func(line []byte) error) error {
	return c.export(ctx, url.Values{"logins": {"true"}}, fn)
}

func (c *Client) export(ctx context.Context, query url.Values, fn func(line []byte) error) error {
	whole := false
	err := c.lines(ctx, "/export", query, func(line []byte) error {
		whole = bytes.HasPrefix(line, []byte(`{"end":`))
		return fn(append(line, '\n'))
	})
	if err == nil && !whole {
		return errBrokenOff
	}
	return err
}

// errBrokenOff means that an answer has no end.
var errBrokenOff = errors.New("the node broke off its answer")

// lines calls fn for each line of a stream, without its end. The slice is
// reused after fn.
func (c *Client) lines(ctx context.Context, path string, query url.Values, fn func(line []byte) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const failed = `{"error":`
	err = eachLine(bufio.NewReader(resp.Body), func(line []byte) error {
		if bytes.HasPrefix(line, []byte(failed)) {
			var f failure
			if err := json.Unmarshal(line, &f); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			return errors.New(f.Error)
		}
		return fn(line)
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errBrokenOff
	}
	return err
}

// Imported is how much an import has written.
type Imported struct {
	// Records are lines of records, Logins of what logins keep.
	Records int `json:"imported"`
	Logins  int `json:"logins"`
}

// Import writes records, a line of JSON each, with their versions, and what logins keep,
// and returns how many. It is an error when the lines are not all of an export, unless partial
// says that they need not be. It may be used again after an error: what was written
// is written once more.
func (c *Client) Import(ctx context.Context, lines io.Reader, partial bool) (Imported, error) {
	var v Imported
	err := c.decode(ctx, http.MethodPost, "/import", url.Values{"partial": {strconv.FormatBool(partial)}}, lines, &v)
	return v, err
}
