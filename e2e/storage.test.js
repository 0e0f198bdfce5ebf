// Users that are stored, embedded and in PostgreSQL: how they get in, what they are sent,
// and what becomes of them when something restarts or is away.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { connect, login, logins, rejection } from './lib/client.js'
import { command, startNode } from './lib/node.js'
import { Postgres, startPostgres } from './lib/postgres.js'
import { later, test } from './lib/test.js'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/
const postgres = await startPostgres()

// stored is an auth list of one storage strategy.
const stored = (backend, options = {}) => ({
  auth: [{ type: 'storage', options: backend === 'postgres' ? { backend, connectionString: postgres.url, ...options } : options }]
})

// rules let an admin write, and everybody read.
const rules = {
  permission: {
    type: 'config',
    options: {
      permissions: {
        record: { '*': { create: "user.data.role === 'admin'", write: "user.data.role === 'admin'", read: true, delete: false, listen: true, notify: false } },
        event: { '*': { publish: true, subscribe: true, listen: true } },
        rpc: { '*': { provide: true, request: true } },
        presence: { '*': { allow: true } }
      }
    }
  }
}

// user runs `hadal user`, a password or lines on its input.
async function user (node, args, input = '') {
  const { code, stdout, stderr } = await command(['user', ...args, '--data-dir', node.dataDir], { input })
  assert.equal(code, 0, stderr)
  return stdout.trim()
}

// refusedWith is what the server sent with the refusal of a login, and what the client
// made of it.
async function refusedWith (t, node, params) {
  const client = connect(t, node)
  await rejection(client.login(params))
  const { data } = await client.tap.received({ topic: 'AUTH', action: 'AUTH_UNSUCCESSFUL' })
  client.close() // else it would try again
  return data
}

let tables = 0

for (const backend of ['embedded', 'postgres']) {
  test(`${backend}: a user is added, logs in under a UUID, and stays over a restart`, async t => {
    const node = await startNode({ ...stored(backend, { table: `users${++tables}` }), ...rules }, { t })
    const id = await user(node, ['add', 'ada', '--role', 'admin', '--client-data', '{"color":"red"}'], 'a right password')
    assert.match(id, uuid)
    await user(node, ['add', 'bob'], 'another password')
    const [ada, bob] = await logins(t, node, [{ username: 'ada', password: 'a right password' }, { username: 'bob', password: 'another password' }])
    assert.deepEqual(ada.clientData, { id, color: 'red' })
    assert.match(bob.clientData.id, uuid)
    // Who has logged in is told before others see it.
    let seen = await bob.presence.getAll([id, 'ada'])
    for (let tries = 0; !seen[id] && tries < 1500; tries++) {
      await pause(20)
      seen = await bob.presence.getAll([id, 'ada'])
    }
    assert.deepEqual(seen, { [id]: true, ada: false })

    // A wrong password and a name that nobody has are the same to a client.
    assert.equal(await refusedWith(t, node, { username: 'ada', password: 'wrong' }), undefined)
    assert.equal(await refusedWith(t, node, { username: 'nobody', password: 'wrong' }), undefined)
    const missing = await refusedWith(t, node, { username: 'ada' })
    assert.deepEqual(JSON.parse(missing), { error: 'missing or no string: password' })

    // The role counts in rules.
    await ada.record.setDataWithAck('x', { by: 'ada' })
    assert.equal(await rejection(bob.record.setDataWithAck('x', { by: 'bob' })), 'MESSAGE_DENIED')
    bob.errors.items.length = 0

    ada.close()
    bob.close()
    await node.restart()
    const again = await login(t, node, { username: 'ada', password: 'a right password' })
    assert.equal(again.clientData.id, id)
    await again.record.setDataWithAck('x', { by: 'ada, again' })
    assert.ok(!node.log.includes('a right password') && !node.log.includes('pg-s3cret'))
  })

  test(`${backend}: a password is changed, and a user removed`, async t => {
    const node = await startNode(stored(backend, { table: `users${++tables}` }), { t })
    await user(node, ['add', 'ada'], 'the first password')
    await login(t, node, { username: 'ada', password: 'the first password' })
    await user(node, ['passwd', 'ada'], 'the second password')
    await refusedWith(t, node, { username: 'ada', password: 'the first password' })
    const ada = await login(t, node, { username: 'ada', password: 'the second password' })
    await user(node, ['remove', 'ada'])
    await refusedWith(t, node, { username: 'ada', password: 'the second password' })
    assert.equal(ada.getConnectionState(), 'OPEN')
    const lines = (await user(node, ['list'])).split('\n').filter(Boolean)
    assert.deepEqual(lines, [])
  })

  test(`${backend}: createUser makes one user of a name, however many come at once`, async t => {
    const node = await startNode(stored(backend, { table: `users${++tables}`, createUser: true }), { t })
    const all = await logins(t, node, Array.from({ length: 6 }, () => ({ username: 'new', password: 'mine' })))
    assert.equal(new Set(all.map(client => client.clientData.id)).size, 1)
    assert.match(all[0].clientData.id, uuid)
    await refusedWith(t, node, { username: 'new', password: 'not mine' })
    assert.equal((await user(node, ['list'])).split('\n').length, 1)
  })

  test(`${backend}: users of deepstream log in with their old hashes, which become new ones`, async t => {
    const digest = { hash: 'md5', iterations: 100, keyLength: 32 }
    const node = await startNode(stored(backend, { table: `users${++tables}`, ...digest }), { t })
    const hash = (await command(['hash', '--deepstream', '-c', node.configFile], { input: 'from long ago' })).stdout.trim()
    const old = { username: 'old', password: hash, clientData: { id: 'b1a4dbe2-96f2-4f4b-9d1e-5a3b0f9a0001' }, serverData: { created: 1500000000000 } }
    await user(node, ['import'], JSON.stringify(old) + '\n')
    await refusedWith(t, node, { username: 'old', password: hash })
    const client = await login(t, node, { username: 'old', password: 'from long ago' })
    assert.deepEqual(client.clientData, old.clientData)
    const kept = JSON.parse(await user(node, ['export']))
    assert.match(kept.password, /^\$argon2id\$/)
    assert.deepEqual({ ...kept, password: hash }, old)
    await login(t, node, { username: 'old', password: 'from long ago' })
  })
}

test('without createUser nobody is made a user', async t => {
  const node = await startNode(stored('embedded'), { t })
  await refusedWith(t, node, { username: 'new', password: 'mine' })
  assert.equal(await user(node, ['list']), '')
})

test('while PostgreSQL is away nobody gets in, and nobody is told why', async t => {
  const own = await startPostgresOf(t)
  const options = { backend: 'postgres', connectionString: own.url }
  const node = await startNode({ auth: [{ type: 'storage', options }, { type: 'none' }], allowOpenFallback: true }, { t })
  await user(node, ['add', 'ada'], 'a right password')
  const ada = await login(t, node, { username: 'ada', password: 'a right password' })
  await own.stop()
  const said = await refusedWith(t, node, { username: 'ada', password: 'a right password' })
  assert.deepEqual(JSON.parse(said), { error: 'users cannot be looked up at the moment: try again later' })
  assert.equal(ada.getConnectionState(), 'OPEN')
  await own.start()
  // As it was told: later. The first attempts may still meet a connection of before.
  const tryAgain = () => login(t, node, { username: 'ada', password: 'a right password' }).then(() => true, error => {
    assert.deepEqual(error.reason, { error: 'users cannot be looked up at the moment: try again later' })
    return pause(100)
  })
  while (!await tryAgain());
  assert.ok(!node.log.includes('pg-s3cret'))
})

// startPostgresOf is one that a single test may stop.
async function startPostgresOf (t) {
  const server = await new Postgres().create()
  later(t, () => server.remove())
  return server.start()
}
