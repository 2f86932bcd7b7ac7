//! The revocation list of each issuing CA: signed by a worker, shown to everybody.
//!
//! One row each for all nodes. Whoever replaces it says which version it saw, so that one node signs;
//! each node keeps the newest in memory for whoever asks. The login CA has no list: logins are
//! shown to this vault alone, which looks for each among those it issued.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::RwLock;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::crl::{KEPT_BYTES, Reason, RevocationList, Revoked};
use super::{Authority, AuthoritySlot, Role};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::crls::{self, CrlRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialId, IdentityState, RequestContext, ResourceName, Segment, Serial, UnixMillis,
};
use crate::vault::{Decision, Note, Operation, READS, Resource, TAKES_BACK, Verb, View};

/// How long a list may be used.
const LIFE: Duration = Duration::from_hours(24);
/// How long after its end a revoked certificate stays on the list: on one at least that was signed
/// after it (RFC 5280, section 3.3), also where that comes late.
const STAYS_MS: i64 = 2 * 3_600_000;
/// Certificates on a list at most: 8 MB of it, and 10 MiB of what is kept beside it. A list that
/// leaves one out would be a lie, so that there is none beyond.
const MOST: usize = 200_000;
/// Certificates on a list from which on somebody has to be told: three quarters of what it holds.
pub const MANY: usize = 150_000;
/// Certificates looked at at a time.
const STEP: i64 = 1_000;

/// Why a certificate that another took the place of was ended.
pub(super) const REPLACED: &str = "it was replaced";

/// The newest list of each issuing CA, as this node knows it.
#[derive(Debug, Clone, Default)]
pub struct CrlSlot(Arc<RwLock<BTreeMap<Segment, Arc<Versioned<CrlRow>>>>>);

impl CrlSlot {
    /// The newest list of an authority that this node has seen; none before the first.
    #[must_use]
    pub fn newest(&self, id: &Segment) -> Option<Arc<Versioned<CrlRow>>> {
        self.0.read().get(id).cloned()
    }

    /// The list that may be used the shortest; none before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Versioned<CrlRow>>> {
        self.0.read().values().min_by_key(|crl| crl.row.next_update).cloned()
    }

    /// The newest list of each other authority.
    #[must_use]
    pub fn others(&self, id: &Segment) -> Vec<Arc<Versioned<CrlRow>>> {
        let lists = self.0.read();
        lists.iter().filter(|(of, _)| *of != id).map(|(_, list)| Arc::clone(list)).collect()
    }

    /// Takes a list, unless a newer one is there.
    pub fn offer(&self, crl: Arc<Versioned<CrlRow>>) {
        let mut slot = self.0.write();
        if slot.get(&crl.row.id).is_none_or(|known| known.version < crl.version) {
            slot.insert(crl.row.id.clone(), crl);
        }
    }

    /// Forgets the lists of authorities that were retired.
    pub fn keep(&self, ids: &[Segment]) {
        self.0.write().retain(|id, _| ids.contains(id));
    }
}

/// Names the list of an issuing CA.
///
/// # Errors
/// [`Error::Internal`], never.
pub fn list_of(authority: &Authority) -> Result<Segment> {
    match authority.version() {
        1 => "issuing".parse(),
        version => format!("issuing-{version}").parse(),
    }
}

/// The end by time from which a certificate stands on the list of a moment.
#[must_use]
pub const fn listed_from(this_update: UnixMillis) -> UnixMillis {
    UnixMillis(this_update.0.saturating_sub(STAYS_MS))
}

fn resource() -> Result<ResourceName> {
    ResourceName::join("pki", &["crl"])
}

/// Tells how many certificates stand on a list, by what is kept of them.
#[must_use]
pub const fn listed(kept_bytes: usize) -> usize {
    kept_bytes / KEPT_BYTES
}

/// Signs the list that takes another's place.
#[derive(Debug)]
pub struct SignCrl {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The newest list that is known; none before the first.
    pub replaces: Option<Arc<Versioned<CrlRow>>>,
    /// The newest lists of the other authorities: what stands on one of them does not on this one.
    pub others: Vec<Arc<Versioned<CrlRow>>>,
    /// Where the store has it.
    pub place: Place,
    /// Whose list it is.
    pub id: Segment,
}

/// Where the newest list is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As it is known.
    Known,
    /// What is there claims this version and is not what was sealed; or nothing is there.
    Lost(Option<i64>),
}

/// A list that was signed and that nobody has yet.
#[derive(Debug)]
pub struct PreparedCrl {
    row: CrlRow,
    key: KeyUse,
}

#[async_trait]
impl Verb for SignCrl {
    const ACTION: &'static str = "pki.sign-crl";
    type Prepared = PreparedCrl;
    type Output = Versioned<CrlRow>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(resource()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<PreparedCrl> {
        let authorities = self.authorities.current()?;
        let was = self.replaces.as_ref().map(|was| &was.row);
        let before = was.map(|was| Revoked::decode(&was.listed)).transpose()?.unwrap_or_default();
        let now_s = view.now().seconds();
        let seconds = |at_s: i64| UnixMillis(at_s.saturating_mul(1_000));
        let this_update = seconds(now_s);
        let since = listed_from(this_update);
        let gone = || Error::Conflict("the authority of the list was retired".into());
        let authority = authorities.listing(&self.id).ok_or_else(gone)?;
        let issuer = authority.subject_der().to_vec();
        // One that cannot be read is its own authority's trouble: what it names is looked at here.
        let others = self.others.iter().filter_map(|other| Revoked::decode(&other.row.listed).ok());
        let elsewhere = others.flatten().map(|one| one.id).collect();
        let found = Found::new(since, before, elsewhere, issuer);
        let found = view.read(move |tx| find(tx, since, found).boxed()).await?;
        let Found { revoked, ended, contained, .. } = found.checked();
        let mut revoked: Vec<_> = revoked.into_values().collect();
        revoked.sort_unstable_by_key(|one| one.serial);
        // Past the seconds of today: higher than any before, also after a restore of the store.
        let number = was.map_or(0, |was| was.number.saturating_add(1)).max(now_s);
        let end = this_update.plus(LIFE)?.min(authority.not_after());
        let list = RevocationList {
            number: u64::try_from(number).map_err(Error::internal)?,
            this_update_s: now_s,
            next_update_s: end.seconds(),
            revoked,
        };
        let listed = Revoked::encode(&list.revoked);
        let (key, version) = (authority.key_label().to_owned(), authority.version());
        let key = KeyUse { key, version, purpose: "sign revocation list" };
        let signed = list.sign(view.hsm().as_ref(), &authorities, &self.id).await;
        let der = view.noted(&key, signed)?;
        let next_update = seconds(end.seconds());
        let id = self.id.clone();
        Ok(PreparedCrl {
            row: CrlRow { id, number, this_update, next_update, ended, contained, listed, der },
            key,
        })
    }

    fn note(&self, prepared: &PreparedCrl, note: &mut Note) {
        let CrlRow { number, listed: kept, .. } = &prepared.row;
        note.keys.push(prepared.key.clone());
        let detail = format!("list {number}: {} certificates", listed(kept.len()));
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for SignCrl {
    /// It tells everybody what was taken back.
    const NEEDS: Needs = TAKES_BACK;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &PreparedCrl,
        _: &Decision,
    ) -> Result<Versioned<CrlRow>> {
        let row = &prepared.row;
        Ok(match (&self.replaces, self.place) {
            (Some(was), Place::Known) => tx.update(was.version, row).await?,
            (None, Place::Known | Place::Lost(None)) => tx.insert(row).await?,
            // Versions count lists, and there are fewer of these than milliseconds.
            (Some(_) | None, Place::Lost(found)) => tx.put(found, ctx.now.0, row).await?,
        })
    }
}

/// What stands on a list.
#[derive(Debug)]
struct Found {
    revoked: HashMap<CredentialId, Revoked>,
    /// Of those that stood on the list before, who was not found revoked again.
    unproved: BTreeSet<CredentialId>,
    /// Who stands on the list of another authority.
    elsewhere: HashSet<CredentialId>,
    ended: i64,
    contained: i64,
    now_s: i64,
    /// The name of the authority: what others signed stands on their lists.
    issuer: Vec<u8>,
}

/// Looks for what was revoked, of what ends by time at a moment or after it.
///
/// Nothing that was revoked ever counts again, so that whoever stood on the list before stays on it
/// until its time is over, whatever the rows say now: they are found by columns, and whoever writes
/// to the database can hide one or make it look like another's. For the same reason only the rows of
/// those are read that no list names yet: one more costs little, however many there are.
async fn find(tx: &mut Tx, since: UnixMillis, mut found: Found) -> Result<Found> {
    found.ended = crls::sum_ended(tx, since).await?;
    found.contained = crls::sum_contained(tx, since).await?;
    let mut after = None;
    loop {
        let part = crls::ended_after(tx, since, after, STEP).await?;
        let ids = part.found.iter().map(|(_, id)| *id);
        let new: Vec<_> = ids.filter(|id| !found.knows(id, None)).collect();
        for Versioned { row, .. } in &crls::read(tx, &new).await? {
            let replaced = row.trouble == REPLACED;
            found.add(row, if replaced { Reason::Superseded } else { Reason::Unspecified })?;
        }
        let Some(next) = part.next else { break };
        after = Some(next);
    }
    let mut holders = HashMap::new();
    let mut after = None;
    loop {
        let part = crls::contained_after(tx, since, after, STEP).await?;
        let mut new = Vec::new();
        for (identity, id) in part.found {
            let holder = match holders.entry(identity) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let holder = tx.lookup_intact::<IdentityRow>(&identity).await?;
                    *unknown.insert(holder.map(|holder| reason(holder.row.state)))
                }
            };
            // Where it is not known whether the holder was contained, only what was listed before is.
            if let Some(reason) = holder
                && !found.knows(&id, Some(reason))
            {
                new.push(id);
            }
        }
        for Versioned { row, .. } in &crls::read(tx, &new).await? {
            if let Some(Some(reason)) = holders.get(&row.identity) {
                found.add(row, *reason)?;
            }
        }
        let Some(next) = part.next else { break };
        after = Some(next);
    }
    Ok(found)
}

/// Why a certificate stands on the list whose holder was contained and is in this state now.
fn reason(state: IdentityState) -> Reason {
    if state == IdentityState::Retired { Reason::Cessation } else { Reason::Unspecified }
}

impl Found {
    /// Begins with who stood on the list before and whose time is not over.
    fn new(
        since: UnixMillis,
        before: Vec<Revoked>,
        elsewhere: HashSet<CredentialId>,
        issuer: Vec<u8>,
    ) -> Self {
        let stay = before.into_iter().filter(|one| one.until_s >= since.seconds());
        let revoked: HashMap<_, _> = stay.map(|one| (one.id, one)).collect();
        let unproved = revoked.keys().copied().collect();
        let now_s = UnixMillis(since.0.saturating_add(STAYS_MS)).seconds();
        Self { revoked, unproved, elsewhere, ended: 0, contained: 0, now_s, issuer }
    }

    /// Tells whether no row need be read of what a walk found to be revoked: it stands on the list, for
    /// the same reason where that may have changed, or on that of another authority.
    fn knows(&mut self, id: &CredentialId, reason: Option<Reason>) -> bool {
        if self.elsewhere.contains(id) {
            return true;
        }
        let same = |one: &Revoked| reason.is_none_or(|reason| reason == one.reason);
        let knows = self.revoked.get(id).is_some_and(same);
        if knows {
            self.unproved.remove(id);
        }
        knows
    }

    fn add(&mut self, row: &CredentialRow, reason: Reason) -> Result<()> {
        let (_, parsed) = X509Certificate::from_der(&row.detail).map_err(Error::internal)?;
        if parsed.issuer().as_raw() != self.issuer {
            return Ok(());
        }
        let serial = Serial::from_bytes(parsed.raw_serial())?;
        let since_s = self.revoked.get(&row.id).map_or(self.now_s, |before| before.since_s);
        let until_s = row.expires_at.seconds();
        self.unproved.remove(&row.id);
        self.revoked.insert(row.id, Revoked { id: row.id, serial, since_s, until_s, reason });
        if self.revoked.len() > MOST {
            return Err(Error::Exhausted("more certificates are revoked than a list holds".into()));
        }
        Ok(())
    }

    /// Says what is wrong with it, and how near its bound it is.
    fn checked(self) -> Self {
        if let Some(certificate) = self.unproved.first() {
            tracing::error!(
                alarm = true,
                %certificate,
                certificates = self.unproved.len(),
                "what was revoked is no longer so in the store; it stays on the list"
            );
        }
        if self.revoked.len() >= MANY {
            let certificates = self.revoked.len();
            tracing::warn!(certificates, most = MOST, "the revocation list is nearly full");
        }
        self
    }
}

/// Shows the newest list.
#[derive(Debug)]
pub struct ShowCrl {
    /// Where it is kept.
    pub crls: CrlSlot,
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The version of the authority; 0 for the current one.
    pub version: i64,
}

#[async_trait]
impl Verb for ShowCrl {
    const ACTION: &'static str = "pki.crl";
    type Prepared = Arc<Versioned<CrlRow>>;
    type Output = Arc<Versioned<CrlRow>>;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(resource()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<Arc<Versioned<CrlRow>>> {
        let authorities = self.authorities.current()?;
        let wanted = |it: &&Authority| self.version == 0 || it.version() == self.version;
        let authority = authorities.of(Role::Issuing).find(wanted);
        let authority =
            authority.ok_or_else(|| Error::not_found("there is no such issuing authority"))?;
        let newest = self.crls.newest(&list_of(authority)?);
        newest.ok_or_else(|| Error::unavailable("no list was signed yet"))
    }
}

#[async_trait]
impl Operation for ShowCrl {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        crl: &Arc<Versioned<CrlRow>>,
        _: &Decision,
    ) -> Result<Arc<Versioned<CrlRow>>> {
        Ok(Arc::clone(crl))
    }
}
