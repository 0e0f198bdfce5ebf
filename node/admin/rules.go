package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hadal/perms"
)

// Rules are the rules in force, as operators watch them; perms.Live is one.
type Rules interface {
	// Coverage is what has been counted.
	Coverage() perms.CoverageReport
	// CountCoverage switches counting on or off.
	CountCoverage(on bool)
	// ResetCoverage sets all counters to zero.
	ResetCoverage()
	// Shadow judges by candidate, too, until ctx ends, and calls fn with what it
	// found at once, every so often, and in the end.
	Shadow(ctx context.Context, candidate *perms.Rules, every time.Duration, fn func(perms.ShadowReport) error) error
}

const (
	// maxRules is the size of a rules file, which is far beyond real ones.
	maxRules = 16 << 20
	// reportEvery is how often a shadow reports.
	reportEvery = time.Second
)

// rulesAPI answers the requests about rules.
type rulesAPI struct {
	rules Rules
	ctx   context.Context // of the server: streams end with it
}

func newRulesAPI(ctx context.Context, r Rules) *rulesAPI { return &rulesAPI{r, ctx} }

func (a *rulesAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /rules/coverage", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.rules.Coverage()) })
	mux.HandleFunc("PUT /rules/coverage", a.count)
	mux.HandleFunc("DELETE /rules/coverage", func(w http.ResponseWriter, _ *http.Request) {
		a.rules.ResetCoverage()
		answer(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("POST /rules/shadow", a.shadow)
}

func (a *rulesAPI) count(w http.ResponseWriter, r *http.Request) {
	on, err := strconv.ParseBool(r.URL.Query().Get("count"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "say count=true or count=false")
		return
	}
	a.rules.CountCoverage(on)
	answer(w, http.StatusOK, struct{}{})
}

func (a *rulesAPI) shadow(w http.ResponseWriter, r *http.Request) {
	long, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || long <= 0 {
		refuse(w, http.StatusBadRequest, "say how long with for, such as for=10m")
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRules))
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("read the rules: %v", err))
		return
	}
	candidate, err := perms.New(perms.Config{Type: "config", Options: perms.Options{Permissions: string(text)}})
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, done := context.WithTimeout(r.Context(), long)
	defer done()
	defer context.AfterFunc(a.ctx, done)()
	out := json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	err = a.rules.Shadow(ctx, candidate, reportEvery, func(report perms.ShadowReport) error {
		return errors.Join(out.Encode(report), http.NewResponseController(w).Flush())
	})
	if errors.Is(err, perms.ErrShadowRuns) {
		refuse(w, http.StatusConflict, err.Error())
	}
	// Any other error is that of a client that has gone.
}

// Coverage is what the node has counted of its rules.
func (c *Client) Coverage(ctx context.Context) (r perms.CoverageReport, err error) {
	err = c.decode(ctx, http.MethodGet, "/rules/coverage", nil, nil, &r)
	return r, err
}

// CountCoverage has the node count how its rules are used, or no longer.
func (c *Client) CountCoverage(ctx context.Context, on bool) error {
	query := url.Values{"count": {strconv.FormatBool(on)}}
	return c.decode(ctx, http.MethodPut, "/rules/coverage", query, nil, &struct{}{})
}

// ResetCoverage sets all that the node has counted to zero.
func (c *Client) ResetCoverage(ctx context.Context) error {
	return c.decode(ctx, http.MethodDelete, "/rules/coverage", nil, nil, &struct{}{})
}

// Shadow has the node judge by the rules of a file, too, for some time, and calls
// fn with what it has found so far, again and again. Rules that are wrong, and a
// candidate that is being judged already, are errors.
func (c *Client) Shadow(ctx context.Context, rules string, long time.Duration, fn func(perms.ShadowReport) error) error {
	resp, err := c.do(ctx, http.MethodPost, "/rules/shadow", url.Values{"for": {long.String()}}, strings.NewReader(rules))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for {
		var report perms.ShadowReport
		err := in.Decode(&report)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errBrokenOff
		case err != nil:
			return fmt.Errorf("read the answer: %w", err)
		}
		if err := fn(report); err != nil || report.End {
			return err
		}
	}
}
