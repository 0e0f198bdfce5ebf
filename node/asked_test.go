package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"
)

func TestWhatStrategiesAskIsCounted(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(`{"id":"ann"}`))
	}))
	t.Cleanup(s.Close)
	attempts, interval := 0, time.Second
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.Auth = []auth.Config{
			{Type: "jwt", Options: auth.Options{JWKSURL: s.URL + "/keys"}},
			{Type: "http", Options: auth.Options{
				EndpointURL: s.URL, PermittedStatusCodes: []int{200}, RequestTimeout: 30 * time.Second,
				RetryStatusCodes: []int{}, RetryAttempts: &attempts, RetryInterval: &interval,
			}},
		}
	})
	if _, m := enter(t, n, `{"username":"ann","password":"x"}`); m.Action != protocol.AuthAuthSuccessful {
		t.Fatalf("the login is answered %s %s", m.Action.Name(m.Topic), m.Data)
	}
	give := time.Now().Add(30 * time.Second)
	for {
		text := metricsOf(t, n)
		missing := ""
		for _, want := range []string{
			`hadal_webhook_seconds_count{result="accepted"} 1`, `hadal_webhook_seconds_count{result="refused"} 0`,
			`hadal_key_set_loads_total{result="ok"} 0`, `hadal_key_set_loaded_timestamp_seconds 0`,
		} {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if strings.Contains(text, `hadal_key_set_loads_total{result="failed"} 0`) { // it has just begun
			missing = "a failed load of the keys"
		}
		if missing == "" {
			return
		}
		if time.Now().After(give) {
			t.Fatalf("the metrics lack %s", missing)
		}
		time.Sleep(50 * time.Millisecond) // between two questions
	}
}
