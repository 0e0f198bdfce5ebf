// A hostile client on a bare socket tries every way around the rules: every action
// number of every topic, and every trick that deepstream fell for (spec 07 §8, spec
// 15 traps 16 to 22, 51, 52). What is forbidden stays unread, unchanged, unpublished,
// unprovided and unheard, and everybody is served on.
import assert from 'node:assert/strict'
import { listening, login, provided, ready, rejection, subscribed, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { later, test } from './lib/test.js'
import { encode, number } from './lib/wire.js'

// types are the rule types of each section.
const types = {
  record: ['create', 'read', 'write', 'delete', 'listen', 'notify'],
  event: ['publish', 'subscribe', 'listen'],
  rpc: ['provide', 'request'],
  presence: ['allow']
}

// everywhere makes rules with one and the same rule for everything, and more paths.
const everywhere = (rule, more = {}) => ({
  type: 'config',
  options: {
    permissions: Object.fromEntries(Object.entries(types).map(([section, names]) =>
      [section, { '*': Object.fromEntries(names.map(n => [n, rule])), ...more[section] }]))
  }
})

// guarded are the actions that a rule stands before, unguarded those that only take
// back or answer what a rule has let in, with what they are answered where there is
// nothing of the kind.
const guarded = {
  EVENT: ['EMIT', 'SUBSCRIBE', 'LISTEN'],
  RECORD: ['NOTIFY', 'READ', 'HEAD', 'DELETE', 'CREATEANDUPDATE', 'CREATEANDPATCH', 'UPDATE', 'PATCH', 'ERASE', 'SUBSCRIBEANDHEAD',
    'SUBSCRIBEANDREAD', 'SUBSCRIBECREATEANDREAD', 'SUBSCRIBE', 'LISTEN', 35],
  RPC: ['REQUEST', 'PROVIDE'],
  PRESENCE: ['QUERY_ALL', 'QUERY', 'SUBSCRIBE', 'SUBSCRIBE_ALL']
}
const unguarded = {
  EVENT: { UNSUBSCRIBE: ['UNSUBSCRIBE'], UNLISTEN: ['UNLISTEN'], LISTEN_ACCEPT: [], LISTEN_REJECT: [] },
  RECORD: { UNSUBSCRIBE: ['UNSUBSCRIBE'], UNLISTEN: ['UNLISTEN'], LISTEN_ACCEPT: [], LISTEN_REJECT: [] },
  RPC: {
    ACCEPT: ['INVALID_RPC_CORRELATION_ID'], RESPONSE: ['INVALID_RPC_CORRELATION_ID'],
    REJECT: ['INVALID_RPC_CORRELATION_ID'], REQUEST_ERROR: ['INVALID_RPC_CORRELATION_ID'], UNPROVIDE: ['UNPROVIDE']
  },
  PRESENCE: { UNSUBSCRIBE: ['UNSUBSCRIBE'], UNSUBSCRIBE_ALL: ['UNSUBSCRIBE_ALL'] }
}
// listed are the actions that take a list; without one there is nothing to judge.
const listed = {
  EVENT: ['SUBSCRIBE', 'UNSUBSCRIBE'],
  RECORD: ['NOTIFY', 'SUBSCRIBEANDHEAD', 'SUBSCRIBEANDREAD', 'SUBSCRIBECREATEANDREAD', 'SUBSCRIBE', 'UNSUBSCRIBE'],
  RPC: ['PROVIDE', 'UNPROVIDE'],
  PRESENCE: ['QUERY', 'SUBSCRIBE', 'UNSUBSCRIBE']
}
const numbers = (topic, names) => names.map(name => number(topic, name))
const invalid = { EVENT: 'INVALID_MESSAGE_DATA', RECORD: 'INVALID_MESSAGE_DATA', RPC: 'INVALID_MESSAGE_DATA', PRESENCE: 'INVALID_PRESENCE_USERS' }

// variants are the fields that come with an action: with a name only, a list only,
// both, and with what disguises a write.
const variants = secret => [
  { name: secret },
  { names: [secret] },
  { name: secret, names: [secret], data: '{"stolen":true}' },
  { name: secret, names: [secret], data: '{"stolen":true}', path: 'hush' },
  { name: secret, names: [secret], path: 'hush' },
  { name: secret, names: [secret], data: '{"stolen":true}', isAck: true, isError: true, originalAction: 3, requestorName: 'root', requestorData: '{}' }
].map(fields => ({ version: -1, correlationId: 'c', isWriteAck: true, ...fields }))

const kept = '{"hush":"a whisper"}'

// seed writes the record that nobody may see, as the operator.
async function seed (node, name) {
  const { code, stderr } = await node.run('records', 'set', name, kept, '--data-dir', node.dataDir)
  assert.equal(code, 0, stderr)
}

// unharmed looks at the records from outside.
async function unharmed (node, ...names) {
  const list = await node.run('records', 'list', '--data-dir', node.dataDir)
  assert.equal(list.code, 0, list.stderr)
  assert.deepEqual(list.stdout.split('\n').filter(Boolean).sort(), names.sort())
  for (const name of names) {
    const { stdout } = await node.run('records', 'get', name, '--data-dir', node.dataDir)
    assert.deepEqual(JSON.parse(stdout), JSON.parse(kept))
  }
}

// unheard says that no frame of a client held what is secret.
function unheard (raw) {
  for (const frame of raw.frames.items) assert.ok(!String(frame).includes('whisper'), `a frame told the secret: ${frame}`)
}

// answersOf sends a message and takes its answers, at least as many as are due: what
// the owner of a record answers may come after the answer to a ping.
async function answersOf (raw, topic, action, fields, due) {
  raw.send(topic, action, fields)
  raw.send('CONNECTION', 'PING')
  const got = []
  for (let pong = false; !pong || got.length < due;) {
    const m = await raw.next()
    if (m.topic === 'CONNECTION') pong = true
    else got.push(m)
  }
  return got
}

for (const [what, rule, refusal] of [
  ['a constant that denies', false, 'MESSAGE_DENIED'],
  ['an expression that denies', "user.id === 'keeper'", 'MESSAGE_DENIED'],
  ['a rule that fails', 'user.data.role.name === name', 'MESSAGE_PERMISSION_ERROR'],
  ['a rule that reads another record', "_('grant/' + user.id)?.all", 'MESSAGE_DENIED'],
  ['a result that is not false, but falsy', "user.data && ''", 'MESSAGE_DENIED']
]) {
  test(`every action of every topic meets ${what}`, async t => {
    const node = await startNode({ permission: everywhere(rule) }, { t })
    await seed(node, 'secret')
    const [raw, other] = [await rawLogin(t, node, 'eve'), await rawLogin(t, node, 'bob')]
    for (const topic of Object.keys(guarded)) {
      const checked = new Set(numbers(topic, guarded[topic]))
      const lists = new Set(numbers(topic, listed[topic]))
      const free = new Map(Object.entries(unguarded[topic]).map(([name, answer]) => [number(topic, name), answer]))
      for (let action = 0; action < 256; action++) {
        for (const fields of variants('secret')) {
          if (!fields.names && lists.has(action)) continue
          const acked = topic === 'RECORD' && action === number('RECORD', 'SUBSCRIBECREATEANDREAD') // trap 8
          const got = await answersOf(raw, topic, action, fields, acked ? 2 : free.get(action)?.length ?? 1)
          const said = `${topic} ${action} ${JSON.stringify(fields)} was answered ${JSON.stringify(got)}`
          if (acked) assert.ok(got.shift().isAck, said)
          const [m] = got
          if (m?.action === invalid[topic]) assert.ok(m.isError && (checked.has(action) || free.has(action)), said)
          else if (free.has(action)) assert.deepEqual(got.map(m => m.action), free.get(action), said)
          else if (checked.has(action)) assert.deepEqual([m?.topic, m?.action, m?.isError], [topic, refusal, true], said)
          else assert.deepEqual([m?.topic, m?.action], ['PARSER', 'UNKNOWN_ACTION'], said)
          assert.ok(got.length <= 1, said)
        }
      }
    }
    // The topics that are not for clients, and those that do not exist.
    const marked = encode('EVENT', 200, { name: 'secret', names: ['secret'], data: '1' })
    const at = marked.indexOf(Buffer.from([0x10, 4, 0x1a])) + 1
    for (const topic of [0, 1, 3, 8, 9, 10, 11, 100, 127]) {
      for (let action = 0; action < 256; action++) {
        const frame = Buffer.from(encode('EVENT', action || 200, { name: 'secret', names: ['secret'], data: '1' }))
        frame[at] = topic
        raw.bytes(frame)
        const m = await raw.next()
        assert.equal(m.topic, 'PARSER', `topic ${topic} action ${action} was answered ${JSON.stringify(m)}`)
      }
    }
    for (let action = 4; action < 256; action++) {
      raw.send('CONNECTION', action, { url: 'ws://elsewhere', protocolVersion: '0.1a', sdkVersion: '7.0.5', sdkType: 'javascript' })
      assert.equal((await raw.next()).topic, 'PARSER')
    }
    await raw.alive()
    await other.alive()
    unheard(raw)
    await unharmed(node, 'secret')
  })
}

// keeper may do everything, others what bears the name "public".
const mixed = await startNode({
  permission: everywhere("user.id === 'keeper' || name === 'public'", {
    record: {
      'roles/$id': { create: true, read: true, write: "data.role !== 'admin'", delete: false, listen: false, notify: false },
      'erasable/$id': { create: false, read: false, write: false, delete: true },
      'writable/$id': { create: false, read: false, write: true, delete: false },
      'closed/data/$id': { create: true, read: 'oldData?.open === true', write: true, delete: false },
      'closed/reference/$id': { create: true, read: "_('grant/' + name)?.open === true", write: true, delete: false },
      'closed/failing/$id': { create: true, read: 'oldData.open.really', write: true, delete: false },
      'typed/$id': { create: true, read: true, write: "typeof data.n === 'number' && data.owner === user.id", delete: false }
    },
    event: {
      'shut/*': { publish: false, subscribe: false, listen: false },
      'shut/in/$x': { publish: true, subscribe: "$x === 'here'" },
      'by/$name': { publish: "_('grant/' + data.grant).open === true", subscribe: true }
    },
    rpc: { service: { provide: "user.id === 'keeper'", request: true } }
  })
})

const outside = async name => JSON.parse((await mixed.run('records', 'get', name, '--data-dir', mixed.dataDir)).stdout)

// forbidden says that a client heard of a secret only that it is refused.
function forbidden (raw) {
  unheard(raw)
  for (const m of raw.inbox.items) {
    const about = m.name === 'secret' || m.names?.includes('secret')
    const echo = m.isAck && ['SUBSCRIBECREATEANDREAD', 'UNLISTEN'].includes(m.action) // traps 7, 8
    assert.ok(!about || m.isError || echo, `eve was told ${JSON.stringify(m)}`)
  }
}

test('a name and a list that disagree: only what is allowed happens (trap 51)', async t => {
  const [keeper, helper] = await Promise.all([login(t, mixed, 'keeper'), login(t, mixed, 'keeper')])
  await seed(mixed, 'secret')
  later(t, () => mixed.run('records', 'delete', 'secret', 'public', '--data-dir', mixed.dataDir))
  const [, changes] = await watched(keeper, 'secret')
  const events = await subscribed(keeper, 'secret')
  const calls = []
  await provided(keeper, 'secret', (data, response) => { calls.push(data); response.send('kept') })
  const raw = await rawLogin(t, mixed, 'eve')
  const lists = [['public'], ['public', 'secret'], ['secret', 'public'], ['public', 'secret', 'public']]
  for (const topic of Object.keys(guarded)) {
    for (const action of [...numbers(topic, guarded[topic]), ...numbers(topic, Object.keys(unguarded[topic]))]) {
      if (topic === 'RPC' && action === number('RPC', 'REQUEST')) continue // below
      for (const names of lists) {
        for (const more of [{}, { data: '{"stolen":true}' }, { data: '1', path: 'hush' }, { path: 'hush' }]) {
          for (const name of ['secret', 'public']) {
            raw.send(topic, action, { name, names, version: -1, correlationId: 'c', isWriteAck: true, ...more })
          }
        }
      }
    }
  }
  for (const names of lists) {
    raw.send('RPC', 'REQUEST', { name: 'secret', names, correlationId: 'call', data: '1' })
  }
  // Whatever is still on its way comes before this: it asks for one record's queue and the door.
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: ['secret'], correlationId: 'last' })
  await raw.inbox.until(all => all.some(m => m.action === 'MESSAGE_DENIED' && m.correlationId === 'last'))
  assert.equal(raw.inbox.items.filter(m => m.topic === 'RPC' && m.action === 'MESSAGE_DENIED' && m.correlationId === 'call').length, lists.length)
  forbidden(raw)
  assert.deepEqual([changes.items, events.items, calls], [[], [], []])
  assert.deepEqual(await outside('secret'), JSON.parse(kept))

  // Nor is eve subscribed, listening or providing now.
  raw.send('EVENT', 'SUBSCRIBE', { names: ['public', 'secret'], correlationId: 'e' })
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: ['secret', 'public'], correlationId: 'r' })
  raw.send('RPC', 'PROVIDE', { names: ['secret'], correlationId: 'p' })
  await raw.inbox.until(all => all.some(m => m.correlationId === 'e' && m.isAck) && all.some(m => m.correlationId === 'p' && m.isError) &&
    all.some(m => m.correlationId === 'r' && m.isAck))
  assert.equal(await helper.rpc.make('secret', 7), 'kept')
  await helper.record.setDataWithAck('secret', { hush: 'a louder whisper' })
  assert.deepEqual(await changes.next(), { hush: 'a louder whisper' })
  helper.event.emit('secret', 'whisper')
  assert.equal(await events.next(), 'whisper')
  await helper.record.setDataWithAck('public', { marker: 1 })
  helper.event.emit('public', 'marker')
  await raw.inbox.until(all => all.some(m => m.action === 'EMIT' && m.data === '"marker"'))
  forbidden(raw)
  assert.deepEqual(calls, [7])
  await keeper.record.has('secret')
})

test('a write in disguise meets the rule of what it does (trap 52)', async t => {
  const raw = await rawLogin(t, mixed, 'eve')
  const name = 'roles/eve'
  await (await login(t, mixed, 'eve')).record.setDataWithAck(name, { role: 'user' })
  const admin = '"admin"'
  const tries = [
    ['UPDATE', { data: '{"role":"admin"}' }],
    ['UPDATE', { data: admin, path: 'role' }],
    ['UPDATE', { data: '{"role":"user","role":"admin"}' }], // the last one counts, for everybody
    ['UPDATE', { data: '{"r\\u006fle":"\\u0061dmin"}' }],
    ['UPDATE', { data: ' \n{ "role" : "admin" } ' }],
    ['PATCH', { data: admin, path: 'role' }],
    ['PATCH', { data: admin, path: '["role"]' }],
    ['PATCH', { data: admin, path: "['role']" }],
    ['PATCH', { data: admin, path: '.role' }],
    ['PATCH', { data: admin, path: 'role.' }],
    ['PATCH', { data: admin, path: ' role' }],
    ['PATCH', { data: admin, path: '[role]' }],
    ['CREATEANDUPDATE', { data: '{"role":"admin"}' }],
    ['CREATEANDUPDATE', { data: admin, path: 'role' }],
    ['CREATEANDPATCH', { data: admin, path: 'role' }], // trap 16: not the bare value
    ['CREATEANDPATCH', { data: '{"role":"user"}', path: '' }],
    [35, { data: '[{"path":"role","data":"admin"}]' }],
    [35, { data: '[{"path":"role","data":"user"},{"path":"role","data":"admin"}]' }],
    [35, { data: '[{"path":"x","data":1}]', path: 'role' }],
    ['ERASE', { data: '{"role":"admin"}', path: 'role' }],
    ['ERASE', { data: '{"role":"admin"}' }],
    ['ERASE', { path: 'role' }],
    ['ERASE', {}],
    ['DELETE', { data: '{"role":"admin"}', path: 'role' }],
    ['NOTIFY', { names: [name], data: '{"role":"admin"}' }],
    ['READ', { data: '{"role":"admin"}', path: 'role' }],
    ['SUBSCRIBECREATEANDREAD', { names: [name], data: '{"role":"admin"}', path: 'role' }],
    [24, { data: '{"role":"admin"}' }],
    [15, { data: '{"role":"admin"}' }]
  ]
  for (const version of [-1, 2, 0, 1]) {
    for (const flags of [{}, { isWriteAck: true }, { isWriteAck: true, isAck: true, isError: true }]) {
      for (const [i, [action, fields]] of tries.entries()) {
        raw.send('RECORD', action, { name, version, correlationId: `${i}`, ...flags, ...fields })
      }
    }
  }
  raw.send('RECORD', 'READ', { name, correlationId: 'last' })
  raw.send('RECORD', 'CREATEANDUPDATE', { name, version: -1, data: '{"role":"guest"}', correlationId: 'written', isWriteAck: true })
  await raw.inbox.until(all => all.some(m => m.action === 'WRITE_ACKNOWLEDGEMENT' && m.correlationId === 'written'))
  for (const m of raw.inbox.items) {
    if (m.data) assert.notEqual(m.data.startsWith('{') && JSON.parse(m.data).role, 'admin', `it became ${JSON.stringify(m)}`)
  }
  assert.equal((await outside(name)).role, 'guest')
})

test('a record can be erased from by whom may delete, and not be written that way', async t => {
  await seed(mixed, 'erasable/x')
  await seed(mixed, 'writable/x')
  later(t, () => mixed.run('records', 'delete', 'erasable/x', 'writable/x', '--data-dir', mixed.dataDir))
  const raw = await rawLogin(t, mixed, 'eve')
  for (const fields of [{ data: '"stolen"', path: 'hush' }, { data: '{"stolen":1}' }, {}, { path: '' }, { path: '', data: '{}' }]) {
    raw.send('RECORD', 'ERASE', { name: 'erasable/x', version: -1, isWriteAck: true, correlationId: 'e', ...fields })
    await raw.expect('RECORD', 'INVALID_MESSAGE_DATA', { name: 'erasable/x', originalAction: 'ERASE', isError: true, isWriteAck: true, correlationId: 'e' })
  }
  for (const action of ['UPDATE', 'PATCH', 'CREATEANDUPDATE', 'CREATEANDPATCH']) {
    raw.send('RECORD', action, { name: 'erasable/x', version: -1, data: '"stolen"', path: 'hush', isWriteAck: true, correlationId: 'w' })
    const m = await raw.next()
    assert.deepEqual([m.action, m.isError, m.isWriteAck], ['MESSAGE_DENIED', true, true])
  }
  raw.send('RECORD', 'ERASE', { name: 'writable/x', version: -1, path: 'hush', isWriteAck: true, correlationId: 'e' })
  await raw.expect('RECORD', 'MESSAGE_DENIED', { name: 'writable/x', originalAction: 'ERASE', isError: true, isWriteAck: true, correlationId: 'e' })
  assert.deepEqual(await outside('erasable/x'), JSON.parse(kept))
  assert.deepEqual(await outside('writable/x'), JSON.parse(kept))
  // Who may write and not read learns nothing from a version that is taken.
  for (const version of [1, 0, 9]) {
    raw.send('RECORD', 'UPDATE', { name: 'writable/x', version, data: '{}', isWriteAck: true, correlationId: 'v' })
    const m = await raw.next()
    assert.deepEqual([m.action, m.data, m.version], ['MESSAGE_DENIED', undefined, undefined])
  }
  unheard(raw)
})

for (const [kind, refusal] of [['data', 'MESSAGE_DENIED'], ['reference', 'MESSAGE_DENIED'], ['failing', 'MESSAGE_PERMISSION_ERROR']]) {
  test(`a record kept closed by a rule of kind ${kind} tells nothing of itself`, async t => {
    const name = `closed/${kind}/x`
    await seed(mixed, name)
    later(t, () => mixed.run('records', 'delete', name, '--data-dir', mixed.dataDir))
    const [raw, keeper] = await Promise.all([rawLogin(t, mixed, 'eve'), rawLogin(t, mixed, 'keeper')])
    for (const action of ['READ', 'HEAD']) {
      raw.send('RECORD', action, { name })
      await raw.expect('RECORD', refusal, { name, originalAction: action, isError: true })
    }
    for (const action of ['SUBSCRIBEANDHEAD', 'SUBSCRIBEANDREAD', 'SUBSCRIBECREATEANDREAD', 'SUBSCRIBE']) {
      raw.send('RECORD', action, { names: [name, 'public'], correlationId: action })
      await raw.inbox.until(all => all.some(m => m.action === refusal && m.name === name && m.originalAction === action && m.correlationId === action))
    }
    // Who may write it is not told what is there, not even by a conflict.
    for (const [version, action] of [[1, 'UPDATE'], [0, 'UPDATE'], [1, 'CREATEANDUPDATE'], [9, 'CREATEANDUPDATE'], [7, 'UPDATE']]) {
      raw.send('RECORD', action, { name, version, data: '{"a":1}', isWriteAck: true, correlationId: `${action} ${version}` })
      const m = await raw.inbox.until(all => all.find(m => m.correlationId === `${action} ${version}`))
      assert.deepEqual([m.topic, m.isError, m.data, m.version], ['RECORD', true, undefined, undefined], JSON.stringify(m))
    }
    // A write that its subscribers would hear of, and one that eve does.
    keeper.send('RECORD', 'PATCH', { name, version: -1, path: 'more', data: '"a whisper"', isWriteAck: true, correlationId: '1' })
    await keeper.expect('RECORD', 'WRITE_ACKNOWLEDGEMENT', { name, isWriteAck: true, correlationId: '1' })
    keeper.send('RECORD', 'CREATEANDPATCH', { name: 'public', version: -1, path: 'for', data: JSON.stringify(kind) })
    await raw.inbox.until(all => all.some(m => m.action === 'PATCH' && m.name === 'public' && m.data === JSON.stringify(kind)))
    unheard(raw)
    for (const m of raw.inbox.items) {
      const said = JSON.stringify(m)
      assert.ok(!said.includes(name) || m.isError || m.isAck, said)
      assert.ok(m.action !== 'HEAD_RESPONSE_BULK' || m.versions?.[name] === undefined, said)
    }
  })
}

test('a rule sees the record as it becomes, whichever way it is written (trap 16)', async t => {
  const raw = await rawLogin(t, mixed, 'eve')
  const write = async (name, action, fields) => {
    raw.send('RECORD', action, { name: `typed/${name}`, version: -1, isWriteAck: true, correlationId: 't', ...fields })
    return (await raw.next()).action
  }
  const mine = '{"n":1,"owner":"eve"}'
  for (const [name, action, fields, want] of [
    ['a', 'CREATEANDUPDATE', { data: mine }, 'WRITE_ACKNOWLEDGEMENT'],
    ['a', 'PATCH', { path: 'n', data: '2' }, 'WRITE_ACKNOWLEDGEMENT'],
    ['a', 'UPDATE', { path: 'n', data: '3' }, 'WRITE_ACKNOWLEDGEMENT'],
    ['a', 'CREATEANDPATCH', { path: 'n', data: '4' }, 'WRITE_ACKNOWLEDGEMENT'], // the rule finds the owner
    ['a', 'CREATEANDUPDATE', { path: 'n', data: '5' }, 'WRITE_ACKNOWLEDGEMENT'],
    ['a', 35, { data: '[{"path":"n","data":6}]' }, 'WRITE_ACKNOWLEDGEMENT'],
    ['a', 'CREATEANDPATCH', { path: 'owner', data: '"bob"' }, 'MESSAGE_DENIED'],
    ['a', 'CREATEANDPATCH', { path: 'n', data: mine }, 'MESSAGE_DENIED'], // what is bare would do
    ['a', 'PATCH', { path: 'n.x', data: '1' }, 'MESSAGE_DENIED'],
    ['a', 'UPDATE', { data: '{"n":7}' }, 'MESSAGE_DENIED'],
    ['a', 35, { data: '[{"path":"n","data":8},{"path":"owner","data":"bob"}]' }, 'MESSAGE_DENIED'],
    ['b', 'CREATEANDPATCH', { path: 'n', data: '1' }, 'MESSAGE_DENIED'], // nobody's yet
    ['b', 'PATCH', { path: 'n', data: mine }, 'MESSAGE_DENIED']
  ]) assert.equal(await write(name, action, fields), want, `${name} ${action} ${JSON.stringify(fields)}`)
  assert.deepEqual(await outside('typed/a'), { n: 6, owner: 'eve' })
})

test('what a caller says of itself does not count, and what a sender plants does not arrive', async t => {
  const [provider, receiver, raw] = await Promise.all([rawLogin(t, mixed, 'keeper'), rawLogin(t, mixed, 'keeper'), rawLogin(t, mixed, 'eve')])
  provider.send('RPC', 'PROVIDE', { names: ['service'], correlationId: 'p' })
  await provider.expect('RPC', 'PROVIDE', { correlationId: 'p', isAck: true })
  raw.send('RPC', 'REQUEST', { name: 'service', names: ['public'], correlationId: 'x', data: '1', requestorName: 'keeper', requestorData: '{"role":"root"}', isError: true, isAck: true })
  const { requestorName, requestorData, names, isError, isAck, name, data } = await provider.next()
  assert.notEqual(requestorName, 'keeper')
  assert.ok(!JSON.stringify(requestorData ?? null).includes('root'))
  assert.deepEqual({ names, isError, isAck, name, data }, { names: undefined, isError: undefined, isAck: undefined, name: 'service', data: '1' })
  receiver.send('EVENT', 'SUBSCRIBE', { names: ['public'], correlationId: 's' })
  await receiver.expect('EVENT', 'SUBSCRIBE', { correlationId: 's', isAck: true })
  raw.send('EVENT', 'EMIT', { name: 'public', names: ['secret'], data: '1', isAck: true, isError: true, isWriteAck: true, correlationId: 'planted' })
  await receiver.expect('EVENT', 'EMIT', { name: 'public', data: '1' })
})

test('a pattern is judged as it is written, and finds nothing by disguise', async t => {
  const keeper = await login(t, mixed, 'keeper')
  const eve = await login(t, mixed, 'eve')
  const raw = await rawLogin(t, mixed, 'eve')
  for (const topic of ['EVENT', 'RECORD']) {
    for (const name of ['secret', '.*', '', 'public|secret', '^public$|', '(?:public)', 'public ', 'secret\u0000public']) {
      raw.send(topic, 'LISTEN', { name, names: ['public'] })
      const m = await raw.next()
      assert.equal(m.action, name === '' ? 'INVALID_MESSAGE_DATA' : 'MESSAGE_DENIED', `${topic} ${name}`)
    }
  }
  const asked = await listening(eve, 'event', 'public')
  await subscribed(keeper, 'secret')
  await subscribed(keeper, 'public')
  assert.deepEqual(await asked.next(), { found: 'public' })
  await raw.alive()
})

test('an alias, a stranger and another spelling are nobody else', async t => {
  for (const user of ['Keeper', 'keeper ', ' keeper', 'keeper\u0000', 'KEEPER', 'ｋeeper', 'OPEN', 'open', '']) {
    const raw = await rawLogin(t, mixed, user === '' ? {} : user)
    raw.send('EVENT', 'EMIT', { name: 'secret', data: '1' })
    const m = await raw.next()
    assert.equal(m.action, 'MESSAGE_DENIED', user)
    for (const name of ['Secret', 'secret ', 'public/', 'public\u0000', ' public', 'PUBLIC', 'publi\u0063\u0301']) {
      raw.send('EVENT', 'EMIT', { name, data: '1' })
      assert.equal((await raw.next()).action, 'MESSAGE_DENIED', name)
    }
  }
})

test('no character of a name leads out of its path', async t => {
  const raw = await rawLogin(t, mixed, 'eve')
  for (const name of ['shut/', 'shut/\n', 'shut/x\ny', 'shut/\u2028', 'shut/\u0000', 'shut/in', 'shut/in/a/b', 'shut/😀', 'shut//in/x']) {
    for (const [action, fields] of [['EMIT', { name, data: '1' }], ['SUBSCRIBE', { names: [name], correlationId: 's' }], ['LISTEN', { name }]]) {
      raw.send('EVENT', action, fields)
      const m = await raw.next()
      assert.deepEqual([m.action, m.name], ['MESSAGE_DENIED', name], `${action} ${JSON.stringify(name)}`)
    }
  }
  raw.send('EVENT', 'SUBSCRIBE', { names: ['shut/in/here\n', 'shut/in/here'], correlationId: 's' })
  assert.equal((await raw.next()).name, 'shut/in/here\n')
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: 's', isAck: true })
})

test('what a client makes of the name of a reference harms nobody', async t => {
  const raw = await rawLogin(t, mixed, 'eve')
  const other = await login(t, mixed, 'keeper')
  for (const grant of ['none', '', '\u0000', '\ud800', '../secret', 'x'.repeat(5000), 'x'.repeat(200_000), 7, null, true, [], {}, ['a', ['b']], { toString: 1 }, '__proto__', 'undefined', '😀'.repeat(2000)]) {
    raw.send('EVENT', 'EMIT', { name: 'by/eve', data: JSON.stringify({ grant }) })
    const m = await raw.next()
    assert.ok(['MESSAGE_DENIED', 'MESSAGE_PERMISSION_ERROR'].includes(m.action) && m.isError, JSON.stringify(m))
  }
  for (const data of [undefined, 'null', '[', '{"grant":', '"x"', '{}', '['.repeat(10_000) + ']'.repeat(10_000), '{"grant":' + '['.repeat(5_000) + ']'.repeat(5_000) + '}', '1e999']) {
    raw.send('EVENT', 'EMIT', { name: 'by/eve', ...(data === undefined ? {} : { data }) })
    const m = await raw.next()
    assert.ok(m.topic === 'EVENT' && (m.isError || m.action === 'INVALID_MESSAGE_DATA'), JSON.stringify(m))
  }
  await other.record.setDataWithAck('grant/x', { open: true })
  raw.send('EVENT', 'SUBSCRIBE', { names: ['by/eve'], correlationId: 's' })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: 's', isAck: true })
  const keeper = await rawLogin(t, mixed, 'keeper')
  keeper.send('EVENT', 'EMIT', { name: 'by/eve', data: '{"grant":"x"}' })
  await raw.expect('EVENT', 'EMIT', { name: 'by/eve', data: '{"grant":"x"}' })
  await (await ready(other, 'grant/x')).delete()
})

test('the names of the server are nobody\'s, whatever the rules say', async t => {
  const node = await startNode({ permission: everywhere(true) }, { t })
  const client = await login(t, node, 'eve')
  const raw = await rawLogin(t, node, 'eve')
  for (const name of ['hadal/x', 'hadal/']) {
    for (const [topic, action, fields] of [
      ['EVENT', 'EMIT', { name, data: '1' }], ['EVENT', 'LISTEN', { name }], ['RPC', 'PROVIDE', { names: [name] }],
      ['RECORD', 'UPDATE', { name, data: '{}' }], ['RECORD', 'CREATEANDPATCH', { name, path: 'x', data: '1' }],
      ['RECORD', 'DELETE', { name }], ['RECORD', 'ERASE', { name, path: 'x' }], ['RECORD', 'LISTEN', { name }], ['RECORD', 'NOTIFY', { names: [name] }]
    ]) {
      raw.send(topic, action, { version: -1, ...fields })
      const m = await raw.next()
      assert.deepEqual([m.topic, m.action, m.isError], [topic, 'MESSAGE_DENIED', true], `${topic} ${action} ${name}`)
    }
  }
  assert.equal(await rejection(client.record.setDataWithAck('hadal/x', {})), 'MESSAGE_DENIED')
  assert.equal(await client.record.has('hadal/x'), false)
  await (await ready(client, 'mine')).setWithAck({ x: 1 })
})
