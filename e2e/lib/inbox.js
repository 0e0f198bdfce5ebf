// What arrives, in order, to be taken one by one or awaited.
export class Inbox {
  #waiting = []
  items = []
  #taken = 0

  // push is what a callback is given; it keeps the first argument, or all of them
  // when there are several.
  push = (...args) => {
    this.items.push(args.length > 1 ? args : args[0])
    this.#wake()
  }

  #wake () {
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }

  // until waits for the condition, which is tried at every arrival.
  async until (condition) {
    for (;;) {
      const result = condition(this.items)
      if (result) return result
      await new Promise(resolve => this.#waiting.push(resolve))
    }
  }

  // next takes the oldest item that was not taken yet.
  async next () {
    await this.until(items => items.length > this.#taken)
    return this.items[this.#taken++]
  }

  // take is the next n items.
  async take (n) {
    const out = []
    while (out.length < n) out.push(await this.next())
    return out
  }

  // rest is what arrived and was not taken.
  get rest () { return this.items.slice(this.#taken) }
}
