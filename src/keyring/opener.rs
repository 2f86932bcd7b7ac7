//! What opens what is wrapped for a recovery set: its shares, put together, or a token that has the
//! private half and never gives it away.
//!
//! For each set the token also keeps what the vault shares with it, in a private data object: whoever
//! writes to the store, or makes what looks like a backup, makes no vault of their own that it opens.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::sets::{Recipient, Share, info};
use super::{KeyringError, Result};
use crate::crypto::{
    CryptoError, HPKE_KEY_BYTES, HPKE_POINT_BYTES, HpkePublic, hpke_open_agreed, hpke_open_shared,
    hpke_public, hpke_sent_point, join_shares,
};
use crate::hsm::{Hsm, KeyInfo, KeyKind};
use crate::types::{Id, SecretBytes, Segment, VaultId};

/// What opens what is wrapped for recovery sets.
#[derive(Debug, Clone)]
pub enum SetOpener {
    /// Shares of one set that were put together.
    Shares(SetKey),
    /// A token that somebody is logged into: of which set it is shows by what it keeps.
    Token(Arc<dyn Hsm>),
}

impl SetOpener {
    /// Finds the key of one of a vault's sets.
    ///
    /// # Errors
    /// [`KeyringError::Unfit`] for shares of another vault, and for a token that keeps nothing of
    /// these sets; what the HSM answers.
    pub(super) async fn key(&self, vault: VaultId, sets: &[Id]) -> Result<SetKey> {
        match self {
            Self::Shares(key) if key.vault == vault => Ok(key.clone()),
            Self::Shares(_) => Err(unfit("the shares are those of another vault")),
            Self::Token(token) => {
                let mut told = None;
                for set in sets {
                    match SetKey::in_token(token, vault, *set).await {
                        Ok(Some(key)) => return Ok(key),
                        Ok(None) => {}
                        // Of a set whose key was destroyed there: another may open it.
                        Err(error @ KeyringError::Unfit(_)) => told = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                let nothing = "the recovery token keeps nothing of a recovery set of this vault";
                Err(told.unwrap_or_else(|| unfit(nothing)))
            }
        }
    }
}

/// The key of a recovery set: its private half, and the key that the vault shares with who has it.
#[derive(Clone)]
pub struct SetKey {
    pub(super) vault: VaultId,
    pub(super) set: Id,
    psk: SecretBytes,
    half: Half,
}

#[derive(Clone)]
enum Half {
    /// Here, put together of shares.
    Joined(SecretBytes),
    /// In a token.
    Token(TokenKey),
}

impl SetKey {
    /// Puts shares together.
    ///
    /// # Errors
    /// [`KeyringError::Crypto`] for shares that cannot be of one secret.
    pub fn join((vault, set): (VaultId, Id), shares: &[SecretBytes]) -> Result<Self> {
        let both = join_shares(shares)?;
        let parted = both.expose().split_at_checked(HPKE_KEY_BYTES);
        let (private, psk) = parted.ok_or(CryptoError::KeyLength)?;
        if psk.len() != HPKE_KEY_BYTES {
            return Err(CryptoError::KeyLength.into());
        }
        let secret = |bytes: &[u8]| SecretBytes::new(bytes.to_vec());
        Ok(Self { vault, set, psk: secret(psk), half: Half::Joined(secret(private)) })
    }

    /// Puts together what shares are made of.
    #[must_use]
    pub fn parts(private: &SecretBytes, psk: &SecretBytes) -> SecretBytes {
        together(private.expose(), psk.expose()).into()
    }

    /// Finds the key of a set in a token; none where it keeps nothing of the set.
    async fn in_token(token: &Arc<dyn Hsm>, vault: VaultId, set: Id) -> Result<Option<Self>> {
        let kept = token.read_data(&Recipient::label(vault, set)).await?;
        let Some(kept) = kept.map(SecretBytes::new) else { return Ok(None) };
        let parted = kept.expose().split_at_checked(HPKE_KEY_BYTES);
        let read = parted.and_then(|(psk, name)| {
            let name: Segment = std::str::from_utf8(name).ok()?.parse().ok()?;
            Some((SecretBytes::new(psk.to_vec()), name))
        });
        let none = || unfit("what the recovery token keeps of a recovery set");
        let (psk, name) = read.ok_or_else(none)?;
        let half = Half::Token(TokenKey::find(token, &name).await?);
        Ok(Some(Self { vault, set, psk, half }))
    }

    pub(super) fn psk(&self) -> &SecretBytes {
        &self.psk
    }

    /// Computes or shows the public half.
    pub(super) fn public(&self) -> Result<HpkePublic> {
        match &self.half {
            Half::Joined(private) => Ok(hpke_public(private)?),
            Half::Token(key) => Ok(key.public),
        }
    }

    /// Opens what was sealed to the set for a place; `what` says what that is.
    pub(super) async fn open(
        &self,
        aad: &[u8],
        sealed: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<SecretBytes> {
        let info = info(self.vault, self.set);
        let opened = match &self.half {
            Half::Joined(private) => hpke_open_shared((private, &self.psk), &info, aad, sealed)
                .map_err(KeyringError::from),
            Half::Token(key) => key.open(Some(&self.psk), &info, aad, sealed).await,
        };
        opened.map_err(|error| {
            if let KeyringError::Crypto(error) = error {
                KeyringError::opening(error, what)
            } else {
                error
            }
        })
    }
}

impl fmt::Debug for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetKey").field("set", &self.set).finish_non_exhaustive()
    }
}

/// The private half of a recovery set, where it is.
#[derive(Clone)]
struct TokenKey {
    token: Arc<dyn Hsm>,
    label: String,
    public: HpkePublic,
}

impl TokenKey {
    async fn find(token: &Arc<dyn Hsm>, name: &Segment) -> Result<Self> {
        let label = token_label(name);
        let info = token.lookup_key(&label).await?;
        let missing = || KeyringError::Unfit(format!("no key `{label}` in the recovery token"));
        let public = public_of(&info.ok_or_else(missing)?)?;
        Ok(Self { token: Arc::clone(token), label, public })
    }

    async fn open(
        &self,
        psk: Option<&SecretBytes>,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<SecretBytes> {
        let sent = hpke_sent_point(sealed)?;
        let agreed = self.token.agree(&self.label, sent).await?.ok_or(CryptoError::Open)?;
        Ok(hpke_open_agreed(&agreed, (&self.public, psk), info, aad, sealed)?)
    }
}

/// Makes a key for a recovery set in a token that somebody is logged into, and tells its public half;
/// that of one which was made already.
///
/// # Errors
/// [`KeyringError::Unfit`] where another kind of key has its name; what the HSM answers.
pub async fn make_token_key(token: &dyn Hsm, name: &Segment) -> Result<HpkePublic> {
    let label = token_label(name);
    match token.lookup_key(&label).await? {
        Some(info) => public_of(&info),
        None => public_of(&token.create_key(&label, KeyKind::EcdhP256).await?),
    }
}

/// Has a token keep what the vault shares with it, which was sealed to its key as the one share of a
/// set: from then on the token opens what is wrapped for the set.
///
/// # Errors
/// `Crypto(Open)` for what was not sealed to this key, or for another set; as [`make_token_key`].
pub async fn accept_share(token: &Arc<dyn Hsm>, share: &Share<'_>, sealed: &[u8]) -> Result<()> {
    let name: Segment = share.holder.parse()?;
    let key = TokenKey::find(token, &name).await?;
    let psk = key.open(None, &share.info(), &[], sealed).await?;
    if psk.len_bytes() != HPKE_KEY_BYTES {
        return Err(CryptoError::KeyLength.into());
    }
    let kept = together(psk.expose(), name.as_str().as_bytes());
    Ok(token.write_data(&Recipient::label(share.vault, share.set), &kept).await?)
}

/// Names a key for a recovery set in its token. It is made before the vault knows of it.
fn token_label(name: &Segment) -> String {
    format!("strongroom/recovery/{name}")
}

/// The point stands at the end of a `SubjectPublicKeyInfo`.
fn public_of(info: &KeyInfo) -> Result<HpkePublic> {
    let spki = info.public_key_spki.as_deref().filter(|_| info.kind == KeyKind::EcdhP256);
    let point = spki.unwrap_or_default().last_chunk::<HPKE_POINT_BYTES>();
    let other = || KeyringError::Unfit(format!("key `{}` in the recovery token", info.label));
    Ok(HpkePublic::parse(point.ok_or_else(other)?)?)
}

fn unfit(what: &str) -> KeyringError {
    KeyringError::Unfit(what.to_owned())
}

/// Of the final size at once: growing would leave a copy behind.
fn together(first: &[u8], second: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut both = Zeroizing::new(Vec::with_capacity(first.len().saturating_add(second.len())));
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both
}
