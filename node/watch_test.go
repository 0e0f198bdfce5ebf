package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// watched is a Watch that runs, and the texts that it told of.
type watched struct {
	*Watch
	t     *testing.T
	texts chan string
}

// watchRules watches path, whose text is known to be known.
func watchRules(t *testing.T, path, known string) *watched {
	t.Helper()
	w := &watched{t: t, texts: make(chan string, 100)}
	w.Watch = NewWatch(slog.New(slog.DiscardHandler), func() {
		text, err := os.ReadFile(path)
		if err != nil {
			text = []byte("none")
		}
		w.texts <- string(text)
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	w.Follow(ctx, RulesFile{path, sumOf(known, nil)})
	return w
}

// tells waits until the watch has told of the text. It must not have told of anything
// in between but of what may.
func (w *watched) tells(want string, mayTell ...string) {
	w.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-w.texts:
			if got == want {
				return
			}
			known := false
			for _, m := range mayTell {
				known = known || m == got
			}
			if !known {
				w.t.Fatalf("told of %q, want %q", got, want)
			}
		case <-deadline:
			w.t.Fatalf("%q was not told", want)
		}
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAWatchNoticesAFileThatIsWrittenInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yml")
	put(t, path, "a")
	w := watchRules(t, path, "a")
	put(t, path, "b")
	// The file is empty for a moment, and slow machines may see that.
	w.tells("b", "")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	for range 10 {
		_, err := f.WriteString("c")
		must(t, err)
	}
	must(t, f.Close())
	// Nor is what was told always what was looked at a moment before: a text comes twice then.
	w.tells("bcccccccccc", "b", "bc", "bcc", "bccc", "bcccc", "bccccc", "bcccccc", "bccccccc", "bcccccccc", "bccccccccc")
}

func TestAWatchNoticesAFileThatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.yml")
	put(t, path, "a")
	w := watchRules(t, path, "a")
	for _, text := range []string{"b", "c", "d"} { // as editors do, again and again
		put(t, path+"~", text)
		must(t, os.Rename(path+"~", path))
		w.tells(text)
	}
	must(t, os.Remove(path))
	w.tells("none")
	put(t, path, "e")
	w.tells("e", "")
}

func TestAWatchNoticesWhatALinkLeadsTo(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	// As Kubernetes mounts a ConfigMap: rules.yml → ..data/rules.yml, ..data → ..1.
	must(t, os.Mkdir(in("..1"), 0o700), os.Mkdir(in("..2"), 0o700), os.Mkdir(in("..3"), 0o700))
	for i, text := range []string{"a", "b", "c"} {
		put(t, in([]string{"..1", "..2", "..3"}[i]+"/rules.yml"), text)
	}
	must(t, os.Symlink("..1", in("..data")), os.Symlink("..data/rules.yml", in("rules.yml")))
	w := watchRules(t, in("rules.yml"), "a")
	for dir, text := range map[string]string{"..2": "b"} {
		must(t, os.Symlink(dir, in("..tmp")), os.Rename(in("..tmp"), in("..data")))
		w.tells(text)
	}
	must(t, os.RemoveAll(in("..1")))
	must(t, os.Symlink("..3", in("..tmp")), os.Rename(in("..tmp"), in("..data")), os.RemoveAll(in("..2")))
	w.tells("c")
	put(t, in("..3/rules.yml"), "d")
	w.tells("d", "")

	// And a link to somewhere else.
	other := filepath.Join(t.TempDir(), "elsewhere.yml")
	put(t, other, "e")
	must(t, os.Symlink(other, in("link")), os.Rename(in("link"), in("rules.yml")))
	w.tells("e", "d") // as above
	put(t, other, "f")
	w.tells("f", "")
}

func TestAWatchNoticesADirectoryThatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "etc")
	path := filepath.Join(at, "rules.yml")
	must(t, os.Mkdir(at, 0o700))
	put(t, path, "a")
	w := watchRules(t, path, "a")
	must(t, os.Rename(at, at+".old"))
	w.tells("none")
	must(t, os.Mkdir(at, 0o700))
	put(t, path, "b")
	w.tells("b", "none", "")
}

func TestAWatchTellsTextsNotEvents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.yml")
	put(t, path, "b")
	// It changed between its reading and the watch.
	w := watchRules(t, path, "a")
	w.tells("b")
	// The same text again, and other files, are nothing new.
	put(t, path+"~", "b")
	must(t, os.Rename(path+"~", path))
	put(t, filepath.Join(dir, "other.yml"), "x")
	put(t, path+"~", "c")
	must(t, os.Rename(path+"~", path))
	w.tells("c")
	// Nor is what was read already.
	put(t, path+"~", "d")
	w.Seen(t.Context(), RulesFile{path, sumOf("d", nil)})
	must(t, os.Rename(path+"~", path))
	put(t, path+"~", "e")
	must(t, os.Rename(path+"~", path))
	w.tells("e")
	select {
	case got := <-w.texts:
		t.Errorf("told of %q as well", got)
	default:
	}
}

func TestAWatchFollowsAnotherFileOrNone(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "1.yml"), filepath.Join(t.TempDir(), "2.yml")
	put(t, one, "a")
	put(t, two, "x")
	w := watchRules(t, one, "a")
	w.Follow(t.Context(), RulesFile{two, sumOf("x", nil)})
	put(t, one, "b")
	put(t, two+"~", "y")
	must(t, os.Rename(two+"~", two))
	w.tells("b") // the text of one, which the test reads: there is one message
	w.Follow(t.Context(), RulesFile{})
	put(t, two+"~", "z")
	must(t, os.Rename(two+"~", two))
	w.Follow(t.Context(), RulesFile{one, sumOf("older", nil)})
	w.tells("b")
	select {
	case got := <-w.texts:
		t.Errorf("told of %q as well", got)
	default:
	}
}

func TestARulesFileIsRememberedAsItWasRead(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yml")
	const text = "record: {\"*\": {}}\nevent: {\"*\": {}}\nrpc: {\"*\": {}}\npresence: {\"*\": {}}\n"
	put(t, rules, text)
	want := RulesFile{rules, sumOf(text, nil)}
	for name, config := range map[string]string{
		"fileLoad": "permission: {type: config, options: {permissions: fileLoad(rules.yml)}}",
		"path":     "permission: {type: config, options: {path: rules.yml}}",
	} {
		path := filepath.Join(dir, name+".yml")
		put(t, path, config)
		cfg, loaded, err := LoadConfig(path, Overrides{})
		must(t, err)
		if got := loaded.Watched(cfg); got != want {
			t.Errorf("%s: watched is %v, want %v", name, got, want)
		}
		cfg.Permission.Options.Watch = false
		if got := loaded.Watched(cfg); got != (RulesFile{}) {
			t.Errorf("%s: watched is %v, want none when it is switched off", name, got)
		}
	}
	path := filepath.Join(dir, "broken.yml")
	put(t, path, "permission: {type: config, options: {permissions: fileLoad(missing.yml)}}")
	_, loaded, err := LoadConfig(path, Overrides{})
	if err == nil || loaded.Rules.Path != filepath.Join(dir, "missing.yml") || loaded.Rules.Sum == "" {
		t.Errorf("a file that is missing: %v, %v", loaded.Rules, err)
	}
}
