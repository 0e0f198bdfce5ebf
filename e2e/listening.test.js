// Listening for events and records: spec 09 §2.
import assert from 'node:assert/strict'
import { listening, login, logins, ready, subscribed, unsubscribed } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const node = await startNode()
const hasty = await startNode({ listen: { responseTimeout: 300, shuffleProviders: false } })

// The same rules hold for both kinds; only the way to subscribe differs.
const kinds = {
  event: {
    subscribe: (client, name) => subscribed(client, name),
    unsubscribe: (client, name) => unsubscribed(client, name)
  },
  record: {
    subscribe: async (client, name) => {
      client.held ??= new Map()
      client.held.set(name, await ready(client, name))
    },
    unsubscribe: async (client, name) => {
      await client.tap.confirmed('RECORD', 'UNSUBSCRIBE', name, () => client.held.get(name).discard())
      // The client forgets a discarded record on a timer of its own.
      while (client.record.names().includes(name)) await new Promise(setImmediate)
    }
  }
}

const reject = (name, response) => response.reject()

for (const [kind, { subscribe, unsubscribe }] of Object.entries(kinds)) {
  test(`${kind}: a provider is asked when a matching name is subscribed`, async t => {
    const [provider, client] = await logins(t, node, 2)
    const asked = await listening(provider, kind, `^${kind}-ask/.*`)
    await subscribe(client, `${kind}-ask/1`)
    assert.deepEqual(await asked.next(), { found: `${kind}-ask/1` })
    await subscribe(client, `x-${kind}-ask/2`)
    await subscribe(client, `${kind}-ask/3`)
    assert.deepEqual(await asked.next(), { found: `${kind}-ask/3` })
  })

  test(`${kind}: patterns match anywhere in the name (trap 37)`, async t => {
    const [provider, client] = await logins(t, node, 2)
    const asked = await listening(provider, kind, `${kind}-in/1`)
    await subscribe(client, `x${kind}-in/10`)
    assert.deepEqual(await asked.next(), { found: `x${kind}-in/10` })
  })

  test(`${kind}: names that are already subscribed are offered to a new provider`, async t => {
    const [client, provider] = await logins(t, node, 2)
    await subscribe(client, `${kind}-late/1`)
    const asked = await listening(provider, kind, `${kind}-late/.*`)
    assert.deepEqual(await asked.next(), { found: `${kind}-late/1` })
  })

  test(`${kind}: one provider is enough, a second subscriber and a second provider change nothing`, async t => {
    const [one, two, a, b] = await logins(t, node, 4)
    const first = await listening(one, kind, `${kind}-single/.*`)
    const second = await listening(two, kind, `${kind}-single/[0-9]`)
    await subscribe(a, `${kind}-single/1`)
    await first.next()
    await one.tap.sent({ action: 'LISTEN_ACCEPT' })
    await one.record.head('barrier')
    await subscribe(b, `${kind}-single/1`)
    await subscribe(a, `${kind}-single/2`)
    assert.deepEqual(await first.next(), { found: `${kind}-single/2` })
    assert.deepEqual(second.items, [])
  })

  test(`${kind}: after a reject the next provider is asked`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const first = await listening(one, kind, `${kind}-no/.*`, reject)
    const second = await listening(two, kind, `${kind}-no/.*`)
    await subscribe(client, `${kind}-no/1`)
    assert.deepEqual(await second.next(), { found: `${kind}-no/1` })
    assert.deepEqual(first.items, [{ found: `${kind}-no/1` }])
  })

  test(`${kind}: when all reject nobody is asked twice`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const first = await listening(one, kind, `${kind}-never/.*`, reject)
    const second = await listening(two, kind, `${kind}-never/.*`, reject)
    await subscribe(client, `${kind}-never/1`)
    await second.next()
    await two.tap.sent({ action: 'LISTEN_REJECT' })
    await two.record.head('barrier')
    await subscribe(client, `${kind}-never/2`)
    await second.next()
    assert.equal(first.items.length, 2)
    assert.equal(second.items.length, 2)
  })

  test(`${kind}: a provider that does not answer is passed over and told`, async t => {
    const [client, two] = await logins(t, hasty, 2)
    const one = await rawLogin(t, hasty)
    one.send(kind.toUpperCase(), 'LISTEN', { name: `${kind}-mute/.*` })
    await one.expect(kind.toUpperCase(), 'LISTEN', { name: `${kind}-mute/.*`, isAck: true })
    const second = await listening(two, kind, `${kind}-mute/.*`)
    await subscribe(client, `${kind}-mute/1`)
    await one.expect(kind.toUpperCase(), 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name: `${kind}-mute/.*`, subscription: `${kind}-mute/1` })
    await one.expect(kind.toUpperCase(), 'LISTEN_RESPONSE_TIMEOUT', { subscription: `${kind}-mute/1` })
    assert.deepEqual(await second.next(), { found: `${kind}-mute/1` })
  })

  test(`${kind}: the provider stops when the last subscriber leaves`, async t => {
    const [provider, a, b] = await logins(t, node, 3)
    const asked = await listening(provider, kind, `${kind}-stop/.*`)
    await subscribe(a, `${kind}-stop/1`)
    await asked.next()
    await subscribe(b, `${kind}-stop/1`)
    await unsubscribe(a, `${kind}-stop/1`)
    b.close()
    assert.deepEqual(await asked.next(), { stopped: `${kind}-stop/1` })
    await subscribe(a, `${kind}-stop/1`)
    assert.deepEqual(await asked.next(), { found: `${kind}-stop/1` })
  })

  test(`${kind}: the next provider takes over when one stops listening`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const first = await listening(one, kind, `${kind}-over/.*`)
    const second = await listening(two, kind, `${kind}-over/.*`)
    await subscribe(client, `${kind}-over/1`)
    await first.next()
    await one.tap.confirmed(kind.toUpperCase(), 'UNLISTEN', `${kind}-over/.*`, () => one[kind].unlisten(`${kind}-over/.*`))
    assert.deepEqual(await second.next(), { found: `${kind}-over/1` })
    assert.deepEqual(first.rest, [], 'the one that left is not told to stop')
  })

  test(`${kind}: the next provider takes over when one disappears`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const first = await listening(one, kind, `${kind}-gone/.*`)
    const second = await listening(two, kind, `${kind}-gone/.*`)
    await subscribe(client, `${kind}-gone/1`)
    await first.next()
    await one.record.head('barrier')
    one.close()
    assert.deepEqual(await second.next(), { found: `${kind}-gone/1` })
  })

  test(`${kind}: a provider that disappears while it is asked is passed over`, async t => {
    const [client, two] = await logins(t, node, 2)
    const one = await rawLogin(t, node)
    one.send(kind.toUpperCase(), 'LISTEN', { name: `${kind}-vanish/.*` })
    await one.expect(kind.toUpperCase(), 'LISTEN', { name: `${kind}-vanish/.*`, isAck: true })
    const second = await listening(two, kind, `${kind}-vanish/.*`)
    await subscribe(client, `${kind}-vanish/1`)
    await one.next()
    one.drop()
    assert.deepEqual(await second.next(), { found: `${kind}-vanish/1` })
  })

  test(`${kind}: only the provider that was asked may accept`, async t => {
    const client = await login(t, node)
    const one = await rawLogin(t, node)
    const liar = await rawLogin(t, node)
    const TOPIC = kind.toUpperCase()
    for (const raw of [one, liar]) {
      raw.send(TOPIC, 'LISTEN', { name: `${kind}-liar/.*` })
      await raw.expect(TOPIC, 'LISTEN', { name: `${kind}-liar/.*`, isAck: true })
    }
    await subscribe(client, `${kind}-liar/1`)
    await one.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name: `${kind}-liar/.*`, subscription: `${kind}-liar/1` })
    liar.send(TOPIC, 'LISTEN_ACCEPT', { name: `${kind}-liar/.*`, subscription: `${kind}-liar/1` })
    await liar.silent()
    one.send(TOPIC, 'LISTEN_REJECT', { name: `${kind}-liar/.*`, subscription: `${kind}-liar/1` })
    await liar.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name: `${kind}-liar/.*`, subscription: `${kind}-liar/1` })
  })

  test(`${kind}: a client may provide for itself`, async t => {
    const client = await login(t, node)
    const asked = await listening(client, kind, `${kind}-self/.*`)
    await subscribe(client, `${kind}-self/1`)
    assert.deepEqual(await asked.next(), { found: `${kind}-self/1` })
  })
}

test('a record tells its subscribers whether it has a provider', async t => {
  const [provider, early, late] = await logins(t, node, 3)
  const record = await ready(early, 'provided/1')
  assert.equal(record.hasProvider, false)
  await listening(provider, 'record', 'provided/.*')
  await early.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER', name: 'provided/1' })
  assert.equal(record.hasProvider, true)
  await ready(late, 'provided/1')
  await late.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER', name: 'provided/1' })
  await provider.tap.confirmed('RECORD', 'UNLISTEN', 'provided/.*', () => provider.record.unlisten('provided/.*'))
  await early.tap.received({ action: 'SUBSCRIPTION_HAS_NO_PROVIDER', name: 'provided/1' })
  assert.equal(record.hasProvider, false)
})

test('an active provider fills records on demand', async t => {
  const [provider, client] = await logins(t, node, 2)
  await listening(provider, 'record', '^price/', (name, response) => {
    response.accept()
    provider.record.setData(name, { price: name.length })
  })
  const record = client.record.getRecord('price/gold')
  assert.equal(await new Promise(resolve => record.subscribe('price', resolve)), 10)
})

test('deleting a provided record stops its provider', async t => {
  const [provider, client] = await logins(t, node, 2)
  const asked = await listening(provider, 'record', '^deleted/')
  const record = await ready(client, 'deleted/1')
  await asked.next()
  await client.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER' })
  await record.delete()
  assert.deepEqual(await asked.next(), { stopped: 'deleted/1' })
})

test('a bad pattern is refused', async t => {
  const client = await login(t, node)
  client.event.listen('([a', () => {})
  assert.equal((await client.errors.next())[1], 'INVALID_LISTEN_REGEX')
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'LISTEN', { name: '*oops' })
  await raw.expect('RECORD', 'INVALID_LISTEN_REGEX', { name: '*oops' })
})
