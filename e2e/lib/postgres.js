// A real PostgreSQL for the length of a file's tests: the one that is installed, with a
// data folder of its own, on a free port, as a user without rights, because it refuses
// root.
import { execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, readdirSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from './node.js'

const password = 'pg-s3cret'

// folder is where the newest one's programs are: Debian keeps them out of the PATH.
function folder () {
  const all = '/usr/lib/postgresql'
  const found = existsSync(all) ? readdirSync(all).sort((a, b) => Number(a) - Number(b)) : []
  if (found.length > 0) return join(all, found.at(-1), 'bin')
  const path = (process.env.PATH || '').split(':').find(dir => existsSync(join(dir, 'initdb')))
  if (!path) throw new Error('PostgreSQL is not installed: make deps does it')
  return path
}

// stranger is whom it runs as when the tests are root's.
function stranger () {
  if (process.getuid() !== 0) return {}
  const id = (...args) => Number(execFileSync('id', args, { encoding: 'utf8' }))
  for (const name of ['postgres', 'nobody']) {
    try { return { uid: id('-u', name), gid: id('-g', name) } } catch { continue }
  }
  throw new Error('there is no user to run PostgreSQL as')
}

export class Postgres {
  #child = null
  #ended = null
  #log = []

  async create () {
    this.bin = folder()
    this.as = stranger()
    this.dir = await mkdtemp(join(tmpdir(), 'hadal-pg-'))
    if (this.as.uid) chownSync(this.dir, this.as.uid, this.as.gid)
    this.port = await freePort()
    const secret = join(this.dir, 'password')
    writeFileSync(secret, password, { mode: 0o644 })
    const options = { cwd: this.dir, env: { ...process.env, LC_ALL: 'C', HOME: this.dir }, ...this.as }
    execFileSync(join(this.bin, 'initdb'), [`--pgdata=${this.data}`, '--username=hadal', `--pwfile=${secret}`, '--auth=scram-sha-256',
      '--encoding=UTF8', '--locale=C', '--no-sync', '--no-instructions'], { ...options, stdio: ['ignore', 'ignore', 'pipe'] })
    this.options = options
    return this
  }

  get data () { return join(this.dir, 'data') }
  get url () { return `postgres://hadal:${password}@127.0.0.1:${this.port}/postgres?sslmode=disable` }
  get log () { return this.#log.join('') }

  async start () {
    const child = spawn(join(this.bin, 'postgres'), ['-D', this.data, '-p', String(this.port), '-k', this.dir,
      '-c', 'listen_addresses=127.0.0.1', '-c', 'fsync=off', '-c', 'shared_buffers=16MB'], { ...this.options, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    for (const out of [child.stdout, child.stderr]) out.on('data', text => this.#log.push(text))
    this.#ended = new Promise(resolve => child.once('close', () => { this.#child = null; resolve(true) }))
    // It is ready when it says so and its port is open.
    const open = () => new Promise(resolve => {
      const socket = net.connect(this.port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
      socket.once('error', () => resolve(false))
    })
    const before = this.log.length
    for (let attempt = 0; attempt < 6000; attempt++) {
      if (this.log.slice(before).includes('ready to accept connections') && await open()) return this
      if (!this.#child) break
      await pause(20)
    }
    throw new Error(`PostgreSQL does not start\n${this.log}`)
  }

  // stop ends it, and all connections to it.
  async stop () {
    if (!this.#child) return
    this.#child.kill('SIGINT')
    await this.#ended
  }

  async remove () {
    await this.stop()
    await rm(this.dir, { recursive: true, force: true })
  }
}

// startPostgres starts the one that the tests of a file share; call it at the top.
export async function startPostgres () {
  const server = await new Postgres().create()
  after(() => server.remove())
  return server.start()
}
