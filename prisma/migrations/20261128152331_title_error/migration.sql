-- Why: the owner of a chat is told why a model could not name it

-- AlterTable
ALTER TABLE "chats" ADD COLUMN     "title_error" JSONB;
