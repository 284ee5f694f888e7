import { COMMANDS } from '../../src/cli.ts'
import { MADE_BY, page, table } from './markdown.ts'

/** `docs/cli.md` */
export const cliPage = (): string =>
  page(
    MADE_BY,
    '# The command line',
    'In a clone `node bin/turnmill.js <command>`, in the image `turnmill <command>`. Settings come from the environment ' +
      '([configuration](configuration.md)). Exit codes: 0 when done, 1 for a failure, 2 for a command that is not understood. ' +
      'Source: `COMMANDS` in `src/cli.ts`.',
    table(
      ['command', 'what it does'],
      Object.entries(COMMANDS).map(([name, { summary, details }]) => [
        `\`${name}\``,
        `${summary}. ${details}`,
      ]),
    ),
  )
