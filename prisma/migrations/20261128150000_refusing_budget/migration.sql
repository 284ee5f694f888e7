-- Why: a refusal says which budget it is that a call does not fit into, what is left of it and when its period ends

DROP FUNCTION "turnmill_reserve"(UUID[], UUID[], UUID[], BIGINT[]);

-- Takes the worst case of each call out of every budget that it falls under, or out of none. The windows of all of them are
-- locked in the order key, user, deployment, then by subject and period, so that two processes never wait for each other.
-- Budgets themselves are not locked: whoever deletes one has to have its windows. A call whose "verdict" is null fits,
-- else it is `model_unpriced`, `budget_exceeded` (what is spent leaves too little) or `budget_busy` (only reservations are
-- in the way), and "refused_by" tells the first budget of that verdict; those before it in the arrays come first.
CREATE FUNCTION "turnmill_reserve"("for_calls" UUID[], "for_keys" UUID[], "for_users" UUID[], "amounts" BIGINT[])
RETURNS TABLE ("call" UUID, "verdict" TEXT, "windows" UUID[], "refused_by" JSONB) LANGUAGE plpgsql AS $$
DECLARE
    budget RECORD;
    started TIMESTAMPTZ;
    taken "budget_windows"%ROWTYPE;
    ids UUID[] := '{}';
    budget_ids UUID[] := '{}';
    periods TEXT[] := '{}';
    starts TIMESTAMPTZ[] := '{}';
    subjects TEXT[] := '{}';
    subject_ids UUID[] := '{}';
    limits BIGINT[] := '{}';
    spent BIGINT[] := '{}';
    reserved BIGINT[] := '{}';
    own INT[];
    amount BIGINT;
    refusing INT;
    k INT;
BEGIN
    FOR budget IN
        SELECT b."id", b."subject", b."subject_id", b."period", b."limit_micros" FROM "budgets" b
        WHERE (b."subject" = 'key' AND b."subject_id" = ANY("for_keys")) OR (b."subject" = 'user' AND b."subject_id" = ANY("for_users"))
          OR b."subject" = 'deployment'
        ORDER BY CASE b."subject" WHEN 'key' THEN 1 WHEN 'user' THEN 2 ELSE 3 END, b."subject_id", b."period"
    LOOP
        started := "turnmill_window_start"(budget."period");
        SELECT * INTO taken FROM "budget_windows" w WHERE w."budget_id" = budget."id" AND w."start" = started FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            INSERT INTO "budget_windows" ("id", "budget_id", "start")
                SELECT gen_random_uuid(), b."id", started FROM "budgets" b WHERE b."id" = budget."id" FOR KEY SHARE
                ON CONFLICT DO NOTHING;
            SELECT * INTO taken FROM "budget_windows" w WHERE w."budget_id" = budget."id" AND w."start" = started FOR NO KEY UPDATE;
            CONTINUE WHEN NOT FOUND;
        END IF;
        ids := ids || taken."id";
        budget_ids := budget_ids || budget."id";
        periods := periods || budget."period";
        starts := starts || started;
        subjects := subjects || budget."subject";
        subject_ids := subject_ids || budget."subject_id";
        limits := limits || budget."limit_micros";
        spent := spent || taken."spent_micros";
        reserved := reserved || taken."reserved_micros";
    END LOOP;
    FOR i IN 1 .. coalesce(array_length("for_calls", 1), 0) LOOP
        "call" := "for_calls"[i];
        amount := "amounts"[i];
        "verdict" := NULL;
        "windows" := '{}';
        own := '{}';
        "refused_by" := NULL;
        refusing := NULL;
        FOR j IN 1 .. coalesce(array_length(ids, 1), 0) LOOP
            CONTINUE WHEN subjects[j] = 'key' AND subject_ids[j] <> "for_keys"[i];
            CONTINUE WHEN subjects[j] = 'user' AND subject_ids[j] <> "for_users"[i];
            own := own || j;
            "windows" := "windows" || ids[j];
            IF amount IS NULL THEN
                "verdict" := 'model_unpriced';
            ELSIF spent[j] + amount > limits[j] THEN
                IF "verdict" IS DISTINCT FROM 'budget_exceeded' THEN
                    refusing := j;
                END IF;
                "verdict" := 'budget_exceeded';
            ELSIF "verdict" IS NULL AND spent[j] + reserved[j] + amount > limits[j] THEN
                "verdict" := 'budget_busy';
                refusing := j;
            END IF;
        END LOOP;
        IF "verdict" IS NULL THEN
            FOREACH k IN ARRAY own LOOP
                reserved[k] := reserved[k] + amount;
            END LOOP;
        ELSE
            "windows" := '{}';
        END IF;
        IF refusing IS NOT NULL THEN
            "refused_by" := jsonb_build_object('id', budget_ids[refusing], 'subject', subjects[refusing], 'period', periods[refusing],
                'endsAt', CASE WHEN periods[refusing] <> 'total' THEN to_char(starts[refusing] AT TIME ZONE 'UTC'
                    + ('1 ' || periods[refusing])::INTERVAL, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END,
                'worstCaseMicros', amount, 'amounts', jsonb_build_object('limitMicros', limits[refusing],
                    'spentMicros', spent[refusing], 'reservedMicros', reserved[refusing]));
        END IF;
        RETURN NEXT;
    END LOOP;
    IF array_length(ids, 1) > 0 THEN
        UPDATE "budget_windows" w SET "reserved_micros" = held."reserved"
            FROM unnest(ids, reserved) held ("id", "reserved") WHERE w."id" = held."id" AND w."reserved_micros" <> held."reserved";
    END IF;
END $$;
