//! A signed statement on a manifest, verified before it is read. No I/O.

use data_encoding::BASE64;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::crypto::{
    HASH_BYTES, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, parse_hex, pre_authentication,
    scheme_of, verifies,
};

/// Signatures of an envelope that are looked at.
const SIGNATURES: usize = 16;

#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(rename = "_type")]
    type_: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Debug, Deserialize)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Debug, Deserialize)]
struct Digest {
    sha256: String,
}

/// What the vault says of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Predicate {
    /// The vault's id.
    pub(super) vault: String,
    /// The name of who had it signed.
    pub(super) identity: String,
    /// Its id.
    #[serde(rename(deserialize = "identityId"))]
    pub(super) identity_id: String,
    /// The key's name.
    pub(super) key: String,
    /// Its id.
    #[serde(rename(deserialize = "keyId"))]
    pub(super) key_id: String,
    /// Its version.
    pub(super) version: i64,
    /// When, RFC 3339.
    #[serde(rename(deserialize = "signedAt"))]
    pub(super) signed_at: String,
    /// How many files the manifest lists.
    pub(super) files: u64,
    /// How many bytes those have.
    #[serde(rename(deserialize = "sizeBytes"))]
    pub(super) size_bytes: u64,
}

/// A statement whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The manifest's name, as it was signed.
    pub(super) manifest: String,
    /// Its SHA-256.
    pub(super) digest: [u8; HASH_BYTES],
    pub(super) predicate: Predicate,
}

/// Reads a public key: DER of a `SubjectPublicKeyInfo` out of PEM.
///
/// # Errors
/// What is wrong with it.
pub(super) fn public_key(pem: &str) -> Result<Vec<u8>, &'static str> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes());
    Ok(key.map_err(|_malformed| "it holds no PEM of a public key")?.as_ref().to_vec())
}

/// Verifies an envelope and reads the statement in it: the bytes that were verified.
///
/// # Errors
/// What is wrong with it.
pub(super) fn open(envelope: &str, public_key: &[u8]) -> Result<Statement, &'static str> {
    let envelope: Envelope =
        serde_json::from_str(envelope).map_err(|_malformed| "it is no DSSE envelope")?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err("it holds something else than a statement");
    }
    let payload = BASE64.decode(envelope.payload.as_bytes());
    let payload = payload.map_err(|_malformed| "its payload is no base64")?;
    let scheme =
        scheme_of(public_key).ok_or("the public key is of no kind that signs artifacts")?;
    let signed = pre_authentication(PAYLOAD_TYPE, &payload);
    let holds = envelope.signatures.iter().take(SIGNATURES).any(|one| {
        let signature = BASE64.decode(one.sig.as_bytes());
        signature.is_ok_and(|signature| verifies(scheme, public_key, &signed, &signature))
    });
    if !holds {
        return Err("no signature of it holds under the public key");
    }
    read(&payload)
}

fn read(payload: &[u8]) -> Result<Statement, &'static str> {
    let raw: Raw = serde_json::from_slice(payload).map_err(|_malformed| "it is no statement")?;
    if raw.type_ != STATEMENT_TYPE || raw.predicate_type != PREDICATE_TYPE {
        return Err("its statement is not on a manifest of a vault");
    }
    let [subject] = raw.subject.as_slice() else {
        return Err("it speaks of not exactly one manifest");
    };
    let digest = parse_hex(&subject.digest.sha256).map_err(|_digits| "its digest is none")?;
    let digest = digest.try_into().map_err(|_length| "its digest is none")?;
    Ok(Statement { manifest: subject.name.clone(), digest, predicate: raw.predicate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{NewSigner, Scheme, hex, new_signer, sign};
    use crate::types::SystemEntropy;

    fn payload() -> String {
        let digest = hex(&[7; 32]);
        format!(
            r#"{{"_type":"{STATEMENT_TYPE}","subject":[{{"name":"m","digest":{{"sha256":"{digest}"}}}}],"predicateType":"{PREDICATE_TYPE}","predicate":{{"vault":"v","identity":"alice","identityId":"i","key":"k","keyId":"d","version":1,"signedAt":"t","files":1,"sizeBytes":2}}}}"#
        )
    }

    fn envelope(signer: &NewSigner, payload: &str, payload_type: &str) -> String {
        let message = pre_authentication(payload_type, payload.as_bytes());
        let sig = sign(Scheme::EcdsaP256, &signer.private, &message).unwrap();
        let (payload, sig) = (BASE64.encode(payload.as_bytes()), BASE64.encode(&sig));
        format!(
            r#"{{"payloadType":"{payload_type}","payload":"{payload}","signatures":[{{"keyid":"d/1","sig":"{sig}"}}]}}"#
        )
    }

    #[test]
    fn only_what_is_signed_as_a_statement_on_one_manifest_opens() {
        let ours = new_signer(Scheme::EcdsaP256, &SystemEntropy).unwrap();
        let theirs = new_signer(Scheme::EcdsaP256, &SystemEntropy).unwrap();
        let good = envelope(&ours, &payload(), PAYLOAD_TYPE);
        let opened = open(&good, &ours.public).unwrap();
        assert_eq!((opened.manifest.as_str(), opened.digest), ("m", [7; 32]));
        assert_eq!((opened.predicate.files, opened.predicate.size_bytes), (1, 2));
        assert!(open(&good, &theirs.public).is_err());
        let two = payload().replace(
            "\"subject\":[",
            "\"subject\":[{\"name\":\"n\",\"digest\":{\"sha256\":\"\"}},",
        );
        for bad in [
            good.replace("alice", "mallory").replace("payload\":\"ey", "payload\":\"fy"),
            envelope(&ours, &payload(), "text/plain"),
            envelope(&ours, &payload().replace(STATEMENT_TYPE, "x"), PAYLOAD_TYPE),
            envelope(&ours, &payload().replace(PREDICATE_TYPE, "x"), PAYLOAD_TYPE),
            envelope(&ours, &two, PAYLOAD_TYPE),
            envelope(&ours, &payload().replace("0707", "07"), PAYLOAD_TYPE),
            envelope(&ours, "{}", PAYLOAD_TYPE),
            good.replace("signatures\":[", "signatures\":[],\"x\":["),
            good.replace("{\"payloadType", "{\"payload\":\"\",\"payloadType"),
            String::new(),
        ] {
            assert!(open(&bad, &ours.public).is_err(), "{bad}");
        }
    }
}
