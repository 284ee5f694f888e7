-- Why: the whole state machine: families, clear boundaries, waiting turns, tool results, spent usage of several steps, and idempotency keys.

-- DropForeignKey
ALTER TABLE "chats" DROP CONSTRAINT "chats_parent_id_fkey";

-- DropForeignKey
ALTER TABLE "chats" DROP CONSTRAINT "chats_root_id_fkey";

-- AlterTable
ALTER TABLE "chats" ADD COLUMN     "depth" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "spawned_by_turn_id" UUID;

-- AlterTable
ALTER TABLE "messages" ADD COLUMN     "boundary" TEXT;

-- AlterTable
ALTER TABLE "tool_calls" ADD COLUMN     "is_error" BOOLEAN NOT NULL DEFAULT false;

-- AlterTable
ALTER TABLE "turns" ADD COLUMN     "awaits" UUID[] DEFAULT ARRAY[]::UUID[];

-- CreateTable
CREATE TABLE "idempotency_keys" (
    "api_key_id" UUID NOT NULL,
    "key" TEXT NOT NULL,
    "request_hash" BYTEA NOT NULL,
    "status" INTEGER,
    "response" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "idempotency_keys_pkey" PRIMARY KEY ("api_key_id","key")
);

-- CreateIndex
CREATE INDEX "queued_messages_chat_id_idx" ON "queued_messages"("chat_id");

-- CreateIndex
CREATE INDEX "idempotency_keys_created_at_idx" ON "idempotency_keys"("created_at");

-- AddForeignKey
ALTER TABLE "chats" ADD CONSTRAINT "chats_parent_id_fkey" FOREIGN KEY ("parent_id") REFERENCES "chats"("id") ON DELETE NO ACTION ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "chats" ADD CONSTRAINT "chats_root_id_fkey" FOREIGN KEY ("root_id") REFERENCES "chats"("id") ON DELETE NO ACTION ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "chats" ADD CONSTRAINT "chats_depth_check" CHECK (("depth" = 0) = ("parent_id" IS NULL));
ALTER TABLE "messages" ADD CONSTRAINT "messages_boundary_check" CHECK ("boundary" IN ('clear', 'compaction'));
ALTER TABLE "turns" ADD CONSTRAINT "turns_deadline_check" CHECK (("deadline" IS NOT NULL) = ("state" IN ('requires_action', 'waiting')));
ALTER TABLE "turns" ADD CONSTRAINT "turns_awaits_check" CHECK (cardinality("awaits") = 0 OR "state" = 'waiting');
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_response_check" CHECK (("status" IS NULL) = ("response" IS NULL));

-- The results of a step are committed once, as its answer is.
DROP INDEX "messages_one_result_per_step";
CREATE UNIQUE INDEX "messages_one_result_per_step" ON "messages"("turn_id", "step", "role") WHERE "role" IN ('assistant', 'tool');
-- A slot is a count of these rows, whatever backlog stands behind them.
CREATE INDEX "turns_slots" ON "turns"("user_id", "pool")
    WHERE "state" IN ('running', 'interrupting') OR ("state" = 'pending' AND "admitted_at" IS NOT NULL);
-- What waits for a client or for subagents, by when it has waited long enough.
CREATE INDEX "turns_deadlines" ON "turns"("deadline") WHERE "state" IN ('requires_action', 'waiting');
-- Retention: what has left the queue.
CREATE INDEX "queued_messages_ended" ON "queued_messages"("updated_at") WHERE "state" <> 'queued';

-- A turn's usage is the sum of its steps and of the attempts that failed and cost all the same.
CREATE FUNCTION "turnmill_add_usage"("a" JSONB, "b" JSONB) RETURNS JSONB LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a IS NULL THEN b WHEN b IS NULL THEN a ELSE jsonb_build_object(
        'inputTokens', (a->>'inputTokens')::bigint + (b->>'inputTokens')::bigint,
        'outputTokens', (a->>'outputTokens')::bigint + (b->>'outputTokens')::bigint,
        'cacheReadTokens', (a->>'cacheReadTokens')::bigint + (b->>'cacheReadTokens')::bigint,
        'cacheWriteTokens', (a->>'cacheWriteTokens')::bigint + (b->>'cacheWriteTokens')::bigint,
        'reasoningTokens', (a->>'reasoningTokens')::bigint + (b->>'reasoningTokens')::bigint,
        'estimated', (a->>'estimated')::boolean OR (b->>'estimated')::boolean) END
$$;

-- Watchers are told of an attempt that failed and is tried again.
DROP TRIGGER "turns_stamp_update" ON "turns";
CREATE TRIGGER "turns_stamp_update" BEFORE UPDATE OF "state", "retry_state" ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
DROP TRIGGER "turns_touch_update" ON "turns";
CREATE TRIGGER "turns_touch_update" AFTER UPDATE OF "state", "retry_state" ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_touch_chat"();
