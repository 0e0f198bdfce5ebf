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

// once does the one thing when it is called first, whoever calls, and the other after.
function once (one, other) {
  let calls = 0
  return (...args) => calls++ === 0 ? one(...args) : other(...args)
}

// turns sorts providers, [[inbox, ...], ...], by who is asked: the first one to get
// something comes first. Only providers at the same node are asked in the order of their
// registration, so a test whose providers are at several takes them as they come.
async function turns (...providers) {
  const asked = await Promise.race(providers.map(async provider => {
    await provider[0].until(() => provider[0].rest.length > 0)
    return provider
  }))
  return [asked, ...providers.filter(other => other !== asked)]
}

// rawListening are two bare sockets that listen for a pattern, as turns takes them.
const rawListening = (t, node, topic, name) => Promise.all([1, 2].map(async () => {
  const raw = await rawLogin(t, node)
  raw.send(topic, 'LISTEN', { name })
  await raw.expect(topic, 'LISTEN', { name, isAck: true })
  return [raw.inbox, raw]
}))

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

  test(`${kind}: providers at one node are asked in the order of their registration`, async t => {
    const [one, two] = await logins(t, node.first, 2)
    const client = await login(t, node)
    const first = await listening(one, kind, `${kind}-order/.*`, reject)
    const second = await listening(two, kind, `${kind}-order/[0-9]`)
    for (const name of ['1', '2', '3'].map(n => `${kind}-order/${n}`)) {
      await subscribe(client, name)
      assert.deepEqual(await second.next(), { found: name })
      assert.deepEqual(await first.next(), { found: name })
    }
    assert.deepEqual([first.rest, second.rest], [[], []])
  })

  test(`${kind}: one provider is enough, a second subscriber and a second provider change nothing`, async t => {
    const [one, two, a, b] = await logins(t, node, 4)
    const [[first, provider], [second]] = await (async () => {
      const providers = [
        [await listening(one, kind, `${kind}-single/.*`), one],
        [await listening(two, kind, `${kind}-single/[0-9]`), two]
      ]
      await subscribe(a, `${kind}-single/1`)
      return turns(...providers)
    })()
    await provider.tap.sent({ action: 'LISTEN_ACCEPT' })
    await provider.record.head('barrier')
    await subscribe(b, `${kind}-single/1`)
    await subscribe(a, `${kind}-single/2`)
    await Promise.race([first, second].map(inbox => inbox.until(items => items.some(i => i.found === `${kind}-single/2`))))
    const all = [...first.items, ...second.items]
    assert.deepEqual(all.map(i => i.found).sort(), [`${kind}-single/1`, `${kind}-single/2`])
  })

  test(`${kind}: after a reject the next provider is asked`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const decide = once(reject, (name, response) => response.accept())
    const first = await listening(one, kind, `${kind}-no/.*`, decide)
    const second = await listening(two, kind, `${kind}-no/.*`, decide)
    await subscribe(client, `${kind}-no/1`)
    assert.deepEqual(await first.next(), { found: `${kind}-no/1` })
    assert.deepEqual(await second.next(), { found: `${kind}-no/1` })
    await Promise.all([one, two].map(provider => provider.record.head('barrier')))
    assert.deepEqual([first.rest, second.rest], [[], []])
  })

  test(`${kind}: when all reject nobody is asked twice`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const providers = [one, two]
    const inboxes = []
    for (const provider of providers) inboxes.push(await listening(provider, kind, `${kind}-never/.*`, reject))
    for (const name of [`${kind}-never/1`, `${kind}-never/2`]) {
      await subscribe(client, name)
      for (const inbox of inboxes) assert.deepEqual(await inbox.next(), { found: name })
      await Promise.all(providers.map(provider => provider.record.head('barrier')))
    }
    assert.deepEqual(inboxes.map(inbox => inbox.rest), [[], []])
  })

  test(`${kind}: a provider that does not answer is passed over and told`, async t => {
    const [TOPIC, name, subscription] = [kind.toUpperCase(), `${kind}-mute/.*`, `${kind}-mute/1`]
    const client = await login(t, hasty)
    const providers = await rawListening(t, hasty, TOPIC, name)
    await subscribe(client, subscription)
    const [[, mute], [, next]] = await turns(...providers)
    await mute.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
    await mute.expect(TOPIC, 'LISTEN_RESPONSE_TIMEOUT', { subscription })
    await next.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
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
    const pattern = `${kind}-over/.*`
    const providers = [[await listening(one, kind, pattern), one], [await listening(two, kind, pattern), two]]
    await subscribe(client, `${kind}-over/1`)
    const [[first, leaving], [second]] = await turns(...providers)
    await first.next()
    await leaving.tap.confirmed(kind.toUpperCase(), 'UNLISTEN', pattern, () => leaving[kind].unlisten(pattern))
    assert.deepEqual(await second.next(), { found: `${kind}-over/1` })
    assert.deepEqual(first.rest, [], 'the one that left is not told to stop')
  })

  test(`${kind}: the next provider takes over when one disappears`, async t => {
    const [one, two, client] = await logins(t, node, 3)
    const providers = [[await listening(one, kind, `${kind}-gone/.*`), one], [await listening(two, kind, `${kind}-gone/.*`), two]]
    await subscribe(client, `${kind}-gone/1`)
    const [[, leaving], [second]] = await turns(...providers)
    await leaving.record.head('barrier')
    leaving.close()
    assert.deepEqual(await second.next(), { found: `${kind}-gone/1` })
  })

  test(`${kind}: a provider that disappears while it is asked is passed over`, async t => {
    const [TOPIC, name, subscription] = [kind.toUpperCase(), `${kind}-vanish/.*`, `${kind}-vanish/1`]
    const client = await login(t, node)
    const providers = await rawListening(t, node, TOPIC, name)
    await subscribe(client, subscription)
    const [[, leaving], [, next]] = await turns(...providers)
    await leaving.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
    leaving.drop()
    await next.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
  })

  test(`${kind}: only the provider that was asked may accept`, async t => {
    const [TOPIC, name, subscription] = [kind.toUpperCase(), `${kind}-liar/.*`, `${kind}-liar/1`]
    const client = await login(t, node)
    const providers = await rawListening(t, node, TOPIC, name)
    await subscribe(client, subscription)
    const [[, one], [, liar]] = await turns(...providers)
    await one.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
    liar.send(TOPIC, 'LISTEN_ACCEPT', { name, subscription })
    await liar.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_REMOVED', { name, subscription })
    await liar.silent()
    one.send(TOPIC, 'LISTEN_REJECT', { name, subscription })
    await liar.expect(TOPIC, 'SUBSCRIPTION_FOR_PATTERN_FOUND', { name, subscription })
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
