//! Tells an administrator what would come of a token: whether it is believed, which rule would
//! match, and why the others do not. Nothing is used up.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::candidates::{Known, Wanted};
use super::keys::IssuerKeys;
use super::memory::Look;
use super::refused::Refused;
use super::review::review;
use super::rule::RuleDefinition;
use super::rules::DescribedRule;
use super::verify::{Believed, believe};
use crate::engines::identities::Names;
use crate::error::Result;
use crate::keyring::KeyUse;
use crate::store::issuers::{self as rows, RuleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityName, RequestContext, SecretBytes, Segment};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

/// Rules that are looked at where no identity is named.
const LOOKED_AT: i64 = 1_000;

/// Tries a token.
#[derive(Debug, Clone)]
pub struct TestToken {
    /// The keys of issuers.
    pub keys: IssuerKeys,
    /// The token.
    pub token: SecretBytes,
    /// Whom it is to log in; none for anybody.
    pub name: Option<IdentityName>,
}

/// What came of one rule.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The rule.
    pub rule: DescribedRule,
    /// Why it does not match; nothing where it does.
    pub objection: Option<String>,
}

/// What came of a token.
#[derive(Debug, Clone)]
pub struct Tested {
    /// The issuer; none where the token is not believed.
    pub issuer: Option<Segment>,
    /// Why it would not log anybody in, whatever rules say; nothing where they decide.
    pub problem: Option<String>,
    /// Every rule that was looked at.
    pub trials: Vec<Trial>,
    /// Whether there are rules that were not looked at.
    pub more: bool,
}

impl Tested {
    fn refused(refused: Refused) -> Result<Self> {
        match refused {
            Refused::Token(why) => {
                Ok(Self { issuer: None, problem: Some(why.text), trials: Vec::new(), more: false })
            }
            Refused::Vault(error) => Err(error),
        }
    }
}

/// Tries every rule that may yield the identity that is named.
async fn of_identity(
    view: &View,
    keys: &IssuerKeys,
    believed: Believed,
    name: &IdentityName,
) -> Result<Tested> {
    let (reader, now) = (view.reader(), view.now());
    let look = Look::anew(reader.epoch_seen(), now);
    let issuer = believed.issuer.row.clone();
    let used = (super::login::once(&believed), believed.replay);
    let wanted = Wanted { vault: view.vault_id(), issuer: issuer.id, name: name.clone() };
    let known = Known::read(reader, &keys.memory, wanted, used, &look).await?;
    let problem = known.stands(&believed, now).err().map(|why| why.text);
    let judged: Vec<_> = known
        .stand
        .rules
        .iter()
        .map(|rule| (rule.0.row.clone(), known.objection(rule, &believed.token.claims, name)))
        .collect();
    let trials = described(view, believed, judged).await?;
    Ok(Tested { issuer: Some(issuer.name), problem, trials, more: false })
}

/// Tries the issuer's rules, whomever they yield.
async fn of_anybody(view: &View, believed: Believed) -> Result<Tested> {
    let id = believed.issuer.row.id;
    let read = view.read(move |tx| {
        let all = async move { Ok(rows::rules_after(tx, id, "", LOOKED_AT + 1).await?) };
        all.boxed()
    });
    let mut found: Vec<Versioned<RuleRow>> = read.await?;
    let most = usize::try_from(LOOKED_AT).map_err(crate::error::Error::internal)?;
    let more = found.len() > most;
    found.truncate(most);
    let mut judged = Vec::with_capacity(found.len());
    for rule in found {
        let definition = RuleDefinition::read(&rule.row.definition)?;
        let claims = &believed.token.claims;
        let named = |template: &super::template::Template| match template.name_of(claims) {
            Some(_) => None,
            None => Some(format!("the token's claims make no name of {}", template.name)),
        };
        let objection = definition.objection(claims);
        let objection = objection.or_else(|| definition.template.as_ref().and_then(named));
        judged.push((rule.row, objection));
    }
    let issuer = believed.issuer.row.name.clone();
    let trials = described(view, believed, judged).await?;
    Ok(Tested { issuer: Some(issuer), problem: None, trials, more })
}

async fn described(
    view: &View,
    believed: Believed,
    judged: Vec<(RuleRow, Option<String>)>,
) -> Result<Vec<Trial>> {
    let issuer = believed.issuer.row;
    let read = view.read(move |tx| {
        async move {
            let (mut names, mut trials) = (Names::default(), Vec::with_capacity(judged.len()));
            for (rule, objection) in judged {
                let rule = DescribedRule::of(tx, &mut names, &issuer, rule).await?;
                trials.push(Trial { rule, objection });
            }
            Ok(trials)
        }
        .boxed()
    });
    read.await
}

#[async_trait]
impl Verb for TestToken {
    const ACTION: &'static str = "issuers.test";
    type Prepared = (Tested, Vec<KeyUse>);
    type Output = Tested;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("issuers".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let text = std::str::from_utf8(self.token.expose()).unwrap_or_default();
        let look = Look::anew(view.reader().epoch_seen(), view.now());
        let believed = match believe(view.reader(), &self.keys, text, &look).await {
            Ok(believed) => believed,
            Err(refused) => return Ok((Tested::refused(refused)?, Vec::new())),
        };
        let doubt = match review(view, &believed).await {
            Ok(()) => None,
            Err(Refused::Token(why)) => Some(why.text),
            Err(Refused::Vault(error)) => return Err(error),
        };
        let tested = match &self.name {
            Some(name) => of_identity(view, &self.keys, believed, name).await,
            None => of_anybody(view, believed).await,
        }?;
        Ok((Tested { problem: doubt.or(tested.problem), ..tested }, view.used()))
    }

    fn note(&self, (_, used): &Self::Prepared, note: &mut Note) {
        note.keys.extend(used.iter().cloned());
    }
}

#[async_trait]
impl Operation for TestToken {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        (tested, _): &Self::Prepared,
        _: &Decision,
    ) -> Result<Tested> {
        Ok(tested.clone())
    }
}
