/** What runs in a thread of its own: HTML in, text out, once. See page-text.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { convert, type HtmlToTextOptions } from 'html-to-text'

const { html, url } = workerData as { html: string; url: string }

const options: HtmlToTextOptions = {
  wordwrap: false,
  selectors: [
    ...['img', 'noscript', 'svg', 'nav'].map((selector) => ({ selector, format: 'skip' })),
    ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6'].map((selector) => ({ selector, options: { uppercase: false } })),
    { selector: 'table', format: 'dataTable' },
    { selector: 'a', options: { hideLinkHrefIfSameAsText: true, noAnchorUrl: true, pathRewrite: inFull } },
  ],
}

function inFull(link: string): string {
  return URL.canParse(link, url) ? new URL(link, url).href : link
}

const title = convert(/<title[^>]*>([^<]*)/i.exec(html)?.[1] ?? '', { wordwrap: false }).trim()
parentPort?.postMessage({ title, text: convert(html, options) })
