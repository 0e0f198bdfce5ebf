package protocol

import "strconv"

// Action is the number of a message's action within its topic: the same number
// means another thing under another topic (spec 01 §5). Numbers this table does
// not know are kept as they came.
type Action int32

// ActionUnknown is the zero action; no message may carry it.
const ActionUnknown Action = 0

// Actions of topic PARSER (spec 01 §5).
const (
	ParserUnknownTopic               Action = 1
	ParserUnknownAction              Action = 2
	ParserInvalidMessage             Action = 3
	ParserMessageParseError          Action = 4
	ParserMaximumMessageSizeExceeded Action = 5
	ParserError                      Action = 6
	ParserInvalidMetaParams          Action = 7
)

// Actions of topic CONNECTION (spec 01 §5).
const (
	ConnectionError                 Action = 1
	ConnectionPing                  Action = 2
	ConnectionPong                  Action = 3
	ConnectionAccept                Action = 4
	ConnectionChallenge             Action = 5
	ConnectionReject                Action = 6
	ConnectionRedirect              Action = 7
	ConnectionClosing               Action = 8
	ConnectionClosed                Action = 9
	ConnectionAuthenticationTimeout Action = 100
	ConnectionInvalidMessage        Action = 101
)

// Actions of topic AUTH (spec 01 §5).
const (
	AuthError               Action = 1
	AuthRequest             Action = 2
	AuthAuthSuccessful      Action = 3
	AuthAuthUnsuccessful    Action = 4
	AuthTooManyAuthAttempts Action = 100
	AuthInvalidMessage      Action = 101
	AuthInvalidMessageData  Action = 102
)

// Actions of topic EVENT (spec 01 §5).
const (
	EventError                         Action = 1
	EventEmit                          Action = 2
	EventSubscribe                     Action = 3
	EventUnsubscribe                   Action = 4
	EventListen                        Action = 5
	EventUnlisten                      Action = 6
	EventListenAccept                  Action = 7
	EventListenReject                  Action = 8
	EventSubscriptionHasProvider       Action = 9
	EventSubscriptionHasNoProvider     Action = 10
	EventSubscriptionForPatternFound   Action = 11
	EventSubscriptionForPatternRemoved Action = 12
	EventInvalidListenRegex            Action = 100
	EventListenResponseTimeout         Action = 101
	EventListenUnsuccessful            Action = 102
	EventMessagePermissionError        Action = 103
	EventMessageDenied                 Action = 104
	EventInvalidMessageData            Action = 105
	EventMultipleSubscriptions         Action = 106
	EventNotSubscribed                 Action = 107
)

// Actions of topic RECORD (spec 01 §5).
const (
	RecordError                         Action = 1
	RecordNotify                        Action = 2
	RecordRead                          Action = 3
	RecordReadResponse                  Action = 4
	RecordHead                          Action = 5
	RecordHeadResponse                  Action = 6
	RecordHeadBulk                      Action = 7
	RecordHeadResponseBulk              Action = 8
	RecordDelete                        Action = 9
	RecordDeleteSuccess                 Action = 10
	RecordDeleteBulk                    Action = 11
	RecordDeleteBulkSuccess             Action = 12
	RecordDeleted                       Action = 13
	RecordWriteAcknowledgement          Action = 14
	RecordCreate                        Action = 15
	RecordCreateAndUpdate               Action = 16
	RecordCreateAndPatch                Action = 17
	RecordUpdate                        Action = 18
	RecordPatch                         Action = 19
	RecordErase                         Action = 20
	RecordSubscribeAndHead              Action = 21
	RecordSubscribeAndRead              Action = 22
	RecordSubscribeCreateAndRead        Action = 23
	RecordSubscribeCreateAndUpdate      Action = 24
	RecordSubscribe                     Action = 25
	RecordUnsubscribe                   Action = 26
	RecordListen                        Action = 27
	RecordUnlisten                      Action = 28
	RecordListenAccept                  Action = 29
	RecordListenReject                  Action = 30
	RecordSubscriptionHasProvider       Action = 31
	RecordSubscriptionHasNoProvider     Action = 32
	RecordSubscriptionForPatternFound   Action = 33
	RecordSubscriptionForPatternRemoved Action = 34
	RecordPatchMulti                    Action = 35
	RecordCacheRetrievalTimeout         Action = 100
	RecordStorageRetrievalTimeout       Action = 101
	RecordVersionExists                 Action = 102
	RecordRecordLoadError               Action = 103
	RecordRecordCreateError             Action = 104
	RecordRecordUpdateError             Action = 105
	RecordRecordDeleteError             Action = 106
	RecordRecordNotFound                Action = 107
	RecordInvalidVersion                Action = 108
	RecordInvalidPatchOnHotpath         Action = 109
	RecordInvalidListenRegex            Action = 110
	RecordListenResponseTimeout         Action = 111
	RecordListenUnsuccessful            Action = 112
	RecordRecordNotifyError             Action = 113
	RecordMessagePermissionError        Action = 114
	RecordMessageDenied                 Action = 115
	RecordInvalidMessageData            Action = 116
	RecordMultipleSubscriptions         Action = 117
	RecordNotSubscribed                 Action = 118
)

// Actions of topic RPC (spec 01 §5).
const (
	RPCError                   Action = 1
	RPCRequest                 Action = 2
	RPCAccept                  Action = 4
	RPCResponse                Action = 5
	RPCReject                  Action = 6
	RPCRequestError            Action = 7
	RPCProvide                 Action = 8
	RPCUnprovide               Action = 9
	RPCNoRPCProvider           Action = 100
	RPCAcceptTimeout           Action = 101
	RPCMultipleAccept          Action = 102
	RPCInvalidRPCCorrelationID Action = 103
	RPCResponseTimeout         Action = 104
	RPCMultipleResponse        Action = 105
	RPCMessagePermissionError  Action = 106
	RPCMessageDenied           Action = 107
	RPCInvalidMessageData      Action = 108
	RPCMultipleProviders       Action = 109
	RPCNotProvided             Action = 110
)

// Actions of topic PRESENCE (spec 01 §5).
const (
	PresenceError                  Action = 1
	PresenceQueryAll               Action = 2
	PresenceQueryAllResponse       Action = 3
	PresenceQuery                  Action = 4
	PresenceQueryResponse          Action = 5
	PresencePresenceJoin           Action = 6
	PresencePresenceJoinAll        Action = 7
	PresencePresenceLeave          Action = 8
	PresencePresenceLeaveAll       Action = 9
	PresenceSubscribe              Action = 10
	PresenceUnsubscribe            Action = 11
	PresenceSubscribeAll           Action = 12
	PresenceUnsubscribeAll         Action = 13
	PresenceInvalidPresenceUsers   Action = 100
	PresenceMessagePermissionError Action = 101
	PresenceMessageDenied          Action = 102
	PresenceMultipleSubscriptions  Action = 103
	PresenceNotSubscribed          Action = 104
)

// actionNames gives the protobuf name of every action, by topic.
var actionNames = map[Topic]map[Action]string{
	TopicParser: {
		ParserUnknownTopic:               "UNKNOWN_TOPIC",
		ParserUnknownAction:              "UNKNOWN_ACTION",
		ParserInvalidMessage:             "INVALID_MESSAGE",
		ParserMessageParseError:          "MESSAGE_PARSE_ERROR",
		ParserMaximumMessageSizeExceeded: "MAXIMUM_MESSAGE_SIZE_EXCEEDED",
		ParserError:                      "ERROR",
		ParserInvalidMetaParams:          "INVALID_META_PARAMS",
	},
	TopicConnection: {
		ConnectionError:                 "ERROR",
		ConnectionPing:                  "PING",
		ConnectionPong:                  "PONG",
		ConnectionAccept:                "ACCEPT",
		ConnectionChallenge:             "CHALLENGE",
		ConnectionReject:                "REJECT",
		ConnectionRedirect:              "REDIRECT",
		ConnectionClosing:               "CLOSING",
		ConnectionClosed:                "CLOSED",
		ConnectionAuthenticationTimeout: "AUTHENTICATION_TIMEOUT",
		ConnectionInvalidMessage:        "INVALID_MESSAGE",
	},
	TopicAuth: {
		AuthError:               "ERROR",
		AuthRequest:             "REQUEST",
		AuthAuthSuccessful:      "AUTH_SUCCESSFUL",
		AuthAuthUnsuccessful:    "AUTH_UNSUCCESSFUL",
		AuthTooManyAuthAttempts: "TOO_MANY_AUTH_ATTEMPTS",
		AuthInvalidMessage:      "INVALID_MESSAGE",
		AuthInvalidMessageData:  "INVALID_MESSAGE_DATA",
	},
	TopicEvent: {
		EventError:                         "ERROR",
		EventEmit:                          "EMIT",
		EventSubscribe:                     "SUBSCRIBE",
		EventUnsubscribe:                   "UNSUBSCRIBE",
		EventListen:                        "LISTEN",
		EventUnlisten:                      "UNLISTEN",
		EventListenAccept:                  "LISTEN_ACCEPT",
		EventListenReject:                  "LISTEN_REJECT",
		EventSubscriptionHasProvider:       "SUBSCRIPTION_HAS_PROVIDER",
		EventSubscriptionHasNoProvider:     "SUBSCRIPTION_HAS_NO_PROVIDER",
		EventSubscriptionForPatternFound:   "SUBSCRIPTION_FOR_PATTERN_FOUND",
		EventSubscriptionForPatternRemoved: "SUBSCRIPTION_FOR_PATTERN_REMOVED",
		EventInvalidListenRegex:            "INVALID_LISTEN_REGEX",
		EventListenResponseTimeout:         "LISTEN_RESPONSE_TIMEOUT",
		EventListenUnsuccessful:            "LISTEN_UNSUCCESSFUL",
		EventMessagePermissionError:        "MESSAGE_PERMISSION_ERROR",
		EventMessageDenied:                 "MESSAGE_DENIED",
		EventInvalidMessageData:            "INVALID_MESSAGE_DATA",
		EventMultipleSubscriptions:         "MULTIPLE_SUBSCRIPTIONS",
		EventNotSubscribed:                 "NOT_SUBSCRIBED",
	},
	TopicRecord: {
		RecordError:                         "ERROR",
		RecordNotify:                        "NOTIFY",
		RecordRead:                          "READ",
		RecordReadResponse:                  "READ_RESPONSE",
		RecordHead:                          "HEAD",
		RecordHeadResponse:                  "HEAD_RESPONSE",
		RecordHeadBulk:                      "HEAD_BULK",
		RecordHeadResponseBulk:              "HEAD_RESPONSE_BULK",
		RecordDelete:                        "DELETE",
		RecordDeleteSuccess:                 "DELETE_SUCCESS",
		RecordDeleteBulk:                    "DELETE_BULK",
		RecordDeleteBulkSuccess:             "DELETE_BULK_SUCCESS",
		RecordDeleted:                       "DELETED",
		RecordWriteAcknowledgement:          "WRITE_ACKNOWLEDGEMENT",
		RecordCreate:                        "CREATE",
		RecordCreateAndUpdate:               "CREATEANDUPDATE",
		RecordCreateAndPatch:                "CREATEANDPATCH",
		RecordUpdate:                        "UPDATE",
		RecordPatch:                         "PATCH",
		RecordErase:                         "ERASE",
		RecordSubscribeAndHead:              "SUBSCRIBEANDHEAD",
		RecordSubscribeAndRead:              "SUBSCRIBEANDREAD",
		RecordSubscribeCreateAndRead:        "SUBSCRIBECREATEANDREAD",
		RecordSubscribeCreateAndUpdate:      "SUBSCRIBECREATEANDUPDATE",
		RecordSubscribe:                     "SUBSCRIBE",
		RecordUnsubscribe:                   "UNSUBSCRIBE",
		RecordListen:                        "LISTEN",
		RecordUnlisten:                      "UNLISTEN",
		RecordListenAccept:                  "LISTEN_ACCEPT",
		RecordListenReject:                  "LISTEN_REJECT",
		RecordSubscriptionHasProvider:       "SUBSCRIPTION_HAS_PROVIDER",
		RecordSubscriptionHasNoProvider:     "SUBSCRIPTION_HAS_NO_PROVIDER",
		RecordSubscriptionForPatternFound:   "SUBSCRIPTION_FOR_PATTERN_FOUND",
		RecordSubscriptionForPatternRemoved: "SUBSCRIPTION_FOR_PATTERN_REMOVED",
		RecordPatchMulti:                    "PATCH_MULTI",
		RecordCacheRetrievalTimeout:         "CACHE_RETRIEVAL_TIMEOUT",
		RecordStorageRetrievalTimeout:       "STORAGE_RETRIEVAL_TIMEOUT",
		RecordVersionExists:                 "VERSION_EXISTS",
		RecordRecordLoadError:               "RECORD_LOAD_ERROR",
		RecordRecordCreateError:             "RECORD_CREATE_ERROR",
		RecordRecordUpdateError:             "RECORD_UPDATE_ERROR",
		RecordRecordDeleteError:             "RECORD_DELETE_ERROR",
		RecordRecordNotFound:                "RECORD_NOT_FOUND",
		RecordInvalidVersion:                "INVALID_VERSION",
		RecordInvalidPatchOnHotpath:         "INVALID_PATCH_ON_HOTPATH",
		RecordInvalidListenRegex:            "INVALID_LISTEN_REGEX",
		RecordListenResponseTimeout:         "LISTEN_RESPONSE_TIMEOUT",
		RecordListenUnsuccessful:            "LISTEN_UNSUCCESSFUL",
		RecordRecordNotifyError:             "RECORD_NOTIFY_ERROR",
		RecordMessagePermissionError:        "MESSAGE_PERMISSION_ERROR",
		RecordMessageDenied:                 "MESSAGE_DENIED",
		RecordInvalidMessageData:            "INVALID_MESSAGE_DATA",
		RecordMultipleSubscriptions:         "MULTIPLE_SUBSCRIPTIONS",
		RecordNotSubscribed:                 "NOT_SUBSCRIBED",
	},
	TopicRPC: {
		RPCError:                   "ERROR",
		RPCRequest:                 "REQUEST",
		RPCAccept:                  "ACCEPT",
		RPCResponse:                "RESPONSE",
		RPCReject:                  "REJECT",
		RPCRequestError:            "REQUEST_ERROR",
		RPCProvide:                 "PROVIDE",
		RPCUnprovide:               "UNPROVIDE",
		RPCNoRPCProvider:           "NO_RPC_PROVIDER",
		RPCAcceptTimeout:           "ACCEPT_TIMEOUT",
		RPCMultipleAccept:          "MULTIPLE_ACCEPT",
		RPCInvalidRPCCorrelationID: "INVALID_RPC_CORRELATION_ID",
		RPCResponseTimeout:         "RESPONSE_TIMEOUT",
		RPCMultipleResponse:        "MULTIPLE_RESPONSE",
		RPCMessagePermissionError:  "MESSAGE_PERMISSION_ERROR",
		RPCMessageDenied:           "MESSAGE_DENIED",
		RPCInvalidMessageData:      "INVALID_MESSAGE_DATA",
		RPCMultipleProviders:       "MULTIPLE_PROVIDERS",
		RPCNotProvided:             "NOT_PROVIDED",
	},
	TopicPresence: {
		PresenceError:                  "ERROR",
		PresenceQueryAll:               "QUERY_ALL",
		PresenceQueryAllResponse:       "QUERY_ALL_RESPONSE",
		PresenceQuery:                  "QUERY",
		PresenceQueryResponse:          "QUERY_RESPONSE",
		PresencePresenceJoin:           "PRESENCE_JOIN",
		PresencePresenceJoinAll:        "PRESENCE_JOIN_ALL",
		PresencePresenceLeave:          "PRESENCE_LEAVE",
		PresencePresenceLeaveAll:       "PRESENCE_LEAVE_ALL",
		PresenceSubscribe:              "SUBSCRIBE",
		PresenceUnsubscribe:            "UNSUBSCRIBE",
		PresenceSubscribeAll:           "SUBSCRIBE_ALL",
		PresenceUnsubscribeAll:         "UNSUBSCRIBE_ALL",
		PresenceInvalidPresenceUsers:   "INVALID_PRESENCE_USERS",
		PresenceMessagePermissionError: "MESSAGE_PERMISSION_ERROR",
		PresenceMessageDenied:          "MESSAGE_DENIED",
		PresenceMultipleSubscriptions:  "MULTIPLE_SUBSCRIPTIONS",
		PresenceNotSubscribed:          "NOT_SUBSCRIBED",
	},
}

// Name is the protobuf name of the action under topic t, for example
// "MESSAGE_DENIED", or its number where the protocol knows none.
func (a Action) Name(t Topic) string {
	if name, ok := actionNames[t][a]; ok {
		return name
	}
	return strconv.Itoa(int(a))
}

// Known says whether the protocol defines the action under topic t.
func (a Action) Known(t Topic) bool {
	_, ok := actionNames[t][a]
	return ok
}

// Denied is the topic's MESSAGE_DENIED: a rule said no.
func Denied(t Topic) Action {
	switch t {
	case TopicEvent:
		return EventMessageDenied
	case TopicRecord:
		return RecordMessageDenied
	case TopicRPC:
		return RPCMessageDenied
	case TopicPresence:
		return PresenceMessageDenied
	}
	return ActionUnknown
}

// PermissionError is the topic's MESSAGE_PERMISSION_ERROR: a rule could not be
// judged, which denies too.
func PermissionError(t Topic) Action {
	switch t {
	case TopicEvent:
		return EventMessagePermissionError
	case TopicRecord:
		return RecordMessagePermissionError
	case TopicRPC:
		return RPCMessagePermissionError
	case TopicPresence:
		return PresenceMessagePermissionError
	}
	return ActionUnknown
}
