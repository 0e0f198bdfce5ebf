package bench

import (
	"context"
	"slices"
	"strings"
)

// Scenario is one kind of load.
type Scenario struct {
	// Name is FAMILY or FAMILY/CASE.
	Name string
	// Text says in a line what happens.
	Text string
	// Unit is what a message is, in one word.
	Unit string

	// The numbers that settings may replace. What clients are depends on the scenario.
	Clients int
	Window  int     // in flight of each sender, in a closed loop
	Rate    float64 // of all senders, in an open one

	Nodes  int    // that it needs at least; 0 is one
	Rules  string // permission rules that the server must have
	Config string // more of the configuration of nodes that are started

	own  bool // only nodes that we start and may kill
	bare bool // the bare writer can do it
	new  func() driver
}

// driver is what a scenario does. Each measurement has one of its own.
type driver interface {
	// setup connects and subscribes, and writes what must be there.
	setup(ctx context.Context, l *load) error
	// drive loads the server until ctx ends, and then ends what is under way.
	drive(ctx context.Context, l *load) error
	// check looks at what is left behind, before the clients end.
	check(ctx context.Context, l *load) error
}

// finite is a driver whose drive ends by itself and is measured from end to end, without a
// warm-up.
type finite interface{ finite() }

// sends is the part of a driver whose load is that of its senders.
type sends struct{}

func (sends) drive(ctx context.Context, l *load) error { return l.steady(ctx) }
func (sends) check(context.Context, *load) error       { return nil }

// scenarios are all of them, in the order in which they are run.
var scenarios = slices.Concat(
	idleScenarios, fanoutScenarios, pairsScenarios, manyScenarios,
	recordScenarios, createScenarios, hotScenarios, conflictScenarios, readScenarios,
	rpcScenarios, presenceScenarios, listenScenarios, reconnectScenarios, permissionScenarios,
	failoverScenarios,
)

// alike completes the scenarios of a kind.
func alike(complete func(*Scenario), all []Scenario) []Scenario {
	for i := range all {
		complete(&all[i])
	}
	return all
}

// All are the scenarios, in the order in which they are run.
func All() []Scenario { return slices.Clone(scenarios) }

// Names are the names of all scenarios.
func Names() []string {
	var names []string
	for _, sc := range scenarios {
		names = append(names, sc.Name)
	}
	return names
}

// Family is the part of a scenario's name that it has in common with others.
func Family(name string) string {
	family, _, _ := strings.Cut(name, "/")
	return family
}

// choose are the scenarios of some names or families, all without any.
func choose(names []string) []*Scenario {
	var chosen []*Scenario
	for i := range scenarios {
		sc := &scenarios[i]
		if len(names) == 0 || slices.Contains(names, sc.Name) || slices.Contains(names, Family(sc.Name)) {
			chosen = append(chosen, sc)
		}
	}
	return chosen
}
