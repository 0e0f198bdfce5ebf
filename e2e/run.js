// Runs the tests of this folder: `npm test` runs every file over ws:// and the
// main feature files over wss:// again; `npm run test-browser` the browser's, streams on three
// nodes too. With file names, just these, over HADAL_E2E_TRANSPORT (ws). With HADAL_E2E_NODES=3, clients are
// spread over three nodes in place of each node, and everything runs over ws://.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeCertificate } from './lib/certificate.js'
import { nodes } from './lib/cluster.js'
import { binary } from './lib/node.js'

// Which files also run over TLS: those where the transport could make a difference.
const overTLS = ['connection', 'events', 'records', 'rpc', 'presence', 'listening', 'reconnect', 'tokens', 'dialects'].map(f => `${f}.test.js`)

// Which files stay on one node, and why.
const alone = {
  'crash.test.js': 'it kills the one node in the middle of writes; e2e/cluster does that to three',
  'pages.test.js': 'a page has the configuration of one node',
  'reload.test.js': 'it changes the files of one node and reads its log',
  'restart.test.js': 'it starts nodes on the data directories of others',
  'tls.test.js': 'it tries the certificates of one node'
}

// together is how many files run at once. They wait for timers more than they work, above all
// where there are several nodes: three of them are ready some three seconds after they were
// started, of which they work for one, and rest afterwards.
const together = nodes > 1 ? 4 : 3

process.chdir(import.meta.dirname ?? new URL('.', import.meta.url).pathname)
if (!existsSync(binary)) {
  console.error(`${binary} is missing: run make build first`)
  process.exit(1)
}

const scratch = mkdtempSync(join(tmpdir(), 'hadal-e2e-run-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
process.env.HADAL_E2E_CERT = scratch
await makeCertificate(scratch)

// atLeast says whether Node is of that version or a later one.
function atLeast (major, minor) {
  const [ours, sub] = process.versions.node.split('.').map(Number)
  return ours > major || (ours === major && sub >= minor)
}

// run runs the files over one transport and says whether all passed.
function run (transport, files, count = nodes) {
  console.log(`\n---- ${files.length} files over ${transport}${count > 1 ? `, clients spread over ${count} nodes` : ''} ----`)
  // A stock client that lost its way may try to connect for ever, after its test.
  const forced = atLeast(20, 14) ? ['--test-force-exit'] : []
  // By itself Node runs one less at once than there are processors.
  const beside = atLeast(20, 10) ? [`--test-concurrency=${together}`] : []
  const args = ['--test', '--test-reporter=spec', ...forced, ...beside, ...files]
  const { status } = spawnSync(process.execPath, args, {
    stdio: 'inherit',
    // With it fetch trusts the certificate of the run's nodes.
    env: { ...process.env, HADAL_E2E_TRANSPORT: transport, HADAL_E2E_NODES: String(count), NODE_EXTRA_CA_CERTS: join(scratch, 'cert.pem') }
  })
  return status === 0
}

const wanted = process.argv.slice(2)
let passed
if (wanted[0] === 'browser') {
  passed = run('wss', ['browser/browser.test.js', 'browser/cookie.test.js', 'browser/stream.test.js'])
  passed = run('wss', ['browser/stream.test.js'], 3) && passed
} else if (wanted.length > 0) {
  passed = run(process.env.HADAL_E2E_TRANSPORT || 'ws', wanted)
} else {
  const all = readdirSync('.').filter(f => f.endsWith('.test.js'))
  if (nodes > 1) {
    for (const [file, why] of Object.entries(alone)) console.log(`left to one node: ${file}: ${why}`)
    passed = run('ws', all.filter(f => !(f in alone)))
  } else {
    passed = run('ws', all)
    passed = run('wss', overTLS) && passed
  }
}
process.exit(passed ? 0 : 1)
