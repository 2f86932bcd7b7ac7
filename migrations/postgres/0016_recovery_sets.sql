-- Recovery sets: public halves that identity keys are wrapped for as well, whose private halves are
-- split among holders or in a token. A share is sealed to its holder, so that whoever reads it learns
-- nothing.
CREATE TABLE recovery_sets (
    id TEXT PRIMARY KEY,
    public_key BYTEA NOT NULL,
    threshold BIGINT NOT NULL,
    shares TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
