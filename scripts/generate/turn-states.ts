import {
  CHAT_COMMANDS,
  CHAT_MOVES,
  EFFECTS,
  TURN_MOVES,
  TURN_TRANSITION_MEANINGS,
  TURN_TRANSITIONS,
  type ChatMove,
} from '../../src/chats/index.ts'
import { TURN_STATES, type TurnState } from '../../src/protocol/views.ts'
import { MADE_BY, page, table } from './markdown.ts'

const code = (word: string): string => `\`${word}\``

const TERMINAL: readonly TurnState[] = ['completed', 'failed', 'interrupted', 'superseded']

/** From → to, with all transitions that lead there, in the order of the states. */
function edges(): string[] {
  return TURN_STATES.flatMap((from) =>
    TURN_STATES.flatMap((to) => {
      const names = TURN_TRANSITIONS.filter((transition) => TURN_MOVES[from][transition]?.includes(to))
      return names.length === 0 ? [] : [`  ${from} --> ${to}: ${names.join(', ')}`]
    }),
  )
}

const diagram = (): string =>
  [
    '```mermaid',
    'stateDiagram-v2',
    '  [*] --> pending: create, send, edit, promote, retry, spawn',
    ...edges(),
    ...TERMINAL.map((state) => `  ${state} --> [*]`),
    '```',
  ].join('\n')

const turnTable = (): string =>
  table(
    ['transition', 'from → to', 'what it is'],
    TURN_TRANSITIONS.map((transition) => [
      code(transition),
      TURN_STATES.flatMap((from) => {
        const to = TURN_MOVES[from][transition]
        return to === undefined ? [] : [`${code(from)} → ${to.map(code).join(' or ')}`]
      }).join('<br>'),
      TURN_TRANSITION_MEANINGS[transition],
    ]),
  )

const queueOf = ({ queue }: ChatMove): string => queue ?? 'any'

const archivedOf = ({ archived = false }: ChatMove): string =>
  archived === 'either' ? 'either' : archived ? 'yes' : 'no'

const chatTable = (): string =>
  table(
    ['command', 'from', 'queue', 'archived', 'to', 'does, in this order'],
    CHAT_COMMANDS.flatMap((command) =>
      CHAT_MOVES[command].map((move) => [
        code(command),
        move.from.map(code).join(' '),
        queueOf(move),
        archivedOf(move),
        move.to === 'same' ? 'same' : code(move.to),
        move.does.map(code).join(' '),
      ]),
    ),
  )

/** `docs/turn-states.md` */
export const turnStatesPage = (): string =>
  page(
    MADE_BY,
    '# States of turns and chats',
    'A turn is the work that one user message starts. A chat shows the state of its active turn; without one it is `idle`, or ' +
      '`failed` if its last turn failed. Both tables are data in the code (`TURN_MOVES` in `src/chats/states.ts`, `CHAT_MOVES` in ' +
      '`src/chats/moves.ts`) and are asked under the row lock of the chat. What they do not hold is refused with `move_refused`, ' +
      '`chat_busy`, `chat_archived` or `not_waiting`, or, for a worker, with `turn_fenced`, and changes no row; ' +
      '`test/integration/turn-states.test.ts` walks every cell of both.',
    '## Turns',
    diagram(),
    'A worker’s writes (`claim` to `fail`, and `finishInterrupt`) also need the epoch that its claim was given.',
    turnTable(),
    '## Chats',
    'A turn that ends as completed or interrupted lets the head of the queue follow at once: its chat is `pending` again, or `idle` ' +
      'where the queue is empty. A chat that failed keeps its queue until somebody sends, promotes or retries.',
    chatTable(),
    'What commands are made of:',
    table(
      ['effect', 'what it does'],
      Object.entries(EFFECTS).map(([effect, meaning]) => [code(effect), meaning]),
    ),
  )
