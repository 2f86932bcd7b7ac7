//! What was issued, and the authorities above it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::credential::Said;
use super::roles::role_resource;
use super::{Authorities, AuthoritySlot};
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::{self, IdentityRow};
use crate::store::{Needs, Tx, Versioned, pki as rows};
use crate::types::{
    CredentialState, IdentityId, IdentityName, RequestContext, ResourceName, Segment, UnixMillis,
};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Lists issued certificates, oldest first.
#[derive(Debug)]
pub struct ListCertificates {
    /// Only those of this identity; none for all that the caller may see.
    pub identity: Option<IdentityName>,
    /// Only those of this role.
    pub role: Option<Segment>,
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// What has become of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is valid.
    Active,
    /// Its time is over.
    Expired,
    /// It was taken back, or its identity was contained.
    Revoked,
}

/// One certificate.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its row.
    pub row: CredentialRow,
    /// What it says.
    pub said: Said,
    /// The name of who holds it.
    pub identity: String,
    /// What has become of it.
    pub standing: Standing,
}

impl Standing {
    /// Judges a certificate by its row, its identity's revocation epoch and the time.
    #[must_use]
    pub fn of(row: &CredentialRow, revocation_epoch: i64, now: UnixMillis) -> Self {
        match row.state {
            CredentialState::Pending
            | CredentialState::Ended
            | CredentialState::Revoking
            | CredentialState::Spent => Self::Revoked,
            CredentialState::Active if row.revocation_epoch < revocation_epoch => Self::Revoked,
            // Valid through its last second, inclusive (RFC 5280, section 4.1.2.5).
            CredentialState::Active if row.expires_at.seconds() < now.seconds() => Self::Expired,
            CredentialState::Active => Self::Active,
        }
    }

    /// Shows the word of the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A page of certificates, and the token of the next.
pub type CertificatePage = (Vec<Listed>, String);

impl ListCertificates {
    fn resource_name(&self) -> Result<ResourceName> {
        match &self.role {
            Some(role) => role_resource(role),
            None => ResourceName::join("pki", &["certificates"]),
        }
    }

    /// Tells whether the caller may see other holders' certificates without naming one.
    fn sees_all(view: &View, name: &ResourceName) -> Result<bool> {
        let subject = view.subject()?;
        let covers = subject
            .grant_facts(<Self as Verb>::ACTION)
            .iter()
            .any(|grant| grant.in_force(view.now()) && grant.resource.matches(name.as_str()));
        Ok(covers || subject.is_administrator())
    }
}

#[async_trait]
impl Verb for ListCertificates {
    const ACTION: &'static str = "pki.list";
    type Prepared = CertificatePage;
    type Output = CertificatePage;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let name = self.resource_name()?;
        let mut resource = Resource::named(name);
        match &self.identity {
            Some(identity) => {
                if let Some(found) = find(view, identity).await? {
                    resource.holder = Some(found.row.id);
                    resource.owner = Some(found.row.owner);
                    resource.rows.push(found.fence());
                }
            }
            None if Self::sees_all(view, &resource.name)? => {}
            None => resource.holder = Some(view.identity()?),
        }
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<CertificatePage> {
        let holder = decision.resource()?.holder;
        if self.identity.is_some() && holder.is_none() {
            return Err(Error::not_found("there is no such identity"));
        }
        let role = self.role.as_ref().map(role_resource).transpose()?;
        let holder_text = holder.map(|holder| holder.to_string()).unwrap_or_default();
        let role_text = role.as_ref().map(ResourceName::to_string).unwrap_or_default();
        let filter = format!("{holder_text} {role_text}");
        let token = PageToken::new(view, Self::ACTION, &filter)?;
        let page = token.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let now = view.now();
        let listed = view
            .read(move |tx| {
                async move {
                    let size = size.saturating_add(1);
                    let found =
                        rows::certificates_after(tx, holder, role.as_ref(), &after, size).await?;
                    describe(tx, found, now).await
                }
                .boxed()
            })
            .await?;
        token.cut(view, &page, listed, |listed| listed.row.id.to_string())
    }
}

#[async_trait]
impl Operation for ListCertificates {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &CertificatePage,
        _: &Decision,
    ) -> Result<CertificatePage> {
        Ok(page.clone())
    }
}

async fn find(view: &View, name: &IdentityName) -> Result<Option<Versioned<IdentityRow>>> {
    let name = name.clone();
    view.read(move |tx| async move { Ok(identities::identity_named(tx, &name).await?) }.boxed())
        .await
}

async fn describe(
    tx: &mut Tx,
    found: Vec<Versioned<CredentialRow>>,
    now: UnixMillis,
) -> Result<Vec<Listed>> {
    let mut holders: HashMap<IdentityId, (String, i64)> = HashMap::new();
    let mut listed = Vec::with_capacity(found.len());
    for Versioned { row, .. } in found {
        let known = holders.get(&row.identity).cloned();
        let (identity, epoch) = if let Some(known) = known {
            known
        } else {
            let holder = tx.lookup::<IdentityRow>(&row.identity).await?;
            let holder =
                holder.ok_or_else(|| Error::internal("a certificate without its identity"))?;
            let known = (holder.row.name.to_string(), holder.row.revocation_epoch);
            holders.insert(row.identity, known.clone());
            known
        };
        let standing = Standing::of(&row, epoch, now);
        listed.push(Listed { said: Said::of_der(&row.detail)?, row, identity, standing });
    }
    Ok(listed)
}

/// Shows the authorities.
#[derive(Debug)]
pub struct ShowAuthorities {
    /// Where they are.
    pub authorities: AuthoritySlot,
}

/// The authorities, with what their certificates say.
#[derive(Debug, Clone)]
pub struct Anchors(pub Arc<Authorities>);

#[async_trait]
impl Verb for ShowAuthorities {
    const ACTION: &'static str = "pki.ca";
    type Prepared = Anchors;
    type Output = Anchors;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("pki", &["authorities"])?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<Anchors> {
        Ok(Anchors(self.authorities.current()?))
    }
}

#[async_trait]
impl Operation for ShowAuthorities {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        anchors: &Anchors,
        _: &Decision,
    ) -> Result<Anchors> {
        Ok(anchors.clone())
    }
}
