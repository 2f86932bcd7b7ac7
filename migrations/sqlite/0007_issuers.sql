-- Issuers of OIDC tokens that are believed.
CREATE TABLE issuers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    definition TEXT NOT NULL,
    people BIGINT NOT NULL,
    active BIGINT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    next_try BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX issuers_by_url ON issuers (url, id) WHERE active = 1;
CREATE INDEX issuers_due ON issuers (next_try) WHERE next_try IS NOT NULL;
CREATE INDEX issuers_active ON issuers (name) WHERE active = 1;
-- Whoever asks where people sign in reads no other issuer.
CREATE INDEX issuers_of_people ON issuers (people, name) WHERE active = 1 AND people = 1;

-- Rules that bind claims of an issuer's tokens to an identity, or to those that a template names.
CREATE TABLE issuer_rules (
    id TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    identity TEXT,
    definition TEXT NOT NULL,
    active BIGINT NOT NULL,
    next_try BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
-- What can yield an identity is found whatever else the issuer has.
CREATE INDEX issuer_rules_of_identity ON issuer_rules (identity, issuer, id) WHERE active = 1 AND identity IS NOT NULL;
-- The identity stands in it although there is none: SQLite prefers the index below otherwise.
CREATE INDEX issuer_rules_by_template ON issuer_rules (issuer, identity, id) WHERE active = 1 AND identity IS NULL;
CREATE INDEX issuer_rules_due ON issuer_rules (next_try) WHERE next_try IS NOT NULL;
CREATE INDEX issuer_rules_of_issuer ON issuer_rules (issuer, id) WHERE active = 1;

-- Which rule registered an identity.
CREATE TABLE issuer_registrations (
    id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    bound TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX issuer_registrations_of_rule ON issuer_registrations (rule);

-- Tokens that were used, and the session that each stands for: not sealed, because a seal cannot
-- keep a row from being deleted; what is believed of a session stands in its credential.
CREATE TABLE issuer_logins (
    id TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    rule TEXT NOT NULL,
    credential TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    kept_until BIGINT NOT NULL
);
CREATE INDEX issuer_logins_over ON issuer_logins (kept_until);
-- Without the id, which stands in no order: each login would cost one more page.
CREATE INDEX issuer_logins_of_rule ON issuer_logins (rule);
CREATE INDEX issuer_logins_of_issuer ON issuer_logins (issuer, epoch);
