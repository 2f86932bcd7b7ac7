-- One row: which store this is. A founding that a crash cut off is resumed in this store alone.
CREATE TABLE store_id (
    id TEXT PRIMARY KEY
);
INSERT INTO store_id (id) SELECT gen_random_uuid()::text;

-- The vault itself: one sealed row. Its `dev` mark is for ever.
CREATE TABLE vault (
    id TEXT PRIMARY KEY,
    trust_domain TEXT NOT NULL,
    dev BIGINT NOT NULL,
    origin TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    restored_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- One row: the authority epoch moves with every change that a decision could stand on.
CREATE TABLE authority (
    id BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL
);
INSERT INTO authority (id, epoch) VALUES (1, 1);

-- One row: the high-water mark of the nodes' clocks.
CREATE TABLE clock_mark (
    id BIGINT PRIMARY KEY,
    node TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- One row where an operator sealed the vault: obeyed by every start before its MAC can be checked.
CREATE TABLE seal (
    id TEXT PRIMARY KEY,
    sealed_at BIGINT,
    sealed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Keys in the HSM, by label: what each is for, and what pins it.
CREATE TABLE hsm_keys (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    pinned BYTEA NOT NULL,
    certificate BYTEA,
    link BYTEA,
    created_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL,
    UNIQUE (purpose, version)
);

-- Identity keys: one row a key and version, and any number of wraps of it. A wrap needs no MAC:
-- it is bound to key, owner and recipient by its associated data.
CREATE TABLE identity_keys (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL,
    UNIQUE (owner, version)
);
CREATE TABLE key_wraps (
    key_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    suite BIGINT NOT NULL,
    blob BYTEA NOT NULL,
    PRIMARY KEY (key_id, recipient)
);

CREATE TABLE identities (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    owned_since BIGINT NOT NULL,
    former_owners TEXT NOT NULL,
    person TEXT,
    purpose TEXT NOT NULL,
    needs TEXT NOT NULL,
    tier TEXT NOT NULL,
    labels TEXT NOT NULL,
    expires_at BIGINT,
    revocation_epoch BIGINT NOT NULL,
    authority_rev BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    changers TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX identities_by_owner ON identities (owner, name);
-- By end, so that what ends soon of what somebody answers for is found without the rest.
CREATE INDEX identities_owned ON identities (owner, expires_at) WHERE state <> 'retired';
CREATE INDEX identities_by_person ON identities (person, name) WHERE person IS NOT NULL;
-- Who stands, by end: what is walked through for what is over or ends soon, and counted for metrics.
CREATE INDEX identities_ending ON identities (expires_at, id)
    WHERE expires_at IS NOT NULL AND state IN ('registered', 'active');
CREATE INDEX identities_active ON identities (kind, id) WHERE state = 'active';
-- Who was ever contained: what they held before stands on the revocation list.
CREATE INDEX identities_contained ON identities (id) WHERE revocation_epoch > 1;

-- How the identities of each kind live: a row for each, made with the vault.
CREATE TABLE lifecycles (
    id TEXT PRIMARY KEY,
    max_ttl_s BIGINT NOT NULL,
    max_age_s BIGINT NOT NULL,
    rotation_s BIGINT NOT NULL,
    development_rotation_s BIGINT NOT NULL,
    dormant_after_s BIGINT NOT NULL,
    notice_s BIGINT NOT NULL,
    single_use BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Statistics, unsealed: policy reads none of them. The worker that suspends whoever was not used for
-- too long does; whoever writes them can bring that about or put it off, and nothing else.
CREATE TABLE identity_usage (
    id TEXT PRIMARY KEY,
    last_used_at BIGINT NOT NULL
);

CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    purpose TEXT NOT NULL,
    authority_rev BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE members (
    id TEXT PRIMARY KEY,
    group_id TEXT NOT NULL,
    identity_id TEXT NOT NULL,
    active BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL,
    UNIQUE (group_id, identity_id)
);
CREATE INDEX members_by_identity ON members (identity_id);

-- One row, made with the vault: the recovery of an administrator that was asked for last.
CREATE TABLE recovery (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    recovery TEXT,
    name TEXT,
    key_hash BYTEA NOT NULL,
    requested_at BIGINT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    credential TEXT,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- A subject is an identity's or a group's id.
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    subject_is_group BIGINT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    conditions TEXT NOT NULL,
    reason TEXT NOT NULL,
    ticket TEXT NOT NULL,
    expires_at BIGINT,
    active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX grants_by_subject ON grants (subject, active, id);
CREATE TABLE grant_usage (
    id TEXT PRIMARY KEY,
    last_used_at BIGINT NOT NULL
);

-- The one tree of authority: certificates, leases, tokens and enrolments.
CREATE TABLE credentials (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    identity TEXT NOT NULL,
    parent TEXT,
    elevation TEXT,
    elevation_too TEXT,
    handle BYTEA,
    resource TEXT NOT NULL,
    state TEXT NOT NULL,
    revocation_epoch BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    max_expires_at BIGINT NOT NULL,
    next_try BIGINT,
    tries BIGINT NOT NULL,
    trouble TEXT NOT NULL,
    detail BYTEA NOT NULL,
    proofs TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX credentials_by_identity ON credentials (identity, kind, id);
CREATE INDEX credentials_due ON credentials (next_try) WHERE next_try IS NOT NULL;
-- Only what is presented is looked for by its handle: hashes stand in no order, and each costs a page.
CREATE UNIQUE INDEX credentials_presented ON credentials (handle) WHERE kind = 'login';
-- Logins in force, by end: walked through for those that are older than their kind's rotation.
CREATE INDEX credentials_live_logins ON credentials (expires_at, id)
    WHERE kind = 'login' AND state = 'active';
-- Tokens are found by their id. Those in force are counted and listed by when they end.
CREATE INDEX credentials_live_tokens ON credentials (identity, revocation_epoch, expires_at, id, issued_at)
    WHERE kind = 'token' AND state = 'active';
-- What hangs below what is revoked.
CREATE INDEX credentials_below ON credentials (parent, kind, id)
    WHERE parent IS NOT NULL AND state <> 'ended' AND state <> 'revoking';
-- What was made under an elevation, and is not known to be gone.
CREATE INDEX credentials_of_elevation ON credentials (elevation, kind, id)
    WHERE elevation IS NOT NULL AND state <> 'ended';
CREATE INDEX credentials_of_elevation_too ON credentials (elevation_too, kind, id)
    WHERE elevation_too IS NOT NULL AND state <> 'ended';
CREATE INDEX credentials_open_leases ON credentials (id) WHERE kind = 'lease' AND state <> 'ended';
-- What is open below a resource, a connection's leases: about 10 µs of a lease's whole life in the
-- store. A column that names the connection would need an index as well.
CREATE INDEX credentials_open_by_resource ON credentials (resource) WHERE kind = 'lease' AND state <> 'ended';
-- The kind stands in it although it is always the same: SQLite prefers the index above otherwise.
CREATE INDEX credentials_open_by_identity ON credentials (identity, kind, id)
    WHERE kind = 'lease' AND state <> 'ended';

-- Serial numbers that certificates may have, stored before anything is signed over one of them: 20
-- octets each, a block in a row. They are the record of what the authorities' keys may have signed. Which
-- of them stand for a certificate, `credentials` says.
CREATE TABLE serials (
    id TEXT PRIMARY KEY,
    numbers BYTEA NOT NULL,
    stored_at BIGINT NOT NULL
);

-- Certificates whose time is not over, revoked or not: each may stand on a list.
CREATE INDEX credentials_unexpired_certificates ON credentials (identity, revocation_epoch, expires_at)
    WHERE kind = 'certificate';

-- The newest revocation list of each authority that has one, and what it is made of.
CREATE TABLE crls (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    contained BIGINT NOT NULL,
    listed BYTEA NOT NULL,
    der BYTEA NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX credentials_ended_certificates ON credentials (expires_at, id, issued_at)
    WHERE kind = 'certificate' AND state = 'ended';

-- Connections by name, and the accounts that they went and go to: an account stays when a connection
-- is sent elsewhere, because leases that were made there end there.
CREATE TABLE db_connections (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    target TEXT NOT NULL,
    active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE TABLE db_targets (
    id TEXT PRIMARY KEY,
    connection TEXT NOT NULL,
    settings TEXT NOT NULL,
    password BYTEA NOT NULL,
    password_key TEXT NOT NULL,
    server_version TEXT NOT NULL,
    tested_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX db_targets_by_connection ON db_targets (connection, id);
CREATE TABLE db_roles (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    connection TEXT NOT NULL,
    definition TEXT NOT NULL,
    active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE TABLE pki_roles (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    profile TEXT NOT NULL,
    active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

-- Retries of creating calls: which object a key made, for 24 h, and of a token whose uses are counted
-- until its end. No answer is stored.
CREATE TABLE idempotency (
    id TEXT PRIMARY KEY,
    request BYTEA NOT NULL,
    object TEXT NOT NULL,
    at BIGINT NOT NULL,
    kept_until BIGINT NOT NULL
);
CREATE INDEX idempotency_over ON idempotency (kept_until);

-- The record: lanes of batches, written on the way of a request.
CREATE TABLE record_lanes (
    lane BIGINT PRIMARY KEY,
    node TEXT NOT NULL,
    integrated_seq BIGINT NOT NULL,
    integrated_hash BYTEA NOT NULL,
    ended BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX record_lanes_open ON record_lanes (lane) WHERE ended = 0;
CREATE TABLE record_batches (
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    previous BYTEA NOT NULL,
    mac BYTEA NOT NULL,
    body BYTEA NOT NULL,
    side BYTEA,
    PRIMARY KEY (lane, seq)
);

-- The log: where each batch stands in the one tree, its tiles, filters for questions, its head.
CREATE TABLE log_places (
    first BIGINT PRIMARY KEY,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    entries BIGINT NOT NULL
);
CREATE TABLE log_tiles (
    level BIGINT NOT NULL,
    tile BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    PRIMARY KEY (level, tile)
);
CREATE TABLE log_filters (
    bundle BIGINT PRIMARY KEY,
    filter BYTEA NOT NULL,
    mac BYTEA NOT NULL
);
CREATE TABLE log_head (
    id BIGINT PRIMARY KEY,
    size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    edge BYTEA NOT NULL,
    lanes BYTEA NOT NULL,
    mac BYTEA NOT NULL,
    checkpoint TEXT NOT NULL,
    signed_at BIGINT NOT NULL
);
INSERT INTO log_head (id, size, root, edge, lanes, mac, checkpoint, signed_at)
VALUES (1, 0, '', '', '', '', '', 0);
