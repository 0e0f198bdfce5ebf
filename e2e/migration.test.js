// Records come from deepstream: its own connector writes them to PostgreSQL, and the node
// has them afterwards, for the official client too.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { promisify } from 'node:util'
import { login } from './lib/client.js'
import { command, startNode } from './lib/node.js'
import { startPostgres } from './lib/postgres.js'
import { later, test } from './lib/test.js'

const { Connector } = createRequire(import.meta.url)('@deepstream/storage-postgres')
const postgres = await startPostgres()
const node = await startNode({ permission: { type: 'none' } })

// connector is deepstream's, as its server makes it.
async function connector (t, options) {
  const url = new URL(postgres.url)
  const problems = []
  const note = (event, text) => problems.push(text)
  const logger = { getNameSpace: () => ({ info: note, error: note, warn: note, fatal: note, debug () {} }) }
  const storage = new Connector({
    host: url.hostname,
    port: Number(url.port),
    user: url.username,
    password: url.password,
    database: url.pathname.slice(1),
    writeInterval: 10,
    ...options
  }, { logger })
  storage.init()
  later(t, () => storage.close())
  await storage.whenReady()
  return { set: promisify(storage.set.bind(storage)), problems }
}

// bring imports the connector's schema.
async function bring (schema, ...flags) {
  const args = ['records', 'import', '--from', postgres.url, '--schema', schema, '--data-dir', node.dataDir, ...flags]
  const { code, stderr } = await command(args)
  return { code, said: stderr.trim().split('\n') }
}

const summary = (written, unchanged) => `imported: ${written} records; unchanged: ${unchanged}; kept, because the node has them as new or newer: 0; refused: 0`

for (const useJsonb of [false, true]) {
  test(`what deepstream's connector wrote is here, as ${useJsonb ? 'jsonb' : 'text'}`, async t => {
    const schema = useJsonb ? 'as_jsonb' : 'as_text'
    const storage = await connector(t, { schema, useJsonb })
    const name = text => `${schema}/${text}`
    const records = {
      [name('bmw')]: [3, { make: 'BMW', price: 1.5, text: "it's 🦑 \"quoted\" \\ \u2028" }],
      [name('bmw/wheels/1')]: [1, {}],
      [`${schema}-list`]: [70000, [name('bmw'), name('ünique')]],
      [name('ünique')]: [0, { deep: [{ a: null }, [true, 1e21]] }],
      ...Object.fromEntries(Array.from({ length: 300 }, (_, i) => [name(`many/${i}`), [i, { i }]]))
    }
    await Promise.all(Object.entries(records).map(([name, [version, data]]) => storage.set(name, version, data)))
    assert.deepEqual(await bring(schema), { code: 0, said: [summary(304, 0)] }, storage.problems.join('\n'))

    const { code, stdout } = await command(['records', 'export', schema, '--data-dir', node.dataDir])
    assert.equal(code, 0)
    const lines = stdout.trim().split('\n').map(line => JSON.parse(line)).filter(line => line.name)
    assert.deepEqual(Object.fromEntries(lines.map(({ name, version, data }) => [name, [version, data]])), records)

    // deepstream goes on, and only what it changes is written.
    await storage.set(name('bmw'), 4, { make: 'BMW', sold: true })
    await storage.set(name('new'), 1, { make: 'new' })
    assert.deepEqual(await bring(schema), { code: 0, said: [summary(2, 303)] })

    const client = await login(t, node)
    const record = client.record.getRecord(name('bmw'))
    await record.whenReady()
    assert.deepEqual(record.get(), { make: 'BMW', sold: true })
    await record.setWithAck('sold', false) // the client goes on from the version that came
    const list = client.record.getList(`${schema}-list`)
    await list.whenReady()
    assert.deepEqual(list.getEntries(), [name('bmw'), name('ünique')])

    const again = await bring(schema)
    assert.equal(again.code, 0)
    assert.equal(again.said[0], `not imported: record "${name('bmw')}": version 5 is here, and 4 comes`)
  })
}
