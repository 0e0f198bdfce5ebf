// The published client, unmodified, with a tap on its socket: a test can wait for
// the acknowledgement of a subscription, which the client keeps to itself.
import assert from 'node:assert/strict'
import deepstream from '@deepstream/client'
import sockets from '@deepstream/client/dist/src/connection/socket-factory.js'
import { spread } from './cluster.js'
import { Inbox } from './inbox.js'
import { later } from './test.js'
import { encode, named, parse } from './wire.js'

const { DeepstreamClient } = deepstream
export const { C } = deepstream

// options are the ones of the client's own feature tests: short timers. The read
// timeouts stay long, because the client only prints a warning after them, and those of calls,
// because the node's decide.
const options = {
  nativeTimerRegistry: true,
  subscriptionInterval: 5,
  subscriptionTimeout: 30000,
  recordReadAckTimeout: 30000,
  recordReadTimeout: 30000,
  recordDeleteTimeout: 30000,
  rpcAcceptTimeout: 30000,
  rpcResponseTimeout: 30000,
  recordDiscardTimeout: 20,
  reconnectIntervalIncrement: 20,
  maxReconnectInterval: 300,
  maxReconnectAttempts: 2000,
  offlineBufferTimeout: 20000
}

// Tap records what goes through the client's present socket: {sent} or {received}.
// seen is the traffic of all its sockets, inbox of every one together.
class Tap {
  traffic = new Inbox()

  factory = (url, socketOptions, heartbeat) => {
    const socket = sockets.socketFactory(url, socketOptions, heartbeat)
    const send = socket.sendParsedMessage
    socket.sendParsedMessage = message => {
      this.traffic.push({ sent: named({ names: [], ...message }) })
      send(message)
    }
    this.traffic.push({ opened: url })
    // tell has the client get a message that no server sent.
    this.tell = (...message) => socket.onparsedmessages([parse(encode(...message))])
    let deliver = () => {}
    Object.defineProperty(socket, 'onparsedmessages', {
      get: () => messages => {
        const seen = messages.map(m => named(m))
        deliver(messages)
        for (const m of seen) this.traffic.push({ received: m })
      },
      set: fn => { deliver = fn }
    })
    return socket
  }

  // now is the traffic of the socket that is open now.
  get now () {
    const items = this.traffic.items
    return items.slice(items.findLastIndex(i => i.opened))
  }

  // received waits for a message from the server on the present socket, after the
  // first `skip` messages that match as well.
  received (match, skip = 0) {
    return this.traffic.until(() => this.now.filter(i => i.received && matches(i.received, match))[skip]?.received)
  }

  sent (match, skip = 0) {
    return this.traffic.until(() => this.now.filter(i => i.sent && matches(i.sent, match))[skip]?.sent)
  }

  // confirmed calls act, which makes the client send a request that names `name`,
  // and waits until the server has acknowledged it.
  async confirmed (topic, action, name, act) {
    const before = this.traffic.items.length
    act()
    await this.acked(topic, action, name, before)
  }

  // acked waits for the acknowledgement of the newest request that names `name`,
  // was sent on the present socket, and is not older than `since`.
  async acked (topic, action, name, since = 0) {
    const acked = await this.traffic.until(all => {
      const opened = all.findLastIndex(i => i.opened)
      const items = all.slice(Math.max(opened, since))
      const at = items.findLastIndex(i => i.sent?.topic === topic && i.sent.action === action &&
        (name === undefined || i.sent.name === name || i.sent.names?.includes(name)))
      if (at < 0) return false
      const { correlationId } = items[at].sent
      return items.slice(at).some(i => i.received?.isAck && i.received.topic === topic && i.received.action === action &&
        (correlationId !== undefined ? i.received.correlationId === correlationId : name === undefined || i.received.name === name))
    })
    await spread()
    return acked
  }
}

// matches says whether every given field of a message is as given.
export function matches (message, fields) {
  return Object.entries(fields).every(([key, value]) => {
    try { assert.deepEqual(message[key], value) } catch { return false }
    return true
  })
}

// unplugged are the errors that a client reports while its server is away.
export const unplugged = ['CONNECTION_ERROR']

// connect makes a client that is not logged in. It is closed after test t, and t
// fails if the client reported an error that the test did not take from
// client.errors ([text, event or action, topic]); those to tolerate are not kept.
export function connect (t, node, { tolerate = [], path = '', ...more } = {}) {
  const tap = new Tap()
  const client = new DeepstreamClient(node.url + path, {
    ...options, socketFactory: tap.factory, socketOptions: node.secure ? { ca: node.ca } : {}, ...more
  })
  client.tap = tap
  client.errors = new Inbox()
  client.on('error', (text, event, topic) => tolerate.includes(event) || client.errors.push([text?.message ?? text, event, topic]))
  client.states = new Inbox()
  client.on('connectionStateChanged', client.states.push)
  client.state = state => client.states.until(() => client.getConnectionState() === state)
  later(t, () => {
    if (!t.passed) console.error(`--- last messages of a client ---\n${tap.traffic.items.slice(-30).map(i => JSON.stringify(i).slice(0, 300)).join('\n')}`)
    if (!['CLOSED', 'CLOSING'].includes(client.getConnectionState())) client.close()
    assert.deepEqual(client.errors.rest, [], 'the client reported errors that the test does not expect')
  })
  return client
}

// login makes a client and logs it in. user may be a name or all parameters.
export async function login (t, node, user = {}, more = {}) {
  const client = connect(t, node, more)
  client.clientData = await client.login(typeof user === 'string' ? { username: user } : user)
  await spread()
  return client
}

// logins logs several in: names make users, a number makes anonymous ones.
export function logins (t, node, users, more = {}) {
  const list = typeof users === 'number' ? Array.from({ length: users }, () => ({})) : users
  return Promise.all(list.map(user => login(t, node, user, more)))
}

// subscribed subscribes to an event and returns what it delivers, once the server
// has confirmed.
export async function subscribed (client, name) {
  const inbox = new Inbox()
  await client.tap.confirmed('EVENT', 'SUBSCRIBE', name, () => client.event.subscribe(name, inbox.push))
  return inbox
}

// unsubscribed takes a subscription back, once the server has confirmed.
export const unsubscribed = (client, name) =>
  client.tap.confirmed('EVENT', 'UNSUBSCRIBE', name, () => client.event.unsubscribe(name))

// ready loads a record and returns it.
export const ready = (client, name) => client.record.getRecord(name).whenReady()

// watched loads a record and collects what each of its changes leaves behind.
export async function watched (client, name, path) {
  const record = await ready(client, name)
  const inbox = new Inbox()
  path ? record.subscribe(path, inbox.push) : record.subscribe(inbox.push)
  return [record, inbox]
}

// provided provides an rpc, once the server has confirmed.
export const provided = (client, name, provider) =>
  client.tap.confirmed('RPC', 'PROVIDE', name, () => client.rpc.provide(name, provider))

// listening listens for a pattern, once the server has confirmed. It answers each
// question by decide(name, response), or accepts, and collects the events
// {found} and {stopped}.
export async function listening (client, topic, pattern, decide = (name, response) => response.accept()) {
  const inbox = new Inbox()
  await client.tap.confirmed(topic.toUpperCase(), 'LISTEN', pattern, () => {
    client[topic].listen(pattern, (name, response) => {
      response.onStop(stopped => inbox.push({ stopped }))
      decide(name, response)
      inbox.push({ found: name })
    })
  })
  return inbox
}

// rejection is the reason with which a promise fails.
export async function rejection (promise) {
  let value
  try { value = await promise } catch (reason) { return reason }
  assert.fail(`expected a failure, got ${JSON.stringify(value)}`)
}

// told takes the next error that a client reports, which must be a refusal, and sees
// that the server said which action on which name it refused: the client keeps that
// to itself, and has no word for an event whose rule failed.
export async function told (client, topic, originalAction, name, action = 'MESSAGE_DENIED') {
  const [, event, where] = await client.errors.next()
  const reported = topic === 'EVENT' && action === 'MESSAGE_PERMISSION_ERROR' ? 'UNSOLICITED_MESSAGE' : action
  assert.deepEqual([event, where], [reported, topic])
  await client.tap.received({ topic, action, originalAction, name, isError: true })
}

// reconnected waits until the client lost its connection and is logged in again.
export async function reconnected (client, act) {
  const before = client.tap.traffic.items.length
  await act()
  await client.tap.traffic.until(items => items.slice(before).some(i => i.received?.action === 'AUTH_SUCCESSFUL'))
}
