// The HTTP API (docs/http.md), by fetch and by curl, and what it does seen by the stock
// client. On several nodes each next request goes to the next one.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { connect as dial } from 'node:net'
import { promisify } from 'node:util'
import { listening, login, provided, ready, subscribed, watched } from './lib/client.js'
import { spread } from './lib/cluster.js'
import { command, startNode } from './lib/node.js'
import { test } from './lib/test.js'

const run = promisify(execFile)
const made = (await command(['hash', '--api-key'])).stdout.match(/key: +(\S+)\nhash: (\S+)/)
const [apiKey, hash] = [made[1], made[2]]
const everything = ['create', 'write', 'read', 'delete', 'notify', 'listen', 'publish', 'subscribe', 'provide', 'request', 'allow']
const all = Object.fromEntries(everything.map(rule => [rule, true]))
const rules = (...of) => ({ '*': Object.fromEntries(of.map(rule => [rule, all[rule]])) })
const node = await startNode({
  connectionEndpoints: [{ type: 'ws-binary' }, { type: 'http', options: { requestTimeout: 30000 } }],
  auth: [{ type: 'file', options: { users: { ann: { password: 'pw' }, bob: { password: 'pw' }, cid: { password: 'pw' } } } }],
  apiKeys: [{ id: 'billing', hash, role: 'backend' }],
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: {
          ...rules('create', 'write', 'read', 'delete', 'notify', 'listen'),
          'invoices/*': { write: "user.data !== null && user.data.role === 'backend'" }
        },
        event: rules('publish', 'subscribe', 'listen'),
        rpc: rules('provide', 'request'),
        presence: rules('allow')
      }
    }
  }
})
const user = username => ({ username, password: 'pw' })
const backend = { Authorization: `Bearer ${apiKey}` }

// origin is some node's.
const origin = () => `http${node.secure ? 's' : ''}://127.0.0.1:${node.port}`

// ask asks some node.
async function ask (path, { method = 'POST', headers = {}, body } = {}) {
  const response = await fetch(origin() + path, {
    method, headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    body: typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: text.startsWith('{') ? JSON.parse(text) : undefined }
}

// batch has the backend run commands, and returns how each went.
async function batch (...commands) {
  const { status, json, text } = await ask('/api', { headers: backend, body: { body: commands } })
  assert.equal(status, 200, text)
  assert.equal(json.body.length, commands.length)
  return json.body
}

const done = { success: true }

test('clients see what requests write, and the reverse', async t => {
  const client = await login(t, node, user('ann'))
  const [record, seen] = await watched(client, 'http/car')
  await spread()
  assert.deepEqual(await batch(
    { topic: 'record', action: 'write', recordName: 'http/car', data: { brand: 'Saab' } },
    { topic: 'record', action: 'write', recordName: 'http/car', path: 'wheels[1].size', data: 17 }
  ), [done, done])
  await seen.until(list => list.some(data => data.wheels?.[1]?.size === 17))
  assert.equal(record.get('brand'), 'Saab')
  await record.setWithAck('brand', 'Volvo')
  const [read, head] = await batch({ topic: 'record', action: 'read', recordName: 'http/car' }, { topic: 'record', action: 'head', recordName: 'http/car' })
  assert.deepEqual(read, { success: true, version: 3, data: { brand: 'Volvo', wheels: [null, { size: 17 }] } })
  assert.deepEqual(head, { success: true, version: 3 })
  assert.deepEqual((await ask('/api?topic=record&action=head&recordName=http%2Fcar', { method: 'GET', headers: backend })).json, { result: 'SUCCESS', body: [head] })
  const list = client.record.getList('http/list')
  await list.whenReady()
  await spread()
  assert.deepEqual(await batch({ topic: 'list', action: 'write', listName: 'http/list', data: ['a', 'b'] }), [done])
  await new Promise(resolve => list.subscribe(entries => entries.length === 2 && resolve(), true))
  const gone = new Promise(resolve => record.on('delete', resolve))
  assert.deepEqual(await batch({ topic: 'record', action: 'delete', recordName: 'http/car' }), [done])
  await gone
})

test('events, calls and presence reach every node', async t => {
  const ann = await login(t, node, user('ann'))
  const bob = await login(t, node, user('bob'))
  const news = await subscribed(ann, 'http/news')
  await provided(bob, 'http/double', (n, response) => n > 100 ? response.error('too much') : response.send(2 * n))
  await spread()
  const [emit, call, failed, nobody, who, of] = await batch(
    { topic: 'event', action: 'emit', eventName: 'http/news', data: { a: [1, 'ü'] } },
    { topic: 'rpc', action: 'make', rpcName: 'http/double', data: 21 },
    { topic: 'rpc', action: 'make', rpcName: 'http/double', data: 121 },
    { topic: 'rpc', action: 'make', rpcName: 'http/nobody' },
    { topic: 'presence', action: 'query' },
    { topic: 'presence', action: 'query', names: ['ann', 'billing'] })
  assert.deepEqual(await news.next(), { a: [1, 'ü'] })
  assert.deepEqual([emit, call], [done, { success: true, data: 42 }])
  assert.deepEqual(failed, { success: false, errorTopic: 'rpc', error: 'too much' })
  assert.equal(nobody.errorEvent, 'NO_RPC_PROVIDER')
  assert.match(nobody.error, /no provider/i)
  assert.deepEqual(who.users.sort(), ['ann', 'bob'])
  assert.deepEqual(of.users, { ann: true, billing: false })
  const own = await ask('/api', { body: { authData: user('ann'), body: [{ topic: 'presence', action: 'query' }] } })
  assert.deepEqual(own.json.body, [{ success: true, users: ['bob'] }])
})

test('a provider listens to what requests read, and is not asked by them', async t => {
  const provider = await login(t, node, user('ann'))
  const asked = await listening(provider, 'record', '^http/listened/')
  await batch({ topic: 'record', action: 'write', recordName: 'http/listened/1', data: {} }, { topic: 'record', action: 'read', recordName: 'http/listened/1' })
  const client = await login(t, node, user('bob'))
  await ready(client, 'http/listened/2')
  assert.deepEqual(await asked.next(), { found: 'http/listened/2' }) // and no other before
})

test('rules are those of a socket', async () => {
  const write = { topic: 'record', action: 'write', recordName: 'invoices/1', data: { total: 1 } }
  const denied = await ask('/api', { body: { authData: user('ann'), body: [write, { topic: 'event', action: 'emit', eventName: 'x' }] } })
  assert.equal(denied.json.result, 'PARTIAL_SUCCESS')
  assert.equal(denied.json.body[0].errorEvent, 'MESSAGE_DENIED')
  assert.match(denied.json.body[0].error, /message denied.*create/i)
  assert.deepEqual(await batch(write), [done])
  assert.equal((await ask('/api', { headers: { Authorization: `Bearer ${apiKey.slice(0, -1)}` }, body: { body: [write] } })).status, 401)
  assert.equal((await ask('/api/auth', { body: user('ann') })).status, 200)
  assert.equal((await ask('/api/auth', { body: { username: 'ann', password: 'x' } })).status, 401)
})

test('a request that is sent again is carried out once, on whichever node', async () => {
  const body = { body: [{ topic: 'record', action: 'write', recordName: 'http/once', path: 'n', data: 1 }] }
  const send = () => ask('/api', { headers: { ...backend, 'Idempotency-Key': 'e2e once' }, body })
  const first = await Promise.all([send(), send(), send(), send(), send(), send()])
  for (const { status, text } of first) assert.ok(status === 409 || (status === 200 && text === first.find(f => f.status === 200).text), text)
  for (let i = 0; i < 6; i++) {
    const again = await send()
    assert.equal(again.status, 200)
    assert.equal(again.headers.get('idempotent-replayed'), 'true')
    assert.deepEqual(again.json, { result: 'SUCCESS', body: [done] })
  }
  assert.deepEqual(await batch({ topic: 'record', action: 'head', recordName: 'http/once' }), [{ success: true, version: 1 }])
  const other = await ask('/api', { headers: { ...backend, 'Idempotency-Key': 'e2e once' }, body: { body: [{ topic: 'event', action: 'emit', eventName: 'x' }] } })
  assert.equal(other.status, 422)
})

test('curl asks as backends do', async () => {
  const curl = async (...args) => (await run('curl', ['-s', '-k', ...args])).stdout
  const commands = JSON.stringify({ body: [{ topic: 'record', action: 'write', recordName: 'http/curl', data: { by: 'curl' } }] })
  const json = ['-H', 'Content-Type: application/json']
  assert.equal(await curl(`${origin()}/api`, ...json, '-u', 'bob:pw', '-d', commands), '{"result":"SUCCESS","body":[{"success":true}]}')
  assert.equal(await curl(`${origin()}/api?topic=record&action=read&recordName=http/curl`, '-u', 'bob:pw'),
    '{"result":"SUCCESS","body":[{"success":true,"version":1,"data":{"by":"curl"}}]}')
  assert.equal(await curl(`${origin()}/api`, ...json, '-d', commands, '-o', '/dev/null', '-w', '%{http_code} %{content_type}'), '401 text/plain; charset=utf-8')
  assert.equal(await curl('-X', 'PUT', `${origin()}/api`, '-o', '/dev/null', '-w', '%{http_code}'), '405')
  assert.match(await curl(`${origin()}/openapi.json`), /"openapi":"3.1.0"/)
  // A body in pieces, of which nobody said how long it is.
  assert.equal(await curl(`${origin()}/api`, ...json, '-H', 'Transfer-Encoding: chunked', '-u', 'bob:pw', '-d', commands), '{"result":"SUCCESS","body":[{"success":true}]}')
})

test('hostile requests are refused, and others served meanwhile', async t => {
  const client = await login(t, node, user('cid'))
  const own = await subscribed(client, 'http/own')
  const many = `{"authData":${JSON.stringify(user('ann'))},"body":[${'{"topic":"presence","action":"query"},'.repeat(99_999)}{"topic":"presence","action":"query"}]}`
  const deep = `{"authData":${'['.repeat(200_000)}${']'.repeat(200_000)},"body":[1]}`
  const hostile = Promise.all([
    ...Array.from({ length: 6 }, () => ask('/api', { body: many })),
    ...Array.from({ length: 6 }, () => ask('/api', { body: deep })),
    ask('/api', { body: { authData: user('ann'), body: [{ topic: 'event', action: 'emit', eventName: 'x', data: 'y'.repeat(2 << 20) }] } }),
    ask('/api', { headers: { 'X-Bomb': 'x'.repeat(40_000) }, body: {} })
  ].map(request => request.catch(error => ({ status: 0, text: String(error.cause ?? error) }))))
  for (let i = 0; i < 20; i++) {
    assert.deepEqual(await batch({ topic: 'event', action: 'emit', eventName: 'http/own', data: i }), [done])
    assert.equal(await own.next(), i)
  }
  const statuses = (await hostile).map(({ status }) => status)
  // A server that hangs up on who does not stop sending may be seen as no answer at all.
  for (const [i, status] of statuses.entries()) assert.ok([0, i < 6 || i === 12 ? 413 : i < 12 ? 400 : 431].includes(status), `request ${i} is answered ${status}`)
  assert.ok(statuses.includes(400))
})

test('bodies that trickle do not keep others out', async t => {
  if (node.secure) return t.skip('over TLS the same bytes are only harder to send')
  const head = 'POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"body":'
  const slow = await Promise.all(Array.from({ length: 50 }, () => new Promise((resolve, reject) => {
    const socket = dial({ host: '127.0.0.1', port: node.port }, () => socket.write(head, () => resolve(socket)))
    socket.on('error', reject)
  })))
  t.after(() => slow.forEach(socket => socket.destroy()))
  for (let i = 0; i < 10; i++) assert.deepEqual(await batch({ topic: 'presence', action: 'query', names: [] }), [{ success: true, users: {} }])
  const answers = await Promise.all(slow.map(socket => new Promise(resolve => {
    let text = ''
    socket.setEncoding('utf8')
    socket.on('data', part => { text += part })
    socket.on('close', () => resolve(text))
  })))
  // One whose head was late, too, gets no answer.
  for (const text of answers) assert.match(text, /^HTTP\/1.1 408 |^$/)
  assert.ok(answers.some(text => text))
})

test('pages of other origins may ask', async () => {
  const headers = { Origin: 'https://app.example.com', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type' }
  const preflight = await ask('/api', { method: 'OPTIONS', headers })
  assert.equal(preflight.status, 204)
  assert.equal(preflight.headers.get('access-control-allow-origin'), '*')
  assert.equal((await ask('/api/auth', { body: user('ann'), headers: { Origin: 'https://app.example.com' } })).headers.get('access-control-allow-origin'), '*')
})
