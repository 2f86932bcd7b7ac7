//! Adds, lists and removes the rules of issuers. A rule never changes: what it gave ends with it.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::change::{check_may_bind, check_may_vouch};
use super::definition::IssuerDefinition;
use super::preset;
use super::rule::RuleDefinition;
use super::show::{find, no_such_issuer, resource};
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, check_text};
use crate::error::{Error, Result};
use crate::policy::Reason;
use crate::store::identities::{self, IdentityRow};
use crate::store::issuers::{self as rows, IssuerRow, RuleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityName, IdentityState, Kind, ObjectId, OwnerName, RequestContext, ResourceName, Segment,
};
use crate::vault::{
    ADMINISTRATORS, Answerable, CONTAINS, Decision, GOVERNS, Note, Operation, Page, PageToken,
    READS, Resource, Verb, View,
};

/// Rules that may yield one identity, of an issuer, and templates of one.
pub(super) const OF_IDENTITY: i64 = 100;
pub(super) const OF_ISSUER: i64 = 10_000;
pub(super) const TEMPLATES: i64 = 100;

/// A rule as it is shown.
#[derive(Debug, Clone)]
pub struct DescribedRule {
    /// Its row.
    pub rule: RuleRow,
    /// What it says.
    pub definition: RuleDefinition,
    /// The issuer's name.
    pub issuer: Segment,
    /// The name of the identity that it yields; none where a template names it.
    pub identity: Option<IdentityName>,
    /// All of it in one sentence.
    pub sentence: String,
    /// The name of who added it.
    pub created_by: String,
}

impl DescribedRule {
    pub(super) async fn of(
        tx: &mut Tx,
        names: &mut Names,
        issuer: &IssuerRow,
        rule: RuleRow,
    ) -> Result<Self> {
        let identity = match rule.identity {
            Some(id) => Some(names.identity(tx, id).await?),
            None => None,
        };
        let definition = RuleDefinition::read(&rule.definition)?;
        let audience = IssuerDefinition::read(&issuer.definition)?.audience;
        let of = format!("{} ({})", issuer.name, issuer.url);
        let whom = identity.as_ref().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            sentence: definition.sentence(&of, &audience, &whom),
            created_by: names.actor(tx, &rule.created_by).await?,
            issuer: issuer.name.clone(),
            definition,
            identity,
            rule,
        })
    }
}

/// Whom a rule yields.
#[derive(Debug, Clone)]
pub enum Binds {
    /// One identity.
    Identity(IdentityName),
    /// Those that its template names.
    Template,
}

/// Adds a rule, or says what it would say.
#[derive(Debug, Clone)]
pub struct AddRule {
    /// The issuer.
    pub issuer: Segment,
    /// Whom it yields.
    pub binds: Binds,
    /// What it wants.
    pub definition: RuleDefinition,
    /// Whether it is only said, and not added.
    pub dry_run: bool,
}

/// What is to be added.
#[derive(Debug)]
pub struct Prepared {
    issuer: Versioned<IssuerRow>,
    row: RuleRow,
}

impl AddRule {
    async fn identity(&self, view: &View) -> Result<Option<Versioned<IdentityRow>>> {
        let Binds::Identity(name) = self.binds.clone() else { return Ok(None) };
        let read = view.read(move |tx| {
            async move { Ok(identities::identity_named(tx, &name).await?) }.boxed()
        });
        read.await
    }

    /// Checks who is to answer for what a template registers, and where it is put: whoever asks has to
    /// be of the one, and may put somebody into the other.
    async fn check_template(view: &View, definition: &RuleDefinition) -> Result<()> {
        let Some(template) = &definition.template else { return Ok(()) };
        if template.group == ADMINISTRATORS {
            return Err(Error::invalid("only humans administer"));
        }
        let owner = OwnerName::Group(template.owner_group.parse()?);
        let group = match template.group.as_str() {
            "" => None,
            group => Some(group.parse::<Segment>()?),
        };
        let read = view.read(move |tx| {
            async move {
                let there = match group {
                    Some(group) => identities::group_named(tx, &group).await?.is_some(),
                    None => true,
                };
                Ok((Answerable::named(tx, &owner).await?, there))
            }
            .boxed()
        });
        let (owner, there) = read.await?;
        let owner = owner.filter(|owner| owner.may_own(view.now())).ok_or_else(|| {
            Error::precondition(
                "what a template registers is answered for by a group with an active human in it",
            )
        })?;
        check_may_bind(view, owner.owner, Self::ACTION)?;
        if !there {
            return Err(Error::not_found("there is no group of that name"));
        }
        if !template.group.is_empty() {
            let group = ResourceName::join("groups", &[template.group.as_str()])?;
            if !view.may("groups.add", &Resource::named(group))? {
                return Err(Reason::NotAdministrator.refusal("groups.add"));
            }
        }
        Ok(())
    }
}

/// Checks that an issuer's tokens may be whom a rule yields.
fn check_kind(issuer: &IssuerRow, kind: Kind) -> Result<()> {
    if issuer.people && kind != Kind::Human {
        return Err(Error::invalid("people sign in by this issuer: name a human"));
    }
    if !issuer.people && !kind.is_machine() {
        return Err(Error::invalid(
            "a rule of this issuer logs machines in: people sign in by one of the preset people",
        ));
    }
    Ok(())
}

#[async_trait]
impl Verb for AddRule {
    const ACTION: &'static str = "issuers.add-rule";
    type Prepared = Prepared;
    type Output = DescribedRule;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let mut resource = resource(view, &self.issuer).await?;
        resource.rows.extend(self.identity(view).await?.map(|found| found.fence()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let issuer = find(view, &self.issuer).await?.ok_or_else(no_such_issuer)?;
        let mut definition = self.definition.clone();
        definition.template = definition.template.map(super::template::Template::filled);
        check_may_vouch(view, &issuer.row, Self::ACTION)?;
        let of = IssuerDefinition::read(&issuer.row.definition)?;
        let definition = preset::complete(of.preset()?, definition.checked()?)?;
        Self::check_template(view, &definition).await?;
        let identity = match (&self.binds, &definition.template) {
            (Binds::Template, Some(_)) => None,
            (Binds::Identity(_), None) => {
                let unknown = || Error::not_found("there is no identity of that name");
                let found = self.identity(view).await?.ok_or_else(unknown)?.row;
                check_kind(&issuer.row, found.kind)?;
                check_may_bind(view, found.owner, Self::ACTION)?;
                if found.state == IdentityState::Retired {
                    return Err(Error::precondition("the identity is retired"));
                }
                Some(found.id)
            }
            (Binds::Template, None) | (Binds::Identity(_), Some(_)) => {
                return Err(Error::invalid("a rule yields one identity, or those of a template"));
            }
        };
        let (now, by) = (view.now(), view.actor());
        let row = RuleRow {
            id: ObjectId(view.new_id()?),
            issuer: issuer.row.id,
            identity,
            definition: definition.to_json()?,
            active: true,
            next_try: None,
            created_at: now,
            created_by: by.clone(),
            changed_at: now,
            changed_by: by,
        };
        Ok(Prepared { issuer, row })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        let said = if self.dry_run { "only said, not added" } else { "added" };
        note.private.push((Field::Detail, format!("rule {} {said}", prepared.row.id)));
    }
}

#[async_trait]
impl Operation for AddRule {
    const NEEDS: Needs = GOVERNS;

    fn needs(&self, _: &Prepared) -> Needs {
        if self.dry_run { READS } else { GOVERNS }
    }

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        Prepared { issuer, row }: &Prepared,
        _: &Decision,
    ) -> Result<DescribedRule> {
        let full = |text: String| Err(Error::Exhausted(text.into()));
        if rows::count_of_issuer(tx, issuer.row.id, OF_ISSUER).await? >= OF_ISSUER {
            return full(format!("the issuer has {OF_ISSUER} rules, the most that one may have"));
        }
        match row.identity {
            Some(id) if rows::count_of_identity(tx, id, OF_IDENTITY).await? >= OF_IDENTITY => {
                return full(format!("{OF_IDENTITY} rules yield the identity, the most that may"));
            }
            None if rows::count_templates(tx, issuer.row.id, TEMPLATES).await? >= TEMPLATES => {
                return full(format!(
                    "the issuer has {TEMPLATES} templates, the most that one may have"
                ));
            }
            Some(_) | None => {}
        }
        if !self.dry_run {
            tx.insert(row).await?;
        }
        DescribedRule::of(tx, &mut Names::default(), &issuer.row, row.clone()).await
    }
}

/// Lists the rules of an issuer, oldest first.
#[derive(Debug, Clone)]
pub struct ListRules {
    /// The issuer.
    pub issuer: Segment,
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListRules {
    const ACTION: &'static str = "issuers.list-rules";
    type Prepared = (Vec<DescribedRule>, String);
    type Output = (Vec<DescribedRule>, String);

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.issuer).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let issuer = find(view, &self.issuer).await?.ok_or_else(no_such_issuer)?;
        let tokens = PageToken::new(view, Self::ACTION, self.issuer.as_str())?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| {
            async move {
                let (mut names, mut listed) = (Names::default(), Vec::new());
                let (id, most) = (issuer.row.id, size.saturating_add(1));
                for rule in rows::rules_after(tx, id, &after, most).await? {
                    let rule = DescribedRule::of(tx, &mut names, &issuer.row, rule.row).await?;
                    listed.push(rule);
                }
                Ok(listed)
            }
            .boxed()
        });
        tokens.cut(view, &page, listed.await?, |last| last.rule.id.to_string())
    }
}

#[async_trait]
impl Operation for ListRules {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(page.clone())
    }
}

/// Removes a rule: what it gave is dead from the commit on.
#[derive(Debug, Clone)]
pub struct RemoveRule {
    /// The issuer.
    pub issuer: Segment,
    /// The rule.
    pub id: ObjectId,
    /// Why.
    pub reason: String,
}

#[async_trait]
impl Verb for RemoveRule {
    const ACTION: &'static str = "issuers.remove-rule";
    type Prepared = Versioned<IssuerRow>;
    type Output = DescribedRule;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.issuer).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Versioned<IssuerRow>> {
        check_text("a reason", &self.reason, LONG)?;
        find(view, &self.issuer).await?.ok_or_else(no_such_issuer)
    }

    fn note(&self, _: &Versioned<IssuerRow>, note: &mut Note) {
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for RemoveRule {
    const NEEDS: Needs = CONTAINS;

    /// Answers the rule as it was.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        issuer: &Versioned<IssuerRow>,
        _: &Decision,
    ) -> Result<DescribedRule> {
        let found = tx.lookup::<RuleRow>(&self.id).await?;
        let found = found.filter(|it| it.row.active && it.row.issuer == issuer.row.id);
        let Versioned { row, version } =
            found.ok_or_else(|| Error::not_found("the issuer has no such rule"))?;
        let was = DescribedRule::of(tx, &mut Names::default(), &issuer.row, row.clone()).await?;
        let ended = RuleRow {
            active: false,
            next_try: Some(ctx.now),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..row
        };
        tx.update(version, &ended).await?;
        Ok(was)
    }
}
