-- Secrets: what decisions read of them, and what is kept how long. Names are for ever.
CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    labels TEXT NOT NULL,
    max_versions BIGINT NOT NULL,
    window_s BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    owned_since BIGINT NOT NULL,
    owned_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX secrets_by_owner ON secrets (owner, path);

-- Which version of a secret is the newest: a row of its own, so that a new version moves nothing
-- that decisions stand on.
CREATE TABLE secret_heads (
    id TEXT PRIMARY KEY,
    newest BIGINT NOT NULL,
    valued_from BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Versions of secrets, each with its own data key under the owner's.
CREATE TABLE secret_versions (
    id TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    is_json BIGINT NOT NULL,
    len_bytes BIGINT NOT NULL,
    wrap BYTEA NOT NULL,
    wrap_key TEXT NOT NULL,
    restored_from BIGINT,
    root BIGINT NOT NULL,
    expires_at BIGINT,
    purge_at BIGINT,
    exposed_at BIGINT,
    exposed_under TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL,
    UNIQUE (secret, version)
);
-- What the clock destroys.
CREATE INDEX secret_versions_due ON secret_versions (purge_at) WHERE purge_at IS NOT NULL;

-- Values, encrypted under their version's data key, by the version's id. They need no MAC: each is
-- bound to its version, and the version's row holds the only key to it.
CREATE TABLE secret_values (
    id TEXT PRIMARY KEY,
    message BYTEA NOT NULL
);

-- Statistics, unsealed: who read a secret last. Nothing is decided by it.
CREATE TABLE secret_usage (
    id TEXT PRIMARY KEY,
    last_read_at BIGINT NOT NULL,
    last_read_by TEXT NOT NULL,
    last_read_version BIGINT NOT NULL
);
