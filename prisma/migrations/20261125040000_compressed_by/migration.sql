-- Why: a summary leaves some messages in place, so which boundary hid a message cannot be told from their order

-- AlterTable
ALTER TABLE "messages" ADD COLUMN     "compressed_by" BIGINT;

-- So far a boundary hid all before it that was shown.
UPDATE "messages" m SET "compressed_by" = (
    SELECT min(b."id") FROM "messages" b WHERE b."chat_id" = m."chat_id" AND b."id" > m."id" AND b."boundary" IS NOT NULL)
    WHERE m."compressed";
