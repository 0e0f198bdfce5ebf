package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"hadal/auth/users"
	"hadal/auth/vault"
)

// Deps is what strategies are given by the node. The zero value does to check a
// configuration.
type Deps struct {
	// Vault holds users and what else is known of logins. It may not be open yet; nil is
	// one that never is.
	Vault vault.Vault
	// Users opens the tables of storage strategies; nil opens them for these strategies,
	// for good.
	Users *users.Stores
	// Turnstile is the node's; nil makes one for these strategies.
	Turnstile *Turnstile
	// APIKeys are the keys of backends, who are looked for before the strategies.
	APIKeys []APIKey
	// Log is told what an operator should know, and no secret; nil tells nobody.
	Log *slog.Logger
	// Beside lists, by their keys of the configuration, the other ways in that there are
	// beside the strategies, whose users nobody else may be (tokens, registration). Where
	// there is one, the list of strategies may be empty.
	Beside []string
	// Crowded says that the vault is so full that logins, which are anybody's, shall not make
	// users in it; nil never does.
	Crowded func(ctx context.Context) bool
	// Observer hears what servers are asked.
	Observer Observer
}

// guardedTypes are the strategies that ask for credentials.
const guardedTypes = "file, storage, http or jwt"

// Types names the strategies, for whoever chose one that there is not.
const Types = "none, " + guardedTypes

// New makes the strategies of the file's `auth` list and joins them to one
// chain. It reads the users files and keys, starts nothing, and joins all mistakes it
// finds, each opening with its key. What it returns stands behind a door (NewDoor), and may
// have work to do in the background: see Live.Run.
//
// A list in which somebody with a wrong password would be let in under that
// very name, because a strategy without passwords stands in it too, is refused
// unless allowOpenFallback is true (spec 06 §5, spec 15 trap 28). So is such a strategy
// where users come in by another way than the list (Deps.Beside).
func New(cfgs []Config, allowOpenFallback bool, deps Deps) (Authenticator, error) {
	if len(cfgs) == 0 && len(deps.Beside) == 0 {
		return nil, errors.New("auth: the list is empty, and there are neither tokens nor registrations by which to log in: " +
			"name at least one strategy, such as {type: none}")
	}
	if deps.Vault == nil {
		deps.Vault = vault.NewSlot()
	}
	if deps.Users == nil {
		deps.Users = users.NewStores(deps.Vault)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Turnstile == nil {
		deps.Turnstile = NewTurnstile()
	}
	var chain Chain
	var errs []error
	for i := range cfgs {
		key, o := fmt.Sprintf("auth[%d]", i), &cfgs[i].Options
		// What a strategy reports when it stands alone, it keeps to itself in a
		// list, so that the next one is asked.
		report := len(cfgs) == 1
		if o.ReportInvalidParameters != nil {
			report = *o.ReportInvalidParameters
		}
		var a Authenticator
		var err error
		switch cfgs[i].Type {
		case "none":
			a = none{}
		case "file":
			a, err = newFile(key+".options", o, report, deps.Turnstile)
		case "storage":
			a, err = newStorage(key+".options", o, report, deps)
		case "http":
			w, bad := newWebhook(key+".options", o, report, deps.Log)
			if err = bad; err == nil {
				w.observer, a = deps.Observer.complete(), w
			}
		case "jwt":
			j, bad := newJWT(key+".options", o, report, deps.Log)
			if err = bad; err == nil {
				a = j
				if j.set != nil {
					j.set.observer = deps.Observer.complete()
				}
			}
		case "":
			err = fmt.Errorf("%s.type: is missing: use %s", key, Types)
		default:
			err = fmt.Errorf("%s.type: there is no strategy %q: use %s", key, cfgs[i].Type, Types)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		chain = append(chain, a)
	}
	keys, err := newAPIKeys(deps.APIKeys)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	for i, a := range chain {
		if a, ok := a.(follower); ok && i < len(chain)-1 {
			// none lets in every name, so that none of them is a guess.
			a.followed(slices.ContainsFunc(cfgs[i+1:], func(c Config) bool { return c.TakesPasswords() || c.Type == "none" }))
		}
	}
	if !allowOpenFallback {
		if err := checkFallback(chain, deps.Beside); err != nil {
			return nil, err
		}
	}
	if len(keys) > 0 {
		chain = append(Chain{keys}, chain...)
	}
	return strategies{chain}, nil // also around one: a chain turns "no opinion" into a refusal
}

// guarded is a strategy that lets in only those who prove who they are. Every strategy
// but none is one.
type guarded interface {
	Authenticator
	// reports says whether wrong credentials are refused, rather than left to the next
	// strategy as "no opinion".
	reports() bool
}

// follower is a strategy that is told when another one is asked about those that it has
// no opinion on.
type follower interface {
	Authenticator
	// followed is called by New, before anybody logs in. byNames says that one of those
	// behind it may know a name that this one does not, rather than a token.
	followed(byNames bool)
}

// checkFallback refuses a chain in which the name of a user with a password, or of one
// who comes in by another way beside the chain, can be had without it.
func checkFallback(chain Chain, beside []string) error {
	for open, a := range chain {
		if _, ok := a.(none); !ok {
			continue
		}
		if len(beside) > 0 {
			return fmt.Errorf("auth[%d]: none, which is also what is there without the key auth, lets anybody in under the name of any user of %s: "+
				"write auth: [] if only these are to log in, or a strategy that asks for credentials (%s), or allowOpenFallback: true",
				open, strings.Join(beside, " and "), guardedTypes)
		}
		for i, a := range chain {
			g, ok := a.(guarded)
			switch {
			case !ok:
			case i > open:
				return fmt.Errorf("auth[%d]: is never asked, because auth[%d] (none) lets everybody in under any name: "+
					"put none last, or remove it, or set allowOpenFallback: true", i, open)
			case !g.reports():
				return fmt.Errorf("auth[%d]: after wrong credentials in auth[%d], none lets the client in under the same name: "+
					"set reportInvalidParameters: true in auth[%[2]d].options, or remove none, or set allowOpenFallback: true", open, i)
			}
		}
		return nil // strategies behind the first none are never asked
	}
	return nil
}

// reserved says whether a user name belongs to the server, as all names do
// that begin with hadal/ (a user name is a presence name).
func reserved(name string) bool { return strings.HasPrefix(name, "hadal/") }

// isAnonymous says whether a name is one of the two that deepstream gives to
// clients without a name (spec 15, trap 22).
func isAnonymous(name string) bool { return name == Anonymous || name == "OPEN" }
