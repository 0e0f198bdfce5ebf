package clustertest

import (
	"strings"
	"testing"
	"time"
)

// at numbers the events of a history by their seconds.
func at(events ...Event) []Event {
	for i := range events {
		if events[i].At == 0 {
			events[i].At = time.Duration(i+1) * time.Second
		}
	}
	return events
}

// write and its like are short for requests and their answers.
func asks(client string, id uint64, note string, version int32, data string) Event {
	return Event{What: Requests, Client: client, Name: "r", ID: id, Note: note, Version: version, Data: data}
}

func gets(client string, id uint64, note string, version int32, data string) Event {
	return Event{What: Responds, Client: client, Name: "r", ID: id, Note: note, Version: version, Data: data}
}

func TestVerifiersFindWhatIsWrong(t *testing.T) {
	live := func(version int32, data string) Event {
		return Event{What: Live, Client: "b", Name: "r", Version: version, Data: data}
	}
	patch := func(version int32, data string) Event {
		return Event{What: Live, Client: "b", Name: "r", Version: version, Data: data, Note: Patch}
	}
	follows := func(version int32, data string) Event {
		return Event{What: Follows, Client: "b", Name: "r", Version: version, Data: data}
	}
	truth := func(version int32, data string) Event {
		return Event{What: Truth, Name: "r", Version: version, Data: data, OK: true}
	}
	linear := func(e []Event) []error { return Linearizable(e, time.Minute) }
	quietly := func(e []Event) []error { return EventsArriveInQuiet(e, time.Second) }
	bounded := func(e []Event) []error { return CallsEndOnce(e, 10*time.Second) }
	present := func(e []Event) []error { return PresenceTellsTheTruth(e, 3*time.Second) }
	provided := func(e []Event) []error {
		return OneProviderEach(e, func(p, _ string) bool { return strings.HasPrefix(p, "p") }, func(string) bool { return true })
	}
	open := func(client, node, user string) Event {
		return Event{What: Opened, Client: client, Node: node, Name: user}
	}
	tests := []struct {
		name   string
		verify func([]Event) []error
		events []Event
		want   string // part of what is found, or nothing
	}{
		{"writes and reads in order", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Acked, 0, ""),
			asks("b", 2, Read, 0, ""), gets("b", 2, Value, 1, "1"),
			asks("b", 3, Write, 1, "3"), gets("b", 3, Exists, 1, "1"),
			asks("b", 4, Write, 5, "4"), gets("b", 4, Ahead, 1, ""),
			asks("b", 5, Write, -1, "5"), gets("b", 5, Acked, 0, ""),
			asks("b", 6, Head, 0, ""), gets("b", 6, Value, 2, ""),
			asks("a", 7, Delete, 0, ""), gets("a", 7, Gone, 0, ""),
			asks("b", 8, Read, 0, ""), gets("b", 8, Missing, 0, ""),
			asks("b", 9, Create, 0, ""), gets("b", 9, Value, 0, EmptyRecord),
			truth(0, EmptyRecord)), ""},
		{"a read of the past", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Acked, 0, ""),
			asks("a", 2, Write, 2, "2"), gets("a", 2, Acked, 0, ""),
			asks("b", 3, Read, 0, ""), gets("b", 3, Value, 1, "1")), "no order"},
		{"a version accepted twice", linear, at(
			asks("a", 1, Write, 1, "1"), asks("b", 2, Write, 1, "2"),
			gets("a", 1, Acked, 0, ""), gets("b", 2, Acked, 0, "")), "no order"},
		{"an acknowledged write that got lost", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Acked, 0, ""), truth(0, "")), "no order"},
		{"an unsure write that was made", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Unsure, 0, ""),
			asks("b", 2, Read, 0, ""), gets("b", 2, Value, 1, "1")), ""},
		{"an unsure write that was not made", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Unsure, 0, ""),
			asks("b", 2, Read, 0, ""), gets("b", 2, Missing, 0, ""), Event{What: Truth, Name: "r"}), ""},
		{"an unsure write that was made and unmade", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Unsure, 0, ""),
			asks("b", 2, Read, 0, ""), gets("b", 2, Value, 1, "1"),
			asks("b", 3, Read, 0, ""), gets("b", 3, Missing, 0, "")), "no order"},
		{"a write that did nothing and is seen", linear, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Nothing, 0, ""),
			asks("b", 2, Read, 0, ""), gets("b", 2, Value, 1, "1")), "no order"},
		{"a creation that was served twice", linear, at(
			asks("a", 1, Create, 0, ""), asks("b", 2, Write, 1, "1"), gets("b", 2, Acked, 0, ""), gets("a", 1, Value, 1, "1")), ""},
		{"a record that comes back after a creation", linear, at(
			asks("a", 1, Create, 0, ""), gets("a", 1, Value, 0, EmptyRecord), asks("b", 2, Delete, 0, ""), gets("b", 2, Gone, 0, ""),
			asks("b", 3, Read, 0, ""), gets("b", 3, Value, 0, EmptyRecord)), "no order"},
		{"an unsure write that may come late, or never", linear, at(
			asks("a", 1, Write, -1, "1"), gets("a", 1, Unsure, 0, ""), asks("b", 2, Write, 1, "2"), gets("b", 2, Acked, 0, ""),
			asks("b", 3, Read, 0, ""), gets("b", 3, Value, 1, "2"), asks("b", 4, Read, 0, ""), gets("b", 4, Value, 2, "1"), truth(2, "1")), ""},
		{"two answers", linear, at(
			asks("a", 1, Read, 0, ""), gets("a", 1, Missing, 0, ""), gets("a", 1, Missing, 0, "")), "answered twice"},

		{"one state each version", OneStateEachVersion, at(
			asks("a", 1, Write, 1, "1"), gets("a", 1, Acked, 0, ""), follows(1, "1"), truth(1, "1")), ""},
		{"two states of a version", OneStateEachVersion, at(
			asks("a", 1, Write, 1, "1"), asks("a", 2, Write, 1, "2"), follows(1, "1"), live(1, "2")), "version 1 of r has"},
		{"a state that nobody wrote", OneStateEachVersion, at(follows(1, "1")), "nobody had asked"},

		{"updates that run forward", LiveUpdatesRunForward, at(
			follows(0, EmptyRecord), live(1, "1"), patch(2, "2"), live(5, "5"), truth(5, "5")), ""},
		{"updates that run backwards", LiveUpdatesRunForward, at(follows(0, EmptyRecord), live(2, "2"), live(1, "1"), truth(1, "1")), "after version 2"},
		{"a state told once more", LiveUpdatesRunForward, at(follows(0, EmptyRecord), live(1, "1"), live(1, "1")), ""},
		{"another state of a version", LiveUpdatesRunForward, at(follows(0, EmptyRecord), live(1, "1"), live(1, "2")), "after version 1"},
		{"a patch twice", LiveUpdatesRunForward, at(follows(0, EmptyRecord), patch(1, "1"), patch(1, "1")), "after version 1"},
		{"a patch over a gap", LiveUpdatesRunForward, at(follows(0, EmptyRecord), patch(2, "2")), "a patch that follows version 0"},
		{"a patch after an own write", LiveUpdatesRunForward, at(
			follows(0, EmptyRecord), asks("b", 1, Write, 1, "1"), patch(2, "2")), ""},
		{"the newest state is missing", LiveUpdatesRunForward, at(follows(0, EmptyRecord), live(1, "1"), truth(2, "2")), "was shown version 1"},
		{"the newest state is one's own", LiveUpdatesRunForward, at(
			follows(0, EmptyRecord), asks("b", 1, Write, 1, "1"), truth(1, "1")), ""},
		{"an update without a subscription", LiveUpdatesRunForward, at(
			follows(0, EmptyRecord), Event{What: Unfollows, Client: "b", Name: "r"}, live(1, "1")), "not subscribed"},

		{"events in order, one lost", EventsOnceAndInOrder, at(
			Event{What: Emits, Client: "a", Name: "e", ID: 1}, Event{What: Emits, Client: "a", Name: "e", ID: 2},
			Event{What: Hears, Client: "b", Data: "a", Name: "e", ID: 2}), ""},
		{"an event twice", EventsOnceAndInOrder, at(
			Event{What: Emits, Client: "a", Name: "e", ID: 1},
			Event{What: Hears, Client: "b", Data: "a", Name: "e", ID: 1}, Event{What: Hears, Client: "b", Data: "a", Name: "e", ID: 1}), "after event 1"},
		{"an event of nobody", EventsOnceAndInOrder, at(Event{What: Hears, Client: "b", Data: "a", Name: "e", ID: 1}), "nobody had emitted"},

		{"an event in quiet that arrives", quietly, at(
			Event{What: Subscribes, Client: "b", Name: "e"}, Event{What: Quiet}, Event{What: Emits, Client: "a", Name: "e", ID: 1},
			Event{What: Hears, Client: "b", Data: "a", Name: "e", ID: 1}, Event{What: Fault}), ""},
		{"an event in quiet that does not", quietly, at(
			Event{What: Subscribes, Client: "b", Name: "e"}, Event{What: Quiet}, Event{What: Emits, Client: "a", Name: "e", ID: 1},
			Event{What: Fault}), "b has not heard it"},
		{"an event for one who leaves", quietly, at(
			Event{What: Subscribes, Client: "b", Name: "e"}, Event{What: Quiet}, Event{What: Emits, Client: "a", Name: "e", ID: 1},
			Event{What: Closed, Client: "b", At: 3500 * time.Millisecond}, Event{What: Fault}), ""},

		{"a call that moves on after a rejection", bounded, at(
			Event{What: Calls, Client: "a", ID: 1}, Event{What: Asked, Client: "p", ID: 1}, Event{What: Rejects, Client: "p", ID: 1},
			Event{What: Asked, Client: "q", ID: 1}, Event{What: Answer, Client: "a", ID: 1}), ""},
		{"a call that moves on when a link breaks", bounded, at(
			open("a", "x.1", "u"), open("p", "y.1", "u"), Event{What: Calls, Client: "a", ID: 1}, Event{What: Asked, Client: "p", ID: 1},
			Event{What: Unlinked, Node: "x.1", Name: "y.1"}, Event{What: Asked, Client: "q", ID: 1}, Event{What: Answer, Client: "a", ID: 1}), ""},
		{"a call that moves on when it is heard late that a node was lost", bounded, at(
			open("a", "x.1", "u"), open("p", "y.1", "u"), Event{What: Lost, Node: "y.1", At: 4 * time.Second}, Event{What: Calls, Client: "a", ID: 1, At: 4 * time.Second},
			Event{What: Asked, Client: "p", ID: 1, At: 4 * time.Second}, Event{What: Asked, Client: "q", ID: 1, At: 4 * time.Second}, Event{What: Answer, Client: "a", ID: 1, At: 4 * time.Second}), ""},
		{"a call run twice long after a node was lost", bounded, at(
			open("a", "x.1", "u"), open("p", "y.1", "u"), Event{What: Lost, Node: "y.1", At: 3 * time.Second}, Event{What: Calls, Client: "a", ID: 1, At: 5 * time.Second},
			Event{What: Asked, Client: "p", ID: 1, At: 5 * time.Second}, Event{What: Asked, Client: "q", ID: 1, At: 5 * time.Second}, Event{What: Answer, Client: "a", ID: 1, At: 5 * time.Second}), "run twice"},
		{"a call run twice", bounded, at(
			Event{What: Calls, Client: "a", ID: 1}, Event{What: Asked, Client: "p", ID: 1},
			Event{What: Asked, Client: "q", ID: 1}, Event{What: Answer, Client: "a", ID: 1}), "run twice"},
		{"a call answered twice", bounded, at(
			Event{What: Calls, Client: "a", ID: 1}, Event{What: Answer, Client: "a", ID: 1}, Event{What: Answer, Client: "a", ID: 1}), "answered 2 times"},
		{"a call answered late", bounded, at(
			Event{What: Calls, Client: "a", ID: 1}, Event{What: Answer, Client: "a", ID: 1, At: time.Minute}), "answered after"},
		{"a call never answered", bounded, at(Event{What: Calls, Client: "a", ID: 1}, Event{What: Quiet, At: time.Minute}), "never answered"},
		{"a call of one who left", bounded, at(
			Event{What: Calls, Client: "a", ID: 1}, Event{What: Closed, Client: "a"}, Event{What: Quiet, At: time.Minute}), ""},

		{"one who comes and goes", present, at(
			Event{What: Watches, Client: "w"}, open("c", "x", "u"), Event{What: Joins, Client: "w", Name: "u"},
			Event{What: Closed, Client: "c"}, Event{What: Leaves, Client: "w", Name: "u"},
			Event{What: Quiet}, Event{What: Online, Client: "w", At: time.Minute}), ""},
		{"a user who joins twice", present, at(
			open("c", "x", "u"), Event{What: Joins, Client: "w", Name: "u"}, Event{What: Joins, Client: "w", Name: "u"}), "twice in a row"},
		{"a user who never was", present, at(Event{What: Leaves, Client: "w", Name: "u"}), "never there"},
		{"a flap in quiet", present, at(
			Event{What: Watches, Client: "w"}, open("c", "x", "u"), Event{What: Joins, Client: "w", Name: "u"}, Event{What: Quiet},
			Event{What: Leaves, Client: "w", Name: "u", At: time.Minute}, Event{What: Joins, Client: "w", Name: "u", At: time.Minute}), "nothing has happened"},
		{"a ghost", present, at(
			Event{What: Watches, Client: "w"}, open("c", "x", "u"), Event{What: Joins, Client: "w", Name: "u"},
			Event{What: Closed, Client: "c"}, Event{What: Quiet, At: time.Minute}), "was told last"},
		{"a ghost in an answer", present, at(
			open("c", "x", "u"), Event{What: Closed, Client: "c"}, Event{What: Quiet}, Event{What: Online, Client: "w", Data: "u", At: time.Minute}), "has 0 connections"},
		{"one who is forgotten", present, at(
			open("c", "x", "u"), Event{What: Quiet}, Event{What: Online, Client: "w", At: time.Minute}), "has 1 connections"},

		{"one provider", provided, at(
			open("p", "x", "u"), open("c", "x", "u"), Event{What: Wants, Client: "c", Name: "n"},
			Event{What: Accepts, Client: "p", Name: "n"}, Event{What: Provided, Client: "c", Name: "n", OK: true}), ""},
		{"two providers", provided, at(
			open("p1", "x", "u"), open("p2", "x", "u"), open("c", "x", "u"), Event{What: Wants, Client: "c", Name: "n"},
			Event{What: Accepts, Client: "p1", Name: "n"}, Event{What: Accepts, Client: "p2", Name: "n"},
			Event{What: Provided, Client: "c", Name: "n", OK: true}), "2 providers [p1 p2]"},
		{"no provider where one could be", provided, at(
			open("p", "x", "u"), open("c", "x", "u"), Event{What: Wants, Client: "c", Name: "n"}), "0 providers"},
		{"a provider for nobody", provided, at(
			open("p", "x", "u"), open("c", "x", "u"), Event{What: Wants, Client: "c", Name: "n"}, Event{What: Accepts, Client: "p", Name: "n"},
			Event{What: Closed, Client: "c"}), "want 0"},
		{"a subscriber who was not told", provided, at(
			open("p", "x", "u"), open("c", "x", "u"), Event{What: Wants, Client: "c", Name: "n"}, Event{What: Accepts, Client: "p", Name: "n"}), "was told last"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wrong := tt.verify(tt.events)
			if tt.want == "" {
				for _, err := range wrong {
					t.Errorf("found: %v", err)
				}
				return
			}
			for _, err := range wrong {
				if strings.Contains(err.Error(), tt.want) {
					return
				}
			}
			t.Errorf("found %v, want %q", wrong, tt.want)
		})
	}
}
