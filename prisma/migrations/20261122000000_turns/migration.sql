-- Why: the first tables: who calls (users, API keys), what is called (providers, credentials, model configs), and the
-- chats with their messages, queued messages, turns and tool calls. All columns that the fence, admission, numbering
-- and the jobs need are here from the start, since they shape every later statement.

CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "email" TEXT,
    "role" TEXT NOT NULL DEFAULT 'member',
    "status" TEXT NOT NULL DEFAULT 'active',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "users_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "users_role_check" CHECK ("role" IN ('admin', 'member')),
    CONSTRAINT "users_status_check" CHECK ("status" IN ('active', 'suspended', 'deleted'))
);
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");

CREATE TABLE "api_keys" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "secret_hash" BYTEA NOT NULL,
    "scopes" TEXT[],
    "expires_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),
    "last_used_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "api_keys_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "api_keys_secret_hash_check" CHECK (octet_length("secret_hash") = 32),
    CONSTRAINT "api_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "api_keys_user_id_idx" ON "api_keys"("user_id");

CREATE TABLE "providers" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "type" TEXT NOT NULL,
    "base_url" TEXT NOT NULL,
    "enabled" BOOLEAN NOT NULL DEFAULT true,
    "allow_byok" BOOLEAN NOT NULL DEFAULT false,
    "attribution" BOOLEAN NOT NULL DEFAULT false,
    "extra_headers" JSONB NOT NULL DEFAULT '{}',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "providers_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "providers_name_check" CHECK ("name" ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
    CONSTRAINT "providers_type_check" CHECK ("type" IN ('openai', 'anthropic', 'openai-compatible'))
);
CREATE UNIQUE INDEX "providers_name_key" ON "providers"("name");

CREATE TABLE "provider_keys" (
    "id" UUID NOT NULL,
    "provider_id" UUID NOT NULL,
    "position" INTEGER NOT NULL,
    "encrypted" TEXT NOT NULL,
    "hint" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "provider_keys_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "provider_keys_provider_id_fkey" FOREIGN KEY ("provider_id") REFERENCES "providers"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "provider_keys_provider_id_position_key" ON "provider_keys"("provider_id", "position");

CREATE TABLE "user_provider_keys" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "provider_id" UUID NOT NULL,
    "encrypted" TEXT NOT NULL,
    "hint" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "user_provider_keys_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "user_provider_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "user_provider_keys_provider_id_fkey" FOREIGN KEY ("provider_id") REFERENCES "providers"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "user_provider_keys_user_id_provider_id_key" ON "user_provider_keys"("user_id", "provider_id");
CREATE INDEX "user_provider_keys_provider_id_idx" ON "user_provider_keys"("provider_id");

CREATE TABLE "model_configs" (
    "id" UUID NOT NULL,
    "provider_id" UUID,
    "model" TEXT NOT NULL,
    "display_name" TEXT NOT NULL,
    "enabled" BOOLEAN NOT NULL DEFAULT true,
    "is_default" BOOLEAN NOT NULL DEFAULT false,
    "context_window" INTEGER,
    "max_output_tokens" INTEGER,
    "options" JSONB NOT NULL DEFAULT '{}',
    "input_price_micros" BIGINT,
    "output_price_micros" BIGINT,
    "cache_read_price_micros" BIGINT,
    "cache_write_price_micros" BIGINT,
    "compaction_threshold" INTEGER,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "model_configs_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "model_configs_limits_check" CHECK ("context_window" > 0 AND "max_output_tokens" > 0),
    CONSTRAINT "model_configs_compaction_threshold_check" CHECK ("compaction_threshold" BETWEEN 1 AND 100),
    CONSTRAINT "model_configs_prices_check" CHECK (least("input_price_micros", "output_price_micros", "cache_read_price_micros", "cache_write_price_micros") >= 0),
    CONSTRAINT "model_configs_provider_id_fkey" FOREIGN KEY ("provider_id") REFERENCES "providers"("id") ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX "model_configs_provider_id_idx" ON "model_configs"("provider_id");
CREATE UNIQUE INDEX "model_configs_one_default" ON "model_configs"("is_default") WHERE "is_default";

CREATE TABLE "chats" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "parent_id" UUID,
    "root_id" UUID NOT NULL,
    "title" TEXT,
    "status" TEXT NOT NULL DEFAULT 'idle',
    "active_turn_id" UUID,
    "last_turn_id" UUID,
    "archived_at" TIMESTAMPTZ(3),
    "model_config_id" UUID,
    "labels" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "system_prompt" TEXT,
    "client_tools" JSONB NOT NULL DEFAULT '[]',
    "subagent_type" TEXT,
    "last_error" JSONB,
    "snapshot_version" BIGINT NOT NULL DEFAULT 1,
    "history_version" BIGINT NOT NULL DEFAULT 1,
    "queue_version" BIGINT NOT NULL DEFAULT 1,
    "snapshot_xid" BIGINT NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "chats_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "chats_status_check" CHECK ("status" IN ('idle', 'failed', 'pending', 'running', 'interrupting', 'requires_action', 'waiting')),
    CONSTRAINT "chats_active_turn_check" CHECK (("active_turn_id" IS NULL) = ("status" IN ('idle', 'failed'))),
    CONSTRAINT "chats_archived_check" CHECK ("archived_at" IS NULL OR "active_turn_id" IS NULL),
    CONSTRAINT "chats_last_error_check" CHECK (("last_error" IS NOT NULL) = ("status" = 'failed')),
    CONSTRAINT "chats_family_check" CHECK (("parent_id" IS NULL) = ("root_id" = "id")),
    CONSTRAINT "chats_subagent_type_check" CHECK ("subagent_type" IN ('general', 'explore', 'computer_use')),
    CONSTRAINT "chats_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE,
    CONSTRAINT "chats_parent_id_fkey" FOREIGN KEY ("parent_id") REFERENCES "chats"("id") ON DELETE SET NULL ON UPDATE CASCADE,
    CONSTRAINT "chats_root_id_fkey" FOREIGN KEY ("root_id") REFERENCES "chats"("id") ON DELETE RESTRICT ON UPDATE CASCADE,
    CONSTRAINT "chats_model_config_id_fkey" FOREIGN KEY ("model_config_id") REFERENCES "model_configs"("id") ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX "chats_user_id_id_idx" ON "chats"("user_id", "id");
CREATE INDEX "chats_parent_id_idx" ON "chats"("parent_id");
CREATE INDEX "chats_root_id_idx" ON "chats"("root_id");

CREATE TABLE "messages" (
    "id" BIGSERIAL NOT NULL,
    "chat_id" UUID NOT NULL,
    "turn_id" UUID,
    "step" INTEGER NOT NULL DEFAULT 0,
    "role" TEXT NOT NULL,
    "parts" JSONB NOT NULL,
    "visibility" TEXT NOT NULL DEFAULT 'both',
    "compressed" BOOLEAN NOT NULL DEFAULT false,
    "deleted_at" TIMESTAMPTZ(3),
    "revision" BIGINT NOT NULL DEFAULT 0,
    "api_key_id" UUID,
    "queued_message_id" BIGINT,
    "created_by" UUID,
    "model_config_id" UUID,
    "finish_reason" TEXT,
    "usage" JSONB,
    "cost_micros" BIGINT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "messages_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "messages_role_check" CHECK ("role" IN ('user', 'assistant', 'tool', 'system')),
    CONSTRAINT "messages_visibility_check" CHECK ("visibility" IN ('user', 'model', 'both')),
    CONSTRAINT "messages_parts_check" CHECK (jsonb_typeof("parts") = 'array'),
    CONSTRAINT "messages_step_check" CHECK ("step" >= 0),
    CONSTRAINT "messages_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "messages_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX "messages_chat_id_id_idx" ON "messages"("chat_id", "id");
CREATE INDEX "messages_api_key_id_idx" ON "messages"("api_key_id");
-- I2: at most one committed assistant result per (turn, step).
CREATE UNIQUE INDEX "messages_one_result_per_step" ON "messages"("turn_id", "step", "role") WHERE "role" = 'assistant';

CREATE TABLE "queued_messages" (
    "id" BIGSERIAL NOT NULL,
    "chat_id" UUID NOT NULL,
    "position" BIGINT NOT NULL,
    "parts" JSONB NOT NULL,
    "api_key_id" UUID,
    "created_by" UUID,
    "model_config_id" UUID,
    "reasoning_effort" TEXT,
    "state" TEXT NOT NULL DEFAULT 'queued',
    "revision" BIGINT NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "queued_messages_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "queued_messages_state_check" CHECK ("state" IN ('queued', 'promoted', 'deleted', 'superseded')),
    CONSTRAINT "queued_messages_parts_check" CHECK (jsonb_typeof("parts") = 'array'),
    CONSTRAINT "queued_messages_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "queued_messages_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX "queued_messages_api_key_id_idx" ON "queued_messages"("api_key_id");
CREATE INDEX "queued_messages_queue" ON "queued_messages"("chat_id", "position", "id") WHERE "state" = 'queued';

CREATE TABLE "turns" (
    "id" UUID NOT NULL,
    "chat_id" UUID NOT NULL,
    "number" INTEGER NOT NULL,
    "user_id" UUID NOT NULL,
    "pool" TEXT NOT NULL DEFAULT 'root',
    "trigger" TEXT NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'pending',
    "epoch" INTEGER NOT NULL DEFAULT 0,
    "lease_until" TIMESTAMPTZ(3),
    "api_key_id" UUID,
    "user_message_id" BIGINT,
    "model_config_id" UUID,
    "reasoning_effort" TEXT,
    "admitted_at" TIMESTAMPTZ(3),
    "not_before" TIMESTAMPTZ(3),
    "deadline" TIMESTAMPTZ(3),
    "enqueues" INTEGER NOT NULL DEFAULT 0,
    "job_id" TEXT,
    "job_attempts" INTEGER NOT NULL DEFAULT 0,
    "takeovers" INTEGER NOT NULL DEFAULT 0,
    "running_ms" BIGINT NOT NULL DEFAULT 0,
    "retry_state" JSONB,
    "error" JSONB,
    "usage" JSONB,
    "cost_micros" BIGINT,
    "revision" BIGINT NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "enqueued_at" TIMESTAMPTZ(3),
    "claimed_at" TIMESTAMPTZ(3),
    "first_part_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),
    CONSTRAINT "turns_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "turns_number_check" CHECK ("number" > 0),
    CONSTRAINT "turns_pool_check" CHECK ("pool" IN ('root', 'subagent')),
    CONSTRAINT "turns_trigger_check" CHECK ("trigger" IN ('create', 'send', 'edit', 'promote', 'subagent', 'compact', 'retry')),
    CONSTRAINT "turns_state_check" CHECK ("state" IN ('pending', 'running', 'interrupting', 'requires_action', 'waiting', 'completed', 'failed', 'interrupted', 'superseded')),
    CONSTRAINT "turns_finished_check" CHECK (("finished_at" IS NOT NULL) = ("state" IN ('completed', 'failed', 'interrupted', 'superseded'))),
    CONSTRAINT "turns_lease_check" CHECK (("lease_until" IS NOT NULL) = ("state" IN ('running', 'interrupting'))),
    CONSTRAINT "turns_error_check" CHECK (("error" IS NOT NULL) = ("state" = 'failed')),
    CONSTRAINT "turns_job_check" CHECK ("admitted_at" IS NULL OR "job_id" IS NOT NULL),
    CONSTRAINT "turns_chat_id_fkey" FOREIGN KEY ("chat_id") REFERENCES "chats"("id") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "turns_api_key_id_fkey" FOREIGN KEY ("api_key_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "turns_chat_id_number_key" ON "turns"("chat_id", "number");
CREATE INDEX "turns_api_key_id_idx" ON "turns"("api_key_id");
-- I3: at most one active turn per chat.
CREATE UNIQUE INDEX "turns_one_active_per_chat" ON "turns"("chat_id") WHERE "state" IN ('pending', 'running', 'interrupting', 'requires_action', 'waiting');
-- Admission counts and picks in here; the reconciler reads it too.
CREATE INDEX "turns_admission" ON "turns"("user_id", "pool", "created_at", "id") WHERE "state" IN ('pending', 'running', 'interrupting');

CREATE TABLE "tool_calls" (
    "id" UUID NOT NULL,
    "turn_id" UUID NOT NULL,
    "step" INTEGER NOT NULL,
    "call_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "input" JSONB NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'requested',
    "output" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),
    CONSTRAINT "tool_calls_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "tool_calls_state_check" CHECK ("state" IN ('requested', 'awaiting_client', 'awaiting_approval', 'approved', 'started', 'done', 'denied', 'unknown')),
    CONSTRAINT "tool_calls_finished_check" CHECK (("finished_at" IS NOT NULL) = ("state" IN ('done', 'denied', 'unknown'))),
    CONSTRAINT "tool_calls_turn_id_fkey" FOREIGN KEY ("turn_id") REFERENCES "turns"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "tool_calls_turn_id_call_id_key" ON "tool_calls"("turn_id", "call_id");

-- Unlogged: a crash of Postgres may empty it, and the committed message replaces what it held.
CREATE UNLOGGED TABLE "stream_parts" (
    "id" BIGSERIAL NOT NULL,
    "chat_id" UUID NOT NULL,
    "turn" INTEGER NOT NULL,
    "step" INTEGER NOT NULL,
    "epoch" INTEGER NOT NULL,
    "attempt" INTEGER NOT NULL,
    "seq" INTEGER NOT NULL,
    "entry" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "stream_parts_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "stream_parts_chat_id_id_idx" ON "stream_parts"("chat_id", "id");
CREATE INDEX "stream_parts_created_at_idx" ON "stream_parts"("created_at");

-- Versions. A transaction that changes what a watcher sees advances its chat's snapshot_version once; every message,
-- queued message and turn it changes carries that version as its revision.

CREATE FUNCTION "turnmill_xid"() RETURNS BIGINT LANGUAGE sql VOLATILE AS $$ SELECT pg_current_xact_id()::text::bigint $$;

CREATE FUNCTION "turnmill_advance_snapshot"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW."snapshot_version" := OLD."snapshot_version";
        IF OLD."snapshot_xid" <> "turnmill_xid"() THEN
            NEW."snapshot_version" := OLD."snapshot_version" + 1;
        END IF;
        NEW."updated_at" := clock_timestamp();
    END IF;
    NEW."snapshot_xid" := "turnmill_xid"();
    RETURN NEW;
END $$;
CREATE TRIGGER "chats_advance_snapshot" BEFORE INSERT OR UPDATE ON "chats"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_advance_snapshot"();

-- Within one statement the chat may be stamped before or after this row, or not be visible yet: all three give the
-- version that the transaction ends with.
CREATE FUNCTION "turnmill_stamp_revision"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    version BIGINT;
    xid BIGINT;
BEGIN
    SELECT "snapshot_version", "snapshot_xid" INTO version, xid FROM "chats" WHERE "id" = NEW."chat_id";
    NEW."revision" := CASE WHEN xid = "turnmill_xid"() THEN version ELSE coalesce(version, 0) + 1 END;
    RETURN NEW;
END $$;
CREATE TRIGGER "messages_stamp_insert" BEFORE INSERT ON "messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
CREATE TRIGGER "messages_stamp_update" BEFORE UPDATE OF "parts", "visibility", "compressed", "deleted_at" ON "messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
CREATE TRIGGER "queued_messages_stamp_insert" BEFORE INSERT ON "queued_messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
CREATE TRIGGER "queued_messages_stamp_update" BEFORE UPDATE OF "parts", "position", "state" ON "queued_messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
CREATE TRIGGER "turns_stamp_insert" BEFORE INSERT ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();
CREATE TRIGGER "turns_stamp_update" BEFORE UPDATE OF "state" ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_stamp_revision"();

-- A writer that left the chat's own row alone advances it all the same.
CREATE FUNCTION "turnmill_touch_chat"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE "chats" SET "snapshot_xid" = "snapshot_xid" WHERE "id" = NEW."chat_id" AND "snapshot_xid" <> "turnmill_xid"();
    RETURN NULL;
END $$;
CREATE TRIGGER "messages_touch_insert" AFTER INSERT ON "messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_touch_chat"();
CREATE TRIGGER "messages_touch_update" AFTER UPDATE OF "parts", "visibility", "compressed", "deleted_at" ON "messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_touch_chat"();
CREATE TRIGGER "turns_touch_insert" AFTER INSERT ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_touch_chat"();
CREATE TRIGGER "turns_touch_update" AFTER UPDATE OF "state" ON "turns"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_touch_chat"();

CREATE FUNCTION "turnmill_advance_history"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE "chats" SET "history_version" = "history_version" + 1 WHERE "id" IN (
        SELECT n."chat_id" FROM "new_rows" n JOIN "old_rows" o ON o."id" = n."id"
        WHERE n."deleted_at" IS DISTINCT FROM o."deleted_at");
    RETURN NULL;
END $$;
CREATE TRIGGER "messages_advance_history" AFTER UPDATE ON "messages"
    REFERENCING NEW TABLE AS "new_rows" OLD TABLE AS "old_rows"
    FOR EACH STATEMENT EXECUTE FUNCTION "turnmill_advance_history"();

CREATE FUNCTION "turnmill_advance_queue"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE "chats" SET "queue_version" = "queue_version" + 1 WHERE "id" = NEW."chat_id";
    RETURN NULL;
END $$;
CREATE TRIGGER "queued_messages_advance_insert" AFTER INSERT ON "queued_messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_advance_queue"();
CREATE TRIGGER "queued_messages_advance_update" AFTER UPDATE OF "parts", "position", "state" ON "queued_messages"
    FOR EACH ROW EXECUTE FUNCTION "turnmill_advance_queue"();

-- Admits the oldest waiting turns of a user's pool up to the limit of running ones, and names the job of each.
-- A slot is a count of rows, so that nothing can leak one. Runs last in every transaction that makes a turn pending or
-- takes one out of running: after the chat's lock, and after it nothing else is locked.
CREATE FUNCTION "turnmill_admit"("for_user" UUID, "for_pool" TEXT, "slots" INTEGER)
RETURNS TABLE ("turn_id" UUID, "chat_id" UUID, "api_key_id" UUID, "trigger" TEXT, "job_id" TEXT) LANGUAGE plpgsql AS $$
DECLARE
    free INTEGER;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('turnmill admit ' || "for_user" || ' ' || "for_pool", 0));
    SELECT "slots" - count(*) INTO free FROM "turns" t
        WHERE t."user_id" = "for_user" AND t."pool" = "for_pool"
          AND (t."state" IN ('running', 'interrupting') OR (t."state" = 'pending' AND t."admitted_at" IS NOT NULL));
    IF free <= 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        WITH "chosen" AS (
            SELECT t."id" FROM "turns" t
            WHERE t."user_id" = "for_user" AND t."pool" = "for_pool" AND t."state" = 'pending' AND t."admitted_at" IS NULL
              AND (t."not_before" IS NULL OR t."not_before" <= clock_timestamp())
            ORDER BY t."created_at", t."id" LIMIT free FOR UPDATE SKIP LOCKED)
        UPDATE "turns" t SET "admitted_at" = clock_timestamp(), "enqueued_at" = clock_timestamp(), "enqueues" = t."enqueues" + 1,
            "job_id" = 'turn-' || t."id" || '-' || (t."enqueues" + 1)
        FROM "chosen" WHERE t."id" = "chosen"."id"
        RETURNING t."id", t."chat_id", t."api_key_id", t."trigger", t."job_id";
END $$;
