-- The credential that a cluster is asked with whether it still stands behind a token, beside its
-- issuer: encrypted, and bound to the version of this row, which changes with it alone.
CREATE TABLE issuer_reviewers (
    id TEXT PRIMARY KEY,
    credential BYTEA NOT NULL,
    credential_key TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
