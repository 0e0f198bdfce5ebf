package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Format is the version of the result files that this program writes and reads.
const Format = 1

// Result is what a run of the bench found out. Its JSON form is what files hold.
type Result struct {
	Format   int       `json:"format"`
	When     time.Time `json:"when"`
	Took     float64   `json:"tookSeconds"`
	Program  Program   `json:"program"`
	Machine  Machine   `json:"machine"`
	Settings Settings  `json:"settings"`
	// Targets are what was measured, by the names that runs call them.
	Targets []TargetFacts `json:"targets"`
	Runs    []Run         `json:"runs"`
}

// Program is what measured.
type Program struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

// TargetFacts say what a target is.
type TargetFacts struct {
	Name string `json:"name"`
	// About is what it is in words: the nodes started, the URLs, the peer's version.
	About string `json:"about"`
	// Config is the configuration of nodes that were started.
	Config string `json:"config,omitempty"`
}

// Run is one measurement of one scenario on one target.
type Run struct {
	Scenario string `json:"scenario"`
	Target   string `json:"target"`
	Round    int    `json:"round"`
	// Error is why there are no numbers, or why those that there are do not count.
	Error string `json:"error,omitempty"`
	// Skipped says that the target cannot do it; a note says why.
	Skipped bool `json:"skipped,omitempty"`

	Clients int     `json:"clients"`
	Window  int     `json:"window,omitempty"`       // closed loop: messages in flight of each sender
	Rate    float64 `json:"rate,omitempty"`         // open loop: messages sent a second, all senders together
	Kept    float64 `json:"kept,omitempty"`         // open loop: the part of the rate that was kept, 1 for all
	LagP99  float64 `json:"lagP99Micros,omitempty"` // open loop: how late the generator wrote
	Load    float64 `json:"loadAverage"`            // of the machine, when the measured time began

	Unit       string   `json:"unit"` // what a message is
	Seconds    float64  `json:"seconds"`
	Messages   int64    `json:"messages"` // in the measured time
	PerSecond  float64  `json:"perSecond"`
	ServerCPU  float64  `json:"serverCpuSeconds"`       // 0: not known
	CPUEach    float64  `json:"cpuMicrosEach"`          // server CPU a message
	PerCPU     float64  `json:"messagesPerCpuSecond"`   // of the server
	Generator  float64  `json:"generatorCpuMicrosEach"` // of this program
	Memory     int64    `json:"memoryBytes"`            // resident, of all processes of the server, at the end of the measured time
	MemoryIdle int64    `json:"memoryBeforeBytes"`      // the same before the clients came
	Latency    Latency  `json:"latency"`                // from the moment a message was due to its arrival
	Ledger     Ledger   `json:"ledger"`                 // over the whole run
	Facts      []Fact   `json:"facts,omitempty"`        // what else the scenario found out
	Notes      []string `json:"notes,omitempty"`        // what a reader must know
	Samples    []Sample `json:"samples,omitempty"`      // over the measured time
}

// Ledger says what became of messages, from the first to the last of a run.
type Ledger struct {
	Sent       int64 `json:"sent"`
	Due        int64 `json:"due"` // deliveries that those should have caused
	Delivered  int64 `json:"delivered"`
	Lost       int64 `json:"lost"`
	Duplicated int64 `json:"duplicated"`
	OutOfOrder int64 `json:"outOfOrder"`
}

// Clean says that everything arrived, once and in order.
func (l Ledger) Clean() bool { return l.Lost == 0 && l.Duplicated == 0 && l.OutOfOrder == 0 }

// Latency is a histogram, in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
	Max   float64 `json:"max"`
	// Hdr is all of it, in HdrHistogram's own compressed form.
	Hdr string `json:"hdr,omitempty"`
}

// Fact is a number that only some scenarios have.
type Fact struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Sample is what was seen at one moment of the measured time.
type Sample struct {
	At        float64 `json:"at"` // seconds
	PerSecond float64 `json:"perSecond"`
	CPU       float64 `json:"cpu"` // cores of the server
	Memory    int64   `json:"memoryBytes"`
}

// Fact is the value of a fact, and whether there is one of that name.
func (r *Run) Fact(name string) (float64, bool) {
	for _, f := range r.Facts {
		if f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

// Failed says that the run has an error.
func (r *Run) Failed() bool { return r.Error != "" }

// Read reads a result file.
func Read(path string) (*Result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s is no result of `hadal bench --json`: %w", path, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("%s has format %d, this program reads %d: measure again", path, r.Format, Format)
	}
	return &r, nil
}

// Write writes a result file.
func (r *Result) Write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
