import { flag, integer, milliseconds, text } from './setting.ts'

/** The browsers of agents that use a computer. */
export const COMPUTER = {
  chromiumPath: text({
    name: 'TURNMILL_CHROMIUM_PATH',
    sentence:
      'The Chromium of agents that use a computer, such as `/usr/bin/chromium`. Without it there are none.',
  }),
  chromiumSandbox: flag({
    name: 'TURNMILL_CHROMIUM_SANDBOX',
    sentence:
      'Whether Chromium runs pages in its own sandbox, which takes user namespaces: a container may refuse them. On unless the worker runs as root, for whom Chromium has none.',
  }),
  computerWidth: integer(
    {
      name: 'TURNMILL_COMPUTER_WIDTH',
      default: '1280',
      unit: 'pixels',
      sentence: 'How wide the display is that an agent uses.',
    },
    320,
    3840,
  ),
  computerHeight: integer(
    {
      name: 'TURNMILL_COMPUTER_HEIGHT',
      default: '800',
      unit: 'pixels',
      sentence: 'How high that display is.',
    },
    240,
    2160,
  ),
  computerSessions: integer(
    {
      name: 'TURNMILL_COMPUTER_SESSIONS',
      default: '4',
      unit: 'displays',
      sentence:
        'Displays that one worker process has open at once; the one unused for longest makes room for the next.',
    },
    1,
    1000,
  ),
  computerIdleMs: milliseconds({
    name: 'TURNMILL_COMPUTER_IDLE_MS',
    default: '300000',
    sentence: 'How long a display stays open that its agent does not use.',
  }),
}
