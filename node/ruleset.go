package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"hadal/cluster"
	"hadal/perms"
)

// This file keeps one set of rules in the whole cluster. It is a setting, numbered by
// the cluster's table. The first node brings its own; whose rules differ later is told,
// and judges by the cluster's. When the rules of a node's configuration change, and the
// node reloads them, they become the cluster's: every node puts them in force as soon
// as it learns of them, and the reload is over when all have said so.

// rulesSetting is the name of the setting.
const rulesSetting = "rules"

const (
	// confirmTime is how long a reload waits for the other nodes.
	confirmTime = 10 * time.Second
	// confirmPause is how long after one answer it asks again.
	confirmPause = 50 * time.Millisecond
)

// ErrUnconfirmed is part of the error of a Reload whose rules are the cluster's and in
// force here, when other nodes have not said that they are in force there.
var ErrUnconfirmed = errors.New("the new rules are in force here, and become so on every node, but these have not confirmed it")

// sharedRules is what of a configuration all nodes judge by.
type sharedRules struct {
	Type              string `yaml:"type"`
	MaxRuleIterations int    `yaml:"maxRuleIterations"`
	Permissions       any    `yaml:"permissions,omitempty"`
}

// encodeRules is the text by which nodes exchange rules. The same rules give the same
// text. cfg is valid, and names no file.
func encodeRules(cfg perms.Config) ([]byte, error) {
	s := sharedRules{Type: cfg.Type}
	if cfg.Type != "none" {
		s.MaxRuleIterations, s.Permissions = cfg.Options.MaxRuleIterations, cfg.Options.Permissions
	}
	return yaml.Marshal(s)
}

// decodeRules compiles them; what is this node's own comes from own.
func decodeRules(text []byte, own perms.Config) (*perms.Rules, error) {
	var s sharedRules
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.UseOrderedMap()); err != nil {
		return nil, fmt.Errorf("the cluster's rules: %w", err)
	}
	own.Type, own.Options.MaxRuleIterations, own.Options.Permissions, own.Options.Path = s.Type, s.MaxRuleIterations, s.Permissions, ""
	rules, err := perms.New(own)
	if err != nil {
		return nil, fmt.Errorf("the cluster's rules: %w", err)
	}
	return rules, nil
}

// joinRules puts the cluster's rules in force before the first client comes, and makes
// the node's own the cluster's where there are none yet.
func (n *Node) joinRules(ctx context.Context) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	own, err := encodeRules(n.permission)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	n.ownRules = own
	number, text := n.place.Setting(rulesSetting)
	for number == 0 {
		if err := n.place.SetFirst(ctx, rulesSetting, own); err != nil {
			return fmt.Errorf("share the rules: %w", err)
		}
		if number, text, err = n.awaitRules(ctx, 1); err != nil {
			return err
		}
	}
	if bytes.Equal(text, own) {
		n.rulesNumber.Store(number) // they are in force since New
		return nil
	}
	n.log.Warn("the cluster has other rules than this node's configuration, and they count: reload the rules here (SIGHUP) after a change to make them the cluster's", "number", number)
	return n.putInForce(ctx, number, text)
}

// awaitRules waits until this node knows of the rules with a number, or later ones.
func (n *Node) awaitRules(ctx context.Context, least uint64) (number uint64, text []byte, err error) {
	for {
		changed := n.place.Changed()
		if number, text = n.place.Setting(rulesSetting); number >= least {
			return number, text, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil, fmt.Errorf("learn of the cluster's rules: %w", context.Cause(ctx))
		}
	}
}

// followRules puts in force what becomes the cluster's rules, until ctx ends.
func (n *Node) followRules(ctx context.Context) error {
	for {
		number, text, err := n.awaitRules(ctx, n.rulesNumber.Load()+1)
		if err != nil {
			return nil
		}
		n.reloading.Lock()
		err = n.putInForce(ctx, number, text)
		n.reloading.Unlock()
		if err != nil && ctx.Err() == nil {
			// All other nodes compile the same text; this one may be older than its language.
			n.log.Error("rules of the cluster not put in force: is this node of an older version?", "number", number, "err", err)
			n.rulesNumber.Store(number)
		}
	}
}

// putInForce judges by the cluster's rules from now on, what stands included. The caller
// holds reloading.
func (n *Node) putInForce(ctx context.Context, number uint64, text []byte) error {
	if number <= n.rulesNumber.Load() {
		return nil
	}
	rules, err := decodeRules(text, n.permission)
	if err != nil {
		return err
	}
	n.rules.Reload(rules)
	n.rulesNumber.Store(number)
	ended, err := n.rejudge(ctx)
	n.log.Info("rules of the cluster are in force", "number", number, "ended", ended)
	return err
}

// shareRules makes rules the cluster's, unless they are what this node's configuration
// had before, and returns when they are in force here. The caller holds reloading.
func (n *Node) shareRules(ctx context.Context, cfg perms.Config) error {
	text, err := encodeRules(cfg)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	was := n.permission
	n.permission = cfg
	if bytes.Equal(text, n.ownRules) {
		if cfg.Options.Coverage == was.Options.Coverage {
			return nil
		}
		_, now := n.place.Setting(rulesSetting)
		rules, err := decodeRules(now, cfg)
		if err == nil {
			n.rules.Reload(rules)
		}
		return err
	}
	for {
		number, now := n.place.Setting(rulesSetting)
		if !bytes.Equal(now, text) {
			err := n.place.SetSetting(ctx, rulesSetting, text, number)
			if errors.Is(err, cluster.ErrSettingChanged) {
				continue
			}
			if err != nil {
				return fmt.Errorf("share the rules: %w", err)
			}
			if number, now, err = n.awaitRules(ctx, number+1); err != nil {
				return err
			}
		}
		n.ownRules = text
		if err := n.putInForce(ctx, number, now); err != nil {
			return err
		}
		return n.confirmRules(ctx, number)
	}
}

// confirmRules waits until every node that is alive has the rules in force.
func (n *Node) confirmRules(ctx context.Context, number uint64) error {
	ctx, done := context.WithTimeout(ctx, confirmTime)
	defer done()
	tick := time.NewTicker(confirmPause)
	defer tick.Stop()
	for {
		missing := n.unconfirmed(ctx, number)
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %q", ErrUnconfirmed, missing)
		}
	}
}

// unconfirmed are the names of the nodes that are alive and do not say that they have
// the rules in force.
func (n *Node) unconfirmed(ctx context.Context, number uint64) (missing []string) {
	self := n.place.Self().ID
	for _, m := range n.place.Members() {
		if m.ID == self || !m.Alive {
			continue
		}
		if d, err := n.describe(ctx, m.ID); err != nil || d.Rules < number {
			missing = append(missing, m.Name)
		}
	}
	return missing
}

// description is what a node tells others of itself.
type description struct {
	Version string `json:"version"`
	Clients int    `json:"clients"`
	// Rules is the number of the rules in force.
	Rules uint64 `json:"rules"`
	// Unfit says that the node cannot write what it keeps, and owns nothing for that.
	Unfit bool `json:"unfit,omitempty"`
}

// describeSelf is this node's description.
func (n *Node) describeSelf() description {
	return description{Version: Version, Clients: n.clients(), Rules: n.rulesNumber.Load(), Unfit: !n.place.Fit()}
}

// describeBytes is what the other nodes get when they ask.
func (n *Node) describeBytes() []byte {
	b, err := json.Marshal(n.describeSelf())
	if err != nil { // a struct of plain fields always can be
		n.log.Error("this node cannot say how it is", "err", err)
	}
	return b
}

// describe asks a node that is alive, which may be this one.
func (n *Node) describe(ctx context.Context, id string) (d description, err error) {
	if id == n.place.Self().ID {
		return n.describeSelf(), nil
	}
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	b, err := n.place.Ask(ctx, id)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b, &d)
}
