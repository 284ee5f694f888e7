import { quantile } from './statistics.ts'

/** A table in plain text: the first column to the left, the others to the right. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  const align = (row: readonly string[]): string =>
    widths.map((width, column) => pad(row[column] ?? '', width, column)).join('  ')
  const rule = widths.map((width) => '─'.repeat(width)).join('  ')
  return [align(header), rule, ...rows.map(align)].join('\n')
}

const pad = (text: string, width: number, column: number): string =>
  column === 0 ? text.padEnd(width) : text.padStart(width)

/** A number as a person reads it; `–` where there is none. */
export const shown = (value: number, digits = 0): string =>
  Number.isFinite(value) ? value.toFixed(digits) : '–'

export const DISTRIBUTION_HEADER = ['count', 'p50', 'p90', 'p99', 'max'] as const

/** The cells under that header. */
export const distributionCells = (values: readonly number[], digits = 0): string[] => [
  String(values.length),
  ...[0.5, 0.9, 0.99, 1].map((share) => shown(quantile(values, share), digits)),
]
