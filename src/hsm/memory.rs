//! A double of a token, for tests and benches of other rooms: its keys are held in memory.
//!
//! No configuration reaches it: `config/` knows PKCS#11 modules only. It passes the same suite as
//! a real token, faults included, which are turned on by hand.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    self, KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PSS_SHA256, RSA_PSS_SHA384, RsaEncoding,
};
use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{
    CALL_TIMEOUT, CHECK_BYTES, CHECK_LABEL, Hsm, HsmError, KeyInfo, KeyKind, check_data,
    check_label, check_random, der,
};
use crate::types::SecretBytes;

/// A fault to turn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// Every call answers [`HsmError::Unavailable`] at once.
    Unavailable,
    /// Every call hangs and answers [`HsmError::Unavailable`] after [`CALL_TIMEOUT`].
    Hang,
    /// Every call but `login` answers [`HsmError::LoggedOut`].
    LoggedOut,
}

/// A token in memory. A double: it protects nothing.
pub struct MemoryHsm {
    pin: SecretBytes,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logged_in: bool,
    fault: Option<MemoryFault>,
    keys: HashMap<String, Key>,
    data: HashMap<String, Vec<u8>>,
}

enum Key {
    Hmac(Box<hmac::Key>),
    Ecdsa(KeyKind, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(KeyKind, Box<rsa::KeyPair>),
    Oaep(Box<Oaep>),
    Ecdh(Box<Ecdh>),
}

/// A key that agrees, with its point.
struct Ecdh {
    private: PrivateKey,
    point: Vec<u8>,
}

impl Ecdh {
    fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let private = PrivateKey::generate(&ECDH_P256)?;
        let point = private.compute_public_key()?.as_ref().to_vec();
        Ok(Self { private, point })
    }
}

/// A key that decrypts, with DER of the `SubjectPublicKeyInfo`.
struct Oaep {
    private: OaepPrivateDecryptingKey,
    spki: Vec<u8>,
}

impl Oaep {
    fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa3072)?;
        let spki: PublicKeyX509Der<'_> = private.public_key().as_der()?;
        let spki = spki.as_ref().to_vec();
        Ok(Self { private: OaepPrivateDecryptingKey::new(private)?, spki })
    }
}

impl MemoryHsm {
    /// Makes an empty token, logged out.
    #[must_use]
    pub fn new(pin: SecretBytes) -> Self {
        Self { pin, state: Mutex::new(State::default()) }
    }

    /// Makes an empty token, logged in.
    #[must_use]
    pub fn unsealed() -> Self {
        let hsm = Self::new(SecretBytes::new(b"1234".to_vec()));
        hsm.state.lock().logged_in = true;
        hsm
    }

    /// Turns a fault on, or off with `None`.
    pub fn set_fault(&self, fault: Option<MemoryFault>) {
        self.state.lock().fault = fault;
    }

    async fn meet_fault(&self) -> Result<(), HsmError> {
        let fault = self.state.lock().fault;
        match fault {
            None => Ok(()),
            Some(MemoryFault::LoggedOut) => Err(HsmError::LoggedOut),
            Some(MemoryFault::Unavailable) => Err(HsmError::Unavailable("a fault".to_owned())),
            Some(MemoryFault::Hang) => {
                tokio::time::sleep(CALL_TIMEOUT).await;
                Err(HsmError::Unavailable("a hang".to_owned()))
            }
        }
    }

    /// Does what needs a login.
    async fn with<T>(
        &self,
        operation: impl FnOnce(&mut State) -> Result<T, HsmError> + Send,
    ) -> Result<T, HsmError> {
        self.meet_fault().await?;
        let mut state = self.state.lock();
        if state.logged_in { operation(&mut state) } else { Err(HsmError::LoggedOut) }
    }
}

impl fmt::Debug for MemoryHsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryHsm").finish_non_exhaustive()
    }
}

impl Key {
    fn generate(kind: KeyKind) -> Result<Self, HsmError> {
        match kind {
            KeyKind::HmacSha256 => {
                let mut bytes = Zeroizing::new([0; 32]);
                rand::fill(bytes.as_mut_slice()).map_err(failed)?;
                Ok(Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))))
            }
            KeyKind::EcdsaP256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .map(|pair| Self::Ecdsa(kind, pair))
                .map_err(failed),
            KeyKind::EcdsaP384 => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)
                .map(|pair| Self::Ecdsa(kind, pair))
                .map_err(failed),
            KeyKind::Ed25519 => Ed25519KeyPair::generate().map(Self::Ed25519).map_err(failed),
            KeyKind::RsaPss3072 => rsa::KeyPair::generate(KeySize::Rsa3072)
                .map(|pair| Self::Rsa(kind, Box::new(pair)))
                .map_err(failed),
            KeyKind::RsaPss4096 => rsa::KeyPair::generate(KeySize::Rsa4096)
                .map(|pair| Self::Rsa(kind, Box::new(pair)))
                .map_err(failed),
            KeyKind::RsaOaep3072 => {
                Oaep::generate().map(|key| Self::Oaep(Box::new(key))).map_err(failed)
            }
            KeyKind::EcdhP256 => {
                Ecdh::generate().map(|key| Self::Ecdh(Box::new(key))).map_err(failed)
            }
        }
    }

    fn info(&self, label: &str) -> KeyInfo {
        let (kind, point) = match self {
            Self::Hmac(_) => (KeyKind::HmacSha256, None),
            Self::Ecdsa(kind, pair) => (*kind, Some(pair.public_key().as_ref())),
            Self::Ed25519(pair) => (KeyKind::Ed25519, Some(pair.public_key().as_ref())),
            // PKCS#1, as `der` takes it.
            Self::Rsa(kind, pair) => (*kind, Some(pair.public_key().as_ref())),
            Self::Oaep(_) => (KeyKind::RsaOaep3072, None),
            Self::Ecdh(key) => (KeyKind::EcdhP256, Some(key.point.as_slice())),
        };
        let public_key_spki = match self {
            Self::Oaep(key) => Some(key.spki.clone()),
            Self::Hmac(_) | Self::Ecdsa(..) | Self::Ed25519(_) | Self::Rsa(..) | Self::Ecdh(_) => {
                point.and_then(|point| der::spki(kind, point))
            }
        };
        let check = match (self, &public_key_spki) {
            (_, Some(spki)) => der::spki_hash(spki),
            (Self::Hmac(key), None) => {
                let tag = hmac::sign(key, CHECK_LABEL);
                tag.as_ref().iter().take(CHECK_BYTES).copied().collect()
            }
            (
                Self::Ecdsa(..) | Self::Ed25519(_) | Self::Rsa(..) | Self::Oaep(_) | Self::Ecdh(_),
                None,
            ) => Vec::new(),
        };
        KeyInfo { label: label.to_owned(), kind, public_key_spki, check }
    }
}

#[async_trait]
impl Hsm for MemoryHsm {
    async fn login(&self, pin: SecretBytes) -> Result<(), HsmError> {
        match self.meet_fault().await {
            Ok(()) | Err(HsmError::LoggedOut) => {}
            Err(error) => return Err(error),
        }
        let mut state = self.state.lock();
        if !state.logged_in && pin != self.pin {
            return Err(HsmError::PinIncorrect);
        }
        state.logged_in = true;
        Ok(())
    }

    async fn logout(&self) -> Result<(), HsmError> {
        self.state.lock().logged_in = false;
        self.meet_fault().await
    }

    async fn create_key(&self, label: &str, kind: KeyKind) -> Result<KeyInfo, HsmError> {
        check_label(label)?;
        let taken = |state: &State| state.keys.contains_key(label);
        if self.with(|state| Ok(taken(state))).await? {
            return Err(HsmError::KeyNotUnique(label.to_owned()));
        }
        let key = Key::generate(kind)?;
        self.with(|state| {
            if taken(state) {
                return Err(HsmError::KeyNotUnique(label.to_owned()));
            }
            let info = key.info(label);
            state.keys.insert(label.to_owned(), key);
            Ok(info)
        })
        .await
    }

    async fn lookup_key(&self, label: &str) -> Result<Option<KeyInfo>, HsmError> {
        check_label(label)?;
        self.with(|state| Ok(state.keys.get(label).map(|key| key.info(label)))).await
    }

    async fn destroy_key(&self, label: &str) -> Result<(), HsmError> {
        check_label(label)?;
        self.with(|state| {
            state.keys.remove(label);
            Ok(())
        })
        .await
    }

    async fn hmac(&self, label: &str, data: &[u8]) -> Result<SecretBytes, HsmError> {
        self.with(|state| match state.keys.get(label) {
            Some(Key::Hmac(key)) => Ok(SecretBytes::new(hmac::sign(key, data).as_ref().to_vec())),
            Some(Key::Ecdsa(..) | Key::Ed25519(_) | Key::Rsa(..) | Key::Oaep(_) | Key::Ecdh(_)) => {
                Err(untrusted(label, "it does not MAC"))
            }
            None => Err(HsmError::KeyMissing(label.to_owned())),
        })
        .await
    }

    async fn sign(&self, label: &str, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.with(|state| match state.keys.get(label) {
            Some(Key::Ecdsa(_, pair)) => pair
                .sign(&rand::SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Some(Key::Ed25519(pair)) => Ok(pair.sign(message).as_ref().to_vec()),
            Some(Key::Rsa(kind, pair)) => {
                let padding: &'static dyn RsaEncoding =
                    if *kind == KeyKind::RsaPss4096 { &RSA_PSS_SHA384 } else { &RSA_PSS_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = rand::SystemRandom::new();
                pair.sign(padding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Some(Key::Hmac(_) | Key::Oaep(_) | Key::Ecdh(_)) => {
                Err(untrusted(label, "it does not sign"))
            }
            None => Err(HsmError::KeyMissing(label.to_owned())),
        })
        .await
    }

    async fn decrypt(
        &self,
        label: &str,
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, HsmError> {
        self.with(|state| match state.keys.get(label) {
            Some(Key::Oaep(key)) => {
                let mut plaintext = Zeroizing::new(vec![0; key.private.min_output_size()]);
                let opened =
                    key.private.decrypt(&OAEP_SHA1_MGF1SHA1, ciphertext, &mut plaintext, None);
                Ok(opened.ok().map(|opened| SecretBytes::new(opened.to_vec())))
            }
            Some(Key::Hmac(_) | Key::Ecdsa(..) | Key::Ed25519(_) | Key::Rsa(..) | Key::Ecdh(_)) => {
                Err(untrusted(label, "it does not decrypt"))
            }
            None => Err(HsmError::KeyMissing(label.to_owned())),
        })
        .await
    }

    async fn agree(&self, label: &str, point: &[u8]) -> Result<Option<SecretBytes>, HsmError> {
        self.with(|state| match state.keys.get(label) {
            Some(Key::Ecdh(key)) if der::is_point(point) => {
                let peer = UnparsedPublicKey::new(&ECDH_P256, point);
                let unable = HsmError::Failed("the agreement failed".to_owned());
                agree(&key.private, peer, unable, |secret| {
                    Ok(Some(SecretBytes::new(secret.to_vec())))
                })
            }
            Some(Key::Ecdh(_)) => Ok(None),
            Some(Key::Hmac(_) | Key::Ecdsa(..) | Key::Ed25519(_) | Key::Rsa(..) | Key::Oaep(_)) => {
                Err(untrusted(label, "it does not agree"))
            }
            None => Err(HsmError::KeyMissing(label.to_owned())),
        })
        .await
    }

    async fn random(&self, len_bytes: usize) -> Result<SecretBytes, HsmError> {
        check_random(len_bytes)?;
        self.with(|_| {
            let mut bytes = vec![0; len_bytes];
            rand::fill(&mut bytes).map_err(failed)?;
            Ok(SecretBytes::new(bytes))
        })
        .await
    }

    async fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
        check_label(label)?;
        self.with(|state| Ok(state.data.get(label).cloned())).await
    }

    async fn write_data(&self, label: &str, value: &[u8]) -> Result<(), HsmError> {
        check_label(label)?;
        check_data(value)?;
        self.with(|state| {
            state.data.insert(label.to_owned(), value.to_vec());
            Ok(())
        })
        .await
    }
}

fn failed(_unspecified: aws_lc_rs::error::Unspecified) -> HsmError {
    HsmError::Failed("the random generator failed".to_owned())
}

fn untrusted(label: &str, fault: &str) -> HsmError {
    HsmError::KeyUntrusted { label: label.to_owned(), fault: fault.to_owned() }
}
