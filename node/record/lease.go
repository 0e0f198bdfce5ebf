package record

import (
	"errors"
	"time"
)

// This file keeps an owner from answering when somebody else may be one.
//
// What it computes from its memory is right if nobody else can have been owner at
// some moment between the question and the computation. So the owner asks the table
// after it has taken requests from its mailbox, and before it looks at any of them;
// how long it then takes, or is kept from running, makes no difference. Writes need
// no lease: the store refuses those of a former owner, and what is told of them waits
// for the store.

// leasePause is how often an owner without a lease looks for one.
const leasePause = 20 * time.Millisecond

// errNoLease means that the node is cut off from most of the cluster.
var errNoLease = errors.New("this node is cut off from the cluster; try again later")

// holds says whether this node may answer as the owner of the partition under that
// very epoch.
func (r *Room) holds(partition int, epoch uint64) bool {
	// In this order: an epoch that is still the same afterwards was the same before.
	return r.table.Holds(partition) && r.table.Owner(partition).Epoch == epoch
}

// look asks for the lease. Without one, requests wait; after holdTime they are
// refused.
func (o *owner) look() {
	if o.room.holds(o.partition, o.epoch) {
		if o.lapsed {
			o.lapsed = false
			o.setBarred(false)
		}
		return
	}
	if !o.lapsed {
		o.lapsed, o.lapsedAt = true, time.Now()
	} else if !o.barred && time.Since(o.lapsedAt) >= holdTime {
		o.setBarred(true)
		o.log.Warn("records are refused: this node is cut off from the cluster", "partition", o.partition)
	}
	o.lookAgain.Reset(leasePause)
}

func (o *owner) setBarred(on bool) {
	if on != o.barred {
		o.barred = on
		o.stats.barred.Add(map[bool]int64{true: 1, false: -1}[on])
	}
}

// bar refuses a request that needs the lease, and says whether it did.
func (o *owner) bar(r *request) bool {
	switch r.kind {
	case kindUnsubscribe, kindMarker, kindFlush, kindRejudgeMany, kindCall, kindPeerGone, kindForget, kindResync:
		return false
	case kindResyncMany:
		r.remote.moved(o.epoch)
		r.free()
		return true
	}
	r.refuse(errNoLease)
	return true
}
