// Tokens made here: docs/tokens.md. A backend mints with plain fetch, a client logs in
// with what it got, renews it, loses it.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { connect, login, ready, reconnected, rejection, subscribed, told } from './lib/client.js'
import { nodes, spread } from './lib/cluster.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const apiSecret = 'the secret of the backend, as of every test'
const key = id => ({ id, alg: 'HS256', secret: `${id}: a secret with at least thirty-two characters` })
const admin = "user.data !== null && user.data.role === 'admin'"
const config = {
  auth: [{ type: 'file', options: { users: { operator: { password: 'pw', clientData: { likes: 'order' } } } } }],
  tokens: { signingKeys: [key('one')], apiSecret, grace: 200 },
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: { '*': { create: true, read: true, write: true, delete: true, listen: true, notify: true }, 'admin/*': { read: admin } },
        event: { '*': { publish: true, subscribe: true, listen: true }, 'admin/*': { subscribe: admin }, 'hadal/*': { subscribe: false } },
        rpc: { '*': { provide: true, request: false }, 'admin/*': { provide: admin } },
        presence: { '*': { allow: true } }
      }
    }
  }
}
const node = await startNode(config)

// one is a node by its number, of those that stand for the node.
const one = (i, of = node) => of.nodes ? of.nodes[i % of.nodes.length] : of

// ask calls the HTTP API and returns {status, ...answer}.
async function ask (at, method, path, body, secret = apiSecret) {
  const headers = { 'content-type': 'application/json', ...(secret ? { authorization: `Bearer ${secret}` } : {}) }
  const response = await fetch(`http${at.secure ? 's' : ''}://127.0.0.1:${at.port}${path}`, { method, headers, body: body && JSON.stringify(body) })
  return { ...await response.json(), status: response.status }
}

const handed = [] // every token, none of which may stand in a log

async function mint (id, more = {}, at = one(0)) {
  const answer = await ask(at, 'POST', '/auth/token', { id, ...more })
  assert.equal(answer.status, 200, JSON.stringify(answer))
  handed.push(answer.token, answer.refreshToken)
  return answer
}

async function refresh (pair, at = one(0)) {
  const answer = await ask(at, 'POST', '/auth/refresh', { refreshToken: pair.refreshToken }, '')
  if (answer.status === 200) handed.push(answer.token, answer.refreshToken)
  return answer
}

// failing keeps what the client says when it could not log in by itself again.
function failing (client) {
  const inbox = new Inbox()
  client.on('reauthenticationFailure', inbox.push)
  return inbox
}

const renew = (client, token) => client.rpc.make('hadal/auth/refresh', { token })
const sockets = client => client.tap.traffic.items.filter(i => i.opened).length

test('a minted token logs its user in, with the role that rules see', async t => {
  const pair = await mint('ann', { role: 'admin', serverData: { team: 1 }, clientData: { likes: 'red' } })
  assert.ok(pair.expiresAt > Date.now())
  const client = await login(t, one(1), { token: pair.token })
  assert.deepEqual(client.clientData, { likes: 'red' })
  await subscribed(client, 'admin/news')
  const guest = await login(t, one(2), { token: (await mint('gus')).token })
  guest.event.subscribe('admin/news', () => {})
  await told(guest, 'EVENT', 'SUBSCRIBE', 'admin/news')
  // The other ways in are still there.
  await login(t, one(0), { username: 'operator', password: 'pw' })
})

test('only a backend mints, revokes and kicks', async () => {
  for (const secret of ['', 'x', apiSecret.slice(1)]) {
    for (const [method, path, body] of [['POST', '/auth/token', { id: 'ann' }], ['POST', '/auth/revoke', { id: 'ann' }], ['DELETE', '/auth/sessions/ann']]) {
      const answer = await ask(one(0), method, path, body, secret)
      assert.equal(answer.status, 401)
      assert.equal(answer.code, 'UNAUTHORIZED')
    }
  }
})

test('a token that was changed, or names another user, is refused', async t => {
  const { token } = await mint('ann')
  for (const params of [{ token: token.slice(0, -4) + 'AAAA' }, { token, username: 'bob' }]) {
    assert.deepEqual(await rejection(connect(t, node).login(params)), { reason: 'TOKEN_INVALID' })
  }
})

test('what a login brings goes before the bearer of its connection, and has nothing of its rights', async t => {
  const bearer = token => ({ socketOptions: { ...(node.secure ? { ca: node.ca } : {}), headers: { authorization: `Bearer ${token}` } } })
  const ann = await mint('ann', { role: 'admin', clientData: { likes: 'red' } })
  const old = await mint('ann', { role: 'admin', ttl: 1000 })
  // By the bearer alone it is ann, and by a name beside it nobody else.
  const alone = await login(t, one(0), {}, bearer(ann.token))
  assert.deepEqual(alone.clientData, { likes: 'red' })
  await subscribed(alone, 'admin/news')
  assert.deepEqual(await rejection(connect(t, one(1), bearer(ann.token)).login({ username: 'operator' })), { reason: 'TOKEN_INVALID' })
  // By a password it is the operator, who may not what ann may.
  const operator = await login(t, one(1), { username: 'operator', password: 'pw' }, bearer(ann.token))
  assert.deepEqual(operator.clientData, { likes: 'order' })
  operator.event.subscribe('admin/news', () => {})
  await told(operator, 'EVENT', 'SUBSCRIBE', 'admin/news')
  await rejection(connect(t, one(2), bearer(ann.token)).login({ username: 'operator', password: 'wrong' }))
  // The client cannot change its headers when their token has run out.
  await pause(Math.max(0, old.expiresAt - Date.now()) + 20)
  const client = connect(t, one(2), bearer(old.token))
  assert.deepEqual(await rejection(client.login({})), { reason: 'TOKEN_EXPIRED' })
  await client.login({ token: (await mint('gus')).token })
  client.event.subscribe('admin/news', () => {})
  await told(client, 'EVENT', 'SUBSCRIBE', 'admin/news')
})

test('an expired token ends the connection, and the same client goes on with a fresh one', async t => {
  const first = await mint('ann', { ttl: 5000 }) // enough to log in on a busy machine
  const client = await login(t, node, { token: first.token }, { tolerate: ['CONNECTION_ERROR'] })
  const warned = await subscribed(client, 'hadal/auth/expiring')
  const news = await subscribed(client, 'news')
  const failed = failing(client)
  const warning = await warned.next()
  assert.deepEqual(warning, { expiresAt: first.expiresAt, closesAt: first.expiresAt + 200 })
  assert.deepEqual(await failed.next(), { reason: 'TOKEN_EXPIRED' })
  assert.ok(Date.now() >= warning.closesAt, 'it was ended before its time')
  // It is none of the three attempts, however often the client tries.
  for (let i = 0; i < 5; i++) assert.deepEqual(await rejection(client.login({ token: first.token })), { reason: 'TOKEN_EXPIRED' })
  await client.login({ token: (await mint('ann')).token })
  await client.tap.acked('EVENT', 'SUBSCRIBE', 'news')
  const other = await login(t, node, { token: (await mint('bob')).token })
  other.event.emit('news', 1)
  assert.equal(await news.next(), 1)
})

test('who subscribes late is told all the same', async t => {
  const { token, expiresAt } = await mint('ann', { ttl: 10_000 })
  const client = await login(t, node, { token }, { tolerate: ['CONNECTION_ERROR'] })
  await pause(Math.max(0, expiresAt - 2200 - Date.now())) // the reminder was due when a quarter was left
  const warned = await subscribed(client, 'hadal/auth/expiring')
  assert.equal((await warned.next()).expiresAt, expiresAt)
})

test('a live session is renewed ten times, and nothing is lost or comes twice', async t => {
  const publisher = await login(t, one(0), { token: (await mint('pub')).token })
  const first = await mint('ann', { ttl: 5000 }, one(1))
  let pair = first
  const client = await login(t, one(1), { token: pair.token })
  const counter = await subscribed(client, 'counter')
  const record = await ready(client, 'renewals/counter')
  const seen = new Inbox()
  record.subscribe('n', seen.push)
  const source = await ready(publisher, 'renewals/counter')
  await spread()
  let n = 0
  const ticking = setInterval(() => {
    n++
    publisher.event.emit('counter', n)
    source.set('n', n)
  }, 20)
  t.after(() => clearInterval(ticking))
  for (let i = 0; i < 12 || Date.now() < first.expiresAt + 500 || n <= 100; i++) {
    await pause(500)
    const next = await refresh(pair, one(i))
    assert.equal(next.status, 200)
    pair = next
    assert.deepEqual(await renew(client, pair.token), { expiresAt: pair.expiresAt })
  }
  clearInterval(ticking)
  const last = n
  await counter.until(items => items.at(-1) === last)
  assert.deepEqual(counter.items, Array.from({ length: last }, (_, i) => i + 1))
  await seen.until(items => items.at(-1) === last)
  assert.deepEqual(seen.items, Array.from({ length: last }, (_, i) => i + 1))
  assert.equal(sockets(client), 1, 'the client had to connect again')
})

test('a renewed token allows what it says, no more', async t => {
  const client = await login(t, one(0), { token: (await mint('ann', { role: 'admin' })).token })
  const inbox = await subscribed(client, 'admin/news')
  const record = await ready(client, 'admin/doc')
  record.on('error', () => {})
  const other = await login(t, one(1), { token: (await mint('bob')).token })
  // Further rights first: bob becomes an administrator, and hears.
  await renew(other, (await mint('bob', { role: 'admin' })).token)
  await subscribed(other, 'admin/news')
  await renew(client, (await mint('ann')).token)
  const lost = await client.errors.take(2)
  assert.deepEqual(lost.map(([, event, topic]) => `${topic} ${event}`).sort(), ['EVENT MESSAGE_DENIED', 'RECORD MESSAGE_DENIED'])
  other.event.emit('admin/news', 1)
  const marker = await subscribed(client, 'marker')
  other.event.emit('marker', 2)
  await marker.next()
  assert.deepEqual(inbox.items, [])
  assert.equal(await rejection(client.record.snapshot('admin/other')), 'MESSAGE_DENIED')
})

test('a session is renewed with a good token of its user only', async t => {
  const client = await login(t, node, { token: (await mint('ann')).token })
  const short = await mint('ann', { ttl: 1000 })
  await pause(Math.max(0, short.expiresAt - Date.now()))
  for (const [token, why] of [[(await mint('bob')).token, 'NOT_RENEWABLE'], ['x', 'TOKEN_INVALID'], [short.token, 'TOKEN_EXPIRED'], ['', 'INVALID_MESSAGE_DATA']]) {
    assert.equal(await rejection(renew(client, token)), why)
  }
  const plain = await login(t, node, { username: 'operator', password: 'pw' })
  assert.equal(await rejection(renew(plain, (await mint('operator')).token)), 'NOT_RENEWABLE')
  client.event.emit('hadal/auth/expiring', 1)
  await told(client, 'EVENT', 'EMIT', 'hadal/auth/expiring')
})

test('refresh tokens: two at once get the same, an old one ends all', async t => {
  const first = await mint('ann')
  const client = await login(t, one(1), { token: first.token }, { tolerate: ['CONNECTION_ERROR'] })
  const failed = failing(client)
  const [a, b] = await Promise.all([refresh(first, one(0)), refresh(first, one(1))])
  assert.equal(a.status, 200)
  assert.deepEqual(a, b)
  const third = await refresh(a, one(2))
  assert.equal(third.status, 200)
  assert.equal((await refresh(first, one(1))).status, 401)
  assert.equal((await refresh(third, one(0))).status, 401)
  assert.deepEqual(await failed.next(), { reason: 'TOKEN_REVOKED' })
  assert.deepEqual(await rejection(connect(t, one(2)).login({ token: third.token })), { reason: 'TOKEN_REVOKED' })
})

test('a revocation reaches connections on every node, and can be taken back', async t => {
  const tokens = await Promise.all([0, 1, 2].map(i => mint('rev', {}, one(i))))
  const clients = await Promise.all(tokens.map(({ token }, i) => login(t, one(i), { token }, { tolerate: ['CONNECTION_ERROR'] })))
  const other = await login(t, one(1), { token: (await mint('stays')).token })
  const failures = clients.map(failing)
  const began = Date.now()
  assert.equal((await ask(one(0), 'POST', '/auth/revoke', { id: 'rev' })).status, 200)
  const answered = Date.now()
  for (const failed of failures) assert.deepEqual(await failed.next(), { reason: 'TOKEN_REVOKED' })
  // make bench-logins measures how fast it is; this is that it is not by chance, on a busy machine too.
  assert.ok(Date.now() - answered < 30_000, 'connections on other nodes outlived the answer by half a minute')
  t.diagnostic(`the last connection ended, and had tried again, ${Date.now() - answered} ms after the answer, which took ${answered - began} ms`)
  assert.equal(sockets(other), 1)
  assert.equal((await refresh(tokens[2], one(1))).code, 'TOKEN_REVOKED')
  // Who gets a new token is in at once.
  await login(t, one(1), { token: (await mint('rev', {}, one(2))).token })
  assert.equal((await ask(one(1), 'DELETE', '/auth/revoke', { id: 'rev' })).status, 200)
  await spread()
  await clients[0].login({ token: tokens[0].token })
  assert.equal((await refresh(tokens[2], one(2))).status, 200)
})

test('one token is revoked by its id, everybody by a time', async t => {
  const jti = token => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).jti
  const [a, b] = [await mint('ann'), await mint('ann')]
  assert.equal((await ask(one(0), 'POST', '/auth/revoke', { jti: jti(a.token) })).status, 200)
  await spread()
  assert.deepEqual(await rejection(connect(t, node).login({ token: a.token })), { reason: 'TOKEN_REVOKED' })
  await login(t, node, { token: b.token }, { tolerate: ['CONNECTION_ERROR'] })
  const before = new Date().toISOString()
  await pause(2) // so that what comes is after it
  assert.equal((await ask(one(1), 'POST', '/auth/revoke', { before })).status, 200)
  await spread()
  assert.deepEqual(await rejection(connect(t, node).login({ token: b.token })), { reason: 'TOKEN_REVOKED' })
  await login(t, node, { token: (await mint('ann')).token })
  assert.equal((await ask(one(2), 'POST', '/auth/revoke', { before, undo: true })).status, 200)
  await spread()
  await login(t, node, { token: b.token })
})

test('a kick closes what the user has everywhere, and presence tells', async t => {
  const watcher = await login(t, one(0), { token: (await mint('watcher')).token })
  const seen = new Inbox()
  await watcher.tap.confirmed('PRESENCE', 'SUBSCRIBE', undefined, () => watcher.presence.subscribe('k/ick', (id, online) => seen.push(online)))
  const { token } = await mint('k/ick')
  const clients = []
  for (let i = 0; i < nodes; i++) clients.push(await login(t, one(i), { token }, { tolerate: ['CONNECTION_ERROR'] }))
  assert.equal(await seen.next(), true)
  await Promise.all([
    ...clients.map(client => reconnected(client, () => {})),
    ask(one(1), 'DELETE', '/auth/sessions/' + encodeURIComponent('k/ick')).then(answer => assert.equal(answer.status, 200))
  ])
  for (const client of clients) client.close()
  await seen.until(items => items.at(-1) === false)
})

test('a key is exchanged without anybody being refused', async t => {
  const node = await startNode(config, { t, alone: 'a reload of one node is looked at' })
  const reload = async signingKeys => {
    const before = node.log.split('reloaded rules').length
    await node.configure({ tokens: { signingKeys } })
    node.hangup()
    while (node.log.split('reloaded rules').length === before) await pause(10)
  }
  const kid = token => JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).kid
  const old = await mint('ann', {}, node)
  assert.equal(kid(old.token), 'one')
  await reload([key('two'), key('one')])
  const fresh = await mint('ann', {}, node)
  assert.equal(kid(fresh.token), 'two')
  await login(t, node, { token: old.token })
  await login(t, node, { token: fresh.token })
  await reload([key('two')])
  await login(t, node, { token: fresh.token })
  assert.deepEqual(await rejection(connect(t, node).login({ token: old.token })), { reason: 'TOKEN_INVALID' })
  assert.equal(kid((await refresh(old, node)).token), 'two') // its refresh token goes on
  // What is wrong changes nothing.
  await node.configure({ tokens: { signingKeys: [{ ...key('three'), secret: 'short' }] } })
  node.hangup()
  while (!/reload refused.*signingKeys\[0\]\.secret/.test(node.log)) await pause(10)
  assert.equal(kid((await mint('ann', {}, node)).token), 'two')
})

test('no secret is in a log', async () => {
  const log = (node.nodes ?? [node]).map(n => n.log).join('')
  assert.match(log, /used twice/)
  for (const secret of [...handed.map(s => s.slice(-24)), apiSecret, key('one').secret]) assert.ok(!log.includes(secret), 'a secret is in the log')
})
