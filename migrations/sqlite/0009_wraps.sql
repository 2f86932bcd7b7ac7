-- Wrapped answers: who made which for whom, and what became of it. A row never goes: by it whoever
-- comes second learns that somebody was first.
CREATE TABLE wraps (
    id TEXT PRIMARY KEY,
    handle BLOB NOT NULL,
    creator TEXT NOT NULL,
    creator_epoch BIGINT NOT NULL,
    credential TEXT NOT NULL,
    elevation TEXT,
    elevation_too TEXT,
    recipient TEXT,
    recipient_epoch BIGINT,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    opened_by TEXT,
    opened_at BIGINT,
    opened_from TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    seal_version BIGINT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX wraps_by_creator ON wraps (creator, id);
CREATE INDEX wraps_by_recipient ON wraps (recipient, id) WHERE recipient IS NOT NULL;
CREATE INDEX wraps_pending_by_creator ON wraps (creator, expires_at) WHERE state = 'pending';
CREATE INDEX wraps_pending_by_recipient ON wraps (recipient, expires_at) WHERE state = 'pending';

-- The answers themselves, each encrypted under a key that is derived from its handle as well, by the
-- wrap's id. They need no MAC: each is bound to its wrap. One goes when it is opened, taken back or
-- over; when that is stands here too, and decides nothing else.
CREATE TABLE wrap_payloads (
    id TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX wrap_payloads_due ON wrap_payloads (expires_at);
