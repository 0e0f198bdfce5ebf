// The rule language and where it is asked, as the published client sees it: spec 07
// §3 (which rule), §4 (what an outcome means), §5 (variables), §7 (references), §9.
import assert from 'node:assert/strict'
import { listening, login, logins, provided, ready, rejection, subscribed, told, unplugged, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { proxied } from './lib/proxy.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const everything = { create: true, read: true, write: true, delete: true, listen: true, notify: true }

// outcomes are rules, each with what becomes of a message: allowed, denied, failed.
const outcomes = {
  true: 'allowed', '1': 'allowed', "'0'": 'allowed', '[]': 'allowed', '({})': 'allowed', "'false'": 'allowed',
  false: 'denied', '0': 'denied', '-0': 'denied', "''": 'denied', null: 'denied', undefined: 'denied', NaN: 'denied',
  "_('missing')": 'denied', 'user.data && user.data.owner': 'denied', "user.nothing?.id === 'x'": 'denied',
  'user.nothing.id': 'failed', "_('missing').x": 'failed', 'name.x.y': 'failed', 'name.startsWith': 'failed',
  '_(4711)': 'failed', '_(null)': 'failed', '_(user)': 'failed', '_(user.none) === undefined': 'allowed', "_('a' + undefined) === undefined": 'allowed'
}
const listed = Object.entries(outcomes)

const node = await startNode({
  allowOpenFallback: true,
  auth: [
    { type: 'file', options: { users: { ada: { password: 'p', serverData: { role: 'editor', groups: ['press'] } }, plain: { password: 'p' } } } },
    { type: 'none' }
  ],
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: {
          '*': everything,
          'action/$kind': {
            create: "$kind === 'create' ? action === 15 : true",
            read: "$kind === 'read' ? action === 3 : $kind === 'head' ? action === 5 : true",
            write: "$kind === 'update' ? action === 18 : $kind === 'patch' ? action === 19 : true",
            delete: "$kind === 'erase' ? action === 20 : action === 9"
          },
          'listenable/*': { ...everything, listen: "action === 27 && name === 'listenable/one'" },
          'public-read-private-write/$userid': { create: 'user.id === $userid', read: true, write: 'user.id === $userid' },
          'only-increment': { create: true, read: true, write: '!oldData?.value || data.value > oldData.value' },
          'd/*': { create: "_('perm/JohnDoe').boolean", read: "_('perm/JohnDoe').boolean" },
          'bulk/$letter': { ...everything, read: "$letter !== 'b'", create: "$letter !== 'c'" },
          'missing/$x': { ...everything, write: 'data.value > oldData.value' },
          'old/$x': { ...everything, write: '!oldData', read: 'oldData.open === true', delete: 'oldData.owner === user.id' },
          'open/$x': { ...everything, read: 'oldData?.open === true' },
          'chain/2': { ...everything, read: "_(_('link/1').next).next === 'link/3'", write: "_(_('link/1').next).next === 'link/3' && oldData?.n !== data.n" },
          'chain/3': { ...everything, read: "_(_(_('link/1').next).next).next === 'link/4'" },
          'self/$x': { ...everything, write: "_(name) === null || _(name).n < data.n" },
          'order/$x': { ...everything, write: "_('link/1').next === 'link/2' && (oldData.n === undefined || data.n === oldData.n + 1)" }
        },
        event: {
          '*': { publish: true, subscribe: true, listen: true },
          ...Object.fromEntries(listed.map(([rule], i) => [`result/${i}`, { publish: rule, subscribe: rule, listen: rule }])),
          'over/ten': { publish: 'data > 10' },
          'no/data': { publish: 'data === undefined' },
          'null/data': { publish: 'data === null' },
          'who/$id': { publish: 'user.id === $id', subscribe: "user.isAuthenticated && user.data !== null && user.data.role === 'editor' && user.data.groups.includes('press')" },
          'stranger/x': { publish: "!user.isAuthenticated && user.id === 'open'" },
          'clock/x': { publish: 'now > 1700000000000 && now < 4000000000000 && now === now' },
          'called/$a/by/$b2': { publish: 'name === `called/$${$a}/by/$${$b2}` && action === 2' },
          'bulk/$letter': { subscribe: "$letter !== 'b' && action === 3" },
          'broken/$letter': { subscribe: "$letter === 'a' || user.nothing.id" },
          'news/$topic': { publish: "$topic === 'tea-cup-pigs'" },
          'granted/$x': { publish: "_('grant/' + user.id).events === true" },
          'literal/a.b+c': { publish: false },
          'listen/$x': { listen: "action === 5 && $x === '.*'" }
        },
        rpc: {
          '*': { provide: true, request: true },
          add: { request: "action === 2 && typeof data.a === 'number' && typeof data.b === 'number'", provide: 'action === 8' },
          bare: { request: 'data === undefined' },
          fails: { request: 'data.a.b', provide: 'user.nothing.id' }
        },
        presence: {
          '*': { allow: "user.id === 'B'" },
          'seen/$who': { allow: true },
          'self/$id': { allow: "user.id === $id" }
        }
      }
    }
  }
})

const user = name => ({ username: name, password: 'p' })
const DENIED = 'MESSAGE_DENIED'
const FAILED = 'MESSAGE_PERMISSION_ERROR'
const refused = async (promise, reason = DENIED) => assert.equal(await rejection(promise), reason)

// link has the records that rules of chain/ and order/ lead through.
async function link (client) {
  await client.record.setDataWithAck('link/1', { next: 'link/2' })
  await client.record.setDataWithAck('link/2', { next: 'link/3' })
  await client.record.setDataWithAck('link/3', { next: 'link/4' })
}

test('only what is truthy allows, and what fails denies (trap 17)', async t => {
  const client = await login(t, node, user('plain'))
  for (const [i, [rule, outcome]] of listed.entries()) {
    const name = `result/${i}`
    if (outcome === 'allowed') {
      const inbox = await subscribed(client, name)
      const raw = await rawLogin(t, node, 'raw')
      raw.send('EVENT', 'EMIT', { name, data: '1' })
      assert.equal(await inbox.next(), 1, rule)
      await listening(client, 'event', name)
      continue
    }
    const action = outcome === 'denied' ? DENIED : FAILED
    client.event.emit(name, 1)
    await told(client, 'EVENT', 'EMIT', name, action)
    client.event.listen(name, () => assert.fail('asked'))
    await told(client, 'EVENT', 'LISTEN', name, action)
    const raw = await rawLogin(t, node, 'raw')
    raw.send('EVENT', 'SUBSCRIBE', { names: [name], correlationId: '1' })
    await raw.expect('EVENT', action, { name, originalAction: 'SUBSCRIBE', isError: true, correlationId: '1' })
    await raw.silent() // the refusal is all there is (trap 19)
  }
})

test('each action is asked as its number (trap 21)', async t => {
  const [client, setter] = await logins(t, node, [user('ada'), user('plain')])
  await ready(client, 'action/create')
  await setter.record.setDataWithAck('action/read', { x: 1 })
  assert.deepEqual(await client.record.snapshot('action/read'), { x: 1 })
  await refused(client.record.head('action/read'))
  await setter.record.setDataWithAck('action/head', { x: 1 })
  assert.equal(await client.record.head('action/head'), 1)
  await refused(client.record.snapshot('action/head'))
  await setter.record.setDataWithAck('action/update', { x: 1 })
  await refused(setter.record.setDataWithAck('action/update', 'x', 2))
  await refused(setter.record.setDataWithAck('action/patch', { x: 1 }))
  await setter.record.setDataWithAck('action/patch', 'x', 1)
  await refused((await ready(client, 'action/update')).setWithAck('x', 2))
  const erased = await ready(client, 'action/erase')
  await erased.setWithAck({ x: 1, y: 2 })
  await erased.eraseWithAck('x')
  await refused(erased.delete())
  await (await ready(client, 'action/other')).delete()
})

test('of what is subscribed to at once exactly the denied names are lost (trap 18)', async t => {
  const [client, sender] = await logins(t, node, [user('ada'), user('plain')])
  const inboxes = {}
  // The client puts them into one message.
  for (const letter of ['a', 'b', 'c']) client.event.subscribe(`bulk/${letter}`, data => { (inboxes[letter] ??= []).push(data) })
  await told(client, 'EVENT', 'SUBSCRIBE', 'bulk/b')
  assert.deepEqual((await client.tap.sent({ topic: 'EVENT', action: 'SUBSCRIBE' })).names, ['bulk/a', 'bulk/b', 'bulk/c'])
  await client.tap.acked('EVENT', 'SUBSCRIBE', 'bulk/a')
  const marker = await subscribed(client, 'bulk/marker')
  for (const letter of ['a', 'b', 'c']) sender.event.emit(`bulk/${letter}`, letter)
  sender.event.emit('bulk/marker', 1)
  await marker.next()
  for (const letter of ['a', 'c']) await client.tap.received({ action: 'EMIT', name: `bulk/${letter}` })
  assert.deepEqual(inboxes, { a: ['a'], c: ['c'] })
  const raw = await rawLogin(t, node, 'raw')
  raw.send('EVENT', 'SUBSCRIBE', { names: ['broken/a', 'broken/b', 'broken/a'], correlationId: '1' })
  await raw.expect('EVENT', FAILED, { name: 'broken/b', originalAction: 'SUBSCRIBE', isError: true, correlationId: '1' })
  await raw.inbox.until(all => all.some(m => m.isAck && m.correlationId === '1'))
})

test('of records loaded at once exactly the denied ones are lost', async t => {
  const [client, other] = await logins(t, node, [user('ada'), user('plain')])
  const records = Object.fromEntries(['a', 'b', 'c', 'd'].map(letter => [letter, client.record.getRecord(`bulk/${letter}`)]))
  await Promise.all([records.a.whenReady(), records.d.whenReady()])
  await told(client, 'RECORD', 'SUBSCRIBECREATEANDREAD', 'bulk/b')
  await told(client, 'RECORD', 'SUBSCRIBECREATEANDREAD', 'bulk/c')
  assert.deepEqual((await client.tap.sent({ action: 'SUBSCRIBECREATEANDREAD' })).names, ['bulk/a', 'bulk/b', 'bulk/c', 'bulk/d'])
  assert.deepEqual(await Promise.all(['a', 'd'].map(l => other.record.has(`bulk/${l}`))), [true, true])
  await refused(other.record.has('bulk/b'))
  assert.equal(await other.record.has('bulk/c'), false)
  const [, inbox] = await watched(client, 'bulk/d')
  await other.record.setDataWithAck('bulk/d', { n: 1 })
  assert.deepEqual(await inbox.next(), { n: 1 })
})

test('data that looks like a number is one, and no data is none', async t => {
  const [sender, receiver] = await logins(t, node, [user('ada'), user('plain')])
  const inbox = await subscribed(receiver, 'over/ten')
  for (const [data, passes] of [[12, true], ['12', true], [10, false], ['9', false], [[11], true], [{}, false], [true, false], [null, false], [undefined, false], ['x', false]]) {
    sender.event.emit('over/ten', data)
    if (passes) assert.deepEqual(await inbox.next(), data)
    else await told(sender, 'EVENT', 'EMIT', 'over/ten')
  }
  const none = await subscribed(receiver, 'no/data')
  sender.event.emit('no/data')
  assert.equal(await none.next(), undefined)
  sender.event.emit('no/data', null)
  await told(sender, 'EVENT', 'EMIT', 'no/data')
  const nothing = await subscribed(receiver, 'null/data')
  sender.event.emit('null/data')
  await told(sender, 'EVENT', 'EMIT', 'null/data')
  sender.event.emit('null/data', null)
  assert.equal(await nothing.next(), null)
})

test('a rule knows who asks, for what, and when', async t => {
  const [ada, plain, stranger] = await logins(t, node, [user('ada'), user('plain'), {}])
  const inbox = await subscribed(ada, 'who/plain')
  plain.event.emit('who/plain', 1)
  assert.equal(await inbox.next(), 1)
  stranger.event.emit('who/plain', 2)
  await told(stranger, 'EVENT', 'EMIT', 'who/plain')
  plain.event.subscribe('who/plain', () => assert.fail('delivered'))
  await told(plain, 'EVENT', 'SUBSCRIBE', 'who/plain') // without server data user.data is null
  stranger.event.subscribe('who/plain', () => assert.fail('delivered'))
  await told(stranger, 'EVENT', 'SUBSCRIBE', 'who/plain')
  const strange = await subscribed(ada, 'stranger/x')
  stranger.event.emit('stranger/x', 1)
  assert.equal(await strange.next(), 1)
  plain.event.emit('stranger/x', 2)
  await told(plain, 'EVENT', 'EMIT', 'stranger/x')
  const clock = await subscribed(ada, 'clock/x')
  plain.event.emit('clock/x', 1)
  assert.equal(await clock.next(), 1)
  const called = await subscribed(ada, 'called/one/by/two')
  plain.event.emit('called/one/by/two', 1)
  assert.equal(await called.next(), 1)
  const deeper = await subscribed(ada, 'called/one/more/by/two') // no variable has a slash: the path does not match
  plain.event.emit('called/one/more/by/two', 1)
  assert.equal(await deeper.next(), 1)
})

test('the characters of a path stand for themselves', async t => {
  const [sender, receiver] = await logins(t, node, [user('ada'), user('plain')])
  sender.event.emit('literal/a.b+c', 1)
  await told(sender, 'EVENT', 'EMIT', 'literal/a.b+c')
  const inbox = await subscribed(receiver, 'literal/axbbc')
  sender.event.emit('literal/axbbc', 1)
  assert.equal(await inbox.next(), 1)
})

test('oldData is what is stored, or null', async t => {
  const [ada, plain] = await logins(t, node, [user('ada'), user('plain')])
  // oldData of a missing record has no members.
  await refused(ada.record.setDataWithAck('missing/a', { value: 1 }), FAILED)
  assert.equal(await ada.record.has('missing/a'), false)
  // Mentioned at the very end of a rule, it counts.
  await ada.record.setDataWithAck('old/a', { owner: 'ada', open: true })
  await refused(ada.record.setDataWithAck('old/a', { owner: 'ada' }))
  assert.deepEqual(await plain.record.snapshot('old/a'), { owner: 'ada', open: true })
  await ada.record.setDataWithAck('old/b', { owner: 'ada', open: false })
  await refused(plain.record.snapshot('old/b'))
  await refused(plain.record.head('old/b'))
  await refused((await ready(plain, 'old/a')).delete())
  await (await ready(ada, 'old/a')).delete()
  await refused(ada.record.has('old/none'), FAILED)
})

test('a read rule is asked when somebody asks, not for each change', async t => {
  const proxy = await proxied(t, node)
  const [ada, late] = await logins(t, node, [user('ada'), user('plain')])
  const plain = await login(t, proxy, user('plain'), { tolerate: unplugged })
  await ada.record.setDataWithAck('open/x', { open: true })
  const [record, inbox] = await watched(plain, 'open/x')
  await ada.record.setDataWithAck('open/x', { open: false })
  await ada.record.setDataWithAck('open/x', { open: false, n: 1 })
  assert.deepEqual(await inbox.take(2), [{ open: false }, { open: false, n: 1 }])
  await refused(late.record.snapshot('open/x'))
  // Whoever connects anew asks anew.
  const error = new Promise(resolve => record.on('error', (...args) => resolve(args)))
  await proxy.cut()
  await proxy.mend()
  assert.deepEqual(await error, [DENIED, 'SUBSCRIBEANDHEAD'])
  await told(plain, 'RECORD', 'SUBSCRIBEANDHEAD', 'open/x')
  await ada.record.setDataWithAck('open/x', { open: false, n: 2 })
  await plain.record.has('marker') // what was sent before has arrived
  assert.deepEqual(inbox.rest, [])
})

test('a call is judged by its data, a provider by its name', async t => {
  const [provider, caller] = await logins(t, node, [user('ada'), user('plain')])
  await provided(provider, 'add', ({ a, b }, response) => response.send(a + b))
  assert.equal(await caller.rpc.make('add', { a: 1, b: 2 }), 3)
  for (const data of [{ a: 1, b: '2' }, { a: 1 }, {}, 'a', 7]) await refused(caller.rpc.make('add', data))
  for (const data of [null, undefined]) await refused(caller.rpc.make('add', data), FAILED)
  await provided(provider, 'bare', (data, response) => response.send('done'))
  assert.equal(await caller.rpc.make('bare'), 'done')
  await refused(caller.rpc.make('bare', 0))
  await refused(caller.rpc.make('fails', {}), FAILED)
  provider.rpc.provide('fails', () => assert.fail('asked'))
  await told(provider, 'RPC', 'PROVIDE', 'fails', FAILED)
  assert.deepEqual(provider.rpc.providerNames(), ['add', 'bare'])
})

test('a listen rule sees the pattern', async t => {
  const [client, other] = await logins(t, node, [user('ada'), user('plain')])
  const asked = await listening(client, 'event', 'listen/.*')
  await subscribed(other, 'listen/x')
  assert.deepEqual(await asked.next(), { found: 'listen/x' })
  client.event.listen('listen/x', () => assert.fail('asked'))
  await told(client, 'EVENT', 'LISTEN', 'listen/x')
  const one = await listening(client, 'record', 'listenable/one')
  await ready(other, 'listenable/one')
  assert.deepEqual(await one.next(), { found: 'listenable/one' })
  client.record.listen('listenable/.*', () => assert.fail('asked'))
  await told(client, 'RECORD', 'LISTEN', 'listenable/.*')
})

test('presence is for whom the rule allows (spec 07 §9)', async t => {
  const [a, b] = await logins(t, node, ['A', 'B'])
  await refused(a.presence.getAll())
  await refused(a.presence.getAll(['B']))
  a.presence.subscribe('B', () => assert.fail('told'))
  await told(a, 'PRESENCE', 'SUBSCRIBE', 'B')
  a.presence.subscribe(() => assert.fail('told'))
  await told(a, 'PRESENCE', 'SUBSCRIBE_ALL')
  assert.deepEqual((await b.presence.getAll()).filter(name => name === 'A'), ['A'])
  assert.deepEqual(await b.presence.getAll(['A', 'C']), { A: true, C: false })
  assert.deepEqual(await a.presence.getAll(['seen/x', 'self/A']), { 'seen/x': false, 'self/A': false })
  await refused(a.presence.getAll(['self/B']))
  const joined = new Promise(resolve => b.presence.subscribe((user, login) => { if (user === 'C' && login) resolve() }))
  await b.tap.acked('PRESENCE', 'SUBSCRIBE_ALL')
  await login(t, node, 'C')
  await joined
})

test('public-read-private-write (spec 07 §9)', async t => {
  const [a, b] = await logins(t, node, ['A', 'B'])
  const name = 'public-read-private-write/A'
  await a.record.setDataWithAck(name, { by: 'A' })
  assert.deepEqual(await b.record.snapshot(name), { by: 'A' })
  const record = await ready(b, name)
  for (const [set, action] of [[() => record.set('by', 'B'), 'PATCH'], [() => record.set({ by: 'b' }), 'UPDATE']]) {
    const error = new Promise(resolve => record.once('error', (...args) => resolve(args)))
    set()
    assert.deepEqual(await error, [DENIED, action])
  }
  await refused(b.record.setDataWithAck(name, { by: 'B' }))
  assert.equal(await a.record.head(name), 1)
})

test('only-increment holds under clients that write at once (spec 07 §9)', async t => {
  const [watcher, ...writers] = await logins(t, node, ['watcher', ...Array.from({ length: 6 }, (_, i) => `w${i}`)])
  await watcher.record.setDataWithAck('only-increment', { value: 1 })
  const [, inbox] = await watched(watcher, 'only-increment', 'value')
  const outcomes = await Promise.all(writers.flatMap((w, i) => Array.from({ length: 40 }, (_, n) =>
    w.record.setDataWithAck('only-increment', { value: 2 + (n * 61 + i * 37) % 211 }).then(() => 'written', reason => reason))))
  assert.deepEqual([...new Set(outcomes)].sort(), [DENIED, 'written'])
  const written = outcomes.filter(o => o === 'written').length
  const values = await inbox.take(written)
  for (let i = 1; i < values.length; i++) assert.ok(values[i] > values[i - 1], `it went from ${values[i - 1]} to ${values[i]}`)
  assert.equal(await watcher.record.head('only-increment'), written + 1)
  await refused(writers[0].record.setDataWithAck('only-increment', 'value', 1))
})

test('a rule reads other records, and fails where they are missing (spec 07 §9)', async t => {
  const [client, other] = await logins(t, node, [user('ada'), user('plain')])
  const first = other.record.getRecord('d/x')
  const error = new Promise(resolve => first.on('error', (...args) => resolve(args)))
  assert.equal((await error)[0], FAILED)
  await other.errors.next()
  await client.record.setDataWithAck('perm/JohnDoe', { boolean: false })
  await refused(client.record.snapshot('d/x'))
  await client.record.setDataWithAck('perm/JohnDoe', { boolean: true })
  await ready(client, 'd/x')
  await client.record.setDataWithAck('perm/JohnDoe', { boolean: false })
  await refused((await login(t, node, user('plain'))).record.snapshot('d/x'))
  client.event.emit('granted/x', 1)
  await told(client, 'EVENT', 'EMIT', 'granted/x', FAILED)
  const inbox = await subscribed(other, 'granted/x')
  await client.record.setDataWithAck('grant/ada', { events: true })
  client.event.emit('granted/x', 2)
  assert.equal(await inbox.next(), 2)
})

test('references lead to references, as far as maxRuleIterations', async t => {
  const client = await login(t, node, user('ada'))
  await link(client)
  // Three runs: two records one after the other, and the verdict. The record itself,
  // and what a patch is laid over, do not count.
  await client.record.setDataWithAck('chain/2', { n: 1 })
  await client.record.setDataWithAck('chain/2', 'n', 2)
  await refused(client.record.setDataWithAck('chain/2', 'n', 2))
  assert.deepEqual(await client.record.snapshot('chain/2'), { n: 2 })
  await client.record.setDataWithAck('chain/3', { n: 1 })
  await refused(client.record.snapshot('chain/3'), FAILED)
})

test('a rule may refer to the record that it guards', async t => {
  const client = await login(t, node, user('ada'))
  const set = n => client.record.setDataWithAck('self/x', { n })
  await set(1)
  await set(2)
  await refused(set(2))
  await set(3)
})

test('what a rule has to fetch keeps its order', async t => {
  const [client, other] = await logins(t, node, [user('ada'), user('plain')])
  await link(client)
  await client.record.setDataWithAck('grant/ada', { events: true })
  const [, inbox] = await watched(other, 'order/x', 'n')
  const events = await subscribed(other, 'granted/order')
  const record = await ready(client, 'order/x')
  for (let n = 1; n <= 100; n++) {
    record.set('n', n)
    client.event.emit('granted/order', n)
  }
  const want = Array.from({ length: 100 }, (_, i) => i + 1)
  assert.deepEqual(await events.take(100), want)
  const last = await inbox.until(all => all.at(-1) === 100 && all)
  assert.deepEqual(last.filter(n => n !== undefined), want)
  assert.equal(record.version, 100)
})

test('every refusal settles its promise, and no client is the worse for it', async t => {
  const [client, other] = await logins(t, node, [user('plain'), user('ada')])
  await other.record.setDataWithAck('public-read-private-write/ada', { n: 0 })
  const reasons = await Promise.all(Array.from({ length: 50 }, (_, n) => Promise.all([
    rejection(client.record.setDataWithAck('public-read-private-write/ada', { n })),
    rejection(client.record.setDataWithAck('public-read-private-write/ada', 'n', n)),
    rejection(client.record.snapshot('bulk/b')),
    rejection(client.record.head('bulk/b')),
    rejection(client.rpc.make('add', n)),
    rejection(client.presence.getAll([`nobody/${n}`]))
  ])))
  assert.deepEqual([...new Set(reasons.flat())], [DENIED])
  await client.record.setDataWithAck('fine', { n: 1 })
  assert.deepEqual(await other.record.snapshot('fine'), { n: 1 })
})
