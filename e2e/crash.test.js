// The crash test: clients write numbered versions while the node is killed at
// random moments. After every restart each acknowledged version is there, what
// subscribers were shown was not taken back, and versions have no gap.
import assert from 'node:assert/strict'
import { connect, ready } from './lib/client.js'
import { startNode } from './lib/node.js'
import { seeded } from './lib/random.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

const rounds = Number(process.env.HADAL_CRASH_ROUNDS || 40)
const window = 16 // writes that a pipelining writer has in flight

// Account is what is known of one record from outside.
class Account {
  acked = 0 // the highest version that was acknowledged
  sent = 0 // the highest version that was asked for
  shown = 0 // the highest version that a subscriber was shown

  constructor (name) { this.name = name }
}

// stock writes one version after the other with the published client.
async function stock (client, account, done) {
  await client.login()
  const record = await ready(client, account.name)
  while (!done()) {
    const n = record.version + 1
    account.sent = Math.max(account.sent, n)
    const failed = await record.setWithAck({ n, pad: 'x'.repeat(n % 300) }).then(() => null, reason => reason)
    if (failed) return assert.equal(failed, 'client offline')
    account.acked = n
    done.acked()
  }
}

// pipeline keeps many writes in flight, each with the version it must become.
function pipeline (raw, account, from, done) {
  let next = from + 1
  const more = () => {
    while (!done() && next <= account.acked + window) {
      account.sent = Math.max(account.sent, next)
      raw.send('RECORD', 'CREATEANDUPDATE', {
        name: account.name, version: next, data: JSON.stringify({ n: next }), isWriteAck: true, correlationId: String(next)
      })
      next++
    }
  }
  account.acked = Math.max(account.acked, from)
  raw.handle(m => {
    if (m.action !== 'WRITE_ACKNOWLEDGEMENT') return false // the test looks at it
    assert.equal(Number(m.correlationId), account.acked + 1, 'acknowledgements come in order')
    account.acked++
    done.acked()
    more()
    return true
  })
  more()
}

// watch follows all records and holds that each version follows the one before.
// It begins where its own subscription read them: a client of the round before
// may have come back, although it was closed, and have written once more.
async function watch (raw, accounts) {
  const seen = new Map()
  raw.handle(m => {
    if (m.action === 'READ_RESPONSE') seen.set(m.name, m.version)
    if (m.action !== 'UPDATE') return false
    const account = accounts.find(a => a.name === m.name)
    assert.equal(m.version, seen.get(m.name) + 1, `${m.name}: shown versions have no gap`)
    assert.equal(JSON.parse(m.data).n, m.version)
    seen.set(m.name, m.version)
    account.shown = m.version
    return true
  })
  raw.send('RECORD', 'SUBSCRIBECREATEANDREAD', { names: accounts.map(a => a.name), correlationId: '0' })
  await raw.inbox.take(1 + accounts.length)
}

test(`${rounds} kills lose no acknowledged write`, async t => {
  const random = seeded()
  const node = await startNode({}, { t, start: false })
  const accounts = Array.from({ length: 6 }, (_, i) => new Account(`crash/${i}`))
  let total = 0
  for (let round = 1; round <= rounds; round++) {
    await node.start()

    // What is there?
    const probe = await rawLogin(t, node)
    const start = new Map()
    for (const account of accounts) {
      probe.send('RECORD', 'READ', { name: account.name })
      const found = await probe.next()
      const version = found.action === 'RECORD_NOT_FOUND' ? 0 : found.version
      const where = `round ${round}, ${account.name}: version ${version}, acknowledged ${account.acked}, shown ${account.shown}, sent ${account.sent}`
      assert.ok(version >= account.acked, `an acknowledged write is lost: ${where}`)
      assert.ok(version >= account.shown, `what was shown is taken back: ${where}`)
      assert.ok(version <= account.sent, `a version that nobody wrote: ${where}`)
      if (version > 0) assert.equal(JSON.parse(found.data).n, version, `data and version agree: ${where}`)
      start.set(account.name, version)
      account.acked = account.sent = account.shown = version
    }
    probe.drop()

    // Write until the moment has come.
    let left = 1 + Math.floor(random() * 400)
    let moment
    const come = new Promise(resolve => { moment = resolve })
    const done = () => left <= 0
    done.acked = () => { total++; if (--left <= 0) moment() }

    const watcher = await rawLogin(t, node)
    await watch(watcher, accounts)
    const clients = accounts.slice(0, 3).map(() => connect(t, node, { tolerate: ['CONNECTION_ERROR', 'IS_CLOSED'] }))
    const failed = new Promise((resolve, reject) => {
      clients.forEach((client, i) => stock(client, accounts[i], done).catch(reject))
    })
    const raws = await Promise.all(accounts.slice(3).map(() => rawLogin(t, node)))
    raws.forEach((raw, i) => pipeline(raw, accounts[3 + i], start.get(accounts[3 + i].name), done))

    await Promise.race([come, failed])
    // Some of the moments lie a little later, in the middle of other writes.
    for (let ticks = Math.floor(random() * 20); ticks > 0; ticks--) await new Promise(setImmediate)
    await node.kill()
    // Whatever had left the node before the end is read to the last byte.
    await Promise.all([...raws.map(r => r.closed), watcher.closed])
    for (const client of clients) {
      await client.states.until(() => client.getConnectionState() !== 'OPEN')
      client.close()
    }
    for (const raw of raws) assert.deepEqual(raw.inbox.rest, [], 'nothing but acknowledgements came back')
  }
  console.log(`    ${total} acknowledged writes in ${rounds} rounds, ${accounts.map(a => a.acked).join(' ')} versions`)
}, { timeout: 20 * 60_000 })
