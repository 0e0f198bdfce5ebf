// Connecting, logging in, staying and leaving: spec 06, spec 14 §2.
import assert from 'node:assert/strict'
import { pbkdf2Sync } from 'node:crypto'
import { C, connect, login, logins, rejection, subscribed, unplugged } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawChallenge, rawConnect, rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

// hashed is a password as deepstream's hash command writes it: the salt is used,
// and appended, as the text it is.
function hashed (password, { hash, iterations, keyLength }) {
  const salt = Buffer.from('sixteen bytes ok').toString('base64')
  return pbkdf2Sync(password, salt, iterations, keyLength, hash).toString('base64') + salt
}

const open = await startNode()
const guarded = await startNode({
  auth: [{
    type: 'file',
    options: {
      users: {
        ada: { password: 'secret', clientData: { theme: 'dark' }, serverData: { role: 'admin' } },
        bob: { password: 'hunter2' }
      }
    }
  }]
})

test('anybody logs in where no authentication is configured', async t => {
  const client = connect(t, open)
  const answer = await new Promise(resolve => client.login((...args) => resolve(args)))
  assert.equal(answer[0], true)
  assert.equal(client.getConnectionState(), C.CONNECTION_STATE.OPEN)
})

test('the client walks through its states in order', async t => {
  const client = await login(t, open)
  assert.deepEqual(client.states.items, [
    'AWAITING_CONNECTION', 'CHALLENGING', 'AWAITING_AUTHENTICATION', 'AUTHENTICATING', 'OPEN'
  ])
})

test('a right password logs in and brings the client data along', async t => {
  const client = await login(t, guarded, { username: 'ada', password: 'secret' })
  assert.deepEqual(client.clientData, { theme: 'dark' })
})

test('a wrong password is refused and the next attempt may succeed', async t => {
  const client = connect(t, guarded)
  assert.deepEqual(await rejection(client.login({ username: 'ada', password: 'wrong' })), { reason: 'INVALID_AUTHENTICATION_DETAILS' })
  assert.equal(client.getConnectionState(), 'AWAITING_AUTHENTICATION')
  assert.deepEqual(await client.login({ username: 'ada', password: 'secret' }), { theme: 'dark' })
})

test('an unknown user is refused', async t => {
  const client = connect(t, guarded)
  assert.deepEqual(await rejection(client.login({ username: 'eve', password: 'secret' })), { reason: 'INVALID_AUTHENTICATION_DETAILS' })
})

test('a login without name and password is refused and told what is missing', async t => {
  const client = connect(t, guarded)
  const { reason } = await rejection(client.login({}))
  assert.equal(typeof reason.error, 'string')
  assert.match(reason.error, /username/)
})

test('the third failure ends the connection for good', async t => {
  const client = connect(t, guarded)
  await rejection(client.login({ username: 'ada', password: '1' }))
  await rejection(client.login({ username: 'ada', password: '2' }))
  await rejection(client.login({ username: 'ada', password: '3' }))
  await client.state('TOO_MANY_AUTH_ATTEMPTS')
  const [, event] = await client.errors.next()
  assert.equal(event, 'TOO_MANY_AUTH_ATTEMPTS')
  client.login({ username: 'ada', password: 'secret' }).catch(() => {})
  assert.equal((await client.errors.next())[1], 'IS_CLOSED')
})

test('the verdict and the end are both told before the connection closes (trap 25)', async t => {
  const raw = await rawChallenge(t, guarded)
  const bad = { data: JSON.stringify({ username: 'ada', password: 'wrong' }) }
  for (let i = 0; i < 3; i++) raw.send('AUTH', 'REQUEST', bad)
  for (let i = 0; i < 3; i++) await raw.expect('AUTH', 'AUTH_UNSUCCESSFUL')
  await raw.expect('AUTH', 'TOO_MANY_AUTH_ATTEMPTS')
  await raw.closed
})

test('broken messages do not count as attempts', async t => {
  const raw = await rawChallenge(t, guarded)
  for (let i = 0; i < 5; i++) {
    raw.send('EVENT', 'EMIT', { name: 'x' })
    await raw.expect('AUTH', 'INVALID_MESSAGE')
  }
  raw.send('AUTH', 'REQUEST', { data: JSON.stringify({ username: 'bob', password: 'hunter2' }) })
  assert.equal((await raw.next()).action, 'AUTH_SUCCESSFUL')
})

test('passwords hashed by deepstream are understood (trap 27)', async t => {
  const settings = { hash: 'md5', iterations: 100, keyLength: 32 }
  const node = await startNode({
    auth: [{ type: 'file', options: { ...settings, users: { userA: { password: hashed('password', settings) } } } }]
  }, { t })
  await login(t, node, { username: 'userA', password: 'password' })
  const client = connect(t, node)
  await rejection(client.login({ username: 'userA', password: 'Password' }))
})

test('a client that does not log in in time is told and closed', async t => {
  const node = await startNode({ connectionEndpoints: [{ type: 'ws-binary', options: { unauthenticatedClientTimeout: 200 } }] }, { t })
  const client = connect(t, node)
  await client.state('AUTHENTICATION_TIMEOUT')
  assert.equal((await client.errors.next())[1], 'AUTHENTICATION_TIMEOUT')
  const raw = await rawConnect(t, node)
  await raw.expect('CONNECTION', 'AUTHENTICATION_TIMEOUT')
  await raw.closed
})

test('a failed login does not lift the time limit (trap 26)', async t => {
  const node = await startNode({
    auth: [{ type: 'file', options: { users: { ada: { password: 'secret' } } } }],
    connectionEndpoints: [{ type: 'ws-binary', options: { unauthenticatedClientTimeout: 1500 } }]
  }, { t })
  const raw = await rawChallenge(t, node)
  raw.send('AUTH', 'REQUEST', { data: JSON.stringify({ username: 'ada', password: 'wrong' }) })
  await raw.expect('AUTH', 'AUTH_UNSUCCESSFUL')
  await raw.expect('CONNECTION', 'AUTHENTICATION_TIMEOUT')
  await raw.closed
})

test('parallel logins succeed once (trap 26)', async t => {
  const raw = await rawChallenge(t, guarded)
  const good = { data: JSON.stringify({ username: 'ada', password: 'secret' }) }
  raw.send('AUTH', 'REQUEST', good)
  raw.send('AUTH', 'REQUEST', good)
  await raw.expect('AUTH', 'AUTH_SUCCESSFUL', { data: '{"theme":"dark"}' })
  await raw.parser('UNKNOWN_TOPIC') // the second came after the login
  await raw.alive()
})

test('a silent client is closed after two heartbeats and a pinging one stays', async t => {
  const node = await startNode({ connectionEndpoints: [{ type: 'ws-binary', options: { heartbeatInterval: 1000 } }] }, { t })
  const stays = await login(t, node, {}, { heartbeatInterval: 1000 })
  const inbox = await subscribed(stays, 'still')
  const silent = await rawLogin(t, node)
  await silent.closed
  const again = await rawLogin(t, node)
  again.send('EVENT', 'EMIT', { name: 'still', data: '"here"' })
  assert.equal(await inbox.next(), 'here')
  assert.equal(stays.tap.traffic.items.filter(i => i.opened).length, 1, 'the pinging client never reconnected')
})

test('a ping is answered after login and not before (trap 23)', async t => {
  const raw = await rawConnect(t, open)
  raw.send('CONNECTION', 'PING')
  raw.send('CONNECTION', 'CHALLENGE', { url: open.url })
  await raw.expect('CONNECTION', 'ACCEPT')
  raw.send('CONNECTION', 'PING')
  raw.send('AUTH', 'REQUEST', { data: '{}' })
  assert.equal((await raw.next()).action, 'AUTH_SUCCESSFUL')
  raw.send('CONNECTION', 'PING')
  await raw.expect('CONNECTION', 'PONG')
})

test('nothing reaches the rooms before the challenge and the connection stays (trap 24)', async t => {
  const watcher = await login(t, open)
  const inbox = await subscribed(watcher, 'early')
  const raw = await rawConnect(t, open)
  raw.send('EVENT', 'EMIT', { name: 'early', data: '1' })
  await raw.expect('CONNECTION', 'INVALID_MESSAGE')
  raw.send('AUTH', 'REQUEST', { data: '{}' })
  await raw.expect('CONNECTION', 'INVALID_MESSAGE')
  raw.send('CONNECTION', 'CHALLENGE', {})
  await raw.expect('CONNECTION', 'ACCEPT')
  raw.send('AUTH', 'REQUEST', { data: '{}' })
  assert.equal((await raw.next()).action, 'AUTH_SUCCESSFUL')
  raw.send('EVENT', 'EMIT', { name: 'early', data: '2' })
  assert.equal(await inbox.next(), 2)
})

test('nothing reaches the rooms before the login and the connection stays (trap 24)', async t => {
  const raw = await rawChallenge(t, open)
  for (const [topic, action, fields] of [
    ['CONNECTION', 'CHALLENGE', {}],
    ['EVENT', 'SUBSCRIBE', { names: ['x'], correlationId: '0' }],
    ['RECORD', 'READ', { name: 'x' }],
    ['RPC', 'REQUEST', { name: 'x', correlationId: '1' }],
    ['PRESENCE', 'QUERY_ALL', {}]
  ]) {
    raw.send(topic, action, fields)
    await raw.expect('AUTH', 'INVALID_MESSAGE')
  }
  raw.send('AUTH', 'REQUEST', { data: '{}' })
  assert.equal((await raw.next()).action, 'AUTH_SUCCESSFUL')
})

for (const [what, action, fields] of [
  ['no data', 'REQUEST', {}],
  ['broken JSON', 'REQUEST', { data: '{"username":' }],
  ['null', 'REQUEST', { data: 'null' }],
  ['a string', 'REQUEST', { data: '"ada"' }],
  ['a number', 'REQUEST', { data: '7' }],
  ['another action', 'AUTH_SUCCESSFUL', { data: '{}' }]
]) {
  test(`a login with ${what} is refused and closed (trap 24)`, async t => {
    const raw = await rawChallenge(t, open)
    raw.send('AUTH', action, fields)
    await raw.expect('AUTH', 'INVALID_MESSAGE_DATA')
    await raw.closed
    await login(t, open)
  })
}

test('after the login the handshake topics are unknown', async t => {
  const raw = await rawLogin(t, open)
  for (const [topic, action] of [['AUTH', 'REQUEST'], ['CONNECTION', 'CHALLENGE'], ['PARSER', 'UNKNOWN_TOPIC']]) {
    raw.send(topic, action, {})
    await raw.parser('UNKNOWN_TOPIC')
  }
  await raw.alive()
})

test('a user may be logged in several times', async t => {
  const [one, two] = await logins(t, open, ['ada', 'ada'])
  const inbox = await subscribed(one, 'self')
  two.event.emit('self', 1)
  assert.equal(await inbox.next(), 1)
})

test('a query string after the path is ignored (trap 45)', async t => {
  await login(t, open, {}, { path: '?token=abc&x=1' })
})

test('another path is refused and the port stays open', async t => {
  const raw = rawConnect(t, { url: open.url + '/other', ca: open.ca })
  await rejection(raw)
  await login(t, open)
})

test('pages of foreign origins are kept out where origins are listed', async t => {
  const node = await startNode({ httpServer: { options: { allowAllOrigins: false, origins: ['https://app.example'] } } }, { t })
  await rejection(rawConnect(t, node, { headers: { Origin: 'https://evil.example' } }))
  const raw = await rawLogin(t, node, {}, { headers: { Origin: 'https://app.example' } })
  await raw.alive()
})

test('the health pages answer', async () => {
  assert.equal((await open.get('/health-check')).status, 200)
  assert.equal((await open.get('/healthz')).status, 200)
  const ready = await open.get('/readyz')
  assert.equal(ready.status, 200)
  assert.equal(typeof JSON.parse(ready.body), 'object')
})

test('a terminated node closes its clients and exits with 0', async t => {
  const node = await startNode({}, { t })
  const raw = await rawLogin(t, node)
  const client = await login(t, node, {}, { tolerate: unplugged })
  const ended = node.stop()
  await raw.closed
  await client.state('RECONNECTING')
  assert.deepEqual(await ended, { code: 0, signal: null })
  client.close()
})
