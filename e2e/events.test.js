// Events: spec 09 §1.
import assert from 'node:assert/strict'
import { login, logins, subscribed, unsubscribed } from './lib/client.js'
import { nodes, spread } from './lib/cluster.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const node = await startNode()

test('an event reaches every other subscriber with its data', async t => {
  const [sender, one, two] = await logins(t, node, 3)
  const inboxes = [await subscribed(one, 'news'), await subscribed(two, 'news')]
  for (const data of [{ a: [1, null, 'ü'] }, 'text', 0, false, null, '', [], 12.5]) {
    sender.event.emit('news', data)
    for (const inbox of inboxes) assert.deepEqual(await inbox.next(), data)
  }
})

test('an event without data arrives without data', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const inbox = await subscribed(receiver, 'bare')
  sender.event.emit('bare')
  assert.equal(await inbox.next(), undefined)
})

test('the sender gets its own event once, from its own library', async t => {
  const [sender, other] = await logins(t, node, 2)
  const own = await subscribed(sender, 'echo')
  sender.event.emit('echo', 1)
  // What the other one answers after it comes after any echo of the server.
  const inbox = await subscribed(other, 'echo')
  sender.event.emit('echo', 2)
  assert.equal(await inbox.next(), 2)
  other.event.emit('echo', 3)
  await own.until(items => items.includes(3))
  assert.deepEqual(own.items, [1, 2, 3])
})

test('another connection of the same user gets the event', async t => {
  const [sender, other] = await logins(t, node, ['twin', 'twin'])
  const inbox = await subscribed(other, 'family')
  sender.event.emit('family', 'hello')
  assert.equal(await inbox.next(), 'hello')
})

test('after unsubscribing nothing arrives', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const gone = await subscribed(receiver, 'gone')
  const marker = await subscribed(receiver, 'marker')
  sender.event.emit('gone', 1)
  await gone.next()
  await unsubscribed(receiver, 'gone')
  sender.event.emit('gone', 2)
  sender.event.emit('marker', 3)
  assert.equal(await marker.next(), 3)
  assert.deepEqual(gone.rest, [])
  assert.ok(!receiver.tap.now.some(i => i.received?.action === 'EMIT' && i.received.data === '2'))
})

test('subscribing again after unsubscribing works', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  await subscribed(receiver, 'again')
  await unsubscribed(receiver, 'again')
  const inbox = await subscribed(receiver, 'again')
  sender.event.emit('again', 'back')
  assert.equal(await inbox.next(), 'back')
})

test('events of one sender arrive in the order they were sent', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const inbox = await subscribed(receiver, 'count')
  const sent = Array.from({ length: 5000 }, (_, i) => i)
  for (const i of sent) sender.event.emit('count', i)
  assert.deepEqual(await inbox.take(sent.length), sent)
})

test('many names are subscribed in one message and all of them work', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const names = Array.from({ length: 500 }, (_, i) => `bulk/${i}`)
  const seen = new Map()
  for (const name of names) receiver.event.subscribe(name, data => seen.set(name, data))
  await receiver.tap.acked('EVENT', 'SUBSCRIBE', names.at(-1))
  assert.deepEqual((await receiver.tap.sent({ topic: 'EVENT', action: 'SUBSCRIBE' })).names, names)
  for (const name of names) sender.event.emit(name, name)
  const last = await subscribed(receiver, 'bulk/end')
  sender.event.emit('bulk/end')
  await last.next()
  // Between nodes order is kept for each name only.
  while (nodes > 1 && seen.size < names.length) await spread()
  const heard = nodes > 1 ? [...seen].sort(([a], [b]) => a < b ? -1 : 1) : [...seen]
  assert.deepEqual(heard, (nodes > 1 ? names.toSorted() : names).map(n => [n, n]))
})

test('a large event arrives whole', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const inbox = await subscribed(receiver, 'large')
  const data = { text: 'ä€😀'.repeat(80_000) }
  sender.event.emit('large', data)
  assert.deepEqual(await inbox.next(), data)
})

test('names of every kind work', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  for (const name of ['a/b', 'with blank', 'ünï€😀', '*', '$x', '..', '"quoted"', 'toString', '__proto__', 'a\nb', '>', 'x'.repeat(2000)]) {
    const inbox = await subscribed(receiver, name)
    sender.event.emit(name, name.length)
    assert.equal(await inbox.next(), name.length, name)
  }
})

test('two listeners of one client share one subscription', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const first = await subscribed(receiver, 'shared')
  const second = []
  receiver.event.subscribe('shared', data => second.push(data))
  sender.event.emit('shared', 1)
  assert.equal(await first.next(), 1)
  assert.deepEqual(second, [1])
  assert.equal(receiver.tap.now.filter(i => i.sent?.action === 'SUBSCRIBE').length, 1)
})

test('a client that left no longer counts, and others go on', async t => {
  const [sender, stays] = await logins(t, node, 2)
  const leaves = await login(t, node)
  const inbox = await subscribed(stays, 'leaving')
  await subscribed(leaves, 'leaving')
  leaves.close()
  for (let i = 0; i < 50; i++) sender.event.emit('leaving', i)
  assert.deepEqual(await inbox.take(50), Array.from({ length: 50 }, (_, i) => i))
})
