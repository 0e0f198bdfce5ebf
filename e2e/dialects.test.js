// Clients of all dialects on one node, in the same scenario: specs 02 and 03.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { dialects } from './lib/dialects.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const run = promisify(execFile)

const node = await startNode({
  connectionEndpoints: Object.keys(dialects).map(type => ({ type })),
  rpc: { ackTimeout: 20000, responseTimeout: 20000 },
  permission: {
    type: 'config',
    options: {
      permissions: {
        presence: { '*': { allow: true } },
        record: { '*': { create: true, write: true, read: true, delete: true, listen: true, notify: true }, 'readonly/*': { create: true, read: true, write: false } },
        event: { '*': { publish: true, subscribe: true, listen: true } },
        rpc: { '*': { provide: true, request: true } }
      }
    }
  }
})

// values are what can be sent, and has to come out as the same. (An old client that has []
// takes {} for no change.)
const values = ['text', '', 'S {}"\\ \n ü 🦊', 0, -1.5, 1e21, 12345678901, true, false, null, {}, [], { a: [1, { b: null }], 'ü': 'x' }]

// become waits until the record is what it should be.
async function become (record, want) {
  await new Promise(resolve => {
    const check = () => { try { assert.deepEqual(record.get(), want); resolve() } catch {} }
    record.subscribe(check)
    check()
  })
}

const kinds = Object.keys(dialects)
const pairs = kinds.flatMap(a => kinds.map(b => [a, b]))

for (const [from, to] of pairs) {
  const a = dialects[from]; const b = dialects[to]
  const at = `${from}-${to}`
  const both = t => Promise.all([a.login(t, node, `${at}/a`), b.login(t, node, `${at}/b`)])

  test(`${from} to ${to}: events`, async t => {
    const [one, two] = await both(t)
    const inbox = await b.subscribed(two, `${at}/event`)
    for (const value of values) {
      one.event.emit(`${at}/event`, value)
      assert.deepEqual(await inbox.next(), value)
    }
    one.event.emit(`${at}/event`)
    assert.equal(await inbox.next(), undefined)
  })

  test(`${from} to ${to}: records`, async t => {
    const [one, two] = await both(t)
    const name = `${at}/record`
    const mine = await a.record(one, name)
    const theirs = await b.record(two, name)
    await a.setWithAck(mine, { list: values, n: 1 })
    await become(theirs, { list: values, n: 1 })
    for (const value of values) {
      await a.setWithAck(mine, 'p.q', value)
      await become(theirs, { list: values, n: 1, p: { q: value } })
    }
    a.erase(mine, 'list')
    await become(theirs, { n: 1, p: { q: values.at(-1) } })
    // And back, so that the versions of both are right.
    await b.setWithAck(theirs, 'n', 2)
    await become(mine, { n: 2, p: { q: values.at(-1) } })
    assert.equal(await a.head(one, name), mine.version)
    assert.equal(mine.version, theirs.version)
  })

  test(`${from} to ${to}: records that are not loaded`, async t => {
    const [one, two] = await both(t)
    await a.setData(one, `${at}/data`, { x: 1 })
    await a.setData(one, `${at}/data`, 'y.z', 'ü')
    assert.deepEqual(await b.snapshot(two, `${at}/data`), { x: 1, y: { z: 'ü' } })
    assert.equal(await b.head(two, `${at}/data`), 2)
    assert.equal(await b.head(two, `${at}/nothing`), -1)
  })

  test(`${from} to ${to}: a record is deleted`, async t => {
    const [one, two] = await both(t)
    const mine = await a.record(one, `${at}/deleted`)
    const theirs = await b.record(two, `${at}/deleted`)
    const gone = new Promise(resolve => theirs.once('delete', resolve))
    await a.deleted(mine)
    await gone
    assert.equal(await a.head(one, `${at}/deleted`), -1)
  })

  test(`${from} calls ${to}`, async t => {
    const [one, two] = await both(t)
    await b.provided(two, `${at}/echo`, (data, response) => response.send(data))
    await b.provided(two, `${at}/fail`, (data, response) => response.error('out of "order"'))
    await b.provided(two, `${at}/no`, (data, response) => response.reject())
    for (const value of values) assert.deepEqual(await a.make(one, `${at}/echo`, value), value)
    // An old client is told a typed text: spec 02 §5.
    const reason = from === 'ws-text' ? 'Sout of "order"' : 'out of "order"'
    await assert.rejects(() => a.make(one, `${at}/fail`, null).catch(reason => { throw new Error(reason) }), { message: reason })
    await assert.rejects(() => a.make(one, `${at}/no`, null).catch(reason => { throw new Error(reason) }), { message: 'NO_RPC_PROVIDER' })
    await assert.rejects(() => a.make(one, `${at}/nobody`, null).catch(reason => { throw new Error(reason) }), { message: 'NO_RPC_PROVIDER' })
  })

  test(`${from} sees ${to} come and go`, async t => {
    const one = await a.login(t, node, `${at}/a`)
    const inbox = await a.presence(one, `${at}/seen`)
    const two = await b.login(t, node, `${at}/seen`)
    assert.equal(await inbox.next(), true)
    assert.deepEqual(await a.online(one, [`${at}/seen`, `${at}/never`]), { [`${at}/seen`]: true, [`${at}/never`]: false })
    const all = await a.all(one)
    assert.ok(all.includes(`${at}/seen`) && !all.includes(`${at}/a`), `${all}`)
    b.close(two)
    assert.equal(await inbox.next(), false)
  })

  for (const topic of ['event', 'record']) {
    test(`${from} provides what ${to} subscribes to: ${topic}`, async t => {
      const [one, two] = await both(t)
      const asked = await a.listening(one, topic, `^${at}-${topic}/.*`)
      const name = `${at}-${topic}/1`
      const held = topic === 'event' ? await b.subscribed(two, name) : await b.record(two, name)
      assert.deepEqual(await asked.next(), { found: name })
      if (topic === 'event') {
        two.event.unsubscribe(name)
      } else {
        await b.hasProvider(two, name)
        assert.equal(held.hasProvider, true)
        held.discard()
      }
      assert.deepEqual(await asked.next(), { stopped: name })
    })
  }

  test(`${from} writes at once with ${to}`, async t => {
    const [one, two] = await both(t)
    const name = `${at}/conflict`
    const mine = await a.record(one, name)
    const theirs = await b.record(two, name)
    a.merging(mine)
    b.merging(theirs)
    mine.set({ a: 1 })
    theirs.set({ b: 2 })
    await Promise.all([become(mine, { a: 1, b: 2 }), become(theirs, { a: 1, b: 2 })])
  })
}

test('ws-text: of two writes at once with an acknowledgement both are merged and acknowledged', async t => {
  const d = dialects['ws-text']
  const clients = await Promise.all(['a', 'b'].map(user => d.login(t, node, `late/${user}`)))
  const records = await Promise.all(clients.map(client => d.record(client, 'late/record')))
  for (const record of records) d.merging(record)
  await Promise.all(records.map((record, i) => d.setWithAck(record, `by${i}`, i)))
  await Promise.all(records.map(record => become(record, { by0: 0, by1: 1 })))
  const late = clients.flatMap(client => client.lines.items).filter(line => line.includes('VERSION_EXISTS'))
  assert.ok(late.some(line => line.endsWith('{"writeSuccess":true}')), late.join('\n')) // what is merged need not ask for it
})

test('ws-text: what is not there', async t => {
  const d = dialects['ws-text']
  const client = await d.login(t, node, 'absent')
  const answered = []
  client.record.has('absent/has', (...answer) => answered.push(answer))
  client.record.snapshot('absent/snapshot', (...answer) => answered.push(answer))
  assert.equal(await d.head(client, 'absent/head'), -1)
  assert.deepEqual((await client.errors.next()).slice(0, 2), ['absent/snapshot', 'RECORD_NOT_FOUND'])
  assert.deepEqual(answered, []) // as with deepstream
})

for (const [kind, d] of Object.entries(dialects)) {
  test(`${kind}: a write that is denied`, async t => {
    const client = await d.login(t, node, `${kind}/denied`)
    const record = await d.record(client, `readonly/${kind}`)
    await assert.rejects(() => d.setWithAck(record, 'a', 1).catch(reason => { throw new Error(reason?.message ?? reason) }), { message: 'MESSAGE_DENIED' })
    if (kind === 'ws-text') assert.equal((await client.errors.next())[1], 'MESSAGE_DENIED')
  })
}

// The pages of these dialects have programs to paste: they run against the node, in one process
// each, and say what the page promises.
for (const page of ['ws-text', 'ws-json']) {
  test(`docs/${page}.md: its programs run`, async t => {
    const own = await startNode({ connectionEndpoints: Object.keys(dialects).map(type => ({ type })) }, { t, secure: false })
    const text = readFileSync(new URL(`../docs/${page}.md`, import.meta.url), 'utf8')
    const programs = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, program]) => program)
    assert.ok(programs.length > 0, 'the page has no program')
    for (const program of programs) {
      const { stdout, stderr } = await run(process.execPath, ['-e', program.replaceAll('127.0.0.1:6020', new URL(own.url).host)],
        { cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname })
      assert.equal(stderr, '')
      assert.match(stdout, /text: 'hello'/, program)
    }
  })
}
