// One Hadal process under test: started on a free port and a data folder of its
// own, stopped, killed, started again. Its log is kept and printed when a test of
// the file fails.
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, afterEach } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Cluster, nodes } from './cluster.js'
import { later } from './test.js'

const here = dirname(fileURLToPath(import.meta.url))

// binary is the program under test.
export const binary = process.env.HADAL_BIN || resolve(here, '../../bin/hadal')

// secure says that this run of the tests goes over wss.
export const secure = process.env.HADAL_E2E_TRANSPORT === 'wss'

// certificate is the pair that run.js made with `hadal cert`.
export const certificate = () => ({
  key: join(process.env.HADAL_E2E_CERT, 'key.pem'),
  cert: join(process.env.HADAL_E2E_CERT, 'cert.pem')
})

// defaults is what every node starts with: quiet, and patient with the store, which has much to
// do when many files are run, and with providers, which wait for a processor then.
const defaults = () => ({
  record: { storageRetrievalTimeout: 20000 },
  rpc: { ackTimeout: 20000, responseTimeout: 20000 },
  logLevel: 'INFO',
  auth: [{ type: 'none' }],
  permission: { type: 'none' },
  listen: { shuffleProviders: false, responseTimeout: 20000, rematchInterval: 60000, matchCooldown: 10000 },
  connectionEndpoints: [{ type: 'ws-binary', options: {} }]
})

// merge lays b over a: objects merge, everything else is replaced.
function merge (a, b) {
  const out = { ...a }
  for (const [key, value] of Object.entries(b)) {
    const mine = out[key]
    const both = [mine, value].every(v => v && typeof v === 'object' && !Array.isArray(v))
    out[key] = both ? merge(mine, value) : value
  }
  return out
}

// isFree says whether nobody listens on a port.
const isFree = port => new Promise(resolve => {
  const probe = createServer()
  probe.once('error', () => resolve(false))
  probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
})

// claim says whether a port is this file's for the rest of the run: files run side by
// side, and the nodes of another one may be about to open it, or be down for a moment.
function claim (port) {
  const run = process.env.HADAL_E2E_CERT // the folder of the run; a file by itself has none
  if (!run) return true
  try {
    writeFileSync(join(run, `port-${port}`), '', { flag: 'wx' })
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  }
}

// freePort finds a port, or the first of several in a row, below the range from which
// the system takes the ports of outgoing connections, so that none of them sits on it
// while the node is down.
export async function freePort (count = 1) {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 20000 + Math.floor(Math.random() * 12000)
    let free = true
    for (let i = 0; free && i < count; i++) free = claim(port + i) && await isFree(port + i)
    if (free) return port
  }
  throw new Error('no free port found')
}

export class Node {
  #child = null
  #ended = null
  #log = []

  // args and env come to those of every start.
  args = []
  env = {}

  constructor (config, { secure = false } = {}) {
    this.secure = secure
    this.config = merge(defaults(), config)
    if (secure) {
      const ssl = certificate()
      this.config = merge({ httpServer: { options: { ssl } } }, this.config)
    }
  }

  // create makes the folder and the config file; nothing runs yet.
  async create () {
    this.dir = await mkdtemp(join(tmpdir(), 'hadal-e2e-'))
    this.port = await freePort()
    await this.configure({})
    return this
  }

  // configure lays changes over the config; they hold from the next start.
  async configure (changes) {
    this.config = merge(this.config, changes)
    await writeFile(this.configFile, JSON.stringify(this.config, null, 2)) // JSON is YAML
  }

  get configFile () { return join(this.dir, 'config.yml') }
  get dataDir () { return join(this.dir, 'data') }
  get url () { return `${this.secure ? 'wss' : 'ws'}://127.0.0.1:${this.port}/deepstream` }
  get first () { return this } // as of a cluster
  get pid () { return this.#child?.pid }
  get log () { return this.#log.join('') }
  get running () { return this.#child !== null }

  // ca is what a client has to trust.
  get ca () { return this.secure ? readFileSync(this.config.httpServer.options.ssl.cert) : undefined }

  // start runs the node and returns when clients can log in.
  async start () {
    const args = ['start', '--config', this.configFile, '--host', '127.0.0.1', '--port', String(this.port), '--data-dir', this.dataDir, ...this.args]
    const child = spawn(binary, args, { cwd: this.dir, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.env } })
    this.#child = child
    child.stdout.on('data', text => this.#log.push(text))
    child.stderr.on('data', text => this.#log.push(text))
    this.#ended = new Promise(resolve => {
      child.once('error', error => { this.#child = null; resolve({ error }) })
      child.once('close', (code, signal) => { this.#child = null; resolve({ code, signal }) })
    })
    // Two minutes at most: the machine may be busy, a node that ends is seen at once.
    for (let attempt = 0; attempt < 6000; attempt++) {
      const answer = await Promise.race([this.get('/health-check').catch(() => null), this.#ended.then(end => ({ end }))])
      if (answer?.end) throw new Error(`the node ended instead of starting: ${JSON.stringify(answer.end)}\n${this.log}`)
      if (answer?.status === 200) return this
      await pause(20)
    }
    throw new Error(`the node did not get healthy\n${this.log}`)
  }

  // get asks the public port for a page.
  get (path, headers = {}) {
    return new Promise((resolve, reject) => {
      const client = this.secure ? https : http
      const request = client.get({ host: '127.0.0.1', port: this.port, path, headers, ca: this.ca, agent: false }, response => {
        let body = ''
        response.setEncoding('utf8')
        response.on('data', text => { body += text })
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }))
      })
      request.on('error', reject)
    })
  }

  // signal sends one and waits for the end: {code, signal}.
  async signal (name) {
    this.#child.kill(name)
    return this.#ended
  }

  // hangup tells a running node to read its files again.
  hangup () { this.#child.kill('SIGHUP') }

  // freeze stops the process where it stands, until thaw.
  freeze () { this.#child.kill('SIGSTOP') }
  thaw () { this.#child.kill('SIGCONT') }

  kill () { return this.signal('SIGKILL') }
  stop () { return this.signal('SIGTERM') }

  async restart () {
    if (this.running) await this.stop()
    return this.start()
  }

  // roll restarts in good order what is there, one after the other: just this.
  roll () { return this.restart() }

  // run calls the program with other arguments and returns what it said.
  run (...args) { return command(args, { cwd: this.dir }) }

  async remove () {
    if (this.running) await this.kill()
    await rm(this.dir, { recursive: true, force: true })
  }
}

// command runs the program to its end.
export function command (args, { cwd, input } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, args, { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', text => { stdout += text })
    child.stderr.on('data', text => { stderr += text })
    child.once('error', reject)
    child.once('close', code => resolve({ code, stdout, stderr }))
    child.stdin.end(input)
  })
}

// startNode starts the node that the tests of a file share; call it at the top
// of the file. With {t} it belongs to one test. HADAL_E2E_NODES has a cluster in its place,
// unless {alone} says why that cannot be.
export async function startNode (config = {}, { secure: tls = secure, t = null, start = true, alone = '' } = {}) {
  if (alone && nodes > 1) console.log(`on one node: ${alone}`)
  const node = await (nodes > 1 && !alone ? new Cluster(config, { secure: tls }) : new Node(config, { secure: tls })).create()
  const explain = test => {
    if (!test.passed) console.error(`--- log of the node on port ${node.port} (last 60 lines) ---\n${node.log.split('\n').slice(-60).join('\n')}`)
  }
  if (t) {
    later(t, () => node.remove())
    later(t, explain)
  } else {
    afterEach(explain)
    after(() => node.remove())
  }
  if (start) await node.start()
  return node
}
