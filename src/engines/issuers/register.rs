//! Registers an identity at its first login, as the template of a rule says.

use crate::engines::identities::{TEAM, check_team};
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::identities::{self, IdentityRow, MemberRow};
use crate::store::issuers::{self, RegistrationRow};
use crate::types::{
    Id, IdentityId, IdentityName, IdentityState, ObjectId, Owner, RequestContext, Segment,
};
use crate::vault::{ADMINISTRATORS, View};

use super::template::Template;

/// Of what a newcomer is made.
pub(super) struct Parts<'a> {
    pub(super) name: &'a IdentityName,
    pub(super) template: &'a Template,
    /// By which values of claims the template names it.
    pub(super) bound: String,
    pub(super) owner: Owner,
    pub(super) rule: ObjectId,
}

/// An identity that is about to be registered.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) row: IdentityRow,
    registration: RegistrationRow,
    most: i64,
    group: Option<Segment>,
    member: Id,
}

/// Makes the rows of a newcomer.
///
/// # Errors
/// [`Error::Internal`] for a template that its rule should not hold.
pub(super) fn newcomer(view: &View, parts: Parts<'_>) -> Result<Newcomer> {
    let Parts { name, template, bound, owner, rule } = parts;
    let (now, by, id) = (view.now(), view.actor(), IdentityId(view.new_id()?));
    let group = match template.group.as_str() {
        "" => None,
        group => Some(group.parse()?),
    };
    let row = IdentityRow {
        id,
        name: name.clone(),
        kind: template.kind()?,
        // It gets its first credential with the same commit.
        state: IdentityState::Active,
        owner,
        owned_since: now,
        former_owners: "[]".to_owned(),
        person: None,
        purpose: format!("registered at first login by rule {rule}"),
        needs: String::new(),
        tier: template.tier()?,
        labels: "{}".to_owned(),
        expires_at: Some(now.plus(std::time::Duration::from_secs(template.lasts_s))?),
        revocation_epoch: 1,
        authority_rev: 1,
        created_at: now,
        created_by: by.clone(),
        changed_at: now,
        changed_by: by,
        changers: String::new(),
    };
    Ok(Newcomer {
        registration: RegistrationRow { id, rule, bound, created_at: now },
        most: i64::try_from(template.most).map_err(Error::internal)?,
        group,
        member: view.new_id()?,
        row,
    })
}

impl Newcomer {
    /// Registers it, where its rule may register one more.
    ///
    /// # Errors
    /// [`Error::Exhausted`] where it may not; [`Error::Conflict`] where somebody else was first.
    pub(super) async fn register(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<()> {
        if identities::identity_named(tx, &self.row.name).await?.is_some() {
            return Err(Error::Conflict("the identity was registered meanwhile; retry".into()));
        }
        if issuers::count_registered(tx, self.registration.rule, self.most).await? >= self.most {
            let full =
                format!("the rule registered {} identities, the most that it may", self.most);
            return Err(Error::Exhausted(full.into()));
        }
        check_team(tx, self.row.owner).await?;
        tx.insert(&self.row).await?;
        tx.insert(&self.registration).await?;
        if let Some(name) = &self.group {
            self.join(ctx, tx, name).await?;
        }
        Ok(())
    }

    async fn join(&self, ctx: &RequestContext, tx: &mut Tx, name: &Segment) -> Result<()> {
        let group = identities::group_named(tx, name).await?;
        let group = group.ok_or_else(|| Error::precondition("the rule's group is not there"))?;
        if name.as_str() == ADMINISTRATORS {
            return Err(Error::precondition("only humans administer"));
        }
        if identities::count_owned(tx, Owner::Group(group.row.id), 1).await? > 0
            && identities::count_members(tx, group.row.id, TEAM).await? >= TEAM
        {
            let full = "the rule's group answers for machines, and has as many members as one may";
            return Err(Error::Exhausted(full.into()));
        }
        tx.insert(&MemberRow {
            id: self.member,
            group_id: group.row.id,
            identity_id: self.row.id,
            active: true,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        })
        .await?;
        Ok(())
    }
}
