//! A real token behind PKCS#11 2.40 or 3.0.
//!
//! Calls hop to a few threads that own sessions ([`workers`]); the token is found, lost and
//! found again in [`token`]; keys are verified in [`keys`] before a handle is used.

mod create;
mod error;
mod keys;
pub(in crate::hsm) mod module;
mod operations;
mod probe;
mod token;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use self::module::Module;
use self::token::{FinalTry, Link, Repeat, Shared};
use self::workers::{Turn, Workers};
use super::{
    CALL_TIMEOUT, Hsm, HsmError, KeyInfo, KeyKind, RSA_TIMEOUT, check_data, check_label,
    check_random, der,
};
use crate::types::SecretBytes;

pub use probe::{PinState, Probe};
pub use token::TokenSelector;

/// Where the token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// Absolute path of the module; it belongs to root, or to the running user where whoever opens
    /// it wants no more than that.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenSelector,
}

/// A token behind a PKCS#11 module.
///
/// Any number may share one module, and each is sealed for itself; but login is per process and
/// token, so the PIN of a second one on the same token is believed while the first is logged in.
#[derive(Debug)]
pub struct Pkcs11Hsm {
    /// Dropped first: waits for the threads.
    workers: Workers<Link>,
    /// For what there is much of at once.
    yielding: Workers<Link>,
    shared: Released,
}

/// Lets go of the module when dropped, on the thread that drops.
#[derive(Debug)]
struct Released(Arc<Shared>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Pkcs11Hsm {
    /// Loads the module (once a process) and waits for `login`; does not look for the token yet.
    ///
    /// Blocks while the module initialises.
    ///
    /// # Errors
    /// [`HsmError::Configuration`] when the module may not or cannot be loaded.
    pub fn open(config: &Pkcs11Config) -> Result<Self, HsmError> {
        let module = Module::open(&config.module)?;
        let shared = Arc::new(Shared::new(module, config.token.clone())?);
        let workers = |turn| {
            let seats = Arc::clone(&shared);
            Workers::new(turn, Box::new(move || Link::new(&seats)))
        };
        Ok(Self {
            workers: workers(Turn::Ordinary),
            yielding: workers(Turn::Yielding),
            shared: Released(shared),
        })
    }

    /// Tells what the token is and can do; needs no login.
    ///
    /// # Errors
    /// [`HsmError::TokenMissing`] when no token or more than one matches.
    pub async fn probe(&self) -> Result<Probe, HsmError> {
        self.workers.run(|link| probe::probe(link)).await
    }

    /// Counts threads that are stuck inside the module, of six.
    #[must_use]
    pub fn stuck_threads(&self) -> usize {
        self.workers.stuck().saturating_add(self.yielding.stuck())
    }

    /// Logs out, ends the threads and lets go of the module, which is finalised when no other
    /// token uses it.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when a call is still inside; the module is finalised when it
    /// comes out.
    pub async fn close(&self) -> Result<(), HsmError> {
        let left = self.logout().await;
        let (closed, yielding) = tokio::join!(self.workers.close(), self.yielding.close());
        let closed = closed.and(yielding);
        self.shared.0.release();
        left.and(closed)
    }

    async fn log_in(&self, pin: SecretBytes, final_try: FinalTry) -> Result<(), HsmError> {
        let term = self.shared.0.term();
        self.workers.run(move |link| link.login(pin, final_try, term)).await
    }

    async fn hmacs(
        &self,
        workers: &Workers<Link>,
        label: &str,
        data: Vec<Vec<u8>>,
    ) -> Result<Vec<SecretBytes>, HsmError> {
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let data: Vec<_> = data.into_iter().map(SecretBytes::new).collect();
        workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| {
                    let key = keys::find(active, &label)?;
                    match key.info.kind {
                        kind @ KeyKind::HmacSha256 => {
                            let tag = |one: &SecretBytes| {
                                operations::sign(active.session, key.handle, kind, one.expose())
                                    .map(SecretBytes::new)
                            };
                            data.iter().map(tag).collect()
                        }
                        KeyKind::EcdsaP256
                        | KeyKind::EcdsaP384
                        | KeyKind::Ed25519
                        | KeyKind::RsaPss3072
                        | KeyKind::RsaPss4096
                        | KeyKind::RsaOaep3072
                        | KeyKind::EcdhP256 => Err(keys::untrusted(&label, "it does not MAC")),
                    }
                })
            })
            .await
    }
}

#[async_trait]
impl Hsm for Pkcs11Hsm {
    async fn login(&self, pin: SecretBytes) -> Result<(), HsmError> {
        self.log_in(pin, FinalTry::Refuse).await
    }

    async fn login_forced(&self, pin: SecretBytes) -> Result<(), HsmError> {
        self.log_in(pin, FinalTry::Force).await
    }

    async fn logout(&self) -> Result<(), HsmError> {
        self.shared.0.forget();
        self.workers
            .run(|link| {
                link.leave();
                Ok(())
            })
            .await
    }

    async fn create_key(&self, label: &str, kind: KeyKind) -> Result<KeyInfo, HsmError> {
        check_label(label)?;
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let limit = match kind {
            KeyKind::RsaPss3072 | KeyKind::RsaPss4096 | KeyKind::RsaOaep3072 => RSA_TIMEOUT,
            KeyKind::HmacSha256
            | KeyKind::EcdsaP256
            | KeyKind::EcdsaP384
            | KeyKind::Ed25519
            | KeyKind::EcdhP256 => CALL_TIMEOUT,
        };
        // The module itself is not held: who waits here must not be who finalises it.
        let creating = self.shared.0.module().map(|module| module.creating());
        let creating =
            creating.ok_or_else(|| HsmError::Unavailable("the HSM is closed".to_owned()))?;
        let made = async move {
            let creating = creating.lock_owned().await;
            let job = move |link: &mut Link| {
                // Until the module has answered, whether somebody still waits for that or not.
                let _creating = creating;
                link.run(Repeat::Harmless, |active| {
                    create::require_free(active, &label)?;
                    probe::require_kind(active.module, active.slot, kind)
                })?;
                let key = link.run(Repeat::Never, |active| create::create(active, &label, kind))?;
                Ok(key.info.clone())
            };
            self.workers.run_within(limit, job).await
        };
        let late = |_elapsed| Err(HsmError::Unavailable("a call takes too long".to_owned()));
        tokio::time::timeout(limit, made).await.unwrap_or_else(late)
    }

    async fn lookup_key(&self, label: &str) -> Result<Option<KeyInfo>, HsmError> {
        check_label(label)?;
        self.shared.0.require_login()?;
        let label = label.to_owned();
        self.workers
            .run(move |link| {
                let key = link.run(Repeat::Harmless, |active| keys::lookup(active, &label))?;
                Ok(key.map(|key| key.info.clone()))
            })
            .await
    }

    async fn destroy_key(&self, label: &str) -> Result<(), HsmError> {
        check_label(label)?;
        self.shared.0.require_login()?;
        let label = label.to_owned();
        self.workers
            .run(move |link| link.run(Repeat::Harmless, |active| create::destroy(active, &label)))
            .await
    }

    async fn hmac(&self, label: &str, data: &[u8]) -> Result<SecretBytes, HsmError> {
        let mut tags = self.hmacs(&self.workers, label, vec![data.to_vec()]).await?;
        tags.pop().ok_or_else(|| HsmError::Failed("a call without its answer".to_owned()))
    }

    async fn hmac_many(
        &self,
        label: &str,
        data: Vec<Vec<u8>>,
    ) -> Result<Vec<SecretBytes>, HsmError> {
        self.hmacs(&self.yielding, label, data).await
    }

    async fn sign(&self, label: &str, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let message = message.to_vec();
        self.workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| {
                    let key = keys::find(active, &label)?;
                    match key.info.kind {
                        kind @ (KeyKind::EcdsaP256
                        | KeyKind::EcdsaP384
                        | KeyKind::Ed25519
                        | KeyKind::RsaPss3072
                        | KeyKind::RsaPss4096) => {
                            operations::sign(active.session, key.handle, kind, &message)
                        }
                        KeyKind::HmacSha256 | KeyKind::RsaOaep3072 | KeyKind::EcdhP256 => {
                            Err(keys::untrusted(&label, "it does not sign"))
                        }
                    }
                })
            })
            .await
    }

    async fn decrypt(
        &self,
        label: &str,
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, HsmError> {
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let ciphertext = ciphertext.to_vec();
        self.workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| {
                    let key = keys::find(active, &label)?;
                    if key.info.kind != KeyKind::RsaOaep3072 {
                        return Err(keys::untrusted(&label, "it does not decrypt"));
                    }
                    let opened = operations::decrypt(active.session, key.handle, &ciphertext)?;
                    Ok(opened.map(SecretBytes::new))
                })
            })
            .await
    }

    async fn agree(&self, label: &str, point: &[u8]) -> Result<Option<SecretBytes>, HsmError> {
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let point = point.to_vec();
        self.workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| {
                    let key = keys::find(active, &label)?;
                    if key.info.kind != KeyKind::EcdhP256 {
                        return Err(keys::untrusted(&label, "it does not agree"));
                    }
                    if !der::is_point(&point) {
                        return Ok(None);
                    }
                    operations::agree(active.session, key.handle, &point).map(Some)
                })
            })
            .await
    }

    async fn random(&self, len_bytes: usize) -> Result<SecretBytes, HsmError> {
        check_random(len_bytes)?;
        self.shared.0.require_login()?;
        self.workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| {
                    operations::random(active, len_bytes).map(SecretBytes::new)
                })
            })
            .await
    }

    async fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
        check_label(label)?;
        self.shared.0.require_login()?;
        let label = label.to_owned();
        self.workers
            .run(move |link| {
                link.run(Repeat::Harmless, |active| operations::read_data(active, &label))
            })
            .await
    }

    async fn write_data(&self, label: &str, value: &[u8]) -> Result<(), HsmError> {
        check_label(label)?;
        check_data(value)?;
        self.shared.0.require_login()?;
        let label = label.to_owned();
        let value = value.to_vec();
        self.workers
            .run(move |link| {
                // Writing the same value again is harmless: the newest copy is the one read.
                link.run(Repeat::Harmless, |active| operations::write_data(active, &label, &value))
            })
            .await
    }

    fn stuck_threads(&self) -> usize {
        Self::stuck_threads(self)
    }
}
