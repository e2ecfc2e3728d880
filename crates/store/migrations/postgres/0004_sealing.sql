-- What clients said, sealed with a data key. Where it is not NULL, the columns that it stands for say nothing. Other
-- bytes that are sealed stand in their own columns: they begin with 0xff, which no UTF-8 does.
ALTER TABLE contexts ADD COLUMN sealed BYTEA;

-- Ids of the data keys that something here may be sealed with.
CREATE TABLE data_keys (
    id BYTEA PRIMARY KEY
);
