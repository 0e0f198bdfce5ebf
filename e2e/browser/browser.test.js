// The client's browser bundle in headless Chromium, over wss: two pages do records,
// lists, events, rpc, presence and listening with each other.
import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { launch, servePage } from '../lib/browser.js'
import { startNode } from '../lib/node.js'
import { test } from '../lib/test.js'

const node = await startNode({}, { secure: true })
const origin = await servePage()
const browser = await launch()

const complaints = []

// open opens the page, logs it in and waits until its user counts as present.
async function open (user) {
  const page = await browser.newPage({ ignoreHTTPSErrors: true })
  page.on('pageerror', error => complaints.push(`${user}: ${error}`))
  page.on('console', message => ['error', 'warning'].includes(message.type()) && complaints.push(`${user}: ${message.text()}`))
  await page.goto(`${origin}/`)
  await page.evaluate(([url, user]) => page.connect(url, user).then(page.reached), [node.url, user])
  return page
}

const [ada, bob] = [await open('ada'), await open('bob')]
const did = text => Promise.all([ada, bob].map(p => p.evaluate(text => page.did(text), text)))

test('both pages are logged in over wss', async () => {
  for (const p of [ada, bob]) assert.equal(await p.evaluate(() => page.client.getConnectionState()), 'OPEN')
  await did('logged in over ' + new URL(node.url).protocol)
})

test('a record is shared', async () => {
  await bob.evaluate(async () => {
    page.record = await page.client.record.getRecord('shared').whenReady()
    page.seen = page.once(done => page.record.subscribe('title', done))
  })
  await ada.evaluate(async () => {
    const record = await page.client.record.getRecord('shared').whenReady()
    await record.setWithAck({ title: 'tiefe See €😀', depth: { metres: 6000 } })
  })
  assert.equal(await bob.evaluate(() => page.seen), 'tiefe See €😀')
  assert.deepEqual(await bob.evaluate(() => [page.record.get(), page.record.version]), [{ title: 'tiefe See €😀', depth: { metres: 6000 } }, 1])
  await bob.evaluate(() => page.record.setWithAck('depth.metres', 11000))
  assert.equal(await ada.evaluate(() => page.client.record.getRecord('shared').get('depth.metres')), 11000)
  assert.equal(await ada.evaluate(() => page.client.record.snapshot('nothing').catch(reason => reason)), 'RECORD_NOT_FOUND')
  await did('shared a record')
})

test('a list is shared', async () => {
  await bob.evaluate(async () => {
    const list = await page.client.record.getList('list').whenReady()
    page.seen = page.once(done => list.subscribe(done), entries => entries.length === 3)
  })
  await ada.evaluate(async () => {
    const list = await page.client.record.getList('list').whenReady()
    list.setEntries(['a', 'b'])
    list.addEntry('c')
  })
  assert.deepEqual(await bob.evaluate(() => page.seen), ['a', 'b', 'c'])
  await did('shared a list')
})

test('events are exchanged', async () => {
  await bob.evaluate(() => {
    page.seen = page.once(done => page.client.event.subscribe('news', done))
    return page.reached()
  })
  await ada.evaluate(() => page.client.event.emit('news', { text: 'hello' }))
  assert.deepEqual(await bob.evaluate(() => page.seen), { text: 'hello' })
  await did('exchanged events')
})

test('a call is answered', async () => {
  await bob.evaluate(() => {
    page.client.rpc.provide('add', ({ a, b }, response) => response.send(a + b))
    return page.reached()
  })
  assert.equal(await ada.evaluate(() => page.client.rpc.make('add', { a: 20, b: 22 })), 42)
  assert.equal(await ada.evaluate(() => page.client.rpc.make('subtract').catch(reason => reason)), 'NO_RPC_PROVIDER')
  await did('called a procedure')
})

test('presence tells who is there', async () => {
  assert.deepEqual(await ada.evaluate(() => page.client.presence.getAll()), ['bob'])
  await ada.evaluate(() => {
    const states = []
    page.gone = page.once(done => page.client.presence.subscribe('eve', (name, online) => {
      states.push(online)
      done(states)
    }), states => states.length === 2)
    return page.reached()
  })
  const eve = await open('eve')
  assert.deepEqual(await ada.evaluate(() => page.client.presence.getAll(['bob', 'eve', 'nobody'])), { bob: true, eve: true, nobody: false })
  await eve.close()
  assert.deepEqual(await ada.evaluate(() => page.gone), [true, false])
  await did('saw who was there')
})

test('a listener provides for what is subscribed', async () => {
  await bob.evaluate(() => page.client.record.listen('^price/', (name, response) => {
    response.accept()
    page.client.record.setData(name, { price: 10 })
    response.onStop(() => { page.stopped = name })
  }))
  await bob.evaluate(() => page.reached())
  const price = await ada.evaluate(async () => {
    page.price = page.client.record.getRecord('price/gold')
    return page.once(done => page.price.subscribe('price', done, true), value => value !== undefined)
  })
  assert.equal(price, 10)
  await ada.waitForFunction(() => page.price.hasProvider)
  await ada.evaluate(() => page.price.delete())
  await bob.waitForFunction(() => page.stopped === 'price/gold')
  await did('listened and provided')
})

test('the pages come back when the server was away', async () => {
  await bob.evaluate(async () => {
    page.record = await page.client.record.getRecord('shared').whenReady()
    page.seen = page.once(done => page.record.subscribe('after', done))
  })
  await node.kill()
  for (const p of [ada, bob]) await p.waitForFunction(() => page.client.getConnectionState() !== 'OPEN')
  await node.start()
  for (const p of [ada, bob]) await p.waitForFunction(() => page.client.getConnectionState() === 'OPEN')
  await ada.evaluate(async () => page.client.record.setData('shared', 'after', 'back'))
  assert.equal(await bob.evaluate(() => page.seen), 'back')
  await did('came back after the server was killed')
})

test('nothing went wrong in the pages', async () => {
  const unexpected = complaints.filter(c => !/WebSocket connection|CONNECTION_ERROR|ERR_CONNECTION/.test(c))
  assert.deepEqual(unexpected, [])
  for (const p of [ada, bob]) {
    const errors = await p.evaluate(() => page.errors)
    assert.deepEqual(errors.filter(([, event]) => event !== 'CONNECTION_ERROR'), [])
  }
  const file = join(await mkdtemp(join(tmpdir(), 'hadal-browser-')), 'page.png')
  await ada.screenshot({ path: file })
  console.log(`    screenshot: ${file}`)
})
