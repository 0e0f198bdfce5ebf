package auth

import (
	"context"
	"errors"
	"testing"
)

// directory knows one name, and cannot be asked for another.
type directory struct{ fixed }

var errDirectory = errors.New("cannot be asked")

func (directory) Knows(_ context.Context, name string) (bool, error) {
	if name == "broken" {
		return false, errDirectory
	}
	return name == "dora", nil
}

func TestAChainKnowsTheUsersOfItsStrategies(t *testing.T) {
	a := newTest(t, Options{Users: map[string]Entry{"egon": {Password: "pw"}}})
	l := NewLive(Chain{&fixed{}, a, &directory{}})
	for name, want := range map[string]bool{"egon": true, "dora": true, "nobody": false, "": false} {
		if got, err := l.Knows(t.Context(), name); got != want || err != nil {
			t.Errorf("%q: %v, %v, want %v", name, got, err, want)
		}
	}
	if _, err := l.Knows(t.Context(), "broken"); !errors.Is(err, errDirectory) {
		t.Errorf("got %v, want the strategy's error", err)
	}
	l.Replace(&fixed{})
	if got, err := l.Knows(t.Context(), "egon"); got || err != nil {
		t.Errorf("one that cannot tell: %v, %v, want that it knows nobody", got, err)
	}
	for name, want := range map[string]bool{"egon": true, "nobody": false} { // behind what judges where credentials come from
		made, err := New([]Config{{Type: "file", Options: Options{Users: map[string]Entry{"egon": {Password: "pw"}}}}}, false, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		l.Replace(Chain{made})
		if got, err := l.Knows(t.Context(), name); got != want || err != nil {
			t.Errorf("%q of the configured strategies: %v, %v, want %v", name, got, err, want)
		}
	}
	for name, want := range map[string]bool{"": true, "open": true, "OPEN": true, "hadal/x": true, "opener": false, "ann": false} {
		if got := Special(name); got != want {
			t.Errorf("Special(%q) = %v, want %v", name, got, want)
		}
	}
}
