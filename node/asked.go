package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hadal/auth"
)

// asked counts what strategies ask of servers of the operator's, across reloads.
type asked struct {
	webhook *prometheus.HistogramVec
	keySets *prometheus.CounterVec
}

// newAsked begins at zero, with all results that there are.
func newAsked() asked {
	a := asked{
		webhook: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hadal_webhook_seconds", Help: "Time of a request to a webhook of auth, by how it ended.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}, []string{"result"}),
		keySets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hadal_key_set_loads_total", Help: "Attempts to load sets of keys of tokens (jwksUrl), by result.",
		}, []string{"result"}),
	}
	for _, result := range auth.WebhookResults {
		a.webhook.WithLabelValues(result)
	}
	for _, result := range auth.KeySetResults {
		a.keySets.WithLabelValues(result)
	}
	return a
}

func (a asked) observer() auth.Observer {
	return auth.Observer{
		Webhook: func(result string, took time.Duration) { a.webhook.WithLabelValues(result).Observe(took.Seconds()) },
		KeySet:  func(result string) { a.keySets.WithLabelValues(result).Inc() },
	}
}

// collectKeySets tells how old the keys of tokens are, where they come from a URL.
func (n *Node) collectKeySets(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	at, ok := n.auth.KeySetLoaded()
	switch {
	case !ok:
	case at.IsZero():
		gauge(descKeysLoaded, 0)
	default:
		gauge(descKeysLoaded, float64(at.Unix()))
	}
}
