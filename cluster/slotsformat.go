package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A message in a slot:
//
//	format  1 byte, 1
//	sender  uvarint length, then the node's id
//	then, until its end, payloads: uvarint length, then the payload
//
// Which kind and slot it is for its subject says.
const (
	slotFormat = 1
	// slotPayloadOverhead is the most that a payload takes beside itself.
	slotPayloadOverhead = binary.MaxVarintLen32
	// slotSenderSize is the longest id.
	slotSenderSize = 64
	// slotOverhead is the most that a message of one payload holds beside it.
	slotOverhead = 1 + binary.MaxVarintLen32 + slotSenderSize + slotPayloadOverhead
)

func appendSlotHeader(dst []byte, sender string) []byte {
	dst = append(dst, slotFormat)
	dst = binary.AppendUvarint(dst, uint64(len(sender)))
	return append(dst, sender...)
}

func appendSlotPayload(dst, payload []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// cutSlotHeader reads the beginning of a message; the results are views of it.
func cutSlotHeader(data []byte) (sender, rest []byte, err error) {
	switch {
	case len(data) == 0:
		return nil, nil, errSlotShort
	case data[0] != slotFormat:
		return nil, nil, fmt.Errorf("its format is %d, this version reads %d", data[0], slotFormat)
	}
	sender, rest, err = cutSlotPayload(data[1:])
	if err == nil && (len(sender) == 0 || len(sender) > slotSenderSize) {
		err = fmt.Errorf("its sender has %d bytes", len(sender))
	}
	return sender, rest, err
}

// cutSlotPayload reads one payload; the results are views of data.
func cutSlotPayload(data []byte) (payload, rest []byte, err error) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) {
		return nil, nil, errSlotShort
	}
	end := n + int(size)
	return data[n:end:end], data[end:], nil
}

var errSlotShort = errors.New("it ends too early")
