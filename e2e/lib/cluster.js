// Several Hadal processes that are one cluster, in place of one node: clients are
// spread over them, each next one at the next node. What a test does to the node (stop,
// kill, freeze) is done to all of them.
import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { Node, freePort } from './node.js'

// nodes is how many there are in place of each node.
export const nodes = Number(process.env.HADAL_E2E_NODES || 1)

// news is how long nodes may take to know of each other's subscriptions, providers
// and users, after a client was told that it has them.
const news = 150

// steps are how many pauses news is made of: each of them is late on a machine that is
// busy, on which nodes take longer too.
const steps = 10

// clusters are those of this process that run.
const clusters = new Set()

// spread waits until what a client was told is known at the other nodes as well, which a
// client at another node may count on only then.
export async function spread () {
  if (nodes === 1) return
  for (let i = 0; i < steps; i++) await pause(news / steps)
  // None of the nodes has been kept from running all the while.
  await Promise.all([...clusters].map(cluster => cluster.seen()))
}

export class Cluster {
  #next = 0

  constructor (config, options) {
    this.nodes = Array.from({ length: nodes }, () => new Node(config, options))
  }

  async create () {
    for (const node of this.nodes) await node.create()
    // Each takes two ports for the others.
    const ports = []
    while (ports.length < nodes) ports.push(await freePort(2))
    const join = ports.map(port => `127.0.0.1:${port}`)
    const secret = randomBytes(32).toString('hex')
    for (const [i, node] of this.nodes.entries()) {
      node.args = ['--node-name', 'abcde'[i], '--cluster-name', 'e2e', '--cluster-listen', join[i],
        '--join', join.join(','), '--bootstrap-expect', String(nodes)]
      // Goodbyes are spread over less time than usual, which every stop of the nodes takes.
      node.env = { HADAL_CLUSTER_SECRET: secret, HADAL_CLUSTER_DRAINTIME: '2s' }
    }
    return this
  }

  // next is the node for the next client.
  get next () { return this.nodes[this.#next++ % nodes] }
  get first () { return this.nodes[0] }

  get url () { return this.next.url }
  get port () { return this.next.port }
  get secure () { return this.first.secure }
  get ca () { return this.first.ca }
  get config () { return this.first.config }
  get configFile () { return this.first.configFile }
  get dataDir () { return this.first.dataDir } // of one of them: any can be asked
  get dir () { return this.first.dir }
  get pid () { return this.first.pid }
  get running () { return this.first.running }
  get log () { return this.nodes.map((node, i) => `--- node ${'abcde'[i]} ---\n${node.log.split('\n').slice(-60).join('\n')}`).join('\n') }

  get (path, headers) { return this.first.get(path, headers) }
  run (...args) { return this.first.run(...args) }

  #all (act) { return Promise.all(this.nodes.map(act)) }

  async configure (changes) { await this.#all(node => node.configure(changes)) }

  async start () {
    await this.#all(node => node.start())
    await this.#ready()
    clusters.add(this)
    return this
  }

  // seen waits until every node that runs has done something.
  seen () { return this.#all(node => node.get('/health-check').catch(() => null)) }

  // ready waits until all are, for as long as a node has to start.
  async #ready () {
    for (const node of this.nodes) {
      for (let attempt = 0; (await node.get('/readyz').catch(() => null))?.status !== 200; attempt++) {
        if (attempt > 6000) throw new Error(`a node did not get ready\n${this.log}`)
        await pause(20)
      }
    }
  }

  async roll () {
    for (const node of this.nodes) {
      await node.restart()
      await this.#ready()
    }
  }

  async signal (name) {
    clusters.delete(this)
    return (await this.#all(node => node.signal(name)))[0]
  }

  kill () { return this.signal('SIGKILL') }
  stop () { return this.signal('SIGTERM') }
  async restart () {
    if (this.running) await this.stop()
    return this.start()
  }

  hangup () { for (const node of this.nodes) node.hangup() }

  freeze () {
    clusters.delete(this)
    for (const node of this.nodes) node.freeze()
  }

  thaw () {
    for (const node of this.nodes) node.thaw()
    clusters.add(this)
  }

  async remove () {
    clusters.delete(this)
    await this.#all(node => node.remove())
  }
}
