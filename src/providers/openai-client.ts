import OpenAI, { APIConnectionError, APIError } from 'openai'
import { bearer, clientOptions } from './connect.ts'
import type { ProviderConnection } from './contract.ts'
import type { SdkErrors } from './errors.ts'

export const openAiErrors: SdkErrors = { APIError, APIConnectionError }

/** A client for one call, for both of OpenAI's wire formats. */
export const createOpenAiClient = (connection: ProviderConnection, signal: AbortSignal): OpenAI =>
  new OpenAI({
    ...clientOptions(connection, bearer(connection), signal),
    // Null, not undefined: what is left out is read from the environment.
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
  })
