// Server-sent events as docs/sse.md has them: a browser's EventSource on a page of another
// origin, which logs in by its cookie and comes again by itself, on several nodes to the next.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { launch, servePage } from '../lib/browser.js'
import { login } from '../lib/client.js'
import { spread } from '../lib/cluster.js'
import { startNode } from '../lib/node.js'
import { proxied } from '../lib/proxy.js'
import { token } from '../lib/servers.js'
import { later, test } from '../lib/test.js'

const key = { id: 'one', alg: 'HS256', secret: 'a secret that is long enough for all of it' }
const origin = await servePage(() => ({ 'Set-Cookie': `sid=${token(key, { sub: 'ada' })}; Secure; HttpOnly; SameSite=Strict; Path=/` }))
const foreign = await servePage() // the browser sends it the same cookie, the node does not let it count
const all = { create: true, write: true, read: true, delete: true, listen: true, notify: true }
const node = await startNode({
  auth: [{ type: 'jwt', options: { keys: [key] } }, { type: 'none' }],
  allowOpenFallback: true,
  upgrade: { cookie: 'sid', origins: [origin] },
  permission: {
    type: 'config',
    options: {
      permissions: {
        presence: { '*': { allow: true } },
        record: { '*': all, 'own/$user': { ...all, read: 'user.id === $user' } },
        event: { '*': { publish: true, subscribe: true, listen: true } },
        rpc: { '*': { provide: true, request: true } }
      }
    }
  }
}, { secure: true })
const browser = await launch()
const context = await browser.newContext({ ignoreHTTPSErrors: true })

// open opens a page of that origin. What it prints arrives in printed.
async function open (t, at, printed = []) {
  const page = await context.newPage()
  later(t, () => page.close())
  page.on('console', message => printed.push(message.text()))
  // Chromium gives a page up when the machine's addresses change, as they do beside tests of clusters.
  await page.goto(`${at}/`).catch(error => {
    if (!/ERR_NETWORK_CHANGED/.test(error.message)) throw error
    return page.goto(`${at}/`)
  })
  return page
}

// streamOf is where a stream is heard at some node, or at the other end of a wire.
const streamOf = (at, query) => at.url.replace(/^wss/, 'https').replace('/deepstream', '/sse') + query

// listen has the page listen, and note all it hears in page.heard.
const listen = (page, url) => page.evaluate(url => {
  page.heard = []
  page.stream = new EventSource(url, { withCredentials: true })
  page.stream.onopen = () => page.heard.push(['open'])
  for (const type of ['event', 'record', 'deleted', 'denied', 'error-answer']) {
    page.stream.addEventListener(type, e => page.heard.push([type, e.lastEventId, JSON.parse(e.data)]))
  }
}, url)

// hears waits until the page has heard that many things, and returns them.
async function hears (page, n) {
  await page.waitForFunction(n => page.heard.length >= n, n, { timeout: 0 }) // the test has its limit
  return page.evaluate(() => page.heard)
}

const record = (name, version, data) => ['record', `${version} "${name}"`, { name, version, data }]

test('the program of docs/sse.md runs in a page', async t => {
  const text = readFileSync(new URL('../../docs/sse.md', import.meta.url), 'utf8')
  const programs = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, program]) => program)
  assert.equal(programs.length, 1)
  const client = await login(t, node)
  await client.record.setDataWithAck('weather/berlin', { sun: 1 })
  const printed = []
  const page = await open(t, foreign, printed)
  const arrived = page.waitForEvent('console')
  await page.evaluate(program => (0, eval)(program), programs[0].replace('http://127.0.0.1:6020', streamOf(node, '').replace('/sse', '')))
  await arrived // the stream stands
  await spread()
  const more = page.waitForEvent('console')
  client.event.emit('news', 'hello')
  await more
  assert.deepEqual(printed, ['1 {sun: 1}', 'news hello'])
})

test('the cookie logs in a page of our origin, and no other', async t => {
  const client = await login(t, node)
  await client.record.setDataWithAck('own/ada', { secret: 1 })
  for (const [at, want] of [
    [origin, record('own/ada', 1, { secret: 1 })],
    [foreign, ['denied', '', { name: 'own/ada', topic: 'record', reason: 'MESSAGE_DENIED' }]]
  ]) {
    const page = await open(t, at)
    await listen(page, streamOf(node, '?record=own/ada'))
    assert.deepEqual(await hears(page, 2), [['open'], want])
  }
})

test('a stream that broke goes on where it was', async t => {
  const client = await login(t, node)
  const write = (name, data) => client.record.setDataWithAck(name, data)
  await write('tide/north', { n: 1 })
  await write('tide/south', { s: 1 })
  const wire = await proxied(t, node)
  const page = await open(t, origin)
  await listen(page, streamOf(wire, '?event=news&record=tide/north&record=tide/south'))
  const [first, ...both] = await hears(page, 3)
  assert.deepEqual(first, ['open'])
  assert.deepEqual(both.sort(), [record('tide/north', 1, { n: 1 }), record('tide/south', 1, { s: 1 })])
  await write('tide/north', { n: 2 })
  assert.deepEqual((await hears(page, 4))[3], record('tide/north', 2, { n: 2 }))
  await wire.cut()
  await write('tide/south', { s: 2 })
  await wire.mend()
  // It is not sent again the version that it had last, and of what changed meanwhile what it is.
  assert.deepEqual((await hears(page, 6)).slice(4), [['open'], record('tide/south', 2, { s: 2 })])
  await spread()
  client.event.emit('news', { again: true })
  const [kind, id, told] = (await hears(page, 7))[6]
  assert.deepEqual([kind, told], ['event', { name: 'news', data: { again: true } }])
  assert.match(id, /^all \w+ 2\.2$/) // what it has of all its records
  await write('tide/north', { n: 3 })
  assert.deepEqual((await hears(page, 8))[7], record('tide/north', 3, { n: 3 }))
})
