-- What clients said, sealed with a data key. Where it is not NULL, the columns that it stands for say nothing.
-- Responses and conversations are sealed in their own columns, which are blobs: sealed bytes begin with 0xff, which no
-- UTF-8 does.
ALTER TABLE contexts ADD COLUMN sealed BLOB;
ALTER TABLE contents ADD COLUMN sealed BLOB;
ALTER TABLE turns ADD COLUMN sealed BLOB;

-- Ids of the data keys that something here may be sealed with.
CREATE TABLE data_keys (
    id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
