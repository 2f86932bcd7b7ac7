//! Signed notes: how a checkpoint carries its signatures, and how a verifier key is written.
//!
//! Source: c2sp.org/signed-note. Signing happens in the HSM: it gets the note's text and gives the
//! bytes that [`signature_line`] writes.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{CryptoError, Result, hex, sha256};

/// Longest note that is read; 16 signatures of post-quantum size fit.
const NOTE_BYTES: usize = 256 * 1_024;
const SIGNATURES: usize = 64;

/// DER up to the key of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410, section 4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// DER up to the uncompressed point of a P-256 `SubjectPublicKeyInfo` (RFC 5480, section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];
const P256_POINT_BYTES: usize = 65;

/// How a key signs notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// Ed25519 over the text (type 0x01).
    Ed25519,
    /// ECDSA on P-256 over the text's SHA-256, as DER (type 0x02).
    EcdsaP256,
}

/// A key that verifies notes: `<name>+<key id>+<base64 of type and key>` as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: SignatureKind,
    /// 32 bytes for Ed25519, the DER `SubjectPublicKeyInfo` for ECDSA.
    public: Vec<u8>,
}

impl VerifierKey {
    /// Takes a public key as the HSM gives it: a DER `SubjectPublicKeyInfo`, Ed25519 or P-256.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for another kind of key, or a name that is empty or holds a
    /// space, a plus or a control character.
    pub fn from_spki(name: &str, spki: &[u8]) -> Result<Self> {
        if let Some(key) = spki.strip_prefix(&ED25519_PREFIX).filter(|key| key.len() == 32) {
            return Self::checked(name, SignatureKind::Ed25519, key);
        }
        Self::checked(name, SignatureKind::EcdsaP256, spki)
    }

    fn checked(name: &str, kind: SignatureKind, public: &[u8]) -> Result<Self> {
        let shaped = match kind {
            SignatureKind::Ed25519 => public.len() == 32,
            SignatureKind::EcdsaP256 => p256_point(public).is_some(),
        };
        if !shaped || !is_name(name) {
            return Err(CryptoError::Malformed("verifier key"));
        }
        Ok(Self { name: name.to_owned(), kind, public: public.to_vec() })
    }

    /// Shows the key's name; for a checkpoint it is the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells how the key signs.
    #[must_use]
    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// Computes the id that a signature line carries.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        let hash = match self.kind {
            SignatureKind::Ed25519 => {
                sha256(&[self.name.as_bytes(), b"\n", &self.typed_key()].concat())
            }
            // As the witnesses that this type comes from do: the key alone, without name or type.
            SignatureKind::EcdsaP256 => sha256(&self.public),
        };
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }

    fn typed_key(&self) -> Vec<u8> {
        let number = match self.kind {
            SignatureKind::Ed25519 => 1,
            SignatureKind::EcdsaP256 => 2,
        };
        [&[number], self.public.as_slice()].concat()
    }

    /// Verifies a signature, without key id, over a note's text.
    ///
    /// # Errors
    /// [`CryptoError::Signature`].
    pub fn verify(&self, text: &str, signature: &[u8]) -> Result<()> {
        let refused = CryptoError::Signature;
        let verified = match self.kind {
            SignatureKind::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.public).verify(text.as_bytes(), signature)
            }
            SignatureKind::EcdsaP256 => {
                let point = p256_point(&self.public).ok_or(refused)?;
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                    .verify(text.as_bytes(), signature)
            }
        };
        verified.map_err(|_unspecified| refused)
    }
}

fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    let point = spki.strip_prefix(&P256_PREFIX)?;
    (point.len() == P256_POINT_BYTES && point.first() == Some(&4)).then_some(point)
}

fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.chars().any(bad)
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode(self.typed_key());
        write!(f, "{}+{}+{key}", self.name, hex(&self.key_id()))
    }
}

impl FromStr for VerifierKey {
    type Err = CryptoError;

    /// Reads the text and checks the key id in it.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = CryptoError::Malformed("verifier key");
        let (name, rest) = text.split_once('+').ok_or(malformed)?;
        let (_key_id, key) = rest.split_once('+').ok_or(malformed)?;
        let typed = STANDARD.decode(key).map_err(|_base64| malformed)?;
        let key = match typed.split_first() {
            Some((1, key)) => Self::checked(name, SignatureKind::Ed25519, key)?,
            Some((2, key)) => Self::checked(name, SignatureKind::EcdsaP256, key)?,
            Some(_) | None => return Err(malformed),
        };
        if key.to_string() == text { Ok(key) } else { Err(malformed) }
    }
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub key_id: [u8; 4],
    /// What the key signed, without the id.
    pub signature: Vec<u8>,
}

/// A note whose signatures nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    /// The signed text, its last newline included.
    pub text: &'a str,
    /// The signatures, in their order.
    pub signatures: Vec<NoteSignature>,
}

/// Writes a signature line.
///
/// # Errors
/// [`CryptoError::Malformed`] for a name that a note cannot hold.
pub fn signature_line(name: &str, key_id: [u8; 4], signature: &[u8]) -> Result<String> {
    if !is_name(name) || signature.is_empty() {
        return Err(CryptoError::Malformed("signature line"));
    }
    Ok(format!("— {name} {}\n", STANDARD.encode([key_id.as_slice(), signature].concat())))
}

/// Puts a note together from its text and what the key signed of it.
///
/// # Errors
/// [`CryptoError::Signature`] when the signature does not verify: a note that nobody would accept
/// must not leave the vault.
pub fn sign_note(text: &str, key: &VerifierKey, signature: &[u8]) -> Result<String> {
    key.verify(text, signature)?;
    let note = format!("{text}\n{}", signature_line(&key.name, key.key_id(), signature)?);
    verify_note(&note, key)?;
    Ok(note)
}

/// Reads a note; nothing in it may be believed before [`verify_note`].
///
/// # Errors
/// [`CryptoError::Malformed`].
pub fn parse_note(note: &str) -> Result<Note<'_>> {
    let malformed = CryptoError::Malformed("note");
    if note.len() > NOTE_BYTES || note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(malformed);
    }
    let end = note.rfind("\n\n").ok_or(malformed)?;
    let (text, rest) = note.split_at_checked(end + 1).ok_or(malformed)?;
    let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
    let mut signatures = Vec::new();
    for line in lines.ok_or(malformed)?.split('\n') {
        if signatures.len() == SIGNATURES {
            return Err(malformed);
        }
        signatures.push(parse_line(line).ok_or(malformed)?);
    }
    Ok(Note { text, signatures })
}

fn parse_line(line: &str) -> Option<NoteSignature> {
    let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (key_id, signature) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !signature.is_empty()).then(|| NoteSignature {
        name: name.to_owned(),
        key_id: *key_id,
        signature: signature.to_vec(),
    })
}

/// Verifies a note under one key and yields the text that was signed.
///
/// Signatures of other keys are ignored; of this key, one must be there and each must verify.
///
/// # Errors
/// [`CryptoError::Malformed`], [`CryptoError::Signature`].
pub fn verify_note<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str> {
    let note = parse_note(note)?;
    let key_id = key.key_id();
    let mut verified = Err(CryptoError::Signature);
    for line in &note.signatures {
        if line.name == key.name && line.key_id == key_id {
            key.verify(note.text, &line.signature)?;
            verified = Ok(note.text);
        }
    }
    verified
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair,
    };

    use super::*;

    const TEXT: &str = "example.com/log\n1\nAAAA\n";

    type Sign = Box<dyn Fn(&str) -> Vec<u8>>;

    fn ed25519() -> (VerifierKey, Sign) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let spki = [&ED25519_PREFIX, pair.public_key().as_ref()].concat();
        let key = VerifierKey::from_spki("example.com/log", &spki).unwrap();
        (key, Box::new(move |text| pair.sign(text.as_bytes()).as_ref().to_vec()))
    }

    fn p256() -> (VerifierKey, Sign) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let key = VerifierKey::from_spki("example.com/log", spki.as_ref()).unwrap();
        let sign = move |text: &str| {
            pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
        };
        (key, Box::new(sign))
    }

    #[test]
    fn a_note_verifies_under_its_key_and_no_other_text_or_key() {
        for ((key, sign), (other, _)) in [(ed25519(), p256()), (p256(), p256())] {
            let note = sign_note(TEXT, &key, &sign(TEXT)).unwrap();
            assert_eq!(verify_note(&note, &key), Ok(TEXT));
            assert_eq!(verify_note(&note, &other), Err(CryptoError::Signature));
            let altered = note.replacen("\n1\n", "\n2\n", 1);
            assert_eq!(verify_note(&altered, &key), Err(CryptoError::Signature));
            let refused = sign_note("other\n", &key, &sign(TEXT));
            assert_eq!(refused, Err(CryptoError::Signature));
        }
    }

    #[test]
    fn a_key_comes_back_from_its_text_and_an_altered_text_is_refused() {
        for (key, _) in [ed25519(), p256()] {
            let text = key.to_string();
            assert_eq!(text.parse(), Ok(key));
            for bad in [
                text.replacen("example", "exemple", 1).replacen('+', "+00", 1),
                text.replacen('+', " ", 1),
                text.replacen('+', "+0", 1),
                text.trim_end_matches('=').to_owned() + "A",
                text.rsplit_once('+').unwrap().0.to_owned(),
                format!("{}+AwAA", text.rsplit_once('+').unwrap().0),
                String::new(),
            ] {
                assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn other_kinds_of_keys_and_bad_names_are_refused() {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let spki: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
        assert!(VerifierKey::from_spki("a", spki.as_ref()).is_err());
        assert!(VerifierKey::from_spki("a", &[]).is_err());
        let (key, sign) = ed25519();
        let spki = [ED25519_PREFIX.as_slice(), &key.public].concat();
        for bad in ["", "a b", "a+b", "a\n", "a\u{2028}b", "a\u{7f}"] {
            assert!(VerifierKey::from_spki(bad, &spki).is_err(), "{bad:?}");
            assert!(signature_line(bad, [0; 4], &sign(TEXT)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let note = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
                    ed è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPe\
                    FDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let read = parse_note(note).unwrap();
        assert!(read.text.ends_with("\n\ned è subito sera.\n"));
        assert_eq!(read.signatures.len(), 1);
        assert_eq!(read.signatures[0].name, "quasimodo.example/salvatore");
        assert_eq!(read.signatures[0].signature.len(), 64);
    }

    #[test]
    fn malformed_notes_are_refused_and_foreign_signatures_ignored() {
        let (key, sign) = ed25519();
        let note = sign_note(TEXT, &key, &sign(TEXT)).unwrap();
        let line = note.rsplit_once("\n\n").unwrap().1.to_owned();
        let foreign = signature_line("witness.example/w", key.key_id(), &[1; 64]).unwrap();
        let namesake = signature_line(key.name(), [0; 4], &[1; 64]).unwrap();
        assert_eq!(verify_note(&format!("{note}{foreign}{namesake}"), &key), Ok(TEXT));
        let only_foreign = format!("{TEXT}\n{foreign}{namesake}");
        assert_eq!(verify_note(&only_foreign, &key), Err(CryptoError::Signature));
        let forged = signature_line(key.name(), key.key_id(), &[1; 64]).unwrap();
        assert_eq!(verify_note(&format!("{note}{forged}"), &key), Err(CryptoError::Signature));
        for bad in [
            String::new(),
            TEXT.to_owned(),
            format!("{TEXT}\n"),
            format!("{TEXT}{line}"),
            format!("{TEXT}\n{}", line.trim_end()),
            format!("{TEXT}\n{line}\n"),
            format!("{TEXT}\n{}", line.replacen('—', "-", 1)),
            format!("{TEXT}\n— {} AAAAAA==\n", key.name()),
            format!("{TEXT}\n— {} *\n", key.name()),
            format!("a\tb\n\n{line}"),
            format!("a\r\n\n{line}"),
            format!("{TEXT}\n{}", line.repeat(SIGNATURES + 1)),
            format!("{}\n\n{line}", "a".repeat(NOTE_BYTES)),
        ] {
            assert_eq!(verify_note(&bad, &key), Err(CryptoError::Malformed("note")), "{bad:.99?}");
        }
    }
}
