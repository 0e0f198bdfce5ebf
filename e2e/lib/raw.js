// A bare socket that speaks the wire format through the published codec, for what
// the client would never send or would hide.
import assert from 'node:assert/strict'
import WebSocket from 'ws'
import { spread } from './cluster.js'
import { Inbox } from './inbox.js'
import { later } from './test.js'
import { decode, encode } from './wire.js'

export class Raw {
  // frames is everything that arrives as bytes, inbox as messages.
  inbox = new Inbox()
  frames = new Inbox()

  constructor (node, { path = '', headers = {} } = {}) {
    this.socket = new WebSocket(node.url + path, { ca: node.ca, headers, perMessageDeflate: false })
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', resolve)
      this.socket.once('error', reject)
      this.socket.once('close', code => reject(new Error(`closed with ${code}`)))
    })
    this.opened.catch(() => {}) // whoever awaits it sees it
    this.closed = new Promise(resolve => this.socket.once('close', (code, reason) => resolve({ code, reason: String(reason) })))
    this.socket.on('error', () => {}) // a close follows
    this.socket.on('message', frame => {
      this.frames.push(frame)
      const message = typeof frame === 'string' ? { text: frame } : decode(frame)
      if (!this.handler?.(message)) this.inbox.push(message)
    })
  }

  // handle gives every message from now on to fn first; those for which it returns
  // true do not reach the inbox.
  handle (fn) { this.handler = fn }

  // send encodes and sends one message.
  send (topic, action, fields) { this.bytes(encode(topic, action, fields)) }

  // bytes sends a frame as it is, binary unless a string is given.
  bytes (frame) { this.socket.send(frame) }

  // next is the next message; expect compares it, field by field, all of it.
  next () { return this.inbox.next() }
  async expect (topic, action, fields = {}) {
    assert.deepEqual(await this.next(), { topic, action, ...fields })
    if (fields.isAck) await spread()
  }

  // parser takes a message of the parser, which may name the action it is about.
  async parser (action) {
    const { originalAction, ...message } = await this.next()
    assert.deepEqual(message, { topic: 'PARSER', action })
  }

  // silent says that nothing has been sent to this client so far that the test
  // did not take: a request with a known answer is sent, and the answer must be
  // the next message.
  async silent () {
    const name = 'e2e/silence'
    this.send('RECORD', 'HEAD', { name })
    assert.deepEqual(await this.next(), { topic: 'RECORD', action: 'HEAD_RESPONSE', name, version: -1 })
  }

  // alive is like silent for a client that may do nothing.
  async alive () {
    this.send('CONNECTION', 'PING')
    await this.expect('CONNECTION', 'PONG')
  }

  close () {
    this.socket.close()
    return this.closed
  }

  // drop ends the connection without a word.
  drop () { this.socket.terminate() }
}

// rawConnect opens a socket and nothing more.
export async function rawConnect (t, node, options) {
  const raw = new Raw(node, options)
  later(t, () => raw.drop())
  await raw.opened
  return raw
}

// rawChallenge goes as far as the accepted challenge.
export async function rawChallenge (t, node, { sdkVersion = '7.0.5', ...options } = {}) {
  const raw = await rawConnect(t, node, options)
  raw.send('CONNECTION', 'CHALLENGE', { url: node.url, protocolVersion: '0.1a', sdkVersion, sdkType: 'javascript' })
  await raw.expect('CONNECTION', 'ACCEPT')
  return raw
}

// rawLogin is logged in.
export async function rawLogin (t, node, user = {}, options = {}) {
  const raw = await rawChallenge(t, node, options)
  raw.send('AUTH', 'REQUEST', { data: JSON.stringify(typeof user === 'string' ? { username: user } : user) })
  const answer = await raw.next()
  assert.equal(answer.action, 'AUTH_SUCCESSFUL')
  await spread()
  return raw
}
