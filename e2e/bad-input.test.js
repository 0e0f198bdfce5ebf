// Everything a broken or malicious client may send: each has its answer, and the
// node goes on serving the others. Spec 15 rows 40 and 4, spec 01 §2 and §8.
import assert from 'node:assert/strict'
import { connect as tcp } from 'node:net'
import { connect as tls } from 'node:tls'
import { pbkdf2Sync } from 'node:crypto'
import { connect, listening, login, logins, provided, ready, rejection, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawChallenge, rawConnect, rawLogin } from './lib/raw.js'
import { seeded } from './lib/random.js'
import { later, test } from './lib/test.js'
import { encode } from './lib/wire.js'

const node = await startNode()

// served shows that the node still does its work for others.
let round = 0
async function served (t, on = node) {
  const [a, b] = await logins(t, on, 2)
  const name = `served/${++round}`
  const [, inbox] = await watched(b, name)
  await (await ready(a, name)).setWithAck({ round })
  assert.deepEqual(await inbox.next(), { round })
}

// has says that a message has at least these fields.
function has (message, fields) {
  assert.deepEqual(Object.fromEntries(Object.keys(fields).map(k => [k, message[k]])), fields)
}

const broken = ['{', '{"a":', 'nul', '[1,]', "{'a':1}", '\u0000', 'NaN', '"\\ud800', '{"a":1}}', '1 2']

test('broken JSON in an event is told to its sender and reaches nobody (trap 40)', async t => {
  const receiver = await rawLogin(t, node)
  receiver.send('EVENT', 'SUBSCRIBE', { names: ['broken'], correlationId: '0' })
  await receiver.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  const raw = await rawLogin(t, node)
  for (const data of broken) {
    raw.send('EVENT', 'EMIT', { name: 'broken', data })
    has(await raw.next(), { topic: 'EVENT', action: 'INVALID_MESSAGE_DATA' })
  }
  await receiver.silent()
  await served(t)
})

test('broken JSON in a write is told to its writer and changes nothing (trap 40)', async t => {
  const raw = await rawLogin(t, node)
  const client = await login(t, node)
  await client.record.setDataWithAck('broken', { a: 1 })
  for (const [action, fields] of [['UPDATE', {}], ['PATCH', { path: 'a' }], ['CREATEANDUPDATE', {}], ['CREATEANDPATCH', { path: 'a' }], [35, {}]]) {
    for (const data of broken) {
      raw.send('RECORD', action, { name: 'broken', version: -1, ...fields, data, isWriteAck: true, correlationId: 'b' })
      has(await raw.next(), { topic: 'RECORD', action: 'INVALID_MESSAGE_DATA', isError: true, isWriteAck: true, correlationId: 'b' })
    }
  }
  raw.send('RECORD', 'READ', { name: 'broken' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 'broken', version: 1, data: '{"a":1}' })
  await served(t)
})

test('broken JSON in a call or its answer ends that call and nothing else (trap 40)', async t => {
  const client = await login(t, node)
  const raw = await rawLogin(t, node)
  await provided(client, 'broken', (data, response) => response.send(data))
  raw.send('RPC', 'REQUEST', { name: 'broken', correlationId: '1', data: '{"a":' })
  has(await raw.next(), { topic: 'RPC', action: 'REQUEST_ERROR', correlationId: '1' })
  raw.send('RPC', 'PROVIDE', { names: ['breaks'], correlationId: '0' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '0', isAck: true })
  const call = client.rpc.make('breaks').then(() => 'ok', reason => reason)
  const { correlationId } = await raw.next()
  raw.send('RPC', 'RESPONSE', { name: 'breaks', correlationId, data: '{"a":' })
  has(await raw.next(), { topic: 'RPC', correlationId })
  raw.send('RPC', 'RESPONSE', { name: 'breaks', correlationId, data: '1' })
  assert.equal(typeof await call, 'string')
  client.errors.take(0)
  await served(t)
})

test('a path through null replaces it (trap 40)', async t => {
  const [a, b] = await logins(t, node, 2)
  await a.record.setDataWithAck('null', { a: null, list: [null] })
  await a.record.setDataWithAck('null', 'a.b.c', 1)
  await a.record.setDataWithAck('null', 'list[0].x', 2)
  assert.deepEqual(await b.record.snapshot('null'), { a: { b: { c: 1 } }, list: [{ x: 2 }] })
  await served(t)
})

test('listening twice for one pattern is told and changes nothing (trap 40)', async t => {
  for (const topic of ['EVENT', 'RECORD']) {
    const raw = await rawLogin(t, node)
    raw.send(topic, 'LISTEN', { name: `twice-${topic}/.*` })
    await raw.expect(topic, 'LISTEN', { name: `twice-${topic}/.*`, isAck: true })
    raw.send(topic, 'LISTEN', { name: `twice-${topic}/.*` })
    has(await raw.next(), { topic, action: 'MULTIPLE_SUBSCRIPTIONS', name: `twice-${topic}/.*` })
    await raw.expect(topic, 'LISTEN', { name: `twice-${topic}/.*`, isAck: true })
    raw.send(topic, 'UNLISTEN', { name: `twice-${topic}/.*` })
    await raw.expect(topic, 'UNLISTEN', { name: `twice-${topic}/.*`, isAck: true })
    await raw.silent()
  }
  await served(t)
})

test('users of the names of inherited properties are unknown (trap 40)', async t => {
  const salt = Buffer.alloc(16).toString('base64')
  const password = pbkdf2Sync('x', salt, 10, 32, 'sha512').toString('base64') + salt
  const own = await startNode({
    auth: [{ type: 'file', options: { hash: 'sha512', iterations: 10, keyLength: 32, users: { ada: { password } } } }]
  }, { t })
  for (const username of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf', '']) {
    const client = connect(t, own)
    await rejection(client.login({ username, password: 'x' }))
  }
  for (const odd of [{ username: ['ada'], password: 'x' }, { username: { a: 1 }, password: 'x' }, { username: 'ada', password: 5 }, { username: 'ada', password: null }]) {
    await rejection(connect(t, own).login(odd))
  }
  await connect(t, own).login({ username: 'ada', password: 'x' })
})

// frames is one message of each topic that a client may send.
const frames = {
  CONNECTION: encode('CONNECTION', 'CHALLENGE', { url: 'ws://host/deepstream', protocolVersion: '0.1a', sdkVersion: '7.0.5', sdkType: 'javascript' }),
  AUTH: encode('AUTH', 'REQUEST', { data: '{"username":"joe"}' }),
  EVENT: encode('EVENT', 'SUBSCRIBE', { names: ['cut/one', 'cut/two'], correlationId: '7' }),
  RECORD: encode('RECORD', 'PATCH', { name: 'cut', path: 'a.b', version: -1, data: '{"x":1}', isWriteAck: true, correlationId: '8' }),
  RPC: encode('RPC', 'REQUEST', { name: 'cut', correlationId: '9', data: '1' }),
  PRESENCE: encode('PRESENCE', 'QUERY', { names: ['cut'], correlationId: '3' })
}

for (const [topic, frame] of Object.entries(frames)) {
  test(`a ${topic} frame cut at any byte is refused and the connection stays`, async t => {
    const raw = await rawLogin(t, node)
    for (let n = 0; n < frame.length; n++) {
      raw.bytes(frame.subarray(0, n))
      await raw.parser('UNKNOWN_TOPIC')
    }
    await raw.alive()
    const early = await rawConnect(t, node)
    for (let n = 0; n < frame.length; n++) {
      early.bytes(frame.subarray(0, n))
      await early.expect('CONNECTION', 'INVALID_MESSAGE')
    }
    const challenged = await rawChallenge(t, node)
    for (let n = 0; n < frame.length; n++) {
      challenged.bytes(frame.subarray(0, n))
      await challenged.expect('AUTH', 'INVALID_MESSAGE')
    }
    challenged.send('AUTH', 'REQUEST', { data: '{}' })
    assert.equal((await challenged.next()).action, 'AUTH_SUCCESSFUL')
    await served(t)
  })
}

test('messages cut inside a whole envelope harm nobody', async t => {
  const raw = await rawLogin(t, node)
  raw.handle(m => m.action !== 'PONG')
  for (const frame of Object.values(frames)) {
    const inner = frame.subarray(5) // L, topic and tag take one byte and two each, the length one
    for (let n = 0; n <= inner.length; n++) {
      raw.bytes(Buffer.concat([Buffer.from([n + 4, 0x10, frame[2], 0x1a, n]), inner.subarray(0, n)]))
    }
  }
  await raw.alive()
  await served(t)
})

test('random bytes and random changes of good frames harm nobody', async t => {
  const random = seeded()
  const good = Object.values(frames)
  const raw = await rawLogin(t, node)
  raw.handle(m => m.action !== 'PONG')
  for (let i = 0; i < 5000; i++) {
    let frame = Buffer.from(good[Math.floor(random() * good.length)])
    if (random() < 0.3) frame = Buffer.from(Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(random() * 256)))
    else for (let k = Math.floor(random() * 4); k >= 0; k--) frame[Math.floor(random() * frame.length)] = Math.floor(random() * 256)
    raw.bytes(frame)
    if (i % 500 === 0) await raw.alive()
  }
  await raw.alive()
  await served(t)
})

test('a frame over the limit closes its connection with 1009 and no message', async t => {
  const raw = await rawLogin(t, node)
  raw.bytes(encode('EVENT', 'EMIT', { name: 'large', data: JSON.stringify('x'.repeat(1 << 20)) }))
  const { code } = await raw.closed
  assert.equal(code, 1009)
  assert.deepEqual(raw.inbox.rest, [])
  const early = await rawConnect(t, node)
  early.bytes(Buffer.alloc((1 << 20) + 1))
  assert.equal((await early.closed).code, 1009)
  await served(t)
})

test('a frame just under the limit is served', async t => {
  const [sender, receiver] = [await rawLogin(t, node), await rawLogin(t, node)]
  receiver.send('EVENT', 'SUBSCRIBE', { names: ['just'], correlationId: '0' })
  await receiver.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  const data = JSON.stringify('x'.repeat((1 << 20) - 40))
  sender.send('EVENT', 'EMIT', { name: 'just', data })
  assert.equal((await receiver.next()).data.length, data.length)
})

test('the limit is configurable', async t => {
  const own = await startNode({ connectionEndpoints: [{ type: 'ws-binary', options: { maxMessageSize: 1000 } }] }, { t })
  const raw = await rawLogin(t, own)
  raw.send('EVENT', 'EMIT', { name: 'x', data: JSON.stringify('x'.repeat(1000)) })
  assert.equal((await raw.closed).code, 1009)
  await served(t, own)
})

test('a text frame closes its connection without a message', async t => {
  for (const raw of [await rawConnect(t, node), await rawChallenge(t, node), await rawLogin(t, node)]) {
    raw.bytes('{"topic":2,"action":2}')
    await raw.closed
    assert.deepEqual(raw.inbox.rest, [])
  }
  await served(t)
})

test('a message in several WebSocket fragments is one message', async t => {
  const raw = await rawLogin(t, node)
  const frame = encode('RECORD', 'HEAD', { name: 'fragments' })
  raw.socket.send(frame.subarray(0, 3), { fin: false, binary: true })
  raw.socket.send(frame.subarray(3, 5), { fin: false, binary: true })
  raw.socket.send(frame.subarray(5), { fin: true, binary: true })
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 'fragments', version: -1 })
})

test('invalid UTF-8 in any text is refused', async t => {
  const raw = await rawLogin(t, node)
  for (const bad of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf5, 0x80, 0x80, 0x80]]) {
    for (const [topic, action, fields] of [
      ['EVENT', 'EMIT', { name: '####', data: '1' }], ['EVENT', 'EMIT', { name: 'x', data: '"####"' }],
      ['RECORD', 'READ', { name: '####' }], ['RECORD', 'PATCH', { name: 'x', path: '####', version: -1, data: '1' }],
      ['EVENT', 'SUBSCRIBE', { names: ['good', '####'], correlationId: '0' }]
    ]) {
      const frame = encode(topic, action, fields)
      Buffer.from(bad).copy(frame, frame.indexOf('####'))
      raw.bytes(frame)
      await raw.parser('UNKNOWN_TOPIC')
    }
  }
  await raw.alive()
  await served(t)
})

test('path keys like prototypes are refused', async t => {
  const raw = await rawLogin(t, node)
  const client = await login(t, node)
  await client.record.setDataWithAck('proto', { a: { b: 1 } })
  for (const path of ['__proto__', '__proto__.polluted', 'a.__proto__.x', 'constructor', 'a.constructor.prototype', 'prototype', ' __proto__ .x', '__proto__[0]']) {
    for (const action of ['PATCH', 'ERASE', 'CREATEANDPATCH']) {
      raw.send('RECORD', action, { name: 'proto', version: -1, path, ...(action === 'ERASE' ? {} : { data: '1' }), isWriteAck: true, correlationId: 'p' })
      has(await raw.next(), { topic: 'RECORD', action: 'INVALID_MESSAGE_DATA', isError: true, isWriteAck: true, correlationId: 'p' })
    }
    raw.send('RECORD', 35, { name: 'proto', version: -1, data: JSON.stringify([{ path: 'ok', data: 1 }, { path, data: 1 }]), isWriteAck: true, correlationId: 'm' })
    has(await raw.next(), { topic: 'RECORD', action: 'INVALID_MESSAGE_DATA', isError: true, correlationId: 'm' })
  }
  raw.send('RECORD', 'READ', { name: 'proto' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 'proto', version: 1, data: '{"a":{"b":1}}' })
  await served(t)
})

test('paths that lead nowhere are refused', async t => {
  const raw = await rawLogin(t, node)
  const client = await login(t, node)
  await client.record.setDataWithAck('nowhere', { a: [1] })
  for (const path of ['', '.', '...', 'a[-1]', 'a[4294967295]', 'a[99999999999]', 'a["x"]', 'a[1e9]']) {
    raw.send('RECORD', 'PATCH', { name: 'nowhere', version: -1, path, data: '1', isWriteAck: true, correlationId: 'n' })
    const answer = await raw.next()
    assert.equal(answer.action, 'INVALID_MESSAGE_DATA', path)
    has(answer, { topic: 'RECORD', isError: true, correlationId: 'n' })
  }
  raw.send('RECORD', 'READ', { name: 'nowhere' })
  await raw.expect('RECORD', 'READ_RESPONSE', { name: 'nowhere', version: 1, data: '{"a":[1]}' })
  await served(t)
})

test('whole writes that are no object or list are refused', async t => {
  const raw = await rawLogin(t, node)
  for (const action of ['UPDATE', 'CREATEANDUPDATE']) {
    for (const data of ['null', '5', '"x"', 'true', undefined]) {
      raw.send('RECORD', action, { name: 'scalar', version: -1, ...(data === undefined ? {} : { data }), isWriteAck: true, correlationId: 's' })
      has(await raw.next(), { topic: 'RECORD', action: 'INVALID_MESSAGE_DATA', isError: true, isWriteAck: true, correlationId: 's' })
    }
  }
  for (const data of ['{}', '[]', '[1]', '[{}]', '[{"path":""}]', '[{"path":5}]', '"x"', undefined]) {
    raw.send('RECORD', 35, { name: 'scalar', version: -1, ...(data === undefined ? {} : { data }), isWriteAck: true, correlationId: 'm' })
    has(await raw.next(), { topic: 'RECORD', action: 'INVALID_MESSAGE_DATA', isError: true, correlationId: 'm' })
  }
  raw.send('RECORD', 'HEAD', { name: 'scalar' })
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 'scalar', version: -1 })
})

test('versions at the ends of their range are answered', async t => {
  const raw = await rawLogin(t, node)
  const client = await login(t, node)
  await client.record.setDataWithAck('ends', { a: 1 })
  for (const [version, want] of [[2147483647, 'INVALID_VERSION'], [3, 'INVALID_VERSION'], [1, 'VERSION_EXISTS'], [0, 'VERSION_EXISTS'], [-2147483648, undefined], [-2, undefined]]) {
    raw.send('RECORD', 'UPDATE', { name: 'ends', version, data: '{"a":2}', isWriteAck: true, correlationId: String(version) })
    const answer = await raw.next()
    assert.equal(answer.correlationId, String(version))
    assert.notEqual(answer.action, 'WRITE_ACKNOWLEDGEMENT', `version ${version}`)
    if (want) assert.equal(answer.action, want, `version ${version}`)
  }
  assert.equal(await client.record.head('ends'), 1)
})

test('data nested beyond reason is answered', async t => {
  const raw = await rawLogin(t, node)
  const deep = '['.repeat(200_000) + ']'.repeat(200_000)
  raw.send('EVENT', 'EMIT', { name: 'deep', data: deep })
  raw.send('RECORD', 'CREATEANDUPDATE', { name: 'deep', version: -1, data: deep, isWriteAck: true, correlationId: 'd' })
  await raw.inbox.until(items => items.some(m => m.correlationId === 'd'))
  raw.send('RECORD', 'CREATEANDPATCH', { name: 'deep/path', version: -1, path: Array(50_000).fill('a').join('.'), data: '1', isWriteAck: true, correlationId: 'p' })
  await raw.inbox.until(items => items.some(m => m.correlationId === 'p'))
  await served(t)
})

test('names that are missing, empty or too long are answered', async t => {
  const raw = await rawLogin(t, node)
  for (const fields of [{}, { name: '' }, { name: 'x'.repeat(5000) }]) {
    for (const [topic, action, more] of [
      ['EVENT', 'EMIT', {}], ['EVENT', 'LISTEN', {}], ['RECORD', 'READ', {}], ['RECORD', 'HEAD', {}], ['RECORD', 'DELETE', {}],
      ['RECORD', 'UPDATE', { version: 1, data: '{}', isWriteAck: true, correlationId: 'x' }], ['RPC', 'REQUEST', { correlationId: 'x' }]
    ]) {
      raw.send(topic, action, { ...fields, ...more })
      has(await raw.next(), { topic, action: 'INVALID_MESSAGE_DATA' })
    }
  }
  await raw.alive()
  await served(t)
})

test('lists of names that are empty or hold empty names are answered', async t => {
  const raw = await rawLogin(t, node)
  for (const names of [[], [''], ['', '']]) {
    for (const [topic, action] of [
      ['EVENT', 'SUBSCRIBE'], ['EVENT', 'UNSUBSCRIBE'], ['RECORD', 'SUBSCRIBECREATEANDREAD'], ['RECORD', 'SUBSCRIBEANDHEAD'],
      ['RECORD', 'UNSUBSCRIBE'], ['RECORD', 'NOTIFY'], ['RPC', 'PROVIDE'], ['PRESENCE', 'SUBSCRIBE'], ['PRESENCE', 'QUERY']
    ]) {
      const correlationId = `${topic} ${action} ${JSON.stringify(names)}`
      raw.send(topic, action, { names, correlationId })
      await raw.inbox.until(items => items.some(m => m.correlationId === correlationId))
    }
  }
  await served(t)
})

test('actions and topics that no client may send are refused', async t => {
  const raw = await rawLogin(t, node)
  for (const [topic, actions] of Object.entries({
    EVENT: [0, 1, 9, 10, 11, 12, 99, 100, 104, 255, 2 ** 31 - 1],
    RECORD: [0, 1, 4, 6, 8, 10, 13, 14, 24, 31, 33, 36, 100, 102, 115, 118],
    RPC: [0, 1, 3, 10, 100, 107, 110],
    PRESENCE: [0, 1, 3, 5, 6, 7, 14, 100, 104]
  })) {
    for (const action of actions) {
      raw.send(topic, action, { name: 'x', names: ['x'], data: '1', correlationId: 'a' })
      await raw.parser('UNKNOWN_ACTION')
    }
  }
  for (const topic of [0, 8, 9, 10, 11, 12, 100, 127]) {
    raw.bytes(Buffer.from([6, 0x10, topic, 0x1a, 2, 0x08, 2]))
    await raw.parser('UNKNOWN_TOPIC')
  }
  await raw.alive()
  await served(t)
})

test('unknown fields are skipped', async t => {
  const raw = await rawLogin(t, node)
  const known = encode('RECORD', 'HEAD', { name: 'extra' }).subarray(5)
  const extra = Buffer.from([0xf8, 0x06, 0x05, 0xfa, 0x06, 0x02, 0x61, 0x62, 0xfd, 0x06, 1, 2, 3, 4, 0xf9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8])
  const inner = Buffer.concat([extra, known, extra])
  raw.bytes(Buffer.concat([Buffer.from([inner.length + 4, 0x10, 5, 0x1a, inner.length]), inner]))
  await raw.expect('RECORD', 'HEAD_RESPONSE', { name: 'extra', version: -1 })
})

test('names subscribed twice, in one message or in two, are told and count once', async t => {
  const sender = await login(t, node)
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'SUBSCRIBE', { names: ['dup', 'dup'], correlationId: '0' })
  await raw.expect('EVENT', 'MULTIPLE_SUBSCRIPTIONS', { name: 'dup', originalAction: 'SUBSCRIBE' })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '0', isAck: true })
  raw.send('EVENT', 'SUBSCRIBE', { names: ['dup'], correlationId: '1' })
  await raw.expect('EVENT', 'MULTIPLE_SUBSCRIPTIONS', { name: 'dup', originalAction: 'SUBSCRIBE' })
  await raw.expect('EVENT', 'SUBSCRIBE', { correlationId: '1', isAck: true })
  raw.send('RPC', 'PROVIDE', { names: ['dup', 'dup'], correlationId: '2' })
  await raw.expect('RPC', 'MULTIPLE_PROVIDERS', { name: 'dup', originalAction: 'PROVIDE' })
  await raw.expect('RPC', 'PROVIDE', { correlationId: '2', isAck: true })
  sender.event.emit('dup', 1)
  await raw.expect('EVENT', 'EMIT', { name: 'dup', data: '1' })
  await raw.silent()
})

test('a pattern that explodes on other engines is answered in time', async t => {
  const [provider, client] = await logins(t, node, 2)
  await listening(provider, 'event', '^(a+)+$')
  await client.tap.confirmed('EVENT', 'SUBSCRIBE', 'a'.repeat(200) + '!', () => client.event.subscribe('a'.repeat(200) + '!', () => {}))
  await client.tap.confirmed('EVENT', 'SUBSCRIBE', 'b', () => client.event.subscribe('b', () => {}))
  await served(t)
})

test('names of the server itself cannot be taken', async t => {
  const raw = await rawLogin(t, node)
  raw.send('RECORD', 'CREATEANDUPDATE', { name: 'hadal/x', version: -1, data: '{}', isWriteAck: true, correlationId: '1' })
  has(await raw.next(), { topic: 'RECORD', isError: true, isWriteAck: true, correlationId: '1' })
  raw.send('RPC', 'PROVIDE', { names: ['hadal/x'], correlationId: '2' })
  has(await raw.next(), { topic: 'RPC', isError: true, correlationId: '2' })
  await raw.alive()
})

test('a record over the limit is refused and stays as it was', async t => {
  const own = await startNode({ records: { maxSize: 2000 } }, { t })
  const client = await login(t, own)
  await client.record.setDataWithAck('small', { a: 'x' })
  assert.equal(await rejection(client.record.setDataWithAck('small', { a: 'x'.repeat(3000) })), 'RECORD_UPDATE_ERROR')
  assert.equal(await rejection(client.record.setDataWithAck('small', 'b', 'x'.repeat(1999))), 'RECORD_UPDATE_ERROR')
  assert.deepEqual(await client.record.snapshot('small'), { a: 'x' })
  assert.equal(await client.record.head('small'), 1)
  await served(t, own)
})

test('bytes that are no HTTP at all are turned away', async t => {
  for (const bytes of ['\u0016\u0003\u0001\u0002', 'GET', 'garbage\r\n\r\n', 'POST /deepstream HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n', Buffer.alloc(10_000, 0xff)]) {
    await new Promise((resolve, reject) => {
      const socket = node.secure ? tls({ port: node.port, host: '127.0.0.1', ca: node.ca }) : tcp(node.port, '127.0.0.1')
      later(t, () => socket.destroy())
      socket.on('error', resolve)
      socket.on('close', resolve)
      socket.once(node.secure ? 'secureConnect' : 'connect', () => { socket.resume(); socket.end(bytes) })
    })
  }
  for (const path of ['/deepstream', '/', '/../../etc/passwd', '/%00', '/health-check/../deepstream', '/' + 'x'.repeat(5000)]) {
    const { status } = await node.get(path)
    assert.ok(status >= 400 && status < 500, `${path.slice(0, 40)}: ${status}`)
  }
  assert.ok((await node.get('/deepstream', { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '7' })).status >= 400)
  await served(t)
})

test('connections that end at any moment harm nobody', async t => {
  for (const step of [rawConnect, rawChallenge, rawLogin]) {
    for (let i = 0; i < 30; i++) (await step(t, node)).drop()
  }
  const raw = await rawLogin(t, node)
  for (let i = 0; i < 1000; i++) raw.send('RECORD', 'CREATEANDUPDATE', { name: `ends/${i}`, version: -1, data: '{}', isWriteAck: true, correlationId: String(i) })
  raw.drop()
  await served(t)
})
