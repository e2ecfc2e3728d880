-- Public id of the key whose limits the context counts for.
ALTER TABLE contexts ADD COLUMN made_by TEXT;
