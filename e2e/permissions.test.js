// Constant permission rules, as the client sees their denials: spec 07 §3, §4.
import assert from 'node:assert/strict'
import { connect, listening, login, logins, provided, ready, rejection, subscribed, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const allow = { create: true, read: true, write: true, delete: true, listen: true, notify: true }

const node = await startNode({
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: {
          '*': allow,
          'unreadable/*': { ...allow, read: false },
          'uncreatable/*': { ...allow, create: false },
          'unwritable/*': { ...allow, write: false },
          'undeletable/*': { ...allow, delete: false },
          'silent/*': { ...allow, listen: false, notify: false },
          'long/$name': { ...allow, write: false },
          'long/x*': { ...allow, write: true },
          'partial/*': { read: false }
        },
        event: {
          '*': { publish: true, subscribe: true, listen: true },
          'closed/*': { publish: false, subscribe: false, listen: false },
          'announce/*': { publish: false, subscribe: true }
        },
        rpc: {
          '*': { provide: true, request: true },
          'unprovidable/*': { provide: false },
          'unrequestable/*': { request: false }
        },
        presence: {
          '*': { allow: true },
          'hidden/*': { allow: false }
        }
      }
    }
  }
})

// denied waits for the client's error event about a denied message.
const denied = async client => assert.equal((await client.errors.next())[1], 'MESSAGE_DENIED')

test('a denied publish reaches nobody and its sender is told', async t => {
  const [sender, receiver] = await logins(t, node, 2)
  const inbox = await subscribed(receiver, 'announce/x')
  sender.event.emit('announce/x', 1)
  await denied(sender)
  const marker = await subscribed(receiver, 'marker')
  sender.event.emit('marker', 2)
  await marker.next()
  assert.deepEqual(inbox.items, [])
})

test('a denied subscription to an event is told and delivers nothing', async t => {
  const client = await login(t, node)
  client.event.subscribe('closed/x', () => assert.fail('delivered'))
  await denied(client)
  assert.deepEqual(client.event.eventNames(), [])
})

test('a denied listen is told', async t => {
  const client = await login(t, node)
  client.event.listen('closed/.*', () => assert.fail('asked'))
  await denied(client)
})

test('a denied read fails getRecord, snapshot and head', async t => {
  const client = await login(t, node)
  await client.record.setDataWithAck('unreadable/x', { x: 1 })
  assert.equal(await rejection(client.record.snapshot('unreadable/x')), 'MESSAGE_DENIED')
  assert.equal(await rejection(client.record.head('unreadable/x')), 'MESSAGE_DENIED')
  assert.equal(await rejection(client.record.has('unreadable/x')), 'MESSAGE_DENIED')
  const record = client.record.getRecord('unreadable/x')
  const told = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  assert.deepEqual(await told, ['MESSAGE_DENIED', 'SUBSCRIBECREATEANDREAD'])
  await denied(client)
})

test('a denied create leaves no record behind', async t => {
  const client = await login(t, node)
  client.record.getRecord('uncreatable/x')
  await denied(client)
  assert.equal(await client.record.has('uncreatable/y'), false)
  assert.equal(await rejection(client.record.setDataWithAck('uncreatable/z', { x: 1 })), 'MESSAGE_DENIED')
  assert.equal(await client.record.has('uncreatable/z'), false)
})

test('a denied write is told and changes nothing for others', async t => {
  const [a, b] = await logins(t, node, 2)
  const record = await ready(a, 'unwritable/x')
  const [, inbox] = await watched(b, 'unwritable/x')
  assert.equal(await rejection(record.setWithAck({ x: 1 })), 'MESSAGE_DENIED')
  const told = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  record.set('y', 2)
  assert.deepEqual(await told, ['MESSAGE_DENIED', 'PATCH'])
  assert.equal(await b.record.head('unwritable/x'), 0)
  assert.deepEqual(inbox.items, [])
})

test('a denied delete fails with the reason and the record stays', async t => {
  const [a, b] = await logins(t, node, 2)
  const record = await ready(a, 'undeletable/x')
  assert.equal(await rejection(record.delete()), 'MESSAGE_DENIED')
  assert.equal(await b.record.has('undeletable/x'), true)
})

test('erasing a path needs the delete permission (trap 6)', async t => {
  const [a, b] = await logins(t, node, 2)
  const record = await ready(a, 'undeletable/erase')
  await record.setWithAck({ keep: 1 })
  assert.equal(await rejection(record.eraseWithAck('keep')), 'MESSAGE_DENIED')
  assert.deepEqual(await b.record.snapshot('undeletable/erase'), { keep: 1 })
  const other = await ready(a, 'unwritable/erase') // no write, but delete
  await other.eraseWithAck('nothing')
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'ERASE', { name: 'unwritable/erase', version: -1, path: 'gone', isWriteAck: true, correlationId: '1' })
  await raw.expect('RECORD', 'WRITE_ACKNOWLEDGEMENT', { name: 'unwritable/erase', isWriteAck: true, correlationId: '1' })
})

test('setData needs create and write even when the record exists (trap 16)', async t => {
  const [a, b] = await logins(t, node, 2)
  assert.equal(await rejection(a.record.setDataWithAck('unwritable/set', { x: 1 })), 'MESSAGE_DENIED')
  assert.equal(await b.record.has('unwritable/set'), false)
  await ready(b, 'unwritable/set')
  assert.equal(await rejection(a.record.setDataWithAck('unwritable/set', { x: 1 })), 'MESSAGE_DENIED')
  assert.equal(await rejection(a.record.setDataWithAck('unwritable/set', 'x', 1)), 'MESSAGE_DENIED')
})

test('a denied notify and listen on records are told', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'NOTIFY', { names: ['silent/x'], correlationId: '5' })
  await raw.expect('RECORD', 'MESSAGE_DENIED', { name: 'silent/x', correlationId: '5', originalAction: 'NOTIFY', isError: true })
  raw.send('RECORD', 'LISTEN', { name: 'silent/.*' })
  await raw.expect('RECORD', 'MESSAGE_DENIED', { name: 'silent/.*', originalAction: 'LISTEN', isError: true })
  await raw.silent()
})

test('a denied call fails with the reason', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'unrequestable/x', (data, response) => response.send(1))
  assert.equal(await rejection(caller.rpc.make('unrequestable/x')), 'MESSAGE_DENIED')
})

test('a denied provider is told and is not asked', async t => {
  const [caller, provider] = await logins(t, node, 2)
  provider.rpc.provide('unprovidable/x', (data, response) => response.send(1))
  await denied(provider)
  assert.deepEqual(provider.rpc.providerNames(), [])
  assert.equal(await rejection(caller.rpc.make('unprovidable/x')), 'NO_RPC_PROVIDER')
})

test('a denied presence query fails with the reason', async t => {
  const client = await login(t, node)
  assert.equal(await rejection(client.presence.getAll(['hidden/x'])), 'MESSAGE_DENIED')
  assert.deepEqual(await client.presence.getAll(['x']), { x: false })
})

test('the rule with the longest path wins and one that lacks the type is passed over (trap 20)', async t => {
  const [a, b] = await logins(t, node, 2)
  // "long/$name" has more characters than "long/x*".
  assert.equal(await rejection(a.record.setDataWithAck('long/x', { x: 1 })), 'MESSAGE_DENIED')
  await a.record.setDataWithAck('long/x/y', { x: 1 }) // $name does not cross a slash
  await a.record.setDataWithAck('partial/x', { x: 1 })
  assert.equal(await rejection(b.record.snapshot('partial/x')), 'MESSAGE_DENIED')
})

test('of several names exactly the denied ones are left out (trap 18)', async t => {
  const [sender] = await logins(t, node, 1)
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['good/1', 'closed/1', 'good/2'], correlationId: '0' })
  await raw.expect('EVENT', 'MESSAGE_DENIED', { name: 'closed/1', correlationId: '0', originalAction: 'SUBSCRIBE', isError: true })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  sender.event.emit('good/1', 1)
  await raw.expect('EVENT', 'EMIT', { name: 'good/1', data: '1' })
  sender.event.emit('good/2', 2)
  await raw.expect('EVENT', 'EMIT', { name: 'good/2', data: '2' })
  raw.send('EVENT', 'SUBSCRIBE', { names: ['closed/2', 'good/3'], correlationId: '1' })
  await raw.expect('EVENT', 'MESSAGE_DENIED', { name: 'closed/2', correlationId: '1', originalAction: 'SUBSCRIBE', isError: true })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '1', isAck: true })
  sender.event.emit('good/3', 3)
  await raw.expect('EVENT', 'EMIT', { name: 'good/3', data: '3' })
})

test('where every name is denied there is no acknowledgement', async t => {
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['closed/1', 'closed/2'], correlationId: '0' })
  for (const name of ['closed/1', 'closed/2']) {
    await raw.expect('EVENT', 'MESSAGE_DENIED', { name, correlationId: '0', originalAction: 'SUBSCRIBE', isError: true })
  }
  await raw.silent()
})

test('records are acknowledged first, even if all are denied (trap 8)', async t => {
  const raw = await rawLogin(t, node)
  const names = ['uncreatable/8', 'uncreatable/9']
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names, correlationId: '0' })
  await raw.expect('RECORD', 'SUBSCRIBECREATEANDREAD', { names, correlationId: '0', isAck: true })
  const told = [await raw.next(), await raw.next()]
  for (const m of told) {
    assert.equal(m.action, 'MESSAGE_DENIED')
    assert.equal(m.originalAction, 'SUBSCRIBECREATEANDREAD')
    assert.equal(m.isError, true)
  }
  assert.deepEqual(told.map(m => m.name).sort(), names)
  await raw.silent()
})

test('a denied write does not wait for what it would have conflicted with', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'UPDATE', { name: 'unwritable/none', version: 7, data: '{}', isWriteAck: true, correlationId: '9' })
  await raw.expect('RECORD', 'MESSAGE_DENIED', { name: 'unwritable/none', originalAction: 'UPDATE', isError: true, isWriteAck: true, correlationId: '9' })
})

test('rules changed on disk hold after a hangup signal', async t => {
  const own = await startNode({ permission: { type: 'config', options: { permissions: rules(true) } } }, { t })
  const client = await login(t, own)
  await client.record.setDataWithAck('x', { n: 1 })
  await own.configure({ permission: { options: { permissions: rules(false) } } })
  own.hangup()
  for (let n = 2; ; n++) {
    const refused = await client.record.setDataWithAck('x', { n }).then(() => null, reason => reason)
    if (refused) { assert.equal(refused, 'MESSAGE_DENIED'); break }
  }
})

test('a name with an alias of an anonymous user is no way around', async t => {
  const client = connect(t, node)
  await client.login({ username: 'OPEN' })
  assert.equal(await rejection(client.record.setDataWithAck('unwritable/open', { x: 1 })), 'MESSAGE_DENIED')
})

test('listening is allowed where the pattern is', async t => {
  const [provider, client] = await logins(t, node, 2)
  const asked = await listening(provider, 'record', 'listenable/.*')
  await ready(client, 'listenable/1')
  assert.deepEqual(await asked.next(), { found: 'listenable/1' })
})

function rules (write) {
  return {
    record: { '*': { ...allow, write } },
    event: { '*': { publish: true, subscribe: true, listen: true } },
    rpc: { '*': { provide: true, request: true } },
    presence: { '*': { allow: true } }
  }
}
