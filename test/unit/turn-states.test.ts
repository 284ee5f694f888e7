import { readFileSync } from 'node:fs'
import path from 'node:path'
import { turnStatesPage } from '../../scripts/generate/turn-states.ts'
import { CHAT_COMMANDS, TURN_MOVES, TURN_TRANSITIONS } from '../../src/chats/index.ts'
import { TURN_STATES } from '../../src/protocol/views.ts'

const file = path.resolve(import.meta.dirname, '../../docs/turn-states.md')

describe('docs/turn-states.md', () => {
  test('is what the tables in the code say', () => {
    expect(readFileSync(file, 'utf8')).toBe(turnStatesPage())
  })

  test('names every state, transition and command', () => {
    const page = turnStatesPage()
    for (const word of [...TURN_STATES, ...TURN_TRANSITIONS, ...CHAT_COMMANDS])
      expect(page).toContain(`\`${word}\``)
  })
})

describe('the table of turns', () => {
  test('lets terminal states absorb, failed but for reopen (I5)', () => {
    const { completed, interrupted, superseded, failed } = TURN_MOVES
    expect([completed, interrupted, superseded]).toEqual([{}, {}, {}])
    expect(failed).toEqual({ reopen: ['pending'] })
  })

  test('leads from every state that is not terminal to one that is', () => {
    const terminal = TURN_STATES.filter((state) => Object.keys(TURN_MOVES[state]).length === 0)
    for (const state of TURN_STATES) {
      const reached = new Set([state])
      for (const from of reached)
        for (const landings of Object.values(TURN_MOVES[from])) for (const to of landings) reached.add(to)
      expect(terminal.some((end) => reached.has(end))).toBe(true)
    }
  })
})
