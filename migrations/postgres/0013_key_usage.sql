-- Who used which version of a named key, for what and how often, by day: folded from the entries of
-- the record as they get their places in the log. Derived and unsealed: nothing is decided by it,
-- and it can be made again from the record.
CREATE TABLE key_usage (
    id TEXT NOT NULL,
    day BIGINT NOT NULL,
    used_by TEXT NOT NULL,
    version BIGINT NOT NULL,
    purpose TEXT NOT NULL,
    uses BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (id, day, used_by, version, purpose)
);
-- What is old is forgotten by this.
CREATE INDEX key_usage_by_day ON key_usage (day);

-- Each named key's last use, by the key's id; kept as long as the key.
CREATE TABLE key_last_usage (
    id TEXT PRIMARY KEY,
    last_at BIGINT NOT NULL,
    used_by TEXT NOT NULL,
    version BIGINT NOT NULL,
    purpose TEXT NOT NULL
);
