-- Ceremonies: what several administrators do together, from its request on, each with the votes that
-- were given: one row, so that whoever changes it compares all of it.
CREATE TABLE ceremonies (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    about TEXT NOT NULL,
    about_hash BYTEA NOT NULL,
    needed BIGINT NOT NULL,
    state TEXT NOT NULL,
    votes TEXT NOT NULL,
    factor TEXT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    requested_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
-- What somebody asked for lately; what waits; what changed lately.
CREATE INDEX ceremonies_asked ON ceremonies (identity, requested_at);
CREATE INDEX ceremonies_open ON ceremonies (expires_at, id) WHERE state = 'open';
CREATE INDEX ceremonies_changed ON ceremonies (changed_at, id);

-- Identities that were shredded, by their ids: what of them was destroyed when, and what could still
-- open a copy from before.
CREATE TABLE shreds (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    key_versions BIGINT NOT NULL,
    secrets BIGINT NOT NULL,
    named_keys BIGINT NOT NULL,
    hsm_keys BIGINT NOT NULL,
    connections BIGINT NOT NULL,
    openers TEXT NOT NULL,
    shredded_at BIGINT NOT NULL,
    shredded_by TEXT NOT NULL,
    unrecoverable_at BIGINT,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
-- In the order in which they were shredded.
CREATE UNIQUE INDEX shreds_by_number ON shreds (number);
-- Whose connections they are.
CREATE INDEX db_connections_by_owner ON db_connections (owner, name);
