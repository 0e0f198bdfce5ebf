// Names for the numbers on the wire, from the published codec, and messages as
// plain objects that name their topic and actions.
import all from '@deepstream/protobuf/dist/types/all.js'
import builder from '@deepstream/protobuf/dist/src/message-builder.js'
import parser from '@deepstream/protobuf/dist/src/message-parser.js'

const actions = {
  PARSER: all.PARSER_ACTION,
  CONNECTION: all.CONNECTION_ACTION,
  AUTH: all.AUTH_ACTION,
  EVENT: all.EVENT_ACTION,
  RECORD: all.RECORD_ACTION,
  RPC: all.RPC_ACTION,
  PRESENCE: all.PRESENCE_ACTION
}

// number is the number of an action's name; a number stands for itself, so that
// actions which the codec has no name for can be sent.
export function number (topic, action) {
  if (typeof action === 'number') return action
  const n = actions[topic]?.[action]
  if (n === undefined) throw new Error(`${topic} has no action ${action}`)
  return n
}

// encode turns ('EVENT', 'EMIT', {name, data}) into one frame. data and
// requestorData are given as the text that goes on the wire.
export function encode (topic, action, fields = {}) {
  const message = { topic: all.TOPIC[topic], action: number(topic, action), ...fields }
  if (fields.originalAction !== undefined) message.originalAction = number(topic, fields.originalAction)
  if (message.requestorData !== undefined) message.requestorData = JSON.parse(message.requestorData)
  return Buffer.from(builder.getMessage(message, false))
}

// named replaces the numbers of a parsed message by names. It drops the lists and
// maps that every parsed message has when they are empty, and flags that are
// false: the client reads a false flag and none alike.
export function named (parsed) {
  const { topic, action, originalAction, names, versions, ...rest } = parsed
  const name = all.TOPIC[topic]
  const out = { topic: name, action: actions[name]?.[action] ?? action, ...rest }
  // A parser message is about any topic, so the number of its action stays one.
  if (originalAction !== undefined) out.originalAction = (name !== 'PARSER' && actions[name]?.[originalAction]) || originalAction
  if (names?.length) out.names = names
  if (versions && Object.keys(versions).length) out.versions = versions
  delete out.parsedData
  for (const flag of ['isAck', 'isError', 'isWriteAck']) if (out[flag] === false) delete out[flag]
  return out
}

// parse and decode read one frame as the client does; parse leaves it as the client has it.
export const parse = frame => parser.parse(frame)[0]
export const decode = frame => named(parse(frame))
