// A browser that logs in by a cookie: it sends the cookie along whatever page asks, so the
// page's origin has to be in the node's list.
import assert from 'node:assert/strict'
import { launch, servePage } from '../lib/browser.js'
import { startNode } from '../lib/node.js'
import { token } from '../lib/servers.js'
import { test } from '../lib/test.js'

const key = { id: 'one', alg: 'HS256', secret: 'a secret that is long enough for all of it' }
// Cookies know no ports: the other page is of another origin, and the browser sends the same.
const cookie = { 'Set-Cookie': `sid=${token(key, { sub: 'ada' })}; Secure; HttpOnly; SameSite=Strict; Path=/` }
const ours = await servePage(() => cookie)
const foreign = await servePage()
const node = await startNode({
  auth: [{ type: 'jwt', options: { keys: [key] } }], upgrade: { cookie: 'sid', origins: [ours] }
}, { secure: true })
const browser = await launch()
const context = await browser.newContext({ ignoreHTTPSErrors: true })

// attempt opens a page, which logs in with nothing but what the browser sends by itself, and
// returns who is there then, or the reason of the refusal.
async function attempt (origin) {
  const page = await context.newPage()
  await page.goto(`${origin}/`)
  const sent = page.waitForEvent('websocket')
  const said = await page.evaluate(url => page.connect(url, null)
    .then(() => page.client.presence.getAll(['ada']), reason => ({ refused: reason })), node.url)
  assert.equal((await sent).url(), node.url)
  await page.close()
  return said
}

test('the page of our origin is logged in by its cookie', async () => {
  assert.deepEqual(await attempt(ours), { ada: true })
  const kept = await context.cookies(node.url.replace('wss:', 'https:'))
  assert.deepEqual(kept.map(({ name, httpOnly }) => [name, httpOnly]), [['sid', true]], 'the browser has no cookie for the node')
})

test('a page of another origin is not, though the browser has the cookie', async () => {
  const { refused } = await attempt(foreign)
  assert.match(JSON.stringify(refused), /token/)
})

test('our page still is, afterwards', async () => {
  assert.deepEqual(await attempt(ours), { ada: true })
})

test('the cookie stands in no log', () => {
  assert.doesNotMatch(node.log, /eyJ/)
})
