// A wire that can be cut: clients connect through it to a node.
import { connect, createServer } from 'node:net'
import { later } from './test.js'

export class Proxy {
  #sockets = new Set()
  #server = null
  #swallowing = false

  constructor (node) { this.node = node }

  get url () { return this.node.url.replace(/:\d+\//, `:${this.port}/`) }
  get ca () { return this.node.ca }
  get secure () { return this.node.secure }

  // swallow loses what clients send from now on, until the next cut.
  swallow () { this.#swallowing = true }

  // mend lets clients through, from now on.
  async mend () {
    this.#server = createServer(near => {
      const far = connect(this.node.port, '127.0.0.1')
      for (const [socket, other] of [[near, far], [far, near]]) {
        this.#sockets.add(socket)
        socket.on('error', () => {}) // a close follows
        socket.on('close', () => { this.#sockets.delete(socket); other.destroy() })
      }
      near.on('data', bytes => { if (!this.#swallowing) far.write(bytes) })
      far.pipe(near)
    })
    await new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(this.port ?? 0, '127.0.0.1', resolve)
    })
    this.port = this.#server.address().port
    return this
  }

  // cut ends every connection without a word and refuses new ones.
  async cut () {
    const closed = new Promise(resolve => this.#server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
    this.#server = null
    this.#swallowing = false
  }

  async remove () { if (this.#server) await this.cut() }
}

// proxied makes a wire to a node that belongs to test t.
export async function proxied (t, node) {
  const proxy = await new Proxy(node).mend()
  later(t, () => proxy.remove())
  return proxy
}
