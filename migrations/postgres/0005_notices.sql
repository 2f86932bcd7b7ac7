-- Notices, each written in the transaction of what it is about. Sealed: the vault signs what it
-- sends, so nobody else may write one. They never change, and are deleted when they are old.
CREATE TABLE notices (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    facts TEXT NOT NULL,
    recipients TEXT NOT NULL,
    request TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- The number of the newest notice, and of the newest that was deleted: one row. Whoever writes a
-- notice holds it until the commit, so that numbers have no gap and follow the order of commits.
CREATE TABLE notice_heads (
    id TEXT PRIMARY KEY,
    last BIGINT NOT NULL,
    purged BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- How far each sink is: everything up to a number was delivered or given up.
CREATE TABLE notice_sinks (
    id TEXT PRIMARY KEY,
    position BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    next_try BIGINT,
    trouble TEXT NOT NULL,
    given_up BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Of whose reviews people are to be told that they are overdue.
CREATE INDEX elevations_reviewed ON elevations (review_due) WHERE review_due IS NOT NULL;
