package jetstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Subjects come and go between the pages; those that stay are seen once.
func TestPagesOfAChangingListShowEveryLastingSubjectOnce(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		size := 2 + rnd.IntN(10)
		lasting, list := map[string]bool{}, map[string]bool{}
		for i := range rnd.IntN(100) {
			subject := fmt.Sprintf("s.%03d", i)
			list[subject] = true
			lasting[subject] = rnd.IntN(3) > 0
		}
		fetch := func(offset int) ([]string, int, error) {
			var all []string
			for subject := range list {
				all = append(all, subject)
			}
			slices.Sort(all)
			page := slices.Clone(all[min(offset, len(all)):min(offset+size, len(all))])
			for subject := range list {
				if !lasting[subject] && rnd.IntN(4) == 0 {
					delete(list, subject)
				}
			}
			for range rnd.IntN(2) {
				list[fmt.Sprintf("s.%03d+", rnd.IntN(100))] = true
			}
			rnd.Shuffle(len(page), func(i, j int) { page[i], page[j] = page[j], page[i] })
			return page, len(all), nil
		}
		seen := map[string]int{}
		if err := pages(fetch, func(subject string) error { seen[subject]++; return nil }); err != nil {
			t.Fatal(err)
		}
		for subject, stays := range lasting {
			if n := seen[subject]; stays && n != 1 || n > 1 {
				t.Fatalf("seed %d: %s was seen %d times", seed, subject, n)
			}
		}
	}
}

func TestPagesStopAtAnError(t *testing.T) {
	stop := errors.New("stop")
	if err := pages(func(int) ([]string, int, error) { return nil, 0, stop }, nil); err != stop {
		t.Errorf("pages = %v, want the error of fetch", err)
	}
	fetch := func(int) ([]string, int, error) { return []string{"a", "b"}, 2, nil }
	if err := pages(fetch, func(string) error { return stop }); err != stop {
		t.Errorf("pages = %v, want the error of visit", err)
	}
}
