-- What each project (`project:NAME`) and key (`key:ID`) has spent on each day since the Unix epoch, in trillionths. It
-- changes with the rows of the ledger, in the same transaction, and outlives them.
CREATE TABLE spending (
    spender TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (spender, day, currency)
);

INSERT INTO spending (spender, day, currency, amount)
    SELECT 'project:' || project, started_at / 86400000, currency, least(sum(cost), 9000000000000000000)::bigint
    FROM ledger WHERE cost > 0 GROUP BY 1, 2, 3;
INSERT INTO spending (spender, day, currency, amount)
    SELECT 'key:' || key_id, started_at / 86400000, currency, least(sum(cost), 9000000000000000000)::bigint
    FROM ledger WHERE cost > 0 AND key_id IS NOT NULL GROUP BY 1, 2, 3;

-- What requests that run may still spend. The row of the ledger with the same id takes it away.
CREATE TABLE reservations (
    spender TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (spender, id)
);

CREATE INDEX reservations_by_id ON reservations (id);
CREATE INDEX reservations_by_owner ON reservations (owner);
CREATE INDEX reservations_by_end ON reservations (expires_at);

-- Warnings that have been given, so that each is given once.
CREATE TABLE notices (
    notice TEXT COLLATE "C" PRIMARY KEY,
    given_at BIGINT NOT NULL
);

ALTER TABLE keys ADD COLUMN budgets BYTEA NOT NULL DEFAULT '[]';
