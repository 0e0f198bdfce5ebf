// A headless Chromium, and servers of the page that the tests drive in it.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { after } from 'node:test'
import { chromium } from 'playwright-core'
import { certificate } from './node.js'
import { limit } from './test.js'

const files = {
  '/': ['text/html; charset=utf-8', readFileSync(new URL('../browser/page.html', import.meta.url))],
  '/ds.min.js': ['text/javascript; charset=utf-8', readFileSync(new URL('../node_modules/@deepstream/client/dist/bundle/ds.min.js', import.meta.url))]
}

// servePage serves the page over https from an origin of its own, as an application would,
// and returns that origin. headers() come with every answer.
export async function servePage (headers = () => ({})) {
  const { key, cert } = certificate()
  const web = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
    const [type, body] = files[request.url] ?? []
    if (!body) return response.writeHead(404).end()
    response.writeHead(200, { 'Content-Type': type, ...headers() }).end(body)
  })
  await new Promise(resolve => web.listen(0, '127.0.0.1', resolve))
  after(() => web.close())
  return `https://127.0.0.1:${web.address().port}`
}

// launch starts the browser, for the rest of the file. It and its pages are waited for as long as
// a test may last: on a busy machine the library's half a minute is short.
export async function launch () {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    timeout: limit,
    // The certificate is self-signed, and CI runs as root in a container.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--ignore-certificate-errors']
  })
  after(() => browser.close())
  for (const kind of ['newContext', 'newPage']) {
    const make = browser[kind].bind(browser)
    browser[kind] = async options => {
      const made = await make(options)
      made.setDefaultTimeout(limit)
      return made
    }
  }
  return browser
}
