-- Ids and words are text that compares byte by byte, whatever the database's collation, because pages and their cursors
-- depend on it. Whatever clients, upstreams or people wrote is bytes: PostgreSQL's text can't hold U+0000, which JSON
-- can. Times are milliseconds since the Unix epoch.

CREATE TABLE projects (
    name TEXT COLLATE "C" PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    project TEXT COLLATE "C" NOT NULL REFERENCES projects (name),
    hash BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32),
    hint BYTEA NOT NULL,
    label BYTEA NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE INDEX keys_by_project ON keys (project, created_at, id);

-- `project` references nothing: contexts and keys are two stores that happen to share a database.
CREATE TABLE contexts (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    project TEXT COLLATE "C" NOT NULL,
    mode TEXT NOT NULL,
    profile TEXT NOT NULL,
    ttl_seconds BIGINT NOT NULL,
    expiry TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    initial_tokens BIGINT NOT NULL,
    prefix_tokens BIGINT NOT NULL,
    turn_count BIGINT NOT NULL,
    dropped_messages BIGINT NOT NULL,
    version BIGINT NOT NULL,
    forked_from TEXT COLLATE "C",
    forked_at_turn BIGINT,
    -- The digest by which a context that no client created by name is found again.
    implicit TEXT COLLATE "C",
    model BYTEA NOT NULL,
    requested_model BYTEA NOT NULL,
    truncation BYTEA,
    tool_choice BYTEA,
    display_name BYTEA,
    metadata BYTEA NOT NULL,
    tools BYTEA NOT NULL,
    policy BYTEA NOT NULL
);

CREATE INDEX contexts_by_age ON contexts (project, created_at, id);
CREATE INDEX contexts_by_expiry ON contexts (expires_at, id);

-- Apart from `contexts`, because every chat reads that row and hardly any needs the messages from here.
CREATE TABLE contents (
    context BIGINT PRIMARY KEY REFERENCES contexts (sequence) ON DELETE CASCADE,
    initial BYTEA NOT NULL
);

CREATE TABLE turns (
    context BIGINT NOT NULL REFERENCES contexts (sequence) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    committed_at BIGINT NOT NULL,
    messages BYTEA NOT NULL,
    PRIMARY KEY (context, number)
);

-- Copies of contexts at upstreams. `context` references nothing: a handle outlives its context until it is dropped.
CREATE TABLE handles (
    place TEXT COLLATE "C" NOT NULL,
    name BYTEA NOT NULL,
    context TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C" NOT NULL,
    tokens BIGINT,
    turns BIGINT NOT NULL,
    dropped_messages BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    doomed BOOLEAN NOT NULL,
    PRIMARY KEY (place, name)
);

CREATE INDEX handles_by_context ON handles (context, place);
CREATE INDEX handles_by_expiry ON handles (doomed, expires_at);

-- What each context has used and cost. Amounts are trillionths of the currency unit.
CREATE TABLE accounts (
    context BIGINT PRIMARY KEY REFERENCES contexts (sequence) ON DELETE CASCADE,
    requests BIGINT NOT NULL DEFAULT 0,
    hits BIGINT NOT NULL DEFAULT 0,
    rebuilds BIGINT NOT NULL DEFAULT 0,
    misses BIGINT NOT NULL DEFAULT 0,
    degraded BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    cache_read_tokens BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    pings BIGINT NOT NULL DEFAULT 0,
    cost BIGINT NOT NULL DEFAULT 0,
    ping_cost BIGINT NOT NULL DEFAULT 0,
    storage_cost BIGINT NOT NULL DEFAULT 0,
    saved BIGINT NOT NULL DEFAULT 0,
    currency TEXT NOT NULL DEFAULT '',
    home TEXT COLLATE "C",
    last_used_at BIGINT
);

-- Who among several replicas is doing something that must be done once.
CREATE TABLE leases (
    name TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);

-- Answers that clients come back to by id.
CREATE TABLE responses (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    project TEXT COLLATE "C" NOT NULL,
    -- What it continues. The reference holds that row for as long as this one is there.
    previous BIGINT REFERENCES responses (sequence),
    -- The first one of its tree; NULL in that one itself. Whoever changes a tree locks that row first.
    tree BIGINT,
    -- Deleted or swept; only its messages are left, because a living one continues from it.
    kept BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- Of `messages`, `input` and `body` together.
    bytes BIGINT NOT NULL,
    model BYTEA NOT NULL,
    conversation TEXT COLLATE "C",
    messages BYTEA NOT NULL,
    input BYTEA NOT NULL,
    body BYTEA NOT NULL
);

CREATE INDEX responses_by_previous ON responses (previous);
CREATE INDEX responses_by_tree ON responses (tree, expires_at) WHERE NOT kept;
CREATE INDEX responses_by_expiry ON responses (expires_at, id) WHERE NOT kept;

CREATE TABLE conversations (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    project TEXT COLLATE "C" NOT NULL,
    -- Its latest answer; never one that is `kept`.
    head BIGINT REFERENCES responses (sequence),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- Of `metadata`, `messages` and `items` together.
    bytes BIGINT NOT NULL,
    metadata BYTEA NOT NULL,
    messages BYTEA NOT NULL,
    items BYTEA NOT NULL
);

CREATE INDEX conversations_by_head ON conversations (head);
CREATE INDEX conversations_by_expiry ON conversations (expires_at, id);

-- What each project has in the two tables above: the sum of its rows here. Each change adds a row instead of changing
-- one, so that no two requests of a project wait for each other; the sweep adds rows up.
CREATE TABLE response_usage (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project TEXT COLLATE "C" NOT NULL,
    responses BIGINT NOT NULL,
    conversations BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);

CREATE INDEX response_usage_by_project ON response_usage (project);

-- Triggers count, so that no statement can forget to; one row for each project that a statement touches.
CREATE FUNCTION responses_inserted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO response_usage (project, responses, conversations, bytes)
    SELECT project, count(*), 0, sum(bytes) FROM fresh GROUP BY project;
    RETURN NULL;
END $$;

CREATE FUNCTION responses_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO response_usage (project, responses, conversations, bytes)
    SELECT project, -count(*), 0, -sum(bytes) FROM stale GROUP BY project;
    RETURN NULL;
END $$;

CREATE FUNCTION conversations_inserted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO response_usage (project, responses, conversations, bytes)
    SELECT project, 0, count(*), sum(bytes) FROM fresh GROUP BY project;
    RETURN NULL;
END $$;

CREATE FUNCTION conversations_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO response_usage (project, responses, conversations, bytes)
    SELECT project, 0, -count(*), -sum(bytes) FROM stale GROUP BY project;
    RETURN NULL;
END $$;

-- For both: a change of neither counts a row nor moves it to another project.
CREATE FUNCTION response_bytes_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO response_usage (project, responses, conversations, bytes)
    SELECT stale.project, 0, 0, sum(fresh.bytes - stale.bytes)
    FROM stale JOIN fresh USING (sequence) GROUP BY stale.project
    HAVING sum(fresh.bytes - stale.bytes) <> 0;
    RETURN NULL;
END $$;

CREATE TRIGGER responses_inserted AFTER INSERT ON responses
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION responses_inserted();
CREATE TRIGGER responses_changed AFTER UPDATE ON responses
    REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION response_bytes_changed();
CREATE TRIGGER responses_deleted AFTER DELETE ON responses
    REFERENCING OLD TABLE AS stale FOR EACH STATEMENT EXECUTE FUNCTION responses_deleted();
CREATE TRIGGER conversations_inserted AFTER INSERT ON conversations
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION conversations_inserted();
CREATE TRIGGER conversations_changed AFTER UPDATE ON conversations
    REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION response_bytes_changed();
CREATE TRIGGER conversations_deleted AFTER DELETE ON conversations
    REFERENCING OLD TABLE AS stale FOR EACH STATEMENT EXECUTE FUNCTION conversations_deleted();
