// Who a client is, by a signed token: in the auth data, or with the upgrade.
import assert from 'node:assert/strict'
import { connect, login, rejection } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawChallenge, rawLogin } from './lib/raw.js'
import { inSeconds, pair, reply, serve, token } from './lib/servers.js'
import { test } from './lib/test.js'

const page = 'https://app.example'
const hs = { alg: 'HS256', id: 'hs', secret: 'a secret that is long enough for it' }
const rs = pair('RS256', 'rs')
const others = ['PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'].map(alg => pair(alg, alg))
const claims = changes => ({ sub: 'ada', aud: 'hadal', iss: 'https://id.example/', ...changes })

const node = await startNode({
  auth: [{
    type: 'jwt',
    options: {
      keys: [{ id: 'hs', alg: 'HS256', secret: hs.secret }, ...[rs, ...others].map(k => ({ id: k.id, alg: k.alg, key: k.pem }))],
      audience: ['hadal'],
      issuer: 'https://id.example/',
      claims: { clientData: ['name'], serverData: { team: 'team' } }
    }
  }],
  upgrade: { cookie: 'sid', query: 'access', origins: [page] },
  permission: {
    type: 'config',
    options: {
      permissions: {
        presence: { '*': { allow: true } },
        record: { '*': { create: true, read: true, write: true, delete: true, listen: true, notify: true } },
        rpc: { '*': { provide: true, request: true } },
        event: { '*': { publish: "user.data !== null && user.data.role === 'admin' && user.data.team === 'red'", subscribe: true, listen: true } }
      }
    }
  }
})

for (const key of [hs, rs, ...others]) {
  test(`a token signed by ${key.alg} logs in`, async t => {
    await login(t, node, { token: token(key, claims()) })
    await login(t, node, { jwt: token({ ...key, id: '' }, claims()) })
  })
}

test('claims become what client and rules see', async t => {
  const client = await login(t, node, { token: token(hs, claims({ name: 'Ada', team: 'red', role: 'admin' })) })
  assert.deepEqual(client.clientData, { name: 'Ada' })
  const got = new Promise(resolve => client.event.subscribe('news', resolve))
  client.event.emit('news', 'x')
  assert.equal(await got, 'x')
})

const forged = () => {
  const [head, body, signature] = token(hs, claims()).split('.')
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url')
  return [
    ['of alg none', `${part({ alg: 'none' })}.${body}.`],
    ['with the public key as its secret', token({ alg: 'HS256', id: 'rs', secret: rs.pem }, claims())],
    ['of another algorithm with the same key', token({ ...rs, alg: 'PS256' }, claims())],
    ['by somebody else', token({ ...hs, secret: 'x'.repeat(40) }, claims())],
    ['with other claims', `${head}.${part(claims({ sub: 'root', exp: inSeconds(60) }))}.${signature}`],
    ['for another audience', token(hs, claims({ aud: 'shop' }))],
    ['for no audience', token(hs, claims({ aud: undefined }))],
    ['of another issuer', token(hs, claims({ iss: 'https://evil.example/' }))],
    ['not valid yet', token(hs, claims({ nbf: inSeconds(600) }))],
    ['that never expires', token(hs, claims({ exp: undefined }))],
    ['for nobody', token(hs, claims({ sub: undefined }))],
    ['that is none', 'x']
  ]
}

for (const [what, bad] of forged()) {
  test(`a token ${what} is refused`, async t => {
    const client = connect(t, node)
    assert.deepEqual(await rejection(client.login({ token: bad })), { reason: 'TOKEN_INVALID' })
  })
}

test('a token does not log in as somebody else', async t => {
  for (const as of [{ username: 'bob' }, { id: 'bob' }]) {
    const client = connect(t, node)
    assert.deepEqual(await rejection(client.login({ token: token(hs, claims()), ...as })), { reason: 'TOKEN_OF_ANOTHER_USER' })
  }
  await login(t, node, { token: token(hs, claims()), username: 'ada' })
})

test('an expired token says so, costs no attempt, and a fresh one follows on the same client', async t => {
  const client = connect(t, node)
  const old = token(hs, claims({ exp: inSeconds(-60) }))
  for (let i = 0; i < 5; i++) assert.deepEqual(await rejection(client.login({ token: old })), { reason: 'TOKEN_EXPIRED' })
  await client.login({ token: token(hs, claims()) })
})

test('a login without a token is told what is missing', async t => {
  const client = connect(t, node)
  assert.match((await rejection(client.login({}))).reason.error, /token/)
})

// What the upgrade brings, for clients that send {} at their login.
const good = () => token(hs, claims())

for (const [what, options, verdict] of [
  ['a bearer', () => ({ headers: { authorization: `Bearer ${good()}` } })],
  ['a cookie of our page', () => ({ headers: { cookie: `sid=${good()}`, origin: page } })],
  ['a query parameter', () => ({ path: `?access=${good()}` })],
  ['a cookie of a foreign page', () => ({ headers: { cookie: `sid=${good()}`, origin: 'https://evil.example' } }), /missing/],
  ['a cookie of no page', () => ({ headers: { cookie: `sid=${good()}` } }), /missing/],
  ['a cookie of another name', () => ({ headers: { cookie: `x=${good()}`, origin: page } }), /missing/],
  ['a query parameter of another name', () => ({ path: `?token=${good()}` }), /missing/],
  ['an expired bearer', () => ({ headers: { authorization: `Bearer ${token(hs, claims({ exp: 1 }))}` } }), /^"TOKEN_EXPIRED"$/],
  ['a forged bearer', () => ({ headers: { authorization: 'Bearer x' } }), /^"TOKEN_INVALID"$/],
  ['two tokens that differ', () => ({ path: `?access=${token(hs, claims({ sub: 'bob' }))}`, headers: { authorization: `Bearer ${good()}` } }), /CONFLICTING_CREDENTIALS/],
  ['a token and a password', () => ({ path: `?access=${good()}`, headers: { authorization: `Basic ${btoa('ada:pw')}` } }), /CONFLICTING_CREDENTIALS/],
  ['half a header', () => ({ headers: { authorization: 'Basic !' } }), /MALFORMED_CREDENTIALS/]
]) {
  test(`an upgrade with ${what} ${verdict ? 'is refused' : 'logs in'}`, async t => {
    const raw = await rawChallenge(t, node, options())
    raw.send('AUTH', 'REQUEST', { data: '{}' })
    const answer = await raw.next()
    if (!verdict) return assert.equal(answer.action, 'AUTH_SUCCESSFUL')
    assert.equal(answer.action, 'AUTH_UNSUCCESSFUL')
    assert.match(answer.data, verdict)
  })
}

test('what a login brings goes before what its connection came with', async t => {
  const old = { headers: { authorization: `Bearer ${token(hs, claims({ exp: 1 }))}` } }
  await rawLogin(t, node, { token: good() }, old)
  const raw = await rawChallenge(t, node, { headers: { authorization: `Bearer ${good()}` } })
  raw.send('AUTH', 'REQUEST', { data: JSON.stringify({ username: 'bob' }) })
  await raw.expect('AUTH', 'AUTH_UNSUCCESSFUL', { data: '"TOKEN_OF_ANOTHER_USER"' })
})

test('the stock client logs in by a token in its URL', async t => {
  await login(t, node, {}, { path: `?access=${good()}` })
})

test('a password comes with an upgrade too, but not from a foreign page', async t => {
  const guarded = await startNode({
    auth: [{ type: 'file', options: { users: { ada: { password: 'secret' } } } }], upgrade: { origins: [page] }
  }, { t })
  const authorization = `Basic ${btoa('ada:secret')}`
  await rawLogin(t, guarded, {}, { headers: { authorization } })
  await rawLogin(t, guarded, {}, { headers: { authorization, origin: page } })
  await rawLogin(t, guarded, { username: 'ada', password: 'secret' }, { headers: { authorization: `Basic ${btoa('ada:wrong')}` } })
  for (const headers of [{ authorization, origin: 'https://evil.example' }, { authorization: `Basic ${btoa('ada:wrong')}` }]) {
    const raw = await rawChallenge(t, guarded, { headers })
    raw.send('AUTH', 'REQUEST', { data: '{}' })
    assert.equal((await raw.next()).action, 'AUTH_UNSUCCESSFUL')
  }
})

test('keys are taken from a set, and rotate, also at a node that started without it', async t => {
  const one = pair('ES256', 'one')
  const two = pair('ES256', 'two')
  let keys = null
  const set = await serve((request, response) => keys ? reply(response, 200, { keys }) : reply(response, 500), { t })
  const byURL = await startNode({ auth: [{ type: 'jwt', options: { jwksUrl: `${set}/jwks.json`, jwksRefresh: 1000 } }] }, { t })
  // attempt is what becomes of a login with a token; at some node of a cluster.
  const attempt = async key => {
    const raw = await rawChallenge(t, byURL)
    raw.send('AUTH', 'REQUEST', { data: JSON.stringify({ token: token(key, { sub: 'ada' }) }) })
    const { action, data } = await raw.next()
    raw.drop()
    return data ?? action
  }
  // settles waits until it is that six times in a row.
  const settles = async (key, want) => {
    for (let same = 0; same < 6;) same = await attempt(key) === want ? same + 1 : 0
  }
  assert.equal(await attempt(one), '"TOKEN_KEYS_UNAVAILABLE"')
  keys = [one.jwk]
  await settles(one, 'AUTH_SUCCESSFUL')
  assert.equal(await attempt(two), '"TOKEN_INVALID"')
  keys = [one.jwk, two.jwk]
  await settles(two, 'AUTH_SUCCESSFUL')
  assert.equal(await attempt(one), 'AUTH_SUCCESSFUL')
  keys = [two.jwk]
  await settles(one, '"TOKEN_INVALID"')
  assert.equal(await attempt(two), 'AUTH_SUCCESSFUL')
  keys = null // the last set counts
  assert.equal(await attempt(two), 'AUTH_SUCCESSFUL')
})

test('no token stands in the log', () => {
  assert.doesNotMatch(node.log, /eyJ|a secret that is long/)
})
