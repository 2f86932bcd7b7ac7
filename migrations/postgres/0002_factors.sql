-- Factors of humans: what proves that somebody is there, besides the credential that asks. A row never
-- goes; whoever made it, and when, is asked of approvers.
CREATE TABLE factors (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    secret BYTEA,
    secret_key TEXT,
    invitation TEXT,
    vouched_by TEXT,
    enrolled_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX factors_standing ON factors (identity, id) WHERE state <> 'removed';

-- What guards the codes of one human: the last step that was accepted of each authenticator, and the
-- wrong ones. Every try holds the row, so that tries on several nodes go one after the other.
CREATE TABLE factor_guards (
    id TEXT PRIMARY KEY,
    steps TEXT NOT NULL,
    failures TEXT NOT NULL,
    locked_until BIGINT,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Recovery codes, by the MAC of each.
CREATE TABLE recovery_codes (
    id TEXT PRIMARY KEY,
    factor TEXT NOT NULL,
    handle BYTEA NOT NULL,
    used_at BIGINT,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE UNIQUE INDEX recovery_codes_by_handle ON recovery_codes (factor, handle);

-- Of each human the invitation that was made last: a newer one takes its place, so at most one is live.
CREATE TABLE factor_invitations (
    id TEXT PRIMARY KEY,
    invitation TEXT NOT NULL,
    handle BYTEA NOT NULL,
    state TEXT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
