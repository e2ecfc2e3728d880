-- What was done to projects, keys, configuration and storage, by whom. Rows are never changed or removed; each has the
-- hash of the one before it in its own. Times are milliseconds.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    target TEXT NOT NULL,
    project TEXT,
    request TEXT,
    -- JSON.
    details TEXT NOT NULL,
    previous BLOB NOT NULL CHECK (length(previous) = 32),
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
