/** What runs in a thread of its own: HTML in, text out, once. See page-text.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { convert, type HtmlToTextOptions } from 'html-to-text'

const OPTIONS: HtmlToTextOptions = {
  wordwrap: false,
  selectors: [
    { selector: 'img', format: 'skip' },
    { selector: 'noscript', format: 'skip' },
    { selector: 'svg', format: 'skip' },
    { selector: 'nav', format: 'skip' },
    { selector: 'a', options: { hideLinkHrefIfSameAsText: true, noAnchorUrl: true } },
    ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6'].map((selector) => ({ selector, options: { uppercase: false } })),
    { selector: 'table', format: 'dataTable' },
  ],
}

const { html, url } = workerData as { html: string; url: string }
const title = convert(/<title[^>]*>([^<]*)/i.exec(html)?.[1] ?? '', { wordwrap: false }).trim()
const text = convert(html, {
  ...OPTIONS,
  selectors: [...(OPTIONS.selectors ?? []), { selector: 'a', options: { baseUrl: url } }],
})
parentPort?.postMessage({ title, text })
