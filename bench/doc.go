// Package bench measures a server that speaks deepstream's binary protocol: `hadal bench`.
//
// A run is a list of scenarios, each of them measured once or more on each of its targets.
// A target is a server that is started for it (nodes of this program, a peer's launcher, the
// bare writer) or one that runs already (URLs). What comes out is a Result, which is all
// that the table, the page, the comparison and docs/performance.md are made from: it holds the
// seed, versions, the machine, how busy it was, and the settings, so that a number can be had
// again.
//
//	settings.go  what is asked for          engine.go   one measurement after the other
//	target*.go   servers, and their CPU     load.go     the clients of one measurement
//	sender.go    closed and open loop       receiver.go what arrives, and what does not
//	meter.go     counts, latencies, samples result.go   what comes out
//	scenario.go  the list, and its shape    *_load.go   one file a kind of load
//	summary.go   rounds put together        table.go, compare.go, report.go: how it is told
//
// How a number comes about:
//
//   - Every message carries a stamp (stamp.go): which stream it belongs to, its number in that
//     stream, and when it was meant to be sent. A receiver needs nothing else to know that
//     one is missing, came twice or came late, and how long it took. It reads the clock
//     once a read, not once a message, and writes to shared memory once a read.
//   - Closed loop: a sender has a window of messages in flight, and the next one goes
//     when one has arrived everywhere. Whoever reads the last of them writes the next, on its
//     own goroutine, so a turn costs the generator no wake-up of its own. What is due together
//     is written together.
//   - Open loop: a message is due at a moment that was fixed before anything was sent, and its
//     latency counts from there, so that a server that stops for a second is charged
//     for all that was due in that second. How late the generator itself wrote is kept beside
//     it, and a run that did not keep its rate says so.
//   - Warm-up first; then counters and histograms are read at both ends of the measured time.
//     Streams are checked from the first message to the last: when the senders have stopped,
//     what is under way is waited for, and what has not come then is lost.
//   - Server CPU is user and system time from /proc, of all processes of the target, over
//     the measured time; a message is what the scenario says it is, mostly a delivery.
//   - Frames are encoded once: what differs from message to message is the stamp, which is written
//     over the last one's. Reading is a goroutine for each connection; a generator thread is
//     busy with system calls then, as the server is, of which it needs one where the server
//     needs one.
//
// Scenarios have one shape: setup connects and subscribes, drive loads until its context ends,
// check looks at what is left behind.
package bench
