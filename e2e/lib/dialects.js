// The same things done with clients that speak different dialects: the published client
// 2.3.4 speaks the text protocol, today's client the binary protocol or JSON. Their ways to
// be asked differ, so each kind has the same few functions here.
import assert from 'node:assert/strict'
import old from 'deepstream.io-client-js'
import { connect, listening, provided, ready, subscribed } from './client.js'
import { spread } from './cluster.js'
import { Inbox } from './inbox.js'
import { later } from './test.js'

// modern are the functions for today's client, over one of its dialects.
const modern = (path, socketOptions) => ({
  async login (t, node, username) {
    const client = connect(t, at(node, path), { socketOptions: { ...socketOptions, ...secured(node) } })
    await client.login({ username })
    await spread()
    return client
  },
  subscribed,
  provided,
  record: ready,
  listening,
  hasProvider: (client, name) => client.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER', name }),
  merging: record => record.setMergeStrategy((local, localVersion, remote, remoteVersion, done) => done(null, { ...remote, ...local })),
  make: (client, name, data) => client.rpc.make(name, data),
  setWithAck: (record, ...args) => record.setWithAck(...args),
  erase: (record, path) => record.erase(path),
  setData: (client, ...args) => client.record.setDataWithAck(...args),
  snapshot: (client, name) => client.record.snapshot(name),
  head: (client, name) => client.record.head(name),
  online: (client, users) => client.presence.getAll(users),
  all: client => client.presence.getAll(),
  async presence (client, user) {
    const inbox = new Inbox()
    await client.tap.confirmed('PRESENCE', 'SUBSCRIBE', user, () => client.presence.subscribe(user, (...args) => inbox.push(args.includes(true))))
    return inbox
  },
  deleted: async record => { await record.delete() },
  close: client => client.close()
})

// secured are the options of a socket to a node with a certificate of its own.
const secured = node => node.secure ? { ca: node.ca } : {}

// at is a node whose clients connect on another path.
const at = (node, path) => ({ secure: node.secure, ca: node.ca, get url () { return new URL(path, node.url).href } })

// END and WORD end what an old client is sent: lines, and the words in them.
const END = '\x1e'; const WORD = '\x1f'

// acked waits until the server has sent an old client a line, such as 'E|A|S|name'.
async function acked (client, line) {
  await client.lines.until(all => all.includes(line.replaceAll('|', WORD)))
  await spread()
}

// settled is a promise of the callback that an old method takes last.
const settled = call => new Promise((resolve, reject) => {
  call((error, value) => error ? reject(error) : resolve(value))
})

const text = {
  async login (t, node, username) {
    const client = old(at(node, '/deepstream-v3').url, {
      path: '/deepstream-v3', nodeSocketOptions: secured(node),
      subscriptionTimeout: 30000, recordReadAckTimeout: 30000, recordReadTimeout: 30000, recordDeleteTimeout: 30000,
      rpcAckTimeout: 30000, rpcResponseTimeout: 30000
    })
    client.errors = new Inbox()
    client.on('error', (...what) => client.errors.push(what))
    client.lines = new Inbox()
    const endpoint = client._connection._endpoint
    const onmessage = endpoint.onmessage
    endpoint.onmessage = message => {
      onmessage(message)
      for (const line of message.data.split(END)) if (line) client.lines.push(line)
    }
    later(t, () => {
      if (!t.passed) console.error(`--- last lines of an old client ---\n${client.lines.items.slice(-30).join('\n').replaceAll(WORD, '|')}`)
      client.close()
      assert.deepEqual(client.errors.rest, [], 'the old client reported errors that the test does not expect')
    })
    await new Promise((resolve, reject) => client.login({ username }, (ok, data) => ok ? resolve(data) : reject(data)))
    await spread()
    return client
  },
  async subscribed (client, name) {
    const inbox = new Inbox()
    client.event.subscribe(name, inbox.push)
    await acked(client, `E|A|S|${name}`)
    return inbox
  },
  async provided (client, name, provider) {
    client.rpc.provide(name, provider)
    await acked(client, `P|A|S|${name}`)
  },
  record: (client, name) => client.record.getRecord(name).whenReady(),
  async listening (client, topic, pattern) {
    const inbox = new Inbox()
    client[topic].listen(pattern, (name, subscribed, response) => {
      if (!subscribed) return inbox.push({ stopped: name })
      response.accept()
      inbox.push({ found: name })
    })
    await acked(client, `${topic === 'event' ? 'E' : 'R'}|A|L|${pattern}`)
    return inbox
  },
  hasProvider: (client, name) => acked(client, `R|SH|${name}|T`),
  merging: record => record.setMergeStrategy((record, remote, remoteVersion, done) => done(null, { ...remote, ...record.get() })),
  make: (client, name, data) => client.rpc.make(name, data),
  setWithAck: (record, ...args) => new Promise((resolve, reject) => record.set(...args, error => error ? reject(error) : resolve())),
  erase: (record, path) => record.set(path, undefined),
  setData: (client, ...args) => new Promise((resolve, reject) => client.record.setData(...args, error => error ? reject(error) : resolve())),
  snapshot: (client, name) => settled(done => client.record.snapshot(name, done)),
  head: (client, name) => settled(done => client.record.head(name, done)),
  online: (client, users) => new Promise(resolve => client.presence.getAll(users, resolve)),
  all: client => new Promise(resolve => client.presence.getAll(resolve)),
  async presence (client, user) {
    const inbox = new Inbox()
    client.presence.subscribe(user, online => inbox.push(online))
    await client.lines.until(all => all.some(line => line.startsWith(`U${WORD}A${WORD}S${WORD}`)))
    await spread()
    return inbox
  },
  deleted: record => new Promise(resolve => { record.once('delete', resolve); record.delete() }),
  close: client => client.close()
}

// dialects are the kinds of clients, by the type of their endpoint.
export const dialects = {
  'ws-binary': modern('/deepstream', {}),
  'ws-json': modern('/deepstream-json', { jsonTransportMode: true }),
  'ws-text': text
}
