package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/dlclark/regexp2/v2"
)

var (
	errEmpty       = errors.New("the pattern is empty")
	errTooLong     = fmt.Errorf("the pattern is longer than %d bytes", maxPattern)
	errTooMany     = errors.New("the client listens to as many patterns as it may: raise listen.maxPatterns")
	errUserTooMany = errors.New("the user listens to as many patterns as it may: raise listen.maxPatternsPerUser")
	errTooMuch     = errors.New("the client has as many subscriptions and patterns as it may: raise maxSubscriptions, or maxSubscriptionsPerUser")
	errPanicked    = errors.New("the expression cannot be used")
)

const (
	// matchTimeout bounds one match.
	matchTimeout = 50 * time.Millisecond
	// slowMatch is from where on a match is counted against its pattern.
	slowMatch = 5 * time.Millisecond
	// slowBudget is how long slow matches of a pattern may take together; what was
	// used comes back at slowRefill of the time that passes.
	slowBudget = 2 * time.Second
	slowRefill = 100
	// shownPattern is how much of a pattern the log shows, in bytes.
	shownPattern = 200
)

// expression is a compiled pattern. It is used by the worker alone.
type expression struct {
	re   *regexp2.Regexp
	fast *regexp.Regexp // the same in linear time, if it can be said
	budget
	quick int // heavy matches since one that was slow
	off   bool
}

// compile reads an unanchored JavaScript regular expression.
func compile(text string) (x *expression, err error) {
	switch {
	case text == "":
		return nil, errEmpty
	case len(text) > maxPattern:
		return nil, errTooLong
	}
	defer func() { // the engine is large and the text a stranger's: it must not end the process
		if p := recover(); p != nil {
			x, err = nil, fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	re, err := regexp2.Compile(text, regexp2.ECMAScript)
	if err != nil {
		return nil, fmt.Errorf("parse listen pattern: %w", err)
	}
	re.MatchTimeout = matchTimeout
	return &expression{re: re, fast: linear(text)}, nil
}

// heavy says whether matching name may take long.
func (x *expression) heavy(name string) bool {
	return x.fast == nil || len(name) > linearName || len(name)*len(x.re.String()) > heavySteps
}

// match says whether name matches, and what time was wasted. A match that fails (it
// ran out of time or of stack) counts as none. Slow ones use up a budget, and when
// it is gone the pattern matches nothing new any more: nobody else shall wait for
// its author.
func (x *expression) match(name string, log *slog.Logger) (ok bool, wasted time.Duration) {
	if x.off {
		return false, 0
	}
	start := time.Now()
	ok, err := x.try(name)
	end := time.Now()
	took := end.Sub(start)
	if took < slowMatch && err == nil {
		return ok, 0
	}
	if err != nil && log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("listen pattern failed", "pattern", x.re.String(), "name", name, "err", err)
	}
	if x.off = x.spend(took, end, slowBudget); x.off {
		text := x.re.String()
		log.Warn("listen pattern switched off: its matches take too long", "pattern", text[:min(len(text), shownPattern)])
	}
	return ok, took
}

func (x *expression) try(name string) (ok bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	if x.fast != nil && len(name) <= linearName {
		return x.fast.MatchString(name), nil
	}
	return x.re.MatchString(name)
}
