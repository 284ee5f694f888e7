import net from 'node:net'

/**
 * Finds a TCP port on 127.0.0.1 that nobody listens on right now.
 *
 * Somebody else may take it before the caller does, so a caller retries with another one.
 */
export async function findFreePort(): Promise<number> {
  const server = net.createServer()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  })
}
