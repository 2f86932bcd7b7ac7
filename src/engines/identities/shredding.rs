//! What shredding an identity would take, or has taken, and who else uses that.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Names;
use super::show::{decided, resource};
use super::shred::check;
use super::shreds::{Shred, shred_of};
use super::state::read;
use crate::error::{Error, Result};
use crate::store::identities::{self, GrantRow};
use crate::store::keys::KeyOwner;
use crate::store::{Needs, Tx, secrets, shreds};
use crate::types::{GroupId, IdentityId, IdentityName, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, READS, Resource, Verb, View};

/// What is lost is counted up to here.
pub(super) const COUNTED: i64 = 1_000;
/// Actions that use what is under somebody's key.
const USES: [&str; 13] = [
    "secrets.get",
    "keys.encrypt",
    "keys.encrypt-stream",
    "keys.decrypt",
    "keys.decrypt-stream",
    "keys.rewrap",
    "keys.datakey",
    "keys.mac",
    "keys.verify-mac",
    "keys.sign",
    "keys.sign-artifact",
    "keys.backup",
    "database.credentials",
];
/// Grants of one action that are looked at, in parts, and readers that are shown.
const LOOKED_AT: usize = 5_000;
const PART: i64 = 500;
const SHOWN: usize = 100;

/// What shredding an identity destroys, each counted up to 1,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Versions of its key.
    pub key_versions: i64,
    /// Its secrets.
    pub secrets: i64,
    /// Versions of them that hold a value.
    pub secret_versions: i64,
    /// Its named keys that are sealed.
    pub named_keys: i64,
    /// Versions of its named keys that are in the HSM.
    pub hsm_keys: i64,
    /// Its connections, whose credentials are forgotten.
    pub connections: i64,
}

/// Somebody else who may use what is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reader {
    /// The name of an identity, or `group:` and that of a group.
    pub subject: String,
    /// The action.
    pub action: String,
    /// The pattern of the resources.
    pub resource: String,
}

/// What shredding an identity would take, or has taken.
#[derive(Debug, Clone)]
pub struct Shredding {
    /// That it was shredded; none where it was not.
    pub shred: Option<Shred>,
    /// What there is to be lost.
    pub losses: Losses,
    /// Who else may use it, at most 100.
    pub readers: Vec<Reader>,
    /// Why it would be refused now; empty where it would not.
    pub obstacle: String,
    /// Whether there is so much that not all of it was looked at.
    pub partial: bool,
}

impl Shredding {
    async fn read(tx: &mut Tx, id: IdentityId, now: UnixMillis) -> Result<Self> {
        let shred = shred_of(tx, id).await?;
        let found = read(tx, id).await?;
        let losses = losses(tx, id).await?;
        let (readers, more) = readers(tx, id).await?;
        let obstacle = match check(tx, &found.row, now).await {
            Err(Error::Precondition(why)) if shred.is_none() => why.into_owned(),
            Ok(_) | Err(Error::Precondition(_)) => String::new(),
            Err(other) => return Err(other),
        };
        let Losses { secrets, secret_versions, named_keys, .. } = losses;
        let counted = [secrets, secret_versions, named_keys].iter().all(|it| *it < COUNTED);
        Ok(Self { shred, losses, readers, obstacle, partial: more || !counted })
    }
}

async fn losses(tx: &mut Tx, id: IdentityId) -> Result<Losses> {
    let count = |len: usize| i64::try_from(len).map_err(Error::internal);
    Ok(Losses {
        key_versions: count(shreds::keys_of(tx, KeyOwner::Identity(id), COUNTED).await?.len())?,
        secrets: secrets::count_owned(tx, id, COUNTED).await?,
        secret_versions: shreds::count_values(tx, id, COUNTED).await?,
        named_keys: shreds::count_sealed(tx, id, COUNTED).await?,
        hsm_keys: count(shreds::versions_in_hsm(tx, id, COUNTED).await?.len())?,
        connections: count(shreds::connections_of(tx, id, COUNTED).await?.len())?,
    })
}

/// Lists who else may use what goes with an identity, and whether there is more than was looked at.
async fn readers(tx: &mut Tx, id: IdentityId) -> Result<(Vec<Reader>, bool)> {
    let names = shreds::names_of(tx, id, COUNTED).await?;
    let known: HashSet<&str> = names.iter().map(String::as_str).collect();
    let uses = |grant: &GrantRow| {
        let pattern = &grant.resource;
        grant.subject != id.0
            && if pattern.has_wildcard() {
                names.iter().any(|name| pattern.matches(name))
            } else {
                known.contains(pattern.as_str())
            }
    };
    let (mut readers, mut shown) = (Vec::new(), Names::default());
    let mut partial = i64::try_from(names.len()).is_ok_and(|found| found >= COUNTED);
    if names.is_empty() {
        return Ok((readers, partial));
    }
    for action in USES {
        let (mut after, mut looked_at) = (String::new(), 0_usize);
        loop {
            let grants = identities::grants_after(tx, &after, None, action, PART).await?;
            let Some(last) = grants.last() else { break };
            after = last.row.id.to_string();
            looked_at = looked_at.saturating_add(grants.len());
            for grant in grants.iter().filter(|grant| uses(&grant.row)) {
                readers.push(reader(tx, &mut shown, &grant.row).await?);
            }
            if looked_at >= LOOKED_AT || readers.len() > SHOWN {
                partial = true;
                break;
            }
        }
    }
    readers.sort_unstable();
    readers.truncate(SHOWN);
    Ok((readers, partial))
}

async fn reader(tx: &mut Tx, names: &mut Names, grant: &GrantRow) -> Result<Reader> {
    let subject = if grant.subject_is_group {
        format!("group:{}", names.group(tx, GroupId(grant.subject)).await?)
    } else {
        names.identity(tx, IdentityId(grant.subject)).await?.to_string()
    };
    let (action, resource) = (grant.action.clone(), grant.resource.to_string());
    Ok(Reader { subject, action, resource })
}

/// Shows what shredding an identity would take, or has taken.
#[derive(Debug, Clone)]
pub struct ShowShredding {
    /// Its name.
    pub name: IdentityName,
}

#[async_trait]
impl Verb for ShowShredding {
    const ACTION: &'static str = "identities.shredding";
    type Prepared = Shredding;
    type Output = Shredding;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Shredding> {
        let (id, now) = (decided(decision)?, view.now());
        view.read(move |tx| Shredding::read(tx, id, now).boxed()).await
    }
}

#[async_trait]
impl Operation for ShowShredding {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        shown: &Shredding,
        _: &Decision,
    ) -> Result<Shredding> {
        Ok(shown.clone())
    }
}
