-- What clients said, sealed with a data key. Where it is not NULL, the columns that it stands for say nothing.
ALTER TABLE contexts ADD COLUMN sealed BLOB;
ALTER TABLE contents ADD COLUMN sealed BLOB;
ALTER TABLE turns ADD COLUMN sealed BLOB;

-- How much longer `messages` is for being sealed.
ALTER TABLE responses ADD COLUMN overhead INTEGER NOT NULL DEFAULT 0;

-- Ids of the data keys that something here may be sealed with.
CREATE TABLE data_keys (
    id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
