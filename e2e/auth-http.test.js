// Who a client is, by a webhook: what it is asked, and what becomes of its answers.
import assert from 'node:assert/strict'
import { connect, login, rejection } from './lib/client.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { reply, serve } from './lib/servers.js'
import { test } from './lib/test.js'

const secret = 's3cr3t-of-a-client'

// The webhook does what the client asks for in `do`, and remembers what it was sent.
const asked = new Inbox()
const elsewhere = new Inbox()
const other = await serve((request, response) => {
  elsewhere.push(request.url)
  reply(response, 200, 'eve')
})
let failures = 0
const hook = await serve((request, response, body) => {
  const sent = JSON.parse(body || '{}')
  asked.push({ method: request.method, url: request.url, headers: request.headers, ...sent })
  const { username, do: what } = sent.authData
  switch (what) {
    case 'text': return reply(response, 200, username)
    case 'nothing': return reply(response, 204)
    case 'data': return reply(response, 200, { id: username, clientData: { theme: 'dark' }, serverData: { role: 'admin' } })
    case 'invalid': return reply(response, 200, { id: username, isValid: false, clientData: { why: 'banned' } })
    case 'refuse': return reply(response, 403, { code: 7 })
    case 'refuse in words': return reply(response, 401, 'no entry')
    case 'claim': return reply(response, 403, { id: username, isValid: true })
    case 'fail': return reply(response, 500, 'out of order')
    case 'unavailable': return reply(response, 503)
    case 'fail once': return failures++ === 0 ? request.socket.destroy() : reply(response, 200, username)
    case 'hang up': return request.socket.destroy()
    case 'sleep': return
    case 'drip':
      response.writeHead(200, { 'content-type': 'text/plain' })
      return response.write(username)
    case 'garbage':
      response.writeHead(200, { 'content-type': 'application/json' })
      return response.end('{"id":')
    case 'page':
      response.writeHead(200, { 'content-type': 'text/html' })
      return response.end('<html>sign in</html>')
    case 'huge': return reply(response, 200, { id: username, clientData: 'x'.repeat(1 << 20) })
    case 'away':
      response.writeHead(307, { location: other })
      return response.end()
    case 'as page':
      response.writeHead(302, { location: '/again' })
      return response.end()
    case 'again':
      if (request.url === '/again') return reply(response, 200, username)
      response.writeHead(308, { location: '/again' })
      return response.end()
  }
  reply(response, 400)
})

const webhook = (changes = {}) => ({
  type: 'http',
  options: {
    endpointUrl: `${hook}/auth`, permittedStatusCodes: [200, 204], requestTimeout: 1500,
    retryStatusCodes: [503], retryAttempts: 1, retryInterval: 50, promoteToHeader: ['session'], ...changes
  }
})

const node = await startNode({ auth: [webhook()] })
const gone = 'AUTH_RETRY_ATTEMPTS_EXCEEDED'

test('a webhook lets in and its data reaches the client', async t => {
  const client = await login(t, node, { username: 'ada', do: 'data' })
  assert.deepEqual(client.clientData, { theme: 'dark' })
})

test('a text is the user, nothing is nobody', async t => {
  const ada = await login(t, node, { username: 'ada', do: 'text' })
  await login(t, node, { username: 'bob', do: 'nothing' })
  const users = await ada.presence.getAll()
  assert.ok(!users.includes('bob'))
})

test('the webhook is told what deepstream tells it, without foreign credentials', async t => {
  const before = asked.items.length
  const raw = await rawLogin(t, node, { username: 'ada', do: 'text', session: 'abc' }, { headers: { 'x-mine': 'yes', cookie: 'sid=1', referer: 'https://app.example/' } })
  await raw.alive()
  const seen = asked.items.slice(before).find(s => s.authData.session === 'abc')
  assert.equal(seen.method, 'POST')
  assert.equal(seen.headers['content-type'], 'application/json')
  assert.equal(seen.headers.accept, 'application/json')
  assert.equal(seen.headers.session, 'abc')
  assert.deepEqual(seen.authData, { username: 'ada', do: 'text', session: 'abc' })
  assert.equal(seen.connectionData.remoteAddress, '127.0.0.1')
  assert.equal(seen.connectionData.headers['x-mine'], 'yes')
  assert.equal(seen.connectionData.headers.cookie, undefined)
  assert.equal(seen.connectionData.referer, 'https://app.example/')
})

for (const [what, reason] of [
  ['invalid', { why: 'banned' }],
  ['refuse', { code: 7 }],
  ['refuse in words', { error: 'no entry' }],
  ['claim', { id: 'ada', isValid: true }],
  ['fail', { error: 'out of order' }],
  ['unavailable', { error: gone }],
  ['hang up', { error: gone }],
  ['sleep', { error: gone }],
  ['drip', { error: gone }],
  ['garbage', { error: 'AUTH_ANSWER_UNUSABLE' }],
  ['page', { error: 'AUTH_ANSWER_UNUSABLE' }],
  ['huge', { error: 'AUTH_ANSWER_UNUSABLE' }],
  ['away', { error: 'AUTH_ANSWER_UNUSABLE' }],
  ['as page', { error: 'AUTH_ANSWER_UNUSABLE' }]
]) {
  test(`nobody gets in when the webhook is told to ${what}`, async t => {
    const client = connect(t, node)
    assert.deepEqual(await rejection(client.login({ username: 'ada', password: secret, do: what })), { reason })
  })
}

test('a redirect to the same place is followed with the whole request, one elsewhere never', async t => {
  await login(t, node, { username: 'ada', do: 'again' })
  assert.equal(asked.items.filter(s => s.url === '/again').length, 1)
  assert.deepEqual(elsewhere.items, [])
})

test('a request that got lost is sent again', async t => {
  await login(t, node, { username: 'ada', do: 'fail once' })
  assert.equal(failures, 2)
})

test('behind a webhook that fails no other strategy is asked, behind one that refuses it is', async t => {
  const chain = await startNode({ auth: [webhook({ reportInvalidParameters: false }), { type: 'none' }], allowOpenFallback: true }, { t })
  await login(t, chain, { username: 'ada', do: 'refuse' })
  for (const what of ['fail', 'hang up', 'garbage']) {
    const client = connect(t, chain)
    assert.ok((await rejection(client.login({ username: 'ada', do: what }))).reason.error)
  }
})

test('a webhook that is not there lets nobody in and keeps no node from starting', async t => {
  const closed = await startNode({ auth: [webhook({ endpointUrl: 'http://127.0.0.1:1/' })] }, { t })
  const client = connect(t, closed)
  assert.deepEqual(await rejection(client.login({ username: 'ada' })), { reason: { error: gone } })
})

test('a failure among the permitted codes keeps a node from starting', async t => {
  const wrong = await startNode({ auth: [webhook({ permittedStatusCodes: [200, 500] })] }, { t, start: false, alone: 'it does not start' })
  await assert.rejects(wrong.start(), /permittedStatusCodes: 500 means that the webhook failed/)
})

test('nothing of all that stands in the log', () => {
  assert.ok(!node.log.includes(secret), 'the log holds auth data')
  assert.match(node.log, /the webhook of auth/)
})
