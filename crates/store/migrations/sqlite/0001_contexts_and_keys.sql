-- "HFst": tells this file from any other SQLite database before something is written to it.
PRAGMA application_id = 1212576628;

CREATE TABLE projects (
    name TEXT NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    hint TEXT NOT NULL,
    label TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE INDEX keys_by_project ON keys (project, created_at, id);

-- `project` references nothing: contexts and keys are two stores that happen to share a file.
-- Columns that may be long come last, so that the others are read without following overflow pages.
CREATE TABLE contexts (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    mode TEXT NOT NULL,
    profile TEXT NOT NULL,
    ttl_seconds INTEGER NOT NULL,
    expiry TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    initial_tokens INTEGER NOT NULL,
    prefix_tokens INTEGER NOT NULL,
    turn_count INTEGER NOT NULL,
    dropped_messages INTEGER NOT NULL,
    version INTEGER NOT NULL,
    forked_from TEXT,
    forked_at_turn INTEGER,
    model TEXT NOT NULL,
    requested_model TEXT NOT NULL,
    truncation TEXT,
    tool_choice TEXT,
    display_name TEXT,
    metadata TEXT NOT NULL,
    tools TEXT NOT NULL
) STRICT;

CREATE INDEX contexts_by_age ON contexts (project, created_at, id);
CREATE INDEX contexts_by_expiry ON contexts (expires_at);

-- Apart from `contexts`, because every chat reads that row and hardly any needs the messages from here.
CREATE TABLE contents (
    context INTEGER PRIMARY KEY REFERENCES contexts (sequence) ON DELETE CASCADE,
    initial TEXT NOT NULL
) STRICT;

CREATE TABLE turns (
    context INTEGER NOT NULL REFERENCES contexts (sequence) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    committed_at INTEGER NOT NULL,
    messages TEXT NOT NULL,
    UNIQUE (context, number)
) STRICT;
