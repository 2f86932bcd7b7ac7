//! Recovery codes: a set that is shown once, of which each works once. A new set voids the last.
//!
//! A code has 80 random bits, so nobody guesses one, and it is looked at while codes that could be
//! guessed are not. What is stored of it is a MAC under a key that the database does not have.

use std::fmt;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use zeroize::Zeroizing;

use super::{end, not_accepted, own, vouched};
use crate::crypto::{MacKey, base32, parse_base32};
use crate::error::{Error, Result};
use crate::store::factors::{self, CodeRow, FactorRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    Entropy, FactorId, FactorKind, FactorState, IdentityId, ObjectId, RequestContext, SecretBytes,
};
use crate::vault::{Decision, FRESH, GOVERNS, Operation, Resource, Verb, View};

/// Codes of a set.
const CODES: usize = 10;
/// Bytes of a code.
const BYTES: usize = 10;
/// Letters and digits of a code's text, and of each group of it.
const TEXT: usize = 16;
const GROUP: usize = 4;

/// A recovery code.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(Zeroizing<[u8; BYTES]>);

impl RecoveryCode {
    fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        entropy.fill(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// Reads a code as it is typed: in capitals or not, with spaces and hyphens wherever they are.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut typed = Zeroizing::new(String::with_capacity(TEXT));
        for byte in text.iter().filter(|byte| !b" -".contains(byte)) {
            if typed.len() == TEXT || !byte.is_ascii_alphanumeric() {
                return None;
            }
            typed.push(char::from(byte.to_ascii_lowercase()));
        }
        let bytes = Zeroizing::new(parse_base32(&typed).ok()?);
        let mut code = Zeroizing::new([0; BYTES]);
        code.copy_from_slice(bytes.get(..BYTES).filter(|_| bytes.len() == BYTES)?);
        Some(Self(code))
    }

    /// Writes it in groups, for a person to copy.
    #[must_use]
    pub fn text(&self) -> SecretBytes {
        let letters = Zeroizing::new(base32(self.0.as_slice()));
        let groups: Vec<_> = letters.as_bytes().chunks(GROUP).collect();
        SecretBytes::new(groups.join(b"-".as_slice()))
    }

    fn handle(&self, key: &MacKey, of: FactorId) -> [u8; 32] {
        key.tag(&[b"strongroom/recovery-code/v1\0", of.0.as_bytes(), self.0.as_slice()])
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Makes a set of codes for the caller.
#[derive(Debug, Clone, Copy)]
pub struct MakeRecoveryCodes;

/// A set that is about to be stored.
#[derive(Debug, Clone)]
pub struct Prepared {
    factor: FactorId,
    vouched_by: Option<IdentityId>,
    codes: Vec<(CodeRow, RecoveryCode)>,
}

/// A set that was made.
#[derive(Debug, Clone)]
pub struct RecoverySet {
    /// Which factor it is.
    pub id: FactorId,
    /// Its codes.
    pub codes: Vec<SecretBytes>,
}

#[async_trait]
impl Verb for MakeRecoveryCodes {
    const ACTION: &'static str = "factors.recovery-codes";
    type Prepared = Prepared;
    type Output = RecoverySet;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        own(view)
    }

    /// An authenticator is asked for: one code of a lost set must not make another set of it.
    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let by = view.subject()?.require_factor(view.now(), &[FactorKind::Totp], FRESH)?;
        let (factor, key) = (FactorId(view.new_id()?), view.keyring().token_key()?);
        let make = |_| {
            let code = RecoveryCode::random(view.entropy())?;
            let handle = code.handle(&key, factor).to_vec();
            let row = CodeRow { id: ObjectId(view.new_id()?), factor, handle, used_at: None };
            Ok((row, code))
        };
        let codes = (0..CODES).map(make).collect::<Result<_>>()?;
        Ok(Prepared { factor, vouched_by: vouched(by), codes })
    }
}

#[async_trait]
impl Operation for MakeRecoveryCodes {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<RecoverySet> {
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker has no factors"))?;
        let identity = subject.identity.row.id;
        for other in factors::standing(tx, identity).await? {
            if other.row.kind == FactorKind::Recovery {
                end(ctx, tx, other).await?;
            }
        }
        tx.insert(&FactorRow {
            id: prepared.factor,
            identity,
            kind: FactorKind::Recovery,
            state: FactorState::Active,
            secret: None,
            secret_key: None,
            invitation: None,
            vouched_by: prepared.vouched_by,
            enrolled_at: Some(ctx.now),
            created_at: ctx.now,
            created_by: ctx.actor(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        })
        .await?;
        for (row, _) in &prepared.codes {
            tx.insert(row).await?;
        }
        let codes = prepared.codes.iter().map(|(_, code)| code.text()).collect();
        Ok(RecoverySet { id: prepared.factor, codes })
    }
}

/// Finds a code of a set that was not used. After a restore of the vault an older set is void: what
/// was used of it since the backup is not known any more.
pub(super) async fn find(
    view: &View,
    set: &FactorRow,
    code: &RecoveryCode,
) -> Result<Versioned<CodeRow>> {
    let restored = view.subject()?.restored_at();
    let (handle, factor) = (code.handle(&view.keyring().token_key()?, set.id), set.id);
    let read =
        view.read(move |tx| async move { Ok(factors::code(tx, factor, &handle).await?) }.boxed());
    let found = read.await?.filter(|found| found.row.used_at.is_none());
    found.filter(|_| set.created_at >= restored).ok_or_else(not_accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, SystemEntropy};

    #[test]
    fn a_code_is_read_as_it_was_printed_and_as_people_type_it() {
        let code = RecoveryCode::random(&SystemEntropy).unwrap();
        let text = String::from_utf8(code.text().expose().to_vec()).unwrap();
        assert_eq!(text.len(), 19);
        let spaced = text.replace('-', " ");
        for typed in [text.clone(), text.to_uppercase(), text.replace('-', ""), spaced] {
            assert_eq!(RecoveryCode::parse(typed.as_bytes()), Some(code.clone()), "{typed}");
        }
        for bad in [&text[1..], &format!("{text}a"), "", "123456", &text.replace('-', "_")] {
            assert_eq!(RecoveryCode::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(format!("{code:?}"), "[REDACTED]");
    }

    #[test]
    fn what_is_stored_of_a_code_is_of_its_set_and_its_key() {
        let (one, other) = (MacKey::new(&[1; 32]), MacKey::new(&[2; 32]));
        let set = |byte| FactorId(Id::from_bytes([byte; 16]));
        let code = RecoveryCode(Zeroizing::new([7; BYTES]));
        let handles =
            [code.handle(&one, set(1)), code.handle(&one, set(2)), code.handle(&other, set(1))];
        assert!(handles[0] != handles[1] && handles[0] != handles[2]);
    }
}
