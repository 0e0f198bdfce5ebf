// The rows of spec 15 that no other file covers; each test names its row. (Rows 6,
// 8, 16, 18 and 20 are in permissions, 13 in restart, 22 to 27 and 45 in connection, 32 in rpc,
// 34 and 35 in presence, 36 and 48 in reconnect too, 37 in listening, 40 in
// bad-input.)
import assert from 'node:assert/strict'
import { connect, login, logins, ready, rejection, subscribed, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'
import { encode } from './lib/wire.js'

const all = { create: true, read: true, write: true, delete: true, listen: true, notify: true }
const node = await startNode({
  record: { storageHotPathPrefixes: ['hot/'] },
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: { '*': all, 'unwritable/*': { ...all, write: false } },
        event: { '*': { publish: true, subscribe: true, listen: true }, 'closed/*': { publish: false, subscribe: false } },
        rpc: { '*': { provide: true, request: true } },
        presence: { '*': { allow: true } }
      }
    }
  }
})

// follow subscribes a bare socket to a record that exists.
async function follow (t, name, options) {
  const raw = await rawLogin(t, node, {}, options)
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: [name], correlationId: 's' })
  await raw.expect('RECORD', 'SUBSCRIBECREATEANDREAD', { names: [name], correlationId: 's', isAck: true })
  const { version, data } = await raw.next()
  return Object.assign(raw, { version, data })
}

// wrote sends a write with acknowledgement and waits for it.
async function wrote (raw, action, fields, correlationId) {
  raw.send('RECORD', action, { ...fields, isWriteAck: true, correlationId })
  await raw.expect('RECORD', 'WRITE_ACKNOWLEDGEMENT', { name: fields.name, isWriteAck: true, correlationId })
}

test('trap 1: version 0 is on the wire', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: ['t1'], correlationId: '0' })
  await raw.expect('RECORD', 'SUBSCRIBECREATEANDREAD', { names: ['t1'], correlationId: '0', isAck: true })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 't1', version: 0, data: '{}' })
  raw.send('RECORD', 'READ', { name: 't1' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 't1', version: 0, data: '{}' })
  raw.send('RECORD', 'HEAD', { name: 't1' })
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 't1', version: 0 })
})

test('trap 2: a message without payload has no data field and null is a payload', async t => {
  const sender = await login(t, node)
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['t2'], correlationId: '0' })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  sender.event.emit('t2')
  await raw.expect('EVENT', 'EMIT', { name: 't2' })
  sender.event.emit('t2', null)
  await raw.expect('EVENT', 'EMIT', { name: 't2', data: 'null' })
  sender.event.emit('t2', '')
  await raw.expect('EVENT', 'EMIT', { name: 't2', data: '""' })
})

test('trap 3: every frame holds one envelope, also when many are waiting', async t => {
  const sender = await login(t, node)
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['t3'], correlationId: '0' })
  for (let i = 0; i < 2000; i++) sender.event.emit('t3', i)
  await sender.record.head('barrier')
  await raw.inbox.until(items => items.at(-1)?.data === '1999' || items.length > 2001)
  for (const frame of raw.frames.items) assert.equal(envelopeLength(frame), frame.length)
})

test('trap 3: what follows the first envelope of a frame is lost', async t => {
  const receiver = await login(t, node)
  const inbox = await subscribed(receiver, 't3/two')
  const raw = await rawLogin(t, node)
  raw.bytes(Buffer.concat([1, 2].map(n => encode('EVENT', 'EMIT', { name: 't3/two', data: String(n) }))))
  raw.send('EVENT', 'EMIT', { name: 't3/two', data: '3' })
  assert.deepEqual(await inbox.take(2), [1, 3])
})

test('trap 4: an empty path is refused and its writer told', async t => {
  const raw = await rawLogin(t, node)
  await wrote(raw, 'CREATEANDUPDATE', { name: 't4', version: -1, data: '{"a":1}' }, '1')
  raw.send('RECORD', 'PATCH', { name: 't4', version: 2, path: '', data: '7', isWriteAck: true, correlationId: '2' })
  const refused = await raw.next()
  assert.equal(refused.action, 'INVALID_MESSAGE_DATA')
  assert.equal(refused.isError, true)
  assert.equal(refused.correlationId, '2')
  raw.send('RECORD', 'READ', { name: 't4' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 't4', version: 1, data: '{"a":1}' })
})

test('trap 4: an update with a path is a patch', async t => {
  const follower = await follow(t, 't4/patch')
  const raw = await rawLogin(t, node)
  await wrote(raw, 'UPDATE', { name: 't4/patch', version: 1, path: 'a', data: '1' }, '1')
  await follower.expect('RECORD', 'PATCH', { name: 't4/patch', version: 1, path: 'a', data: '1' })
  raw.send('RECORD', 'READ', { name: 't4/patch' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 't4/patch', version: 1, data: '{"a":1}' })
})

test('trap 5: an erased path is relayed as a patch without data', async t => {
  const writer = await login(t, node)
  const record = await ready(writer, 't5')
  await record.setWithAck({ a: 1, b: 2 })
  const raw = await follow(t, 't5')
  record.erase('a')
  await raw.expect('RECORD', 'PATCH', { name: 't5', version: 2, path: 'a' })
})

test('trap 7: each kind of acknowledgement has its own shape', async t => {
  const raw = await rawLogin(t, node)
  for (const [topic, action] of [
    ['EVENT', 'SUBSCRIBE'], ['EVENT', 'UNSUBSCRIBE'], ['RPC', 'PROVIDE'], ['RPC', 'UNPROVIDE'],
    ['PRESENCE', 'SUBSCRIBE'], ['PRESENCE', 'UNSUBSCRIBE'], ['RECORD', 'SUBSCRIBE'], ['RECORD', 'UNSUBSCRIBE']
  ]) {
    raw.send(topic, action, { names: ['t7'], correlationId: '9' })
    await raw.expect(topic, action, { correlationId: '9', isAck: true })
  }
  raw.send('RECORD', 'SUBSCRIBEANDREAD', { names: ['t7/x', 't7/y'], correlationId: '1' })
  await raw.expect('RECORD', 'SUBSCRIBEANDREAD', { names: ['t7/x', 't7/y'], correlationId: '1', isAck: true })
  for (const read of [await raw.next(), await raw.next()]) assert.equal(read.version, -1)
  for (const topic of ['EVENT', 'RECORD']) {
    for (const action of ['LISTEN', 'UNLISTEN']) {
      raw.send(topic, action, { name: 't7/.*' })
      const answers = [await raw.next()]
      if (topic === 'RECORD' && action === 'LISTEN') answers.push(await raw.next(), await raw.next()) // the two subscribed names
      assert.deepEqual(answers.filter(m => m.isAck), [{ topic, action, name: 't7/.*', isAck: true }])
    }
  }
  for (const action of ['SUBSCRIBE_ALL', 'UNSUBSCRIBE_ALL']) {
    raw.send('PRESENCE', action)
    await raw.inbox.until(items => items.some(m => m.action === action))
    assert.deepEqual(raw.inbox.items.find(m => m.action === action), { topic: 'PRESENCE', action, isAck: true })
  }
})

test('trap 9: what a missing record is depends on the question', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'HEAD', { name: 't9' })
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 't9', version: -1 })
  raw.send('RECORD', 'READ', { name: 't9' })
  await raw.expect('RECORD', 'RECORD_NOT_FOUND', { name: 't9', originalAction: 'READ', isError: true })
  await wrote(raw, 'CREATEANDUPDATE', { name: 't9', version: -1, data: '{}' }, '1')
  raw.send('RECORD', 'HEAD', { name: 't9' })
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 't9', version: 1 })
})

test('trap 10: version -1 never conflicts, not even behind queued writes', async t => {
  const raw = await rawLogin(t, node)
  const versions = [1, -1, 3, -1, -1, 6]
  for (const [i, version] of versions.entries()) {
    raw.send('RECORD', i === 0 ? 'CREATEANDUPDATE' : 'UPDATE', { name: 't10', version, data: `{"i":${i}}`, isWriteAck: true, correlationId: String(i) })
  }
  for (const i of versions.keys()) await raw.expect('RECORD', 'WRITE_ACKNOWLEDGEMENT', { name: 't10', isWriteAck: true, correlationId: String(i) })
  raw.send('RECORD', 'READ', { name: 't10' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 't10', version: 6, data: '{"i":5}' })
})

test('trap 11: a write to a missing record fails without an acknowledgement and creates it with one', async t => {
  const raw = await rawLogin(t, node)
  for (const [action, fields] of [['UPDATE', { data: '{}' }], ['PATCH', { path: 'a', data: '1' }], ['ERASE', { path: 'a' }]]) {
    raw.send('RECORD', action, { name: 't11/' + action, version: 1, ...fields })
    const { data, ...answer } = await raw.next() // data may hold a sentence
    assert.deepEqual({ action: answer.action, name: answer.name, isError: answer.isError }, { action: 'RECORD_UPDATE_ERROR', name: 't11/' + action, isError: true })
    raw.send('RECORD', 'HEAD', { name: 't11/' + action })
    await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 't11/' + action, version: -1 })
    await wrote(raw, action, { name: 't11/' + action, version: 1, ...fields }, action)
    raw.send('RECORD', 'HEAD', { name: 't11/' + action })
    await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 't11/' + action, version: 1 })
  }
})

test('trap 12: a refused write is never taken for a success', async t => {
  const raw = await rawLogin(t, node)
  await wrote(raw, 'CREATEANDUPDATE', { name: 't12', version: 1, data: '{}' }, '0')
  raw.send('RECORD', 'UPDATE', { name: 't12', version: 5, data: '{"a":1}', isWriteAck: true, correlationId: '1' })
  const invalid = await raw.next()
  assert.equal(invalid.action, 'INVALID_VERSION')
  assert.equal(invalid.originalAction, 'UPDATE')
  assert.deepEqual([invalid.isError, invalid.isWriteAck, invalid.correlationId], [true, true, '1'])
  raw.send('RECORD', 'UPDATE', { name: 't12', version: 2, data: '5', isWriteAck: true, correlationId: '2' })
  const data = await raw.next()
  assert.equal(data.action, 'INVALID_MESSAGE_DATA')
  assert.deepEqual([data.isError, data.isWriteAck, data.correlationId], [true, true, '2'])
  raw.send('RECORD', 'UPDATE', { name: 't12', version: 1, data: '{}', isWriteAck: true, correlationId: '3' })
  const exists = await raw.next()
  assert.equal(exists.action, 'VERSION_EXISTS')
  assert.equal(exists.isError, undefined)
})

test('trap 12: the client hears of it', async t => {
  const client = await login(t, node)
  const record = await ready(client, 't12/client')
  assert.equal(await rejection(record.setWithAck('constructor.x', 1)), 'INVALID_MESSAGE_DATA')
})

test('trap 14: every write gets its answer although the record is deleted all the time', async t => {
  const [writer, deleter] = [await rawLogin(t, node), await rawLogin(t, node)]
  const answered = new Set()
  writer.handle(m => { if (m.correlationId) answered.add(m.correlationId); return true })
  for (let i = 0; i < 300; i++) {
    writer.send('RECORD', 'CREATEANDUPDATE', { name: 't14', version: -1, data: `{"i":${i}}`, isWriteAck: true, correlationId: String(i) })
    if (i % 5 === 0) deleter.send('RECORD', 'DELETE', { name: 't14' })
    if (i % 25 === 0) await new Promise(setImmediate)
  }
  for (let i = 0; i < 60; i++) assert.match((await deleter.next()).action, /^DELETE_SUCCESS$/)
  const probe = await rawLogin(t, node)
  await wrote(probe, 'CREATEANDUPDATE', { name: 't14', version: -1, data: '{}' }, 'probe')
  writer.send('CONNECTION', 'PING')
  while (answered.size < 300) await writer.frames.next()
  assert.equal(answered.size, 300)
})

test('trap 15: the deleter is told DELETE_SUCCESS, the others DELETED, and all are unsubscribed', async t => {
  const deleter = await follow(t, 't15')
  const other = await follow(t, 't15')
  deleter.send('RECORD', 'DELETE', { name: 't15' })
  await deleter.expect('RECORD', 'DELETE_SUCCESS', { name: 't15' })
  await other.expect('RECORD', 'DELETED', { name: 't15' })
  const writer = await rawLogin(t, node)
  await wrote(writer, 'CREATEANDUPDATE', { name: 't15', version: -1, data: '{}' }, '1')
  await deleter.silent()
  await other.silent()
})

// What the subscribers of a node get that missed both for a moment: docs/reliability.md.
test('the client takes a record that was deleted and made anew by an update with a lower version', async t => {
  const client = await login(t, node)
  const [record, changes] = await watched(client, 'anew')
  for (let n = 1; n <= 3; n++) await record.setWithAck('n', n)
  const told = (version, data) => {
    client.tap.tell('RECORD', 'UPDATE', { name: 'anew', version, data: JSON.stringify(data) })
    assert.deepEqual([record.version, record.get()], [version, data])
    assert.deepEqual(changes.items.at(-1), data)
  }
  const before = record.version
  told(before - 2, { anew: true })
  told(before - 1, { anew: true, more: 1 })
  told(before - 2, { again: true })
  told(before - 2, { again: 'and the same version' })
  assert.deepEqual(client.record.names(), ['anew'], 'it is still subscribed')
  told(before, { n: 3 })
  await record.setWithAck('n', 4)
  assert.deepEqual(await (await login(t, node)).record.snapshot('anew'), { n: 4 })
})

test('trap 15: a missing record can be deleted', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'DELETE', { name: 't15/missing' })
  await raw.expect('RECORD', 'DELETE_SUCCESS', { name: 't15/missing' })
})

test('trap 28: an open door behind a locked one has to be asked for', async t => {
  const users = { ada: { password: 'secret' } }
  const chain = { auth: [{ type: 'file', options: { users } }, { type: 'none' }] }
  const refused = await startNode(chain, { t, start: false })
  assert.match((await rejection(refused.start())).message, /allowOpenFallback/)
  const allowed = await startNode({ ...chain, allowOpenFallback: true }, { t })
  await connect(t, allowed).login({ username: 'ada', password: 'wrong' })
})

test('trap 31: only the asked provider can answer a call', async t => {
  const [caller, provider, liar] = [await rawLogin(t, node), await rawLogin(t, node), await rawLogin(t, node)]
  provider.send('RPC', 'PROVIDE', { names: ['t31'], correlationId: '0' })
  await provider.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  caller.send('RPC', 'REQUEST', { name: 't31', correlationId: 'c', data: '1' })
  await provider.expect('RPC', 'REQUEST', { name: 't31', correlationId: 'c', data: '1' })
  for (const action of ['ACCEPT', 'RESPONSE', 'REJECT', 'REQUEST_ERROR']) {
    liar.send('RPC', action, { name: 't31', correlationId: 'c', data: '"lie"' })
    await liar.expect('RPC', 'INVALID_RPC_CORRELATION_ID', { name: 't31', correlationId: 'c', originalAction: action, isError: true })
  }
  provider.send('RPC', 'RESPONSE', { name: 't31', correlationId: 'c', data: '"truth"' })
  await caller.expect('RPC', 'RESPONSE', { name: 't31', correlationId: 'c', data: '"truth"' })
})

test('trap 31: two callers may use the same id', async t => {
  const [one, two, provider] = [await rawLogin(t, node), await rawLogin(t, node), await rawLogin(t, node)]
  provider.send('RPC', 'PROVIDE', { names: ['t31/id'], correlationId: '0' })
  await provider.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  provider.handle(({ action, name, correlationId, data }) => {
    if (action !== 'REQUEST') return false
    provider.send('RPC', 'RESPONSE', { name, correlationId, data })
    return true
  })
  one.send('RPC', 'REQUEST', { name: 't31/id', correlationId: 'same', data: '1' })
  await one.expect('RPC', 'RESPONSE', { name: 't31/id', correlationId: 'same', data: '1' })
  two.send('RPC', 'REQUEST', { name: 't31/id', correlationId: 'same', data: '2' })
  await two.expect('RPC', 'RESPONSE', { name: 't31/id', correlationId: 'same', data: '2' })
})

test('trap 33: every call ends', async t => {
  const hasty = await startNode({ rpc: { ackTimeout: 1000, responseTimeout: 1500 } }, { t })
  const caller = await login(t, hasty)
  const provider = await rawLogin(t, hasty)
  provider.send('RPC', 'PROVIDE', { names: ['t33'], correlationId: '0' })
  await provider.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  const turn = ['nothing', 'ACCEPT', 'REJECT', 'RESPONSE', 'REQUEST_ERROR']
  let n = 0
  provider.handle(({ action, name, correlationId }) => {
    if (action !== 'REQUEST') return false
    const answer = turn[n++ % turn.length]
    if (answer !== 'nothing') provider.send('RPC', answer, { name, correlationId, data: '"x"' })
    return true
  })
  const ends = await Promise.all(Array.from({ length: 50 }, () => caller.rpc.make('t33').then(() => 'ok', reason => reason)))
  assert.deepEqual([...new Set(ends)].sort(), ['ACCEPT_TIMEOUT', 'NO_RPC_PROVIDER', 'RESPONSE_TIMEOUT', 'ok', 'x'])
})

test('trap 36: every name of a resubscription is answered', async t => {
  const raw = await rawLogin(t, node)
  await wrote(raw, 'CREATEANDUPDATE', { name: 't36/a', version: -1, data: '{}' }, '1')
  await wrote(raw, 'CREATEANDUPDATE', { name: 't36/b', version: -1, data: '{}' }, '2')
  await wrote(raw, 'UPDATE', { name: 't36/b', version: 2, data: '{"x":1}' }, '3')
  const names = ['t36/a', 't36/missing', 't36/b', 't36/none']
  raw.send('RECORD', 'SUBSCRIBEANDHEAD', { names, correlationId: '0' })
  // The names may belong to several nodes, so the answers come in any order.
  const versions = {}
  let acks = 0
  while (acks < 1 || Object.keys(versions).length < names.length) {
    const answer = await raw.next()
    switch (answer.action) {
      case 'HEAD_RESPONSE_BULK': Object.assign(versions, answer.versions); break
      case 'HEAD_RESPONSE': versions[answer.name] = answer.version; break
      default:
        assert.deepEqual(answer, { topic: 'RECORD', action: 'SUBSCRIBEANDHEAD', correlationId: '0', isAck: true })
        acks++
    }
  }
  assert.equal(acks, 1)
  assert.deepEqual(versions, { 't36/a': 1, 't36/b': 2, 't36/missing': -1, 't36/none': -1 })
  await raw.silent()
  // Missing ones are subscribed as well.
  const writer = await rawLogin(t, node)
  await wrote(writer, 'CREATEANDUPDATE', { name: 't36/none', version: -1, data: '{"now":1}' }, '1')
  await raw.expect('RECORD', 'UPDATE', { name: 't36/none', version: 1, data: '{"now":1}' })
})

test('trap 38: a subscriber hears of the provider and gets its record, in either order', async t => {
  const [provider, client] = await logins(t, node, 2)
  await provider.tap.confirmed('RECORD', 'LISTEN', 't38/.*', () => provider.record.listen('t38/.*', (name, r) => r.accept()))
  const first = await ready(client, 't38/x')
  await client.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER', name: 't38/x' })
  assert.equal(first.hasProvider, true)
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: ['t38/x'], correlationId: '0' })
  const three = [await raw.next(), await raw.next(), await raw.next()].map(m => m.action)
  assert.equal(three[0], 'SUBSCRIBECREATEANDREAD')
  assert.deepEqual(three.slice(1).sort(), ['READ_RESPONSE', 'SUBSCRIPTION_HAS_PROVIDER'])
})

test('trap 39: a number as text indexes an array that is there and makes an object otherwise', async t => {
  const [a, b] = await logins(t, node, 2)
  await a.record.setDataWithAck('t39', { pets: [{ name: 'Rex' }] })
  await a.record.setDataWithAck('t39', 'pets.0.name', 'Max')
  await a.record.setDataWithAck('t39', 'cars.0.name', 'Mini')
  assert.deepEqual(await b.record.snapshot('t39'), { pets: [{ name: 'Max' }], cars: { 0: { name: 'Mini' } } })
})

test('trap 41: hot path writes are relayed as what is stored, without the flags of the writer', async t => {
  const raw = await follow(t, 'hot/41')
  const writer = await rawLogin(t, node)
  await wrote(writer, 'CREATEANDUPDATE', { name: 'hot/41', version: -1, data: '{"x":1}' }, '7')
  await raw.expect('RECORD', 'UPDATE', { name: 'hot/41', version: 0, data: '{"x":1}' })
})

test('trap 46: a # in a value is not a comment', async t => {
  const own = await startNode({ auth: [{ type: 'file', options: { users: { ada: { password: 'a#b c' } } } }] }, { t })
  await connect(t, own).login({ username: 'ada', password: 'a#b c' })
  await rejection(connect(t, own).login({ username: 'ada', password: 'a' }))
})

test('trap 49: clients that do not know PATCH_MULTI get the whole record', async t => {
  const client = await login(t, node)
  await client.record.setDataWithAck('t49', { a: { x: 1 }, b: 2, c: 3 })
  const [record, inbox] = await watched(client, 't49')
  const modern = await follow(t, 't49', { sdkVersion: '7.1.0' })
  const writer = await rawLogin(t, node, {}, { sdkVersion: '7.1.0' })
  const data = '[{"path":"a.x","data":9},{"path":"b"},{"path":"list[1]","data":"y"}]'
  await wrote(writer, PATCH_MULTI, { name: 't49', version: 2, data }, '1')
  assert.deepEqual(await inbox.next(), { a: { x: 9 }, c: 3, list: [null, 'y'] })
  assert.equal(record.version, 2)
  await modern.expect('RECORD', PATCH_MULTI, { name: 't49', version: 2, data })
})

test('trap 50: a sender cannot plant fields in what others get', async t => {
  const planted = { correlationId: '1', isError: true, isAck: true, originalAction: 'SUBSCRIBE', names: ['x'], subscription: 's' }
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['t50'], correlationId: '0' })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  const sender = await rawLogin(t, node)
  sender.send('EVENT', 'EMIT', { name: 't50', data: '1', ...planted })
  await raw.expect('EVENT', 'EMIT', { name: 't50', data: '1' })
  const follower = await follow(t, 't50')
  sender.send('RECORD', 'UPDATE', { name: 't50', version: 1, data: '{"a":1}', ...planted, isWriteAck: true, versions: { x: 1 } })
  await follower.expect('RECORD', 'UPDATE', { name: 't50', version: 1, data: '{"a":1}' })
})

test('trap 51: the name that is checked is the name that is used', async t => {
  const receiver = await rawLogin(t, node)
  const sender = await rawLogin(t, node)
  // A list beside a name neither lets the name through nor is used.
  sender.send('RECORD', 'UPDATE', { name: 'unwritable/51', names: ['t51'], version: 1, data: '{}', isWriteAck: true, correlationId: '1' })
  await sender.expect('RECORD', 'MESSAGE_DENIED', { name: 'unwritable/51', originalAction: 'UPDATE', isError: true, isWriteAck: true, correlationId: '1' })
  sender.send('EVENT', 'EMIT', { name: 'closed/51', names: ['t51'], data: '1' })
  await sender.expect('EVENT', 'MESSAGE_DENIED', { name: 'closed/51', originalAction: 'EMIT', isError: true })
  receiver.send('EVENT', 'SUBSCRIBE', { name: 'closed/51', names: ['t51'], correlationId: '0' })
  await receiver.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  sender.send('EVENT', 'EMIT', { name: 't51', data: '2' })
  await receiver.expect('EVENT', 'EMIT', { name: 't51', data: '2' })
})

test('trap 52: an action in disguise does not dodge the rule', async t => {
  const owner = await login(t, node)
  await ready(owner, 'unwritable/52')
  const raw = await rawLogin(t, node)
  for (const [action, fields, want] of [
    ['ERASE', { path: 'a', data: '1' }, 'INVALID_MESSAGE_DATA'],
    ['ERASE', {}, 'INVALID_MESSAGE_DATA'],
    ['ERASE', { data: '{"a":1}' }, 'INVALID_MESSAGE_DATA'],
    ['UPDATE', { path: 'a', data: '1' }, 'MESSAGE_DENIED'],
    ['PATCH', { path: 'a', data: '1' }, 'MESSAGE_DENIED']
  ]) {
    raw.send('RECORD', action, { name: 'unwritable/52', version: 1, ...fields, isWriteAck: true, correlationId: 'x' })
    const answer = await raw.next()
    assert.equal(answer.action, want, `${action} ${JSON.stringify(fields)}`)
    assert.equal(answer.isError, true)
  }
  assert.equal(await owner.record.head('unwritable/52'), 0)
  const other = await login(t, node)
  assert.deepEqual(await other.record.snapshot('unwritable/52'), {})
})

// PATCH_MULTI has no name in the codec of clients before 7.1.
const PATCH_MULTI = 35

// envelopeLength is the length that a frame's first envelope says it has.
function envelopeLength (frame) {
  let length = 0
  let shift = 0
  for (const [i, byte] of frame.entries()) {
    length += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) return length + i + 1
    shift += 7
  }
  throw new Error('no length')
}
