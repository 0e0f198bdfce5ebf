package auth

import "testing"

func TestOnlyTheAnonymousIdIsAnonymous(t *testing.T) {
	for id, want := range map[string]bool{Anonymous: true, "egon": false, "": false} {
		if got := (&User{ID: id}).IsAnonymous(); got != want {
			t.Errorf("user %q: got %v, want %v", id, got, want)
		}
	}
}
