package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What happens to clients. A connection is one login of one client; it is called
// Client in all events of its own.
const (
	Opened What = "opened" // Client of user Name is logged in at Node
	Closed What = "closed" // it is not any more
)

// What happens in the event room.
const (
	Emits        What = "emits"        // Client emits event ID under Name
	Hears        What = "hears"        // Client gets event ID of the client Data under Name
	Subscribes   What = "subscribes"   // Client is subscribed to Name, acknowledged
	Unsubscribes What = "unsubscribes" // Client asks to end that
)

// What happens in the rpc room.
const (
	Calls   What = "calls"   // Client calls Name; the call is ID
	Asked   What = "asked"   // Client, a provider, gets the call ID
	Rejects What = "rejects" // Client, a provider, rejects the call ID
	Answer  What = "answer"  // Client, the caller, gets the end of call ID; Note says which
)

// What happens in the presence room.
const (
	Watches What = "watches" // Client is subscribed to everybody, acknowledged
	Joins   What = "joins"   // Client hears that user Name joins
	Leaves  What = "leaves"  // Client hears that user Name leaves
	Online  What = "online"  // Client is told who is online: Data, separated by spaces
)

// What happens in the listen rooms. Names are those of subscriptions.
const (
	Wants    What = "wants"    // Client is subscribed to Name, which a pattern may match
	Listens  What = "listens"  // Client listens to the pattern Name from now on: OK says that it will accept
	Found    What = "found"    // Client, a provider, is asked to provide Name
	Accepts  What = "accepts"  // it will
	Declines What = "declines" // it will not
	Removed  What = "removed"  // it is told to stop
	Provided What = "provided" // Client is told whether Name has a provider: OK
)

// Verifiers say what is wrong with a history, or nothing.

// EventsOnceAndInOrder verifies that each event reaches a subscriber at most once, in
// its publisher's order for each name, and only after it was emitted.
func EventsOnceAndInOrder(events []Event) (wrong []error) {
	type stream struct{ hearer, publisher, name string }
	emitted := make(map[string]bool)
	last := make(map[stream]uint64)
	for _, e := range events {
		switch e.What {
		case Emits:
			emitted[fmt.Sprint(e.Client, e.Name, e.ID)] = true
		case Hears:
			s := stream{e.Client, e.Data, e.Name}
			switch {
			case !emitted[fmt.Sprint(e.Data, e.Name, e.ID)]:
				wrong = append(wrong, fmt.Errorf("nobody had emitted what is heard: %v", e))
			case e.ID <= last[s]:
				wrong = append(wrong, fmt.Errorf("heard after event %d of the same publisher: %v", last[s], e))
			}
			last[s] = max(last[s], e.ID)
		}
	}
	return wrong
}

// EventsArriveInQuiet verifies that an event emitted after Quiet reaches, within a
// while, everybody who has been subscribed for as long and stays so.
func EventsArriveInQuiet(events []Event, while time.Duration) (wrong []error) {
	type subscription struct{ client, name string }
	type span struct{ from, to time.Duration }
	spans := make(map[subscription]span)
	const never = 1 << 62
	quiet, end := time.Duration(never), time.Duration(0)
	heard := make(map[string]bool)
	for _, e := range events {
		end = e.At
		switch e.What {
		case Quiet:
			quiet = e.At
		case Subscribes:
			spans[subscription{e.Client, e.Name}] = span{e.At, never}
		case Unsubscribes:
			s := spans[subscription{e.Client, e.Name}]
			spans[subscription{e.Client, e.Name}] = span{s.from, e.At}
		case Closed:
			for k, s := range spans {
				if k.client == e.Client {
					spans[k] = span{s.from, min(s.to, e.At)}
				}
			}
		case Hears:
			heard[fmt.Sprint(e.Client, e.Data, e.Name, e.ID)] = true
		}
	}
	for _, e := range events {
		if e.What != Emits || e.At < quiet || e.At+while > end {
			continue
		}
		for s, sp := range spans {
			if s.name == e.Name && s.client != e.Client && sp.from+while <= e.At && sp.to >= e.At+while &&
				!heard[fmt.Sprint(s.client, e.Client, e.Name, e.ID)] {
				wrong = append(wrong, fmt.Errorf("%s has not heard it: %v", s.client, e))
			}
		}
	}
	return wrong
}

// heardWithin is how long it may take until a node hears what the table says.
const heardWithin = time.Second

// CallsEndOnce verifies that every call has exactly one final answer, within bound
// unless its caller goes, and that it is put to a second provider only when the one
// before has rejected it or may have been lost: it, its node or the link between the
// two nodes. A node that was lost may also put it to a provider late, when it comes back
// and reads what it was sent before; and that it was lost others may learn as late as
// heardWithin, when it is back already and has been asked meanwhile.
func CallsEndOnce(events []Event, bound time.Duration) (wrong []error) {
	type asking struct{ client, node string }
	type call struct {
		began   Event
		answers int
		asked   []asking
		over    bool            // the last one asked has rejected or may have been lost
		lost    map[string]bool // machines that may have been since it began
	}
	calls := make(map[uint64]*call)
	node := make(map[string]string) // of a client
	gone := make(map[string]time.Duration)
	counted := make(map[string]time.Duration) // when a machine was counted as dead last
	end := time.Duration(0)
	// lost notes that something was, where is says of which askings.
	lost := func(is func(caller string, last asking) bool) {
		for _, c := range calls {
			if n := len(c.asked); n > 0 && is(c.began.Node, c.asked[n-1]) {
				c.over = true
			}
		}
	}
	// away notes that a node was lost to another, or to all.
	away := func(node, to string) {
		for _, c := range calls {
			if to == "" || c.began.Node == to {
				c.lost[node] = true
			}
		}
	}
	for _, e := range events {
		end = e.At
		switch e.What {
		case Opened:
			node[e.Client] = machineOf(e.Node)
		case Calls:
			calls[e.ID] = &call{began: e, lost: make(map[string]bool)}
			calls[e.ID].began.Node = node[e.Client]
		case Asked:
			c := calls[e.ID]
			if c == nil {
				wrong = append(wrong, fmt.Errorf("nobody had made the call: %v", e))
				continue
			}
			if len(c.asked) > 0 && !c.over && !c.lost[node[e.Client]] {
				wrong = append(wrong, fmt.Errorf("run twice, the last one who has it is %s: %v", c.asked[len(c.asked)-1].client, e))
			}
			c.asked = append(c.asked, asking{e.Client, node[e.Client]})
			_, left := gone[e.Client]
			at, dead := counted[node[e.Client]]
			c.over = left || c.lost[node[e.Client]] || dead && e.At-at < heardWithin
		case Rejects:
			if c := calls[e.ID]; c != nil {
				c.over = true
			}
		case Closed:
			gone[e.Client] = e.At
			lost(func(_ string, last asking) bool { return last.client == e.Client })
		case Unlinked:
			one, other := machineOf(e.Node), machineOf(e.Name)
			away(one, other)
			away(other, one)
			lost(func(caller string, last asking) bool {
				return caller == one && last.node == other || caller == other && last.node == one
			})
		case Fault, Lost:
			if e.Node == "" {
				continue // the links tell
			}
			if e.What == Lost {
				counted[machineOf(e.Node)] = e.At
			}
			away(machineOf(e.Node), "")
			lost(func(_ string, last asking) bool { return last.node == machineOf(e.Node) && e.Note != "resumed" })
		case Answer:
			c := calls[e.ID]
			if c == nil {
				wrong = append(wrong, fmt.Errorf("nobody had made the call: %v", e))
				continue
			}
			if c.answers++; c.answers > 1 {
				wrong = append(wrong, fmt.Errorf("answered %d times: %v", c.answers, e))
			}
			if late := e.At - c.began.At; late > bound {
				wrong = append(wrong, fmt.Errorf("answered after %v: %v", late, e))
			}
		}
	}
	for _, e := range events {
		if e.What != Calls || calls[e.ID].answers > 0 || e.At+bound > end {
			continue
		}
		if at, left := gone[e.Client]; !left || at > e.At+bound {
			wrong = append(wrong, fmt.Errorf("never answered: %v", e))
		}
	}
	return wrong
}

// PresenceTellsTheTruth verifies what watchers are told: a user's joins and leaves in
// turn, no leave of one who was not there, and at the end, when it is quiet, who is
// there. Nothing is told between the Quiet and the end but what happens then (flaps).
func PresenceTellsTheTruth(events []Event, while time.Duration) (wrong []error) {
	type pair struct{ watcher, user string }
	user := make(map[string]string)           // of an open client
	count := make(map[string]int)             // open clients of a user
	changed := make(map[string]time.Duration) // when that last changed from or to none
	ever := make(map[string]bool)             // users that have been there
	last := make(map[pair]What)
	watching := make(map[string]time.Duration)
	quiet, end := time.Duration(1<<62), time.Duration(0)
	for _, e := range events {
		end = e.At
		switch e.What {
		case Quiet:
			quiet = e.At
		case Opened:
			user[e.Client] = e.Name
			ever[e.Name] = true
			if count[e.Name]++; count[e.Name] == 1 {
				changed[e.Name] = e.At
			}
		case Closed:
			name, ok := user[e.Client]
			if !ok {
				continue
			}
			delete(user, e.Client)
			delete(watching, e.Client)
			if count[name]--; count[name] == 0 {
				changed[name] = e.At
			}
		case Watches:
			watching[e.Client] = e.At
		case Joins, Leaves:
			p := pair{e.Client, e.Name}
			switch {
			case last[p] == e.What:
				wrong = append(wrong, fmt.Errorf("told twice in a row: %v", e))
			case !ever[e.Name]:
				wrong = append(wrong, fmt.Errorf("the user was never there: %v", e))
			case e.At > quiet && e.At > changed[e.Name]+while:
				wrong = append(wrong, fmt.Errorf("nothing has happened to the user for %v: %v", e.At-changed[e.Name], e))
			}
			last[p] = e.What
		case Online:
			if e.At < quiet {
				continue
			}
			told := strings.Fields(e.Data)
			for name := range ever {
				is := slices.Contains(told, name)
				if e.At > changed[name]+while && is != (count[name] > 0) && name != user[e.Client] {
					wrong = append(wrong, fmt.Errorf("%s has %d connections: %v", name, count[name], e))
				}
			}
		}
	}
	for p, what := range last {
		_, open := watching[p.watcher]
		if open && end > changed[p.user]+while && (what == Joins) != (count[p.user] > 0) {
			wrong = append(wrong, fmt.Errorf("%s was told last that %s %s, who has %d connections", p.watcher, p.user, what, count[p.user]))
		}
	}
	return wrong
}

// OneProviderEach verifies the end of a history, when it is quiet: each name that
// somebody wants and may have (by the provider's own words: can says whether a
// connection would accept it) has exactly one provider, a name that nobody wants has
// none, and each of its subscribers was told so last, if tells says that they are told of
// that name.
func OneProviderEach(events []Event, can func(provider, name string) bool, tells func(name string) bool) (wrong []error) {
	type pair struct{ client, name string }
	open := make(map[string]bool)
	wants := make(map[pair]bool)
	provides := make(map[pair]bool)
	told := make(map[pair]bool)
	names := make(map[string]bool)
	for _, e := range events {
		p := pair{e.Client, e.Name}
		switch e.What {
		case Opened:
			open[e.Client] = true
		case Closed:
			delete(open, e.Client)
		case Wants:
			wants[p], names[e.Name] = true, true
		case Unsubscribes:
			delete(wants, p)
			delete(told, p)
		case Accepts:
			provides[p] = true // maybe again: an accept that crossed the next question
		case Removed:
			delete(provides, p)
		case Provided:
			told[p] = e.OK
		}
	}
	for name := range names {
		var who []string
		possible, wanted := false, false
		for c := range open {
			if provides[pair{c, name}] {
				who = append(who, c)
			}
			possible = possible || can(c, name)
			wanted = wanted || wants[pair{c, name}]
		}
		slices.Sort(who)
		want := 0
		if possible && wanted {
			want = 1
		}
		if len(who) != want {
			wrong = append(wrong, fmt.Errorf("%s has %d providers %v, want %d", name, len(who), who, want))
		}
		for c := range open {
			if p := (pair{c, name}); wants[p] && tells(name) && told[p] != (want == 1) {
				wrong = append(wrong, fmt.Errorf("%s was told last that %s has a provider: %v", c, name, told[p]))
			}
		}
	}
	return wrong
}
