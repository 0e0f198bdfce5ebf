// What is kept when the node ends, in whatever way.
import assert from 'node:assert/strict'
import { login, logins, ready, rejection, watched } from './lib/client.js'
import { startNode } from './lib/node.js'
import { rawLogin } from './lib/raw.js'
import { test } from './lib/test.js'

for (const end of ['kill', 'stop']) {
  test(`${end}: acknowledged writes, versions and deletes are kept (trap 13)`, async t => {
    const node = await startNode({}, { t })
    const client = await login(t, node)
    const record = await ready(client, 'kept/record')
    for (let n = 1; n <= 20; n++) await record.setWithAck({ n, text: 'ü€😀' })
    await client.record.setDataWithAck('kept/path', 'a.b[2]', { deep: true })
    await client.record.getList('kept/list').setEntriesWithAck(['a', 'b'])
    const gone = await ready(client, 'kept/gone')
    await gone.setWithAck({ x: 1 })
    await gone.delete()
    client.close()
    await node[end]()
    await node.start()
    const later = await login(t, node)
    assert.equal(await later.record.head('kept/record'), 20)
    assert.deepEqual(await later.record.snapshot('kept/record'), { n: 20, text: 'ü€😀' })
    assert.deepEqual(await later.record.snapshot('kept/path'), { a: { b: [null, null, { deep: true }] } })
    assert.deepEqual(await later.record.snapshot('kept/list'), ['a', 'b'])
    assert.equal(await later.record.has('kept/gone'), false)
    // Versions go on where they were.
    const again = await ready(later, 'kept/record')
    await again.setWithAck('n', 21)
    assert.equal(again.version, 21)
    assert.equal((await ready(later, 'kept/gone')).version, 0)
  })
}

test('a record that was only created is kept too', async t => {
  const node = await startNode({}, { t })
  const client = await login(t, node)
  await ready(client, 'created')
  client.close()
  await node.kill()
  await node.start()
  assert.equal(await (await login(t, node)).record.head('created'), 0)
})

test('writes without acknowledgement that others saw are kept', async t => {
  const node = await startNode({}, { t })
  const [writer, reader] = await logins(t, node, 2)
  const [, inbox] = await watched(reader, 'seen', 'n')
  const record = await ready(writer, 'seen')
  for (let n = 1; n <= 200; n++) record.set('n', n)
  const last = (await inbox.take(50)).at(-1)
  writer.close()
  reader.close()
  await node.kill()
  await node.start()
  assert.ok(await (await login(t, node)).record.head('seen') >= last)
})

test('excluded and in-memory records are gone, as documented', async t => {
  const excluded = await startNode({ record: { storageExclusionPrefixes: ['volatile/'] } }, { t })
  const memory = await startNode({ records: { store: 'memory' } }, { t })
  for (const node of [excluded, memory]) {
    const client = await login(t, node)
    await client.record.setDataWithAck('volatile/x', { x: 1 })
    client.close()
    await node.restart()
    assert.equal(await (await login(t, node)).record.has('volatile/x'), false)
  }
})

test('there may be more records than memory for them', async t => {
  const node = await startNode({ records: { cacheBytes: 65536 } }, { t })
  const raw = await rawLogin(t, node)
  const count = 3000
  const data = n => JSON.stringify({ n, fill: 'x'.repeat(2000) })
  for (let n = 0; n < count; n++) raw.send('RECORD', 'CREATEANDUPDATE', { name: `many/${n}`, version: -1, data: data(n), isWriteAck: true, correlationId: String(n) })
  const acks = await raw.inbox.take(count) // in order for each record, not across them
  assert.ok(acks.every(m => m.action === 'WRITE_ACKNOWLEDGEMENT'))
  raw.drop()
  await node.kill()
  await node.start()
  const later = await rawLogin(t, node)
  for (let n = 0; n < count; n++) later.send('RECORD', 'READ', { name: `many/${n}` })
  const read = new Map((await later.inbox.take(count)).map(m => [m.name, m]))
  for (let n = 0; n < count; n++) assert.equal(read.get(`many/${n}`)?.data, data(n))
  const list = await node.run('records', 'list', 'many/29', '--data-dir', node.dataDir)
  assert.equal(list.code, 0, list.stderr)
  const want = Array.from({ length: count }, (_, n) => `many/${n}`).filter(n => n.startsWith('many/29'))
  assert.deepEqual(list.stdout.trim().split('\n').sort(), want.sort())
})

test('a data folder is served by one node at a time', async t => {
  const node = await startNode({}, { t })
  const second = await startNode({}, { t, start: false })
  await second.configure({ dataDir: node.dataDir })
  const result = await second.run('start', '--config', second.configFile, '--port', String(second.port), '--data-dir', node.dataDir)
  assert.notEqual(result.code, 0)
  assert.match(result.stderr + result.stdout, /in use|locked|another/i)
  await (await login(t, node)).record.setDataWithAck('still', { served: true })
})

test('a taken port and a broken configuration stop the start with a sentence', async t => {
  const node = await startNode({}, { t })
  const second = await startNode({}, { t, start: false })
  const taken = await second.run('start', '--config', second.configFile, '--port', String(node.port), '--data-dir', second.dataDir)
  assert.notEqual(taken.code, 0)
  assert.match(taken.stderr, new RegExp(String(node.port)))
  await second.configure({ nonsense: true })
  assert.match((await rejection(second.start())).message, /nonsense/)
})
