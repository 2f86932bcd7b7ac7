//! What is done with a key or a data object once it is found.
//!
//! One mechanism a kind: `CKM_SHA256_HMAC`, `CKM_ECDSA` over a digest made here, `CKM_EDDSA`,
//! `CKM_SHA256_RSA_PKCS_PSS` and `CKM_SHA384_RSA_PKCS_PSS`; `CKM_RSA_PKCS_OAEP` decrypts,
//! `CKM_ECDH1_DERIVE` agrees.

use aws_lc_rs::digest;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::error::map;
use super::token::Active;
use crate::hsm::{AGREED_BYTES, HsmError, KeyKind, der};
use crate::types::SecretBytes;

/// Marks our data objects (`CKA_APPLICATION`).
const APPLICATION: &[u8] = b"strongroom";

/// Length of the sequence number before a data object's value, in bytes.
const SEQUENCE_BYTES: usize = 8;

/// Names the one mechanism that a key of this kind may be used with.
pub(super) fn mechanism_type(kind: KeyKind) -> MechanismType {
    match kind {
        KeyKind::HmacSha256 => MechanismType::SHA256_HMAC,
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => MechanismType::ECDSA,
        KeyKind::Ed25519 => MechanismType::EDDSA,
        KeyKind::RsaPss3072 => MechanismType::SHA256_RSA_PKCS_PSS,
        KeyKind::RsaPss4096 => MechanismType::SHA384_RSA_PKCS_PSS,
        KeyKind::RsaOaep3072 => MechanismType::RSA_PKCS_OAEP,
        KeyKind::EcdhP256 => MechanismType::ECDH1_DERIVE,
    }
}

/// Signs or MACs a message: DER for ECDSA, 64 bytes for Ed25519, 32 bytes for HMAC.
pub(super) fn sign(
    session: &Session,
    handle: ObjectHandle,
    kind: KeyKind,
    message: &[u8],
) -> Result<Vec<u8>, HsmError> {
    let call = |mechanism: &Mechanism<'_>, data: &[u8]| {
        session.sign(mechanism, handle, data).map_err(|error| map(&error))
    };
    let shape = |signature: Vec<u8>, len_bytes: usize| {
        if signature.len() == len_bytes {
            Ok(signature)
        } else {
            Err(HsmError::Failed("a signature has another length".to_owned()))
        }
    };
    match kind {
        KeyKind::HmacSha256 => shape(call(&Mechanism::Sha256Hmac, message)?, 32),
        KeyKind::EcdsaP256 => {
            let hash = digest::digest(&digest::SHA256, message);
            to_der(&shape(call(&Mechanism::Ecdsa, hash.as_ref())?, 64)?)
        }
        KeyKind::EcdsaP384 => {
            let hash = digest::digest(&digest::SHA384, message);
            to_der(&shape(call(&Mechanism::Ecdsa, hash.as_ref())?, 96)?)
        }
        KeyKind::Ed25519 => {
            let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
            shape(call(&pure, message)?, 64)
        }
        KeyKind::RsaPss3072 => {
            let (hash_alg, mgf) = (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256);
            let pss = PkcsPssParams { hash_alg, mgf, s_len: 32.into() };
            shape(call(&Mechanism::Sha256RsaPkcsPss(pss), message)?, 384)
        }
        KeyKind::RsaPss4096 => {
            let (hash_alg, mgf) = (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384);
            let pss = PkcsPssParams { hash_alg, mgf, s_len: 48.into() };
            shape(call(&Mechanism::Sha384RsaPkcsPss(pss), message)?, 512)
        }
        KeyKind::RsaOaep3072 | KeyKind::EcdhP256 => {
            Err(HsmError::Failed("a key of another use does not sign".into()))
        }
    }
}

/// Decrypts by OAEP; none for what does not open. Tokens have many words for that, and some say no
/// more than that something failed: a fresh session would not open it either.
pub(super) fn decrypt(
    session: &Session,
    handle: ObjectHandle,
    ciphertext: &[u8],
) -> Result<Option<Vec<u8>>, HsmError> {
    let (hash, mgf) = (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1);
    let oaep = Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()));
    match session.decrypt(&oaep, handle, ciphertext) {
        Ok(plaintext) => Ok(Some(plaintext)),
        Err(Error::Pkcs11(
            RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::ArgumentsBad
            | RvError::GeneralError
            | RvError::FunctionFailed,
            _,
        )) => Ok(None),
        Err(error) => Err(map(&error)),
    }
}

/// Agrees on a secret with a point of the curve. The token gives it as an object of the session, which
/// is gone again when it is read.
pub(super) fn agree(
    session: &Session,
    handle: ObjectHandle,
    point: &[u8],
) -> Result<SecretBytes, HsmError> {
    let derive = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(32.into()),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let agreed = session.derive_key(&derive, handle, &template).map_err(|error| map(&error))?;
    let told = session.get_attributes(agreed, &[AttributeType::Value]).map(|told| {
        told.into_iter().find_map(|one| {
            if let Attribute::Value(value) = one { Some(SecretBytes::new(value)) } else { None }
        })
    });
    session.destroy_object(agreed).map_err(|error| map(&error))?;
    let Some(value) = told.map_err(|error| map(&error))? else {
        return Err(HsmError::Unsupported("agreements that tell their secret".to_owned()));
    };
    if value.len_bytes() == AGREED_BYTES {
        Ok(value)
    } else {
        Err(HsmError::Failed("an agreement has another length".to_owned()))
    }
}

fn to_der(raw: &[u8]) -> Result<Vec<u8>, HsmError> {
    der::ecdsa_signature(raw)
        .ok_or_else(|| HsmError::Failed("a signature has another length".to_owned()))
}

/// Takes random bytes from the token.
pub(super) fn random(active: &Active<'_>, len_bytes: usize) -> Result<Vec<u8>, HsmError> {
    let mut bytes = vec![0; len_bytes];
    active.session.generate_random_slice(&mut bytes).map_err(|error| map(&error))?;
    Ok(bytes)
}

/// One copy of a data object: a write makes the new one before it destroys the old.
struct Copy {
    handle: ObjectHandle,
    sequence: u64,
    /// It may be what a recovery token shares with a vault.
    value: Zeroizing<Vec<u8>>,
}

/// Reads a private data object; the newest copy where a crash left two.
pub(super) fn read_data(active: &Active<'_>, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
    Ok(copies(active, label)?.pop().map(|mut newest| std::mem::take(&mut *newest.value)))
}

/// Replaces a private data object; at no instant is there none.
pub(super) fn write_data(active: &Active<'_>, label: &str, value: &[u8]) -> Result<(), HsmError> {
    let old = copies(active, label)?;
    let sequence = old.last().map_or(0, |newest| newest.sequence);
    let sequence = sequence
        .checked_add(1)
        .ok_or_else(|| HsmError::Failed("a data object was written too often".to_owned()))?;
    active
        .session
        .create_object(&[
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Application(APPLICATION.to_vec()),
            Attribute::Value([sequence.to_be_bytes().as_slice(), value].concat()),
        ])
        .map_err(|error| map(&error))?;
    for copy in old {
        active.session.destroy_object(copy.handle).map_err(|error| map(&error))?;
    }
    Ok(())
}

/// Lists the copies of a data object, the newest last.
fn copies(active: &Active<'_>, label: &str) -> Result<Vec<Copy>, HsmError> {
    let template = [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Application(APPLICATION.to_vec()),
    ];
    let handles = active.session.find_objects(&template).map_err(|error| map(&error))?;
    let mut copies = Vec::with_capacity(handles.len());
    for handle in handles {
        let attributes = active
            .session
            .get_attributes(handle, &[AttributeType::Value])
            .map_err(|error| map(&error))?;
        let Some(Attribute::Value(stored)) = attributes.into_iter().next() else {
            return Err(HsmError::Failed("a data object shows no value".to_owned()));
        };
        let stored = Zeroizing::new(stored);
        let (sequence, value) = stored
            .split_first_chunk::<SEQUENCE_BYTES>()
            .ok_or_else(|| HsmError::Failed("a data object is not ours".to_owned()))?;
        let sequence = u64::from_be_bytes(*sequence);
        copies.push(Copy { handle, sequence, value: Zeroizing::new(value.to_vec()) });
    }
    copies.sort_by(|a, b| (a.sequence, a.value.as_slice()).cmp(&(b.sequence, b.value.as_slice())));
    Ok(copies)
}
