// How dump.rdb was made: by redis 7.0.15 (Debian's), written to by deepstream's own
// connectors, @deepstream/cache-redis 2.0.9 in database 0 and deepstream.io-cache-redis
// 1.2.2, that of deepstream 3, in database 1.
//
//   npm install @deepstream/cache-redis@2.0.9 deepstream.io-cache-redis@1.2.2
//   redis-server --port 6399 --save '' --dir . &
//   node dump.mjs 6399
import { createRequire } from 'node:module'
import { promisify } from 'node:util'

const require = createRequire(process.cwd() + '/')
const { CacheConnector } = require('@deepstream/cache-redis')
const OldConnector = require('deepstream.io-cache-redis')
const Redis = require('ioredis')

const port = Number(process.argv[2])
const log = { fatal: console.error, warn: console.error }
const services = { logger: { getNameSpace: () => log } }

async function fill (options, records) {
  const cache = new CacheConnector({ host: '127.0.0.1', port, ...options }, services)
  await cache.whenReady()
  for (const [name, version, data] of records) await promisify(cache.set.bind(cache))(name, version, data)
  await cache.close()
}

async function fillOld (options, records) {
  const cache = new OldConnector({ host: '127.0.0.1', port, ...options })
  await new Promise(resolve => cache.on('ready', resolve))
  for (const [name, _v, _d] of records) await promisify(cache.set.bind(cache))(name, { _v, _d })
  cache.on('error', () => {}) // what it says of its end
  await cache.client.quit()
}

await fill({}, [
  ['cars/bmw', 3, { make: 'BMW', wheels: 4, '1': 'first' }],
  ['cars', 70000, ['cars/bmw', 'cars/ünique']],
  ['cars/ünique', 1, { text: '🦑 "quoted" \\ \u2028' }],
  ['plain', 0, {}],
  ['long', 12, { text: 'again and '.repeat(2000) }],
  ['odd_v', 5, { of: 'odd_v' }],
  ['odd_d', 6, { of: 'odd_d' }],
  ['wrapped', 7, { _v: 1, _d: { is: 'data' } }],
  ['users/ada', 1, { username: 'ada', password: 'aGFzaA==c2FsdA==', clientData: { id: '7c0b8c4e-1f1c-4b8e-8d0a-3a4c7b2d9e11' }, serverData: { created: 1 } }],
  ...Array.from({ length: 200 }, (_, i) => [`many/${i}`, i + 1, { i }])
])
await fill({ ttl: 20 * 365 * 24 * 3600 }, [['cached', 9, { until: 'far away' }]])

await fillOld({ db: 1 }, [
  ['cars/bmw', 2, { make: 'BMW' }],
  ['cars', 1, ['cars/bmw']],
  ['odd_d', 4, { of: 'odd_d' }]
])

// What else may be there.
const redis = new Redis(port)
await redis.set('session:1', 'not of deepstream')
await redis.set('lost_d', '{}')
await redis.set('alone_v', '3')
await redis.set('broken_v', '3')
await redis.set('broken_d', '{"cut":')
await redis.set('strange_v', 'many')
await redis.set('strange_d', '{}')
await redis.rpush('queue', 'a', 'b'.repeat(100))
await redis.rpush('long queue', ...Array.from({ length: 3000 }, (_, i) => `job ${i}`))
await redis.sadd('set', 'a', 'b')
await redis.sadd('numbers', 1, 2, 3)
await redis.zadd('scores', 1.5, 'a', 2, 'b')
await redis.hset('hash', 'a', 1, 'b', 'c'.repeat(100))
await redis.xadd('stream', '*', 'a', 1)
await redis.set('gone_v', '1', 'PX', 500)
await redis.set('gone_d', '{}', 'PX', 500)
await redis.save()
await redis.quit()
