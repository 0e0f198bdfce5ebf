// Remote procedure calls: spec 10.
import assert from 'node:assert/strict'
import { login, logins, provided, rejection } from './lib/client.js'
import { spread } from './lib/cluster.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const node = await startNode()
// Each of these two has one timer that ends soon and one that does not matter.
const soonAccepted = await startNode({ rpc: { ackTimeout: 2000, responseTimeout: 60_000 } })
const soonAnswered = await startNode({ rpc: { ackTimeout: 60_000, responseTimeout: 300 } })
const telling = await startNode({
  rpc: { provideRequestorName: true, provideRequestorData: true },
  auth: [{ type: 'file', options: { users: { ada: { password: 'x', clientData: { team: 'blue' } }, bob: { password: 'x' } } } }]
})

test('a call reaches the provider and its answer the caller', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'add', ({ a, b }, response) => response.send(a + b))
  assert.equal(await caller.rpc.make('add', { a: 1, b: 2 }), 3)
})

test('any JSON travels both ways', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'mirror', (data, response) => response.send(data))
  for (const data of [0, '', false, null, 'x', [], {}, { deep: [1, { ü: '€😀' }] }, 'y'.repeat(300_000)]) {
    assert.deepEqual(await caller.rpc.make('mirror', data), data)
  }
})

test('a call without data arrives without data', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'bare', (data, response) => response.send(data === undefined))
  assert.equal(await caller.rpc.make('bare'), true)
})

test('a client may call itself', async t => {
  const client = await login(t, node)
  await provided(client, 'self', (data, response) => response.send(data * 2))
  assert.equal(await client.rpc.make('self', 21), 42)
})

test('an error of the provider fails the call with its text', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'fail', (data, response) => response.error('out of cheese'))
  assert.equal(await rejection(caller.rpc.make('fail')), 'out of cheese')
})

test('a call without provider fails at once', async t => {
  const caller = await login(t, node)
  assert.equal(await rejection(caller.rpc.make('nobody')), 'NO_RPC_PROVIDER')
})

test('a call that every provider rejects fails after each was asked once', async t => {
  const [caller, ...providers] = await logins(t, node, 4)
  const asked = []
  for (const [i, p] of providers.entries()) await provided(p, 'picky', (data, response) => { asked.push(i); response.reject() })
  assert.equal(await rejection(caller.rpc.make('picky')), 'NO_RPC_PROVIDER')
  assert.deepEqual(asked.sort(), [0, 1, 2])
})

test('a rejected call goes to the next provider', async t => {
  const [caller, one, two] = await logins(t, node, 3)
  await provided(one, 'half', (data, response) => response.reject())
  await provided(two, 'half', (data, response) => response.send('two'))
  for (let i = 0; i < 20; i++) assert.equal(await caller.rpc.make('half'), 'two')
})

test('a call that was accepted and then rejected goes on too (trap 32)', async t => {
  const [caller, provider] = await logins(t, node, 2)
  const raw = await rawLogin(t, node)
  raw.send('RPC', 'PROVIDE', { names: ['moody'], correlationId: '0' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  await provided(provider, 'moody', (data, response) => response.send('fine'))
  let asked = 0
  raw.handle(({ action, name, correlationId }) => {
    if (action !== 'REQUEST') return false
    asked++
    raw.send('RPC', 'ACCEPT', { name, correlationId })
    raw.send('RPC', 'REJECT', { name, correlationId })
    return true
  })
  // Providers are drawn by lot; call until the moody one was asked first.
  for (let i = 0; i < 200 && asked === 0; i++) assert.equal(await caller.rpc.make('moody'), 'fine')
  assert.ok(asked > 0)
})

test('calls are spread over the providers', async t => {
  const [caller, ...providers] = await logins(t, node, 3)
  const counts = [0, 0]
  for (const [i, p] of providers.entries()) await provided(p, 'spread', (data, response) => { counts[i]++; response.send(i) })
  await Promise.all(Array.from({ length: 200 }, () => caller.rpc.make('spread')))
  assert.equal(counts[0] + counts[1], 200)
  assert.ok(Math.min(...counts) > 20, `drawn by lot, got ${counts}`)
})

test('a provider that does not accept in time fails the call', async t => {
  const [caller, provider] = await logins(t, soonAccepted, 2)
  await provided(provider, 'deaf', (data, response) => { response.autoAccept = false })
  assert.equal(await rejection(caller.rpc.make('deaf')), 'ACCEPT_TIMEOUT')
})

test('a provider that does not answer in time fails the call', async t => {
  const [caller, provider] = await logins(t, soonAnswered, 2)
  await provided(provider, 'slow', (data, response) => response.accept())
  assert.equal(await rejection(caller.rpc.make('slow')), 'RESPONSE_TIMEOUT')
})

test('an answer that comes too late is refused to its provider', async t => {
  const caller = await login(t, soonAccepted)
  const raw = await rawLogin(t, soonAccepted)
  raw.send('RPC', 'PROVIDE', { names: ['late'], correlationId: '0' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  const call = rejection(caller.rpc.make('late'))
  const { name, correlationId } = await raw.next()
  assert.equal(await call, 'ACCEPT_TIMEOUT')
  await spread() // the provider's node hears of it from the caller's
  raw.send('RPC', 'RESPONSE', { name, correlationId, data: '1' })
  await raw.expect('RPC', 'INVALID_RPC_CORRELATION_ID', { name, correlationId, originalAction: 'RESPONSE', isError: true })
})

test('a provider that leaves hands its call to the next one (trap 32)', async t => {
  const [caller, second] = await logins(t, node, 2)
  const raw = await rawLogin(t, node)
  raw.send('RPC', 'PROVIDE', { names: ['leaver'], correlationId: '0' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  const call = caller.rpc.make('leaver')
  await raw.next()
  await provided(second, 'leaver', (data, response) => response.send('second'))
  raw.drop()
  assert.equal(await call, 'second')
})

test('a call fails when its only provider leaves', async t => {
  const caller = await login(t, node)
  const raw = await rawLogin(t, node)
  raw.send('RPC', 'PROVIDE', { names: ['lonely'], correlationId: '0' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  const call = rejection(caller.rpc.make('lonely'))
  await raw.next()
  raw.drop()
  assert.equal(await call, 'NO_RPC_PROVIDER')
})

test('after unprovide the provider is not asked any more', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'shortlived', (data, response) => response.send(1))
  assert.equal(await caller.rpc.make('shortlived'), 1)
  await provider.tap.confirmed('RPC', 'UNPROVIDE', 'shortlived', () => provider.rpc.unprovide('shortlived'))
  assert.equal(await rejection(caller.rpc.make('shortlived')), 'NO_RPC_PROVIDER')
})

test('a provider learns who called, where that is configured', async t => {
  const [caller, provider] = await logins(t, telling, [{ username: 'ada', password: 'x' }, { username: 'bob', password: 'x' }])
  await provided(provider, 'who', (data, response, requestor) => response.send(requestor ?? null))
  assert.deepEqual(await caller.rpc.make('who'), { requestorName: 'ada', requestorData: { team: 'blue' } })
  const [plain] = await logins(t, telling, [{ username: 'bob', password: 'x' }])
  assert.deepEqual((await plain.rpc.make('who')).requestorName, 'bob')
})

test('a provider does not learn who called otherwise, not even from a liar', async t => {
  const raw = await rawLogin(t, node)
  const provider = await login(t, node)
  await provided(provider, 'who', (data, response, requestor) => response.send(requestor ?? null))
  raw.send('RPC', 'REQUEST', { name: 'who', correlationId: 'x', requestorName: 'root', requestorData: '{"admin":true}' })
  await raw.expect('RPC', 'ACCEPT', { name: 'who', correlationId: 'x' })
  await raw.expect('RPC', 'RESPONSE', { name: 'who', correlationId: 'x', data: 'null' })
})

test('a thousand calls in flight all get their own answer', async t => {
  const [caller, provider] = await logins(t, node, 2)
  await provided(provider, 'many', (data, response) => setImmediate(() => response.send(data)))
  const answers = await Promise.all(Array.from({ length: 1000 }, (_, i) => caller.rpc.make('many', i)))
  assert.deepEqual(answers, Array.from({ length: 1000 }, (_, i) => i))
})
