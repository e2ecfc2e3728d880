-- What was done to projects, keys, configuration and storage, by whom. Rows are never changed or removed; each has the
-- hash of the one before it in its own. Times are milliseconds.
CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    act TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C",
    request TEXT COLLATE "C",
    -- JSON.
    details TEXT NOT NULL,
    previous BYTEA NOT NULL CHECK (length(previous) = 32),
    hash BYTEA NOT NULL CHECK (length(hash) = 32)
);
