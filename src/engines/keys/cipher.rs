//! Encrypts, decrypts, and encrypts anew.

use std::sync::Arc;

use super::batch::{AAD_BYTES, Fault, ITEM_BYTES, Job, Work, check_aad, check_item};
use crate::crypto::{Cipher, CryptoError, Header};
use crate::error::{Error, Result};
use crate::store::named_keys::NamedKeyVersionRow;
use crate::types::{KeyAlgorithm, KeyUsage, SecretBytes};

/// Bytes of a plaintext and its associated data at most: with the key's name and what encryption
/// adds, both have to fit into the message that asks for the plaintext again.
const BOTH_BYTES: usize = ITEM_BYTES + AAD_BYTES - 1_024;

/// An item to encrypt.
#[derive(Debug)]
pub struct SealItem {
    /// What is encrypted.
    pub plaintext: SecretBytes,
    /// What it is bound to.
    pub associated_data: Vec<u8>,
}

impl SealItem {
    fn check(&self) -> Result<(), Fault> {
        check_item("a plaintext", self.plaintext.expose())?;
        check_aad(&self.associated_data)?;
        let both = self.plaintext.len_bytes().saturating_add(self.associated_data.len());
        if both > BOTH_BYTES {
            return Err(Fault::invalid(format!(
                "a plaintext and its associated data have at most {BOTH_BYTES} bytes together"
            )));
        }
        Ok(())
    }
}

/// An item to decrypt.
#[derive(Debug)]
pub struct OpenItem {
    /// What was encrypted.
    pub ciphertext: Vec<u8>,
    /// What it was bound to.
    pub associated_data: Vec<u8>,
}

/// An item that was decrypted.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The plaintext.
    pub plaintext: SecretBytes,
    /// The version that it was encrypted with.
    pub version: i64,
}

/// Encrypts with the newest version.
#[derive(Debug)]
pub struct Encrypting;

/// Decrypts.
#[derive(Debug)]
pub struct Decrypting;

/// Decrypts, and encrypts with the newest version.
#[derive(Debug)]
pub struct Rewrapping;

/// How an algorithm encrypts.
pub(super) fn cipher(algorithm: KeyAlgorithm) -> Result<Cipher> {
    match algorithm {
        KeyAlgorithm::Aes256Gcm => Ok(Cipher::Aes256Gcm),
        KeyAlgorithm::ChaCha20Poly1305 => Ok(Cipher::ChaCha20Poly1305),
        KeyAlgorithm::Xaes256Gcm => Ok(Cipher::Xaes256Gcm),
        KeyAlgorithm::HmacSha256
        | KeyAlgorithm::HmacSha512
        | KeyAlgorithm::Ed25519
        | KeyAlgorithm::EcdsaP256
        | KeyAlgorithm::EcdsaP384
        | KeyAlgorithm::RsaPss3072
        | KeyAlgorithm::RsaPss4096 => Err(Error::internal("a key that does not encrypt")),
    }
}

impl Work<'_> {
    /// What messages under a version begin with.
    pub(super) fn header(&self, version: &NamedKeyVersionRow) -> Result<Header> {
        let cipher = cipher(self.hot.row.row.algorithm)?;
        let number = u32::try_from(version.version).map_err(Error::internal)?;
        Ok(Header { cipher, key: version.named_key.0, version: number })
    }

    pub(super) async fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>> {
        let key = self.message_key(&self.newest).await?;
        Ok(key.seal(aad, plaintext, self.entropy.as_ref())?)
    }

    async fn open(&self, item: &OpenItem) -> Result<Result<Opened, Fault>> {
        if let Err(fault) = check_aad(&item.associated_data) {
            return Ok(Err(fault));
        }
        let Ok(header) = Header::parse(&item.ciphertext) else {
            return Ok(Err(Fault::invalid("this is no ciphertext of a named key")));
        };
        let (row, number) = (&self.hot.row.row, i64::from(header.version));
        if header.key != row.id.0 || header.cipher != cipher(row.algorithm)? {
            return Ok(Err(Fault::other_key()));
        }
        if (1..row.min_version).contains(&number) {
            return Ok(Err(Fault::retired(number)));
        }
        // A version that never was is as good as a changed bit.
        let Ok(version) = self.version(number.max(1)).await? else {
            return Ok(Err(Fault::does_not_open()));
        };
        let key = self.message_key(&version).await?;
        match key.open(&item.associated_data, &item.ciphertext) {
            Ok(plaintext) => Ok(Ok(Opened { plaintext, version: number })),
            Err(CryptoError::Open) => Ok(Err(Fault::does_not_open())),
            Err(other) => Err(other.into()),
        }
    }
}

impl Job for Encrypting {
    const ACTION: &'static str = "keys.encrypt";
    const USAGE: KeyUsage = KeyUsage::Encrypts;
    const PURPOSES: [&'static str; 2] = ["encrypt/sealed", "encrypt/hsm"];
    const MAKES: bool = true;
    type Item = SealItem;
    type Done = Arc<Vec<u8>>;

    fn is_sound(item: &SealItem) -> bool {
        item.check().is_ok()
    }

    async fn one(work: &Work<'_>, item: &SealItem) -> Result<Result<Self::Done, Fault>> {
        let plaintext = item.plaintext.expose();
        if let Err(fault) = item.check() {
            return Ok(Err(fault));
        }
        Ok(Ok(Arc::new(work.seal(plaintext, &item.associated_data).await?)))
    }
}

impl Job for Decrypting {
    const ACTION: &'static str = "keys.decrypt";
    const USAGE: KeyUsage = KeyUsage::Encrypts;
    const PURPOSES: [&'static str; 2] = ["decrypt/sealed", "decrypt/hsm"];
    const MAKES: bool = false;
    type Item = OpenItem;
    type Done = Opened;

    async fn one(work: &Work<'_>, item: &OpenItem) -> Result<Result<Opened, Fault>> {
        work.open(item).await
    }
}

impl Job for Rewrapping {
    const ACTION: &'static str = "keys.rewrap";
    const USAGE: KeyUsage = KeyUsage::Encrypts;
    const PURPOSES: [&'static str; 2] = ["rewrap/sealed", "rewrap/hsm"];
    const MAKES: bool = true;
    type Item = OpenItem;
    type Done = Arc<Vec<u8>>;

    fn is_sound(item: &OpenItem) -> bool {
        check_aad(&item.associated_data).is_ok() && Header::parse(&item.ciphertext).is_ok()
    }

    async fn one(work: &Work<'_>, item: &OpenItem) -> Result<Result<Self::Done, Fault>> {
        let opened = match work.open(item).await? {
            Ok(opened) => opened,
            Err(fault) => return Ok(Err(fault)),
        };
        let sealed = work.seal(opened.plaintext.expose(), &item.associated_data).await?;
        Ok(Ok(Arc::new(sealed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_sent_back_is_not_encrypted() {
        let item = |plaintext, aad| SealItem {
            plaintext: SecretBytes::new(vec![0; plaintext]),
            associated_data: vec![0; aad],
        };
        assert!(item(ITEM_BYTES, AAD_BYTES - 1_024).check().is_ok());
        assert!(item(ITEM_BYTES, AAD_BYTES - 1_023).check().is_err());
        assert!(item(ITEM_BYTES - 1_024, AAD_BYTES).check().is_ok());
        assert!(item(0, 0).check().is_err());
    }
}
