// Restarts in good order under the load of the published client, which connects through
// a wire that leads to any node, as a load balancer does. On one node it is the one.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { login, logins, unplugged } from './lib/client.js'
import { startNode } from './lib/node.js'
import { proxied } from './lib/proxy.js'
import { test } from './lib/test.js'

test('restarting the nodes one by one loses no acknowledged write and closes no client', async t => {
  const node = await startNode({}, { t })
  const wire = await proxied(t, node)
  const clients = await logins(t, wire, 6, { tolerate: unplugged })
  let over = false
  const acknowledged = clients.map(() => 0)
  const writers = clients.map(async (client, i) => {
    for (let n = 1; !over; n++) {
      // The client forgets the acknowledgement of a write that its connection took along.
      const done = await Promise.race([client.record.setDataWithAck(`rolling/${i}`, { n }).then(() => true, () => false), pause(5000, false)])
      if (done) acknowledged[i] = n
      await pause(5)
    }
  })
  // more waits until every client has had so many more of its writes acknowledged.
  const more = async count => {
    const before = [...acknowledged]
    while (acknowledged.some((n, i) => n < before[i] + count)) await pause(20)
  }
  await more(10)
  await node.roll()
  await Promise.all(clients.map(client => client.state('OPEN')))
  await more(10)
  over = true
  await Promise.all(writers)
  const reader = await login(t, node)
  for (const [i, n] of acknowledged.entries()) {
    const kept = await reader.record.snapshot(`rolling/${i}`)
    assert.ok(kept.n >= n, `client ${i} had ${n} acknowledged, and ${kept.n} is kept`)
    assert.ok(!clients[i].states.items.includes('CLOSED'), `client ${i} was ${clients[i].states.items}`)
  }
}, { timeout: 180_000 })
