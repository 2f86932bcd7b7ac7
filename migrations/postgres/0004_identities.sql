-- Of which end of an identity the record has told that it comes: once for each. A statistic, unsealed:
-- nothing is decided by it, and whoever writes it brings a notice about once more, or keeps it away.
CREATE TABLE identity_notices (
    id TEXT PRIMARY KEY,
    ends_at BIGINT NOT NULL
);

-- Since when an identity has logins for a key: none lives beyond the rotation counted from then.
CREATE TABLE login_keys (
    id TEXT PRIMARY KEY,
    since BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
