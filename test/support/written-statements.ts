import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'

const SOURCES = path.resolve(import.meta.dirname, '../../src')

/** From the call to the next one, or to an empty line: no statement has one within. */
const STATEMENT = /\bstatement\(\s*['"`]([^'"`]+)['"`](.*?)(?=\n\n|\bstatement\(|$)/gs

const WRITES = /\binsert into\b|\bdelete from\b|\bupdate\s+\w+(\s+\w+)?\s+set\b|\bturnmill_(admit|reserve)\(/

/** The names of all prepared statements in the sources that write, by their text. */
export function findWrites(): string[] {
  const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  )
  const statements = files.flatMap((file) => [
    ...readFileSync(path.join(SOURCES, file), 'utf8').matchAll(STATEMENT),
  ])
  return statements.flatMap(([, name = '', text = '']) => (WRITES.test(text) ? [name] : []))
}
