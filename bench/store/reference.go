package main

import "time"

// reference is what the design's prototype of a LOG and a STATE measured on a like
// machine (two virtual CPUs, 0.12 to 0.2 ms an fsync), single runs: 128 bytes of data,
// 100 and 100 000 names, a checkpoint every second at full speed, up to four
// appends in flight, at most 512 changes each. The goal is to be within a factor
// of 1.3 of it or better.
type reference struct {
	Ops float64       `json:"ops"` // a second
	CPU float64       `json:"cpu"` // microseconds an op; 0 when not measured
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// goal is how much slower than the reference a store may be.
const goal = 1.3

type place struct {
	store, sync, names string
	writers            int
}

func ms(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

var references = map[place]reference{
	{"log", "always", "hot", 1}:        {4_800, 0, ms(0.20), ms(0.33)},
	{"log", "always", "hot", 64}:       {74_000, 8.5, ms(0.77), ms(1.9)},
	{"log", "always", "hot", 512}:      {347_000, 2.9, ms(1.4), ms(3.5)},
	{"log", "always", "hot", 4096}:     {548_000, 2.2, ms(6.3), ms(21)},
	{"log", "always", "uniform", 1}:    {3_000, 0, ms(0.24), ms(2.6)},
	{"log", "always", "uniform", 64}:   {41_000, 24, ms(1.1), ms(7.9)},
	{"log", "always", "uniform", 512}:  {181_000, 7.3, ms(1.9), ms(20)},
	{"log", "always", "uniform", 4096}: {240_000, 6.5, ms(14), ms(48)},

	{"log-only", "always", "hot", 1}:    {4_300, 0, ms(0.22), ms(0.39)},
	{"log-only", "always", "hot", 64}:   {69_000, 9.5, ms(0.84), ms(1.9)},
	{"log-only", "always", "hot", 512}:  {338_000, 3.0, ms(1.4), ms(3.7)},
	{"log-only", "always", "hot", 4096}: {575_000, 2.5, ms(6.2), ms(14)},

	{"state", "always", "hot", 1}:        {4_300, 0, 0, 0},
	{"state", "always", "hot", 64}:       {14_000, 47, ms(4.7), ms(7.3)},
	{"state", "always", "hot", 4096}:     {401_000, 0, ms(9.6), ms(19)},
	{"state", "always", "uniform", 1}:    {4_200, 0, 0, 0},
	{"state", "always", "uniform", 64}:   {14_000, 46, ms(3.8), ms(14)},
	{"state", "always", "uniform", 4096}: {63_000, 18, ms(64), ms(88)},

	{"log", "interval", "hot", 1}:        {48_000, 0, ms(0.013), ms(0.077)},
	{"log", "interval", "hot", 64}:       {377_000, 3.3, ms(0.13), ms(1.1)},
	{"log", "interval", "hot", 512}:      {1_160_000, 0, ms(0.34), ms(2.2)},
	{"log", "interval", "hot", 4096}:     {1_310_000, 0, ms(2.6), ms(8.6)},
	{"log", "interval", "uniform", 1}:    {40_000, 0, ms(0.014), ms(0.089)},
	{"log", "interval", "uniform", 64}:   {264_000, 6.1, ms(0.15), ms(2.7)},
	{"log", "interval", "uniform", 512}:  {461_000, 3.9, ms(0.6), ms(14)},
	{"log", "interval", "uniform", 4096}: {366_000, 5.2, ms(6.7), ms(87)},
}
