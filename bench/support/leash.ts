/**
 * Preloaded into every Node process that the bench starts: the bench holds the other end of standard input, so however
 * it ends, this process reads end of file and ends too.
 */
const GRACE_MS = 5000

process.stdin.on('end', () => {
  process.kill(process.pid, 'SIGTERM')
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), GRACE_MS).unref()
})
process.stdin.resume()
const { unref } = process.stdin as { unref?: () => void }
unref?.call(process.stdin)
