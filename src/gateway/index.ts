export { MAX_BODY_BYTES } from './body.ts'
export { createBooks, settleOverdueCalls, type Books } from './books.ts'
export { createBreakers, type Breakers } from './breaker.ts'
export * from './budgets.ts'
export { createGateway, type GatewayOptions } from './gateway.ts'
export { createSettlements, type Settlements } from './settlements.ts'
export { refuse } from './refusals.ts'
export { createKeyHealth, type KeyHealth } from './key-health.ts'
export { pruneRecords, type Retention } from './retention.ts'
export {
  readChatUsage,
  readUsage,
  USAGE_GROUPS,
  type CallSums,
  type ChatUsage,
  type GroupedUsage,
  type UsageGroup,
  type UsageRequest,
} from './usage.ts'
