import { BUILTIN_TOOLS, type BuiltinTool } from '../protocol/tools.ts'
import { choices, flag, integer, milliseconds, text } from './setting.ts'

/** Which tools models are given, and what one call of them may be. */
export const TOOLS = {
  toolTimeoutMs: milliseconds({
    name: 'TURNMILL_TOOL_TIMEOUT_MS',
    default: '60000',
    sentence: 'Longest call of a tool that names no time of its own.',
  }),
  toolOutputBytes: integer(
    {
      name: 'TURNMILL_TOOL_OUTPUT_BYTES',
      default: '262144',
      unit: 'bytes',
      sentence: 'The longest output of a tool that is kept and shown to the model; the rest is cut off.',
    },
    1024,
    16 * 1024 * 1024,
  ),
  builtinTools: choices<BuiltinTool>(
    {
      name: 'TURNMILL_BUILTIN_TOOLS',
      default: 'all',
      sentence: `Which of the built-in tools models are given: \`all\`, \`none\`, or some of ${BUILTIN_TOOLS.map((name) => `\`${name}\``).join(', ')}, separated by commas.`,
    },
    BUILTIN_TOOLS,
  ),
  allowPrivateWebFetch: flag({
    name: 'TURNMILL_ALLOW_PRIVATE_WEB_FETCH',
    default: 'false',
    sentence:
      'Whether the tool `web_fetch` and the browsers of agents may fetch without https and from private, loopback and link-local addresses. Where they fetch from is decided by whatever a model has read.',
  }),
  toolsModule: text({
    name: 'TURNMILL_TOOLS_MODULE',
    sentence:
      'A module whose default export is a tool, an array of tools, or a function that gives one: a path, absolute or relative to the working directory, of a .js or erasable .ts file.',
  }),
}
