// Package listen chooses, for each subscribed name that matches the pattern of a
// provider, the one provider in the cluster that serves it (spec 09 §2). Events and
// records have a Registry each; the two differ in action numbers, and in that only
// records tell their subscribers whether there is a provider.
//
// # How a decision is made
//
// A name that somebody wants, asks about or serves has a state (type name): idle,
// asking one candidate, or provided. All states stand under one mutex, and every
// decision about a name is made there, so there is one answer at a time to "who is
// asked" and "who serves".
//
// What costs time is done outside of it by one worker, part of Run: matching
// names against patterns. Subscribing only puts the name into the worker's queue
// (Changed), so a reader never waits for a regular expression. The queue is level
// triggered: it says "look at this name", and the worker asks the subscription
// registry what is true now. A name is matched once, when it gets its first
// subscriber or when a new pattern comes; the patterns that match it are kept in
// its state. A second goroutine of Run holds the clock: candidates that do not
// answer, and the rematch. A third one (peers.go) follows the table and tells other
// nodes what they have to know; it does what concerns very many names in parts.
//
// # Several nodes
//
// A name has three places, which may be three nodes or one:
//
//   - A node that wants it has subscribers. Every node knows the patterns of all (a
//     cluster.Set of their texts) and matches its own names against them, in its own
//     time. It tells the owner which patterns match, once, and when the last
//     subscriber has gone.
//   - The owner of its partition (cluster.Table) decides. When the name is wanted and
//     not provided it searches: it asks its own listeners, then the nodes that have
//     listeners for a pattern that matches, one after another, in random order. Rest
//     and rematch are the owner's.
//   - A node that is asked asks its listeners one after another, as an owner does
//     (without ShuffleProviders in the order in which they came to it), and answers
//     "provided" or "nobody". A node whose client provides keeps the name in a
//     cluster.Set, from which every node knows HasProvider and tells its own
//     subscribers what changes, and tells the owner.
//
// A node alone is all three, nothing is sent, and what it does is what it did before
// there were others. All that goes from node to node about one name goes on one link,
// in order. The messages are in codec.go.
//
// # What an owner knows
//
// Whoever becomes the owner of a partition, and whoever gets a link to it, is told by
// each node anew what that node wants and provides: "begin", all of it, "synced",
// under the epoch of the ownership (peers.go). What was told before and was not told
// again is forgotten at "synced". An owner is complete when all nodes that are alive
// have synced under its epoch. Two conclusions need to know everything:
//
//   - that nobody provides a name, so that a search may begin. An owner that is not
//     complete waits for it, but not longer than settle: a node that is alive and
//     cannot be reached shall not leave the others without providers. What such a
//     node provides is taken from the Set, which is kept when a link ends.
//   - that nobody wants a name, so that its provider can be told to stop. An owner that
//     is not complete does not conclude it.
//
// What a node told counts while the table says that it is alive. So a link that breaks
// and comes back moves no provider, and a node that dies does at once.
//
// An owner without its lease (Table.Holds) decides nothing new; it looks again a
// little later. In a part of the cluster that is cut off, providers go on for the
// subscribers there. If in the end two nodes provide a name, the owner keeps the one
// with the smallest id and ends the other. A provider that an owner ends counts until its
// node says that it has ended ("lost"): only then another one is asked.
//
// So as long as nodes that are alive can reach each other, and the Table keeps what it
// promises of Holds, a name never has two providers. A node that is cut off can keep one
// that the others have replaced; and a new owner that cannot reach a node, and did not hear
// from its Set before, may make a second one after settle. Both end when the nodes
// meet.
//
// # Questions that are over
//
// A question of an owner to a node carries the epoch and the number of the search. A
// node takes no question of an epoch older than its table's, and a later one replaces
// it; an owner takes no "nobody" but that to its last question, and every "provided", of
// which it then decides whether it stays. A question ends when it is cancelled by its
// number, and with the link it came by. The candidate that was asked cannot be told to forget it: if
// a new question about the name comes meanwhile, its answer counts for that, else an
// accept is answered with SUBSCRIPTION_FOR_PATTERN_REMOVED.
//
// A node that answers "nobody" says up to which of its registrations it asked. If
// another listener comes, the owner is told ("joined") and asks again, from there on.
// An owner waits for the answer of a node without a clock of its own, since that
// depends on how many listeners there are; it ends with the link or the node.
//
// # What differs from the peer
//
//   - The ack of a LISTEN or UNLISTEN goes out before anything that follows from it
//     (spec 15, trap 38). Every LISTEN and UNLISTEN is acknowledged, but for an
//     invalid pattern.
//   - Only the client that was asked may accept or reject, and with the pattern it
//     was asked for. Another listener that accepts, or one that does so too late, is
//     told SUBSCRIPTION_FOR_PATTERN_REMOVED. A candidate that leaves is a rejection; the
//     others stay.
//   - A name nobody accepted rests for MatchCooldown: the rematch passes it over.
//     A provider that registers meanwhile is asked at once, alone. When the last
//     subscriber leaves, the failure is forgotten.
//   - A name whose last subscriber leaves while a candidate is being asked: a
//     LISTEN_ACCEPT is answered with SUBSCRIPTION_FOR_PATTERN_REMOVED, so that the
//     provider does not feed a name nobody hears.
//   - At most window questions wait for one provider at a time; with more, the
//     name waits its turn and its timeout begins when it is asked. A provider that
//     registers for a pattern with a hundred thousand names can so answer in time.
//
// # Patterns
//
// A pattern is an unanchored JavaScript regular expression without flags, read by
// dlclark/regexp2 in its ECMAScript mode. It works on code points where JavaScript
// works on UTF-16 units. A pattern may be 4096 bytes long, a client may have 1000,
// and they count among its subscriptions, as they are large; what is beyond is
// answered with INVALID_LISTEN_REGEX. Plain patterns are
// matched by the standard library in linear time (linear.go), the others by
// regexp2: a match may then take 50 ms (the engine's clock is coarse: up to 150),
// and one that takes longer counts as none. A pattern that goes on to waste time is
// switched off (see expression.match); what the patterns of one client waste
// together is bounded, and what those of all do (see Registry.match). Both are the
// business of each node that matches: a pattern that wastes time on the names of one
// is not thereby off on another.
//
// Names under hadal/ belong to the server: a client may subscribe to them, but no
// pattern matches them, so nobody is asked to provide them.
//
// # Locks
//
// Registry.mu, then (never the other way round) the locks of sub.Registry and
// cluster.Set inside their methods; Registry.qmu is taken alone or under mu. Under mu
// only Client.Answer, Client.Send, the subscription registry, the Sets, the Table and
// Bus.Send are called, none of which may block. What is posted to peers under mu is
// sent before it is given back (Registry.unlock).
package listen
