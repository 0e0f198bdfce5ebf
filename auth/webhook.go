package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// webhookRequests is how many requests are under way at once unless configured.
	webhookRequests = 64
	// webhookLimit is the longest that a login may take by configuration, a little less
	// than the endpoint gives it.
	webhookLimit = 55 * time.Second
	// webhookRedirects is how many redirects one request follows.
	webhookRedirects = 2
)

// What the client is told when the webhook gave no verdict.
const (
	retriesExceeded = "AUTH_RETRY_ATTEMPTS_EXCEEDED"
	answerUnusable  = "AUTH_ANSWER_UNUSABLE"
)

// webhook asks an HTTP server of the operator's who a client is (spec 06 §5.4).
//
// A webhook that cannot be reached, fails or says nothing of use lets nobody in, also not
// by leaving the client to the next strategy: it is its word that is missing.
type webhook struct {
	url       string
	permitted map[int]bool
	retry     map[int]bool
	attempts  int
	interval  time.Duration
	timeout   time.Duration
	headers   http.Header
	promote   []string
	forward   forwarding
	report    bool
	more      bool // another strategy is asked after this one

	client     *http.Client
	transport  *http.Transport
	turns      *Turnstile
	complaints *complaints
	observer   Observer // complete
}

var (
	_ guarded  = (*webhook)(nil)
	_ follower = (*webhook)(nil)
	_ runner   = (*webhook)(nil)
)

// newWebhook checks the options, each mistake opening with key.
func newWebhook(key string, o *Options, report bool, log *slog.Logger) (*webhook, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(key+"."+format, args...)) }

	u, err := parseURL(o.EndpointURL)
	if err != nil {
		fail("endpointUrl: %w", err)
	} else if plain(u) {
		log.Warn("the webhook of auth is asked without TLS, passwords included: use https", "host", u.Host)
	}
	w := &webhook{
		url: o.EndpointURL, timeout: o.RequestTimeout, report: report,
		permitted: make(map[int]bool), retry: make(map[int]bool), headers: make(http.Header),
		complaints: newComplaints(log), observer: Observer{}.complete(),
	}
	w.codes(o, fail)
	w.times(o, fail)
	w.heads(o, fail)
	if w.forward, err = newForwarding(o.ForwardHeaders, o.ForwardCookies); err != nil {
		fail("%w", err)
	}
	places := o.MaxConcurrent
	if places == 0 {
		places = webhookRequests
	}
	if places < 0 {
		fail("maxConcurrent: %d is below one", places)
	}
	if w.transport, err = newTransport(key, o.TLS, places); err != nil {
		errs = append(errs, err)
	}
	w.turns = newPlaces(places)
	w.client = &http.Client{Transport: w.transport, CheckRedirect: repeats}
	return w, errors.Join(errs...)
}

// newPlaces is a turnstile for checks that take no memory or processor of ours: so many at
// once.
func newPlaces(n int) *Turnstile {
	return &Turnstile{free: Cost{Threads: n}, lines: make(map[netip.Addr]*line), sweepAt: keptLines}
}

// place is what one request takes of newPlaces.
var place = Cost{Threads: 1}

// codes reads the options that are lists of status codes.
func (w *webhook) codes(o *Options, fail func(string, ...any)) {
	if len(o.PermittedStatusCodes) == 0 {
		fail("permittedStatusCodes: is missing: list the status codes that let a client in, such as [200]")
	}
	if o.RetryStatusCodes == nil {
		fail("retryStatusCodes: is missing: list the status codes after which to ask again, or []")
	}
	for _, code := range o.PermittedStatusCodes {
		switch {
		case code < 200 || code > 599:
			fail("permittedStatusCodes: %d is not a status code", code)
		case code >= 500:
			fail("permittedStatusCodes: %d means that the webhook failed, and must let nobody in: remove it", code)
		case code >= 300 && code < 400:
			fail("permittedStatusCodes: %d is a redirect, not a yes: remove it", code)
		case slices.Contains(o.RetryStatusCodes, code):
			fail("retryStatusCodes: %d stands in permittedStatusCodes too: remove it from one of them", code)
		}
		w.permitted[code] = true
	}
	for _, code := range o.RetryStatusCodes {
		if code < 200 || code > 599 {
			fail("retryStatusCodes: %d is not a status code", code)
		}
		w.retry[code] = true
	}
}

// times reads the options of how long and how often.
func (w *webhook) times(o *Options, fail func(string, ...any)) {
	if o.RequestTimeout <= 0 {
		fail("requestTimeout: is missing or not above zero: say how many milliseconds a request may take, such as 2000")
	}
	switch {
	case o.RetryAttempts == nil:
		fail("retryAttempts: is missing: say how often to ask again, or 0")
	case *o.RetryAttempts < 0:
		fail("retryAttempts: %d is below zero", *o.RetryAttempts)
	default:
		w.attempts = *o.RetryAttempts
	}
	switch {
	case o.RetryInterval == nil:
		fail("retryInterval: is missing: say how many milliseconds to wait before asking again, such as 500")
	case *o.RetryInterval < 0:
		fail("retryInterval: %v is below zero", *o.RetryInterval)
	default:
		w.interval = *o.RetryInterval
	}
	// By division, because the product may overflow.
	if each := w.timeout + w.interval; each > 0 && int64(w.attempts) > int64((webhookLimit+w.interval)/each)-1 {
		fail("requestTimeout: with retryAttempts and retryInterval one login may take more than %v: lower one of them", webhookLimit)
	}
}

// ownHeaders are headers of the request that options cannot set.
var ownHeaders = []string{
	"Host", "Accept", "Connection", "Content-Length", "Content-Type", "Expect", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// heads reads the options of the request's headers.
func (w *webhook) heads(o *Options, fail func(string, ...any)) {
	check := func(option, name string) string {
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			fail("%s: %q is not the name of a header", option, name)
		case slices.Contains(ownHeaders, name):
			fail("%s: %s belongs to the request: remove it", option, name)
		}
		return name
	}
	for _, name := range slices.Sorted(maps.Keys(o.Headers)) {
		if !httpguts.ValidHeaderFieldValue(o.Headers[name]) {
			fail("headers: %s holds a character that no header can have", name)
		}
		w.headers.Set(check("headers", name), o.Headers[name])
	}
	for _, name := range o.PromoteToHeader {
		if _, ok := w.headers[check("promoteToHeader", name)]; ok {
			fail("promoteToHeader: %s stands in headers too: remove it from one of them", name)
		}
	}
	w.promote = o.PromoteToHeader
	w.headers.Set("Accept", "application/json")
	w.headers.Set("Content-Type", "application/json")
	w.headers.Set("User-Agent", "hadal")
}

func (w *webhook) reports() bool { return w.report }

// What the webhook does not know may be for a strategy of tokens as well.
func (w *webhook) followed(bool) { w.more = true }

// run keeps nothing open when the strategy has been replaced.
func (w *webhook) run(ctx context.Context) {
	<-ctx.Done()
	w.transport.CloseIdleConnections()
}

// repeats says whether a redirect is followed: only one that repeats the request, with
// its body, and only to the same server. Any other would give auth data to somebody who
// was not configured, or take the answer of a page that was not asked.
func repeats(r *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > webhookRedirects || r.Method != first.Method || r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// Authenticate implements Authenticator.
func (w *webhook) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	headers, bad := w.promoted(a.Params)
	if bad != "" {
		return w.refuse(reason(bad + " cannot be sent as a header")), nil
	}
	body, err := w.body(a)
	if err != nil {
		return Verdict{}, err
	}
	var v Verdict
	if e := w.turns.Check(ctx, a.RemoteAddr, place, func() bool {
		var said bool
		v, said, err = w.ask(ctx, headers, body)
		// Nobody is slowed for what the webhook did not say, or another strategy may know.
		return !said || v.Opinion == Accepted || v.Opinion == NoOpinion && w.more
	}); e != nil {
		return Verdict{}, e
	}
	return v, err
}

// unheard is the verdict where the webhook gave none.
func unheard(why string) Verdict { return Verdict{Opinion: Refused, Reason: reason(why)} }

// ask asks until there is an answer or the attempts are used up. It says whether the
// verdict is the webhook's.
func (w *webhook) ask(ctx context.Context, headers http.Header, body []byte) (v Verdict, said bool, err error) {
	for left := w.attempts; ; left-- {
		began := time.Now()
		answer, err := w.once(ctx, headers, body)
		ended := func(result string) { w.observer.Webhook(result, time.Since(began)) }
		switch {
		case ctx.Err() != nil:
			ended(webhookAbandoned)
			return Verdict{}, false, context.Cause(ctx) // the client has gone, or had its time
		case errors.Is(err, errLongAnswer):
			ended(webhookUnusable)
			w.complaints.tell("the webhook of auth answers too much", "err", err)
			return unheard(answerUnusable), false, nil
		case err != nil:
			ended(webhookFailed)
			w.complaints.tell("the webhook of auth cannot be asked", "err", err, "left", left)
		case w.retry[answer.status]:
			ended(webhookAgain)
			w.complaints.tell("the webhook of auth has to be asked again", "status", answer.status, "left", left)
		default:
			switch v, said = w.judge(answer); {
			case !said:
				ended(webhookUnusable)
			case v.Opinion == Accepted:
				ended(webhookAccepted)
			default:
				ended(webhookRefused)
			}
			return v, said, nil
		}
		if left == 0 {
			return unheard(retriesExceeded), false, nil
		}
		if !pause(ctx, w.interval) {
			return Verdict{}, false, context.Cause(ctx)
		}
	}
}

// pause waits, and says whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// once asks once.
func (w *webhook) once(ctx context.Context, headers http.Header, body []byte) (webhookAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return webhookAnswer{}, errors.New("endpointUrl cannot be asked") // New has parsed it
	}
	r.Header = headers.Clone()
	resp, err := w.client.Do(r)
	if err != nil {
		return webhookAnswer{}, whyFailed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := readAnswer(resp.Body)
	return webhookAnswer{status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), location: resp.Header.Get("Location"), body: text}, whyFailed(err)
}

// refuse is a refusal where the strategy is to report one, else no opinion.
func (w *webhook) refuse(reason string) Verdict {
	if !w.report {
		return Verdict{}
	}
	return Verdict{Opinion: Refused, Reason: reason}
}

// hostOf is the host of a URL for the log, which may be relative or none.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}
