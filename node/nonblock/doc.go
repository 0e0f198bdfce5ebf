// Package nonblock has the system calls that move bytes to and from a socket and return at
// once, whatever the socket holds. Go's scheduler is told of a system call because it may
// wait; of these it is not told, which spares a tenth of a small send, and on a busy machine
// that the processor is handed on while a call is under way. For a socket the
// kernel has also less to do in send and recv than in write and read. What it brought
// stands in docs/performance/steps.md.
//
// A caller passes little, tens of kilobytes at most: a stop of all goroutines, as the
// collector needs it, waits for a call.
package nonblock
