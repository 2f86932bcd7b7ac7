//! Adds, changes and removes issuers. What was got for their tokens ends with them, and where who is
//! believed changes, if that is asked for.

use async_trait::async_trait;

use super::definition::IssuerDefinition;
use super::review::{self, Reviewer};
use super::show::{DescribedIssuer, find, no_such_issuer, resource};
use super::verify::ALIKE;
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::policy::Reason;
use crate::store::issuers::{self as rows, IssuerRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, ObjectId, Owner, Preset, RequestContext, SecretBytes, Segment};
use crate::vault::{CONTAINS, Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Issuers that there may be, and among them such that people sign in by.
const ISSUERS: i64 = 1_000;
const OF_PEOPLE: i64 = super::sign_in::PROVIDERS;

/// Checks that no other issuer has the same URL and audience: whose a token is would be chance, and
/// each would let it be used once. How many have the URL.
async fn check_apart(tx: &mut Tx, row: &IssuerRow) -> Result<i64> {
    let audience = IssuerDefinition::read(&row.definition)?.audience;
    let alike = rows::by_url(tx, &row.url, ALIKE).await?;
    for other in alike.iter().filter(|other| other.row.id != row.id) {
        if IssuerDefinition::read(&other.row.definition)?.audience == audience {
            let taken = format!("the issuer {} has that URL and audience", other.row.name);
            return Err(Error::AlreadyExists(taken.into()));
        }
    }
    i64::try_from(alike.len()).map_err(Error::internal)
}

/// Checks that who asks may say by what humans are known: whoever decides whose tokens are believed
/// for one has a credential of theirs, and that is for administrators alone (rule 16 of the house).
pub(super) fn check_may_vouch(view: &View, issuer: &IssuerRow, action: &str) -> Result<()> {
    if issuer.people && !view.subject()?.is_administrator() {
        return Err(Reason::MintForbidden.refusal(action));
    }
    Ok(())
}

/// Checks that who asks may say by what a machine is known: whoever binds one to claims of their own
/// has a credential of it, and that is for administrators and for who answers for it (the same rule).
pub(super) fn check_may_bind(view: &View, owner: Owner, action: &str) -> Result<()> {
    let subject = view.subject()?;
    let groups = subject.group_facts();
    if subject.is_administrator() || subject.facts(&groups, view.now()).owns(owner) {
        return Ok(());
    }
    Err(Reason::MintForbidden.refusal(action))
}

/// Adds an issuer.
#[derive(Debug)]
pub struct AddIssuer {
    /// Its name.
    pub name: Segment,
    /// What its tokens call it.
    pub url: String,
    /// What else is known of it.
    pub definition: IssuerDefinition,
    /// What its cluster is asked with, where it is.
    pub reviewer: Option<SecretBytes>,
}

/// An issuer that is to be.
#[derive(Debug)]
pub struct Added {
    row: IssuerRow,
    /// The credential that is stored with it.
    reviewer: Option<Reviewer>,
}

#[async_trait]
impl Verb for AddIssuer {
    const ACTION: &'static str = "issuers.add";
    type Prepared = Added;
    type Output = DescribedIssuer;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Added> {
        let definition = self.definition.clone().checked(&self.url)?;
        let (now, by, id) = (view.now(), view.actor(), ObjectId(Id::random(view.entropy())?));
        let review = (None, definition.review.as_ref());
        let reviewer = Reviewer::seal(view, id, review, self.reviewer.as_ref()).await?;
        let row = IssuerRow {
            id,
            name: self.name.clone(),
            url: self.url.clone(),
            people: definition.preset()? == Preset::People,
            definition: definition.to_json()?,
            active: true,
            revocation_epoch: 1,
            next_try: None,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by,
        };
        // Everybody's program is told of it, and sends them there.
        check_may_vouch(view, &row, Self::ACTION)?;
        Ok(Added { row, reviewer })
    }

    fn note(&self, added: &Added, note: &mut Note) {
        note.keys.extend(added.reviewer.iter().flat_map(Reviewer::used).cloned());
    }
}

#[async_trait]
impl Operation for AddIssuer {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        Added { row, reviewer }: &Added,
        _: &Decision,
    ) -> Result<DescribedIssuer> {
        if rows::named(tx, &row.name).await?.is_some() {
            return Err(Error::AlreadyExists("an issuer has, or had, that name".into()));
        }
        if rows::count_issuers(tx, ISSUERS).await? >= ISSUERS {
            let full = format!("there are {ISSUERS} issuers, the most that there may be");
            return Err(Error::Exhausted(full.into()));
        }
        let most = usize::try_from(OF_PEOPLE).map_err(Error::internal)?;
        if row.people && rows::of_people(tx, OF_PEOPLE).await?.len() >= most {
            let full = format!("people sign in by {OF_PEOPLE} issuers, the most that there may be");
            return Err(Error::Exhausted(full.into()));
        }
        if check_apart(tx, row).await? >= ALIKE {
            let full = format!("{ALIKE} issuers have that URL, the most that may");
            return Err(Error::Exhausted(full.into()));
        }
        let issuer = tx.insert(row).await?;
        if let Some(reviewer) = reviewer {
            reviewer.store(ctx, tx).await?;
        }
        DescribedIssuer::of(tx, &mut Names::default(), issuer).await
    }
}

/// Changes what is known of an issuer.
#[derive(Debug)]
pub struct UpdateIssuer {
    /// Its name.
    pub name: Segment,
    /// The version that was read; none where that does not matter.
    pub version: Option<i64>,
    /// What is known of it from now on. What its tokens call it, and look like, stays: rules were
    /// written for that.
    pub definition: IssuerDefinition,
    /// What its cluster is asked with, where it is; none keeps the stored one.
    pub reviewer: Option<SecretBytes>,
    /// Whether what was got for its tokens ends.
    pub end_sessions: bool,
}

/// What an issuer is to be.
#[derive(Debug)]
pub struct Changed {
    /// The version that is there.
    version: i64,
    row: IssuerRow,
    /// The credential that is stored with it.
    reviewer: Option<Reviewer>,
    /// Whether the stored one is forgotten.
    forgets: bool,
}

#[async_trait]
impl Verb for UpdateIssuer {
    const ACTION: &'static str = "issuers.update";
    type Prepared = Changed;
    type Output = DescribedIssuer;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Changed> {
        let Versioned { row, version } =
            find(view, &self.name).await?.ok_or_else(no_such_issuer)?;
        if self.version.is_some_and(|read| read != version) {
            return Err(Error::Conflict("the issuer was changed meanwhile; read it again".into()));
        }
        check_may_vouch(view, &row, Self::ACTION)?;
        let before = IssuerDefinition::read(&row.definition)?;
        let definition = self.definition.clone().checked(&row.url)?;
        if before.preset != definition.preset {
            return Err(Error::invalid("the preset stays: the rules were written for it"));
        }
        let review = (before.review.as_ref(), definition.review.as_ref());
        let reviewer = Reviewer::seal(view, row.id, review, self.reviewer.as_ref()).await?;
        let forgets = definition.review.is_none();
        let ends = self.end_sessions;
        let epoch = row.revocation_epoch.saturating_add(i64::from(ends));
        let row = IssuerRow {
            definition: definition.to_json()?,
            revocation_epoch: epoch,
            next_try: if ends { Some(view.now()) } else { row.next_try },
            changed_at: view.now(),
            changed_by: view.actor(),
            ..row
        };
        Ok(Changed { version, row, reviewer, forgets })
    }

    fn note(&self, changed: &Changed, note: &mut Note) {
        note.keys.extend(changed.reviewer.iter().flat_map(Reviewer::used).cloned());
    }
}

#[async_trait]
impl Operation for UpdateIssuer {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        changed: &Changed,
        _: &Decision,
    ) -> Result<DescribedIssuer> {
        check_apart(tx, &changed.row).await?;
        let issuer = tx.update(changed.version, &changed.row).await?;
        if let Some(reviewer) = &changed.reviewer {
            reviewer.store(ctx, tx).await?;
        }
        if changed.forgets {
            review::forget(ctx, tx, changed.row.id).await?;
        }
        DescribedIssuer::of(tx, &mut Names::default(), issuer).await
    }
}

/// Removes an issuer: nobody logs in by it any more, and what was got for its tokens is dead.
#[derive(Debug, Clone)]
pub struct RemoveIssuer {
    /// Its name.
    pub name: Segment,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for RemoveIssuer {
    const ACTION: &'static str = "issuers.remove";
    type Prepared = Versioned<IssuerRow>;
    type Output = DescribedIssuer;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<IssuerRow>> {
        check_text("a reason", &self.reason, LONG)?;
        find(view, &self.name).await?.ok_or_else(no_such_issuer)
    }

    fn note(&self, _: &Versioned<IssuerRow>, note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RemoveIssuer {
    const NEEDS: Needs = CONTAINS;

    /// Answers the issuer as it was.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        found: &Versioned<IssuerRow>,
        _: &Decision,
    ) -> Result<DescribedIssuer> {
        let was = DescribedIssuer::of(tx, &mut Names::default(), found.clone()).await?;
        let row = IssuerRow {
            active: false,
            revocation_epoch: found.row.revocation_epoch.saturating_add(1),
            next_try: Some(ctx.now),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..found.row.clone()
        };
        tx.update(found.version, &row).await?;
        review::forget(ctx, tx, row.id).await?;
        Ok(was)
    }
}
