-- One row for each request, and for each thing that is charged for without one. Rows are never changed.
-- Amounts are trillionths of the currency unit; times are milliseconds. All text is TEXT, also what clients and
-- upstreams wrote, because no text of the ledger has U+0000 in it; what is compared or put in order is so by bytes.
CREATE TABLE ledger (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT NOT NULL,
    project TEXT COLLATE "C" NOT NULL,
    -- NULL: nobody's request.
    key_id TEXT COLLATE "C",
    surface TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    requested_model TEXT NOT NULL,
    upstream TEXT COLLATE "C",
    upstream_model TEXT,
    context TEXT COLLATE "C",
    answer TEXT,
    request TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    first_token_ms BIGINT,
    total_ms BIGINT NOT NULL,
    stream BOOLEAN NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    finish_reason TEXT,
    input_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_5m_tokens BIGINT NOT NULL,
    cache_write_30m_tokens BIGINT NOT NULL,
    cache_write_1h_tokens BIGINT NOT NULL,
    cache_write_12h_tokens BIGINT NOT NULL,
    cache_write_other_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    usage_source TEXT NOT NULL,
    cost BIGINT NOT NULL,
    saved BIGINT NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    cost_source TEXT NOT NULL,
    cache_status TEXT,
    cache_reason TEXT
);

-- A project's own view, the operator's view with the end of a row's life, and one context's.
CREATE INDEX ledger_by_project ON ledger (project, started_at, id);
CREATE INDEX ledger_by_time ON ledger (started_at, id);
CREATE INDEX ledger_by_context ON ledger (context, started_at) WHERE context IS NOT NULL;
