//! Identities, groups, their members, and grants.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned, changers};
use crate::types::{
    GrantId, GroupId, Id, IdentityId, IdentityName, IdentityState, Kind, Owner, ResourcePattern,
    Segment, Tier, UnixMillis,
};

sealed_row! {
    /// An identity.
    pub struct IdentityRow in "identities", seal 1 {
        /// Its id, for ever.
        pub id: IdentityId,
        /// Its name, never reused.
        pub name: IdentityName,
        /// What stands behind it.
        pub kind: Kind,
        /// Where it is in its life.
        pub state: IdentityState,
        /// The human or group that answers for it; a human is its own owner.
        pub owner: Owner,
        /// Since when.
        pub owned_since: UnixMillis,
        /// Who answered for it within the day before that, as JSON.
        pub former_owners: String,
        /// Of a human: which person it is, the same on all accounts of one person.
        pub person: Option<Segment>,
        /// What it is for.
        pub purpose: String,
        /// What it has to reach, in words.
        pub needs: String,
        /// How much harm its misuse could do.
        pub tier: Tier,
        /// Labels, as a JSON object of strings.
        pub labels: String,
        /// When it ends, if ever.
        pub expires_at: Option<UnixMillis>,
        /// Credentials of an earlier epoch are dead.
        pub revocation_epoch: i64,
        /// Counts changes of its memberships and grants, so that this row fences them.
        pub authority_rev: i64,
        /// When it was registered.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
        /// By whom it was ever changed since it was registered: see [`changers`].
        pub changers: String,
    }
}

impl IdentityRow {
    /// Notes who changed it: whoever did is remembered for as long as it stands.
    pub fn note_change(&mut self, at: UnixMillis, by: String) {
        self.changers = changers::with(&self.changers, &by);
        self.changed_at = at;
        self.changed_by = by;
    }
}

sealed_row! {
    /// A group of identities.
    pub struct GroupRow in "groups", seal 1 {
        /// Its id, for ever.
        pub id: GroupId,
        /// Its name.
        pub name: Segment,
        /// What it is for.
        pub purpose: String,
        /// Counts changes of its grants, so that this row fences them.
        pub authority_rev: i64,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// That an identity is, or was, in a group.
    pub struct MemberRow in "members", seal 1 {
        /// Its id, for ever.
        pub id: Id,
        /// The group.
        pub group_id: GroupId,
        /// The identity.
        pub identity_id: IdentityId,
        /// Whether it is in it now.
        pub active: bool,
        /// When that was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// A grant: one action on the resources of one pattern.
    pub struct GrantRow in "grants", seal 1 {
        /// Its id, for ever.
        pub id: GrantId,
        /// The identity's or group's id.
        pub subject: Id,
        /// Whether the subject is a group.
        pub subject_is_group: bool,
        /// The action.
        pub action: String,
        /// The resources.
        pub resource: ResourcePattern,
        /// What else must be true, as JSON.
        pub conditions: String,
        /// Why it was given.
        pub reason: String,
        /// The ticket that asked for it; empty for none.
        pub ticket: String,
        /// When it ends, if ever.
        pub expires_at: Option<UnixMillis>,
        /// Whether it holds.
        pub active: bool,
        /// When it was given.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Finds an identity by its name.
pub async fn identity_named(
    tx: &mut Tx,
    name: &IdentityName,
) -> Result<Option<Versioned<IdentityRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Which identities are walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityWalk<'a> {
    /// All of them.
    All,
    /// Those that one owner answers for.
    Owned(Owner),
    /// The accounts of one person.
    Person(&'a Segment),
}

const ALL: &str = "WHERE name >= $1 AND name < $2 ORDER BY name LIMIT $3";
const OWNED: &str = "WHERE owner = $4 AND name >= $1 AND name < $2 ORDER BY name LIMIT $3";
const OF_PERSON: &str = "WHERE person = $4 AND name >= $1 AND name < $2 ORDER BY name LIMIT $3";

/// Walks through identities by name, from one name on, up to where another begins. Each text reads
/// no more rows than it answers.
pub async fn identities_from(
    tx: &mut Tx,
    walk: IdentityWalk<'_>,
    (from, to): (&str, &str),
    limit: i64,
) -> Result<Vec<Versioned<IdentityRow>>, StoreError> {
    let mut params = params![from.to_owned(), to.to_owned(), limit];
    let tail = match walk {
        IdentityWalk::All => ALL,
        IdentityWalk::Owned(owner) => {
            params.extend(params![owner]);
            OWNED
        }
        IdentityWalk::Person(person) => {
            params.extend(params![*person]);
            OF_PERSON
        }
    };
    tx.select(tail, params).await
}

/// Counts what an owner answers for besides itself and what is retired, up to a bound.
pub async fn count_owned(tx: &mut Tx, owner: Owner, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM identities WHERE owner = $1 AND id <> $1 \
               AND state <> 'retired' LIMIT $2) AS owned";
    let row = tx.query_one(sql, params![owner, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Finds the human of a group who stays in force longest, with the membership; expired or not.
pub async fn lasting_human(
    tx: &mut Tx,
    group: GroupId,
) -> Result<Option<(Versioned<MemberRow>, Versioned<IdentityRow>)>, StoreError> {
    let tail = "WHERE kind = 'human' AND state IN ('registered', 'active') AND id IN \
                (SELECT identity_id FROM members WHERE group_id = $1 AND active = 1) \
                ORDER BY CASE WHEN expires_at IS NULL THEN 0 ELSE 1 END, expires_at DESC, id LIMIT 1";
    let Some(human) = tx.lookup_where::<IdentityRow>(tail, params![group]).await? else {
        return Ok(None);
    };
    let member = member(tx, group, human.row.id).await?;
    Ok(member.map(|member| (member, human)))
}

/// Finds a group by its name.
pub async fn group_named(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<GroupRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists groups by name.
pub async fn groups_after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<GroupRow>>, StoreError> {
    let tail = "WHERE name > $1 ORDER BY name LIMIT $2";
    tx.select(tail, params![after.to_owned(), limit]).await
}

/// Finds the membership of an identity in a group, present or past.
pub async fn member(
    tx: &mut Tx,
    group: GroupId,
    identity: IdentityId,
) -> Result<Option<Versioned<MemberRow>>, StoreError> {
    tx.lookup_where("WHERE group_id = $1 AND identity_id = $2", params![group, identity]).await
}

/// Lists the groups that an identity is in.
pub async fn memberships(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Vec<Versioned<MemberRow>>, StoreError> {
    tx.select("WHERE identity_id = $1 AND active = 1 ORDER BY id", params![identity]).await
}

/// Lists the groups that an identity is said to be in, by id; only [`memberships`] vouch for that.
pub async fn groups_of(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Vec<Versioned<GroupRow>>, StoreError> {
    let tail = "WHERE id IN (SELECT group_id FROM members WHERE identity_id = $1 AND active = 1) \
                ORDER BY id";
    tx.select(tail, params![identity]).await
}

/// Lists ids that a group is said to hold, in order; only [`member`] vouches for one.
pub async fn said_members(
    tx: &mut Tx,
    group: GroupId,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT identity_id FROM members WHERE group_id = $1 AND active = 1 \
               AND identity_id > $2 ORDER BY identity_id LIMIT $3";
    let rows = tx.query(sql, params![group, after.to_owned(), limit]).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// Counts the members of a group, up to a bound.
pub async fn count_members(tx: &mut Tx, group: GroupId, most: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM members WHERE group_id = $1 AND active = 1 \
               LIMIT $2) AS held";
    let row = tx.query_one(sql, params![group, most]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Lists the members of a group by the name of the identity.
pub async fn members_after(
    tx: &mut Tx,
    group: GroupId,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<MemberRow>>, StoreError> {
    let name = "(SELECT i.name FROM identities i WHERE i.id = members.identity_id)";
    let tail =
        format!("WHERE group_id = $1 AND active = 1 AND {name} > $2 ORDER BY {name} LIMIT $3");
    tx.select(&tail, params![group, after.to_owned(), limit]).await
}

/// Lists the members of a group who are human and in force at a moment, by the name of the identity.
///
/// The identities' own seals are not looked at here: what is found is looked at again.
pub async fn humans_of(
    tx: &mut Tx,
    group: GroupId,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<MemberRow>>, StoreError> {
    let tail = "WHERE group_id = $1 AND active = 1 AND EXISTS (SELECT 1 FROM identities i \
                WHERE i.id = members.identity_id AND i.kind = 'human' \
                AND i.state IN ('registered', 'active') \
                AND (i.expires_at IS NULL OR i.expires_at > $2)) \
                ORDER BY (SELECT i.name FROM identities i WHERE i.id = members.identity_id) LIMIT $3";
    tx.select(tail, params![group, now, limit]).await
}

/// Lists the grants that a subject holds.
pub async fn grants_of(
    tx: &mut Tx,
    subject: Id,
    limit: i64,
) -> Result<Vec<Versioned<GrantRow>>, StoreError> {
    let tail = "WHERE subject = $1 AND active = 1 ORDER BY id LIMIT $2";
    tx.select(tail, params![subject, limit]).await
}

/// Lists grants that were not removed, of one subject or of all, by id; an empty action is any.
pub async fn grants_after(
    tx: &mut Tx,
    after: &str,
    subject: Option<Id>,
    action: &str,
    limit: i64,
) -> Result<Vec<Versioned<GrantRow>>, StoreError> {
    let tail = "WHERE id > $1 AND active = 1 AND ($2 = '' OR subject = $2) \
                AND ($3 = '' OR action = $3) ORDER BY id LIMIT $4";
    let subject = subject.map(|subject| subject.to_string()).unwrap_or_default();
    tx.select(tail, params![after.to_owned(), subject, action.to_owned(), limit]).await
}

/// Counts the grants of a subject that were not removed.
pub async fn count_grants(tx: &mut Tx, subject: Id) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM grants WHERE subject = $1 AND active = 1";
    let row = tx.query_one(sql, params![subject]).await?;
    row.ok_or(StoreError::Malformed)?.take()
}

/// Notes when an identity was last served; the newest note wins.
pub async fn note_identity_use(
    tx: &mut Tx,
    identity: IdentityId,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO identity_usage (id, last_used_at) VALUES ($1, $2) ON CONFLICT (id) \
               DO UPDATE SET last_used_at = excluded.last_used_at \
               WHERE identity_usage.last_used_at < excluded.last_used_at";
    tx.execute(sql, params![identity, at]).await.map(drop)
}

/// Tells when an identity was last served.
pub async fn identity_last_used(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT last_used_at FROM identity_usage WHERE id = $1";
    let row = tx.query_one(sql, params![identity]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Notes when a grant was last used; the newest note wins.
pub async fn note_grant_use(tx: &mut Tx, grant: GrantId, at: UnixMillis) -> Result<(), StoreError> {
    let sql = "INSERT INTO grant_usage (id, last_used_at) VALUES ($1, $2) ON CONFLICT (id) \
               DO UPDATE SET last_used_at = excluded.last_used_at \
               WHERE grant_usage.last_used_at < excluded.last_used_at";
    tx.execute(sql, params![grant, at]).await.map(drop)
}

/// Tells when a grant was last used.
pub async fn grant_last_used(
    tx: &mut Tx,
    grant: GrantId,
) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT last_used_at FROM grant_usage WHERE id = $1";
    let row = tx.query_one(sql, params![grant]).await?;
    row.map(|mut row| row.take()).transpose()
}
