/**
 * Portkey's gateway as its package starts it, without its page of logs, but on 127.0.0.1 and a free port alone: its own
 * start program listens on every address.
 */
import net, { type AddressInfo } from 'node:net'

const { listen } = net.Server.prototype

/** Takes the port and leaves out the address. */
function listenOnLoopback(this: net.Server, port: number): net.Server {
  return listen.call(this, port, '127.0.0.1', () => {
    const { port: found } = this.address() as AddressInfo
    started.resolve(found)
  })
}

const started = Promise.withResolvers<number>()
Object.assign(net.Server.prototype, { listen: listenOnLoopback })
process.argv.push('--port=0', '--headless')
await import(import.meta.resolve('@portkey-ai/gateway/build/start-server.js'))
console.log(JSON.stringify({ level: 'info', msg: 'listening', port: await started.promise }))
process.on('SIGTERM', () => process.exit(0))
