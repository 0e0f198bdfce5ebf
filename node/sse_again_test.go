package node

import (
	"io"
	"testing"
)

// EventSource would give up for good on a status: what is over soon ends its stream instead.
func TestABrowserComesAgainWhenTheNodeTakesNobody(t *testing.T) {
	n := run(t, nil)
	if err := n.endpoint.Drain(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	defer n.endpoint.Refill()
	_, res := listenTo(t, n, "?event=a", "Accept", "text/event-stream", "Origin", "https://app.example.com")
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || string(body) != "retry: 1000\n: this server takes no clients now: see /readyz\n" {
		t.Errorf("a browser is answered %s %q", res.Status, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream; charset=utf-8", "Retry-After": "",
		"Access-Control-Allow-Origin": "https://app.example.com", "Access-Control-Allow-Credentials": "true",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	_, res = listenTo(t, n, "?event=a")
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("others are answered %s %v", res.Status, res.Header)
	}
	n.endpoint.Refill()
	if _, res = listenTo(t, n, "?event=a", "Accept", "text/event-stream"); res.StatusCode != 200 {
		t.Errorf("later: %s", res.Status)
	}
}
