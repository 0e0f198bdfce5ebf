package admin

import "net/http"

// Reason is one thing that keeps a node from being ready.
type Reason struct {
	// Part is the part of the node, such as "records".
	Part string `json:"part"`
	// Why says what is wrong, for anybody to read: it names no client and no secret.
	Why string `json:"why"`
	// NoLogin says that clients cannot even log in.
	NoLogin bool `json:"noLogin,omitempty"`
}

// Health answers who asks how the node is, on the public port and here.
type Health struct {
	ready func() []Reason
}

// NewHealth answers from ready, which lists what is wrong; nothing when nothing
// is. It is called for each request, from anywhere.
func NewHealth(ready func() []Reason) *Health { return &Health{ready} }

// Check answers 200 while clients can log in and 503 before and after, as
// deepstream's health check does.
func (h *Health) Check() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var closed []Reason
		for _, r := range h.ready() {
			if r.NoLogin {
				closed = append(closed, r)
			}
		}
		answerHealth(w, closed)
	})
}

// Alive answers 200 as long as the process answers at all: who gets no answer
// may restart it.
func (h *Health) Alive() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, nil) })
}

// Ready answers 200 when there is no reason not to send clients here, and else
// 503 with the reasons.
func (h *Health) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, h.ready()) })
}

func answerHealth(w http.ResponseWriter, wrong []Reason) {
	status := http.StatusOK
	if len(wrong) > 0 {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, struct {
		OK      bool     `json:"ok"`
		Reasons []Reason `json:"reasons,omitempty"`
	}{len(wrong) == 0, wrong})
}
