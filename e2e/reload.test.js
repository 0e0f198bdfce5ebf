// Reloads while subscribed: what new rules end in each topic, what the client makes
// of it, and that a bad file changes nothing.
import assert from 'node:assert/strict'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { listening, login, logins, provided, ready, rejection, subscribed, told, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

// rules let only `who` do under room/ what a reload can end.
const rules = who => {
  const mine = `user.id === '${who}'`
  const record = { create: true, read: true, write: true, delete: true, listen: true, notify: true }
  const event = { publish: true, subscribe: true, listen: true }
  const rpc = { provide: true, request: true }
  return JSON.stringify({
    record: { '*': record, 'room/*': { ...record, read: mine, write: true, listen: mine }, 'room/.*': { ...record, listen: mine } },
    event: { '*': event, 'room/*': { ...event, subscribe: mine, listen: mine } },
    rpc: { '*': rpc, 'room/*': { ...rpc, provide: mine } },
    presence: { '*': { allow: true }, 'room/*': { allow: mine } }
  })
}

const done = 'reloaded rules, users and certificates'
const refused = 'reload refused, all stays as it was'

// start starts a node whose rules stand in a file of their own.
async function start (t, who, options = {}) {
  const node = await startNode({
    permission: { type: 'config', options: { permissions: 'fileLoad(rules.yml)', ...options } }
  }, { t, start: false })
  await writeFile(join(node.dir, 'rules.yml'), rules(who))
  await node.start()
  return node
}

// said waits until the log says it once more than before.
async function said (node, text, act) {
  const count = () => node.log.split(text).length
  const before = count()
  await act()
  for (let left = 1500; count() === before; left--) {
    assert.ok(left > 0, `the log does not say: ${text}`)
    await pause(20)
  }
}

// put replaces the rules file as editors do; the node notices by itself.
async function put (node, text) {
  await writeFile(join(node.dir, 'rules.tmp'), text)
  await rename(join(node.dir, 'rules.tmp'), join(node.dir, 'rules.yml'))
}

test('an event subscription and a listener end', async t => {
  const node = await start(t, 'ada')
  const [ada, bob] = await logins(t, node, ['ada', 'bob'])
  const inbox = await subscribed(ada, 'room/1')
  const hall = await subscribed(ada, 'hall')
  bob.event.emit('room/1', 'before')
  assert.equal(await inbox.next(), 'before')
  await said(node, done, () => put(node, rules('bob')))
  await told(ada, 'EVENT', 'SUBSCRIBE', 'room/1')
  bob.event.emit('room/1', 'after')
  bob.event.emit('hall', 'marker')
  assert.equal(await hall.next(), 'marker')
  assert.deepEqual(inbox.items, ['before'])
  // The client has forgotten it, and the new rules let the other one in.
  assert.deepEqual(ada.event.eventNames(), ['hall'])
  const other = await subscribed(bob, 'room/1')
  ada.event.emit('room/1', 'from ada')
  assert.equal(await other.next(), 'from ada')
})

test('a listener ends, and is told of what it provided', async t => {
  const node = await start(t, 'ada')
  const [ada, bob] = await logins(t, node, ['ada', 'bob'])
  const asked = await listening(ada, 'record', 'room/.*')
  const record = await ready(ada, 'room/1')
  assert.deepEqual(await asked.next(), { found: 'room/1' })
  await ada.tap.received({ topic: 'RECORD', action: 'SUBSCRIPTION_HAS_PROVIDER', name: 'room/1' })
  const errors = []
  record.on('error', (...args) => errors.push(args))
  await said(node, done, () => put(node, rules('bob')))
  assert.deepEqual(await asked.next(), { stopped: 'room/1' })
  // One for the pattern, one for the record.
  assert.deepEqual((await ada.errors.take(2)).map(([, event, topic]) => [event, topic]),
    [['MESSAGE_DENIED', 'RECORD'], ['MESSAGE_DENIED', 'RECORD']])
  assert.deepEqual(errors, [['MESSAGE_DENIED', 'SUBSCRIBECREATEANDREAD']])
  await ready(bob, 'room/1')
  assert.equal(asked.items.length, 2)
})

test('a subscription to a record ends, and the record raises an error', async t => {
  const node = await start(t, 'ada')
  const [ada, bob] = await logins(t, node, ['ada', 'bob'])
  const [record, inbox] = await watched(ada, 'room/1')
  await bob.record.setDataWithAck('room/1', { n: 1 })
  await inbox.until(items => items.some(i => i.n === 1))
  const error = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  await said(node, done, () => put(node, rules('bob')))
  assert.deepEqual(await error, ['MESSAGE_DENIED', 'SUBSCRIBECREATEANDREAD'])
  await told(ada, 'RECORD', 'SUBSCRIBECREATEANDREAD', 'room/1')
  await bob.record.setDataWithAck('room/1', { n: 2 })
  const [, hall] = await watched(ada, 'hall')
  await bob.record.setDataWithAck('hall', { n: 3 })
  await hall.until(items => items.some(i => i.n === 3))
  assert.ok(!inbox.items.some(i => i.n === 2))
})

test('a provided rpc ends, and its callers get another provider or none', async t => {
  const node = await start(t, 'ada')
  const [ada, bob] = await logins(t, node, ['ada', 'bob'])
  let asked
  const begun = new Promise(resolve => { asked = resolve })
  await provided(ada, 'room/add', () => asked())
  const failure = rejection(bob.rpc.make('room/add', 1))
  await begun
  await said(node, done, () => put(node, rules('bob')))
  assert.equal(await failure, 'NO_RPC_PROVIDER')
  await told(ada, 'RPC', 'PROVIDE', 'room/add')
  await provided(bob, 'room/add', (data, response) => response.send(data + 1))
  assert.equal(await ada.rpc.make('room/add', 1), 2)
})

test('a subscription to a user ends', async t => {
  const node = await start(t, 'ada')
  const [ada] = await logins(t, node, ['ada'])
  const seen = []
  await ada.tap.confirmed('PRESENCE', 'SUBSCRIBE', undefined, () => ada.presence.subscribe('room/cy', (...args) => seen.push(args)))
  await said(node, done, () => put(node, rules('bob')))
  await told(ada, 'PRESENCE', 'SUBSCRIBE', 'room/cy')
  await login(t, node, 'room/cy')
  assert.deepEqual(await ada.presence.getAll(['ada']), { ada: true })
  assert.deepEqual(seen, [])
})

test('a bad file changes nothing, and says why once', async t => {
  const node = await start(t, 'ada')
  const [ada, bob] = await logins(t, node, ['ada', 'bob'])
  const inbox = await subscribed(ada, 'room/1')
  await said(node, refused, () => put(node, rules('bob').replace('"publish"', '"publsh"')))
  assert.match(node.log, /reload refused.*rules\.yml:1:\d+: .*publsh/)
  await said(node, refused, () => put(node, 'record: ['))
  bob.event.emit('room/1', 1)
  assert.equal(await inbox.next(), 1)
  await said(node, done, () => put(node, rules('ada')))
  bob.event.emit('room/1', 2)
  assert.equal(await inbox.next(), 2)
  assert.equal(node.log.split(refused).length - 1, 2)
})

test('without the watch a hangup reloads', async t => {
  const node = await start(t, 'ada', { watch: false })
  const ada = await login(t, node, 'ada')
  await subscribed(ada, 'room/1')
  await put(node, rules('bob'))
  await said(node, done, () => node.hangup())
  await told(ada, 'EVENT', 'SUBSCRIBE', 'room/1')
  assert.ok(!node.log.includes('the rules file has changed'))
})
