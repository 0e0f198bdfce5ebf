//go:build !linux

package hasher

import "os/exec"

// hasPriorities is false where a thread's priority is its process's.
const hasPriorities = false

func startBelow(cmd *exec.Cmd) error { return cmd.Start() }
