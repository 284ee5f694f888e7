-- Why: tools, subagents, purposes, images, MCP servers and recorded calls

-- AlterTable
ALTER TABLE "chats" ADD COLUMN     "debug_until" TIMESTAMPTZ(3),
ADD COLUMN     "fallback_title" TEXT,
ADD COLUMN     "status_label" TEXT;

-- DropIndex
-- Nobody asks for the calls of a turn; those of a chat are summed, and a turn's are among them.
DROP INDEX "interceptions_turn_id_idx";

-- AlterTable
ALTER TABLE "tool_calls" ADD COLUMN     "images" JSONB NOT NULL DEFAULT '[]';

-- CreateTable
CREATE TABLE "model_overrides" (
    "id" UUID NOT NULL,
    "purpose" TEXT NOT NULL,
    "user_id" UUID,
    "model_config_id" UUID NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "model_overrides_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "auxiliary_runs" (
    "id" UUID NOT NULL,
    "chat_id" UUID NOT NULL,
    "turn_id" UUID,
    "user_id" UUID NOT NULL,
    "purpose" TEXT NOT NULL,
    "api_key_id" UUID,
    "state" TEXT NOT NULL DEFAULT 'pending',
    "epoch" INTEGER NOT NULL DEFAULT 0,
    "lease_until" TIMESTAMPTZ(3),
    "enqueues" INTEGER NOT NULL DEFAULT 1,
    "takeovers" INTEGER NOT NULL DEFAULT 0,
    "job_attempts" INTEGER NOT NULL DEFAULT 0,
    "error" JSONB,
    "usage" JSONB,
    "cost_micros" BIGINT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "enqueued_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "auxiliary_runs_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "files" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "chat_id" UUID,
    "media_type" TEXT NOT NULL,
    "size" INTEGER NOT NULL,
    "content" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "seen_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "files_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "mcp_servers" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "url" TEXT NOT NULL,
    "enabled" BOOLEAN NOT NULL DEFAULT true,
    "headers" TEXT,
    "allow" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "deny" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "timeout_ms" INTEGER NOT NULL DEFAULT 30000,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "mcp_servers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "mcp_user_headers" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "server_id" UUID NOT NULL,
    "encrypted" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "mcp_user_headers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "debug_runs" (
    "id" UUID NOT NULL,
    "chat_id" UUID NOT NULL,
    "turn_id" UUID,
    "step" INTEGER,
    "attempt" INTEGER,
    "purpose" TEXT NOT NULL,
    "model_config_id" UUID,
    "request" JSONB NOT NULL,
    "response" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "debug_runs_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "model_overrides_user_id_idx" ON "model_overrides"("user_id");

-- CreateIndex
CREATE INDEX "model_overrides_model_config_id_idx" ON "model_overrides"("model_config_id");

-- CreateIndex
-- One for the deployment, too.
CREATE UNIQUE INDEX "model_overrides_purpose_user_id_key" ON "model_overrides"("purpose", "user_id") NULLS NOT DISTINCT;

-- CreateIndex
CREATE INDEX "interceptions_chat_id_started_at_idx" ON "interceptions"("chat_id", "started_at");

-- CreateIndex
CREATE INDEX "auxiliary_runs_chat_id_idx" ON "auxiliary_runs"("chat_id");

-- CreateIndex
CREATE INDEX "auxiliary_runs_api_key_id_idx" ON "auxiliary_runs"("api_key_id");

-- CreateIndex
CREATE UNIQUE INDEX "auxiliary_runs_turn_id_purpose_key" ON "auxiliary_runs"("turn_id", "purpose");

-- CreateIndex
CREATE INDEX "files_user_id_idx" ON "files"("user_id");

-- CreateIndex
CREATE INDEX "files_chat_id_idx" ON "files"("chat_id");

-- CreateIndex
CREATE UNIQUE INDEX "mcp_servers_name_key" ON "mcp_servers"("name");

-- CreateIndex
CREATE INDEX "mcp_user_headers_server_id_idx" ON "mcp_user_headers"("server_id");

-- CreateIndex
CREATE UNIQUE INDEX "mcp_user_headers_user_id_server_id_key" ON "mcp_user_headers"("user_id", "server_id");

-- CreateIndex
CREATE INDEX "debug_runs_chat_id_created_at_idx" ON "debug_runs"("chat_id", "created_at");

-- CreateIndex
CREATE INDEX "debug_runs_expires_at_idx" ON "debug_runs"("expires_at");

-- AddForeignKey
ALTER TABLE "model_overrides" ADD CONSTRAINT "model_overrides_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "model_overrides" ADD CONSTRAINT "model_overrides_model_config_id_fkey" FOREIGN KEY ("model_config_id") REFERENCES "model_configs"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_turn_id_fkey" FOREIGN KEY ("turn_id") REFERENCES "turns"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "files" ADD CONSTRAINT "files_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "files" ADD CONSTRAINT "files_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "mcp_user_headers" ADD CONSTRAINT "mcp_user_headers_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "mcp_user_headers" ADD CONSTRAINT "mcp_user_headers_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "mcp_servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "debug_runs" ADD CONSTRAINT "debug_runs_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "model_overrides" ADD CONSTRAINT "model_overrides_purpose_check" CHECK (
    "purpose" IN ('chat', 'title', 'quickgen', 'advisor', 'compaction', 'subagent_general', 'subagent_explore', 'computer_use'));
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_purpose_check" CHECK ("purpose" IN ('title', 'quickgen'));
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_state_check" CHECK ("state" IN ('pending', 'running', 'completed', 'failed'));
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_finished_check" CHECK (("finished_at" IS NOT NULL) = ("state" IN ('completed', 'failed')));
ALTER TABLE "auxiliary_runs" ADD CONSTRAINT "auxiliary_runs_lease_check" CHECK (("lease_until" IS NOT NULL) = ("state" = 'running'));
ALTER TABLE "files" ADD CONSTRAINT "files_media_type_check" CHECK ("media_type" IN ('image/png', 'image/jpeg', 'image/gif', 'image/webp'));
ALTER TABLE "files" ADD CONSTRAINT "files_size_check" CHECK ("size" = octet_length("content"));
ALTER TABLE "mcp_servers" ADD CONSTRAINT "mcp_servers_name_check" CHECK ("name" ~ '^[a-z0-9]+(-[a-z0-9]+)*$');
ALTER TABLE "mcp_servers" ADD CONSTRAINT "mcp_servers_timeout_check" CHECK ("timeout_ms" > 0);

-- What the reconciler looks for.
CREATE INDEX "auxiliary_runs_open" ON "auxiliary_runs"("enqueued_at") WHERE "state" IN ('pending', 'running');

-- Uploads that may be forgotten, and what names files: both are asked for a file at a time.
CREATE INDEX "files_uploads" ON "files"("seen_at") WHERE "chat_id" IS NULL;
CREATE INDEX "messages_images" ON "messages" USING GIN ("parts" jsonb_path_ops)
    WHERE "parts" @? '$[*] ? (@.type == "image" || exists(@.images))';
CREATE INDEX "queued_messages_images" ON "queued_messages" USING GIN ("parts" jsonb_path_ops)
    WHERE "parts" @? '$[*] ? (@.type == "image" || exists(@.images))';
-- What retention looks for.
CREATE INDEX "auxiliary_runs_finished" ON "auxiliary_runs"("finished_at") WHERE "finished_at" IS NOT NULL;
