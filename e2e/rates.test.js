// What a user, an address and an old client are refused, as the official client sees it.
// Each node counts for itself, so the nodes here are alone.
import assert from 'node:assert/strict'
import { connect, login, provided, rejection, subscribed } from './lib/client.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const alone = 'each node counts what its own clients do'
const start = (t, config) => startNode(config, { t, alone })

// flood acts n times at once, and says how many were served, and why the others failed.
const flood = async (n, act) => {
  const ends = await Promise.allSettled(Array.from({ length: n }, (_, i) => act(i)))
  return { served: ends.filter(e => e.status === 'fulfilled').length, reasons: ends.filter(e => e.status === 'rejected').map(e => e.reason) }
}

test('writes, calls and reads beyond the rate fail with MESSAGE_DENIED, each its own', async t => {
  const node = await start(t, {
    rateLimits: [
      { topic: 'RECORD', action: 'CREATEANDUPDATE', perSecond: 5 },
      { topic: 'RPC', action: 'REQUEST', perSecond: 5 },
      { topic: 'RECORD', action: 'READ', perSecond: 5 }
    ]
  })
  const client = await login(t, node, 'ann')
  const other = await login(t, node, 'bob')
  await provided(other, 'double', (n, response) => response.send(2 * n))

  const kinds = {
    write: i => client.record.setDataWithAck(`rates/${i}`, { i }),
    call: async i => assert.equal(await client.rpc.make('double', i), 2 * i),
    read: i => client.record.snapshot(`rates/none${i}`).catch(reason => { if (reason !== 'RECORD_NOT_FOUND') throw reason })
  }
  for (const [kind, act] of Object.entries(kinds)) {
    const { served, reasons } = await flood(200, act)
    assert.ok(served >= 5 && reasons.length > 0, `${kind}: ${served} were served, ${reasons.length} refused`)
    assert.deepEqual([...new Set(reasons)], ['MESSAGE_DENIED'], kind)
  }
  // What was refused was not done, what is allowed to another is.
  await other.record.setDataWithAck('rates/other', { a: 1 })
  assert.equal(await other.rpc.make('double', 4), 8)
})

test('events beyond the rate are refused by name, and the rest are delivered', async t => {
  const node = await start(t, { rateLimits: [{ topic: 'EVENT', action: 'EMIT', perSecond: 1, burst: 3 }] })
  const [client, other] = [await login(t, node, 'ann', { tolerate: ['MESSAGE_DENIED'] }), await login(t, node, 'bob')]
  const inbox = await subscribed(other, 'a')
  for (let i = 0; i < 50; i++) client.event.emit('a', i)
  assert.deepEqual([await inbox.next(), await inbox.next(), await inbox.next()], [0, 1, 2])
  await client.tap.received({ topic: 'EVENT', action: 'MESSAGE_DENIED', originalAction: 'EMIT', name: 'a', isError: true })
})

test('one connection more than a user may have is refused with a reason, until one goes', async t => {
  const node = await start(t, { maxConnectionsPerUser: 1 })
  const first = await login(t, node, 'ann')
  const second = connect(t, node)
  assert.equal((await rejection(second.login({ username: 'ann' }))).reason.error, 'TOO_MANY_CONNECTIONS')
  first.close()
  await first.state('CLOSED')
  await login(t, node, 'bob')
  for (;;) { // the node learns a moment later that the first has gone
    const again = connect(t, node)
    const refused = await again.login({ username: 'ann' }).then(() => null, reason => reason)
    if (!refused) break
    assert.equal(refused.reason.error, 'TOO_MANY_CONNECTIONS')
  }
})

test('a client that is too old is told so, and does not come back', async t => {
  const node = await start(t, { clients: { refuseBelow: { javascript: '99.0.0' } } })
  const client = connect(t, node, { tolerate: ['TOO_MANY_AUTH_ATTEMPTS'] })
  const { reason } = await rejection(client.login({ username: 'ann' }))
  assert.equal(reason.error, 'CLIENT_NOT_SUPPORTED')
  assert.match(reason.message, /"javascript" need version 99\.0\.0 or later/)
  await client.state('TOO_MANY_AUTH_ATTEMPTS')
  await client.tap.received({ topic: 'AUTH', action: 'TOO_MANY_AUTH_ATTEMPTS' })
  const fresh = await start(t, { clients: { warnBelow: { javascript: '99.0.0' } } })
  await login(t, fresh, 'ann')
  await login(t, fresh, 'bob')
  assert.equal(fresh.log.match(/an old client is in use/g)?.length, 1)
})

test('clients of an address that connects too fast get in later', async t => {
  const node = await start(t, { connectionRate: { perAddress: 1 } })
  const clients = await Promise.all(Array.from({ length: 4 }, () => login(t, node, {}, { tolerate: ['CONNECTION_ERROR'] })))
  assert.equal(clients.length, 4)
  assert.match(node.log, /their address connects too often/)
})
