//! Signs a statement on artifacts: which manifest it is about, who had it signed, with what, when.
//!
//! The vault writes the statement, so that nobody can have it say anything else; the key that signs it
//! signs nothing but such statements. The form is the field's: an in-toto statement
//! (in-toto.io/Statement/v1) in a DSSE envelope, whose signature covers its type as well.

use async_trait::async_trait;
use data_encoding::BASE64;
use serde::Serialize;

use super::batch::{Used, Work, all_used};
use super::find::Keys;
use crate::audit::Field;
use crate::crypto::{PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, hex, pre_authentication};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::{Needs, Tx};
use crate::types::{KeyName, KeyPurpose, KeyUsage, Placement, RequestContext};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

/// Files that a manifest lists at most.
const FILES: u64 = 1_000_000;
/// Bytes of a manifest's name at most.
const NAME_BYTES: usize = 255;

/// Signs a statement on a manifest.
#[derive(Debug)]
pub struct SignArtifact {
    /// What this node remembers of keys.
    pub keys: Keys,
    /// The key's name.
    pub name: KeyName,
    /// The manifest's name: a file's, without directories.
    pub manifest: String,
    /// SHA-256 of the manifest.
    pub digest: [u8; 32],
    /// How many files it lists, as the signer says.
    pub files: u64,
    /// How many bytes those have, as the signer says.
    pub size_bytes: u64,
}

/// A statement, signed.
#[derive(Debug, Clone)]
pub struct SignedArtifact {
    /// The envelope, JSON.
    pub envelope: String,
    /// Which key signed.
    pub used: Used,
}

#[derive(Debug, Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    type_: &'a str,
    subject: [Subject<'a>; 1],
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    predicate: Predicate<'a>,
}

#[derive(Debug, Serialize)]
struct Subject<'a> {
    name: &'a str,
    digest: Digest,
}

#[derive(Debug, Serialize)]
struct Digest {
    sha256: String,
}

#[derive(Debug, Serialize)]
struct Predicate<'a> {
    vault: String,
    identity: &'a str,
    #[serde(rename = "identityId")]
    identity_id: String,
    key: &'a str,
    #[serde(rename = "keyId")]
    key_id: String,
    version: i64,
    #[serde(rename = "signedAt")]
    signed_at: String,
    files: u64,
    #[serde(rename = "sizeBytes")]
    size_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Envelope<'a> {
    #[serde(rename = "payloadType")]
    payload_type: &'a str,
    payload: String,
    signatures: [Signature; 1],
}

#[derive(Debug, Serialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl SignArtifact {
    /// Refuses what no manifest is like.
    fn check(&self) -> Result<()> {
        let plain = |c: char| !c.is_control() && c != '/' && c != '\\';
        let named = !self.manifest.is_empty()
            && self.manifest.len() <= NAME_BYTES
            && self.manifest.chars().all(plain)
            && !matches!(self.manifest.as_str(), "." | "..");
        if !named {
            return Err(Error::invalid("a manifest has the name of a file, without directories"));
        }
        if self.files == 0 || self.files > FILES {
            return Err(Error::invalid(format!("a manifest lists 1 to {FILES} files")));
        }
        Ok(())
    }

    fn statement(&self, view: &View, used: &Used) -> Result<Vec<u8>> {
        let identity = &view.subject()?.identity.row;
        let statement = Statement {
            type_: STATEMENT_TYPE,
            subject: [Subject {
                name: &self.manifest,
                digest: Digest { sha256: hex(&self.digest) },
            }],
            predicate_type: PREDICATE_TYPE,
            predicate: Predicate {
                vault: view.vault_id().to_string(),
                identity: identity.name.as_str(),
                identity_id: identity.id.to_string(),
                key: self.name.as_str(),
                key_id: used.id.to_string(),
                version: used.version,
                signed_at: view.now().to_string(),
                files: self.files,
                size_bytes: self.size_bytes,
            },
        };
        serde_json::to_vec(&statement).map_err(Error::internal)
    }
}

#[async_trait]
impl Verb for SignArtifact {
    const ACTION: &'static str = "keys.sign-artifact";
    type Prepared = (SignedArtifact, Vec<KeyUse>);
    type Output = SignedArtifact;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.keys.resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        self.check()?;
        let hot = self.keys.decided(view, decision, &self.name, Some(KeyUsage::Signs)).await?;
        let row = &hot.row.row;
        if row.purpose != KeyPurpose::Artifacts || row.placement != Placement::Hsm {
            return Err(Error::invalid(
                "the key was not made for artifacts; `key create --for-artifacts` makes one that is",
            ));
        }
        let work = Work::new(&self.keys, view, &hot, 1)?;
        let (id, version) = (row.id, work.newest.version);
        let used = Used { id, version, placement: row.placement, algorithm: row.algorithm };
        let payload = self.statement(view, &used)?;
        let message = pre_authentication(PAYLOAD_TYPE, &payload);
        let sig = work.sign_in_hsm(&work.newest, &message).await?;
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE,
            payload: BASE64.encode(&payload),
            signatures: [Signature { keyid: format!("{id}/{version}"), sig: BASE64.encode(&sig) }],
        };
        let envelope = serde_json::to_string_pretty(&envelope).map_err(Error::internal)?;
        let noted = KeyUse { key: id.to_string(), version, purpose: "sign-artifact/hsm" };
        // What was noted on the way is the same use, by the name of any signature.
        let mut noted = all_used(view, vec![noted]);
        noted.retain(|used| used.purpose != "sign/hsm");
        Ok((SignedArtifact { envelope, used }, noted))
    }

    fn note(&self, (_, noted): &Self::Prepared, note: &mut Note) {
        note.keys.extend(noted.iter().cloned());
        let Self { manifest, digest, files, size_bytes, .. } = self;
        let digest = hex(digest);
        let detail =
            format!("manifest {manifest}, sha256 {digest}, {files} files, {size_bytes} bytes");
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for SignArtifact {
    const NEEDS: Needs = READS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        (signed, _): &Self::Prepared,
        _: &Decision,
    ) -> Result<SignedArtifact> {
        Ok(signed.clone())
    }
}
