//! Asks a cluster whether it still stands behind a token (Kubernetes `TokenReview`), with a credential
//! that the vault keeps for it. What does not say yes is a refusal.
//!
//! Must not know what else is believed of the token: this comes after all of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::{Map, Value, json};

use super::definition::Review;
use super::fetch;
use super::json;
use super::refused::{Refused, Why};
use super::rule::claim;
use super::verify::Believed;
use crate::error::{Error, Result};
use crate::keyring::{KeyUse, Opened, Place, SealedValue};
use crate::store::issuers::ReviewerRow;
use crate::store::keys::KeyOwner;
use crate::store::{Tx, Versioned};
use crate::types::{ObjectId, RequestContext, SecretBytes};
use crate::vault::View;

/// The service account that a projected token is of.
const ACCOUNT: &str = "kubernetes.io/serviceaccount/uid";
/// Bytes of a credential.
const CREDENTIAL: usize = 16 * 1_024;

/// Asks the cluster of a token, where its issuer has one to be asked.
///
/// # Errors
/// [`Refused::Token`] where the cluster does not answer in time, or anything but that the token is
/// good, for us, and of the service account that it names.
pub(super) async fn review(view: &View, believed: &Believed) -> Result<(), Refused> {
    let definition = &believed.definition;
    let Some(review) = &definition.review else { return Ok(()) };
    let opened = open(view, believed.issuer.row.id).await?;
    let credential = std::str::from_utf8(opened.plaintext.expose()).map_err(Error::internal)?;
    let asks = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": whole(believed), "audiences": [definition.audience]},
    });
    let answer = fetch::review(review, definition, credential, Bytes::from(asks.to_string()));
    let answer = answer.await.map_err(|why| {
        Why::new("REVIEW_UNREACHABLE", format!("the cluster could not be asked of it: {why}"))
    })?;
    judge(&answer, &believed.token.claims, &definition.audience).map_err(Refused::from)
}

/// The token as it was presented: of what was decoded there is one text alone.
fn whole(believed: &Believed) -> String {
    let token = &believed.token;
    let signed = String::from_utf8_lossy(&token.signed);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&token.signature))
}

/// Reads what the cluster answered.
///
/// Source: Kubernetes API, authentication.k8s.io/v1, `TokenReviewStatus`.
fn judge(answer: &[u8], claims: &Map<String, Value>, audience: &str) -> Result<(), Why> {
    let no = |text: &str| Err(Why::new("REVIEW_REFUSED", text));
    let answer = json::object(answer).filter(|it| it.get("kind") == Some(&json!("TokenReview")));
    let status = answer.as_ref().and_then(|answer| answer.get("status")?.as_object());
    let Some(status) = status else {
        return no("what the cluster answers is no TokenReview with a status");
    };
    let text = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
    if status.get("authenticated") != Some(&Value::Bool(true)) || !text("error").is_empty() {
        return no("the cluster does not stand behind it");
    }
    // One that does not look at audiences says none.
    let audiences = status.get("audiences").and_then(Value::as_array);
    if !audiences.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(audience))) {
        return no("the cluster does not say that it is for this vault");
    }
    let uid = status.get("user").and_then(|user| user.get("uid")?.as_str());
    match (uid, claim(claims, ACCOUNT).and_then(Value::as_str)) {
        (Some(uid), Some(claimed)) if !uid.is_empty() && uid == claimed => Ok(()),
        (_, _) => no("the cluster says that it is of another service account"),
    }
}

/// Where a credential belongs: it is sealed anew with every version of its row.
const fn place(issuer: ObjectId, version: i64) -> Place {
    Place {
        table: "issuer_reviewers",
        column: "credential",
        row: issuer.0,
        object: issuer.0,
        object_version: version,
    }
}

/// The row of an issuer's reviewer, as long as its credential was not forgotten.
async fn find(view: &View, issuer: ObjectId) -> Result<Option<Versioned<ReviewerRow>>> {
    view.read(move |tx| async move { Ok(tx.lookup::<ReviewerRow>(&issuer).await?) }.boxed()).await
}

async fn open(view: &View, issuer: ObjectId) -> Result<Opened> {
    let found = find(view, issuer).await?.filter(|found| !found.row.credential.is_empty());
    let found = found.ok_or_else(|| Error::internal("a cluster to be asked, and no credential"))?;
    let (row, place) = (&found.row, place(issuer, found.version));
    view.open(KeyOwner::System, &place, row.credential_key, &row.credential).await
}

/// A credential that is about to be stored.
#[derive(Debug)]
pub(super) struct Reviewer {
    /// The version of the row that is there.
    before: Option<i64>,
    issuer: ObjectId,
    sealed: SealedValue,
}

impl Reviewer {
    /// Seals the credential that is given for an issuer; nothing where the stored one stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] where one is missing, or is given for nothing. The stored one never goes to
    /// another place than it was for.
    pub(super) async fn seal(
        view: &View,
        issuer: ObjectId,
        (was, now): (Option<&Review>, Option<&Review>),
        given: Option<&SecretBytes>,
    ) -> Result<Option<Self>> {
        let credential = match (now, given) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                return Err(Error::invalid("say which cluster is asked with that credential"));
            }
            (Some(_), None) if was == now => return Ok(None),
            (Some(_), None) => {
                return Err(Error::invalid(
                    "the reviewer's credential is missing: a stored one is kept only while URL and \
                     authorities stay as they are",
                ));
            }
            (Some(_), Some(given)) => given,
        };
        let visible = credential.expose().iter().all(u8::is_ascii_graphic);
        if !(1..=CREDENTIAL).contains(&credential.expose().len()) || !visible {
            return Err(Error::invalid(
                "a reviewer's credential is a bearer token: 1 to 16,384 visible ASCII characters",
            ));
        }
        let before = find(view, issuer).await?.map(|found| found.version);
        let place = place(issuer, before.unwrap_or(0).saturating_add(1));
        let sealed = view.seal_for(KeyOwner::System, &place, credential).await?;
        Ok(Some(Self { before, issuer, sealed }))
    }

    /// The keys that were used for it.
    pub(super) fn used(&self) -> &[KeyUse] {
        self.sealed.used()
    }

    /// Stores it.
    pub(super) async fn store(&self, ctx: &RequestContext, tx: &mut Tx) -> Result<()> {
        let stored = self.sealed.store(tx).await?;
        let row = ReviewerRow {
            id: self.issuer,
            credential: stored.blob.to_vec(),
            credential_key: stored.key_id,
            changed_at: ctx.now,
        };
        match self.before {
            Some(version) => tx.update(version, &row).await?,
            None => tx.insert(&row).await?,
        };
        Ok(())
    }
}

/// Forgets the credential of an issuer that asks nobody any more.
pub(super) async fn forget(ctx: &RequestContext, tx: &mut Tx, issuer: ObjectId) -> Result<()> {
    let found = tx.lookup::<ReviewerRow>(&issuer).await?;
    if let Some(Versioned { row, version }) = found.filter(|it| !it.row.credential.is_empty()) {
        let row = ReviewerRow { credential: Vec::new(), changed_at: ctx.now, ..row };
        tx.update(version, &row).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_says_yes_in_one_way_alone() {
        let claims = json::object(br#"{"kubernetes.io":{"serviceaccount":{"uid":"u"}}}"#).unwrap();
        let says = |status: &str| {
            let answer = format!(r#"{{"kind":"TokenReview","status":{status}}}"#);
            judge(answer.as_bytes(), &claims, "vault").is_ok()
        };
        assert!(says(r#"{"authenticated":true,"audiences":["a","vault"],"user":{"uid":"u"}}"#));
        for no in [
            "{}",
            "null",
            r#"{"authenticated":false,"audiences":["vault"],"user":{"uid":"u"}}"#,
            r#"{"authenticated":"true","audiences":["vault"],"user":{"uid":"u"}}"#,
            r#"{"authenticated":true,"error":"x","audiences":["vault"],"user":{"uid":"u"}}"#,
            r#"{"authenticated":true,"audiences":["a"],"user":{"uid":"u"}}"#,
            r#"{"authenticated":true,"user":{"uid":"u"}}"#,
            r#"{"authenticated":true,"audiences":["vault"],"user":{"uid":"v"}}"#,
            r#"{"authenticated":true,"audiences":["vault"],"user":{"uid":""}}"#,
            r#"{"authenticated":true,"audiences":["vault"]}"#,
            r#"{"authenticated":false,"authenticated":true,"audiences":["vault"],"user":{"uid":"u"}}"#,
        ] {
            assert!(!says(no), "{no}");
        }
        let other = br#"{"kind":"Status","status":{"authenticated":true,"audiences":["vault"],
                         "user":{"uid":"u"}}}"#;
        assert!(judge(other, &claims, "vault").is_err());
    }
}
