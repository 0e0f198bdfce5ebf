// The programs of the pages about logins, as they stand there: a page is its configuration,
// on a node, and what is to be pasted beside it.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, startNode } from './lib/node.js'
import { later, test } from './lib/test.js'

const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname
const secrets = { TOKEN_SECRET: 'a secret of tokens with at least thirty-two bytes', API_SECRET: 'the secret of a backend, of thirty-two bytes at least' }

// blocks are those of a page in a language.
function blocks (page, language) {
  const text = readFileSync(new URL(`../docs/${page}.md`, import.meta.url), 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)^```/gms)].filter(([, is]) => is === language).map(([, , block]) => block)
}

// nodeOf starts a node with the configuration of a page, as it stands there but for what is
// replaced.
async function nodeOf (t, page, replaced = text => text, env = {}) {
  const node = await startNode({}, { t, secure: false, start: false })
  const file = join(node.dir, 'page.yml')
  await writeFile(file, replaced(blocks(page, 'yaml')[0]))
  node.args = ['--config', file] // the last one counts
  node.env = { ...secrets, ...env }
  return node.start()
}

// started runs a program, whose output is what it has said so far. It finds its arguments
// where one in a file would.
function started (program, args = []) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, '--', 'program.mjs', ...args], { cwd: here, env: { ...process.env, ...secrets } })
  child.said = ''
  child.failed = ''
  child.stdout.on('data', text => { child.said += text })
  child.stderr.on('data', text => { child.failed += text })
  child.ended = new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return child
}

// printed is what a program prints that ends by itself.
async function printed (program, args) {
  const child = started(program, args)
  assert.equal(await child.ended, 0, child.failed)
  assert.equal(child.failed, '')
  return child.said
}

const at = (node, program) => program.replaceAll('localhost:6020', `127.0.0.1:${node.port}`)

test('docs/auth-http.md: its webhook is asked, and lets its client in', async t => {
  const port = await freePort()
  const moved = text => text.replaceAll(/\b3000\b/g, port)
  const [webhook, client] = blocks('auth-http', 'js')
  const hook = started(moved(webhook))
  later(t, async () => { hook.kill(); await hook.ended })
  const node = await nodeOf(t, 'auth-http', moved)
  await until(() => fetch(`http://127.0.0.1:${port}`, { method: 'POST', body: '{"authData":{}}' }).then(answer => answer.status === 403, () => false), hook)
  assert.equal(await printed(at(node, client)), "{ theme: 'dark' }\n")
})

test('docs/auth-jwt.md: its token logs in', async t => {
  const node = await nodeOf(t, 'auth-jwt')
  const [make, client] = blocks('auth-jwt', 'js')
  const token = (await printed(make, ['ann'])).trim()
  assert.equal(await printed(at(node, client), [token]), 'logged in\n')
})

test('docs/tokens.md: what a backend and a client do', async t => {
  const node = await nodeOf(t, 'tokens', text => text, { HADAL_TOKENS_ACCESSTTL: '8s' })
  const [backend, client] = blocks('tokens', 'js')
  const url = `http://127.0.0.1:${node.port}`
  const said = await printed(`
    import { setTimeout as pause } from 'node:timers/promises'
    import { DeepstreamClient } from '@deepstream/client'
    const user = { id: 'ann', role: 'admin', name: 'Ann' }
    async function fromBackend () {
      ${backend.replaceAll('https://realtime.example.com', url)}
      return { token, refreshToken, expiresAt }
    }
    async function refresh (refreshToken) {
      const answer = await fetch('${url}/auth/refresh', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ refreshToken }) })
      return answer.json()
    }
    const client = new DeepstreamClient('${node.url}')
    const states = []
    client.on('connectionStateChanged', state => states.push(state))
    ${client}
    const first = pair
    while (pair === first) await pause(20)
    // The connection has a token that can be renewed once more, and is the one that it was.
    const { expiresAt } = await client.rpc.make('hadal/auth/refresh', { token: pair.token })
    console.log(expiresAt === pair.expiresAt, expiresAt > first.expiresAt, states.filter(state => state === 'OPEN').length)
    client.close()
  `)
  assert.equal(said, 'true true 1\n')
})

// until waits for what a program that goes on is to bring about.
async function until (done, program) {
  while (!await done()) {
    assert.equal(program.exitCode, null, program.failed)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
