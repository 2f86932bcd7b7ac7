//! The issuing CA's revocation list: signed by a worker, shown to everybody.
//!
//! One row for all nodes. Whoever replaces it says which version it saw, so that one node signs;
//! each node keeps the newest in memory for whoever asks. The login CA has no list: logins are
//! shown to this vault alone, which looks for each among those it issued.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::RwLock;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::crl::{Reason, RevocationList, Revoked, dates};
use super::{AuthoritySlot, Role};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::crls::{self, CrlRow};
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityId, IdentityState, RequestContext, ResourceName, Segment, Serial, UnixMillis,
};
use crate::vault::{Decision, Note, Operation, READS, Resource, TAKES_BACK, Verb, View};

/// How long a list may be used.
const LIFE: Duration = Duration::from_hours(24);
/// How long after its end a revoked certificate stays on the list: on one at least that was signed
/// after it (RFC 5280, section 3.3), also where that comes late.
const STAYS_MS: i64 = 2 * 3_600_000;
/// Certificates on a list at most: 10 MiB. A list that leaves one out would be a lie, so that there
/// is none beyond.
const MOST: usize = 200_000;
/// Rows read at a time: each holds a certificate.
const STEP: i64 = 1_000;

/// Why a certificate that another took the place of was ended.
pub(super) const REPLACED: &str = "it was replaced";

/// The newest list, as this node knows it.
#[derive(Debug, Clone, Default)]
pub struct CrlSlot(Arc<RwLock<Option<Arc<Versioned<CrlRow>>>>>);

impl CrlSlot {
    /// The newest list that this node has seen; none before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Versioned<CrlRow>>> {
        self.0.read().clone()
    }

    /// Takes a list, unless a newer one is there.
    pub fn offer(&self, crl: Arc<Versioned<CrlRow>>) {
        let mut slot = self.0.write();
        if slot.as_ref().is_none_or(|known| known.version < crl.version) {
            *slot = Some(crl);
        }
    }
}

/// Names the issuing CA's list.
///
/// # Errors
/// [`Error::Internal`], never.
pub fn issuing() -> Result<Segment> {
    "issuing".parse()
}

/// The end by time from which a certificate stands on the list of a moment.
#[must_use]
pub const fn listed_from(this_update: UnixMillis) -> UnixMillis {
    UnixMillis(this_update.0.saturating_sub(STAYS_MS))
}

fn resource() -> Result<ResourceName> {
    ResourceName::join("pki", &["crl"])
}

/// Signs the list that takes another's place.
#[derive(Debug)]
pub struct SignCrl {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// The newest list; none before the first.
    pub replaces: Option<Arc<Versioned<CrlRow>>>,
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
        let since = was.map(|was| dates(&was.der)).transpose()?.unwrap_or_default();
        let now_s = view.now().seconds();
        let seconds = |at_s: i64| UnixMillis(at_s.saturating_mul(1_000));
        let this_update = seconds(now_s);
        let Found { reasons, ended, contained } = view
            .read(move |tx| async move { find(tx, listed_from(this_update)).await }.boxed())
            .await?;
        let revoked = reasons.into_iter().map(|(serial, reason)| Revoked {
            serial,
            since_s: since.get(&serial).copied().unwrap_or(now_s),
            reason,
        });
        // Past the seconds of today: higher than any before, also after a restore of the store.
        let number = was.map_or(0, |was| was.number.saturating_add(1)).max(now_s);
        let end = this_update.plus(LIFE)?.min(authorities.issuing.not_after());
        let list = RevocationList {
            number: u64::try_from(number).map_err(Error::internal)?,
            this_update_s: now_s,
            next_update_s: end.seconds(),
            revoked: revoked.collect(),
        };
        let der = list.sign(view.hsm().as_ref(), &authorities).await?;
        let next_update = seconds(end.seconds());
        let id = issuing()?;
        let key = view.keyring().hsm_key(Role::Issuing.purpose())?;
        Ok(PreparedCrl {
            row: CrlRow { id, number, this_update, next_update, ended, contained, der },
            key: KeyUse { key: key.label, version: key.version, purpose: "sign revocation list" },
        })
    }

    fn note(&self, prepared: &PreparedCrl, note: &mut Note) {
        let CrlRow { number, ended, contained, .. } = &prepared.row;
        note.keys.push(prepared.key.clone());
        let detail = format!("list {number}: {ended} revoked, {contained} contained");
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for SignCrl {
    /// It tells everybody what was taken back.
    const NEEDS: Needs = TAKES_BACK;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &PreparedCrl,
        _: &Decision,
    ) -> Result<Versioned<CrlRow>> {
        Ok(match &self.replaces {
            None => tx.insert(&prepared.row).await?,
            Some(was) => tx.update(was.version, &prepared.row).await?,
        })
    }
}

/// What stands on a list.
#[derive(Debug, Default)]
struct Found {
    reasons: BTreeMap<Serial, Reason>,
    ended: i64,
    contained: i64,
}

/// Looks for what was revoked, of what ends by time at a moment or after it.
async fn find(tx: &mut Tx, since: UnixMillis) -> Result<Found> {
    let mut found = Found::default();
    let (mut end, mut id) = (since, String::new());
    loop {
        let rows = crls::ended_after(tx, (end, &id), STEP).await?;
        let Some(last) = rows.last() else { break };
        (end, id) = (last.row.expires_at, last.row.id.to_string());
        for Versioned { row, .. } in &rows {
            let replaced = row.trouble == REPLACED;
            let reason = if replaced { Reason::Superseded } else { Reason::Unspecified };
            found.add(row, reason)?;
            found.ended = found.ended.saturating_add(1);
        }
    }
    let mut retired: HashMap<IdentityId, bool> = HashMap::new();
    let (mut identity, mut id) = (String::new(), String::new());
    loop {
        let rows = crls::contained_after(tx, since, (&identity, &id), STEP).await?;
        let Some(last) = rows.last() else { break };
        (identity, id) = (last.row.identity.to_string(), last.row.id.to_string());
        for Versioned { row, .. } in &rows {
            let known = retired.get(&row.identity).copied();
            let gone = if let Some(gone) = known {
                gone
            } else {
                let holder = tx.lookup::<IdentityRow>(&row.identity).await?;
                let holder = holder.ok_or_else(|| Error::internal("nobody's certificate"))?;
                let gone = holder.row.state == IdentityState::Retired;
                retired.insert(row.identity, gone);
                gone
            };
            found.add(row, if gone { Reason::Cessation } else { Reason::Unspecified })?;
            found.contained = found.contained.saturating_add(1);
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, row: &CredentialRow, reason: Reason) -> Result<()> {
        let (_, parsed) = X509Certificate::from_der(&row.detail).map_err(Error::internal)?;
        self.reasons.insert(Serial::from_bytes(parsed.raw_serial())?, reason);
        if self.reasons.len() > MOST {
            return Err(Error::Exhausted("more certificates are revoked than a list holds".into()));
        }
        Ok(())
    }
}

/// Shows the newest list.
#[derive(Debug)]
pub struct ShowCrl {
    /// Where it is kept.
    pub crls: CrlSlot,
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
        self.crls.current().ok_or_else(|| Error::unavailable("no list was signed yet"))
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
