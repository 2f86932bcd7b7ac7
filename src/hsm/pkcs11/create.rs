//! Making keys inside the token.
//!
//! Labels are ours to keep unique: PKCS#11 takes duplicates. Must not know what a key is for.

use std::sync::Arc;
use std::time::Duration;

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};

use super::error::{is_template, map};
use super::keys::{Key, find, key_type, labelled, usage};
use super::operations::{mechanism_type, random};
use super::token::Active;
use crate::hsm::{HsmError, KeyKind, der};

/// Refuses a label that some key carries already.
pub(super) fn require_free(active: &Active<'_>, label: &str) -> Result<(), HsmError> {
    let found = labelled(active, label)?;
    if found.secrets.is_empty() && found.privates.is_empty() && found.publics.is_empty() {
        Ok(())
    } else {
        Err(HsmError::KeyNotUnique(label.to_owned()))
    }
}

/// How long a new key waits before it is looked for: tokens show an object of another process a
/// moment late.
const SETTLE: Duration = Duration::from_millis(150);

/// Makes a key, verifies it and gives it.
///
/// PKCS#11 has no way to make a label only once. Within a process creations queue. Of two
/// processes at once, whoever sees the other's key after [`SETTLE`] destroys its own and is
/// refused; both may be. Where two keys remain in spite of that, every lookup refuses both.
pub(super) fn create(
    active: &Active<'_>,
    label: &str,
    kind: KeyKind,
) -> Result<Arc<Key>, HsmError> {
    let id = random(active, 16)?;
    let made = match kind {
        KeyKind::HmacSha256 => vec![secret(active, label, &id)?],
        KeyKind::EcdsaP256 | KeyKind::EcdhP256 => pair(active, label, &id, kind, der::P256_OID)?,
        KeyKind::EcdsaP384 => pair(active, label, &id, kind, der::P384_OID)?,
        KeyKind::Ed25519 => pair(active, label, &id, kind, der::ED25519_OID)?,
        KeyKind::RsaPss3072 | KeyKind::RsaOaep3072 => rsa_pair(active, label, &id, kind, 3_072)?,
        KeyKind::RsaPss4096 => rsa_pair(active, label, &id, kind, 4_096)?,
    };
    std::thread::sleep(SETTLE);
    let result = find(active, label);
    if result.is_err() {
        for handle in made {
            if let Err(error) = active.session.destroy_object(handle) {
                tracing::error!(%error, label, "a refused key could not be destroyed");
            }
        }
    }
    result
}

fn secret(active: &Active<'_>, label: &str, id: &[u8]) -> Result<ObjectHandle, HsmError> {
    let kind = KeyKind::HmacSha256;
    let generate = |key_type: KeyType| {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(key_type),
            Attribute::ValueLen(32.into()),
            Attribute::Verify(false),
            Attribute::Encrypt(false),
            Attribute::Wrap(false),
        ];
        template.extend(custody(label, id, kind));
        with_mechanism(template, kind, |template| {
            active.session.generate_key(&Mechanism::GenericSecretKeyGen, template)
        })
    };
    let mut made = generate(KeyType::GENERIC_SECRET);
    if made.as_ref().is_err_and(is_template) {
        // Some tokens want to know what the secret is for.
        made = generate(KeyType::SHA256_HMAC);
    }
    made.map_err(|error| map(&error))
}

fn pair(
    active: &Active<'_>,
    label: &str,
    id: &[u8],
    kind: KeyKind,
    curve: &[u8],
) -> Result<Vec<ObjectHandle>, HsmError> {
    let generator = match kind {
        KeyKind::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        KeyKind::HmacSha256
        | KeyKind::EcdsaP256
        | KeyKind::EcdsaP384
        | KeyKind::EcdhP256
        | KeyKind::RsaPss3072
        | KeyKind::RsaPss4096
        | KeyKind::RsaOaep3072 => Mechanism::EccKeyPairGen,
    };
    let public = |curve: &[u8]| {
        vec![
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.to_vec()),
            Attribute::EcParams(curve.to_vec()),
            Attribute::Verify(usage(kind) == AttributeType::Sign),
        ]
    };
    let mut private = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(key_type(kind)),
        Attribute::SignRecover(false),
    ];
    private.extend(custody(label, id, kind));
    let generate = |curve: &[u8]| {
        with_mechanism(private.clone(), kind, |template| {
            active.session.generate_key_pair(&generator, &public(curve), template)
        })
    };
    let mut made = generate(curve);
    if kind == KeyKind::Ed25519 && made.as_ref().is_err_and(is_template) {
        // Some tokens know the curve by its name only.
        made = generate(der::ED25519_NAME);
    }
    made.map(|(public, private)| vec![private, public]).map_err(|error| map(&error))
}

fn rsa_pair(
    active: &Active<'_>,
    label: &str,
    id: &[u8],
    kind: KeyKind,
    bits: u64,
) -> Result<Vec<ObjectHandle>, HsmError> {
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::ModulusBits(bits.into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
        Attribute::Verify(usage(kind) == AttributeType::Sign),
        Attribute::Encrypt(usage(kind) == AttributeType::Decrypt),
        Attribute::Wrap(false),
    ];
    let mut private = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(key_type(kind)),
        Attribute::SignRecover(false),
    ];
    private.extend(custody(label, id, kind));
    let generator = Mechanism::RsaPkcsKeyPairGen;
    let made = with_mechanism(private, kind, |template| {
        active.session.generate_key_pair(&generator, &public, template)
    });
    made.map(|(public, private)| vec![private, public]).map_err(|error| map(&error))
}

/// Destroys every object that carries a label.
pub(super) fn destroy(active: &Active<'_>, label: &str) -> Result<(), HsmError> {
    let found = labelled(active, label)?;
    for handle in found.privates.into_iter().chain(found.secrets).chain(found.publics) {
        active.session.destroy_object(handle).map_err(|error| map(&error))?;
    }
    active.shared.keys.forget(label);
    Ok(())
}

/// What every key of ours has: it lives in the token, stays there, and does one thing.
fn custody(label: &str, id: &[u8], kind: KeyKind) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(usage(kind) == AttributeType::Sign),
        Attribute::Decrypt(usage(kind) == AttributeType::Decrypt),
        Attribute::Unwrap(false),
        Attribute::Derive(usage(kind) == AttributeType::Derive),
    ]
}

/// Binds the key to its one mechanism, where the token knows such a bond.
fn with_mechanism<T>(
    mut template: Vec<Attribute>,
    kind: KeyKind,
    generate: impl Fn(&[Attribute]) -> Result<T, Error>,
) -> Result<T, Error> {
    template.push(Attribute::AllowedMechanisms(vec![mechanism_type(kind)]));
    match generate(&template) {
        Err(error) if is_template(&error) => {
            drop(template.pop());
            generate(&template)
        }
        result => result,
    }
}
