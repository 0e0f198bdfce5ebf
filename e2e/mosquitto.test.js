// Debian's mosquitto clients at a port of MQTT's own, plain and with TLS; docs/mqtt.md is run as
// it is written. On several nodes each next client comes to the next one.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import mqtt from 'mqtt'
import { login, ready, subscribed } from './lib/client.js'
import { spread } from './lib/cluster.js'
import { Inbox } from './lib/inbox.js'
import { certificate, freePort, startNode } from './lib/node.js'
import { later, test } from './lib/test.js'

const page = readFileSync(new URL('../docs/mqtt.md', import.meta.url), 'utf8')
const blocks = kind => [...page.matchAll(new RegExp(`^\`\`\`${kind}\n(.*?)^\`\`\``, 'gms'))].map(([, block]) => block)

// The nodes have the configuration of the page, but for the port, and what all tests have beside it.
const node = await startNode({}, { start: false, secure: false })
const ports = []
for (const one of node.nodes ?? [node]) {
  ports.push(await freePort())
  const { connectionEndpoints, ...rest } = one.config
  const own = Object.entries(rest).map(([key, value]) => `${key}: ${JSON.stringify(value)}`)
  await writeFile(one.configFile, [blocks('yaml')[0].replace('1883', ports.at(-1)), ...own].join('\n'))
}
await node.start()

// start starts a command, at the next node unless a port is given. Its lines arrive one by one.
let next = 0
function start (t, command, port = ports[next++ % ports.length]) {
  const child = spawn('sh', ['-c', `exec ${command.trim().replace('-p 1883', `-p ${port}`)}`])
  later(t, () => { child.kill() })
  const lines = new Inbox()
  createInterface({ input: child.stdout }).on('line', lines.push)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', text => { said += text })
  const ended = new Promise(resolve => child.once('close', code => resolve({ code, said, lines: lines.items })))
  return { lines, ended, kill: () => child.kill('SIGKILL') }
}

// done runs one to its end, which must be good, and returns what it printed.
async function done (t, command, port) {
  const { code, said, lines } = await start(t, command, port).ended
  assert.equal(code, 0, `${command}: ${said}`)
  return lines
}

// listening waits until a subscriber prints what the client emits, and so has subscribed. It
// returns the lines that are no such probes.
async function listening (client, { lines }, topic) {
  const probe = line => line.startsWith(`${topic} `)
  let heard = false
  const first = lines.until(all => all.some(probe)).then(() => { heard = true })
  while (!heard) {
    client.event.emit(topic, 'probe')
    await Promise.race([first, pause(50)])
  }
  await spread()
  const others = new Inbox()
  let seen = 0
  const sort = all => { while (seen < all.length) { if (!probe(all[seen])) others.push(all[seen]); seen++ } }
  lines.until(all => { sort(all) }) // for ever: at every line that comes
  return others
}

test('docs/mqtt.md: its commands run, and print what it says', async t => {
  const client = await login(t, node)
  const [subscriber, publishers, ...more] = blocks('sh')
  const [printed] = blocks('text').map(block => block.trim().split('\n'))
  assert.deepEqual(more, [])
  const lines = await listening(client, start(t, subscriber), 'news/probe')
  for (const command of publishers.trim().split('\n')) await done(t, command)
  // An event and a record that come from two nodes may come in either order.
  assert.deepEqual((await lines.take(2)).sort(), printed)
  assert.equal(await start(t, subscriber).lines.next(), printed[1])
})

for (const version of ['mqttv311', 'mqttv5']) {
  const as = who => `-p 1883 -V ${version} -u ${who} -P x`

  test(`${version}: mosquitto_sub and mosquitto_pub meet the official client`, async t => {
    const client = await login(t, node)
    const name = `state/${version}`
    const record = await ready(client, name)
    await record.setWithAck({ n: 1 })
    const lines = await listening(client, start(t, `mosquitto_sub ${as('ann')} -q 1 -t 'a/${version}/+' -t ${name} -v`), `a/${version}/probe`)
    assert.equal(await lines.next(), `${name} {"n":1}`)
    await record.setWithAck('deep.er', 'ü')
    assert.equal(await lines.next(), `${name} {"n":1,"deep":{"er":"ü"}}`)
    client.event.emit(`a/${version}/x`, { x: [1] })
    assert.equal(await lines.next(), `a/${version}/x {"x":[1]}`)
    client.event.emit(`a/${version}/none`)
    assert.equal(await lines.next(), `a/${version}/none (null)`)

    const news = await subscribed(client, `b/${version}`)
    await done(t, `mosquitto_pub ${as('bob')} -q 1 -t b/${version} -m 'hello ü'`)
    assert.equal(await news.next(), 'hello ü')
    const changed = new Promise(resolve => record.subscribe('by', resolve))
    await done(t, `mosquitto_pub ${as('bob')} -q 1 -t ${name} -m '{"by":"bob"}'`)
    assert.equal(await changed, 'bob')
    assert.equal(await lines.next(), `${name} {"by":"bob"}`)
    const gone = new Promise(resolve => record.on('delete', resolve))
    await done(t, `mosquitto_pub ${as('bob')} -q 1 -t ${name} -r -n`)
    await gone
    assert.equal(await lines.next(), `${name} (null)`)
  })

  test(`${version}: a will is published, and what cannot be subscribed to is refused`, async t => {
    const client = await login(t, node)
    const wills = await subscribed(client, `will/${version}`)
    const dying = start(t, `mosquitto_sub ${as('cid')} -t c/${version} -v --will-topic will/${version} --will-payload gone`)
    await listening(client, dying, `c/${version}`)
    dying.kill()
    assert.equal(await wills.next(), 'gone')
    const { said } = await start(t, `mosquitto_sub ${as('cid')} -t '$SYS/#'`).ended
    assert.match(said, /denied/)
  })
}

test('with TLS: mosquitto, and mqtt over mqtts and wss', async t => {
  const { cert } = certificate()
  const port = await freePort()
  const own = await startNode({
    auth: [{ type: 'file', options: { users: { ann: { password: 'a long secret' } } } }],
    mqtt: { enabled: true, port, ssl: certificate(), recordPrefixes: ['state/'] }
  }, { t, secure: true, alone: 'its ports and its certificate are its own' })
  const client = await login(t, own, { username: 'ann', password: 'a long secret' })
  const as = `-p 1883 -u ann -P 'a long secret'`
  const lines = await listening(client, start(t, `mosquitto_sub ${as} --cafile ${cert} -t 't/+' -t 'state/+' -v`, port), 't/probe')
  await done(t, `mosquitto_pub ${as} --cafile ${cert} -V mqttv5 -q 1 -t state/lamp -m '{"on":true}'`, port)
  assert.equal(await lines.next(), 'state/lamp {"on":true}')

  const urls = [`mqtts://127.0.0.1:${port}`, own.url.replace('/deepstream', '/mqtt')]
  for (const [i, url] of urls.entries()) {
    const thing = await mqtt.connectAsync(url, { protocolVersion: 4 + i, username: 'ann', password: 'a long secret', ca: own.ca, reconnectPeriod: 0 })
    later(t, () => thing.endAsync(true))
    await thing.publishAsync(`t/${i}`, url, { qos: 1 })
    assert.equal(await lines.next(), `t/${i} "${url}"`)
  }

  const refused = async (command, why) => {
    const { code, said } = await start(t, command, port).ended
    assert.notEqual(code, 0)
    assert.match(said, why)
  }
  await refused(`mosquitto_pub -p 1883 --cafile ${cert} -u ann -P wrong -t t/x -m x`, /not authorised/i)
  await refused(`mosquitto_pub ${as} --capath /etc/ssl/certs -t t/x -m x`, /TLS|certificate/i)
  await refused(`mosquitto_pub ${as} -t t/x -m x`, /lost|refused|closed|protocol/i)
  assert.deepEqual(lines.rest, [])
  assert.doesNotMatch(own.log, /a long secret/)
})
