//! What a token is and can do, for `init` and `doctor`. Needs no login.

use cryptoki::mechanism::MechanismType;
use cryptoki::slot::Slot;

use super::error::map;
use super::module::Module;
use super::token::Link;
use crate::hsm::{HsmError, KeyKind};

/// What a token is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Path of the module.
    pub module: String,
    /// SHA-256 of the module's file, in hex.
    pub module_sha256: String,
    /// Library's own description and version.
    pub library: String,
    /// Label of the token.
    pub token_label: String,
    /// Serial number of the token.
    pub token_serial: String,
    /// Manufacturer and model of the token.
    pub token_model: String,
    /// What the token says of the user's PIN.
    pub pin: PinState,
    /// Kinds of keys that the token can make and use.
    pub kinds: Vec<KeyKind>,
    /// Whether it has a random generator.
    pub random: bool,
}

/// What a token says of the user's PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// Nothing to worry about.
    Fine,
    /// Wrong PINs were tried since the last login.
    CountLow,
    /// One more wrong PIN locks it.
    FinalTry,
    /// Locked: the security officer resets it.
    Locked,
    /// Never set.
    Unset,
}

impl Probe {
    /// Refuses a token without what the vault cannot do without: HMAC, P-256, P-384, random.
    ///
    /// Ed25519 is not among them: the checkpoint key is ECDSA where it is missing.
    ///
    /// # Errors
    /// [`HsmError::Unsupported`] naming the first thing that is missing.
    pub fn require(&self) -> Result<(), HsmError> {
        for (kind, what) in [
            (KeyKind::HmacSha256, "HMAC-SHA-256 (CKM_SHA256_HMAC, CKM_GENERIC_SECRET_KEY_GEN)"),
            (KeyKind::EcdsaP256, "ECDSA on P-256 (CKM_ECDSA, CKM_EC_KEY_PAIR_GEN)"),
            (KeyKind::EcdsaP384, "ECDSA on P-384 (CKM_ECDSA, CKM_EC_KEY_PAIR_GEN)"),
        ] {
            if !self.kinds.contains(&kind) {
                return Err(HsmError::Unsupported(what.to_owned()));
            }
        }
        if !self.random {
            return Err(HsmError::Unsupported("a random generator".to_owned()));
        }
        Ok(())
    }
}

/// Asks module and token.
pub(super) fn probe(link: &Link) -> Result<Probe, HsmError> {
    link.settle()?;
    let context = link.module().context()?;
    let slot = link.find_slot()?;
    let token = context.get_token_info(slot).map_err(|error| map(&error))?;
    let library = context.get_library_info().map_err(|error| map(&error))?;
    let pin = if token.user_pin_locked() {
        PinState::Locked
    } else if token.user_pin_final_try() {
        PinState::FinalTry
    } else if !token.user_pin_initialized() {
        PinState::Unset
    } else if token.user_pin_count_low() {
        PinState::CountLow
    } else {
        PinState::Fine
    };
    Ok(Probe {
        module: link.module().path().display().to_string(),
        module_sha256: link.module().sha256().to_owned(),
        library: format!("{} {}", library.library_description(), library.library_version()),
        token_label: token.label().to_owned(),
        token_serial: token.serial_number().to_owned(),
        token_model: format!("{} {}", token.manufacturer_id(), token.model()),
        pin,
        kinds: kinds(link.module(), slot)?,
        random: token.rng(),
    })
}

/// Refuses a kind of key that the token cannot make or use.
pub(super) fn require_kind(module: &Module, slot: Slot, kind: KeyKind) -> Result<(), HsmError> {
    if kinds(module, slot)?.contains(&kind) {
        Ok(())
    } else {
        Err(HsmError::Unsupported(format!("keys of kind {kind:?}")))
    }
}

/// Lists the kinds whose generating and using mechanisms are both there.
fn kinds(module: &Module, slot: Slot) -> Result<Vec<KeyKind>, HsmError> {
    let context = module.context()?;
    let known = context.get_mechanism_list(slot).map_err(|error| map(&error))?;
    let has = |wanted: &[MechanismType]| wanted.iter().all(|wanted| known.contains(wanted));
    let mut kinds = Vec::new();
    if has(&[MechanismType::SHA256_HMAC, MechanismType::GENERIC_SECRET_KEY_GEN]) {
        kinds.push(KeyKind::HmacSha256);
    }
    if has(&[MechanismType::ECDSA, MechanismType::ECC_KEY_PAIR_GEN]) {
        let sizes =
            context.get_mechanism_info(slot, MechanismType::ECDSA).map_err(|error| map(&error))?;
        for (kind, bits) in [(KeyKind::EcdsaP256, 256), (KeyKind::EcdsaP384, 384)] {
            if (sizes.min_key_size()..=sizes.max_key_size()).contains(&bits) {
                kinds.push(kind);
            }
        }
    }
    if has(&[MechanismType::EDDSA, MechanismType::ECC_EDWARDS_KEY_PAIR_GEN]) {
        kinds.push(KeyKind::Ed25519);
    }
    for (kind, mechanism, bits) in [
        (KeyKind::RsaPss3072, MechanismType::SHA256_RSA_PKCS_PSS, 3_072),
        (KeyKind::RsaPss4096, MechanismType::SHA384_RSA_PKCS_PSS, 4_096),
        (KeyKind::RsaOaep3072, MechanismType::RSA_PKCS_OAEP, 3_072),
    ] {
        if has(&[mechanism, MechanismType::RSA_PKCS_KEY_PAIR_GEN]) {
            let generator = MechanismType::RSA_PKCS_KEY_PAIR_GEN;
            let sizes = context.get_mechanism_info(slot, generator).map_err(|error| map(&error))?;
            if (sizes.min_key_size()..=sizes.max_key_size()).contains(&bits) {
                kinds.push(kind);
            }
        }
    }
    if has(&[MechanismType::ECDH1_DERIVE, MechanismType::ECC_KEY_PAIR_GEN]) {
        let agreement = MechanismType::ECDH1_DERIVE;
        let sizes = context.get_mechanism_info(slot, agreement).map_err(|error| map(&error))?;
        if (sizes.min_key_size()..=sizes.max_key_size()).contains(&256) {
            kinds.push(KeyKind::EcdhP256);
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_hmac_or_ecdsa_is_refused_and_one_without_ed25519_is_not() {
        let probe = |kinds: &[KeyKind], random| Probe {
            module: String::new(),
            module_sha256: String::new(),
            library: String::new(),
            token_label: String::new(),
            token_serial: String::new(),
            token_model: String::new(),
            pin: PinState::Fine,
            kinds: kinds.to_vec(),
            random,
        };
        let needed = [KeyKind::HmacSha256, KeyKind::EcdsaP256, KeyKind::EcdsaP384];
        assert_eq!(probe(&needed, true).require(), Ok(()));
        assert!(probe(&needed, false).require().is_err());
        for missing in needed {
            let kinds: Vec<_> = needed.into_iter().filter(|kind| *kind != missing).collect();
            let fault = probe(&kinds, true).require();
            assert!(matches!(fault, Err(HsmError::Unsupported(_))), "{missing:?}");
        }
    }
}
