//! Issuers of OIDC tokens, their rules, and the tokens that were used.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{CredentialId, Id, IdentityId, ObjectId, Segment, UnixMillis};

sealed_row! {
    /// An issuer of OIDC tokens that is believed.
    pub struct IssuerRow in "issuers", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// Its name, never used for another.
        pub name: Segment,
        /// What its tokens call it, exactly.
        pub url: String,
        /// What else is known of it, as JSON.
        pub definition: String,
        /// Whether people sign in by it.
        pub people: bool,
        /// False once it was removed.
        pub active: bool,
        /// A session from before it was raised is dead.
        pub revocation_epoch: i64,
        /// When a worker ends sessions of it that are dead; none where there are none.
        pub next_try: Option<UnixMillis>,
        /// When it was added.
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
    /// A rule: claims that an issuer's token must carry for an identity. It never changes but to be
    /// removed.
    pub struct RuleRow in "issuer_rules", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// The issuer.
        pub issuer: ObjectId,
        /// The identity that it yields; none where a template names it.
        pub identity: Option<IdentityId>,
        /// What it wants, as JSON.
        pub definition: String,
        /// False once it was removed.
        pub active: bool,
        /// When a worker ends the sessions that it gave; none where there are none.
        pub next_try: Option<UnixMillis>,
        /// When it was added.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was removed, or added.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// Which rule registered an identity.
    pub struct RegistrationRow in "issuer_registrations", seal 1 {
        /// The identity.
        pub id: IdentityId,
        /// The rule.
        pub rule: ObjectId,
        /// By which values of the token's claims.
        pub bound: String,
        /// When.
        pub created_at: UnixMillis,
    }
}

sealed_row! {
    /// What a cluster is asked with whether it still stands behind a token.
    pub struct ReviewerRow in "issuer_reviewers", seal 1 {
        /// The issuer.
        pub id: ObjectId,
        /// The credential, encrypted and bound to this row and the version that wrote it; empty once
        /// it was forgotten.
        pub credential: Vec<u8>,
        /// The key that it is encrypted under.
        pub credential_key: Id,
        /// When it was stored, or forgotten.
        pub changed_at: UnixMillis,
    }
}

const BY_URL: &str = "WHERE url = $1 AND active = 1 ORDER BY id LIMIT $2";
const OF_PEOPLE: &str = "WHERE active = 1 AND people = 1 ORDER BY name LIMIT $1";
const LISTED: &str = "WHERE name > $1 AND active = 1 ORDER BY name LIMIT $2";
const RULES_OF: &str = "WHERE identity = $1 AND issuer = $2 AND active = 1 \
                        AND identity IS NOT NULL ORDER BY id LIMIT $3";
const TEMPLATES: &str =
    "WHERE issuer = $1 AND active = 1 AND identity IS NULL ORDER BY id LIMIT $2";
const RULES: &str = "WHERE issuer = $1 AND active = 1 AND id > $2 ORDER BY id LIMIT $3";
// The rules of an issuer that was removed stay as they are, and yield nobody.
const COUNT_OF_IDENTITY: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM issuer_rules r \
     JOIN issuers i ON i.id = r.issuer AND i.active = 1 \
     WHERE r.identity = $1 AND r.active = 1 AND r.identity IS NOT NULL LIMIT $2) AS found";
const COUNT_TEMPLATES: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM issuer_rules \
     WHERE issuer = $1 AND active = 1 AND identity IS NULL LIMIT $2) AS found";
const COUNT_OF_ISSUER: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM issuer_rules \
     WHERE issuer = $1 AND active = 1 LIMIT $2) AS found";
const COUNT_REGISTERED: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM issuer_registrations \
     WHERE rule = $1 LIMIT $2) AS found";
const COUNT_ISSUERS: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM issuers WHERE active = 1 LIMIT $1) AS found";

/// Finds an issuer by its name, removed ones too.
pub async fn named(
    tx: &mut Tx,
    name: &Segment,
) -> Result<Option<Versioned<IssuerRow>>, StoreError> {
    tx.lookup_where("WHERE name = $1", params![*name]).await
}

/// Lists the issuers that call themselves so, always in one order.
pub async fn by_url(
    tx: &mut Tx,
    url: &str,
    limit: i64,
) -> Result<Vec<Versioned<IssuerRow>>, StoreError> {
    tx.select(BY_URL, params![url.to_owned(), limit]).await
}

/// Lists issuers by name.
pub async fn after(
    tx: &mut Tx,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<IssuerRow>>, StoreError> {
    tx.select(LISTED, params![after.to_owned(), limit]).await
}

/// Lists the issuers by which people sign in, by name.
pub async fn of_people(tx: &mut Tx, limit: i64) -> Result<Vec<Versioned<IssuerRow>>, StoreError> {
    tx.select(OF_PEOPLE, params![limit]).await
}

/// Lists the rules of an issuer that yield an identity.
pub async fn rules_of(
    tx: &mut Tx,
    identity: IdentityId,
    issuer: ObjectId,
    limit: i64,
) -> Result<Vec<Versioned<RuleRow>>, StoreError> {
    tx.select(RULES_OF, params![identity, issuer, limit]).await
}

/// Lists the rules of an issuer that name identities by a template.
pub async fn templates(
    tx: &mut Tx,
    issuer: ObjectId,
    limit: i64,
) -> Result<Vec<Versioned<RuleRow>>, StoreError> {
    tx.select(TEMPLATES, params![issuer, limit]).await
}

/// Lists the rules of an issuer by id.
pub async fn rules_after(
    tx: &mut Tx,
    issuer: ObjectId,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<RuleRow>>, StoreError> {
    tx.select(RULES, params![issuer, after.to_owned(), limit]).await
}

async fn count(
    tx: &mut Tx,
    sql: &str,
    params: Vec<crate::store::Value>,
) -> Result<i64, StoreError> {
    tx.query_one(sql, params).await?.ok_or(StoreError::Malformed)?.take()
}

/// Counts the rules that yield an identity, up to a bound.
pub async fn count_of_identity(
    tx: &mut Tx,
    identity: IdentityId,
    most: i64,
) -> Result<i64, StoreError> {
    count(tx, COUNT_OF_IDENTITY, params![identity, most]).await
}

/// Counts the templates of an issuer, up to a bound.
pub async fn count_templates(tx: &mut Tx, issuer: ObjectId, most: i64) -> Result<i64, StoreError> {
    count(tx, COUNT_TEMPLATES, params![issuer, most]).await
}

/// Counts the rules of an issuer, up to a bound.
pub async fn count_of_issuer(tx: &mut Tx, issuer: ObjectId, most: i64) -> Result<i64, StoreError> {
    count(tx, COUNT_OF_ISSUER, params![issuer, most]).await
}

/// Counts issuers, up to a bound.
pub async fn count_issuers(tx: &mut Tx, most: i64) -> Result<i64, StoreError> {
    count(tx, COUNT_ISSUERS, params![most]).await
}

/// Counts the identities that a rule registered, up to a bound.
pub async fn count_registered(tx: &mut Tx, rule: ObjectId, most: i64) -> Result<i64, StoreError> {
    count(tx, COUNT_REGISTERED, params![rule, most]).await
}

/// A token that was used, or a pod that logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// What may be used once: a hash that names token and issuer, or pod and issuer.
    pub id: String,
    /// The issuer.
    pub issuer: ObjectId,
    /// The rule that matched.
    pub rule: ObjectId,
    /// The session.
    pub credential: CredentialId,
    /// The issuer's revocation epoch.
    pub epoch: i64,
    /// Until when it is remembered: no shorter than the token or its session could be used.
    pub kept_until: UnixMillis,
}

/// Writes a hash as the table holds it.
#[must_use]
pub fn use_id(hash: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(hash)
}

/// Finds the session that a token or a pod stands for already.
pub async fn used(tx: &mut Tx, id: &str) -> Result<Option<CredentialId>, StoreError> {
    let sql = "SELECT credential FROM issuer_logins WHERE id = $1";
    let row = tx.query_one(sql, params![id.to_owned()]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Takes note of a use; false where it was noted before.
pub async fn take(tx: &mut Tx, used: &Use) -> Result<bool, StoreError> {
    let sql = "INSERT INTO issuer_logins (id, issuer, rule, credential, epoch, kept_until) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
    let params =
        params![used.id, used.issuer, used.rule, used.credential, used.epoch, used.kept_until];
    Ok(tx.execute(sql, params).await? == 1)
}

/// Puts another session in the place of the one that is there; false where it is there no more.
pub async fn replace(tx: &mut Tx, used: &Use, before: CredentialId) -> Result<bool, StoreError> {
    let sql = "UPDATE issuer_logins SET issuer = $1, rule = $2, credential = $3, epoch = $4, \
               kept_until = $5 WHERE id = $6 AND credential = $7";
    let Use { id, issuer, rule, credential, epoch, kept_until } = used;
    let params = params![*issuer, *rule, *credential, *epoch, *kept_until, *id, before];
    Ok(tx.execute(sql, params).await? == 1)
}

/// Tells whether uses are remembered that need not be any more.
pub async fn has_over(tx: &mut Tx, now: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM issuer_logins WHERE kept_until < $1 LIMIT 1";
    Ok(tx.query_one(sql, params![now]).await?.is_some())
}

/// Forgets such uses, a bounded number of them.
pub async fn purge(tx: &mut Tx, now: UnixMillis) -> Result<(), StoreError> {
    let sql = "DELETE FROM issuer_logins WHERE id IN (SELECT id FROM issuer_logins \
               WHERE kept_until < $1 ORDER BY kept_until LIMIT 1000)";
    tx.execute(sql, params![now]).await.map(drop)
}

const DUE: &str = "WHERE next_try IS NOT NULL AND next_try <= $1 ORDER BY next_try LIMIT $2";

/// Lists issuers of which sessions are to be ended. One that is not what was sealed holds up itself
/// alone.
pub async fn due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<IssuerRow>>, StoreError> {
    tx.select_intact(DUE, params![now, limit]).await
}

/// The same of rules.
pub async fn rules_due(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<RuleRow>>, StoreError> {
    tx.select_intact(DUE, params![now, limit]).await
}

/// Whose sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// Those that a rule gave.
    OfRule(ObjectId),
    /// Those that an issuer's tokens got before its epoch was raised to this.
    OfIssuer(ObjectId, i64),
}

/// Finds such sessions that have not ended. Says so by columns alone: whoever ends one looks at its
/// row.
pub async fn dead(tx: &mut Tx, of: Dead, limit: i64) -> Result<Vec<CredentialId>, StoreError> {
    const HEAD: &str = "SELECT l.credential FROM issuer_logins l JOIN credentials c \
                        ON c.id = l.credential WHERE c.state = 'active' AND ";
    let (tail, params) = match of {
        Dead::OfRule(rule) => ("l.rule = $1 LIMIT $2", params![rule, limit]),
        Dead::OfIssuer(issuer, epoch) => {
            ("l.issuer = $1 AND l.epoch < $2 LIMIT $3", params![issuer, epoch, limit])
        }
    };
    let rows = tx.query(&format!("{HEAD}{tail}"), params).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SealedRow as _;

    #[test]
    fn what_one_identity_asks_reads_no_other_rule() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let schema = include_str!("../../migrations/sqlite/0007_issuers.sql");
        connection.execute_batch(schema).unwrap();
        let rule = |tail| RuleRow::TABLE.select(tail);
        for (sql, index) in [
            (IssuerRow::TABLE.select(BY_URL), "issuers_by_url (url=?"),
            (IssuerRow::TABLE.select(LISTED), "issuers_active (name>?"),
            (IssuerRow::TABLE.select(OF_PEOPLE), "issuers_of_people (people=?"),
            (rule(RULES_OF), "issuer_rules_of_identity (identity=? AND issuer=?"),
            (rule(TEMPLATES), "issuer_rules_by_template (issuer=? AND identity=?"),
            (rule(RULES), "issuer_rules_of_issuer (issuer=? AND id>?"),
            (rule(DUE), "issuer_rules_due (next_try"),
        ] {
            let sql = sql.replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let some = [1, 2, 3, 4].iter().take(plan.parameter_count());
            let steps =
                plan.query_map(rusqlite::params_from_iter(some), |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            assert!(steps.len() == 1 && steps[0].contains(index), "{index}: {steps:?}");
        }
    }
}
