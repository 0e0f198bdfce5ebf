// What one client may take, and what many strangers may, as the client sees it.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { login, logins, provided, rejection, subscribed } from './lib/client.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const node = await startNode({
  connectionEndpoints: [{ type: 'ws-binary', options: { maxSubscriptions: 3 } }]
})

// denied waits for the client's error event about what it may not have.
const denied = async client => assert.equal((await client.errors.next())[1], 'MESSAGE_DENIED')

test('an event beyond maxSubscriptions is told by name and forgotten, the others stay', async t => {
  const [client, sender] = await logins(t, node, 2)
  const inbox = await subscribed(client, 'a')
  await subscribed(client, 'b')
  await subscribed(client, 'c')
  client.event.subscribe('d', () => assert.fail('delivered'))
  await denied(client)
  assert.deepEqual(client.event.eventNames().sort(), ['a', 'b', 'c'])
  sender.event.emit('d', 1)
  sender.event.emit('a', 2)
  assert.equal(await inbox.next(), 2)
})

test('there is room again after an unsubscription', async t => {
  const [client, sender] = await logins(t, node, 2)
  const kept = () => {}
  await client.tap.confirmed('EVENT', 'SUBSCRIBE', 'a', () => client.event.subscribe('a', kept))
  await subscribed(client, 'b')
  await subscribed(client, 'c')
  await client.tap.confirmed('EVENT', 'UNSUBSCRIBE', 'a', () => client.event.unsubscribe('a', kept))
  const inbox = await subscribed(client, 'd')
  sender.event.emit('d', 1)
  assert.equal(await inbox.next(), 1)
})

test('a record beyond maxSubscriptions errs, and others can still be read and written', async t => {
  const client = await login(t, node)
  for (const name of ['a', 'b', 'c']) await subscribed(client, name)
  const record = client.record.getRecord('limits/one')
  assert.equal(await new Promise(resolve => record.on('error', resolve)), 'MESSAGE_DENIED')
  await denied(client) // the client tells both
  await client.record.setDataWithAck('limits/other', { a: 1 })
  assert.deepEqual(await client.record.snapshot('limits/other'), { a: 1 })
})

test('a procedure beyond maxSubscriptions is not provided', async t => {
  const [client, caller] = await logins(t, node, 2)
  for (const name of ['a', 'b']) await subscribed(client, name)
  await provided(client, 'first', (_, response) => response.send(1))
  client.rpc.provide('second', (_, response) => response.send(2))
  await denied(client)
  assert.equal(await caller.rpc.make('first'), 1)
  assert.equal(await rejection(caller.rpc.make('second')), 'NO_RPC_PROVIDER')
})

test('strangers who sit on connections make room for a client', async t => {
  const crowded = await startNode({ httpServer: { options: { maxUnauthenticated: 5 } } }, { t, alone: 'it counts the strangers of one node' })
  const sockets = Array.from({ length: 30 }, () => connect(crowded.port, '127.0.0.1').on('error', () => {}))
  t.after(() => sockets.forEach(s => s.destroy()))
  const client = await login(t, crowded)
  await client.record.setDataWithAck('limits/two', { a: 1 })
})
