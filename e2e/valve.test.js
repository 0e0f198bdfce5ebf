// The rules of examples/permissions.yml, line by line, as the published client meets
// them: what each lets through and what it keeps out.
import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { listening, login, provided, ready, rejection, subscribed, told, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const role = role => ({ password: 'p', serverData: { role } })
const node = await startNode({
  allowOpenFallback: true, // so that there are strangers
  auth: [
    { type: 'file', options: { users: { admin: role('admin'), provider: role('provider'), ada: { password: 'p' }, bob: { password: 'p' }, 'client-a': { password: 'p' }, 'client-b': { password: 'p' } } } },
    { type: 'none' }
  ],
  permission: { type: 'config', options: { permissions: `fileLoad(${resolve('../examples/permissions.yml')})` } }
})

// as logs in several, by name; 'stranger' is nobody.
const as = (t, ...users) => Promise.all(users.map(u => login(t, node, u === 'stranger' ? {} : { username: u, password: 'p' })))

const DENIED = 'MESSAGE_DENIED'
const refused = async promise => assert.equal(await rejection(promise), DENIED)

// refusedRecord loads a record that may not be had: its error event names the action.
async function refusedRecord (client, name) {
  const record = client.record.getRecord(name)
  const error = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  assert.deepEqual(await error, [DENIED, 'SUBSCRIBECREATEANDREAD'])
  await told(client, 'RECORD', 'SUBSCRIBECREATEANDREAD', name)
}

// refusedListen listens where it is not allowed.
async function refusedListen (client, topic, pattern) {
  client[topic].listen(pattern, () => assert.fail('asked'))
  await told(client, topic.toUpperCase(), 'LISTEN', pattern)
}

// refusedNotify sends what the client has no retry for from a raw one.
async function refusedNotify (t, user, name) {
  const raw = await rawLogin(t, node, { username: user, password: 'p' })
  raw.send('RECORD', 'NOTIFY', { names: [name], correlationId: 'n' })
  await raw.expect('RECORD', DENIED, { name, originalAction: 'NOTIFY', isError: true, correlationId: 'n' })
}

// delivered says that what the sender emits arrives in the inbox, next.
async function delivered (sender, name, data, inbox) {
  sender.event.emit(name, data)
  assert.deepEqual(await inbox.next(), data)
}

// refusedEmit says that what the sender emits is refused; the caller looks at inboxes.
async function refusedEmit (sender, name, data) {
  sender.event.emit(name, data)
  await told(sender, 'EVENT', 'EMIT', name)
}

async function refusedSubscribe (client, name) {
  client.event.subscribe(name, () => assert.fail('delivered'))
  await told(client, 'EVENT', 'SUBSCRIBE', name)
}

test('record *: create, read, write are for those with a name', async t => {
  const [ada, bob, stranger] = await as(t, 'ada', 'bob', 'stranger')
  await ada.record.setDataWithAck('shared/x', { n: 1 })
  await (await ready(bob, 'shared/x')).setWithAck('n', 2)
  assert.deepEqual(await ada.record.snapshot('shared/x'), { n: 2 })
  await refused(stranger.record.snapshot('shared/x'))
  await refused(stranger.record.head('shared/x'))
  await refused(stranger.record.has('shared/x'))
  await refused(stranger.record.setDataWithAck('shared/x', { n: 3 }))
  await refused(stranger.record.setDataWithAck('shared/new', { n: 3 }))
  await refusedRecord(stranger, 'shared/x')
  await refusedRecord(stranger, 'shared/other')
  assert.deepEqual(await ada.record.snapshot('shared/x'), { n: 2 })
  assert.equal(await ada.record.has('shared/new'), false)
  assert.equal(await ada.record.has('shared/other'), false)
})

test('record *: delete and notify are for the admin, listen for providers', async t => {
  const [ada, admin, provider] = await as(t, 'ada', 'admin', 'provider')
  const record = await ready(ada, 'shared/kept')
  await refused(record.delete())
  assert.equal(await admin.record.has('shared/kept'), true)
  const [, inbox] = await watched(ada, 'shared/kept2')
  await (await ready(admin, 'shared/kept2')).delete()
  assert.equal(await provider.record.has('shared/kept2'), false)
  assert.deepEqual(inbox.items, [])
  await admin.record.notify(['shared/kept'])
  await refusedNotify(t, 'ada', 'shared/kept')
  await refusedListen(ada, 'record', 'shared/.*')
  const asked = await listening(provider, 'record', 'shared/listened')
  await ready(ada, 'shared/listened')
  assert.deepEqual(await asked.next(), { found: 'shared/listened' })
})

test('public-read-private-write: everybody reads, the owner alone changes', async t => {
  const [ada, bob, stranger, early, witness] = await as(t, 'ada', 'bob', 'stranger', 'bob', 'stranger')
  const name = 'public-read-private-write/ada'
  await refusedRecord(early, name) // he would have created it
  await refused(bob.record.setDataWithAck(name, { by: 'bob' }))
  await ada.record.setDataWithAck(name, { by: 'ada' })
  assert.deepEqual(await bob.record.snapshot(name), { by: 'ada' })
  assert.deepEqual(await stranger.record.snapshot(name), { by: 'ada' })
  const record = await ready(bob, name)
  assert.equal(await rejection(record.setWithAck({ by: 'bob' })), DENIED)
  assert.equal(await rejection(record.setWithAck('by', 'bob again')), DENIED)
  const error = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  record.set('by', 'bob once more') // nobody waits for it
  assert.deepEqual(await error, [DENIED, 'PATCH'])
  await refused(bob.record.setDataWithAck(name, { by: 'bob' }))
  assert.equal(await rejection((await ready(stranger, name)).delete()), DENIED)
  assert.equal(await ada.record.head(name), 1)
  await (await ready(ada, name)).setWithAck('by', 'ada herself')
  assert.deepEqual(await witness.record.snapshot(name), { by: 'ada herself' })
  await refusedListen(ada, 'record', 'public-read-private-write/.*')
  await refusedNotify(t, 'ada', name)
  await (await ready(ada, name)).delete()
  assert.equal(await witness.record.has(name), false)
})

test('only-increment: rises and nothing else', async t => {
  const [ada, bob, provider] = await as(t, 'ada', 'bob', 'provider')
  const name = 'only-increment'
  const set = (client, data) => client.record.setDataWithAck(name, data)
  await refused(set(ada, {})) // no value
  await refused(set(ada, { value: '5' }))
  await set(ada, { value: 5 })
  await set(bob, { value: 6 })
  for (const value of [6, 5, -1, 0, null, '7', [8], { valueOf: 9 }]) await refused(set(bob, { value }))
  await refused(bob.record.setDataWithAck(name, 'value', 4)) // a patch is judged as it leaves the record
  await bob.record.setDataWithAck(name, 'other', 1).then(() => assert.fail('a patch that does not raise it'), reason => assert.equal(reason, DENIED))
  await bob.record.setDataWithAck(name, 'value', 7)
  const record = await ready(ada, name)
  assert.equal(await rejection(record.eraseWithAck('value')), DENIED)
  assert.equal(await rejection(record.delete()), DENIED)
  await refusedListen(provider, 'record', name)
  await refusedNotify(t, 'admin', name)
  assert.deepEqual(await provider.record.snapshot(name), { value: 7 })
})

test('only-delete-egon-miller: he alone can be deleted', async t => {
  const [ada, stranger, provider] = await as(t, 'ada', 'stranger', 'provider')
  for (const person of ['egon/miller', 'EGON/Miller', 'egon/mueller', 'john/miller']) {
    const name = `only-delete-egon-miller/${person}`
    await ada.record.setDataWithAck(name, { person })
    const record = await ready(ada, name)
    assert.deepEqual(record.get(), { person })
    await record.setWithAck('met', true)
    await refused(stranger.record.snapshot(name))
    await refused(stranger.record.setDataWithAck(name, {}))
    if (/^egon.miller$/i.test(person)) await record.delete()
    else assert.equal(await rejection(record.delete()), DENIED)
    assert.equal(await provider.record.has(name), !/^egon.miller$/i.test(person))
  }
  await refusedListen(provider, 'record', 'only-delete-egon-miller/egon/miller')
  await refusedNotify(t, 'admin', 'only-delete-egon-miller/john/miller')
})

test('only-allows-purchase-of-products-in-stock: what is not there is not sold', async t => {
  const [ada, admin, stranger, provider] = await as(t, 'ada', 'admin', 'stranger', 'provider')
  const buy = (client, id, data) => client.record.setDataWithAck(`only-allows-purchase-of-products-in-stock/${id}`, data)
  await admin.record.setDataWithAck('item/1', { stock: 1 })
  await admin.record.setDataWithAck('item/0', { stock: 0 })
  await buy(ada, 'a', { itemId: 1 })
  await refused(buy(ada, 'b', { itemId: 0 }))
  await refused(buy(ada, 'c', { itemId: 2 })) // a missing item
  await refused(buy(ada, 'd', {})) // a missing itemId
  await refused(buy(stranger, 'e', { itemId: 1 }))
  // The client counts a refused write among its record's versions; setData has none.
  const patch = (path, value) => ada.record.setDataWithAck('only-allows-purchase-of-products-in-stock/a', path, value)
  await refused(patch('itemId', 0))
  await patch('note', 'quick') // still in stock
  await admin.record.setDataWithAck('item/1', 'stock', 0)
  await refused(patch('note', 'late'))
  const purchase = await ready(ada, 'only-allows-purchase-of-products-in-stock/a')
  assert.deepEqual(await admin.record.snapshot('only-allows-purchase-of-products-in-stock/a'), { itemId: 1, note: 'quick' })
  assert.equal(await rejection(purchase.delete()), DENIED)
  await refusedListen(provider, 'record', 'only-allows-purchase-of-products-in-stock/a')
  await refusedNotify(t, 'admin', 'only-allows-purchase-of-products-in-stock/a')
})

test('item: the shop alone changes its stock', async t => {
  const [ada, admin, stranger, provider] = await as(t, 'ada', 'admin', 'stranger', 'provider')
  await refused(ada.record.setDataWithAck('item/3', { stock: 9 }))
  await refusedRecord(ada, 'item/3')
  await admin.record.setDataWithAck('item/3', { stock: 3 })
  const record = await ready(stranger, 'item/3')
  assert.deepEqual(record.get(), { stock: 3 })
  assert.equal(await rejection(record.setWithAck('stock', 4)), DENIED)
  assert.equal(await rejection(record.delete()), DENIED)
  await refusedListen(provider, 'record', 'item/.*')
  await refusedNotify(t, 'admin', 'item/3')
  await (await ready(admin, 'item/3')).delete()
})

test('event *: publish and subscribe are for those with a name, listen for providers', async t => {
  const [ada, bob, stranger, provider] = await as(t, 'ada', 'bob', 'stranger', 'provider')
  const inbox = await subscribed(bob, 'any')
  await delivered(ada, 'any', { n: 1 }, inbox)
  await refusedEmit(stranger, 'any', { n: 2 })
  await refusedSubscribe(stranger, 'any')
  await delivered(ada, 'any', { n: 3 }, inbox)
  await refusedListen(ada, 'event', '.*')
  const asked = await listening(provider, 'event', '^listened$')
  await subscribed(ada, 'listened')
  assert.deepEqual(await asked.next(), { found: 'listened' })
})

test('open/*: everybody; forbidden/*: nobody', async t => {
  const [stranger, other, provider, ada] = await as(t, 'stranger', 'stranger', 'provider', 'ada')
  const inbox = await subscribed(stranger, 'open/x')
  await delivered(other, 'open/x', 'hello', inbox)
  await refusedListen(ada, 'event', 'open/.*')
  await refusedListen(ada, 'event', 'open/|a-to-b/') // why not: it is about a-to-b/ too
  const asked = await listening(provider, 'event', 'open/listened')
  await subscribed(other, 'open/listened')
  assert.deepEqual(await asked.next(), { found: 'open/listened' })
  await refusedEmit(provider, 'forbidden/x', 1)
  await refusedSubscribe(provider, 'forbidden/x')
  await refusedListen(provider, 'event', 'forbidden/x')
})

test('a-to-b/*: one publishes, the other receives', async t => {
  const [a, b, provider, back] = await as(t, 'client-a', 'client-b', 'provider', 'client-b')
  const inbox = await subscribed(b, 'a-to-b/x')
  await delivered(a, 'a-to-b/x', 1, inbox)
  await refusedEmit(back, 'a-to-b/x', 2) // not b itself: a client hears its own events without a server
  await refusedEmit(provider, 'a-to-b/x', 3)
  await refusedSubscribe(a, 'a-to-b/x')
  await delivered(a, 'a-to-b/x', 4, inbox)
  for (const client of [a, b, provider]) await refusedListen(client, 'event', 'a-to-b/x')
})

test('news/$topic: one topic', async t => {
  const [ada, stranger, provider] = await as(t, 'ada', 'stranger', 'provider')
  const inbox = await subscribed(stranger, 'news/tea-cup-pigs')
  const other = await subscribed(stranger, 'news/other')
  await refusedEmit(ada, 'news/other', 1)
  await delivered(ada, 'news/tea-cup-pigs', 2, inbox)
  assert.deepEqual(other.items, [])
  await refusedListen(provider, 'event', 'news/.*')
})

test('number: a number above ten', async t => {
  const [ada, bob, provider] = await as(t, 'ada', 'bob', 'provider')
  const inbox = await subscribed(bob, 'number')
  await delivered(ada, 'number', 11, inbox)
  for (const data of [10, -1, '12', true, [12], { n: 12 }, null, undefined]) await refusedEmit(ada, 'number', data)
  await delivered(ada, 'number', 10.5, inbox)
  await refusedListen(provider, 'event', 'number')
})

test('place/$city: what is said of it is about it', async t => {
  const [ada, bob, provider] = await as(t, 'ada', 'bob', 'provider')
  const inbox = await subscribed(bob, 'place/berlin')
  await delivered(ada, 'place/berlin', { address: { city: 'Berlin' } }, inbox)
  for (const data of [{ address: { city: 'Bonn' } }, { address: { city: 7 } }, { address: null }, {}, 'berlin', undefined]) {
    await refusedEmit(ada, 'place/berlin', data) // refused, and no rule fails
  }
  await delivered(ada, 'place/berlin', { address: { city: 'BERLIN' } }, inbox)
  await refusedListen(provider, 'event', 'place/.*')
})

test('rpc *: providers provide, those with a name ask', async t => {
  const [ada, stranger, provider] = await as(t, 'ada', 'stranger', 'provider')
  await provided(provider, 'double', (n, response) => response.send(n * 2))
  assert.equal(await ada.rpc.make('double', 21), 42)
  await refused(stranger.rpc.make('double', 21))
  ada.rpc.provide('mine', () => assert.fail('asked'))
  await told(ada, 'RPC', 'PROVIDE', 'mine')
  assert.equal(await rejection(provider.rpc.make('mine')), 'NO_RPC_PROVIDER')
})

test('a-provide-b-request: one provides, the other asks', async t => {
  const [a, b, provider] = await as(t, 'client-a', 'client-b', 'provider')
  await provided(a, 'a-provide-b-request', (data, response) => response.send('from a'))
  provider.rpc.provide('a-provide-b-request', () => assert.fail('asked'))
  await told(provider, 'RPC', 'PROVIDE', 'a-provide-b-request')
  assert.equal(await b.rpc.make('a-provide-b-request'), 'from a')
  await refused(a.rpc.make('a-provide-b-request'))
  await refused(provider.rpc.make('a-provide-b-request'))
})

test('only-full-user-data: a call with both names', async t => {
  const [ada, provider] = await as(t, 'ada', 'provider')
  await provided(provider, 'only-full-user-data', (data, response) => response.send(data.firstname))
  ada.rpc.provide('only-full-user-data', () => assert.fail('asked'))
  await told(ada, 'RPC', 'PROVIDE', 'only-full-user-data')
  const make = data => ada.rpc.make('only-full-user-data', data)
  assert.equal(await make({ firstname: 'Egon', lastname: 'Miller' }), 'Egon')
  for (const data of [{ firstname: 'Egon' }, { firstname: 'Egon', lastname: 1 }, {}, null, undefined, 'Egon Miller']) await refused(make(data))
})

test('presence: strangers may not ask who is here', async t => {
  const [ada, stranger] = await as(t, 'ada', 'stranger')
  assert.deepEqual(await ada.presence.getAll(['bob', 'ada']), { bob: false, ada: true })
  assert.deepEqual(await ada.presence.getAll(), [])
  await refused(stranger.presence.getAll(['ada']))
  await refused(stranger.presence.getAll())
  stranger.presence.subscribe('bob', () => assert.fail('told'))
  await told(stranger, 'PRESENCE', 'SUBSCRIBE', 'bob')
  stranger.presence.subscribe(() => assert.fail('told'))
  await told(stranger, 'PRESENCE', 'SUBSCRIBE_ALL')
  const seen = new Promise(resolve => ada.presence.subscribe('bob', (login, user) => resolve([user ?? 'bob', login])))
  await ada.tap.acked('PRESENCE', 'SUBSCRIBE', 'bob')
  await as(t, 'bob')
  await seen
})
