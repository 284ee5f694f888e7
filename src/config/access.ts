import { API_KEY_FORM, parseEncryptionKeys } from '../protocol/secret-forms.ts'
import { flag, secret, secretBytes } from './setting.ts'

/** The secrets of a deployment, who gets in, and which ways lead out. */
export const ACCESS = {
  bootstrapApiKey: secret(
    {
      name: 'TURNMILL_BOOTSTRAP_API_KEY',
      sentence:
        'The first admin key, `tm_<id>_<secret>`. Made and printed by `npm start` where it is not set. How it is replaced: docs/guide.md.',
    },
    {
      expected: '`tm_<32 hex digits>_<43 characters of base64url>`',
      fits: (value) => API_KEY_FORM.test(value),
    },
  ),
  apiKeyPepper: secretBytes({
    name: 'TURNMILL_API_KEY_PEPPER',
    sentence:
      'The key under which API keys are hashed, 32 random bytes in base64. Changing it invalidates every API key.',
  }),
  encryptionKeys: secret(
    {
      name: 'TURNMILL_ENCRYPTION_KEYS',
      sentence: 'Encrypts provider credentials. The first key encrypts, all decrypt.',
    },
    {
      expected: '`<id>:<32 bytes in base64>`, several separated by commas',
      fits: (value) => {
        const keys = parseEncryptionKeys(value)
        return keys.length > 0 && !keys.includes(null)
      },
    },
  ),
  gatewayRouting: flag({
    name: 'TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED',
    default: 'true',
    sentence:
      'Whether model calls go through the AI gateway, which demands a key ID, or straight to the provider.',
  }),
  allowPrivateProviders: flag({
    name: 'TURNMILL_ALLOW_PRIVATE_PROVIDERS',
    sentence:
      'Whether providers may be reached without https and at private, loopback and link-local addresses: for upstreams of your own. Off unless API and worker run in one process (`turnmill start`).',
  }),
  bullBoard: flag({
    name: 'TURNMILL_BULL_BOARD_ENABLED',
    default: 'false',
    sentence:
      'Whether the API shows admins the queue at `/admin/queues` (Bull Board), and lets them retry failed jobs.',
  }),
}
