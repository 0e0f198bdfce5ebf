package protocol

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Why a frame is not a message. Decode returns one of them, alone or wrapped;
// whatever the reason, spec 01 §2 answers all of them alike.
var (
	// ErrTruncated is a frame that ends before what it announced.
	ErrTruncated = errors.New("protocol: truncated frame")
	// ErrMalformed is a frame that is no protobuf at all: a number that does not
	// end, a field without a number, a group that is not closed.
	ErrMalformed = errors.New("protocol: malformed frame")
	// ErrTopic is a topic that has no codec: missing, 0, the peer's own, unknown.
	ErrTopic = errors.New("protocol: topic has no codec")
	// ErrUTF8 is a text that is not UTF-8. The JavaScript peer replaces what it
	// cannot read, so that two different names become one; here a name is one
	// thing everywhere or it is refused.
	ErrUTF8 = errors.New("protocol: text is not UTF-8")
)

// field is one field of Message, whatever its number is under a topic.
type field uint8

const (
	fieldNone field = iota

	// Numbers and flags: varints on the wire.
	fieldAction
	fieldIsError
	fieldIsAck
	fieldIsWriteAck
	fieldOriginalAction
	fieldVersion

	// Everything from here on is length-delimited.
	fieldVersions
	fieldData
	fieldCorrelationID
	fieldName
	fieldNames
	fieldSubscription
	fieldPath
	fieldRequestorName
	fieldRequestorData
	fieldURL
	fieldProtocolVersion
	fieldSDKVersion
	fieldSDKType

	fieldCount
)

// numbers says which field has which number under a topic (spec 01 §5). What it
// leaves out is skipped when read and never written: originalTOPIC, which no
// peer fills, and pattern, which no peer uses. The three topics of only an
// action have a codec, but nobody who would handle them (spec 01 §4).
var numbers = map[Topic]map[byte]field{
	TopicParser: {
		1: fieldAction, 2: fieldData, 9: fieldOriginalAction,
	},
	TopicConnection: {
		1: fieldAction, 2: fieldData, 3: fieldIsError, 4: fieldIsAck,
		5: fieldURL, 6: fieldProtocolVersion, 7: fieldSDKVersion, 8: fieldSDKType,
	},
	TopicAuth: {
		1: fieldAction, 2: fieldData, 3: fieldIsError, 4: fieldIsAck,
	},
	TopicEvent: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldName, 7: fieldNames, 8: fieldSubscription, 11: fieldOriginalAction,
	},
	TopicRecord: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldName, 7: fieldNames, 9: fieldSubscription, 10: fieldOriginalAction,
		11: fieldIsWriteAck, 12: fieldPath, 13: fieldVersion, 14: fieldVersions,
	},
	TopicRPC: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldNames, 7: fieldName, 9: fieldOriginalAction,
		10: fieldRequestorName, 11: fieldRequestorData,
	},
	TopicPresence: {
		1: fieldAction, 3: fieldOriginalAction, 4: fieldData, 5: fieldCorrelationID,
		6: fieldIsError, 7: fieldIsAck, 8: fieldName, 9: fieldNames,
	},
	TopicMonitoring: {1: fieldAction},
	TopicCluster:    {1: fieldAction},
	TopicLock:       {1: fieldAction},
}

const codecTopics = int(TopicLock) + 1

// fieldOf is numbers for reading: the field behind a tag byte (number and wire
// type in one), or none. A known number with a foreign wire type is thereby an
// unknown field, as protobuf wants it. All our tags fit in one byte.
var fieldOf [codecTopics][128]field

// tagOf is numbers for writing: the tag byte of a field, 0 where the topic has
// no such field.
var tagOf [codecTopics][fieldCount]byte

func init() {
	for topic, fields := range numbers {
		for n, f := range fields {
			wireType := protowire.VarintType
			if f >= fieldVersions {
				wireType = protowire.BytesType
			}
			tag := byte(protowire.EncodeTag(protowire.Number(n), wireType))
			fieldOf[topic][tag] = f
			tagOf[topic][f] = tag
		}
	}
}

// The tags of the envelope (spec 01 §2) and of an entry of versions.
const (
	tagTopic   = 2<<3 | byte(protowire.VarintType)
	tagMessage = 3<<3 | byte(protowire.BytesType)

	tagEntryName    = 1<<3 | byte(protowire.BytesType)
	tagEntryVersion = 2<<3 | byte(protowire.VarintType)
)
