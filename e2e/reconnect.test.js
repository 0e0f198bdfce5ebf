// What happens when the connection is lost: spec 14 §3 and §6.
import assert from 'node:assert/strict'
import { connect, listening, login, provided, ready, reconnected, rejection, subscribed, unplugged, watched } from './lib/client.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { proxied } from './lib/proxy.js'
import { test } from './lib/test.js'

// steady is a node that stays up while wires are cut. The other tests kill the
// node they share and start it again.
const steady = await startNode()
const mortal = await startNode()

const enter = (t, node, user = {}, more = {}) => login(t, node, user, { tolerate: unplugged, ...more })

// reborn kills the node, starts it again and waits until the clients are back.
const reborn = clients => Promise.all([...clients.map(c => reconnected(c, () => {})), mortal.kill().then(() => mortal.start())])

test('subscriptions to events outlive the server', async t => {
  const [sender, receiver] = [await enter(t, mortal), await enter(t, mortal)]
  const inbox = await subscribed(receiver, 'survivor')
  await reborn([sender, receiver])
  await receiver.tap.acked('EVENT', 'SUBSCRIBE', 'survivor')
  sender.event.emit('survivor', 'still here')
  assert.equal(await inbox.next(), 'still here')
})

test('provided calls outlive the server', async t => {
  const [caller, provider] = [await enter(t, mortal), await enter(t, mortal)]
  await provided(provider, 'survivor', (data, response) => response.send(data + 1))
  await reborn([caller, provider])
  await provider.tap.acked('RPC', 'PROVIDE', 'survivor')
  assert.equal(await caller.rpc.make('survivor', 1), 2)
})

test('listeners are told to stop and are asked again', async t => {
  const [provider, client] = [await enter(t, mortal), await enter(t, mortal)]
  const asked = await listening(provider, 'record', 'survivor/.*')
  await ready(client, 'survivor/1')
  assert.deepEqual(await asked.next(), { found: 'survivor/1' })
  await client.tap.received({ action: 'SUBSCRIPTION_HAS_PROVIDER' })
  await reborn([provider, client])
  assert.deepEqual(await asked.take(2), [{ stopped: 'survivor/1' }, { found: 'survivor/1' }])
})

test('presence is told anew', async t => {
  const watcher = await enter(t, mortal, 'survivor/watcher')
  const inbox = new Inbox()
  await watcher.tap.confirmed('PRESENCE', 'SUBSCRIBE', 'survivor/friend', () => watcher.presence.subscribe('survivor/friend', (name, online) => inbox.push(online)))
  await reborn([watcher])
  await watcher.tap.acked('PRESENCE', 'SUBSCRIBE', 'survivor/friend')
  await enter(t, mortal, 'survivor/friend')
  await inbox.until(items => items.at(-1) === true)
})

test('a loaded record is in step again and goes on', async t => {
  const [writer, reader] = [await enter(t, mortal), await enter(t, mortal)]
  const record = await ready(writer, 'step')
  await record.setWithAck({ n: 1 })
  const [theirs, inbox] = await watched(reader, 'step', 'n')
  await reborn([writer, reader])
  await Promise.all([writer, reader].map(c => c.tap.received({ action: 'READ_RESPONSE', name: 'step' })))
  await record.setWithAck('n', 2)
  await inbox.until(items => items.at(-1) === 2)
  assert.equal(theirs.version, 2)
})

test('a thousand records are in step again after a reconnect (trap 36)', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const names = Array.from({ length: 1000 }, (_, i) => `thousand/${i}`)
  const records = await Promise.all(names.map(name => ready(client, name)))
  const other = await enter(t, steady)
  await wire.cut()
  for (const name of names.slice(0, 500)) other.record.setData(name, { changed: name })
  await other.record.head('barrier')
  const changed = Promise.all(records.slice(0, 500).map(r => new Promise(resolve => r.subscribe('changed', resolve))))
  await wire.mend()
  assert.deepEqual(await changed, names.slice(0, 500))
  await other.record.setDataWithAck(names[999], { changed: 'last' })
  await new Promise(resolve => records[999].subscribe('changed', v => v === 'last' && resolve(), true))
})

test('a change made while the client was away wins by default', async t => {
  const wire = await proxied(t, steady)
  const away = await enter(t, wire)
  const other = await enter(t, steady)
  const [record, inbox] = await watched(away, 'away/default')
  await wire.cut()
  await away.state('RECONNECTING')
  record.set({ by: 'away' })
  await other.record.setDataWithAck('away/default', { by: 'other' })
  await wire.mend()
  await inbox.until(items => items.at(-1)?.by === 'other')
  assert.deepEqual(await other.record.snapshot('away/default'), { by: 'other' })
})

test('a merge strategy is shown both sides after the client was away', async t => {
  const wire = await proxied(t, steady)
  const shown = new Inbox()
  const mergeStrategy = (...args) => { shown.push(...args.slice(0, 4)); args[4](null, args[2]) }
  const away = await enter(t, wire, {}, { mergeStrategy })
  const other = await enter(t, steady)
  const record = await ready(away, 'away/merge')
  await record.setWithAck({ n: 1 })
  await wire.cut()
  await away.state('RECONNECTING')
  record.set('away', true)
  await other.record.setDataWithAck('away/merge', 'other', 2)
  await other.record.setDataWithAck('away/merge', 'other', 3)
  await wire.mend()
  assert.deepEqual(await shown.next(), [{ n: 1, away: true }, 1, { n: 1, other: 3 }, 3])
})

test('a write that was lost on the way is sent again', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const other = await enter(t, steady)
  const record = await ready(client, 'lost')
  const [, inbox] = await watched(other, 'lost')
  wire.swallow()
  record.set({ n: 1 })
  await other.record.head('barrier')
  assert.equal(await other.record.head('lost'), 0)
  await wire.cut()
  await wire.mend()
  assert.deepEqual(await inbox.next(), { n: 1 })
  await client.record.head('barrier')
  assert.equal(record.version, 1)
})

test('the acknowledgement of a write that was lost never comes as a success', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const record = await ready(client, 'lost/ack')
  wire.swallow()
  const write = rejection(record.setWithAck({ n: 1 }))
  await wire.cut()
  assert.equal(await write, 'client offline')
})

test('a paused client sends what it wrote when it resumes', async t => {
  const [client, other] = [await enter(t, steady), await enter(t, steady)]
  const record = await ready(client, 'paused')
  await record.setWithAck({ n: 1 })
  const [, inbox] = await watched(other, 'paused')
  client.pause()
  await client.state('OFFLINE')
  record.set('n', 2)
  assert.equal(record.version, 2)
  await client.resume()
  assert.deepEqual(await inbox.next(), { n: 2 })
  assert.equal(await other.record.head('paused'), 2)
})

test('a record made offline is created when the client is back', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const other = await enter(t, steady)
  await wire.cut()
  await client.state('RECONNECTING')
  const record = client.record.getRecord('made/offline')
  await record.whenReady()
  record.set({ made: 'offline' })
  const [, inbox] = await watched(other, 'made/offline/marker')
  await wire.mend()
  await client.tap.sent({ action: 'CREATEANDUPDATE', name: 'made/offline' })
  await client.record.head('barrier')
  assert.deepEqual(await other.record.snapshot('made/offline'), { made: 'offline' })
  assert.equal(await other.record.head('made/offline'), 1)
  assert.deepEqual(inbox.items, [])
})

test('a record deleted while the client was away is deleted for it', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const other = await enter(t, steady)
  const record = await ready(client, 'away/deleted')
  await record.setWithAck({ x: 1 })
  await record.setWithAck({ x: 2 })
  const deleted = new Promise(resolve => record.on('delete', resolve))
  await wire.cut()
  await (await ready(other, 'away/deleted')).delete()
  await wire.mend()
  await deleted
})

test('a list is in step again after a reconnect', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const other = await enter(t, steady)
  const list = await client.record.getList('away/list').whenReady()
  await list.setEntriesWithAck(['a'])
  const inbox = new Inbox()
  list.subscribe(inbox.push)
  await wire.cut()
  const theirs = await other.record.getList('away/list').whenReady()
  await theirs.setEntriesWithAck(['a', 'b'])
  await wire.mend()
  await inbox.until(items => items.at(-1)?.length === 2)
  assert.deepEqual(list.getEntries(), ['a', 'b'])
})

test('what was asked and emitted in the meantime is done afterwards', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire, 'limbo/client')
  const other = await enter(t, steady, 'limbo/other')
  const inbox = await subscribed(other, 'limbo')
  await other.record.setDataWithAck('limbo/record', { x: 1 })
  await provided(other, 'limbo/rpc', (data, response) => response.send('answer'))
  await wire.cut()
  await client.state('RECONNECTING')
  client.event.emit('limbo', 'late')
  const wanted = [
    client.record.snapshot('limbo/record'), client.record.head('limbo/record'), client.record.has('limbo/none'),
    client.rpc.make('limbo/rpc'), client.presence.getAll(['limbo/other'])
  ]
  await wire.mend()
  assert.deepEqual(await Promise.all(wanted), [{ x: 1 }, 1, false, 'answer', { 'limbo/other': true }])
  assert.equal(await inbox.next(), 'late')
})

test('a client that calls itself from limbo finds no provider yet (trap 48)', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  await provided(client, 'myself', (data, response) => response.send(1))
  await wire.cut()
  await client.state('RECONNECTING')
  const call = rejection(client.rpc.make('myself'))
  await wire.mend()
  assert.equal(await call, 'NO_RPC_PROVIDER')
})

test('what waits for an answer fails when the connection is lost', async t => {
  const wire = await proxied(t, steady)
  const client = await enter(t, wire)
  const provider = await enter(t, steady)
  await provided(provider, 'forever', (data, response) => response.accept())
  const call = rejection(client.rpc.make('forever'))
  await client.tap.received({ action: 'ACCEPT' })
  await wire.cut()
  assert.equal(await call, 'client offline')
})

test('a client whose login is no longer valid is told', async t => {
  const users = { ada: { password: 'old' } }
  const node = await startNode({ auth: [{ type: 'file', options: { users } }] }, { t })
  const client = connect(t, node, { tolerate: unplugged })
  await client.login({ username: 'ada', password: 'old' })
  const failed = new Promise(resolve => client.on('reauthenticationFailure', resolve))
  users.ada.password = 'new'
  await node.configure({ auth: [{ type: 'file', options: { users } }] })
  await node.restart()
  assert.deepEqual(await failed, { reason: 'INVALID_AUTHENTICATION_DETAILS' })
})

test('the server may go away many times', async t => {
  const [writer, reader] = [await enter(t, mortal), await enter(t, mortal)]
  const record = await ready(writer, 'often')
  const [, inbox] = await watched(reader, 'often', 'n')
  for (let n = 1; n <= 5; n++) {
    await record.setWithAck('n', n)
    await inbox.until(items => items.at(-1) === n)
    await reborn([writer, reader])
    await Promise.all([writer, reader].map(c => c.tap.received({ action: 'READ_RESPONSE', name: 'often' })))
  }
  assert.equal(await reader.record.head('often'), 5)
})
