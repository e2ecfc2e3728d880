-- `models` is a list of names and `limits` an object, both as JSON; `version` grows with every change of the row's settings.
ALTER TABLE keys ADD COLUMN expires_at INTEGER;
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
-- The secret before the last rotation, and until when it is good.
ALTER TABLE keys ADD COLUMN previous_hash BLOB;
ALTER TABLE keys ADD COLUMN previous_expires_at INTEGER;
ALTER TABLE keys ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN models TEXT NOT NULL DEFAULT '[]';
ALTER TABLE keys ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';

CREATE UNIQUE INDEX keys_by_previous_hash ON keys (previous_hash) WHERE previous_hash IS NOT NULL;
CREATE INDEX keys_by_age ON keys (created_at, id);

ALTER TABLE projects ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
