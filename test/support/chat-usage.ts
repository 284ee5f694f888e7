import type { ChatUsage } from '../../src/gateway/index.ts'
import type { TestUser } from './turnmill.ts'

/** What a chat has used, once all of its calls are settled. */
export async function settledUsage({ client }: TestUser, chatId: string): Promise<ChatUsage> {
  for (;;) {
    const { body } = await client.request<ChatUsage>('GET', `/v1/chats/${chatId}/usage`)
    if (body.calls.underWay === 0) return body
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
