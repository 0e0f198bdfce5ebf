// Presence: spec 11.
import assert from 'node:assert/strict'
import { Inbox } from './lib/inbox.js'
import { login } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const node = await startNode()

// only drops the users of other tests.
const only = (names, ...mine) => names.filter(n => mine.includes(n)).sort()

// counted logs a user in and waits until it counts: that is after the client was
// told of its login, and before anything else it sends is answered.
async function counted (t, user) {
  const client = await login(t, node, user)
  await client.presence.getAll()
}

// watchAll collects every join and leave as [name, online].
async function watchAll (client) {
  const inbox = new Inbox()
  await client.tap.confirmed('PRESENCE', 'SUBSCRIBE_ALL', undefined, () => client.presence.subscribe((name, online) => inbox.push([name, online])))
  return inbox
}

// watchOne collects what becomes of one user. The client gives the callback
// (online, name) here.
async function watchOne (client, user) {
  const inbox = new Inbox()
  await client.tap.confirmed('PRESENCE', 'SUBSCRIBE', user, () => client.presence.subscribe(user, (...args) => inbox.push(args.includes(true))))
  return inbox
}

test('getAll names the others and leaves out the asker (trap 35)', async t => {
  const a = await login(t, node, 'all/a')
  await counted(t, 'all/b')
  const names = await a.presence.getAll()
  assert.deepEqual(only(names, 'all/a', 'all/b'), ['all/b'])
})

test('getAll with names tells of each, the asker included (trap 35)', async t => {
  const a = await login(t, node, 'some/a')
  await counted(t, 'some/b')
  assert.deepEqual(await a.presence.getAll(['some/a', 'some/b', 'some/c']), { 'some/a': true, 'some/b': true, 'some/c': false })
  assert.deepEqual(await a.presence.getAll([]), {})
})

test('a subscriber to everybody sees joins and leaves', async t => {
  const watcher = await login(t, node, 'feed/watcher')
  const inbox = await watchAll(watcher)
  const joins = await login(t, node, 'feed/joins')
  await inbox.until(items => items.some(([n, online]) => n === 'feed/joins' && online))
  joins.close()
  await inbox.until(items => items.some(([n, online]) => n === 'feed/joins' && !online))
})

test('a subscriber to one user sees that user only', async t => {
  const watcher = await login(t, node, 'one/watcher')
  const inbox = await watchOne(watcher, 'one/wanted')
  await login(t, node, 'one/other')
  const wanted = await login(t, node, 'one/wanted')
  assert.equal(await inbox.next(), true)
  wanted.close()
  assert.equal(await inbox.next(), false)
})

test('second logins and partial logouts are silent (trap 34)', async t => {
  const watcher = await login(t, node, 'twice/watcher')
  const inbox = await watchOne(watcher, 'twice/user')
  const one = await login(t, node, 'twice/user')
  assert.equal(await inbox.next(), true)
  const two = await login(t, node, 'twice/user')
  one.close()
  await one.state('CLOSED')
  two.close()
  assert.equal(await inbox.next(), false)
  const marker = await watchOne(watcher, 'twice/marker')
  await login(t, node, 'twice/marker')
  await marker.next()
  assert.deepEqual(inbox.rest, [])
})

test('after unsubscribing nothing is told', async t => {
  const watcher = await login(t, node, 'quiet/watcher')
  const gone = await watchOne(watcher, 'quiet/user')
  await watcher.tap.confirmed('PRESENCE', 'UNSUBSCRIBE', 'quiet/user', () => watcher.presence.unsubscribe('quiet/user'))
  const marker = await watchOne(watcher, 'quiet/marker')
  await login(t, node, 'quiet/user')
  await login(t, node, 'quiet/marker')
  await marker.next()
  assert.deepEqual(gone.items, [])
})

test('anonymous users are not shown, under either name (trap 22)', async t => {
  const watcher = await login(t, node, 'anon/watcher')
  const inbox = await watchAll(watcher)
  await login(t, node)
  await login(t, node, 'anon/marker')
  await inbox.until(items => items.some(([n]) => n === 'anon/marker'))
  assert.ok(!inbox.items.some(([n]) => /^open$/i.test(n)))
  assert.ok(!(await watcher.presence.getAll()).some(n => /^open$/i.test(n)))
  assert.deepEqual(await watcher.presence.getAll(['open', 'OPEN']), { open: false, OPEN: false })
})

test('a user that is killed leaves', async t => {
  const watcher = await login(t, node, 'drop/watcher')
  const inbox = await watchOne(watcher, 'drop/user')
  const raw = await rawLogin(t, node, 'drop/user')
  assert.equal(await inbox.next(), true)
  raw.drop()
  assert.equal(await inbox.next(), false)
})

test('the global feed cannot be joined by its inner name', async t => {
  const raw = await rawLogin(t, node, 'feed/raw')
  raw.send('PRESENCE', 'SUBSCRIBE', { names: ['%_EVERYONE_%'], correlationId: '0' })
  await raw.expect('PRESENCE', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  const watcher = await login(t, node, 'feed/w2')
  const inbox = await watchOne(watcher, 'feed/marker')
  await login(t, node, 'feed/marker')
  await inbox.next()
  await raw.silent()
})

test('the message for all comes before the one for a single user', async t => {
  const raw = await rawLogin(t, node, 'both/watcher')
  raw.send('PRESENCE', 'SUBSCRIBE_ALL')
  await raw.expect('PRESENCE', 'SUBSCRIBE_ALL', { isAck: true })
  raw.send('PRESENCE', 'SUBSCRIBE', { names: ['both/user'], correlationId: '0' })
  await raw.inbox.until(items => items.some(m => m.correlationId === '0' && m.isAck))
  await login(t, node, 'both/user')
  await raw.inbox.until(items => items.some(m => m.action === 'PRESENCE_JOIN'))
  const mine = raw.inbox.items.filter(m => m.name === 'both/user')
  assert.deepEqual(mine.map(m => m.action), ['PRESENCE_JOIN_ALL', 'PRESENCE_JOIN'])
})
