// Server-sent events beside the official client, by curl as docs/sse.md has it.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { login } from './lib/client.js'
import { spread } from './lib/cluster.js'
import { Inbox } from './lib/inbox.js'
import { startNode } from './lib/node.js'
import { later, test } from './lib/test.js'

const node = await startNode()

// listen opens a stream, with an inbox of [id, type, data].
function listen (t, query, ...args) {
  const url = node.url.replace(/^ws/, 'http').replace('/deepstream', '/sse') + query
  return events(t, spawn('curl', ['-sSNk', ...args, url]))
}

// events is what a command prints that hears a stream.
function events (t, curl) {
  later(t, () => { curl.kill() })
  const inbox = new Inbox()
  let rest = ''
  curl.stdout.setEncoding('utf8').on('data', text => {
    const parts = (rest + text).split('\n\n')
    rest = parts.pop()
    for (const part of parts) {
      const fields = Object.fromEntries(part.split('\n').filter(l => !l.startsWith(':')).map(l => [l.slice(0, l.indexOf(':')), l.slice(l.indexOf(': ') + 2)]))
      if (fields.event) inbox.push([fields.id, fields.event, JSON.parse(fields.data)])
    }
  })
  return inbox
}

test('a stream hears events and records, and goes on where it was', async t => {
  const client = await login(t, node)
  const record = client.record.getRecord('weather/berlin')
  await record.whenReady()
  await record.setWithAck({ sun: 1 })
  const stream = listen(t, '?event=news&record=weather/berlin')
  const first = await stream.next()
  assert.deepEqual(first, ['1 "weather/berlin"', 'record', { name: 'weather/berlin', version: 1, data: { sun: 1 } }])
  await spread()
  client.event.emit('news', [1])
  assert.deepEqual(await stream.next(), [undefined, 'event', { name: 'news', data: [1] }])
  await record.setWithAck('rain', 2)
  const second = ['2 "weather/berlin"', 'record', { name: 'weather/berlin', version: 2, data: { sun: 1, rain: 2 } }]
  assert.deepEqual(await stream.next(), second)
  const older = listen(t, '?record=weather/berlin', '-H', `Last-Event-ID: ${first[0]}`)
  assert.deepEqual(await older.next(), second)
  const same = listen(t, '?record=weather/berlin&record=other', '-H', `Last-Event-ID: ${second[0]}`)
  const other = client.record.getRecord('other')
  await other.whenReady()
  await other.setWithAck({ o: 1 })
  const got = await same.next()
  assert.equal(got[2].name, 'other')
})

test('docs/sse.md: its command runs', async t => {
  const page = readFileSync(new URL('../docs/sse.md', import.meta.url), 'utf8')
  const commands = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, command]) => command.trim())
  assert.equal(commands.length, 1)
  const client = await login(t, node)
  await client.record.setDataWithAck('weather/berlin', { page: 1 })
  const stream = events(t, spawn('sh', ['-c', `exec ${commands[0].replace('127.0.0.1:6020', new URL(node.url).host)}`]))
  assert.deepEqual((await stream.next())[2].data, { page: 1 })
  await spread()
  client.event.emit('news', 'hello')
  assert.deepEqual(await stream.next(), [undefined, 'event', { name: 'news', data: 'hello' }])
})
