// A small seeded generator of numbers in [0, 1), so that a failure can be repeated.
export function generator (seed) {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

// seeded draws a seed, or takes HADAL_E2E_SEED, and prints it.
export function seeded () {
  const seed = Number(process.env.HADAL_E2E_SEED || Date.now() % 2 ** 31)
  console.log(`    seed ${seed}: repeat with HADAL_E2E_SEED=${seed}`)
  return generator(seed)
}
