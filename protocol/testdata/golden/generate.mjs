// Writes frames.json: messages and the frames that the published codec builds
// from them. The Go tests read it, so they need no Node. `npm run generate`.
//
// A case is {name, message, frame}: the frame in hex, and the message as the
// codec's builder takes it, but for three things: versions is a list of pairs
// (a JSON object has no order in Go), requestorData is JSON text, and actionName
// is the codec's own name of the action.

import { writeFileSync } from 'node:fs'
import builder from '@deepstream/protobuf/dist/src/message-builder.js'
import all from '@deepstream/protobuf/dist/types/all.js'

const { TOPIC } = all
const actionsOf = {
  [TOPIC.PARSER]: all.PARSER_ACTION,
  [TOPIC.CONNECTION]: all.CONNECTION_ACTION,
  [TOPIC.AUTH]: all.AUTH_ACTION,
  [TOPIC.EVENT]: all.EVENT_ACTION,
  [TOPIC.RECORD]: all.RECORD_ACTION,
  [TOPIC.RPC]: all.RPC_ACTION,
  [TOPIC.PRESENCE]: all.PRESENCE_ACTION,
}

const cases = []

function add (name, message) {
  const built = { ...message }
  delete built.actionName
  if (built.versions) built.versions = Object.fromEntries(built.versions)
  if (built.requestorData) built.requestorData = JSON.parse(built.requestorData)
  const frame = Buffer.from(builder.getMessage(built, false)).toString('hex')
  cases.push({ name, message, frame })
}

// Every action of every topic, alone.
for (const [topic, actions] of Object.entries(actionsOf)) {
  for (const [actionName, action] of Object.entries(actions)) {
    if (typeof action !== 'number' || action === 0) continue
    add(`${TOPIC[topic]} ${actionName}`, { topic: Number(topic), action, actionName })
  }
}
for (const topic of [TOPIC.MONITORING, TOPIC.CLUSTER, TOPIC.LOCK]) {
  add(`${TOPIC[topic]} action only`, { topic, action: 2 })
}

// Texts that look different in bytes than in characters, or have long lengths.
const texts = {
  ascii: 'users/anna',
  'two bytes': 'straße',
  'three bytes': '日本語',
  'four bytes': '🦊/🐻',
  'zero byte': 'a\u0000b',
  'byte order mark': '\ufeffname',
  '127 bytes': 'x'.repeat(127),
  '128 bytes': 'x'.repeat(128),
  '16384 bytes': 'é'.repeat(8192),
}

// Every text field of every topic with every such text.
const textFields = {
  [TOPIC.PARSER]: ['data'],
  [TOPIC.CONNECTION]: ['data', 'url', 'protocolVersion', 'sdkVersion', 'sdkType'],
  [TOPIC.AUTH]: ['data'],
  [TOPIC.EVENT]: ['data', 'correlationId', 'name', 'subscription'],
  [TOPIC.RECORD]: ['data', 'correlationId', 'name', 'subscription', 'path'],
  [TOPIC.RPC]: ['data', 'correlationId', 'name', 'requestorName'],
  [TOPIC.PRESENCE]: ['data', 'correlationId', 'name'],
}
for (const [topic, fields] of Object.entries(textFields)) {
  for (const field of fields) {
    for (const [kind, text] of Object.entries(texts)) {
      if (kind === '16384 bytes' && !(field === 'data' && Number(topic) === TOPIC.RECORD)) continue
      add(`${TOPIC[topic]} ${field}, ${kind}`, { topic: Number(topic), action: 2, [field]: text })
    }
  }
}

// Every flag and number of every topic.
const flags = {
  [TOPIC.CONNECTION]: ['isError', 'isAck'],
  [TOPIC.AUTH]: ['isError', 'isAck'],
  [TOPIC.EVENT]: ['isError', 'isAck'],
  [TOPIC.RECORD]: ['isError', 'isAck', 'isWriteAck'],
  [TOPIC.RPC]: ['isError', 'isAck'],
  [TOPIC.PRESENCE]: ['isError', 'isAck'],
}
for (const [topic, fields] of Object.entries(flags)) {
  for (const field of fields) {
    add(`${TOPIC[topic]} ${field}`, { topic: Number(topic), action: 2, [field]: true })
  }
}
for (const topic of [TOPIC.PARSER, TOPIC.EVENT, TOPIC.RECORD, TOPIC.RPC, TOPIC.PRESENCE]) {
  for (const originalAction of [0, 1, 35, 127, 128, 2147483647, -1]) {
    add(`${TOPIC[topic]} originalAction ${originalAction}`, { topic, action: 104, originalAction })
  }
}
for (const version of [0, 1, -1, 127, 128, 16383, 16384, 2147483647, -2147483648]) {
  add(`RECORD version ${version}`, { topic: TOPIC.RECORD, action: all.RECORD_ACTION.READ_RESPONSE, name: 'r', version, data: '{}' })
}
add('RECORD PATCH_MULTI', { topic: TOPIC.RECORD, action: 35, name: 'r', version: 2, data: '[{"path":"a","data":1}]' })
for (const action of [128, 1000000, -1]) {
  add(`RECORD unknown action ${action}`, { topic: TOPIC.RECORD, action })
}

// Lists and maps.
const lists = { none: [], one: ['a'], 'an empty name': [''], three: ['a', 'straße', 'x'.repeat(200)], many: Array.from({ length: 300 }, (_, i) => `r${i}`) }
for (const topic of [TOPIC.EVENT, TOPIC.RECORD, TOPIC.RPC, TOPIC.PRESENCE]) {
  for (const [kind, names] of Object.entries(lists)) {
    add(`${TOPIC[topic]} names, ${kind}`, { topic, action: 3, names, correlationId: '0' })
  }
}
const maps = {
  none: [],
  one: [['a', 1]],
  zero: [['a', 0]],
  missing: [['zip', -1]],
  'an empty name': [['', 3]],
  three: [['a', 1], ['b/ß', 2147483647], ['x'.repeat(200), 0]],
}
for (const [kind, versions] of Object.entries(maps)) {
  add(`RECORD versions, ${kind}`, { topic: TOPIC.RECORD, action: all.RECORD_ACTION.HEAD_RESPONSE_BULK, versions })
}

// Present but empty, where that is not absent.
for (const [topic, fields] of Object.entries({
  [TOPIC.EVENT]: ['correlationId', 'name', 'subscription'],
  [TOPIC.RECORD]: ['correlationId', 'name', 'subscription', 'path'],
  [TOPIC.RPC]: ['correlationId', 'name', 'requestorName'],
  [TOPIC.PRESENCE]: ['correlationId', 'name'],
})) {
  for (const field of fields) {
    add(`${TOPIC[topic]} ${field}, empty`, { topic: Number(topic), action: 2, [field]: '' })
  }
}

// Everything at once: the order of the fields.
add('CONNECTION everything', {
  topic: TOPIC.CONNECTION, action: all.CONNECTION_ACTION.CHALLENGE, data: '{}', isError: true, isAck: true,
  url: 'ws://localhost:6020/deepstream', protocolVersion: '0.1a', sdkVersion: '7.0.5', sdkType: 'javascript',
})
add('AUTH everything', { topic: TOPIC.AUTH, action: all.AUTH_ACTION.REQUEST, data: '{"username":"joe"}', isError: true, isAck: true })
add('PARSER everything', { topic: TOPIC.PARSER, action: all.PARSER_ACTION.UNKNOWN_TOPIC, data: '{}', originalAction: 7 })
add('EVENT everything', {
  topic: TOPIC.EVENT, action: all.EVENT_ACTION.EMIT, data: 'null', correlationId: '7', isError: true, isAck: true,
  name: 'a.*', names: ['b', 'c'], subscription: 'abc', originalAction: all.EVENT_ACTION.SUBSCRIBE,
})
add('RECORD everything', {
  topic: TOPIC.RECORD, action: all.RECORD_ACTION.PATCH, data: '"x"', correlationId: '3', isError: true, isAck: true,
  name: 'users/anna', names: ['b', 'c'], subscription: 'abc', originalAction: all.RECORD_ACTION.UPDATE,
  isWriteAck: true, path: 'a.b[2]', version: -1, versions: [['a', 1], ['b', 8]],
})
add('RPC everything', {
  topic: TOPIC.RPC, action: all.RPC_ACTION.REQUEST, data: '[1,2]', correlationId: 'k3-x9', isError: true, isAck: true,
  names: ['b', 'c'], name: 'add-two', originalAction: all.RPC_ACTION.PROVIDE,
  requestorName: 'anna', requestorData: '{"roles":["admin"]}',
})
add('PRESENCE everything', {
  topic: TOPIC.PRESENCE, action: all.PRESENCE_ACTION.QUERY_RESPONSE, originalAction: all.PRESENCE_ACTION.QUERY,
  data: '{"anna":true}', correlationId: '0', isError: true, isAck: true, name: 'anna', names: ['anna', 'bert'],
})

const lines = cases.map((c) => '  ' + JSON.stringify(c)).join(',\n')
writeFileSync(new URL('frames.json', import.meta.url), `[\n${lines}\n]\n`)
console.log(`${cases.length} frames`)
