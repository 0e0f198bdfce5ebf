package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes. Scripts depend on them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitConfig      = 3
	exitCannotStart = 4
	exitDamaged     = 5
	exitSignal      = 128 // and the number of the signal
)

func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Exit codes:

  0    done; a node that was told to stop has stopped in order
  1    what was asked for failed; a running node had to give up
  2    the command line is wrong
  3    the configuration is wrong, or a file that it names
  4    the node cannot start: its port or its data directory is not to be had
  5    done, and what was looked at is damaged
  130  a second SIGINT stopped the node at once
  143  a second SIGTERM stopped the node at once

The reason is on standard error.`,
	}
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

// Error is the text of the error inside.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap is the error inside.
func (e *exitError) Unwrap() error { return e.err }

// exitWith gives err an exit code; nil stays nil.
func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

func usagef(format string, args ...any) error {
	return exitWith(exitUsage, fmt.Errorf(format, args...))
}

// errTold stands for an error that has been told already.
var errTold = errors.New("see the log")

// codeOf is the exit code that err asks for.
func codeOf(err error) int {
	if e := (*exitError)(nil); errors.As(err, &e) {
		return e.code
	}
	return exitFailure
}

// report tells about err on stderr and returns the exit code for it.
func report(stderr io.Writer, cmd *cobra.Command, err error, begun bool) int {
	if err == nil {
		return 0
	}
	code := codeOf(err)
	if e := (*exitError)(nil); !begun && !errors.As(err, &e) {
		code = exitUsage
	}
	if errors.Is(err, errTold) {
		return code
	}
	// There is nobody left to tell when standard error cannot be written.
	switch problems := split(err); {
	case code == exitUsage:
		_, _ = fmt.Fprintf(stderr, "hadal: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
	case len(problems) > 1:
		_, _ = fmt.Fprintf(stderr, "hadal: %d problems:\n", len(problems))
		for i, p := range problems {
			_, _ = fmt.Fprintf(stderr, "%3d. %s\n", i+1, strings.ReplaceAll(p.Error(), "\n", "\n     "))
		}
	default:
		_, _ = fmt.Fprintf(stderr, "hadal: %v\n", err)
	}
	return code
}

// split is the errors that were joined to err, which may stand in an exitError.
func split(err error) []error {
	if e, ok := err.(*exitError); ok {
		err = e.err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}
