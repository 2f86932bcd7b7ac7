//! Tokens: made, shown, renewed, revoked. What they are accepted for, and how a use is taken, is
//! the vault's own: see `src/vault/token.rs` and its neighbours.

mod create;
mod end;
mod list;
mod renew;
mod replace;
mod revoke;
mod show;

use futures_util::FutureExt as _;

pub use create::{CreateToken, Made, MintToken, Order, TokenLimits};
pub use end::EndToken;
pub(in crate::engines) use end::{
    Left, end_lent, end_made_under, end_with_below, is_taken_back, needs_of_revoking, revoke,
};
pub use list::ListTokens;
pub use renew::RenewToken;
pub use revoke::RevokeToken;
pub use show::InspectToken;

use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, IdentityName, ResourceName};
use crate::vault::{Resource, TokenDetail, View};

/// A token as it is shown.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its row.
    pub row: CredentialRow,
    /// What its kind knows about it.
    pub detail: TokenDetail,
    /// The name of whose it is.
    pub identity: IdentityName,
    /// Whether it is dead since its identity was contained or the vault restored.
    pub void: bool,
    /// The name of who made it.
    pub created_by: String,
}

/// A token with whose it is, as of one snapshot.
#[derive(Debug, Clone)]
struct Found {
    token: Versioned<CredentialRow>,
    detail: TokenDetail,
    holder: Versioned<IdentityRow>,
    created_by: String,
}

impl Found {
    /// Shows it as of a restore of the vault.
    fn shown(&self, row: CredentialRow, restore_epoch: i64) -> Result<Token> {
        let detail = TokenDetail::decode(&row.detail)?;
        let holder = &self.holder.row;
        let void =
            row.revocation_epoch < holder.revocation_epoch || detail.restore_epoch != restore_epoch;
        Ok(Token {
            row,
            detail,
            identity: holder.name.clone(),
            void,
            created_by: self.created_by.clone(),
        })
    }
}

/// Finds a token.
async fn find(view: &View, id: CredentialId) -> Result<Option<Found>> {
    view.read(move |tx| async move { load(tx, id).await }.boxed()).await
}

async fn load(tx: &mut Tx, id: CredentialId) -> Result<Option<Found>> {
    let token = tx.lookup::<CredentialRow>(&id).await?;
    let Some(token) = token.filter(|token| token.row.kind == CredentialKind::Token) else {
        return Ok(None);
    };
    let holder = tx.lookup::<IdentityRow>(&token.row.identity).await?;
    let holder = holder.ok_or_else(|| Error::internal("a token without its identity"))?;
    let detail = TokenDetail::decode(&token.row.detail)?;
    let created_by = Names::default().actor(tx, &detail.created_by).await?;
    Ok(Some(Found { token, detail, holder, created_by }))
}

/// Names the tokens of an identity.
fn resource_name(identity: &IdentityName) -> Result<ResourceName> {
    ResourceName::join("tokens", &[identity.as_str()])
}

/// The token that is meant: by its accessor, or the one that asks.
fn meant(view: &View, accessor: Option<CredentialId>) -> Result<CredentialId> {
    if let Some(accessor) = accessor {
        return Ok(accessor);
    }
    let credential = &view.subject()?.credential.row;
    if credential.kind == CredentialKind::Token {
        Ok(credential.id)
    } else {
        Err(Error::invalid("name the token by its accessor, or ask with the token itself"))
    }
}

/// A token as a decision sees it: held by its identity, owned by whoever answers for that. One
/// that does not exist is named by its id.
async fn resource_of(view: &View, accessor: Option<CredentialId>) -> Result<Vec<Resource>> {
    let id = meant(view, accessor)?;
    let Some(found) = find(view, id).await? else {
        return Ok(vec![Resource::named(ResourceName::join("tokens", &[&id.to_string()])?)]);
    };
    let name = resource_name(&found.holder.row.name)?;
    let mut resource = Resource::named(name).with_row(id.0, &found.token);
    resource.rows.push(found.holder.fence());
    resource.holder = Some(found.holder.row.id);
    resource.owner = Some(found.holder.row.owner);
    Ok(vec![resource])
}

fn missing() -> Error {
    Error::not_found("there is no such token")
}
