-- `models` is a list of names and `limits` an object, both as JSON; `version` grows with every change of the row's settings.
ALTER TABLE keys
    ADD COLUMN expires_at BIGINT,
    ADD COLUMN last_used_at BIGINT,
    -- The secret before the last rotation, and until when it is good.
    ADD COLUMN previous_hash BYTEA UNIQUE,
    ADD COLUMN previous_expires_at BIGINT,
    ADD COLUMN version BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN models BYTEA NOT NULL DEFAULT '[]',
    ADD COLUMN limits BYTEA NOT NULL DEFAULT '{}';

CREATE INDEX keys_by_age ON keys (created_at, id);

ALTER TABLE projects
    ADD COLUMN version BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN settings BYTEA NOT NULL DEFAULT '{}';
