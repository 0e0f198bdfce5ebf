// Lists and anonymous records: what the client builds from plain records.
import assert from 'node:assert/strict'
import { Inbox } from './lib/inbox.js'
import { login, logins, ready } from './lib/client.js'
import { startNode } from './lib/node.js'
import { test } from './lib/test.js'

const node = await startNode()

// listed loads a list and collects its states after every change.
async function listed (client, name) {
  const list = await client.record.getList(name).whenReady()
  const inbox = new Inbox()
  list.subscribe(entries => inbox.push([...entries]))
  return [list, inbox]
}

test('a new list is empty', async t => {
  const client = await login(t, node)
  const list = await client.record.getList('list/new').whenReady()
  assert.deepEqual(list.getEntries(), [])
  assert.equal(list.isEmpty(), true)
  assert.equal(list.version, 0)
})

test('entries set by one client show at the other', async t => {
  const [a, b] = await logins(t, node, 2)
  const [mine] = await listed(a, 'list/set')
  const [theirs, inbox] = await listed(b, 'list/set')
  mine.setEntries(['x', 'y', 'z'])
  assert.deepEqual(await inbox.next(), ['x', 'y', 'z'])
  mine.addEntry('start', 0)
  assert.deepEqual(await inbox.next(), ['start', 'x', 'y', 'z'])
  mine.addEntry('end')
  assert.deepEqual(await inbox.next(), ['start', 'x', 'y', 'z', 'end'])
  mine.removeEntry('y')
  assert.deepEqual(await inbox.next(), ['start', 'x', 'z', 'end'])
  mine.removeEntry('x', 1)
  assert.deepEqual(await inbox.next(), ['start', 'z', 'end'])
  mine.setEntries([])
  assert.deepEqual(await inbox.next(), [])
  assert.equal(theirs.isEmpty(), true)
  assert.equal(theirs.version, 6)
})

test('entries are acknowledged and kept', async t => {
  const [a, b] = await logins(t, node, 2)
  const list = await a.record.getList('list/ack').whenReady()
  await list.setEntriesWithAck(['one', 'two'])
  assert.deepEqual(await b.record.snapshot('list/ack'), ['one', 'two'])
})

test('a list tells what was added, moved and removed', async t => {
  const [a, b] = await logins(t, node, 2)
  const mine = await a.record.getList('list/moves').whenReady()
  await mine.setEntriesWithAck(['a', 'b', 'c'])
  const theirs = await b.record.getList('list/moves').whenReady()
  const changes = new Inbox()
  for (const kind of ['entry-added', 'entry-removed', 'entry-moved']) {
    theirs.on(kind, (entry, index) => changes.push(`${kind} ${entry} ${index}`))
  }
  mine.setEntries(['c', 'b', 'd'])
  assert.deepEqual((await changes.take(3)).sort(), ['entry-added d 2', 'entry-moved c 0', 'entry-removed a 0'])
})

test('a deleted list is gone for everybody', async t => {
  const [a, b] = await logins(t, node, 2)
  const mine = await a.record.getList('list/delete').whenReady()
  await mine.setEntriesWithAck(['x'])
  const theirs = await b.record.getList('list/delete').whenReady()
  const deleted = new Promise(resolve => theirs.on('delete', resolve))
  await mine.delete()
  await deleted
  assert.equal(await a.record.has('list/delete'), false)
})

test('an anonymous record swaps names and keeps its subscriptions', async t => {
  const [a, b] = await logins(t, node, 2)
  for (const name of ['anon/one', 'anon/two']) await b.record.setDataWithAck(name, { name })
  const anonymous = a.record.getAnonymousRecord()
  const seen = new Inbox()
  anonymous.subscribe('name', seen.push)
  await anonymous.setName('anon/one')
  await seen.until(items => items.at(-1) === 'anon/one')
  await anonymous.setName('anon/two')
  await seen.until(items => items.at(-1) === 'anon/two')
  await b.record.setDataWithAck('anon/two', 'name', 'changed')
  await seen.until(items => items.at(-1) === 'changed')
  anonymous.set('name', 'from the anonymous one')
  const other = await ready(b, 'anon/two')
  await new Promise(resolve => other.subscribe('name', name => name === 'from the anonymous one' && resolve(), true))
  assert.equal((await b.record.snapshot('anon/one')).name, 'anon/one')
})
