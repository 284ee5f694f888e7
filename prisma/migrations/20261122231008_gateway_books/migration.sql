-- Why: what the gateway records of each call, and hard budgets

-- CreateTable
CREATE TABLE "interceptions" (
    "id" UUID NOT NULL,
    "api_key_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "provider_id" UUID NOT NULL,
    "provider" TEXT NOT NULL,
    "model" TEXT NOT NULL,
    "model_config_id" UUID,
    "purpose" TEXT NOT NULL,
    "chat_id" UUID,
    "turn_id" UUID,
    "step" INTEGER,
    "epoch" INTEGER,
    "attempt" INTEGER,
    "endpoint" TEXT NOT NULL,
    "streamed" BOOLEAN NOT NULL,
    "client" TEXT,
    "credential_kind" TEXT NOT NULL,
    "credential_hint" TEXT,
    "reserved_micros" BIGINT NOT NULL DEFAULT 0,
    "budget_windows" UUID[] DEFAULT ARRAY[]::UUID[],
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deadline_at" TIMESTAMPTZ(3) NOT NULL,
    "first_byte_at" TIMESTAMPTZ(3),
    "settled_at" TIMESTAMPTZ(3),
    "status" INTEGER,
    "error_code" TEXT,
    "estimated" BOOLEAN NOT NULL DEFAULT false,
    "cost_micros" BIGINT,

    CONSTRAINT "interceptions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "token_usages" (
    "interception_id" UUID NOT NULL,
    "input_tokens" BIGINT NOT NULL,
    "output_tokens" BIGINT NOT NULL,
    "cache_read_tokens" BIGINT NOT NULL,
    "cache_write_tokens" BIGINT NOT NULL,
    "reasoning_tokens" BIGINT NOT NULL,

    CONSTRAINT "token_usages_pkey" PRIMARY KEY ("interception_id")
);

-- CreateTable
CREATE TABLE "user_prompts" (
    "interception_id" UUID NOT NULL,
    "text" TEXT NOT NULL,

    CONSTRAINT "user_prompts_pkey" PRIMARY KEY ("interception_id")
);

-- CreateTable
CREATE TABLE "tool_usages" (
    "interception_id" UUID NOT NULL,
    "position" INTEGER NOT NULL,
    "call_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,

    CONSTRAINT "tool_usages_pkey" PRIMARY KEY ("interception_id","position")
);

-- CreateTable
CREATE TABLE "budgets" (
    "id" UUID NOT NULL,
    "subject" TEXT NOT NULL,
    "subject_id" UUID NOT NULL,
    "period" TEXT NOT NULL,
    "limit_micros" BIGINT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "budgets_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "budget_windows" (
    "id" UUID NOT NULL,
    "budget_id" UUID NOT NULL,
    "start" TIMESTAMPTZ(3) NOT NULL,
    "spent_micros" BIGINT NOT NULL DEFAULT 0,
    "reserved_micros" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "budget_windows_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "interceptions_api_key_id_started_at_idx" ON "interceptions"("api_key_id", "started_at");

-- CreateIndex
CREATE INDEX "interceptions_user_id_started_at_idx" ON "interceptions"("user_id", "started_at");

-- CreateIndex
CREATE INDEX "interceptions_turn_id_idx" ON "interceptions"("turn_id");

-- CreateIndex
CREATE UNIQUE INDEX "budgets_subject_subject_id_period_key" ON "budgets"("subject", "subject_id", "period");

-- CreateIndex
CREATE UNIQUE INDEX "budget_windows_budget_id_start_key" ON "budget_windows"("budget_id", "start");

-- AddForeignKey
ALTER TABLE "budget_windows" ADD CONSTRAINT "budget_windows_budget_id_fkey" FOREIGN KEY ("budget_id") REFERENCES "budgets"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "interceptions" ADD CONSTRAINT "interceptions_credential_kind_check" CHECK ("credential_kind" IN ('central', 'byok', 'none'));
ALTER TABLE "interceptions" ADD CONSTRAINT "interceptions_reserved_check" CHECK ("reserved_micros" >= 0);
ALTER TABLE "budgets" ADD CONSTRAINT "budgets_subject_check" CHECK (
    "subject" IN ('key', 'user', 'deployment') AND (("subject" = 'deployment') = ("subject_id" = '00000000-0000-0000-0000-000000000000')));
ALTER TABLE "budgets" ADD CONSTRAINT "budgets_period_check" CHECK ("period" IN ('day', 'month', 'total'));
ALTER TABLE "budgets" ADD CONSTRAINT "budgets_limit_check" CHECK ("limit_micros" >= 0);
ALTER TABLE "budget_windows" ADD CONSTRAINT "budget_windows_amounts_check" CHECK ("spent_micros" >= 0 AND "reserved_micros" >= 0);

-- What the reconciler looks for: calls that nobody has settled.
CREATE INDEX "interceptions_unsettled" ON "interceptions"("deadline_at") WHERE "settled_at" IS NULL;

-- When the present period of a budget began, in UTC.
CREATE FUNCTION "turnmill_window_start"("of_period" TEXT) RETURNS TIMESTAMPTZ LANGUAGE sql VOLATILE AS $$
    SELECT CASE "of_period" WHEN 'total' THEN TIMESTAMPTZ '1970-01-01 00:00:00Z'
        ELSE date_trunc("of_period", clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' END
$$;

-- Takes the worst case of a call out of every budget that it falls under, or out of none. Windows are locked in the order
-- key, user, deployment, so that two calls never wait for each other. "verdict" is null where it fits, else
-- `model_unpriced`, `budget_exceeded` (what is spent leaves too little) or `budget_busy` (only reservations are in the way).
CREATE FUNCTION "turnmill_reserve"("for_key" UUID, "for_user" UUID, "amount" BIGINT)
RETURNS TABLE ("verdict" TEXT, "windows" UUID[]) LANGUAGE plpgsql AS $$
DECLARE
    budget RECORD;
    started TIMESTAMPTZ;
    taken "budget_windows"%ROWTYPE;
BEGIN
    "windows" := '{}';
    FOR budget IN
        SELECT b."id", b."period", b."limit_micros" FROM "budgets" b
        WHERE (b."subject" = 'key' AND b."subject_id" = "for_key") OR (b."subject" = 'user' AND b."subject_id" = "for_user")
          OR b."subject" = 'deployment'
        ORDER BY CASE b."subject" WHEN 'key' THEN 1 WHEN 'user' THEN 2 ELSE 3 END, b."period"
        FOR KEY SHARE OF b
    LOOP
        IF "amount" IS NULL THEN
            "verdict" := 'model_unpriced';
            RETURN NEXT;
            RETURN;
        END IF;
        started := "turnmill_window_start"(budget."period");
        INSERT INTO "budget_windows" ("id", "budget_id", "start") VALUES (gen_random_uuid(), budget."id", started)
            ON CONFLICT DO NOTHING;
        SELECT * INTO taken FROM "budget_windows" w WHERE w."budget_id" = budget."id" AND w."start" = started FOR NO KEY UPDATE;
        IF taken."spent_micros" + "amount" > budget."limit_micros" THEN
            "verdict" := 'budget_exceeded';
        ELSIF "verdict" IS NULL AND taken."spent_micros" + taken."reserved_micros" + "amount" > budget."limit_micros" THEN
            "verdict" := 'budget_busy';
        END IF;
        "windows" := "windows" || taken."id";
    END LOOP;
    IF "verdict" IS NULL THEN
        UPDATE "budget_windows" w SET "reserved_micros" = w."reserved_micros" + "amount" WHERE w."id" = ANY("windows");
    ELSE
        "windows" := '{}';
    END IF;
    RETURN NEXT;
END $$;
