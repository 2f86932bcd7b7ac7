//! The directory of a login: one file with key and certificate, and the key of the next.
//!
//! A key is durable before anything is asked for with it, and a login replaces the last one whole.
//! Whatever moment the machine stops at, the next run goes on with the same key.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustix::fs::FlockOperation;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::asn1_rs::FromDer as _;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::super::failure::{Exit, Failure, Outcome};
use super::super::files::{read_own_text, write_private};
use super::super::output::escape_lines;
use crate::engines::pki::Said;

/// Key and certificate.
const LOGIN: &str = "login.pem";
/// The key of a certificate that was not had yet.
const NEXT: &str = "next.key";

/// A directory that this process alone works in.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    login: PathBuf,
    next: PathBuf,
    /// Held until it is dropped.
    _held: File,
}

/// A login that is kept.
#[derive(Debug)]
pub(super) struct Login {
    /// The name that it carries.
    pub(super) name: String,
    /// When it begins, in Unix milliseconds.
    pub(super) begins_at: i64,
    /// When it ends.
    pub(super) ends_at: i64,
    /// Its public key, DER.
    key: Vec<u8>,
}

impl Login {
    /// Reads one from the text of its file.
    fn read(text: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let said = Said::of_der(&der).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        Some(Self {
            name: said.names.first()?.text(),
            begins_at: said.not_before.0,
            ends_at: said.not_after.0,
            key: parsed.public_key().raw.to_vec(),
        })
    }

    /// When two thirds of its life are over.
    pub(super) const fn due_at(&self) -> i64 {
        let life = self.ends_at.saturating_sub(self.begins_at);
        self.ends_at.saturating_sub(life / 3)
    }

    /// Tells whether it is to be renewed.
    pub(super) const fn is_due(&self, now: i64) -> bool {
        now >= self.due_at()
    }
}

/// A key of this machine; it has no `Debug`.
pub(super) struct Key {
    pair: KeyPair,
    text: Zeroizing<String>,
}

impl Key {
    fn read(text: Zeroizing<String>) -> Option<Self> {
        Some(Self { pair: KeyPair::from_pem(&text).ok()?, text })
    }

    /// Asks for a certificate: proves the key, and names nothing.
    pub(super) fn request(&self) -> Outcome<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let signed = params.serialize_request(&self.pair).and_then(|request| request.pem());
        signed.map_err(|error| Failure::new(Exit::Unexpected, format!("no request: {error}")))
    }

    fn public(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }
}

impl Place {
    /// Opens a directory, made where it is not there, for this process alone.
    pub(super) fn open(dir: &Path) -> Outcome<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed(dir, "made", &error))?;
        // Other commands run elsewhere and are told this path.
        let dir = dir.canonicalize().map_err(|error| failed(dir, "opened", &error))?;
        let lock = dir.join("lock");
        let held =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let held = held.map_err(|error| failed(&lock, "opened", &error))?;
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another `strongroom join` works in {}", dir.display());
            return Err(Failure::new(Exit::Unavailable, message));
        }
        let (login, next) = (dir.join(LOGIN), dir.join(NEXT));
        Ok(Self { dir, login, next, _held: held })
    }

    /// Where key and certificate are.
    pub(super) fn file(&self) -> &Path {
        &self.login
    }

    /// Reads the login, if there is one. What a run before this one left behind when it ended
    /// between two steps is put in order.
    pub(super) fn login(&self) -> Outcome<Option<Login>> {
        let Some(text) = read(&self.login)? else { return Ok(None) };
        let login = Login::read(&text).ok_or_else(|| {
            Failure::usage(format!("{} holds no login", self.login.display()))
                .hint("move it away and join again")
        })?;
        // It was had, and not forgotten yet.
        if self.pending()?.is_some_and(|key| key.public() == login.key) {
            self.forget()?;
        }
        Ok(Some(login))
    }

    /// The key that is asked for with: the one of a call that was not answered, or a new one.
    pub(super) fn key(&self) -> Outcome<Key> {
        if let Some(key) = self.pending()? {
            return Ok(key);
        }
        let made = KeyPair::generate()
            .map_err(|error| Failure::new(Exit::Unexpected, format!("no key: {error}")))?;
        let key = Key { text: Zeroizing::new(made.serialize_pem()), pair: made };
        self.put(&self.next, &key.text)?;
        Ok(key)
    }

    /// Keeps a certificate with its key in place of the last.
    pub(super) fn keep(&self, key: &Key, certificate: &str, chain: &str) -> Outcome<Login> {
        let chain = format!("{}{}", escape_lines(certificate), escape_lines(chain));
        let login = Login::read(&chain).filter(|login| login.key == key.public());
        let login = login.ok_or_else(|| {
            Failure::new(Exit::Unexpected, "the vault's answer is no certificate for our key")
        })?;
        self.put(&self.login, &Zeroizing::new(format!("{}{chain}", key.text.as_str())))?;
        self.forget()?;
        Ok(login)
    }

    fn pending(&self) -> Outcome<Option<Key>> {
        let Some(text) = read(&self.next)? else { return Ok(None) };
        let key = Key::read(text).ok_or_else(|| {
            Failure::usage(format!("{} holds no key", self.next.display()))
                .hint("it is that of a certificate which was not had yet: remove it and join again")
        })?;
        Ok(Some(key))
    }

    fn forget(&self) -> Outcome {
        match std::fs::remove_file(&self.next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.next, "removed", &error))
            }
            Ok(()) | Err(_) => self.settle(),
        }
    }

    /// Puts a file into its place, whole and durable, or not at all.
    fn put(&self, path: &Path, text: &str) -> Outcome {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        // Of a run that did not come to its end.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&new, "removed", &error));
            }
            Ok(()) | Err(_) => {}
        }
        write_private(&new, text)?;
        std::fs::rename(&new, path).map_err(|error| failed(path, "written", &error))?;
        self.settle()
    }

    fn settle(&self) -> Outcome {
        let settled = File::open(&self.dir).and_then(|dir| dir.sync_all());
        settled.map_err(|error| failed(&self.dir, "written", &error))
    }
}

fn read(path: &Path) -> Outcome<Option<Zeroizing<String>>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    read_own_text(path).map(Some)
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("{} cannot be {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for a key, as a vault would give it.
    fn certify(key: &Key) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = "spiffe://vault.test/pipeline/etl".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(name)];
        params.self_signed(&key.pair).unwrap().pem()
    }

    #[test]
    fn a_key_is_the_same_until_its_certificate_is_had_wherever_a_run_ended() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        assert!(place.login().unwrap().is_none());
        let first = place.key().unwrap();
        // A run that ended while it wrote.
        std::fs::write(dir.path().join("login.pem.new"), "half").unwrap();
        drop(place);
        let place = Place::open(dir.path()).unwrap();
        let again = place.key().unwrap();
        assert_eq!(again.public(), first.public());
        place.keep(&again, &certify(&again), "").unwrap();
        assert!(!dir.path().join(NEXT).exists());
        let login = place.login().unwrap().unwrap();
        assert_eq!(
            (login.key, login.name.as_str()),
            (first.public(), "spiffe://vault.test/pipeline/etl")
        );
        // One that ended before it forgot the key.
        write_private(&dir.path().join(NEXT), &first.text).unwrap();
        assert!(place.login().unwrap().is_some());
        let next = place.key().unwrap();
        assert_ne!(next.public(), first.public());
        assert!(place.login().unwrap().is_some(), "the login is there until the next replaces it");
        assert_eq!(place.key().unwrap().public(), next.public());
    }

    #[test]
    fn what_is_for_another_key_or_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        let key = place.key().unwrap();
        let other =
            Key::read(Zeroizing::new(KeyPair::generate().unwrap().serialize_pem())).unwrap();
        for certificate in [certify(&other), String::new()] {
            assert_eq!(place.keep(&key, &certificate, "").unwrap_err().exit, Exit::Unexpected);
        }
        assert!(place.login().unwrap().is_none());
        assert_eq!(Place::open(dir.path()).unwrap_err().exit, Exit::Unavailable, "it is held");
        place.keep(&key, &certify(&key), "").unwrap();
        let mode = place.file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(place.file(), open).unwrap();
        assert_eq!(place.login().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_login_is_due_when_two_thirds_of_its_life_are_over() {
        let login =
            Login { name: String::new(), begins_at: 1_000, ends_at: 4_000, key: Vec::new() };
        assert_eq!(login.due_at(), 3_000);
        assert!(!login.is_due(2_999) && login.is_due(3_000));
    }
}
