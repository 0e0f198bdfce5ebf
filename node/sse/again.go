package sse

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// again answers a browser whose stream cannot begin now. EventSource gives up for good
// on every status but 200, so what is over soon (429, 503) it is told by a stream that
// ends at once: it comes again after the time that Retry-After says, with what it got last.
type again struct {
	http.ResponseWriter
	origin string
}

// comesAgain is w for who makes the request: an EventSource says that it wants a stream,
// others are better off with the status.
func comesAgain(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		return w
	}
	return again{w, r.Header.Get("Origin")}
}

// WriteHeader implements http.ResponseWriter. The text that follows is a comment.
func (a again) WriteHeader(status int) {
	if status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
		a.ResponseWriter.WriteHeader(status)
		return
	}
	h := a.Header()
	wait, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil {
		wait = 1
	}
	h.Del("Retry-After")
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	allow(h, a.origin)
	a.ResponseWriter.WriteHeader(http.StatusOK)
	_, _ = fmt.Fprintf(a.ResponseWriter, "retry: %d\n: ", 1000*wait) // it may have gone
}

// allow lets a page of that origin, which the port has looked at, read the answer.
func allow(h http.Header, origin string) {
	if origin == "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Vary", "Origin")
}
