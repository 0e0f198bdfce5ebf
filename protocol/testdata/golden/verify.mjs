// Reads frames, one in hex a line, from standard input and writes what the
// published codec makes of each, one JSON object a line: only the fields found
// on the wire, as a client sees them. An empty line in is an error.

import { createInterface } from 'node:readline'
import parser from '@deepstream/protobuf/dist/src/message-parser.js'

for await (const line of createInterface({ input: process.stdin })) {
  const bytes = Buffer.from(line, 'hex')
  if (bytes.length === 0 || bytes.length * 2 !== line.length) throw new Error(`not a frame in hex: ${line}`)
  const [message] = parser.parse(bytes)
  if (message.versions) message.versions = Object.entries(message.versions)
  process.stdout.write(JSON.stringify(message) + '\n')
}
