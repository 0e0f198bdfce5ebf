package endpoint

import (
	"encoding/json"
	"sync"
	"sync/atomic"

	"hadal/protocol"
)

// toldVersions is how many versions of old clients the log is told of: what a client
// says of itself anybody can make up.
const toldVersions = 64

// The outcomes for an old client.
const (
	outdatedWarned = iota
	outdatedRefused
	outdatedResults
)

var outdatedNames = [outdatedResults]string{"warned", "refused"}

// outdated counts the clients that are too old, and tells the log of each version once.
type outdated struct {
	counts [outdatedResults]atomic.Uint64

	mu   sync.Mutex
	told [outdatedResults]pairs // guarded by mu
}

// note counts a client, and says whether its version is to be logged.
func (o *outdated) note(result int, sdk string) bool {
	o.counts[result].Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told[result].add(sdk, toldVersions)
}

// age judges a challenge. What is refused is the login that follows, for only a refused
// login tells the person behind the official client why: of a REJECT it says nothing.
func (c *Conn) age(kind, version string) {
	s, sdk := c.srv, c.SDK()
	if bound, old := below(s.cfg.Clients.RefuseBelow, kind, version); old {
		b, err := json.Marshal(map[string]string{"error": "CLIENT_NOT_SUPPORTED", "message": supported(clip(kind, 32), bound)})
		if err != nil { // no text is beyond JSON
			b = []byte(`{"error":"CLIENT_NOT_SUPPORTED"}`)
		}
		c.unwanted = string(b)
		if s.outdated.note(outdatedRefused, sdk) {
			s.log.Warn("clients of this version are refused, as clients.refuseBelow says; further ones are only counted", "sdk", sdk, "bound", bound, "remote", c.remote)
		}
		return
	}
	if bound, old := below(s.cfg.Clients.WarnBelow, kind, version); old && s.outdated.note(outdatedWarned, sdk) {
		s.log.Warn("an old client is in use, as clients.warnBelow says; further ones of this version are only counted", "sdk", sdk, "bound", bound, "remote", c.remote)
	}
}

// turnDown answers the login of a client that is too old. Nothing of it is looked at.
// The second message is the one after which the official client does not come back.
func (c *Conn) turnDown() {
	c.srv.logins[loginRefused].Add(1)
	c.Answer(&protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthAuthUnsuccessful, Has: protocol.HasData, Data: c.unwanted})
	c.say(protocol.TopicAuth, protocol.AuthTooManyAuthAttempts)
	c.lastWords(Outdated)
}
