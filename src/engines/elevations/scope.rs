//! What was asked for, frozen: approvals bind to the hash of its one encoding.

use crate::crypto::{Encoder, sha256};
use crate::error::{Error, Result};
use crate::store::identities::{group_named, identity_named};
use crate::store::{SealedRow, Tx, Versioned, changers, database, named_keys, pki, secrets};
use crate::types::{
    ElevationId, IdentityId, ObjectId, Owner, ResourceName, Segment, UnixMillis, VaultId,
};
use crate::vault::{ElevationScope, StandsOn};

/// Pairs of an action and a resource that one elevation may hold: all of them are read for each of
/// its decisions.
const PAIRS: usize = 256;

/// Computes what approvals bind to.
pub(super) fn hash(
    scope: &ElevationScope,
    vault: VaultId,
    of: (ElevationId, IdentityId, ObjectId),
) -> [u8; 32] {
    let (id, identity, role) = of;
    let mut all = Encoder::new("strongroom/elevation/v1")
        .bytes(vault.0.as_bytes())
        .bytes(id.0.as_bytes())
        .bytes(identity.0.as_bytes())
        .bytes(role.0.as_bytes());
    for texts in [&scope.resources, &scope.actions] {
        all = texts.iter().fold(all.list(texts.len()), |all, text| all.text(text));
    }
    all = all.integer(scope.ttl_s);
    all = match scope.start_ms {
        Some(at) => all.integer(at),
        None => all.null(),
    };
    all = all.text(&scope.reason).text(&scope.ticket);
    all = match &scope.extends {
        Some(extends) => all.text(extends),
        None => all.null(),
    };
    all = all.integer(i64::from(scope.standing)).list(scope.stands_on.len());
    for row in &scope.stands_on {
        all = all.text(&row.table).text(&row.id).integer(row.version);
    }
    sha256(&all.finish())
}

/// Checks that a scope allows something, and not too much at once.
pub(super) fn check(scope: &ElevationScope) -> Result<()> {
    let pairs = scope.pairs()?.len();
    if pairs == 0 {
        return Err(Error::invalid(
            "the role allows nothing on these resources; administrative actions need a \
             resource without a wildcard",
        ));
    }
    if pairs > PAIRS {
        return Err(Error::invalid(format!(
            "this is more than {PAIRS} actions on resources at once; ask for less"
        )));
    }
    Ok(())
}

/// Who owns something that is asked for, since when, and who made it so.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) owner: Owner,
    pub(super) since: UnixMillis,
    pub(super) by: Vec<String>,
}

/// What is known of the resources that a request names.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) stands_on: Vec<StandsOn>,
    /// Of each resource its owner, where it has one.
    pub(super) owners: Vec<Option<Owned>>,
}

impl Resources {
    /// Reads the rows of what is named exactly: of a database resource its connection and role.
    pub(super) async fn read(tx: &mut Tx, patterns: &[String]) -> Result<Self> {
        let mut found = Self::default();
        for pattern in patterns {
            let owned = found.add(tx, pattern).await?;
            found.owners.push(owned);
        }
        Ok(found)
    }

    async fn add(&mut self, tx: &mut Tx, pattern: &str) -> Result<Option<Owned>> {
        let (noun, path) = pattern.split_once('/').unwrap_or((pattern, ""));
        // A wildcard is no segment: what it covers has no row of its own.
        let mut segments = path.split('/').map_while(|part| part.parse::<Segment>().ok());
        let mut found = None;
        match (noun, segments.next()) {
            ("database", Some(connection)) => {
                if let Some(row) = database::connection_named(tx, &connection).await? {
                    let (owner, since) = (row.row.owner.into(), row.row.created_at);
                    found = Some(Owned { owner, since, by: vec![row.row.created_by.clone()] });
                    self.note(&row);
                }
                if let Some(role) = segments.next() {
                    let name = ResourceName::join(connection.as_str(), &[role.as_str()])?;
                    if let Some(row) = database::role_named(tx, &name).await? {
                        self.note(&row);
                    }
                }
            }
            ("identities" | "tokens" | "leases", Some(_)) => {
                if let Ok(name) = path.parse()
                    && let Some(row) = identity_named(tx, &name).await?
                {
                    let (owner, since) = (row.row.owner, row.row.owned_since);
                    let changers = changers::all(&row.row.changers).map(ToOwned::to_owned);
                    let by = std::iter::once(row.row.created_by.clone()).chain(changers).collect();
                    found = Some(Owned { owner, since, by });
                    self.note(&row);
                }
            }
            ("groups", Some(name)) => {
                if let Some(row) = group_named(tx, &name).await? {
                    self.note(&row);
                }
            }
            ("secrets", Some(_)) => {
                if let Ok(path) = path.parse()
                    && let Some(row) = secrets::secret_named(tx, &path).await?
                {
                    let (owner, since) = (Owner::Identity(row.row.owner), row.row.owned_since);
                    found = Some(Owned { owner, since, by: vec![row.row.owned_by.clone()] });
                    self.note(&row);
                }
            }
            ("keys", Some(_)) => {
                if let Ok(name) = path.parse()
                    && let Some(row) = named_keys::key_named(tx, &name).await?
                {
                    let (owner, since) = (Owner::Identity(row.row.owner), row.row.owned_since);
                    found = Some(Owned { owner, since, by: vec![row.row.owned_by.clone()] });
                    self.note(&row);
                }
            }
            ("pki", Some(name)) => {
                if let Some(row) = pki::role_named(tx, &name).await? {
                    self.note(&row);
                }
            }
            (_, _) => {}
        }
        Ok(found)
    }

    fn note<T: SealedRow>(&mut self, row: &Versioned<T>) {
        self.stands_on.push(stands_on(row));
    }
}

/// Points at a row as it is.
pub(super) fn stands_on<T: SealedRow>(row: &Versioned<T>) -> StandsOn {
    let fence = row.fence();
    StandsOn { table: fence.table.name.to_owned(), id: fence.key, version: fence.version }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    fn scope() -> ElevationScope {
        ElevationScope {
            resources: vec!["database/analytics/*".to_owned(), "pki/web".to_owned()],
            actions: vec!["database.credentials".to_owned(), "pki.put-role".to_owned()],
            ttl_s: 60,
            start_ms: None,
            reason: "r".to_owned(),
            ticket: "t".to_owned(),
            extends: None,
            standing: false,
            stands_on: vec![StandsOn { table: "a".to_owned(), id: "b".to_owned(), version: 1 }],
        }
    }

    #[test]
    fn whatever_changes_changes_the_hash() {
        type Change = fn(&mut ElevationScope);
        let changes: &[Change] = &[
            |it| it.resources[0].push('x'),
            |it| it.resources.swap(0, 1),
            |it| drop(it.actions.pop()),
            |it| it.actions.push(it.resources.pop().unwrap()),
            |it| it.ttl_s = 61,
            |it| it.start_ms = Some(60),
            |it| it.reason = "rt".to_owned(),
            |it| std::mem::swap(&mut it.reason, &mut it.ticket),
            |it| it.extends = Some(String::new()),
            |it| it.standing = true,
            |it| it.stands_on[0].version = 2,
            |it| it.stands_on[0].id = "c".to_owned(),
            |it| it.stands_on[0].table = "c".to_owned(),
            |it| it.stands_on.clear(),
        ];
        let id = |n| Id::from_bytes([n; 16]);
        let of = |n: u8| (ElevationId(id(n)), IdentityId(id(2)), ObjectId(id(3)));
        let mut seen = vec![hash(&scope(), VaultId(id(9)), of(1))];
        let json = serde_json::to_string(&scope()).unwrap();
        assert_eq!(ElevationScope::read(&json), Ok(scope()));
        seen.push(hash(&scope(), VaultId(id(8)), of(1)));
        seen.push(hash(&scope(), VaultId(id(9)), of(4)));
        for change in changes {
            let mut one = scope();
            change(&mut one);
            seen.push(hash(&one, VaultId(id(9)), of(1)));
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn actions_meet_resources_of_their_noun_and_administer_none_with_a_wildcard() {
        let mut one = scope();
        let pairs = one.pairs().unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(
            (pairs[0].0, pairs[0].1.as_str()),
            ("database.credentials", "database/analytics/*")
        );
        one.actions = vec!["database.put-role".to_owned()];
        assert!(check(&one).is_err());
        one.resources = vec!["database/analytics/reader".to_owned()];
        assert!(check(&one).is_ok());
        one.resources = (0..257).map(|i| format!("database/a/r{i}")).collect();
        assert!(check(&one).is_err());
    }
}
