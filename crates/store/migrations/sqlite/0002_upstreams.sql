-- How copies of a context at upstreams are kept, as JSON; '{}' is the default.
ALTER TABLE contexts ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';

-- Copies of contexts at upstreams. `context` references nothing: a handle outlives its context until it is dropped.
CREATE TABLE handles (
    place TEXT NOT NULL,
    name TEXT NOT NULL,
    context TEXT NOT NULL,
    project TEXT NOT NULL,
    tokens INTEGER,
    turns INTEGER NOT NULL,
    dropped_messages INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    doomed INTEGER NOT NULL CHECK (doomed IN (0, 1)),
    PRIMARY KEY (place, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX handles_by_context ON handles (context, place);
CREATE INDEX handles_by_expiry ON handles (doomed, expires_at);

-- What each context has used and cost. Amounts are trillionths of the currency unit.
CREATE TABLE accounts (
    context INTEGER PRIMARY KEY REFERENCES contexts (sequence) ON DELETE CASCADE,
    requests INTEGER NOT NULL DEFAULT 0,
    hits INTEGER NOT NULL DEFAULT 0,
    rebuilds INTEGER NOT NULL DEFAULT 0,
    misses INTEGER NOT NULL DEFAULT 0,
    degraded INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    pings INTEGER NOT NULL DEFAULT 0,
    cost INTEGER NOT NULL DEFAULT 0,
    ping_cost INTEGER NOT NULL DEFAULT 0,
    storage_cost INTEGER NOT NULL DEFAULT 0,
    saved INTEGER NOT NULL DEFAULT 0,
    currency TEXT NOT NULL DEFAULT '',
    home TEXT,
    last_used_at INTEGER
) STRICT;

-- Who among several replicas is doing something that must be done once.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
