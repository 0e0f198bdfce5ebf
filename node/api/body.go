package api

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"hadal/auth/web"
	"hadal/protocol/jsonpath"
)

// commandSize is what a command takes in bytes until it has run, about.
const commandSize = 512

// readBody reads a body, unpacks it, and sees that it is JSON: an object or an array. An
// empty one is {} (spec 04 §1).
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, share *share) (string, *web.Problem) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return "", problem(http.StatusUnsupportedMediaType, "INVALID_MESSAGE", "send JSON, with Content-Type: application/json")
	}
	tooLong := problem(http.StatusRequestEntityTooLarge, "MAXIMUM_MESSAGE_SIZE_EXCEEDED", fmt.Sprintf("the body is over %d bytes", s.cfg.MaxMessageSize))
	if r.ContentLength > s.cfg.MaxMessageSize {
		w.Header().Set("Connection", "close")
		return "", tooLong
	}
	packed := http.MaxBytesReader(w, r.Body, s.cfg.MaxMessageSize)
	plain, err := unpacked(r.Header.Get("Content-Encoding"), packed)
	if plain == nil && err == nil {
		return "", problem(http.StatusUnsupportedMediaType, "INVALID_MESSAGE", "send the body as it is, or with Content-Encoding gzip or deflate")
	}
	var body []byte
	if err == nil {
		body, err = readAll(plain, s.cfg.MaxMessageSize, share)
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over), errors.Is(err, errLong):
		w.Header().Set("Connection", "close")
		return "", tooLong
	case errors.Is(err, errBudget):
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", retryAfter)
		return "", problem(http.StatusServiceUnavailable, "BUSY", "there is no memory for so large a body now: try again")
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return "", problem(http.StatusRequestTimeout, "REQUEST_TIMEOUT", "the body took too long to come")
	case err != nil:
		return "", problem(http.StatusBadRequest, "MESSAGE_PARSE_ERROR", "the body cannot be read")
	}
	if len(body) == 0 {
		return "{}", nil
	}
	text := string(body)
	if k := jsonpath.Kind(text); k != '{' && k != '[' || !utf8.Valid(body) || !jsonpath.ValidJSON(text) {
		return "", problem(http.StatusBadRequest, "MESSAGE_PARSE_ERROR", fmt.Sprintf("the body is not one JSON object, in UTF-8 and nested at most %d deep", jsonpath.MaxDepth))
	}
	return text, nil
}

// unpacked reads what a body holds; nil for an encoding that is none of ours.
func unpacked(encoding string, packed io.Reader) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		return packed, nil
	case "gzip", "x-gzip":
		return gzip.NewReader(packed)
	case "deflate":
		return zlib.NewReader(packed)
	}
	return nil, nil
}

var (
	errLong   = errors.New("too long")
	errBudget = errors.New("nothing is left of the budget")
)

// readAll reads to the end, most bytes at most. What it takes comes out of the share, when
// there is something to read for it.
func readAll(r io.Reader, most int64, share *share) ([]byte, error) {
	var b []byte
	for {
		if len(b) == cap(b) {
			grown := max(512, 2*cap(b))
			if !share.take(grown - cap(b)) {
				return nil, errBudget
			}
			b = append(make([]byte, 0, grown), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > most:
			return nil, errLong
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}

// request is what a body asks for.
type request struct {
	params   string       // of the login, as JSON
	body     gjson.Result // the commands, as they came
	commands []command    // set by parse
}

// parseBatch finds the parts of the body of a batch (spec 04 §6). The commands are looked
// at when the caller is known.
func (s *Server) parseBatch(text string, share *share) (*request, *web.Problem) {
	bad := func(code, format string, args ...any) (*request, *web.Problem) {
		return nil, problem(http.StatusBadRequest, code, fmt.Sprintf(format, args...))
	}
	var body, data, token gjson.Result
	gjson.Parse(text).ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "body":
			body = v
		case "authData":
			data = v
		case "token":
			token = v
		}
		return true
	})
	if !body.IsArray() {
		return bad("INVALID_MESSAGE", "body: must be an array of commands")
	}
	count := 0
	body.ForEach(func(_, _ gjson.Result) bool {
		count++
		return count <= s.cfg.MaxCommands
	})
	switch {
	case count == 0:
		return bad("INVALID_MESSAGE", "body: must hold at least one command")
	case count > s.cfg.MaxCommands:
		return nil, problem(http.StatusRequestEntityTooLarge, "MAXIMUM_MESSAGE_SIZE_EXCEEDED", fmt.Sprintf("body: has more than %d commands: send several requests", s.cfg.MaxCommands))
	case !share.take(count * commandSize):
		return nil, problem(http.StatusServiceUnavailable, "BUSY", "there is no memory for so many commands now: try again")
	case data.Exists() && !s.cfg.AllowAuthData:
		return bad("INVALID_MESSAGE", "authData: is not allowed here (allowAuthData): log in for a token, or send an Authorization header")
	case data.Exists() && data.Type != gjson.JSON:
		return bad("INVALID_MESSAGE_DATA", "authData: must be an object")
	case data.Exists():
		return &request{params: data.Raw, body: body}, nil
	case token.Exists() && (token.Type != gjson.String || token.Str == ""):
		return bad("INVALID_MESSAGE_DATA", "token: must be a string that is not empty")
	case token.Exists():
		return &request{params: `{"token":` + token.Raw + `}`, body: body}, nil
	}
	return &request{params: "{}", body: body}, nil
}

// parse makes the commands, of which the first that is none refuses all.
func (q *request) parse() (p *web.Problem) {
	if q.commands != nil {
		return nil
	}
	q.body.ForEach(func(_, v gjson.Result) bool {
		c, err := parse(v)
		if err != nil {
			p = problem(http.StatusBadRequest, "MESSAGE_PARSE_ERROR", fmt.Sprintf("Failed to parse JIF object at index %d: %v", len(q.commands), err))
			return false
		}
		q.commands = append(q.commands, c)
		return true
	})
	return p
}

// reads says whether nothing changes by the request.
func (q *request) reads() bool {
	for i := range q.commands {
		if !q.commands[i].kind.reads {
			return false
		}
	}
	return true
}
