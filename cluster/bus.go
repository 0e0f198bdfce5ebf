package cluster

// Kind says which room a message between nodes is for. Its number is part of the
// format between nodes: never change one, only add.
type Kind uint8

// The kinds.
const (
	KindEvent          Kind = 1  // node/event: events, published in slots
	KindRecord         Kind = 2  // node/record: requests to owners and their answers
	KindRPC            Kind = 3  // node/rpc: calls
	KindRPCProviders   Kind = 4  // node/rpc: the Set of names that nodes provide
	KindPresence       Kind = 5  // node/presence: the Set of users that nodes serve
	KindEventListen    Kind = 6  // node/listen for events
	KindRecordListen   Kind = 7  // node/listen for records
	KindEventPatterns  Kind = 8  // node/listen for events: the Set of patterns
	KindRecordPatterns Kind = 9  // node/listen for records: the Set of patterns
	KindEventProvided  Kind = 10 // node/listen for events: the Set of names provided
	KindRecordProvided Kind = 11 // node/listen for records: the Set of names provided
	KindNode           Kind = 12 // node: what nodes tell each other about themselves

	kinds = 16 // more than the highest
)

// Bus is how the rooms of this node speak to those of other nodes. There are two
// ways: links, from node to node, for what must not get lost unnoticed; and slots, to
// whoever has asked for them, for broadcasts that may. A node that runs alone has a
// Bus without peers (Alone).
//
// # Links
//
// Between two nodes there is at most one link at a time. What is sent on a link
// arrives in the order sent, without holes; a link that loses anything ends. At both
// ends a room hears, from one goroutine for each peer and in this order: Up, what the
// peer sends, Down. Whatever was under way when a link ends may have arrived or not. A
// new link to the same peer is Up after the old one is Down. Up says nothing about
// whether the cluster counts on the peer, nor Down that it does not: that is the
// Table's to say.
//
// # Slots
//
// What one goroutine publishes in a slot arrives in that order and at most once at
// every other node that has joined the slot. It may be lost, when a connection breaks
// or a receiver is too slow; then it is counted.
type Bus interface {
	// Handle says who hears of a kind. It is called once for each kind, before the bus
	// runs. A kind that nobody handles is dropped.
	Handle(k Kind, h Handler)
	// Send queues a message for a peer. It never blocks. It is false when there is no
	// link, or when the link's queue is full, which ends the link; then nothing was
	// sent. What is sent from within Up or later goes on that link or a later one.
	// The payload is copied or written before Send returns.
	Send(peer string, k Kind, payload []byte) bool
	// Offer is Send for what may be large and can be done without: it is false as well, and
	// nothing was sent and the link goes on, when half of the link's queue is taken. So what
	// has to be sent finds room, and one who is too fast does not end the link for all.
	Offer(peer string, k Kind, payload []byte) bool
	// Linked says whether there is a link to the peer.
	Linked(peer string) bool
	// Publish queues a message for all other nodes that have joined the slot. It never
	// blocks. The payload is the caller's again when it returns.
	Publish(k Kind, slot uint16, payload []byte)
	// Join asks for what others publish in the slot, until Leave. Each may be called
	// once in turn; neither blocks. What is published after another node can have
	// noticed arrives: some milliseconds later.
	Join(k Kind, slot uint16)
	// Leave ends Join.
	Leave(k Kind, slot uint16)
}

// Handler is a room that hears what other nodes send. Its methods must not block: they
// hold up all that this peer sends, to every room. Hear and Published get payloads that
// are valid during the call only.
type Handler interface {
	// Up says that there is a link to the peer, on which nothing was sent yet.
	Up(peer string)
	// Hear is called for each message of the peer.
	Hear(peer string, payload []byte)
	// Down says that the link has ended.
	Down(peer string)
	// Published is called for each message in a slot that this node has joined. It is
	// called from one goroutine for each kind.
	Published(peer string, slot uint16, payload []byte)
}

// Alone is the Bus of a node without peers.
type Alone struct{}

var _ Bus = Alone{}

// Handle implements Bus: there is nothing to hear.
func (Alone) Handle(Kind, Handler) {}

// Send implements Bus: nobody is there.
func (Alone) Send(string, Kind, []byte) bool { return false }

// Offer implements Bus: nobody is there.
func (Alone) Offer(string, Kind, []byte) bool { return false }

// Linked implements Bus.
func (Alone) Linked(string) bool { return false }

// Publish implements Bus: nobody listens.
func (Alone) Publish(Kind, uint16, []byte) {}

// Join implements Bus.
func (Alone) Join(Kind, uint16) {}

// Leave implements Bus.
func (Alone) Leave(Kind, uint16) {}
