package endpoint

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestACrewRunsEachTaskAtOnceAndKeepsFewGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tasks = 3 * crewRests
		stopped := make(chan struct{})
		c := newCrew(stopped)
		for round := range 3 {
			var under atomic.Int64
			release := make(chan struct{})
			for range tasks {
				c.do(func() {
					under.Add(1)
					<-release
				})
			}
			synctest.Wait()
			if n := under.Load(); n != tasks {
				t.Fatalf("round %d: %d tasks run, want all %d although none has ended", round, n, tasks)
			}
			if n := c.resting.Load(); n != 0 {
				t.Errorf("round %d: %d goroutines rest while others were made", round, n)
			}
			close(release)
			synctest.Wait()
			if n := c.resting.Load(); n != crewRests {
				t.Errorf("round %d: %d goroutines stay, want %d", round, n, crewRests)
			}
		}
		c.thin() // all had tasks
		if n := c.resting.Load(); n != crewRests {
			t.Errorf("%d goroutines stay, want all %d that had tasks lately", n, crewRests)
		}
		for range 3 {
			c.do(func() {})
			synctest.Wait()
		}
		c.thin()
		synctest.Wait()
		if n := c.resting.Load(); n < 1 || n > 2 {
			t.Errorf("%d goroutines stay, want the one that had tasks", n)
		}
		c.thin()
		c.thin()
		synctest.Wait()
		if n := c.resting.Load(); n != 0 {
			t.Errorf("%d goroutines stay although there are no tasks", n)
		}
		close(stopped)
		c.wait()
	})
}

func TestACrewWaitsForTasksUnderWay(t *testing.T) {
	stopped := make(chan struct{})
	c := newCrew(stopped)
	var done atomic.Bool
	var began, ends sync.WaitGroup
	began.Add(1)
	ends.Add(1)
	c.do(func() {
		began.Done()
		ends.Wait()
		done.Store(true)
	})
	began.Wait()
	close(stopped)
	go ends.Done()
	if c.wait(); !done.Load() {
		t.Error("the task had not ended")
	}
}
