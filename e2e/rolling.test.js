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
  const writers = clients.map(async (client, i) => {
    let acknowledged = 0
    for (let n = 1; !over; n++) {
      // The client forgets the acknowledgement of a write that its connection took along.
      const done = await Promise.race([client.record.setDataWithAck(`rolling/${i}`, { n }).then(() => true, () => false), pause(2000, false)])
      if (done) acknowledged = n
      await pause(5)
    }
    return acknowledged
  })
  await pause(500)
  await node.roll()
  await Promise.all(clients.map(client => client.state('OPEN')))
  await pause(500)
  over = true
  const acknowledged = await Promise.all(writers)
  const reader = await login(t, node)
  for (const [i, n] of acknowledged.entries()) {
    assert.ok(n > 20, `client ${i} had only ${n} writes acknowledged`)
    const kept = await reader.record.snapshot(`rolling/${i}`)
    assert.ok(kept.n >= n, `client ${i} had ${n} acknowledged, and ${kept.n} is kept`)
    assert.ok(!clients[i].states.items.includes('CLOSED'), `client ${i} was ${clients[i].states.items}`)
  }
}, { timeout: 180_000 })
