-- One row for each request, and for each thing that is charged for without one. Rows are never changed.
-- Amounts are trillionths of the currency unit; times are milliseconds.
CREATE TABLE ledger (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    project TEXT NOT NULL,
    -- NULL: nobody's request.
    key_id TEXT,
    surface TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    requested_model TEXT NOT NULL,
    upstream TEXT,
    upstream_model TEXT,
    context TEXT,
    answer TEXT,
    request TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    first_token_ms INTEGER,
    total_ms INTEGER NOT NULL,
    stream INTEGER NOT NULL CHECK (stream IN (0, 1)),
    outcome TEXT NOT NULL,
    error TEXT,
    finish_reason TEXT,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_30m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    cache_write_12h_tokens INTEGER NOT NULL,
    cache_write_other_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    usage_source TEXT NOT NULL,
    cost INTEGER NOT NULL,
    saved INTEGER NOT NULL,
    currency TEXT NOT NULL,
    cost_source TEXT NOT NULL,
    cache_status TEXT,
    cache_reason TEXT
) STRICT;

-- A project's own view, the operator's view with the end of a row's life, and one context's.
CREATE INDEX ledger_by_project ON ledger (project, started_at, id);
CREATE INDEX ledger_by_time ON ledger (started_at, id);
CREATE INDEX ledger_by_context ON ledger (context, started_at) WHERE context IS NOT NULL;
