// What clients of other dialects see while things move between nodes: the owners of records, by
// `hadal cluster move`, and clients, by `hadal cluster drain`. MQTT is spoken over WebSocket.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import mqtt from 'mqtt'
import { login, subscribed } from './lib/client.js'
import { nodes, spread } from './lib/cluster.js'
import { dialects } from './lib/dialects.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { later, test } from './lib/test.js'

const why = 'one node has nowhere to move anything: run by make test-e2e-cluster'
const several = (name, fn, options) => test(name, nodes > 1 ? fn : t => { console.log(`left out: ${why}`); t.skip(why) }, options)

const all = { create: true, write: true, read: true, delete: true, listen: true, notify: true }
const node = nodes > 1 && await startNode({
  connectionEndpoints: [...Object.keys(dialects).map(type => ({ type })), { type: 'mqtt', options: { port: -1, recordPrefixes: ['state/'] } }],
  permission: {
    type: 'config',
    options: {
      permissions: {
        presence: { '*': { allow: true } },
        record: { '*': all, 'state/own/$user': { ...all, read: 'user.id === $user' }, 'state/open/$x': { ...all, read: 'oldData === null || !oldData.closed' } },
        event: { '*': { publish: true, subscribe: true, listen: true } },
        rpc: { '*': { provide: true, request: true } }
      }
    }
  }
}, { start: false })
if (node) {
  // So that who comes to one that drains can be sent to another.
  for (const one of node.nodes) await one.configure({ cluster: { publicUrl: one.url } })
  await node.start()
}

// cluster runs one of the commands about the cluster, until it is done.
async function cluster (...args) {
  for (;;) {
    const { code, stdout, stderr } = await node.run('cluster', ...args, '--data-dir', node.dataDir)
    if (code === 0) return stdout
    console.log(`hadal cluster ${args.join(' ')}: ${stderr}`) // a copy may lag, on a busy machine
    await pause(100)
  }
}

const owners = async () => JSON.parse(await cluster('status', '--json'))

// thing is a client of MQTT at the next node, with an inbox of [topic, data].
async function thing (t, username, ...topics) {
  const client = await mqtt.connectAsync(node.url.replace('/deepstream', '/mqtt'), { protocolVersion: 5, username, password: 'x', ca: node.ca, reconnectPeriod: 0 })
  later(t, () => client.endAsync(true))
  const inbox = new Inbox()
  client.on('message', (topic, payload) => inbox.push([topic, JSON.parse(payload)]))
  if (topics.length > 0) for (const { qos } of await client.subscribeAsync(topics)) assert.equal(qos, 0)
  await spread()
  return { client, inbox }
}

several('wildcards hear of records whose owners move, and of nothing that is denied', async t => {
  const wild = await thing(t, 'ann', 'state/#', 'news/+')
  const names = Array.from({ length: 12 }, (_, i) => `state/moving/${i}`)
  const named = await thing(t, 'ann', ...names)
  const client = await login(t, node, 'bob')
  const other = await thing(t, 'bob')
  let n = 0
  const last = {} // what was written last to each
  // done says whether a write was done. One whose owner is lost while it is under way, on a
  // machine that is busy, is refused.
  const done = write => write.then(() => true, reason => {
    assert.match(String(reason?.message ?? reason), /RECORD_UPDATE_ERROR|Unspecified error/)
    return false
  })
  // round writes to each record, by both kinds of clients.
  const round = () => Promise.all([...names, 'state/own/ann', 'state/own/bob'].map(async (name, i) => {
    const data = { n: ++n }
    if (await done(i % 2 ? other.client.publishAsync(name, JSON.stringify(data), { qos: 1 }) : client.record.setDataWithAck(name, data))) last[name] = data.n
  }))
  while (!await done(client.record.setDataWithAck('state/open/1', { closed: true })));
  do await round(); while (Object.keys(last).length < names.length + 2)
  const before = await owners()
  let over = false
  const writing = (async () => { while (!over) await round() })()
  for (const { partition, owner } of before.partitions) {
    const { name } = before.nodes.find(({ id }) => id !== owner)
    await cluster('move', String(partition), name)
  }
  over = true
  await writing
  const after = await owners()
  for (const [i, { epoch }] of after.partitions.entries()) assert.ok(epoch > before.partitions[i].epoch, `partition ${i} has not moved`)

  // Who subscribed by name has missed nothing that counts.
  const of = (inbox, name) => inbox.items.filter(([topic]) => topic === name).map(([, data]) => data.n)
  await named.inbox.until(() => names.every(name => of(named.inbox, name).at(-1) >= last[name]))
  // A wildcard may have, and hears what comes next, when all nodes know the owners.
  const moved = n
  const heard = () => [...names, 'state/own/ann'].every(name => of(wild.inbox, name).some(n => n > moved))
  while (!heard()) await round()
  client.event.emit('news/x', 'done')
  await wild.inbox.until(items => items.some(([topic]) => topic === 'news/x'))
  for (const { inbox } of [wild, named]) {
    for (const name of names) {
      const got = of(inbox, name) // what a new owner tells may be known
      assert.deepEqual(got, got.toSorted((a, b) => a - b), `${name} came out of order`)
    }
  }
  const denied = wild.inbox.items.filter(([topic, { closed }]) => topic === 'state/own/bob' || closed)
  assert.deepEqual(denied, [])
}, { timeout: 180_000 })

const paths = { 'ws-binary': '/deepstream', 'ws-json': '/deepstream-json', 'ws-text': '/deepstream-v3' }

// The last one: it leaves a node that takes nobody.
several('who comes to a node that drains is sent to another, in every dialect', async t => {
  const [first, ...others] = node.nodes
  const witness = await login(t, others[0])
  const news = await subscribed(witness, 'moving')
  await cluster('drain')
  for (const [kind, d] of Object.entries(dialects)) {
    const client = await d.login(t, first, kind)
    client.event.emit('moving', kind)
    assert.equal(await news.next(), kind)
    const record = await d.record(client, `moving/${kind}`)
    await d.setWithAck(record, { by: kind })
    assert.deepEqual(await witness.record.snapshot(`moving/${kind}`), { by: kind })
    assert.ok((await witness.presence.getAll()).includes(kind))
    const went = kind === 'ws-text' ? [client.lines.items[0].split('\x1f')[2]] : client.tap.traffic.items.filter(({ opened }) => opened).slice(1).map(({ opened }) => opened)
    assert.equal(went.length, 1)
    assert.ok(others.some(one => went[0] === new URL(paths[kind], one.url).href), went[0])
  }
}, { timeout: 180_000 })
