/**
 * What the board may load and who may frame it. Its page holds a style element of its own, hence `unsafe-inline`.
 * Source: https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Content-Security-Policy
 */
export const BOARD_HEADERS = {
  'content-security-policy':
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
} as const

/**
 * Bull Board 9.10 offers everything beside the retry, or no retry. This leaves what the guard lets through: of a job's
 * actions the retry, of the queue's none. Its class names end in a hash, its icons are Lucide's.
 */
const HIDDEN = [
  "[class*='jobActions-'] > li:not(:has(.lucide-refresh-cw))",
  "[class*='queueActions-']",
  'button:has(> .lucide-ellipsis-vertical)',
  "[class*='editButton-']",
  "[class*='badgeWrap-']",
] as const

const STYLE = `<style>${HIDDEN.join(',')}{display:none!important}</style>`

/** The board's page without what it would load from elsewhere (fonts of Google's), and without dead buttons. */
export const adaptPage = (html: string): string =>
  html.replace(/<link [^>]*href="https?:[^>]*>/g, '').replace('</head>', () => `${STYLE}</head>`)
