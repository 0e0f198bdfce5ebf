// Starts the published deepstream server, to be measured beside a Hadal node: it lets everybody
// in on a port of its own on loopback, keeps everything in memory, and says where it is.
//
//	node deepstream.js [uws|default]
//
// uws is its WebSocket server in C++, default the one in JavaScript; without a word the first,
// if npm has it for this Node. BENCH_RULES names a file with permission rules, in YAML.
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'

const require = createRequire(import.meta.url)
const { Deepstream } = require('@deepstream/server')
const yaml = require('js-yaml')
const { version } = require('@deepstream/server/package.json')

const { LOG_LEVEL } = require('@deepstream/types')

// The package falls back to JavaScript without a word where it has no binary.
const binary = join(dirname(require.resolve('uWebSockets.js/package.json')), 'dist', `uws_${process.platform}_${process.arch}_${process.versions.modules}.node`)
const websocket = process.argv[2] ?? (existsSync(binary) ? 'uws' : 'default')

// freePort is one that nobody listens on now.
async function freePort () {
  const server = createServer()
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

const port = await freePort()
const rules = process.env.BENCH_RULES
const server = new Deepstream({
  showLogo: false,
  logLevel: LOG_LEVEL.INFO, // as it comes, and as our nodes have it: a login is a line or two in the log
  httpServer: { type: websocket, options: { host: '127.0.0.1', port, healthCheckPath: '/health-check', allowAllOrigins: true, maxMessageSize: 1048576 } },
  // The options of the configuration that comes with the server.
  connectionEndpoints: [{ type: 'ws-binary', options: { urlPath: '/deepstream', heartbeatInterval: 30000, outgoingBufferTimeout: 0, maxBufferByteSize: 100000 } }],
  auth: [{ type: 'none' }],
  permission: rules
    ? { type: 'config', options: { permissions: yaml.load(readFileSync(rules, 'utf8')), maxRuleIterations: 3, cacheEvacuationInterval: 60000 } }
    : { type: 'none' }
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => process.exit(0)) // at once: nothing is kept
}

server.on('started', () => {
  console.log(`about=@deepstream/server ${version}, ${websocket === 'uws' ? 'C++ (uws)' : 'JavaScript (ws)'} WebSocket, in memory, Node ${process.version}`)
  console.log(`url=ws://127.0.0.1:${port}/deepstream`)
})
server.start()
