//! What the verbs of a node share: connections to targets, and roles as they were last read.
//!
//! Roles are kept for moments, and the rows behind them fence whatever is decided on them. A pool
//! belongs to one version of one account.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::postgres::{ConnectionDefinition, PostgresTarget};
use super::template::RoleDefinition;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, Opened, Place};
use crate::store::database::{self, ConnectionRow, RoleRow, TargetRow};
use crate::store::keys::KeyOwner;
use crate::store::{Reader, Tx, Versioned};
use crate::types::{Entropy, ObjectId, ResourceName, Segment, TaskGroup};
use crate::vault::{Recent, Resource, View};

/// Targets that connections are kept to.
const POOLS: usize = 64;
/// Roles that are kept.
const ROLES: usize = 10_000;

/// What the database verbs of a node share; clones share it.
#[derive(Debug, Clone)]
pub struct Databases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entropy: Arc<dyn Entropy>,
    tasks: TaskGroup,
    pools: Mutex<Pools>,
    roles: Recent<ResourceName, KnownRole>,
    uses: AtomicU64,
    /// The authority epoch up to which the pools were looked at.
    looked: AtomicI64,
}

/// The connections that are kept, and how often all of them were forgotten: what was opened with a
/// password from before is not kept.
#[derive(Debug, Default)]
struct Pools {
    kept: HashMap<ObjectId, Pooled>,
    forgotten: u64,
}

#[derive(Debug)]
struct Pooled {
    version: i64,
    target: Arc<PostgresTarget>,
    /// Counts uses of all pools: the lowest was used longest ago.
    used: u64,
}

/// A role with its connection and the account that it goes to, as of one snapshot.
#[derive(Debug)]
pub(super) struct KnownRole {
    pub(super) connection: Versioned<ConnectionRow>,
    pub(super) target: Versioned<TargetRow>,
    pub(super) role: Versioned<RoleRow>,
    pub(super) settings: ConnectionDefinition,
    pub(super) definition: RoleDefinition,
}

impl Databases {
    /// Makes an empty set; `tasks` waits for the connections of changed targets to close.
    #[must_use]
    pub fn new(entropy: Arc<dyn Entropy>, tasks: TaskGroup) -> Self {
        Self(Arc::new(Inner {
            entropy,
            tasks,
            pools: Mutex::default(),
            roles: Recent::new(ROLES),
            uses: AtomicU64::new(0),
            looked: AtomicI64::new(0),
        }))
    }

    /// Finds a role.
    pub(super) async fn role(
        &self,
        view: &View,
        connection: &Segment,
        role: &Segment,
    ) -> Result<Option<Arc<KnownRole>>> {
        let name = role_name(connection, role)?;
        let moment = view.moment();
        if let Some(kept) = self.0.roles.find(&name, moment) {
            return Ok(Some(kept));
        }
        let wanted = name.clone();
        let known =
            view.read(move |tx| async move { KnownRole::load(tx, &wanted).await }.boxed()).await?;
        let Some(known) = known.map(Arc::new) else { return Ok(None) };
        self.0.roles.keep(name, moment, &known);
        Ok(Some(known))
    }

    /// Finds the connections to an account, or opens a set of them; with the keys used for it.
    pub(in crate::engines) async fn pool(
        &self,
        view: &View,
        row: &Versioned<TargetRow>,
    ) -> Result<(Arc<PostgresTarget>, Vec<KeyUse>)> {
        let used = self.0.uses.fetch_add(1, Ordering::Relaxed);
        let forgotten = {
            let mut pools = self.0.pools.lock();
            if let Some(pooled) = pools.kept.get_mut(&row.row.id)
                && pooled.version >= row.version
            {
                pooled.used = used;
                return Ok((Arc::clone(&pooled.target), Vec::new()));
            }
            pools.forgotten
        };
        let opened = password(view, row).await?;
        let settings = settings(&row.row)?;
        let target = Arc::new(self.connect(view, &settings, &opened.plaintext)?);
        let pooled = Pooled { version: row.version, target, used };
        Ok((self.keep(row.row.id, pooled, forgotten)?, opened.used))
    }

    /// Keeps connections, unless all were forgotten while these were opened. Of two that were
    /// opened at once for one account the first stays: closing it would end calls on their way.
    fn keep(
        &self,
        account: ObjectId,
        pooled: Pooled,
        forgotten: u64,
    ) -> Result<Arc<PostgresTarget>> {
        let (closed, kept) = {
            let mut pools = self.0.pools.lock();
            let first = pools.kept.get(&account).filter(|first| first.version >= pooled.version);
            if pools.forgotten != forgotten {
                (vec![pooled], Err(Error::Sealed))
            } else if let Some(first) = first {
                let target = Arc::clone(&first.target);
                (vec![pooled], Ok(target))
            } else {
                let kept = &mut pools.kept;
                let target = Arc::clone(&pooled.target);
                let replaced = kept.insert(account, pooled);
                let oldest = kept.iter().min_by_key(|(_, pooled)| pooled.used).map(|(id, _)| *id);
                let evicted = oldest.filter(|_| kept.len() > POOLS).and_then(|id| kept.remove(&id));
                (replaced.into_iter().chain(evicted).collect::<Vec<_>>(), Ok(target))
            }
        };
        self.end(closed);
        kept
    }

    fn end(&self, closed: Vec<Pooled>) {
        for pooled in closed {
            drop(self.0.tasks.spawn(async move { pooled.target.close().await }));
        }
    }

    /// Closes the connections to accounts whose passwords were forgotten, and forgets them too.
    pub(crate) fn forget(&self, accounts: &[ObjectId]) {
        self.close(accounts.iter().map(|account| (*account, i64::MAX)));
    }

    /// Closes every connection and forgets every password: the vault is sealed.
    pub(crate) fn forget_all(&self) {
        let all = {
            let mut pools = self.0.pools.lock();
            pools.forgotten = pools.forgotten.wrapping_add(1);
            std::mem::take(&mut pools.kept)
        };
        self.end(all.into_values().collect());
    }

    /// Forgets what was changed or removed on another node: where rights moved since the last
    /// look, the accounts that connections are kept to are read again.
    ///
    /// # Errors
    /// What the store answers.
    pub(crate) async fn forget_changed(&self, reader: &Reader) -> Result<()> {
        let kept: Vec<_> =
            self.0.pools.lock().kept.iter().map(|(id, pooled)| (*id, pooled.version)).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let looked = self.0.looked.load(Ordering::Acquire);
        let read = reader.view(move |tx| {
            async move {
                let (epoch, mut changed) = (tx.epoch().await?, Vec::new());
                if epoch != looked {
                    for (id, version) in kept {
                        // One that is not what was sealed is let go of as well, and it alone.
                        let row = tx.lookup_intact::<TargetRow>(&id).await?;
                        if row.is_none_or(|row| row.version > version) {
                            changed.push((id, version));
                        }
                    }
                }
                Ok((epoch, changed))
            }
            .boxed()
        });
        let (epoch, changed) = read.await?;
        self.close(changed);
        self.0.looked.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Closes the connections to accounts, up to a version of each.
    fn close(&self, accounts: impl IntoIterator<Item = (ObjectId, i64)>) {
        let closed: Vec<_> = {
            let mut pools = self.0.pools.lock();
            let close = |(id, version)| {
                let old = pools.kept.get(&id).is_some_and(|pooled| pooled.version <= version);
                if old { pools.kept.remove(&id) } else { None }
            };
            accounts.into_iter().filter_map(close).collect()
        };
        self.end(closed);
    }

    /// Makes a driver of its own, for a trial.
    pub(super) fn connect(
        &self,
        view: &View,
        settings: &ConnectionDefinition,
        password: &crate::types::SecretBytes,
    ) -> Result<PostgresTarget> {
        let entropy = Arc::clone(&self.0.entropy);
        Ok(PostgresTarget::new(view.vault_id(), settings, password, entropy)?)
    }
}

impl KnownRole {
    async fn load(tx: &mut Tx, name: &ResourceName) -> Result<Option<Self>> {
        let Some(role) = database::role_named(tx, name).await? else { return Ok(None) };
        let missing = || Error::internal("a role without its connection");
        let connection = tx.lookup::<ConnectionRow>(&role.row.connection).await?;
        let connection = connection.ok_or_else(missing)?;
        let target = tx.lookup::<TargetRow>(&connection.row.target).await?.ok_or_else(missing)?;
        let settings = settings(&target.row)?;
        let definition = serde_json::from_str(&role.row.definition).map_err(Error::internal)?;
        Ok(Some(Self { connection, target, role, settings, definition }))
    }

    /// The role as a decision sees it.
    pub(super) fn resource(&self, name: ResourceName) -> Resource {
        let mut resource = Resource::named(name).with_row(self.role.row.id.0, &self.role);
        resource.owner = Some(self.connection.row.owner.into());
        resource.rows.extend([self.connection.fence(), self.target.fence()]);
        resource
    }
}

/// Joins a role's name with its connection's.
pub(super) fn role_name(connection: &Segment, role: &Segment) -> Result<ResourceName> {
    ResourceName::join(connection.as_str(), &[role.as_str()])
}

/// Reads where an account is.
pub(super) fn settings(row: &TargetRow) -> Result<ConnectionDefinition> {
    serde_json::from_str(&row.settings).map_err(Error::internal)
}

/// Where a password belongs: it is sealed anew with every version of its row.
pub(super) const fn place(target: ObjectId, version: i64) -> Place {
    Place {
        table: "db_targets",
        column: "password",
        row: target.0,
        object: target.0,
        object_version: version,
    }
}

/// Decrypts an account's password.
pub(super) async fn password(view: &View, row: &Versioned<TargetRow>) -> Result<Opened> {
    let TargetRow { id, password_key, password, .. } = &row.row;
    let place = place(*id, row.version);
    view.open(KeyOwner::System, &place, *password_key, password).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, SecretBytes, SystemEntropy, VaultId};

    fn opened() -> Pooled {
        let settings = r#"{"host": "127.0.0.1", "port": 1, "database": "d", "username": "u"}"#;
        let settings = serde_json::from_str(settings).unwrap();
        let vault = VaultId(Id::from_bytes([1; 16]));
        let password = SecretBytes::new(b"of before".to_vec());
        let target = PostgresTarget::new(vault, &settings, &password, Arc::new(SystemEntropy));
        Pooled { version: 1, target: Arc::new(target.unwrap()), used: 0 }
    }

    #[tokio::test]
    async fn what_was_opened_while_all_was_forgotten_is_not_kept() {
        let databases = Databases::new(Arc::new(SystemEntropy), TaskGroup::default());
        let account = ObjectId(Id::from_bytes([2; 16]));
        let forgotten = databases.0.pools.lock().forgotten;
        databases.keep(account, opened(), forgotten).unwrap();
        databases.forget_all();
        assert!(databases.0.pools.lock().kept.is_empty());
        let late = databases.keep(account, opened(), forgotten);
        assert_eq!(late.err(), Some(Error::Sealed));
        assert!(databases.0.pools.lock().kept.is_empty());
        let forgotten = databases.0.pools.lock().forgotten;
        databases.keep(account, opened(), forgotten).unwrap();
        assert_eq!(databases.0.pools.lock().kept.len(), 1);
    }

    #[tokio::test]
    async fn of_two_that_open_at_once_both_use_the_first() {
        let databases = Databases::new(Arc::new(SystemEntropy), TaskGroup::default());
        let account = ObjectId(Id::from_bytes([2; 16]));
        let first = databases.keep(account, opened(), 0).unwrap();
        let second = databases.keep(account, opened(), 0).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let newer = Pooled { version: 2, ..opened() };
        let third = databases.keep(account, newer, 0).unwrap();
        assert!(!Arc::ptr_eq(&first, &third), "what it is reached with changed");
        let late = databases.keep(account, opened(), 0).unwrap();
        assert!(Arc::ptr_eq(&late, &third));
    }
}
