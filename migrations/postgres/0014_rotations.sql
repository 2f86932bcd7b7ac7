-- Rotations: of the root key in the HSM, and of identities' keys. Each is named by its subject and the
-- version that it leads to; what is left under the old version is counted where it lies.
CREATE TABLE rotations (
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    from_version BIGINT NOT NULL,
    to_version BIGINT NOT NULL,
    state TEXT NOT NULL,
    total BIGINT NOT NULL,
    node TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    started_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL,
    UNIQUE (subject, to_version)
);
-- What is not at its end.
CREATE INDEX rotations_open ON rotations (state, id) WHERE state NOT IN ('retired', 'failed');

-- When what rotates by itself does next, by its subject.
CREATE TABLE rotation_schedules (
    id TEXT PRIMARY KEY,
    every_s BIGINT,
    next_at BIGINT,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX rotation_schedules_due ON rotation_schedules (next_at, id) WHERE next_at IS NOT NULL;

-- What an authority signed and is valid: counted before it is retired.
CREATE INDEX credentials_live_certificates ON credentials (expires_at, issued_at)
    WHERE kind = 'certificate' AND state = 'active';

-- What is still under a root key, or under an identity's.
CREATE INDEX key_wraps_by_recipient ON key_wraps (recipient, key_id);
CREATE INDEX secret_versions_by_key ON secret_versions (wrap_key, id);
CREATE INDEX named_key_versions_by_key ON named_key_versions (wrap_key, id)
    WHERE wrap_key IS NOT NULL;
CREATE INDEX factors_by_key ON factors (secret_key, id) WHERE secret_key IS NOT NULL;
