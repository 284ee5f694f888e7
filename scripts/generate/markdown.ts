/** Stands at the head of every generated page. */
export const MADE_BY = '<!-- Made by `npm run generate`; changes here are lost. -->'

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

/** A Markdown table, unpadded: pages of prose would be hundreds of columns wide. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.map(cell).join(' | ')} |`).join('\n')

/** Parts of a page with a blank line between them, and one newline at the end. */
export const page = (...parts: readonly string[]): string => `${parts.join('\n\n')}\n`
