// Node's own test runner, with a limit after which a test counts as hung, and
// tidying up in reverse order: what was made last goes first.
import { test as run } from 'node:test'

// limit only ends a test that hangs; no test depends on it.
export const limit = Number(process.env.HADAL_E2E_LIMIT || 180_000)

export const test = (name, fn, { timeout = limit } = {}) => run(name, { timeout }, fn)

const stacks = new WeakMap()

// later calls fn(t) after test t, before what was registered earlier. Every one is
// called even if another fails; the first failure is the test's.
export function later (t, fn) {
  if (!stacks.has(t)) {
    const stack = []
    stacks.set(t, stack)
    t.after(async () => {
      const failures = []
      for (const fn of stack.reverse()) {
        try { await fn(t) } catch (error) { failures.push(error) }
      }
      if (failures.length > 0) throw failures[0]
    })
  }
  stacks.get(t).push(fn)
}
