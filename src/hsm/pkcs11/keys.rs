//! Finding keys and refusing those that are not what was promised.
//!
//! A handle reaches an operation only through here: verified, and of the present epoch. Must not
//! know what a key is for.

use std::collections::HashMap;
use std::sync::Arc;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use parking_lot::RwLock;

use super::error::map;
use super::operations::{agree, decrypt, mechanism_type, sign};
use super::token::Active;
use crate::hsm::{CHECK_BYTES, CHECK_LABEL, HsmError, KeyInfo, KeyKind, der};

/// Half of the keys that are remembered at most: one that falls out is verified again.
const HALF: usize = 512;
/// Most keys of which it is remembered what each was: the vault's own handful comes first.
const MAX_PINS: usize = 65_536;

/// A key that was verified.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) handle: ObjectHandle,
    pub(super) info: KeyInfo,
}

/// Verified keys of one epoch, and what each was when this process first saw it.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    state: RwLock<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    epoch: u64,
    /// Two halves, the older of which is dropped when the younger is full: what is used stays.
    young: HashMap<String, Arc<Key>>,
    old: HashMap<String, Arc<Key>>,
    /// Check values since the login: a token that comes back with another key is refused.
    pins: HashMap<String, Vec<u8>>,
}

impl CacheState {
    fn put(&mut self, label: String, key: Arc<Key>) {
        if self.young.len() >= HALF && !self.young.contains_key(&label) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(label, key);
    }
}

impl KeyCache {
    /// Forgets all handles and begins an epoch.
    pub(super) fn clear(&self, epoch: u64) {
        let mut state = self.state.write();
        state.epoch = state.epoch.max(epoch);
        state.young.clear();
        state.old.clear();
    }

    /// Forgets what each key was: whoever logs in next compares anew.
    pub(super) fn forget_pins(&self) {
        self.state.write().pins.clear();
    }

    /// Forgets a key that is destroyed.
    pub(super) fn forget(&self, label: &str) {
        let mut state = self.state.write();
        state.young.remove(label);
        state.old.remove(label);
        state.pins.remove(label);
    }

    fn lookup(&self, label: &str, epoch: u64) -> Option<Arc<Key>> {
        let state = self.state.read();
        if state.epoch != epoch {
            return None;
        }
        let young = state.young.get(label).cloned();
        if young.is_some() || !state.old.contains_key(label) {
            return young;
        }
        drop(state);
        let mut state = self.state.write();
        if state.epoch != epoch {
            return None;
        }
        let key = state.old.remove(label)?;
        state.put(label.to_owned(), Arc::clone(&key));
        Some(key)
    }

    /// Remembers a key; refuses one that changed since this process first saw it.
    fn remember(&self, key: &Arc<Key>, epoch: u64) -> Result<(), HsmError> {
        let label = key.info.label.clone();
        let mut state = self.state.write();
        if state.pins.get(&label).is_some_and(|check| *check != key.info.check) {
            return Err(untrusted(&label, "it is another key than before the token was lost"));
        }
        if state.pins.len() < MAX_PINS {
            state.pins.insert(label.clone(), key.info.check.clone());
        }
        if state.epoch == epoch {
            state.put(label, Arc::clone(key));
        }
        Ok(())
    }
}

/// Looks a key up, in the cache or in the token, where it is verified.
pub(super) fn lookup(active: &Active<'_>, label: &str) -> Result<Option<Arc<Key>>, HsmError> {
    if let Some(key) = active.shared.keys.lookup(label, active.epoch) {
        return Ok(Some(key));
    }
    let Some(key) = verify(active, label)? else {
        return Ok(None);
    };
    let key = Arc::new(key);
    active.shared.keys.remember(&key, active.epoch)?;
    Ok(Some(key))
}

/// Finds a key that must be there.
pub(super) fn find(active: &Active<'_>, label: &str) -> Result<Arc<Key>, HsmError> {
    lookup(active, label)?.ok_or_else(|| HsmError::KeyMissing(label.to_owned()))
}

/// The key objects in the token that carry a label.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    pub(super) secrets: Vec<ObjectHandle>,
    pub(super) privates: Vec<ObjectHandle>,
    pub(super) publics: Vec<ObjectHandle>,
}

/// Finds every key object that carries a label.
pub(super) fn labelled(active: &Active<'_>, label: &str) -> Result<Labelled, HsmError> {
    let mut found = Labelled::default();
    for (class, handles) in [
        (ObjectClass::SECRET_KEY, &mut found.secrets),
        (ObjectClass::PRIVATE_KEY, &mut found.privates),
        (ObjectClass::PUBLIC_KEY, &mut found.publics),
    ] {
        *handles = active
            .session
            .find_objects(&[
                Attribute::Token(true),
                Attribute::Class(class),
                Attribute::Label(label.as_bytes().to_vec()),
            ])
            .map_err(|error| map(&error))?;
    }
    Ok(found)
}

fn verify(active: &Active<'_>, label: &str) -> Result<Option<Key>, HsmError> {
    let found = labelled(active, label)?;
    match (found.secrets.as_slice(), found.privates.as_slice(), found.publics.as_slice()) {
        ([], [], []) => Ok(None),
        ([secret], [], []) => verify_secret(active, label, *secret).map(Some),
        ([], [private], [public]) => verify_pair(active, label, *private, *public).map(Some),
        ([], [_], []) => Err(untrusted(label, "its public key is missing")),
        ([], [], [_]) => Err(untrusted(label, "its private key is missing")),
        _ => Err(HsmError::KeyNotUnique(label.to_owned())),
    }
}

fn verify_secret(active: &Active<'_>, label: &str, handle: ObjectHandle) -> Result<Key, HsmError> {
    let object = Object::read(active, label, handle, SECRET_ATTRIBUTES)?;
    let kind = KeyKind::HmacSha256;
    object.require_type(&[KeyType::GENERIC_SECRET, KeyType::SHA256_HMAC])?;
    object.require_custody()?;
    object.require_only_use(
        AttributeType::Sign,
        &[
            AttributeType::Verify,
            AttributeType::Encrypt,
            AttributeType::Decrypt,
            AttributeType::Wrap,
            AttributeType::Unwrap,
            AttributeType::Derive,
        ],
    )?;
    let len = object.attributes.iter().find_map(|attribute| {
        if let Attribute::ValueLen(len) = attribute { Some(**len) } else { None }
    });
    if len != Some(32) {
        return Err(untrusted(label, "its length is not 32 bytes"));
    }
    require_mechanism(active, label, handle, kind)?;
    let mut check = sign(active.session, handle, kind, CHECK_LABEL)?;
    check.truncate(CHECK_BYTES);
    let info = KeyInfo { label: label.to_owned(), kind, public_key_spki: None, check };
    Ok(Key { handle, info })
}

fn verify_pair(
    active: &Active<'_>,
    label: &str,
    private: ObjectHandle,
    public: ObjectHandle,
) -> Result<Key, HsmError> {
    let object = Object::read(active, label, private, PRIVATE_ATTRIBUTES)?;
    object.require_custody()?;
    let public = Object::read(active, label, public, PUBLIC_ATTRIBUTES)?;
    let does = object.only_use()?;
    let rsa = public.rsa();
    let signs = match &rsa {
        Some((kind, _)) => *kind,
        None => public.curve()?,
    };
    let kind = of_use(signs, does)
        .ok_or_else(|| untrusted(label, &format!("a key like it has not the usage {does:?}")))?;
    object.require_type(&[key_type(kind)])?;
    public.require_type(&[key_type(kind)])?;
    if object.id() != public.id() {
        return Err(untrusted(label, "its public key has another id"));
    }
    require_mechanism(active, label, private, kind)?;
    let point = public.attributes.iter().find_map(|attribute| {
        if let Attribute::EcPoint(point) = attribute { der::point(kind, point) } else { None }
    });
    let point = rsa.as_ref().map(|(_, public)| public.as_slice()).or(point);
    let point = point.ok_or_else(|| untrusted(label, "its public point has another shape"))?;
    let spki = der::spki(kind, point)
        .ok_or_else(|| untrusted(label, "its public key cannot be written"))?;
    if !belong(active, label, (private, kind), (point, &spki))? {
        return Err(untrusted(label, "its public key belongs to another private key"));
    }
    let check = der::spki_hash(&spki);
    let info = KeyInfo { label: label.to_owned(), kind, public_key_spki: Some(spki), check };
    Ok(Key { handle: private, info })
}

/// Which kind a key is that would sign as another, and does what it does.
fn of_use(signs: KeyKind, does: AttributeType) -> Option<KeyKind> {
    let others =
        [(KeyKind::RsaPss3072, KeyKind::RsaOaep3072), (KeyKind::EcdsaP256, KeyKind::EcdhP256)];
    let other = others.into_iter().find(|(known, _)| *known == signs).map(|(_, other)| other);
    [Some(signs), other].into_iter().flatten().find(|kind| usage(*kind) == does)
}

/// Tells whether two halves belong together: the public object is not the private one, so only their
/// use shows it.
fn belong(
    active: &Active<'_>,
    label: &str,
    (private, kind): (ObjectHandle, KeyKind),
    (point, spki): (&[u8], &[u8]),
) -> Result<bool, HsmError> {
    let unable = || untrusted(label, "its public key cannot be used");
    if kind == KeyKind::RsaOaep3072 {
        let sealed = der::encrypts(spki, CHECK_LABEL).ok_or_else(unable)?;
        Ok(decrypt(active.session, private, &sealed)?.as_deref() == Some(CHECK_LABEL))
    } else if kind == KeyKind::EcdhP256 {
        let (sent, agreed) = der::agrees(point).ok_or_else(unable)?;
        Ok(agree(active.session, private, &sent)? == agreed)
    } else {
        let signature = sign(active.session, private, kind, CHECK_LABEL)?;
        Ok(der::verifies(kind, point, CHECK_LABEL, &signature))
    }
}

/// Which `CKK_` a kind has.
pub(super) fn key_type(kind: KeyKind) -> KeyType {
    match kind {
        KeyKind::HmacSha256 => KeyType::GENERIC_SECRET,
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdhP256 => KeyType::EC,
        KeyKind::Ed25519 => KeyType::EC_EDWARDS,
        KeyKind::RsaPss3072 | KeyKind::RsaPss4096 | KeyKind::RsaOaep3072 => KeyType::RSA,
    }
}

/// Tells the one thing that a kind does.
pub(super) fn usage(kind: KeyKind) -> AttributeType {
    match kind {
        KeyKind::HmacSha256
        | KeyKind::EcdsaP256
        | KeyKind::EcdsaP384
        | KeyKind::Ed25519
        | KeyKind::RsaPss3072
        | KeyKind::RsaPss4096 => AttributeType::Sign,
        KeyKind::RsaOaep3072 => AttributeType::Decrypt,
        KeyKind::EcdhP256 => AttributeType::Derive,
    }
}

const SECRET_ATTRIBUTES: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::ValueLen,
    AttributeType::Token,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
    AttributeType::Extractable,
    AttributeType::Local,
    AttributeType::Sign,
    AttributeType::Verify,
    AttributeType::Encrypt,
    AttributeType::Decrypt,
    AttributeType::Wrap,
    AttributeType::Unwrap,
    AttributeType::Derive,
];

const PRIVATE_ATTRIBUTES: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Id,
    AttributeType::Token,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
    AttributeType::Extractable,
    AttributeType::Local,
    AttributeType::Sign,
    AttributeType::SignRecover,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
];

const PUBLIC_ATTRIBUTES: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Id,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
];

/// What the token says of one object.
struct Object<'a> {
    label: &'a str,
    attributes: Vec<Attribute>,
}

impl<'a> Object<'a> {
    fn read(
        active: &Active<'_>,
        label: &'a str,
        handle: ObjectHandle,
        wanted: &[AttributeType],
    ) -> Result<Self, HsmError> {
        let attributes =
            active.session.get_attributes(handle, wanted).map_err(|error| map(&error))?;
        Ok(Self { label, attributes })
    }

    fn fault(&self, fault: &str) -> HsmError {
        untrusted(self.label, fault)
    }

    fn require_type(&self, allowed: &[KeyType]) -> Result<(), HsmError> {
        let known = self.attributes.iter().any(
            |attribute| matches!(attribute, Attribute::KeyType(known) if allowed.contains(known)),
        );
        if known { Ok(()) } else { Err(self.fault("CKA_KEY_TYPE is another one")) }
    }

    /// Requires what keeps a key inside: made there, sensitive, never to leave.
    fn require_custody(&self) -> Result<(), HsmError> {
        self.require(AttributeType::Token, true)?;
        self.require(AttributeType::Private, true)?;
        self.require(AttributeType::Sensitive, true)?;
        self.require(AttributeType::AlwaysSensitive, true)?;
        self.require(AttributeType::Extractable, false)?;
        self.require(AttributeType::NeverExtractable, true)?;
        self.require(AttributeType::Local, true)
    }

    /// Finds the one thing that a private key does, and requires that it does nothing else.
    fn only_use(&self) -> Result<AttributeType, HsmError> {
        use AttributeType::{Decrypt, Derive, Sign, SignRecover, Unwrap};
        let does = [Sign, Decrypt, Derive].into_iter().find(|one| self.flag(*one) == Some(true));
        // None of them is refused as one that does not sign.
        let does = does.unwrap_or(Sign);
        let mut others = vec![Sign, Decrypt, Derive, SignRecover, Unwrap];
        others.retain(|other| *other != does);
        self.require_only_use(does, &others)?;
        Ok(does)
    }

    /// Requires that the key does one thing (signs, MACs, decrypts or agrees) and nothing else.
    fn require_only_use(
        &self,
        only: AttributeType,
        others: &[AttributeType],
    ) -> Result<(), HsmError> {
        self.require(only, true)?;
        // A usage that the token does not even know is not granted.
        let granted = others.iter().find(|other| self.flag(**other).is_some_and(|granted| granted));
        match granted {
            None => Ok(()),
            Some(other) => Err(self.fault(&format!("it has a second usage, {other:?}"))),
        }
    }

    fn require(&self, attribute: AttributeType, wanted: bool) -> Result<(), HsmError> {
        match self.flag(attribute) {
            Some(value) if value == wanted => Ok(()),
            Some(value) => Err(self.fault(&format!("{attribute:?} is {value}"))),
            None => Err(self.fault(&format!("the token does not tell {attribute:?}"))),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum: only flags are read")]
    fn flag(&self, wanted: AttributeType) -> Option<bool> {
        self.attributes.iter().find(|known| known.attribute_type() == wanted).and_then(|known| {
            match known {
                Attribute::Token(value)
                | Attribute::Private(value)
                | Attribute::Sensitive(value)
                | Attribute::AlwaysSensitive(value)
                | Attribute::Extractable(value)
                | Attribute::NeverExtractable(value)
                | Attribute::Local(value)
                | Attribute::Sign(value)
                | Attribute::SignRecover(value)
                | Attribute::Verify(value)
                | Attribute::Encrypt(value)
                | Attribute::Decrypt(value)
                | Attribute::Wrap(value)
                | Attribute::Unwrap(value)
                | Attribute::Derive(value) => Some(*value),
                _ => None,
            }
        })
    }

    fn id(&self) -> Option<&[u8]> {
        self.attributes.iter().find_map(|attribute| {
            if let Attribute::Id(id) = attribute { Some(id.as_slice()) } else { None }
        })
    }

    /// Which RSA key it is, and its public half; none where it is another.
    fn rsa(&self) -> Option<(KeyKind, Vec<u8>)> {
        let modulus = self.attributes.iter().find_map(|attribute| {
            if let Attribute::Modulus(number) = attribute { Some(number.as_slice()) } else { None }
        });
        let exponent = self.attributes.iter().find_map(|attribute| {
            if let Attribute::PublicExponent(number) = attribute {
                Some(number.as_slice())
            } else {
                None
            }
        });
        der::rsa_public(modulus?, exponent?)
    }

    fn curve(&self) -> Result<KeyKind, HsmError> {
        let params = self.attributes.iter().find_map(|attribute| {
            if let Attribute::EcParams(params) = attribute { Some(params.as_slice()) } else { None }
        });
        match params {
            Some(der::P256_OID) => Ok(KeyKind::EcdsaP256),
            Some(der::P384_OID) => Ok(KeyKind::EcdsaP384),
            Some(der::ED25519_OID | der::ED25519_NAME) => Ok(KeyKind::Ed25519),
            _ => Err(self.fault("its curve is another one")),
        }
    }
}

/// Requires that the key is bound to the one mechanism, where the token knows such a bond.
fn require_mechanism(
    active: &Active<'_>,
    label: &str,
    handle: ObjectHandle,
    kind: KeyKind,
) -> Result<(), HsmError> {
    let told = active.session.get_attributes(handle, &[AttributeType::AllowedMechanisms]);
    let wanted: MechanismType = mechanism_type(kind);
    match told.as_deref() {
        // Not known to this token.
        Ok([]) | Err(Error::Pkcs11(RvError::AttributeTypeInvalid, _)) => Ok(()),
        Ok([Attribute::AllowedMechanisms(only)]) if only.as_slice() == [wanted] => Ok(()),
        Ok(_) | Err(Error::InvalidValue | Error::NotSupported) => {
            Err(untrusted(label, "CKA_ALLOWED_MECHANISMS is not exactly its own mechanism"))
        }
        Err(error) => Err(map(error)),
    }
}

pub(super) fn untrusted(label: &str, fault: &str) -> HsmError {
    HsmError::KeyUntrusted { label: label.to_owned(), fault: fault.to_owned() }
}
