// Certificates for tests, made by the program under test.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { command } from './node.js'

// makeCertificate writes key.pem and cert.pem for loopback into a folder.
export async function makeCertificate (dir) {
  const pair = { key: join(dir, 'key.pem'), cert: join(dir, 'cert.pem') }
  const { code, stdout, stderr } = await command(['cert', '--key', pair.key, '--cert', pair.cert])
  assert.equal(code, 0, `hadal cert failed: ${stdout}${stderr}`)
  return pair
}
