package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"hadal/auth/vault"
	"hadal/store"
)

const (
	// vaultWindow is how many entries of a list are asked for at the same time.
	vaultWindow = 32
	// vaultOverlap is how many keys of the page before each page begins with, so that
	// keys that went meanwhile do not push others past the border.
	vaultOverlap = 100
	// vaultPage is how long the server may take over a page at first, most of which it
	// spends on a hundred thousand keys; then twice as long, up to vaultPageMost in all.
	vaultPage     = 2 * time.Second
	vaultPageMost = 40 * time.Second
)

// List implements vault.Vault. The leader is asked for the keys, and then for each
// entry: nothing is made for it on the servers, and nothing is read from a replica.
// Entries come in the order of their keys.
func (v *Vault) List(ctx context.Context, prefix string, each func(vault.Entry) error) error {
	return v.list(ctx, prefix, func(m *vaultMessage) error { return each(m.Entry) })
}

// list is List with all of the message.
func (v *Vault) list(ctx context.Context, prefix string, each func(*vaultMessage) error) error {
	if err := vault.CheckPrefix(ctx, prefix); err != nil {
		return err
	}
	filter := v.subject(prefix) + ">"
	var stopped error // what each said, or a read
	err := eachPage(func(offset int) ([]string, int, error) { return v.page(ctx, filter, offset) }, func(subjects []string) error {
		for window := range slices.Chunk(subjects, vaultWindow) {
			if stopped = v.listWindow(ctx, window, each); stopped != nil {
				return stopped
			}
		}
		return nil
	})
	if err != nil && stopped == nil {
		return v.failed("list", err)
	}
	return err
}

// eachPage visits all subjects, in pages. page is the sorted ones from the one with the
// number offset on, as many as it likes, and how many there are. Those that come or go
// meanwhile may be visited or not, all others are visited once.
func eachPage(page func(offset int) ([]string, int, error), visit func(subjects []string) error) error {
	last := ""
	for offset := 0; ; {
		subjects, total, err := page(offset)
		if err != nil {
			return err
		}
		if offset > 0 && (len(subjects) == 0 || subjects[0] > last) {
			offset = max(0, offset-max(vaultOverlap, total/100)) // many went: look further back
			continue
		}
		end := offset + len(subjects)
		first, found := slices.BinarySearch(subjects, last)
		if found {
			first++
		}
		if err := visit(subjects[first:]); err != nil {
			return err
		}
		if len(subjects) > 0 {
			last = max(last, subjects[len(subjects)-1])
		}
		if end >= total {
			return nil
		}
		offset = max(end-vaultOverlap, offset+1)
	}
}

// listWindow visits the entries of some subjects.
func (v *Vault) listWindow(ctx context.Context, subjects []string, each func(*vaultMessage) error) error {
	var found [vaultWindow]vaultMessage
	var errs [vaultWindow]error
	var asking sync.WaitGroup
	for i, subject := range subjects {
		asking.Go(func() { found[i], errs[i] = v.latest(ctx, v.key(subject)) })
	}
	asking.Wait()
	for i := range subjects {
		switch {
		case errors.Is(errs[i], store.ErrNotFound), errs[i] == nil && !found[i].live():
		case errs[i] != nil:
			return v.failed("list", errs[i])
		default:
			if err := each(&found[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// page is some of the subjects that the filter lets through, sorted, from the one with the
// number offset on, and how many there are.
func (v *Vault) page(ctx context.Context, filter string, offset int) (subjects []string, total int, err error) {
	request, err := json.Marshal(struct {
		Filter string `json:"subjects_filter"`
		Offset int    `json:"offset,omitempty"`
	}{filter, offset})
	if err != nil {
		return nil, 0, err
	}
	give := time.Now().Add(vaultPageMost)
	for attempt := vaultPage; ; {
		begun := time.Now()
		if subjects, total, err = v.pageOnce(ctx, request, attempt); err == nil {
			return subjects, total, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, 0, context.Cause(ctx)
		case !passing(err) || time.Now().After(give):
			return nil, 0, err
		}
		if time.Since(begun) >= attempt {
			attempt = min(2*attempt, vaultPageMost)
		}
		if err := v.rest(ctx); err != nil {
			return nil, 0, err
		}
	}
}

// pageOnce is one attempt.
func (v *Vault) pageOnce(ctx context.Context, request []byte, patience time.Duration) (subjects []string, total int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := v.nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+v.stream, request)
	if err != nil {
		return nil, 0, err
	}
	answer := gjson.ParseBytes(reply.Data)
	if err := errorIn(answer); err != nil {
		return nil, 0, err
	}
	if !led(answer) {
		return nil, 0, errNotLed
	}
	answer.Get("state.subjects").ForEach(func(subject, _ gjson.Result) bool {
		subjects = append(subjects, subject.String())
		return true
	})
	slices.Sort(subjects)
	return subjects, int(answer.Get("total").Int()), nil
}
