-- Answers that clients come back to by id. Columns that may be long come last, and of these first what a chain reads.
CREATE TABLE responses (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    -- What it continues. The reference holds that row for as long as this one is there.
    previous INTEGER REFERENCES responses (sequence),
    -- The first one of its tree; NULL in that one itself.
    tree INTEGER,
    -- 1: deleted or swept; only its messages are left, because a living one continues from it.
    kept INTEGER NOT NULL CHECK (kept IN (0, 1)),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Of `messages`, `input` and `body` together.
    bytes INTEGER NOT NULL,
    model TEXT NOT NULL,
    conversation TEXT,
    messages BLOB NOT NULL,
    input BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX responses_by_previous ON responses (previous);
CREATE INDEX responses_by_tree ON responses (tree, expires_at) WHERE kept = 0;
CREATE INDEX responses_by_expiry ON responses (expires_at, id) WHERE kept = 0;

CREATE TABLE conversations (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    -- Its latest answer; never one that is `kept`.
    head INTEGER REFERENCES responses (sequence),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Of `metadata`, `messages` and `items` together.
    bytes INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    messages BLOB NOT NULL,
    items BLOB NOT NULL
) STRICT;

CREATE INDEX conversations_by_head ON conversations (head);
CREATE INDEX conversations_by_expiry ON conversations (expires_at, id);

-- What each project has in the two tables above. Triggers count, so that no statement can forget to.
CREATE TABLE response_usage (
    project TEXT NOT NULL PRIMARY KEY,
    responses INTEGER NOT NULL DEFAULT 0,
    conversations INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TRIGGER responses_inserted AFTER INSERT ON responses BEGIN
    INSERT INTO response_usage (project, responses, bytes) VALUES (new.project, 1, new.bytes)
    ON CONFLICT (project) DO UPDATE SET responses = responses + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER responses_changed AFTER UPDATE OF bytes ON responses BEGIN
    UPDATE response_usage SET bytes = bytes + new.bytes - old.bytes WHERE project = old.project;
END;

CREATE TRIGGER responses_deleted AFTER DELETE ON responses BEGIN
    UPDATE response_usage SET responses = responses - 1, bytes = bytes - old.bytes WHERE project = old.project;
END;

CREATE TRIGGER conversations_inserted AFTER INSERT ON conversations BEGIN
    INSERT INTO response_usage (project, conversations, bytes) VALUES (new.project, 1, new.bytes)
    ON CONFLICT (project) DO UPDATE SET conversations = conversations + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER conversations_changed AFTER UPDATE OF bytes ON conversations BEGIN
    UPDATE response_usage SET bytes = bytes + new.bytes - old.bytes WHERE project = old.project;
END;

CREATE TRIGGER conversations_deleted AFTER DELETE ON conversations BEGIN
    UPDATE response_usage SET conversations = conversations - 1, bytes = bytes - old.bytes
    WHERE project = old.project;
END;
