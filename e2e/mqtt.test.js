// MQTT and server-sent events beside the official client: spec 05.
import assert from 'node:assert/strict'
import mqtt from 'mqtt'
import { login, subscribed } from './lib/client.js'
import { spread } from './lib/cluster.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { later, test } from './lib/test.js'

// Over WebSocket, so that nodes on one machine need no ports of their own.
const node = await startNode({
  connectionEndpoints: [
    { type: 'ws-binary', options: {} },
    { type: 'mqtt', options: { port: -1, recordPrefixes: ['state/'] } }
  ]
})

// thing is a client of MQTT that has connected, with an inbox of [topic, text, retained].
async function thing (t, protocolVersion) {
  const client = await mqtt.connectAsync(node.url.replace('/deepstream', '/mqtt'), {
    protocolVersion, username: 'thing', password: 'x', ca: node.ca, reconnectPeriod: 0
  })
  later(t, () => client.endAsync(true))
  const inbox = new Inbox()
  client.on('message', (topic, payload, packet) => inbox.push([topic, payload.toString(), packet.retain]))
  return { client, inbox }
}

for (const version of [4, 5]) {
  test(`events of MQTT ${version} and of the official client meet`, async t => {
    const { client, inbox } = await thing(t, version)
    const other = await login(t, node)
    const news = await subscribed(other, `news/${version}`)
    const granted = await client.subscribeAsync(`news/${version}/+`, { qos: 1 })
    assert.equal(granted[0].qos, 0)
    await spread()
    await client.publishAsync(`news/${version}`, 'hello', { qos: 1 })
    assert.equal(await news.next(), 'hello')
    other.event.emit(`news/${version}/today`, { x: 1 })
    assert.deepEqual(await inbox.next(), [`news/${version}/today`, '{"x":1}', false])
  })

  test(`records of MQTT ${version} are those of the official client`, async t => {
    const { client, inbox } = await thing(t, version)
    const name = `state/lamp${version}`
    await client.publishAsync(name, '{"on":true}', { qos: 1 })
    const other = await login(t, node)
    const record = other.record.getRecord(name)
    await record.whenReady()
    assert.deepEqual(record.get(), { on: true })
    await client.subscribeAsync(name)
    assert.deepEqual(await inbox.next(), [name, '{"on":true}', true])
    await record.setWithAck('dim', 3)
    assert.deepEqual(await inbox.next(), [name, '{"on":true,"dim":3}', false])
    await client.unsubscribeAsync(name)
  })
}
