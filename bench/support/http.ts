import http from 'node:http'
import { text } from 'node:stream/consumers'

const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity })

export interface PostOptions {
  token: string
  body: unknown
}

/** Posts JSON and gives the answer. @throws {Error} for any status but 2xx. */
export async function postJson<Answer>(url: string, { token, body }: PostOptions): Promise<Answer> {
  const payload = JSON.stringify(body)
  const response = await open(url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(payload),
    },
    payload,
  })
  const answer = await text(response)
  const { statusCode = 0 } = response
  if (statusCode < 200 || statusCode > 299) throw new Error(`POST ${url} answered ${statusCode}: ${answer}`)
  return JSON.parse(answer) as Answer
}

/** @throws {Error} for any status but 2xx. */
export async function getJson<Answer>(url: string, token: string): Promise<Answer> {
  const response = await get(url, { authorization: `Bearer ${token}` })
  const answer = await text(response)
  const { statusCode = 0 } = response
  if (statusCode < 200 || statusCode > 299) throw new Error(`GET ${url} answered ${statusCode}: ${answer}`)
  return JSON.parse(answer) as Answer
}

/** The answer while it still comes. */
export const get = (url: string, headers: http.OutgoingHttpHeaders = {}): Promise<http.IncomingMessage> =>
  open(url, { headers })

/**
 * Resolves as soon as the event stream gives an event of which `wanted` is true; closes the stream then.
 *
 * @param wanted is asked about each event's block of lines.
 */
export async function untilEvent(
  url: string,
  token: string,
  wanted: (block: string) => boolean,
): Promise<void> {
  const response = await get(url, { authorization: `Bearer ${token}` })
  let rest = ''
  try {
    for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop() ?? ''
      if (blocks.some(wanted)) return
    }
    throw new Error(`the stream ${url} ended early`)
  } finally {
    response.destroy()
  }
}

function open(
  url: string,
  { payload, ...options }: http.RequestOptions & { payload?: string },
): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    http
      .request(url, { agent, ...options }, resolve)
      .on('error', reject)
      .end(payload)
  })
}
