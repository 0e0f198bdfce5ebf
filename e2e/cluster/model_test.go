//go:build linux

package main

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// op is one operation of a history that is made up.
func op(client int, call, ret int64, q question, a answer) porcupine.Operation {
	q.name = "lasting/x"
	return porcupine.Operation{ClientId: client, Input: q, Call: call, Output: a, Return: ret}
}

const never = math.MaxInt64

func TestHistoriesAreJudged(t *testing.T) {
	w1 := question{kind: write, version: 1, value: "one"}
	w2 := question{kind: write, version: 2, value: "two"}
	other2 := question{kind: write, version: 2, value: "zwei"}
	p2 := question{kind: patch, version: 2, value: "two"}
	any := question{kind: write, version: anyVersion, value: "any"}
	del := question{kind: remove}
	rd, hd := question{kind: read}, question{kind: head}
	acked, lost, none := answer{outcome: done}, answer{outcome: unknown}, answer{outcome: missing}
	shows := func(v int32, w, p string) answer { return answer{done, state{v, w, p}} }
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"a write and a read":                            {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(2, 2, 3, rd, shows(1, "one", "one"))}, true},
		"a read before the write":                       {[]porcupine.Operation{op(1, 0, 1, rd, none), op(2, 2, 3, w1, acked)}, true},
		"a stale read":                                  {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, w2, acked), op(2, 4, 5, rd, shows(1, "one", "one"))}, false},
		"a stale head":                                  {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, w2, acked), op(2, 4, 5, hd, answer{done, state{version: 1}})}, false},
		"a stale read while a write is under way":       {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 6, w2, acked), op(2, 3, 5, rd, shows(1, "one", "one"))}, true},
		"reads that go back":                            {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 9, w2, acked), op(2, 3, 4, rd, shows(2, "two", "two")), op(3, 5, 6, rd, shows(1, "one", "one"))}, false},
		"a lost write":                                  {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(2, 2, 3, rd, none)}, false},
		"a version twice":                               {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 9, w2, acked), op(2, 2, 9, other2, acked)}, false},
		"a version refused to one of two":               {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 9, w2, acked), op(2, 2, 9, other2, answer{exists, state{2, "two", "two"}})}, true},
		"a refusal that shows what was not there":       {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 9, w2, answer{exists, state{2, "two", "two"}})}, false},
		"a write without an answer that happened late":  {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, never, w2, lost), op(2, 3, 4, rd, shows(1, "one", "one")), op(2, 5, 6, rd, shows(2, "two", "two"))}, true},
		"a write without an answer that never happened": {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, never, w2, lost), op(2, 3, 4, other2, acked), op(2, 5, 6, rd, shows(2, "zwei", "zwei"))}, true},
		"a write without an answer that came and went":  {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, never, w2, lost), op(2, 3, 4, rd, shows(2, "two", "two")), op(2, 5, 6, rd, shows(1, "one", "one"))}, false},
		"a patch":                            {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, p2, acked), op(2, 4, 5, rd, shows(2, "one", "two"))}, true},
		"a patch of what is not there":       {[]porcupine.Operation{op(1, 0, 1, question{kind: patch, version: 1, value: "p"}, acked), op(2, 4, 5, rd, shows(1, "", "p"))}, true},
		"any version":                        {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, any, acked), op(2, 4, 5, rd, shows(2, "any", "any"))}, true},
		"a deletion":                         {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, del, acked), op(2, 4, 5, rd, none), op(2, 6, 7, w1, acked)}, true},
		"a deletion that is undone":          {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, del, acked), op(2, 4, 5, rd, shows(1, "one", "one"))}, false},
		"a version that is ahead":            {[]porcupine.Operation{op(1, 0, 1, w2, answer{outcome: ahead}), op(1, 2, 3, w1, acked)}, true},
		"a version that is said to be ahead": {[]porcupine.Operation{op(1, 0, 1, w1, acked), op(1, 2, 3, w2, answer{ahead, state{version: 0}})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := porcupine.CheckOperations(model, closed(c.ops)); got != c.want {
				t.Errorf("linearizable %v, want %v", got, c.want)
			}
		})
	}
}

func TestHistoryComplains(t *testing.T) {
	const name = "lasting/x"
	w := func(v int32, value string) question {
		return question{kind: write, name: name, version: v, value: value}
	}
	acked := answer{outcome: done}
	for what, c := range map[string]struct {
		make func(h *history)
		want int
	}{
		"nothing wrong": {func(h *history) {
			h.add(1, w(1, "a"), 0, acked)
			h.see(name, state{1, "a", "a"})
			h.settle(name, state{1, "a", "a"})
		}, 0},
		"a version accepted twice":        {func(h *history) { h.add(1, w(1, "a"), 0, acked); h.add(1, w(1, "b"), 0, acked) }, 1},
		"a version shown as two things":   {func(h *history) { h.see(name, state{1, "a", "a"}); h.see(name, state{1, "b", "b"}) }, 1},
		"shown what was not acknowledged": {func(h *history) { h.add(1, w(1, "a"), 0, acked); h.see(name, state{1, "b", "b"}) }, 1},
		"acknowledged what was not shown": {func(h *history) { h.see(name, state{1, "b", "b"}); h.add(1, w(1, "a"), 0, acked) }, 1},
		"an acknowledged write lost": {func(h *history) {
			h.add(1, w(1, "a"), 0, acked)
			h.add(1, w(2, "b"), 0, acked)
			h.settle(name, state{1, "a", "a"})
		}, 1},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHistory()
			c.make(h)
			if len(h.wrong) != c.want {
				t.Errorf("complained of %q, want %d complaints", h.wrong, c.want)
			}
		})
	}
}

func TestCheckNamesTheRecordAndShowsIt(t *testing.T) {
	h := newHistory()
	h.add(1, question{kind: write, name: "mortal/x", version: 1, value: "a"}, h.now(), answer{outcome: done})
	h.add(2, question{kind: read, name: "mortal/x"}, h.now(), answer{outcome: missing})
	wrong, _ := h.check(t.TempDir())
	if len(wrong) != 1 {
		t.Errorf("complained of %q, want one record", wrong)
	}
}
