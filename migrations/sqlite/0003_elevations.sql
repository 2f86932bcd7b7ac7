-- Elevation roles: who may ask for what, for how long, and who approves it.
CREATE TABLE elevation_roles (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    proposal TEXT NOT NULL,
    next_try BIGINT,
    confirmed_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    changers TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);

-- Elevations, from their request on, each with the votes that were given: one row, so that whoever
-- changes it compares all of it.
CREATE TABLE elevations (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    role TEXT NOT NULL,
    state TEXT NOT NULL,
    scope TEXT NOT NULL,
    scope_hash BLOB NOT NULL,
    votes TEXT NOT NULL,
    ttl_s BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    requested_at BIGINT NOT NULL,
    starts_at BIGINT NOT NULL,
    activated_at BIGINT,
    ends_at BIGINT,
    next_try BIGINT,
    why TEXT NOT NULL,
    review_due BIGINT,
    review TEXT NOT NULL,
    review_told_at BIGINT,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
-- What an identity has open, and asked for lately; what the clock has to look at; what changed lately.
CREATE INDEX elevations_open ON elevations (identity, state)
    WHERE state IN ('awaiting-approval', 'scheduled', 'active');
CREATE INDEX elevations_unreviewed ON elevations (identity, review_due) WHERE review_due IS NOT NULL;
CREATE INDEX elevations_asked ON elevations (identity, requested_at);
CREATE INDEX elevations_due ON elevations (next_try) WHERE next_try IS NOT NULL;
CREATE INDEX elevations_changed ON elevations (changed_at, id);
