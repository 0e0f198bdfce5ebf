// Records as the client uses them: spec 08, spec 14 §4.
import assert from 'node:assert/strict'
import { login, logins, ready, rejection, watched } from './lib/client.js'
import { nodes } from './lib/cluster.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const node = await startNode({ record: { storageHotPathPrefixes: ['hot/'], storageExclusionPrefixes: ['volatile/'] } })

let counter = 0
const fresh = (kind = 'r') => `${kind}/${++counter}`

test('a new record is empty and at version 0', async t => {
  const client = await login(t, node)
  const record = await ready(client, fresh())
  assert.deepEqual({ ...record.get() }, {})
  assert.equal(record.version, 0)
})

test('a write reaches the other subscribers with the next version', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  const [theirs, inbox] = await watched(b, name)
  mine.set({ firstname: 'Ada', pets: ['cat', { kind: 'dog' }], n: 1.5, none: null, yes: true })
  assert.deepEqual(await inbox.next(), { firstname: 'Ada', pets: ['cat', { kind: 'dog' }], n: 1.5, none: null, yes: true })
  assert.equal(mine.version, 1)
  assert.equal(theirs.version, 1)
})

test('a write to a path reaches the subscribers of that path only', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  const [, street] = await watched(b, name, 'address.street')
  const [, city] = await watched(b, name, 'address.city')
  const [, all] = await watched(b, name)
  mine.set('address.city', 'London')
  assert.equal(await city.next(), 'London')
  assert.deepEqual(await all.next(), { address: { city: 'London' } })
  assert.deepEqual(street.items, [])
})

test('paths with array indexes are set as the client sets them', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  const [theirs, inbox] = await watched(b, name)
  for (const [path, value] of [
    ['a.b.c', 1], ['list[2].x', 'deep'], ['grid[1][0]', 5], ['list[0]', 'first'], ['deep[0].deeper[1]', { y: [] }],
    ['a', [1, 2, 3]], ['a[1]', 'two'], [' spaced . out ', true], ['a.0', 'string index on an array']
  ]) {
    mine.set(path, value)
    const got = await inbox.next()
    assert.deepEqual(got, JSON.parse(JSON.stringify(mine.get())), path)
  }
  // The server keeps what the clients show.
  assert.deepEqual(await (await login(t, node)).record.snapshot(name), theirs.get())
})

test('erase removes a path for everybody', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  await mine.setWithAck({ keep: 1, drop: { x: 1 } })
  const [theirs, inbox] = await watched(b, name)
  mine.erase('drop')
  assert.deepEqual(await inbox.next(), { keep: 1 })
  assert.equal(theirs.version, 2)
})

test('a write is acknowledged once it is kept', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const record = await ready(a, name)
  await record.setWithAck({ a: 1 })
  await record.setWithAck('b', 2)
  await record.eraseWithAck('a')
  assert.deepEqual(await b.record.snapshot(name), { b: 2 })
  assert.equal(await b.record.head(name), 3)
})

test('several writes may wait for their acknowledgement at once', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const record = await ready(a, name)
  await Promise.all(Array.from({ length: 300 }, (_, i) => record.setWithAck(`k${i % 10}`, i)))
  assert.equal(await b.record.head(name), 300)
  assert.deepEqual(await b.record.snapshot(name), Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`k${i}`, 290 + i])))
})

test('writes without acknowledgement keep their order and leave no gap', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  const [theirs, inbox] = await watched(b, name, 'n')
  for (let n = 1; n <= 1000; n++) mine.set('n', n)
  assert.deepEqual(await inbox.take(1000), Array.from({ length: 1000 }, (_, i) => i + 1))
  assert.equal(theirs.version, 1000)
})

test('what is set before the record is loaded is sent when it is', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const record = a.record.getRecord(name)
  record.set({ early: true })
  record.set('more', 1)
  await record.whenReady()
  await record.setWithAck('done', true)
  assert.deepEqual(await b.record.snapshot(name), { early: true, more: 1, done: true })
})

test('setting the same again sends nothing', async t => {
  const a = await login(t, node)
  const record = await ready(a, fresh())
  await record.setWithAck({ same: 1 })
  await record.setWithAck({ same: 1 })
  assert.equal(record.version, 1)
})

test('snapshot, head and has see what is there', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  assert.equal(await b.record.has(name), false)
  assert.equal(await b.record.head(name), -1)
  assert.equal(await rejection(b.record.snapshot(name)), 'RECORD_NOT_FOUND')
  const record = await ready(a, name)
  assert.equal(await b.record.head(name), 0)
  await record.setWithAck({ x: 1 })
  assert.equal(await b.record.has(name), true)
  assert.equal(await b.record.head(name), 1)
  assert.deepEqual(await b.record.snapshot(name), { x: 1 })
})

test('a deleted record is gone for everybody and starts again at 0', async t => {
  const [a, b, c] = await logins(t, node, 3)
  const name = fresh()
  const mine = await ready(a, name)
  await mine.setWithAck({ x: 1 })
  const theirs = await ready(b, name)
  const deleted = new Promise(resolve => theirs.on('delete', resolve))
  await mine.delete()
  await deleted
  assert.equal(await c.record.has(name), false)
  const again = await ready(b, name)
  assert.equal(again.version, 0)
  assert.deepEqual({ ...again.get() }, {})
})

test('a discarded record gets no more updates', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const mine = await ready(a, name)
  const theirs = await ready(b, name)
  const discarded = new Promise(resolve => theirs.on('discard', resolve))
  await b.tap.confirmed('RECORD', 'UNSUBSCRIBE', name, () => theirs.discard())
  await discarded
  await mine.setWithAck({ unseen: true })
  await b.record.head(fresh()) // an answer that comes after the update would have
  assert.ok(!b.tap.now.some(i => i.received?.name === name && i.received.action === 'UPDATE'))
})

test('a name may hold any character and a record any JSON', async t => {
  const [a, b] = await logins(t, node, 2)
  const data = {
    '': 'empty', 'a.b': 1, __proto__x: 1, 'ü€😀': '\u0000\u001f"\\/', big: 1e308, small: 5e-324, int: 9007199254740991,
    neg: -0.1, nested: [[[[[[{}]]]]]], sep: '\u2028\u2029', lone: 'x'
  }
  for (const name of ['a b', 'ünï€😀', 'with.dots', '*', '>', 'a/b/c', '/', '//x', 'trailing/', '$v', '"q"', 'tab\t', 'toString', '%00', 'x'.repeat(1000)]) {
    const record = await ready(a, 'any ' + name)
    await record.setWithAck(data)
    assert.deepEqual(await b.record.snapshot('any ' + name), data, name)
  }
})

test('names that differ only in case or in encoding are different records', async t => {
  const [a, b] = await logins(t, node, 2)
  const names = ['case/x', 'case/X', 'case/x ', 'case/x.', 'case/=78', 'case//x', 'case/\u00e9', 'case/e\u0301']
  for (const [i, name] of names.entries()) await (await ready(a, name)).setWithAck({ i })
  for (const [i, name] of names.entries()) assert.deepEqual(await b.record.snapshot(name), { i }, name)
})

test('numbers keep their value through a patch of another path', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const record = await ready(a, name)
  const values = { a: 12345678901234567890, b: 0.1, c: 1e21, d: -0, e: 4.9e-324 }
  await record.setWithAck(values)
  await record.setWithAck('other', 1)
  assert.deepEqual(await b.record.snapshot(name), { ...values, d: 0, other: 1 })
})

test('a record of half a megabyte travels whole', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const data = { text: 'é€😀'.repeat(55_000) }
  await (await ready(a, name)).setWithAck(data)
  assert.deepEqual(await b.record.snapshot(name), data)
})

test('10 000 records asked for in one tick all get loaded', async t => {
  const client = await login(t, node)
  // Several nodes make several copies of each.
  const records = Array.from({ length: nodes > 1 ? 2_000 : 10_000 }, (_, i) => client.record.getRecord(`bulk/${i}`))
  await Promise.all(records.map(r => r.whenReady()))
  assert.ok(records.every(r => r.version === 0))
  const again = await login(t, node)
  await Promise.all(records.map(r => again.record.getRecord(r.name).whenReady()))
}, { timeout: 180_000 })

// Upserts.

test('setData creates a record and raises the version of an existing one', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  await a.record.setDataWithAck(name, { x: 1 })
  assert.equal(await b.record.head(name), 1)
  await a.record.setDataWithAck(name, { x: 2 })
  await a.record.setDataWithAck(name, 'y.z', 3)
  assert.equal(await b.record.head(name), 3)
  assert.deepEqual(await b.record.snapshot(name), { x: 2, y: { z: 3 } })
})

test('setData with a path creates the record around it', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  await a.record.setDataWithAck(name, 'a[1].b', 'x')
  assert.deepEqual(await b.record.snapshot(name), { a: [null, { b: 'x' }] })
})

test('setData never conflicts with writers who count versions', async t => {
  const [a, b, c] = await logins(t, node, 3)
  const name = fresh()
  const [, inbox] = await watched(c, name)
  await Promise.all([
    ...Array.from({ length: 50 }, (_, i) => a.record.setDataWithAck(name, `a${i}`, i)),
    ...Array.from({ length: 50 }, (_, i) => b.record.setDataWithAck(name, `b${i}`, i))
  ])
  await inbox.until(items => items.length === 100)
  assert.equal(await b.record.head(name), 100)
  assert.equal(Object.keys(await b.record.snapshot(name)).length, 100)
})

test('setData without value erases the path', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  await a.record.setDataWithAck(name, { keep: 1, drop: 2 })
  await a.record.setDataWithAck(name, 'drop', undefined)
  assert.deepEqual(await b.record.snapshot(name), { keep: 1 })
})

test('subscribers see setData', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const [record, inbox] = await watched(b, name)
  a.record.setData(name, { from: 'afar' })
  assert.deepEqual(await inbox.next(), { from: 'afar' })
  a.record.setData(name, 'path', 1)
  assert.deepEqual(await inbox.next(), { from: 'afar', path: 1 })
  assert.equal(record.version, 2)
})

// Conflicts.

// collide makes two clients write version 2 of a record: first's write wins,
// because second does not know of it yet.
async function collide (first, second, name, one, two) {
  const winner = await ready(first, name)
  await winner.setWithAck({ start: true })
  const loser = await ready(second, name)
  const socket = second.services.connection.endpoint
  const deliver = socket.onmessage
  const held = []
  socket.onmessage = message => held.push(message) // second hears nothing for now
  await winner.setWithAck(one)
  const settled = loser.setWithAck(two).then(() => null, error => error)
  await first.record.head('barrier')
  socket.onmessage = deliver
  for (const message of held) deliver(message)
  return { winner, loser, settled }
}

test('of two concurrent writes the first wins and the other takes it over', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const { winner, loser } = await collide(a, b, name, { by: 'a' }, { by: 'b' })
  await b.tap.received({ action: 'VERSION_EXISTS', name })
  const followed = new Promise(resolve => loser.subscribe('after', resolve))
  await winner.setWithAck('after', 1)
  assert.equal(await followed, 1)
  assert.deepEqual(loser.get(), { by: 'a', after: 1 })
  assert.equal(loser.version, 3)
  assert.deepEqual(await (await login(t, node)).record.snapshot(name), { by: 'a', after: 1 })
})

test('a merge strategy may join both changes', async t => {
  const [a, b, c] = await logins(t, node, 3)
  const name = fresh()
  b.record.setMergeStrategy(name, (local, localVersion, remote, remoteVersion, done) => done(null, { ...remote, ...local }))
  const [, seen] = await watched(c, name)
  await collide(a, b, name, { a: 1 }, { b: 2 })
  await seen.until(items => items.at(-1)?.b === 2)
  assert.deepEqual(seen.items.at(-1), { a: 1, b: 2 })
  assert.deepEqual(await (await login(t, node)).record.snapshot(name), { a: 1, b: 2 })
})

test('a merge strategy may let the local change win', async t => {
  const [a, b, c] = await logins(t, node, 3)
  const name = fresh()
  b.record.setMergeStrategyRegExp(/^r\//, (local, localVersion, remote, remoteVersion, done) => done(null, local))
  const [, seen] = await watched(c, name)
  await collide(a, b, name, { a: 1 }, { b: 2 })
  await seen.until(items => items.at(-1)?.b === 2)
  assert.deepEqual(await (await login(t, node)).record.snapshot(name), { b: 2 })
})

test('writers in conflict leave a history without gap that leads to what is kept', async t => {
  const clients = await logins(t, node, 4)
  const name = fresh()
  const watcher = await rawLogin(t, node)
  watcher.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: [name], correlationId: '0' })
  assert.equal((await watcher.next()).isAck, true)
  await watcher.expect('RECORD', 'READ_RESPONSE', { name, version: 0, data: '{}' })
  const records = await Promise.all(clients.map(client => {
    client.record.setMergeStrategy(name, (local, localVersion, remote, remoteVersion, done) => done(null, { ...remote, ...local }))
    return ready(client, name)
  }))
  for (let round = 0; round < 25; round++) for (const [i, record] of records.entries()) record.set(`w${i}`, round)
  await (await login(t, node)).record.setDataWithAck(name, 'end', true)
  let state = {}
  let version = 0
  do {
    const change = await watcher.next()
    assert.equal(change.version, ++version)
    if (change.action === 'UPDATE') state = JSON.parse(change.data)
    else state[change.path] = JSON.parse(change.data)
  } while (!state.end)
  assert.ok(version > 25, 'the writers were heard')
  // Some merges may still follow; the kept state is one of the history.
  const kept = await (await login(t, node)).record.snapshot(name)
  while (JSON.stringify(Object.entries(state).sort()) !== JSON.stringify(Object.entries(kept).sort())) {
    const change = await watcher.next()
    assert.equal(change.version, ++version)
    if (change.action === 'UPDATE') state = JSON.parse(change.data)
    else state[change.path] = JSON.parse(change.data)
  }
})

test('setWithAck of a write that lost is told VERSION_EXISTS with the state that won', async t => {
  const raw = await rawLogin(t, node)
  const name = fresh()
  raw.send('RECORD', 'CREATEANDUPDATE', { name, version: 1, data: '{"v":1}', isWriteAck: true, correlationId: '1' })
  await raw.expect('RECORD', 'WRITE_ACKNOWLEDGEMENT', { name, isWriteAck: true, correlationId: '1' })
  raw.send('RECORD', 'UPDATE', { name, version: 1, data: '{"v":2}', isWriteAck: true, correlationId: '2' })
  await raw.expect('RECORD', 'VERSION_EXISTS', { name, version: 1, data: '{"v":1}', isWriteAck: true, correlationId: '2', originalAction: 'UPDATE' })
})

// Hot path and exclusion.

test('hot path records take whole upserts without counting versions', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh('hot')
  for (let i = 0; i < 20; i++) await a.record.setDataWithAck(name, { i })
  assert.deepEqual(await b.record.snapshot(name), { i: 19 })
  assert.equal(await b.record.head(name), 0)
})

test('a patch by upsert is refused on the hot path', async t => {
  const raw = await rawLogin(t, node)
  const name = fresh('hot')
  raw.send('RECORD', 'CREATEANDPATCH', { name, version: -1, path: 'x', data: '1' })
  await raw.expect('RECORD', 'INVALID_PATCH_ON_HOTPATH', { name, originalAction: 'CREATEANDPATCH' })
})

test('excluded records work and are gone after a restart', async t => {
  const own = await startNode({ record: { storageExclusionPrefixes: ['volatile/'] } }, { t })
  const client = await login(t, own)
  await client.record.setDataWithAck('volatile/x', { x: 1 })
  await client.record.setDataWithAck('kept/x', { x: 1 })
  assert.deepEqual(await client.record.snapshot('volatile/x'), { x: 1 })
  client.close()
  await own.restart()
  const later = await login(t, own)
  assert.equal(await later.record.has('volatile/x'), false)
  assert.deepEqual(await later.record.snapshot('kept/x'), { x: 1 })
})

// Changes from outside.

test('a change from outside shows after notify, and not before', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  const [, inbox] = await watched(b, name)
  await (await ready(a, name)).setWithAck({ from: 'client' })
  assert.deepEqual(await inbox.next(), { from: 'client' })
  const set = await node.run('records', 'set', name, '{"from":"outside"}', '--data-dir', node.dataDir)
  assert.equal(set.code, 0, set.stdout + set.stderr)
  await b.record.head('barrier')
  assert.deepEqual(inbox.rest, [])
  await a.record.notify([name])
  assert.deepEqual(await inbox.next(), { from: 'outside' })
  assert.deepEqual(await (await login(t, node)).record.snapshot(name), { from: 'outside' })
})

test('a record deleted from outside is deleted for its subscribers after notify', async t => {
  const [a, b] = await logins(t, node, 2)
  const name = fresh()
  await (await ready(a, name)).setWithAck({ x: 1 })
  const theirs = await ready(b, name)
  const deleted = new Promise(resolve => theirs.on('delete', resolve))
  const del = await node.run('records', 'delete', name, '--data-dir', node.dataDir)
  assert.equal(del.code, 0, del.stdout + del.stderr)
  await a.record.notify([name])
  await deleted
  assert.equal(await a.record.has(fresh()), false)
})

// Read-only clients.

test('a read-only client reads and follows but creates nothing', async t => {
  const writer = await login(t, node)
  const reader = await login(t, node, {}, { recordReadOnlyMode: true })
  const name = fresh()
  const [record, inbox] = await watched(reader, name)
  assert.equal(record.version, -1)
  assert.equal(await writer.record.has(name), false)
  await writer.record.setDataWithAck(name, { x: 1 })
  await inbox.until(items => items.at(-1)?.x === 1)
  assert.equal(record.version, 1)
})
