// webwire-js, driven by the lines of JSON that ../src/webwire.rs describes: `node drive.cjs LIBRARY URL [KEY]`.
// KEY is of a session that it shall find in its storage, and restore as it connects.

const { createRequire } = require('node:module')
const path = require('node:path')
const readline = require('node:readline')

const [library, address, key] = process.argv.slice(2)

// It is built for browsers only: this is what it takes from them.
const stored = key ? JSON.stringify({ session: key }) : null
globalThis.localStorage = { getItem: () => stored, setItem() {}, removeItem() {} }
globalThis.FileReader = class {
  readAsArrayBuffer(message) {
    this.result = message
    this.onload()
  }
}
const { WebSocket } = createRequire(path.join(__dirname, '../../bindings/typescript/package.json'))('ws')
globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url)
    this.binaryType = 'arraybuffer'
  }
}
// The standard output is for lines of JSON.
for (const level of ['log', 'info', 'warn']) console[level] = console.error

const tell = line => process.stdout.write(JSON.stringify(line) + '\n')
const hex = (text, encoding = 'utf8') => Buffer.from(text ?? '', encoding).toString('hex')

const { default: Client } = require(path.resolve(library))
let connected
const connecting = new Promise(resolve => (connected = resolve))
const client = new Client(address.replace('ws://', 'http://'), {
  reconnectionInterval: 50,
  handlers: {
    onConnected: () => connected(),
    onDisconnected: () => tell({ event: 'disconnected' }),
    onSignal: ({ name, encoding, payload }) => {
      tell({ event: 'signal', name: name ?? '', encoding, payload: hex(payload) })
    },
    onSessionCreated: session => tell({ event: 'session_created', key: session.key.string, info: session.info }),
    onSessionClosed: () => tell({ event: 'session_closed' }),
  },
})

async function run({ do: what, name, encoding, payload }) {
  const bytes = Buffer.from(payload ?? '', 'hex')
  // It encodes text itself: as UTF-16 unless told.
  const text = [bytes.toString(encoding === 'utf16' ? 'utf16le' : 'utf8'), encoding === 'utf8' ? 'utf8' : undefined]
  switch (what) {
    case 'connect':
      return connecting
    case 'request': {
      const { reply, err } = await client.request(name, ...text)
      if (err) return { error: { kind: 'request', code: err.code, message: err.message } }
      // Of UTF-16 it makes one character of each byte of the message, the header's too.
      const kept = reply.encoding === 'utf16' ? hex(reply.payload, 'latin1').slice(2 * 10) : hex(reply.payload)
      return { reply: { encoding: reply.encoding, payload: kept } }
    }
    case 'signal':
      return client.signal(name, ...text)
    case 'session':
      return { key: client.session?.key.string ?? null }
    case 'close_session':
      return client.closeSession()
  }
  throw new Error(`it cannot ${what}`)
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('close', () => process.exit())
lines.on('line', async line => {
  const { id, ...command } = JSON.parse(line)
  const answer = await run(command).catch(error => ({ error: { kind: 'other', message: String(error) } }))
  tell({ id, ...answer })
})
