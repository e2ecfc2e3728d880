-- The digest by which a context that no client created by name is found again.
ALTER TABLE contexts ADD COLUMN implicit TEXT;
