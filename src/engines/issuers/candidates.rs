//! Which of an issuer's rules may yield an identity, and which of them a token matches. Found by the
//! identity: what other rules the issuer has costs nothing.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::{Map, Value};

use super::memory::{Look, Memory};
use super::refused::{Refused, Why};
use super::rule::RuleDefinition;
use super::rules::{OF_IDENTITY, TEMPLATES};
use super::verify::{Believed, SKEW};
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::{self, IdentityRow};
use crate::store::issuers::{self, RegistrationRow, RuleRow};
use crate::store::keys::VaultRow;
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Reader, Tx, Versioned};
use crate::types::{
    CredentialId, IdentityName, Kind, ObjectId, OwnerName, Replay, UnixMillis, VaultId,
};
use crate::vault::{Answerable, is_active};

/// Bytes of rules that are remembered with one identity: each holds its own.
const REMEMBERED: usize = 16 * 1_024;

/// A rule that may yield an identity, and what it says.
pub(super) type Candidate = (Versioned<RuleRow>, RuleDefinition);

/// How an identity came to be: by which values of a token's claims, in which name of whose template.
#[derive(Debug)]
pub(super) struct Registered {
    issuer: ObjectId,
    template: String,
    bound: String,
}

impl Registered {
    /// Reads it, of who was registered by a rule. The rule may have been removed: whatever it wanted
    /// besides, another with the same template goes on with whom it registered.
    async fn of(tx: &mut Tx, identity: &IdentityRow) -> Result<Option<Self>> {
        let Some(found) = tx.lookup::<RegistrationRow>(&identity.id).await? else {
            return Ok(None);
        };
        let rule = tx.lookup::<RuleRow>(&found.row.rule).await?;
        let rule = rule.ok_or_else(|| Error::internal("a registration without its rule"))?.row;
        let template = RuleDefinition::read(&rule.definition)?.template;
        let template = template.ok_or_else(|| Error::internal("a rule that registers nobody"))?;
        let (issuer, bound) = (rule.issuer, found.row.bound);
        Ok(Some(Self { issuer, template: template.name, bound }))
    }
}

/// What an issuer's tokens may come to for an identity, whichever token it is.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) vault: Versioned<VaultRow>,
    pub(super) identity: Option<Versioned<IdentityRow>>,
    registration: Option<Registered>,
    owner: Option<Answerable>,
    lifecycle: Option<Versioned<LifecycleRow>>,
    pub(super) rules: Vec<Candidate>,
}

impl Stand {
    async fn read(
        tx: &mut Tx,
        vault: VaultId,
        issuer: ObjectId,
        name: &IdentityName,
    ) -> Result<Self> {
        let vault = tx.lookup::<VaultRow>(&vault).await?;
        let vault = vault.ok_or_else(|| Error::internal("a vault without its row"))?;
        let identity = identities::identity_named(tx, name).await?;
        let mut rows = Vec::new();
        let (mut owner, mut lifecycle, mut registration) = (None, None, None);
        if let Some(found) = &identity {
            owner = Some(Answerable::of(tx, found).await?);
            lifecycle = Some(lifecycles::of_kind(tx, found.row.kind).await?);
            registration = Registered::of(tx, &found.row).await?;
            rows = issuers::rules_of(tx, found.row.id, issuer, OF_IDENTITY).await?;
        }
        // Somebody whom no template registered is yielded by none.
        if identity.is_none() || registration.is_some() {
            rows.extend(issuers::templates(tx, issuer, TEMPLATES).await?);
        }
        let mut rules = Vec::with_capacity(rows.len());
        for row in rows {
            let definition = RuleDefinition::read(&row.row.definition)?;
            rules.push((row, definition));
        }
        Ok(Self { vault, identity, registration, owner, lifecycle, rules })
    }

    /// Tells whether it is remembered. Names that nobody has are not: there is no end of them.
    fn is_kept(&self) -> bool {
        let bytes = self.rules.iter().map(|(row, _)| row.row.definition.len());
        self.identity.is_some() && bytes.sum::<usize>() <= REMEMBERED
    }
}

/// Who is to be logged in: by whose token.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) vault: VaultId,
    pub(super) issuer: ObjectId,
    pub(super) name: IdentityName,
}

/// What is known of whom a token is to log in.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) stand: Arc<Stand>,
    /// Who answers for it; for one that is not registered yet, filled in by its rule.
    pub(super) owner: Option<Answerable>,
    pub(super) lifecycle: Option<Versioned<LifecycleRow>>,
    /// The session that the token, or its pod, stands for already.
    pub(super) used: Option<CredentialId>,
    /// The row of that, where there is one.
    pub(super) before: Option<Versioned<CredentialRow>>,
}

impl Known {
    /// Reads it, but for what is remembered of it where that is believed: of what was used, then, only
    /// what this node knows of.
    ///
    /// # Errors
    /// What the store answers.
    pub(super) async fn read(
        reader: &Reader,
        memory: &Memory,
        wanted: Wanted,
        (used, replay): (String, Replay),
        look: &Look,
    ) -> Result<Self> {
        let key = (wanted.issuer, wanted.name.clone());
        let kept = memory.stands.at(look, &key);
        // Of a pod's session it has to be known; of another's token its commit says that it was used.
        if let Some(stand) = &kept
            && replay != Replay::Bound
            && !memory.used.has(&used)
        {
            return Ok(Self::of(Arc::clone(stand), None, None));
        }
        let reads = kept.is_none();
        let read = reader.view(move |tx| {
            async move {
                let used = issuers::used(tx, &used).await?;
                let before = match &used {
                    Some(before) => tx.lookup::<CredentialRow>(before).await?,
                    None => None,
                };
                let Wanted { vault, issuer, name } = wanted;
                let stand =
                    if reads { Some(Stand::read(tx, vault, issuer, &name).await?) } else { None };
                Ok((stand, used, before))
            }
            .boxed()
        });
        let (stand, used, before) = read.await?;
        let stand = match (kept, stand) {
            (Some(kept), _) => kept,
            (None, Some(stand)) if stand.is_kept() => memory.stands.keep(look, key, stand),
            (None, Some(stand)) => Arc::new(stand),
            (None, None) => return Err(Error::internal("a login that nothing is known of")),
        };
        Ok(Self::of(stand, used, before))
    }

    fn of(
        stand: Arc<Stand>,
        used: Option<CredentialId>,
        before: Option<Versioned<CredentialRow>>,
    ) -> Self {
        let (owner, lifecycle) = (stand.owner.clone(), stand.lifecycle.clone());
        Self { stand, owner, lifecycle, used, before }
    }

    /// Takes the first rule that a token matches.
    ///
    /// # Errors
    /// [`Refused::Token`] where there is none, or whom it yields does not stand.
    pub(super) fn choose(
        &self,
        believed: &Believed,
        name: &IdentityName,
        now: UnixMillis,
    ) -> Result<Candidate, Refused> {
        let claims = &believed.token.claims;
        let fits = |rule: &Candidate| self.objection(rule, claims, name).is_none();
        let Some(rule) = self.stand.rules.iter().find(|rule| fits(rule)) else {
            return Err(Why::new("NO_RULE", "no rule that can yield the identity matches").into());
        };
        self.stands(believed, now)?;
        Ok(rule.clone())
    }

    /// What keeps a token from being used for an identity by a rule; nothing where it matches.
    pub(super) fn objection(
        &self,
        (row, rule): &Candidate,
        claims: &Map<String, Value>,
        name: &IdentityName,
    ) -> Option<String> {
        if let Some(objection) = rule.objection(claims) {
            return Some(objection);
        }
        let template = rule.template.as_ref()?;
        let Some((made, values)) = template.name_of(claims) else {
            return Some(format!("the token's claims make no name of {}", template.name));
        };
        if made != *name {
            return Some(format!("it names {made} for this token"));
        }
        match &self.stand.registration {
            Some(found) if found.issuer != row.row.issuer => {
                Some("another issuer's rule registered the identity".to_owned())
            }
            Some(found) if found.template != template.name => {
                Some(format!("the identity was registered as {}", found.template))
            }
            Some(found) if found.bound != values => {
                Some("the identity was registered for other claims of that name".to_owned())
            }
            Some(_) | None => None,
        }
    }

    /// Checks that whom it logs in may be given something, and that it was not used before.
    pub(super) fn stands(&self, believed: &Believed, now: UnixMillis) -> Result<(), Why> {
        let unfit = |text: &str| Err(Why::new("IDENTITY_UNFIT", text));
        if self.stand.identity.as_ref().is_some_and(|found| !is_active(&found.row, now)) {
            return unfit("the identity is suspended or over");
        }
        let kind = self.stand.identity.as_ref().map(|found| found.row.kind);
        let fits = |kind: Kind| match believed.sign_in {
            Some(_) => kind == Kind::Human,
            None => kind.is_machine(),
        };
        if kind.is_some_and(|kind| !fits(kind)) {
            return unfit(
                "people do not log in with the tokens of machines, nor those with theirs",
            );
        }
        if self.owner.as_ref().is_some_and(|owner| !owner.is_active(now)) {
            return unfit("nobody answers for the identity");
        }
        // What was used before the restore is not known any more, and the issuer's clock may be ahead.
        let restored_at = self.stand.vault.row.restored_at;
        if restored_at.0 > 0 && believed.issued_at.since(restored_at) < SKEW {
            return Err(Why::time(
                "it was issued before the vault was restored, or within a minute after",
            ));
        }
        let again = self.used.is_some() && believed.replay != Replay::Bound;
        if again {
            return Err(Why::new("TOKEN_REPLAYED", "it was used before"));
        }
        Ok(())
    }

    /// Reads who is to answer for what a template registers.
    ///
    /// # Errors
    /// [`Refused::Token`] where nobody does.
    pub(super) async fn registers(
        &mut self,
        reader: &Reader,
        rule: &RuleDefinition,
        now: UnixMillis,
    ) -> Result<(), Refused> {
        let (Some(template), None) = (&rule.template, &self.stand.identity) else { return Ok(()) };
        let owner = OwnerName::Group(template.owner_group.parse()?);
        let kind = template.kind()?;
        let read = reader.view(move |tx| {
            async move {
                let lifecycle = lifecycles::of_kind(tx, kind).await?;
                Ok((Answerable::named(tx, &owner).await?, lifecycle))
            }
            .boxed()
        });
        let (owner, lifecycle) = read.await?;
        let Some(owner) = owner.filter(|owner| owner.may_own(now)) else {
            return Err(Why::new("IDENTITY_UNFIT", "nobody would answer for the identity").into());
        };
        (self.owner, self.lifecycle) = (Some(owner), Some(lifecycle));
        Ok(())
    }
}
