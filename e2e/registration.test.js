// Clients that register themselves: over plain fetch, with the stock client, and with what
// comes with the request for the WebSocket. On several nodes each next request goes to the
// next one.
import assert from 'node:assert/strict'
import WebSocket from 'ws'
import { connect, login, rejection } from './lib/client.js'
import { nodes, spread } from './lib/cluster.js'
import { startNode } from './lib/node.js'
import { rawChallenge } from './lib/raw.js'
import { test } from './lib/test.js'

const apiSecret = 'the-secret-of-the-backend-0123456789'
const node = await startNode({
  auth: [{ type: 'file', options: { users: { ann: { password: 'pw' } } } }],
  registration: { mode: 'open', bearerTTL: '1440m', perMinute: 0 },
  admin: { token: apiSecret }
}, { secure: false })

// post asks some node.
async function post (path, body, headers = {}, at = node) {
  const response = await fetch(`http://127.0.0.1:${at.port}${path}`, {
    method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body)
  })
  const text = await response.text()
  return { status: response.status, text, body: text.startsWith('{') ? JSON.parse(text) : undefined }
}

const key = seed => `the-key-of-${seed}-0123456789-0123456789`
const basic = (id, authKey) => ({ Authorization: `Basic ${Buffer.from(`${id}:${authKey}`).toString('base64')}` })
const bearer = token => ({ Authorization: `Bearer ${token}` })
const operator = bearer(apiSecret)

// registered makes a client of that id.
async function registered (clientID) {
  const { status, body } = await post('/register', { clientID, authKey: key(clientID) })
  assert.deepEqual({ status, body }, { status: 201, body: { clientID } })
  return { clientID, authKey: key(clientID) }
}

// tokenOf is a new bearer token.
async function tokenOf (pair) {
  const { status, body } = await post('/login', pair)
  assert.equal(status, 200)
  return body.bearerToken
}

// everyNode are the nodes, or the one.
const everyNode = node.nodes ?? [node]

// refusedUpgrade is the answer of HTTP to a request for a WebSocket.
const refusedUpgrade = (at, headers) => new Promise((resolve, reject) => {
  const socket = new WebSocket(at.url, { headers })
  socket.once('open', () => { socket.terminate(); reject(new Error('the WebSocket was opened')) })
  socket.once('unexpected-response', (_, response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', part => { text += part })
    response.on('end', () => resolve({ status: response.statusCode, text }))
  })
  socket.once('error', reject)
})

// upgraded logs in with what the request for the WebSocket brings, and nothing else.
async function upgraded (t, at, headers) {
  const raw = await rawChallenge(t, at, { headers })
  raw.send('AUTH', 'REQUEST', { data: '{}' })
  assert.equal((await raw.next()).action, 'AUTH_SUCCESSFUL')
  return raw
}

test('an id is registered once, and its key logs in on every node', async t => {
  const pair = await registered('once')
  for (const at of everyNode) {
    assert.equal((await post('/register', { clientID: 'once', authKey: key('later') }, {}, at)).status, 409)
    await login(t, at, pair)
    const failed = connect(t, at)
    await rejection(failed.login({ ...pair, authKey: key('another') }))
  }
})

test('keys of under 32 or over 72 bytes are refused with a reason', async () => {
  for (const [length, why] of [[31, /at least 32/], [73, /at most 72/]]) {
    const { status, body } = await post('/register', { clientID: 'long', authKey: 'k'.repeat(length) })
    assert.equal(status, 400)
    assert.match(body.detail, why)
  }
  for (const length of [32, 72]) {
    assert.equal((await post('/register', { clientID: `long-${length}`, authKey: 'k'.repeat(length) })).status, 201)
  }
})

test('of many who register one id at the same time one does, whichever nodes they ask', async t => {
  for (let round = 0; round < 2; round++) {
    const clientID = `raced-${round}`
    const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => post('/register', { clientID, authKey: key(i) })))
    const statuses = answers.map(a => a.status)
    assert.deepEqual([...statuses].sort(), [201, ...Array(5).fill(409)])
    const winner = statuses.indexOf(201)
    for (const i of [winner, (winner + 1) % 6]) {
      assert.equal((await post('/login', { clientID, authKey: key(i) })).status, i === winner ? 200 : 401)
    }
  }
})

test('wrong pairs get one answer, by HTTP and at the upgrade', async () => {
  await registered('known')
  const { status, text } = await post('/login', { clientID: 'unknown', authKey: key('unknown') })
  assert.equal(status, 401)
  for (const pair of [{ clientID: 'known', authKey: key('wrong') }, { clientID: 'known', authKey: '' }, { clientID: 'unknown', authKey: key('known') }]) {
    const answer = await post('/login', pair)
    assert.deepEqual([answer.status, answer.text], [401, text])
  }
  for (const headers of [basic('known', key('wrong')), bearer('hb~a25vd24~nonsense'), bearer('hb~')]) {
    assert.deepEqual(await refusedUpgrade(node, headers), { status: 401, text })
  }
})

test('Basic and Bearer of the upgrade log in on every node', async t => {
  const pair = await registered('upgraded')
  const token = await tokenOf(pair)
  for (const at of everyNode) {
    await upgraded(t, at, basic(pair.clientID, pair.authKey))
    await upgraded(t, at, bearer(token))
  }
  await upgraded(t, node, basic('ann', 'pw')) // of another strategy
})

test('a later login ends the connections of the earlier one on every node', async t => {
  const pair = await registered('twice')
  const first = await tokenOf(pair)
  const connections = []
  for (const at of everyNode) connections.push(await upgraded(t, at, bearer(first)))
  const byKey = await upgraded(t, node, basic(pair.clientID, pair.authKey))
  const second = await tokenOf(pair)
  const began = performance.now()
  for (const raw of connections) assert.deepEqual(await raw.closed, { code: 1008, reason: 'token revoked' })
  t.diagnostic(`${nodes} node(s): the last connection was closed after ${Math.round(performance.now() - began)} ms`)
  assert.equal((await refusedUpgrade(node, bearer(first))).status, 401)
  for (const at of everyNode) await upgraded(t, at, bearer(second))
  await byKey.alive()
})

test('of logins at the same time one token is left', async () => {
  const pair = await registered('many')
  const tokens = await Promise.all(Array.from({ length: 6 }, () => tokenOf(pair)))
  assert.equal(new Set(tokens).size, 6)
  const good = []
  for (const token of tokens) {
    const { status } = await post('/unregister', { clientID: 'nobody' }, bearer(token))
    assert.ok([401, 403].includes(status)) // 403: it is a client's, and not nobody's
    if (status === 403) good.push(token)
  }
  assert.equal(good.length, 1)
})

test('who is unregistered is closed everywhere, and its id is free', async t => {
  const pair = await registered('gone')
  const token = await tokenOf(pair)
  const connections = []
  for (const at of everyNode) {
    connections.push(await upgraded(t, at, bearer(token)), await upgraded(t, at, basic(pair.clientID, pair.authKey)))
  }
  const other = await registered('stays')
  const stays = await upgraded(t, node, basic(other.clientID, other.authKey))
  assert.equal((await post('/unregister', { clientID: 'gone' }, basic(other.clientID, other.authKey))).status, 403)
  assert.equal((await post('/unregister', { clientID: 'gone' })).status, 401)
  assert.equal((await post('/unregister', { clientID: 'gone' }, bearer(token))).status, 200)
  for (const raw of connections) assert.equal((await raw.closed).reason, 'token revoked')
  for (const at of everyNode) {
    assert.equal((await post('/login', pair, {}, at)).status, 401)
    assert.equal((await refusedUpgrade(at, bearer(token))).status, 401)
  }
  await stays.alive()
  assert.equal((await post('/register', { ...pair, authKey: key('anew') })).status, 201)
  assert.equal((await post('/unregister', { clientID: 'gone' }, operator)).status, 200)
  assert.equal((await post('/unregister', { clientID: 'gone' }, operator)).status, 404)
})

test('register, login and unregister of one id at the same time leave one truth', async () => {
  for (let round = 0; round < 2; round++) {
    const pair = await registered(`stormy-${round}`)
    const [out, ...ins] = await Promise.all([
      post('/unregister', { clientID: pair.clientID }, operator),
      ...Array.from({ length: 4 }, () => post('/login', pair))
    ])
    assert.equal(out.status, 200)
    for (const { status, body } of ins) {
      assert.ok([200, 401].includes(status))
      if (status === 200) assert.equal((await refusedUpgrade(node, bearer(body.bearerToken))).status, 401, 'a token outlives its client')
    }
    assert.equal((await post('/login', pair)).status, 401)
  }
})

test('the stock client with a token that has ended can go on with a new one', async t => {
  const pair = await registered('stock')
  const client = await login(t, node, { token: await tokenOf(pair) }, { tolerate: ['CONNECTION_ERROR', 'IS_CLOSED'] })
  const failures = []
  client.on('reauthenticationFailure', reason => failures.push(reason))
  const token = await tokenOf(pair)
  await client.states.until(() => failures.length > 0)
  await client.login({ token })
  await spread()
  await client.state('OPEN')
})

test('a taken name of another strategy is nobody\'s to register', async () => {
  assert.equal((await post('/register', { clientID: 'ann', authKey: key('ann') })).status, 409)
})

test('registration is off unless the configuration says else, and may ask who registers', async t => {
  const off = await startNode({}, { t, secure: false, alone: 'what a node answers that has it off is the same on all' })
  assert.equal((await post('/register', { clientID: 'a', authKey: key('a') }, operator, off)).status, 404)
  const closed = await startNode({ auth: [], registration: { mode: 'authenticated' }, admin: { token: apiSecret } },
    { t, secure: false, alone: 'who may register is judged by each node for itself' })
  const register = (clientID, headers) => post('/register', { clientID, authKey: key(clientID) }, headers, closed)
  assert.equal((await register('first')).status, 401)
  assert.equal((await register('first', bearer('wrong'))).status, 401)
  assert.equal((await register('first', operator)).status, 201)
  assert.equal((await register('second', basic('first', key('wrong')))).status, 401)
  assert.equal((await register('second', basic('first', key('first')))).status, 201)
  const { body } = await post('/login', { clientID: 'second', authKey: key('second') }, {}, closed)
  assert.equal((await register('third', bearer(body.bearerToken))).status, 201)
})
