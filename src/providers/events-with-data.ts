import { createParser } from 'eventsource-parser'

/**
 * Leaves out the events without data, with which some servers keep a connection open: by the specification they are not
 * dispatched, but an SDK parses what they lack. The others are written anew, with nothing but their name and their data.
 *
 * @param body UTF-8 bytes of `text/event-stream`; chunk borders may fall anywhere.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function eventsWithData(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const [decoder, encoder] = [new TextDecoder(), new TextEncoder()]
  let passed = ''
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (data.trim() !== '') passed += toText(event, data)
    },
  })
  const take = (text: string, controller: TransformStreamDefaultController<Uint8Array>): void => {
    parser.feed(text)
    if (passed !== '') controller.enqueue(encoder.encode(passed))
    passed = ''
  }
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => take(decoder.decode(chunk, { stream: true }), controller),
      // The last event counts, also without the empty line behind it.
      flush: (controller) => take(`${decoder.decode()}\n\n`, controller),
    }),
  )
}

function toText(name: string | undefined, data: string): string {
  const lines = data.split('\n').map((line) => `data: ${line}\n`)
  return `${name === undefined ? '' : `event: ${name}\n`}${lines.join('')}\n`
}
