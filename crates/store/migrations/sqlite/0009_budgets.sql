-- What each project (`project:NAME`) and key (`key:ID`) has spent on each day since the Unix epoch, in trillionths. It
-- changes with the rows of the ledger, in the same transaction, and outlives them.
CREATE TABLE spending (
    spender TEXT NOT NULL,
    day INTEGER NOT NULL,
    currency TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (spender, day, currency)
) STRICT, WITHOUT ROWID;

INSERT INTO spending (spender, day, currency, amount)
    SELECT 'project:' || project, started_at / 86400000, currency, 
        min(sum(cost / 1000000000), 8999999999) * 1000000000 + min(sum(cost % 1000000000), 1000000000)
    FROM ledger WHERE cost > 0 GROUP BY 1, 2, 3;
INSERT INTO spending (spender, day, currency, amount)
    SELECT 'key:' || key_id, started_at / 86400000, currency, 
        min(sum(cost / 1000000000), 8999999999) * 1000000000 + min(sum(cost % 1000000000), 1000000000)
    FROM ledger WHERE cost > 0 AND key_id IS NOT NULL GROUP BY 1, 2, 3;

-- Warnings that have been given, so that each is given once.
CREATE TABLE notices (
    notice TEXT NOT NULL PRIMARY KEY,
    given_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE keys ADD COLUMN budgets TEXT NOT NULL DEFAULT '[]';
