// wss: certificates made by the program, changed under the running node, and
// refused when they are wrong.
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect as tls } from 'node:tls'
import { makeCertificate } from './lib/certificate.js'
import { login, rejection, subscribed } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { later, test } from './lib/test.js'

// pairIn makes a folder with a new pair in it.
async function pairIn (t) {
  const dir = await mkdtemp(join(tmpdir(), 'hadal-tls-'))
  later(t, () => rm(dir, { recursive: true, force: true }))
  return makeCertificate(dir)
}

// shown is the fingerprint of the certificate that the port shows.
function shown (node) {
  return new Promise((resolve, reject) => {
    const socket = tls({ host: '127.0.0.1', port: node.port, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256)
      socket.destroy()
    })
    socket.on('error', reject)
  })
}

const fingerprint = async file => new X509Certificate(await readFile(file)).fingerprint256

test('a client connects over wss and trusts the certificate', async t => {
  const ssl = await pairIn(t)
  const node = await startNode({ httpServer: { options: { ssl } } }, { t, secure: true })
  const client = await login(t, node)
  await client.record.setDataWithAck('secure', { x: 1 })
  assert.match(node.url, /^wss:/)
  assert.equal(await shown(node), await fingerprint(ssl.cert))
})

test('a changed certificate is shown to new clients and nobody is dropped', async t => {
  const ssl = await pairIn(t)
  const node = await startNode({ httpServer: { options: { ssl } } }, { t, secure: true })
  const old = await login(t, node)
  const inbox = await subscribed(old, 'still')
  const next = await pairIn(t)
  await cp(next.key, ssl.key)
  await cp(next.cert, ssl.cert)
  const want = await fingerprint(next.cert)
  while (await shown(node) !== want) await pause(50)
  const raw = await rawLogin(t, node)
  raw.send('EVENT', 'EMIT', { name: 'still', data: '1' })
  assert.equal(await inbox.next(), 1)
  assert.equal(old.tap.traffic.items.filter(i => i.opened).length, 1)
})

test('a broken change is not taken over', async t => {
  const ssl = await pairIn(t)
  const node = await startNode({ httpServer: { options: { ssl } } }, { t, secure: true })
  const good = await shown(node)
  const before = node.log.length
  await writeFile(ssl.cert, 'no certificate')
  while (!node.log.slice(before).includes(ssl.cert)) await pause(50) // until it was noticed and logged
  assert.equal(await shown(node), good)
})

test('a wrong pair stops the start and names the file', async t => {
  const [one, two] = [await pairIn(t), await pairIn(t)]
  for (const ssl of [
    { key: one.key, cert: two.cert },
    { key: one.key, cert: one.key },
    { key: one.cert, cert: one.cert },
    { key: one.key, cert: one.cert + '.missing' },
    { key: one.key },
    { cert: one.cert }
  ]) {
    const node = await startNode({ httpServer: { options: { ssl } } }, { t, start: false, secure: false })
    const { message } = await rejection(node.start())
    assert.match(message, /ended instead of starting/)
    const named = [ssl.key, ssl.cert, 'ssl'].some(part => part && message.includes(part))
    assert.ok(named, message)
  }
})

test('plain connections to a wss port are turned away and do no harm', async t => {
  const ssl = await pairIn(t)
  const node = await startNode({ httpServer: { options: { ssl } } }, { t, secure: true })
  await rejection(rawLogin(t, { url: node.url.replace('wss:', 'ws:') }))
  await login(t, node)
})
