import { styleText } from 'node:util'

/** Lines are no longer than this, in characters. */
const WIDTH = 96
const INDENT = '  '
/** Where text begins, behind the label of its line. */
const TEXT_COLUMN = 14

type Style = Parameters<typeof styleText>[0]

/** Colours only where standard output is a terminal that wants them. */
const styled = (style: Style, text: string): string => styleText(style, text, { stream: process.stdout })

/** Words that arrive in pieces, wrapped as they come. */
export interface Paragraph {
  write(text: string): void
  end(): void
}

/** What the demo says, line by line, on standard output. */
export const terminal = {
  heading: (text: string): void => print(`\n${styled('bold', text)}\n`, ''),

  blank: (): void => print('', ''),

  /** A line of narration. */
  say: (text: string): void => print(wrap(text, INDENT.length).join(`\n${INDENT}`)),

  /** A labelled line: `queue         one message waits`. */
  tell: (label: string, text: string): void => {
    const [first = '', ...rest] = wrap(text, TEXT_COLUMN)
    print([labelled(label) + first, ...rest.map((line) => ' '.repeat(TEXT_COLUMN) + line)].join('\n'), '')
  },

  /** A labelled text whose end is not known yet. */
  paragraph: (label: string): Paragraph => {
    process.stdout.write(labelled(label))
    let column = TEXT_COLUMN
    let unwritten = ''
    const writeWord = (word: string): void => {
      if (column + word.trimEnd().length > WIDTH) {
        process.stdout.write(`\n${' '.repeat(TEXT_COLUMN)}`)
        column = TEXT_COLUMN
      }
      process.stdout.write(word)
      column += word.length
    }
    return {
      write: (text) => {
        const words = (unwritten + text).split(/(?<=\s)/)
        unwritten = words.pop() ?? ''
        words.forEach(writeWord)
      },
      end: () => {
        writeWord(unwritten)
        process.stdout.write('\n')
      },
    }
  },

  /** Columns as wide as their widest cell; a row that is not right is marked. */
  table: (head: readonly string[], rows: readonly { cells: readonly string[]; right: boolean }[]): void => {
    const widths = head.map((title, column) =>
      Math.max(title.length, ...rows.map(({ cells }) => (cells[column] ?? '').length)),
    )
    const line = (cells: readonly string[]): string =>
      cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')
    print(styled('dim', line(head).trimEnd()))
    for (const { cells, right } of rows) print(styled(right ? 'green' : 'red', line(cells).trimEnd()))
  },
}

const print = (text: string, indent = INDENT): void => void process.stdout.write(`${indent}${text}\n`)

const labelled = (label: string): string => styled('cyan', `${INDENT}${label}`.padEnd(TEXT_COLUMN))

function wrap(text: string, indent: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`
    if (longer.length <= WIDTH - indent) line = longer
    else {
      lines.push(line)
      line = word
    }
  }
  return [...lines, line]
}
