import { Readable } from 'node:stream'
import type { Caller, Gateway } from '../../src/protocol/routes.ts'

/** Posts to the gateway as it is in a process, without HTTP. */
export async function askGateway(
  gateway: Gateway,
  caller: Caller,
  { target, body, signal = null }: { target: string; body: unknown; signal?: AbortSignal | null },
): Promise<Response> {
  const headers = new Headers({ 'content-type': 'application/json' })
  const bytes = Buffer.from(JSON.stringify(body))
  const answer = await gateway({ method: 'POST', target, headers, body: bytes, signal }, caller)
  const passed = answer.body instanceof Readable ? Readable.toWeb(answer.body) : answer.body
  return new Response(passed as ReadableStream, { status: answer.status, headers: answer.headers })
}
