package admin

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeLogins is what logins keep, in a test.
type fakeLogins struct {
	mu  sync.Mutex
	all map[string]Login // guarded by mu
}

func (f *fakeLogins) ScanLogins(_ context.Context, fn func(Login) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(f.all)) {
		if err := fn(f.all[key]); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeLogins) RestoreLogin(_ context.Context, l Login) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.Key == "refused" {
		return ErrInvalid
	}
	f.all[l.Key] = l
	return nil
}

func backup(t *testing.T, h *harness) string {
	t.Helper()
	var all bytes.Buffer
	if err := h.client(t).Backup(t.Context(), func(line []byte) error {
		_, err := all.Write(line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestABackupHoldsWhatLoginsKeepAndAnExportDoesNot(t *testing.T) {
	from, to := holding(t, odd...), serve(t, Config{})
	for _, l := range []Login{
		{Key: "user/YQ", Value: []byte{}},
		{Key: "family/1", Value: []byte("\x00\xff\n"), Ends: time.Unix(1790000000, 0)},
	} {
		from.logins.all[l.Key] = l
	}
	if text := exported(t, from); strings.Contains(text, "user/YQ") || strings.Contains(text, "logins") {
		t.Errorf("an export of records holds what logins keep:\n%s", text)
	}
	all := backup(t, from)
	if got := strings.Count(all, "\n"); got != len(odd)+2+1 {
		t.Errorf("the backup has %d lines, want %d", got, len(odd)+3)
	}
	n, err := to.client(t).Import(t.Context(), strings.NewReader(all), false)
	if want := (Imported{Records: len(odd), Logins: 2}); n != want || err != nil {
		t.Fatalf("Import = %+v, %v, want %+v", n, err, want)
	}
	if again := backup(t, to); again != all {
		t.Errorf("the backup of what was restored is\n%s\nwant\n%s", again, all)
	}
	for name, lines := range map[string]string{
		"one login is missing": strings.Join(slices.Collect(strings.Lines(all))[1:], ""),
		"a value was changed":  strings.Replace(all, `"value64":""`, `"value64":"YQ=="`, 1),
	} {
		if _, err := to.client(t).Import(t.Context(), strings.NewReader(lines), false); err == nil {
			t.Errorf("%s: the backup was taken", name)
		}
	}
}

func TestLinesOfLoginsThatAreNone(t *testing.T) {
	h := serve(t, Config{})
	for line, want := range map[string]string{
		`{"login":"","value64":""}`:                          "has no key",
		`{"login":"a"}`:                                      "value64 is missing",
		`{"login":"a","value64":"?"}`:                        "not a record as JSON",
		`{"login":"a","value64":"","ends":-1}`:               "ends is no time",
		`{"login":"a","value64":"","name":"b"}`:              "is a record and an entry of logins",
		`{"name":"b","version":1,"data":1,"ends":5}`:         "and no login",
		`{"login":"a","value64":"","logins":2}`:              "not the last line",
		`{"login":"refused","value64":""}`:                   ErrInvalid.Error(),
		`{"end":true,"records":0,"logins":1,"checksum":"0"}`: "0 entries of logins",
	} {
		if _, err := h.client(t).Import(t.Context(), strings.NewReader(line+"\n"), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	if len(h.logins.all) != 0 {
		t.Errorf("%v was written", h.logins.all)
	}
}
