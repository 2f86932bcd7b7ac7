-- Named keys: what decisions read of them, and which versions are used. Names are for ever.
CREATE TABLE named_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    placement TEXT NOT NULL,
    purpose TEXT NOT NULL,
    origin TEXT NOT NULL,
    may_back_up BIGINT NOT NULL,
    state TEXT NOT NULL,
    newest BIGINT NOT NULL,
    min_version BIGINT NOT NULL,
    rotate_every_s BIGINT,
    rotate_at BIGINT,
    labels TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    owned_since BIGINT NOT NULL,
    owned_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX named_keys_by_owner ON named_keys (owner, name);
-- What the clock rotates.
CREATE INDEX named_keys_due ON named_keys (rotate_at) WHERE rotate_at IS NOT NULL;

-- Versions of named keys. What is sealed is encrypted under a data key of its own, which the
-- owner's wraps; of what is in the HSM stands here how it is found, what it is, and whose
-- place it takes there.
CREATE TABLE named_key_versions (
    id TEXT PRIMARY KEY,
    named_key TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    material BLOB NOT NULL,
    wrap_key TEXT,
    public_key BLOB,
    pinned BLOB,
    origin TEXT NOT NULL,
    in_hsm_of TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL,
    UNIQUE (named_key, version)
);
-- What is being made in the HSM, or was left there, or is not used any more.
CREATE INDEX named_key_versions_left ON named_key_versions (changed_at, id)
    WHERE state IN ('pending', 'retired');
-- Whose places in the HSM are taken.
CREATE INDEX named_key_versions_in_hsm ON named_key_versions (in_hsm_of)
    WHERE in_hsm_of IS NOT NULL;

-- Messages that nodes reserved for a version, where they are counted: by the version's id.
CREATE TABLE named_key_counts (
    id TEXT PRIMARY KEY,
    reserved BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
-- What is to be rotated because of them.
CREATE INDEX named_key_counts_due ON named_key_counts (reserved);
