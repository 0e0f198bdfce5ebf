//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// network gives each node a network namespace of its own, joined by a bridge to which
// this program belongs as well. Packets from one node to another are lost, silently, when
// the sender has a wrong hardware address for the receiver: that needs nothing but
// iproute2, and can be done in one direction alone. Clients are not affected.
type network struct {
	prefix string // of the names of namespaces and devices
	subnet string // three numbers
	nodes  int
	made   int // namespaces
	bridge bool
	netem  bool // the kernel can delay packets
}

// nowhere is a hardware address that nobody has.
const nowhere = "02:00:00:00:de:ad"

// newNetwork needs root. There is one namespace more than nodes, for a node that comes later:
// its packets are not cut.
func newNetwork(nodes int) (*network, error) {
	pid := os.Getpid()
	w := &network{prefix: fmt.Sprintf("hdl%d", pid), subnet: fmt.Sprintf("10.%d.%d", 190+pid%60, pid/60%250), nodes: nodes}
	if err := w.build(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *network) build() error {
	bridge := w.prefix + "b"
	if err := ip("link", "add", bridge, "type", "bridge"); err != nil {
		return err
	}
	w.bridge = true
	if err := all(
		[]string{"addr", "add", w.subnet + ".254/24", "dev", bridge},
		[]string{"link", "set", bridge, "up"},
	); err != nil {
		return err
	}
	for i := range w.nodes + 1 {
		ns, device := w.netns(i), fmt.Sprintf("%sv%d", w.prefix, i)
		if err := ip("netns", "add", ns); err != nil {
			return err
		}
		if err := ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", ns); err != nil {
			return errors.Join(err, ip("netns", "del", ns))
		}
		w.made++
		if err := all(
			[]string{"link", "set", device, "master", bridge, "up"},
			[]string{"-n", ns, "addr", "add", w.host(i) + "/24", "dev", "eth0"},
			[]string{"-n", ns, "link", "set", "eth0", "up"},
			[]string{"-n", ns, "link", "set", "lo", "up"},
		); err != nil {
			return err
		}
	}
	// Not every kernel has it; a cluster without delays is still worth testing.
	w.netem = w.delay(0, time.Millisecond) == nil
	if w.netem {
		return w.delay(0, 0)
	}
	return nil
}

func (w *network) netns(i int) string { return fmt.Sprintf("%sn%d", w.prefix, i) }
func (w *network) host(i int) string  { return fmt.Sprintf("%s.%d", w.subnet, i+1) }

// cut loses all that one node sends to another, from now on.
func (w *network) cut(from, to int) error {
	return ip("-n", w.netns(from), "neigh", "replace", w.host(to), "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
}

// heal lets everything through again.
func (w *network) heal() error {
	var errs []error
	for from := range w.nodes {
		for to := range w.nodes {
			if from == to {
				continue
			}
			// Flushing what is not there is no error, deleting is.
			errs = append(errs, ip("-n", w.netns(from), "neigh", "flush", "to", w.host(to), "dev", "eth0", "nud", "permanent"))
		}
	}
	return errors.Join(errs...)
}

// delay has each packet that a node sends take so much longer, give or take a quarter;
// with 0 none.
func (w *network) delay(i int, d time.Duration) error {
	args := []string{"-n", w.netns(i), "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", d.String(), (d / 4).String()}
	if d == 0 {
		args = []string{"-n", w.netns(i), "qdisc", "del", "dev", "eth0", "root"}
	}
	return command("tc", args...)
}

// close takes everything away again. Processes in the namespaces are gone already.
func (w *network) close() error {
	var errs []error
	for i := range w.made {
		// The namespace lives on while the kernel still has packets of dead processes to
		// send, so the device is not left to it.
		errs = append(errs, ip("link", "del", fmt.Sprintf("%sv%d", w.prefix, i)), ip("netns", "del", w.netns(i)))
	}
	if w.bridge {
		errs = append(errs, ip("link", "del", w.prefix+"b"))
	}
	w.made, w.bridge = 0, false
	return errors.Join(errs...)
}

func ip(args ...string) error { return command("ip", args...) }

// all runs several commands of ip.
func all(commands ...[]string) error {
	for _, args := range commands {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
