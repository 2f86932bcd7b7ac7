//! The first login certificate of a founded vault, once more: for an `init` that a crash cut off
//! between its commit and its answer.

use std::sync::Arc;

use futures_util::FutureExt as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::found::{Founded, Founding};
use super::life;
use super::node::Ingredients;
use crate::audit::RecordCodec;
use crate::engines::pki::pem;
use crate::error::{Error, Result};
use crate::keyring::{FinalTry, Keyring};
use crate::store::keys::{Check, HsmPurpose};
use crate::store::{BatchCodec, Reader, RowSealer, Store, credentials, identities};
use crate::types::{CredentialKind, IdentityName, SecretBytes, TaskGroup};

/// How many certificates of the first identity are looked at.
const MOST: i64 = 1_000;

/// Shows the certificate that founding made for the key of `founding`, and for no other key.
///
/// # Errors
/// [`Error::AlreadyExists`] when the vault in the store was founded with another key; what HSM and
/// store answer.
pub(super) async fn recall(
    parts: &Ingredients,
    founding: &Founding,
    pin: SecretBytes,
) -> Result<Founded> {
    let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
    let tasks = TaskGroup::default();
    let batches = codec as Arc<dyn BatchCodec>;
    let (reader, writer) =
        Store::open(&parts.location, &parts.node, Arc::clone(&sealer), batches, &tasks).await?;
    let keyring = Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), sealer);
    let done = async {
        // Rows are verified from here on.
        keyring.unseal(&reader, pin, FinalTry::Refuse).await?;
        look(&reader, founding).await
    };
    let done = done.await;
    drop((reader, writer));
    keyring.seal().await?;
    tasks.shutdown().await;
    done
}

async fn look(reader: &Reader, founding: &Founding) -> Result<Founded> {
    let found = life::foundation(reader, Check::InForce).await?;
    let (_, name, request) = founding.first.parts();
    let name: IdentityName = name.parse()?;
    let rows = reader
        .view(move |tx| {
            async move {
                let Some(first) = identities::identity_named(tx, &name).await? else {
                    return Ok(Vec::new());
                };
                let (kind, first) = (CredentialKind::Login, Some(first.row.id));
                Ok(credentials::after(tx, kind, first, "", MOST).await?)
            }
            .boxed()
        })
        .await?;
    let mut logins = rows.into_iter().map(|row| row.row.detail);
    let ours = logins.find(|der| is_for(der, request.key().spki_der())).ok_or_else(|| {
        Error::AlreadyExists("the store holds a vault already, founded with another key".into())
    })?;
    let root = found.newest(HsmPurpose::CaRoot);
    let root = root.and_then(|key| key.certificate.as_deref()).ok_or(Error::Internal)?;
    Ok(Founded { vault: found.vault.id, certificate_pem: pem(&ours), root_pem: pem(root) })
}

/// Checks whose key a certificate is for.
fn is_for(der: &[u8], spki: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, parsed)| parsed.public_key().raw == spki)
}
