//! Founding a vault: keys, authorities and the first human, in one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::node::Ingredients;
use crate::audit::{self, CallerFact, DecisionFact, Draft, Ending, EntryFacts, Field, RecordCodec};
use crate::crypto::sha256;
use crate::engines::identities::Lifecycle;
use crate::engines::pki::{
    Authority, Certificate, Deployment, Founder, Request, SpiffeId, Template, TrustDomain, issue,
};
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::{Genesis, Keyring, KeyringError, OnFound};
use crate::store::credentials::CredentialRow;
use crate::store::identities::{GroupRow, IdentityRow, MemberRow};
use crate::store::keys::{self, Check, HsmPurpose, VaultRow};
use crate::store::notices;
use crate::store::recovery::RecoveryRow;
use crate::store::{
    Change, Entry, Job, Needs, Reader, RowSealer, Settled, Store, Tx, Work, Writer, Writes,
};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, Entropy, GroupId, Id, IdentityId, IdentityName,
    IdentityState, Kind, RequestId, ResourceName, SecretBytes, Serial, TaskGroup, Tier, UnixMillis,
    VaultId,
};
use crate::vault::ADMINISTRATORS;

/// What is founded.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Trust domain of its SPIFFE ids.
    pub trust_domain: TrustDomain,
    /// Name of its log.
    pub origin: String,
    /// Whether it is marked as development, for ever.
    pub dev: bool,
    /// Who may log in first.
    pub first: First,
}

/// The administrators of a development vault.
pub(super) const ADMIN: &str = "admin";
pub(super) const SECOND: &str = "second";

/// Who may log in first.
#[derive(Debug, Clone)]
pub enum First {
    /// The human `admin`, an administrator: for development alone.
    Administrator(Request),
    /// The same and the human `second`, another: one person can play both sides of an approval.
    Administrators(Request),
    /// The bootstrap certificate: registers administrators for 24 h, and no more.
    Bootstrap(Request),
}

/// What founding yields.
#[derive(Debug, Clone)]
pub struct Founded {
    /// The vault's id.
    pub vault: VaultId,
    /// The first login certificate, PEM.
    pub certificate_pem: String,
    /// What relying parties trust, PEM.
    pub root_pem: String,
}

/// Founds a vault in an empty store.
///
/// # Errors
/// [`Error::AlreadyExists`] when the store holds one; [`Error::Precondition`] for an administrator
/// made by hand outside development; what HSM and store answer.
pub async fn found(parts: &Ingredients, founding: &Founding, pin: SecretBytes) -> Result<Founded> {
    if !founding.dev && !matches!(founding.first, First::Bootstrap(_)) {
        return Err(Error::precondition(
            "only a development vault is founded with an administrator; others with a bootstrap",
        ));
    }
    let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
    let tasks = TaskGroup::default();
    let batches = Arc::clone(&codec) as Arc<dyn crate::store::BatchCodec>;
    let (reader, writer) =
        Store::open(&parts.location, &parts.node, Arc::clone(&sealer), batches, &tasks).await?;
    let there = reader
        .view(|tx| {
            Box::pin(async {
                let found = keys::foundation(tx, &Check::Nothing).await?;
                Ok((found.is_some(), keys::store_id(tx).await?))
            })
        })
        .await?;
    let (false, store) = there else {
        return Err(Error::AlreadyExists("the store holds a vault already".into()));
    };
    let keyring = Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), sealer);
    let done = async {
        let genesis = begin(parts, founding, &keyring, VaultId(store), pin).await?;
        let founded = commit(parts, founding, &keyring, &codec, &writer, genesis).await?;
        place(&reader, &codec, &writer).await?;
        Ok(founded)
    };
    let done = done.await;
    drop((reader, writer));
    keyring.seal().await?;
    tasks.shutdown().await;
    done
}

/// Makes the vault's keys. A vault has its store's id, so that keys which a founding left in the
/// token are taken over by the store that it was begun in, and by no other: two vaults would sign
/// with one key. Keys that may not be taken over stay behind unused, and the vault gets a new id.
async fn begin(
    parts: &Ingredients,
    founding: &Founding,
    keyring: &Keyring,
    store: VaultId,
    pin: SecretBytes,
) -> Result<(VaultId, Genesis)> {
    let now = parts.clock.now();
    let vault = VaultRow {
        id: store,
        trust_domain: founding.trust_domain.as_str().to_owned(),
        dev: founding.dev,
        origin: founding.origin.clone(),
        created_at: now,
        restore_epoch: 0,
        restored_at: UnixMillis(0),
    };
    match keyring.create(vault.clone(), pin.clone(), OnFound::Resume).await {
        Err(KeyringError::Exists(label)) => {
            tracing::warn!(label, "a founding left keys in the token; they stay unused");
        }
        done => return Ok((store, done?)),
    }
    let id = VaultId(Id::ordered(now, parts.entropy.as_ref())?);
    let genesis = keyring.create(VaultRow { id, ..vault }, pin, OnFound::Refuse).await?;
    Ok((id, genesis))
}

async fn commit(
    parts: &Ingredients,
    founding: &Founding,
    keyring: &Keyring,
    codec: &RecordCodec,
    writer: &Writer,
    (id, mut genesis): (VaultId, Genesis),
) -> Result<Founded> {
    let now = parts.clock.now();
    codec.set_key(Some(genesis.keys.batch.clone()));
    let of = (&founding.trust_domain, founding.dev);
    let made = make_authorities(parts, of, keyring, id, now).await?;
    for (purpose, authority) in &made {
        genesis.set_certificate(*purpose, authority.certificate_der());
    }
    let login = made.get(&HsmPurpose::CaLogin).ok_or(Error::Internal)?;
    let root = made.get(&HsmPurpose::CaRoot).ok_or(Error::Internal)?;
    let first = FirstRows::make(parts, founding, login, now).await?;
    let certificate_pem = first.pem.clone();
    let entry = draft(parts, &first, now)?;
    let (reply, settled) = oneshot::channel();
    let work = Found { genesis, first, entry, changes: Vec::new(), reply };
    let needs = Needs { writes: Writes::Many, bumps: true, urgent: false };
    writer.submit(Job { fence: None, needs, work: Box::new(work) }).await?;
    match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
        Settled::Durable { outcome, .. } => outcome?,
        Settled::Moved => return Err(Error::internal("founding has no fence")),
        Settled::Lost(error) => return Err(error.into()),
    }
    keyring.founded().await?;
    Ok(Founded { vault: id, certificate_pem, root_pem: root.pem() })
}

/// Gives the founding its place in the log, before anything else can have one.
async fn place(reader: &Reader, codec: &Arc<RecordCodec>, writer: &Writer) -> Result<()> {
    let Some(step) = audit::plan(reader, codec).await? else { return Ok(()) };
    let (step, settled) = step.watched();
    let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
    writer.submit(Job { fence: None, needs, work: Box::new(step) }).await?;
    match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
        Settled::Durable { outcome, .. } => outcome,
        Settled::Moved => Err(Error::internal("the log's step has no fence")),
        Settled::Lost(error) => Err(error.into()),
    }
}

/// Makes the certificates of the authorities whose keys are in the HSM.
pub(super) async fn make_authorities(
    parts: &Ingredients,
    (trust_domain, dev): (&TrustDomain, bool),
    keyring: &Keyring,
    id: VaultId,
    now: UnixMillis,
) -> Result<BTreeMap<HsmPurpose, Authority>> {
    let text = id.to_string();
    // The end of the id is random; its beginning is a clock.
    let short = text.get(text.len().saturating_sub(8)..).unwrap_or(&text);
    let deployment = if dev { Deployment::Development } else { Deployment::Production };
    let hsm: &dyn Hsm = parts.hsm.as_ref();
    let founder = Founder { hsm, vault: short, deployment, trust_domain, now };
    let mut infos = BTreeMap::new();
    for purpose in [HsmPurpose::CaRoot, HsmPurpose::CaIssuing, HsmPurpose::CaLogin] {
        let label = keyring.hsm_key(purpose)?.label;
        let info = hsm.lookup_key(&label).await?.ok_or(Error::Internal)?;
        infos.insert(purpose, info);
    }
    let info = |purpose| infos.get(&purpose).ok_or(Error::Internal);
    let entropy = parts.entropy.as_ref();
    let root = founder.root(info(HsmPurpose::CaRoot)?, &Serial::random(entropy)?).await?;
    let serial = Serial::random(entropy)?;
    let issuing = founder.issuing(info(HsmPurpose::CaIssuing)?, &root, &serial).await?;
    let login = founder.login(info(HsmPurpose::CaLogin)?, &Serial::random(entropy)?).await?;
    Ok(BTreeMap::from([
        (HsmPurpose::CaRoot, root),
        (HsmPurpose::CaIssuing, issuing),
        (HsmPurpose::CaLogin, login),
    ]))
}

/// The rows of who may log in first.
struct FirstRows {
    identity: IdentityRow,
    group: GroupRow,
    member: Option<MemberRow>,
    /// Another administrator, whom nobody has a login for yet.
    second: Option<(IdentityRow, MemberRow)>,
    credential: CredentialRow,
    pem: String,
}

impl First {
    /// What it is, what it is called, and its key.
    pub(super) const fn parts(&self) -> (Kind, &'static str, &Request) {
        match self {
            Self::Administrator(request) | Self::Administrators(request) => {
                (Kind::Human, ADMIN, request)
            }
            Self::Bootstrap(request) => (Kind::Bootstrap, "bootstrap", request),
        }
    }
}

impl FirstRows {
    async fn make(
        parts: &Ingredients,
        founding: &Founding,
        login: &Authority,
        now: UnixMillis,
    ) -> Result<Self> {
        let (kind, name, request) = founding.first.parts();
        let entropy = parts.entropy.as_ref();
        let name: IdentityName = name.parse()?;
        let id = IdentityId(Id::ordered(now, entropy)?);
        let spiffe =
            SpiffeId { trust_domain: founding.trust_domain.clone(), kind, name: name.clone() };
        let template = Template::login(request, &spiffe, None)?;
        let serial = Serial::random(entropy)?;
        let certificate = issue(parts.hsm.as_ref(), login, &template, &serial, now).await?;
        let by = id.to_string();
        let group_id = GroupId(Id::ordered(now, entropy)?);
        let member =
            (kind == Kind::Human).then(|| member_of(entropy, group_id, id, now)).transpose()?;
        let second = match founding.first {
            First::Administrators(_) => {
                let id = IdentityId(Id::ordered(now, entropy)?);
                Some((
                    identity(id, SECOND.parse()?, kind, now)?,
                    member_of(entropy, group_id, id, now)?,
                ))
            }
            First::Administrator(_) | First::Bootstrap(_) => None,
        };
        let resource = ResourceName::join("identities", &[name.as_str()])?;
        let bootstrap = kind == Kind::Bootstrap;
        Ok(Self {
            identity: IdentityRow {
                expires_at: bootstrap.then_some(certificate.not_after),
                ..identity(id, name, kind, now)?
            },
            group: GroupRow {
                id: group_id,
                name: ADMINISTRATORS.parse()?,
                purpose: "humans who administer this vault".to_owned(),
                authority_rev: 1,
                created_at: now,
                created_by: by.clone(),
                changed_at: now,
                changed_by: by,
            },
            member,
            second,
            credential: login_row(parts, id, resource, &certificate, now)?,
            pem: certificate.pem(),
        })
    }

    async fn store(&self, tx: &mut Tx) -> Result<()> {
        tx.insert(&self.identity).await?;
        tx.insert(&self.group).await?;
        if let Some(member) = &self.member {
            tx.insert(member).await?;
        }
        if let Some((identity, member)) = &self.second {
            tx.insert(identity).await?;
            tx.insert(member).await?;
        }
        tx.insert(&self.credential).await?;
        let by = self.identity.id.to_string();
        tx.insert(&notices::first_head(self.identity.created_at)?).await?;
        tx.insert(&RecoveryRow::never(self.identity.created_at, by)).await?;
        for kind in Kind::ALL {
            let by = self.identity.id.to_string();
            tx.insert(&Lifecycle::usual(*kind).row(*kind, self.identity.created_at, by)?).await?;
        }
        Ok(())
    }
}

/// Who was registered by the founding, and by nobody else.
fn identity(
    id: IdentityId,
    name: IdentityName,
    kind: Kind,
    now: UnixMillis,
) -> Result<IdentityRow> {
    let by = id.to_string();
    Ok(IdentityRow {
        id,
        name,
        kind,
        state: IdentityState::Active,
        owner: id.into(),
        owned_since: now,
        former_owners: "[]".to_owned(),
        person: (kind == Kind::Human).then(|| by.parse()).transpose()?,
        purpose: "the first to log in".to_owned(),
        needs: String::new(),
        tier: Tier::Critical,
        labels: "{}".to_owned(),
        expires_at: None,
        revocation_epoch: 1,
        authority_rev: 1,
        created_at: now,
        created_by: by.clone(),
        changed_at: now,
        changed_by: by,
        changers: String::new(),
    })
}

fn member_of(
    entropy: &dyn Entropy,
    group_id: GroupId,
    identity_id: IdentityId,
    now: UnixMillis,
) -> Result<MemberRow> {
    Ok(MemberRow {
        id: Id::ordered(now, entropy)?,
        group_id,
        identity_id,
        active: true,
        changed_at: now,
        changed_by: identity_id.to_string(),
    })
}

fn login_row(
    parts: &Ingredients,
    identity: IdentityId,
    resource: ResourceName,
    certificate: &Certificate,
    now: UnixMillis,
) -> Result<CredentialRow> {
    Ok(CredentialRow {
        id: CredentialId(Id::ordered(now, parts.entropy.as_ref())?),
        kind: CredentialKind::Login,
        identity,
        parent: None,
        elevation: None,
        elevation_too: None,
        handle: Some(sha256(&certificate.der).to_vec()),
        resource,
        state: CredentialState::Active,
        revocation_epoch: 1,
        issued_at: now,
        expires_at: certificate.not_after,
        max_expires_at: certificate.not_after,
        next_try: None,
        tries: 0,
        trouble: String::new(),
        proofs: String::new(),
        detail: certificate.der.clone(),
    })
}

fn draft(parts: &Ingredients, first: &FirstRows, now: UnixMillis) -> Result<Draft> {
    let facts = EntryFacts {
        at: now,
        request: RequestId(Id::ordered(now, parts.entropy.as_ref())?),
        caller: CallerFact::System("init"),
        action: "system.init",
        resources: Vec::new(),
        decision: DecisionFact { allowed: true, reason: "allowed", by: "local".into() },
        factors: Vec::new(),
        private: vec![(Field::Identity, first.identity.name.as_str().into())],
    };
    facts.draft(parts.entropy.as_ref())
}

struct Found {
    genesis: Genesis,
    first: FirstRows,
    entry: Draft,
    changes: Vec<Change>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Found {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.genesis.store(tx, &self.first.identity.id.to_string()).await?;
        self.first.store(tx).await?;
        tx.bump_authority()
    }

    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry> {
        self.changes = outcome.ok()?.to_vec();
        let ending = Ending {
            keys: &self.genesis.used,
            changes: &self.changes,
            credential: Some(self.first.credential.id),
            ..Ending::plain("OK")
        };
        Some(self.entry.end(&ending).unwrap_or_default())
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // Founding waits for it.
        let _gone = self.reply.send(settled);
    }
}
