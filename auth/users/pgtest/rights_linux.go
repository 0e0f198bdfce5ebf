package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// stranger is the user that PostgreSQL runs as when the test is root's: its package makes
// postgres, and nobody is everywhere.
func stranger() (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil {
			return uid, gid, true
		}
	}
	return 0, 0, false
}

// giveAway makes that user the owner of a folder.
func giveAway(dir string) error {
	uid, gid, ok := stranger()
	if !ok {
		return nil
	}
	return os.Chown(dir, uid, gid)
}

// withoutRights has cmd run as that user, and end with the test's process, also when that
// is killed.
func withoutRights(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if uid, gid, ok := stranger(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}
