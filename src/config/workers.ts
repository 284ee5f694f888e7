import { flag, integer } from './setting.ts'

/** How much one worker does at once, and what beside turns. */
export const WORKERS = {
  workerConcurrency: integer(
    {
      name: 'TURNMILL_WORKER_CONCURRENCY',
      default: '100',
      unit: 'turns',
      sentence: 'Turns that one worker process runs at once.',
    },
    1,
    10_000,
  ),
  auxiliaryConcurrency: integer(
    {
      name: 'TURNMILL_AUXILIARY_CONCURRENCY',
      default: '20',
      unit: 'runs',
      sentence: 'Titles and status labels that one worker process asks for at once.',
    },
    1,
    10_000,
  ),
  autoTitles: flag({
    name: 'TURNMILL_AUTO_TITLES',
    default: 'true',
    sentence:
      'Whether a chat that nobody has named gets a title from a model after its first answer, under the key of that turn. Read by workers.',
  }),
  statusLabels: flag({
    name: 'TURNMILL_STATUS_LABELS',
    default: 'false',
    sentence:
      'Whether a model is asked for a few words on what each turn is doing, under the key of that turn: one more model call per turn. Read by workers.',
  }),
}
