// Servers that a node under test asks who a client is, and the tokens they sign.
import { constants, createHmac, generateKeyPairSync, sign } from 'node:crypto'
import http from 'node:http'
import { after } from 'node:test'
import { later } from './test.js'

// serve answers requests by handle(request, response, body) on a free port. With {t} the
// server belongs to one test, else to the file.
export async function serve (handle, { t } = {}) {
  const server = http.createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', text => { body += text })
    request.on('end', () => handle(request, response, body))
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const close = () => new Promise(resolve => {
    server.close(resolve)
    server.closeAllConnections()
  })
  if (t) later(t, close)
  else after(close)
  return `http://127.0.0.1:${server.address().port}`
}

// reply answers with a status and a body, JSON unless it is a text.
export function reply (response, status, body = '') {
  const text = typeof body === 'string'
  response.writeHead(status, { 'content-type': text ? 'text/plain' : 'application/json' })
  response.end(text ? body : JSON.stringify(body))
}

// pair is a key pair for an algorithm, as a node and a set of keys have it.
export function pair (alg, id) {
  const [kind, options] = {
    RS: ['rsa', { modulusLength: 2048 }],
    PS: ['rsa', { modulusLength: 2048 }],
    ES: ['ec', { namedCurve: { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }[alg] }],
    Ed: ['ed25519', {}]
  }[alg.slice(0, 2)]
  const { privateKey, publicKey } = generateKeyPairSync(kind, options)
  const pem = publicKey.export({ type: 'spki', format: 'pem' })
  return { alg, id, privateKey, pem, jwk: { ...publicKey.export({ format: 'jwk' }), kid: id, alg, use: 'sig' } }
}

const part = value => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

// token makes a JSON Web Token: key is a pair or {alg, id, secret}.
export function token (key, claims, header = {}) {
  const input = `${part({ alg: key.alg, typ: 'JWT', ...(key.id && { kid: key.id }), ...header })}.${part({ exp: inSeconds(3600), ...claims })}`
  return `${input}.${signature(key, input).toString('base64url')}`
}

function signature ({ alg, secret, privateKey: key }, input) {
  const digest = `sha${alg.slice(2)}`
  switch (alg.slice(0, 2)) {
    case 'HS': return createHmac(digest, secret).update(input).digest()
    case 'RS': return sign(digest, input, key)
    case 'PS': return sign(digest, input, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST })
    case 'ES': return sign(digest, input, { key, dsaEncoding: 'ieee-p1363' })
    default: return sign(null, input, key)
  }
}

// inSeconds is a time from now, as tokens have it.
export const inSeconds = n => Math.floor(Date.now() / 1000) + n
