package auth

import "time"

// Observer hears what strategies ask of servers of the operator's, for metrics. Its
// functions are called from many goroutines and must not block; nil ones hear nothing.
type Observer struct {
	// Webhook is called after each request to a webhook, with one of WebhookResults and
	// how long it took.
	Webhook func(result string, took time.Duration)
	// KeySet is called after each attempt to load a set of keys, with one of KeySetResults.
	KeySet func(result string)
}

// How a request to a webhook ended.
const (
	// webhookAccepted and webhookRefused are what it said.
	webhookAccepted = "accepted"
	webhookRefused  = "refused"
	// webhookAgain is a status for which it is asked again, if any attempt is left.
	webhookAgain = "again"
	// webhookFailed is no answer, or none in time.
	webhookFailed = "failed"
	// webhookUnusable is an answer that says nothing.
	webhookUnusable = "unusable"
	// webhookAbandoned is that the client had gone before there was an answer.
	webhookAbandoned = "abandoned"
)

// How loading a set of keys ended.
const (
	keySetOK     = "ok"
	keySetFailed = "failed"
)

// The results that an Observer hears.
var (
	WebhookResults = []string{webhookAccepted, webhookRefused, webhookAgain, webhookFailed, webhookUnusable, webhookAbandoned}
	KeySetResults  = []string{keySetOK, keySetFailed}
)

// complete is o with something in the place of what is nil.
func (o Observer) complete() Observer {
	if o.Webhook == nil {
		o.Webhook = func(string, time.Duration) {}
	}
	if o.KeySet == nil {
		o.KeySet = func(string) {}
	}
	return o
}
