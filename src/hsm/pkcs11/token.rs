//! One token: finding it, logging in once, losing it and coming back.
//!
//! Login is per application and token, so one *keeper* session is kept open for ever beside the
//! session of each thread. Whatever looks like a lost token ends an *epoch*: sessions, handles and
//! the cache of an older epoch are never used again. Must not know keys or what they are for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::hmac;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use parking_lot::Mutex;

use super::error::{is_logged_in_already, map};
use super::keys::KeyCache;
use super::module::Module;
use super::workers::Seat;
use crate::hsm::HsmError;
use crate::types::SecretBytes;

/// Names the token; slot numbers change, so they never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSelector {
    /// By its label, which must be the only one of that name.
    Label(String),
    /// By its serial number.
    Serial(String),
}

/// Whether an operator asked to try a PIN in spite of the token's warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalTry {
    Refuse,
    Force,
}

/// Whether a job may run again after the token came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or nothing that a second run would not.
    Harmless,
    /// It may have taken effect already.
    Never,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    selector: TokenSelector,
    /// Held across calls of the module: only worker threads take it.
    gate: Mutex<Option<Keeper>>,
    /// Never held across a call of the module.
    auth: Mutex<Auth>,
    epoch: AtomicU64,
    /// Set by `logout` until the token has been told, which a hung module delays.
    leaving: AtomicBool,
    /// Whether the token was ever found: one that was never there is a wrong configuration.
    found: AtomicBool,
    pub(super) keys: KeyCache,
    /// Keeps the module loaded while no thread runs.
    module: Mutex<Option<Arc<Module>>>,
}

/// The session that is kept open for ever: closing the last one would log out.
#[derive(Debug)]
struct Keeper {
    session: Session,
    slot: Slot,
}

#[derive(Debug)]
struct Auth {
    /// The PIN, only while unsealed.
    pin: Option<SecretBytes>,
    /// The last PIN that the token refused, keyed, so that it is never tried again.
    refused: Option<hmac::Tag>,
    key: hmac::Key,
    /// Counts logouts: a login that began before one must not take effect after it.
    term: u64,
}

impl Shared {
    pub(super) fn new(module: Arc<Module>, selector: TokenSelector) -> Result<Self, HsmError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_unspecified| HsmError::Failed("the random generator failed".to_owned()))?;
        Ok(Self {
            selector,
            gate: Mutex::new(None),
            auth: Mutex::new(Auth { pin: None, refused: None, key, term: 0 }),
            epoch: AtomicU64::new(1),
            leaving: AtomicBool::new(false),
            found: AtomicBool::new(false),
            keys: KeyCache::default(),
            module: Mutex::new(Some(module)),
        })
    }

    /// Refuses while nobody is logged in.
    pub(super) fn require_login(&self) -> Result<(), HsmError> {
        if self.auth.lock().pin.is_some() { Ok(()) } else { Err(HsmError::LoggedOut) }
    }

    /// Counts logouts so far; a login is submitted with it.
    pub(super) fn term(&self) -> u64 {
        self.auth.lock().term
    }

    /// Forgets the PIN and the handles at once; the token is told by the next job that runs.
    pub(super) fn forget(&self) {
        let mut auth = self.auth.lock();
        auth.term = auth.term.saturating_add(1);
        auth.pin = None;
        drop(auth);
        self.leaving.store(true, Ordering::SeqCst);
        self.next_epoch();
        self.keys.forget_pins();
    }

    /// Lets go of the keeper and the module; it is finalised once no thread is left.
    pub(super) fn release(&self) {
        // A thread that hangs inside may hold the gate: it lets go of the keeper when it is out.
        if let Some(mut gate) = self.gate.try_lock() {
            drop(gate.take());
        }
        drop(self.module.lock().take());
    }

    pub(super) fn module(&self) -> Option<Arc<Module>> {
        self.module.lock().clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn next_epoch(&self) {
        let ended = self.epoch.fetch_add(1, Ordering::SeqCst);
        self.keys.clear(ended.saturating_add(1));
    }
}

/// A thread's way to the token. Fields drop in this order: sessions before the module.
pub(super) struct Link {
    session: Option<Session>,
    slot: Option<Slot>,
    epoch: u64,
    shared: Arc<Shared>,
    module: Arc<Module>,
}

/// A session of the present epoch, logged in.
pub(super) struct Active<'a> {
    pub(super) session: &'a Session,
    pub(super) shared: &'a Shared,
    pub(super) module: &'a Module,
    pub(super) slot: Slot,
    pub(super) epoch: u64,
}

impl Seat for Link {
    fn after_job(&mut self) {
        if self.shared.leaving.load(Ordering::SeqCst) {
            self.leave();
        }
    }
}

impl Link {
    /// Makes a link; none once the module was released.
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let module = shared.module()?;
        Some(Self { session: None, slot: None, epoch: 0, shared: Arc::clone(shared), module })
    }

    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    /// Runs an operation on a session that is logged in; comes back from a lost token first.
    pub(super) fn run<T>(
        &mut self,
        repeat: Repeat,
        operation: impl Fn(&Active<'_>) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let mut result = self.attempt(&operation);
        if repeat == Repeat::Harmless && matches!(result, Err(HsmError::Unavailable(_))) {
            result = self.attempt(&operation);
        }
        result
    }

    fn attempt<T>(
        &mut self,
        operation: impl Fn(&Active<'_>) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let result = self.active().and_then(|active| operation(&active));
        match &result {
            Err(HsmError::Unavailable(_)) => self.lose(),
            // An operation that failed half way may still be active in its session.
            Err(HsmError::Failed(_)) => self.session = None,
            Ok(_)
            | Err(
                HsmError::LoggedOut
                | HsmError::PinIncorrect
                | HsmError::PinFinalTry
                | HsmError::Unsupported(_)
                | HsmError::KeyMissing(_)
                | HsmError::KeyNotUnique(_)
                | HsmError::KeyUntrusted { .. }
                | HsmError::TokenMissing(_)
                | HsmError::Configuration(_),
            ) => {}
        }
        result
    }

    /// Logs in with a PIN that nobody tried yet in this process.
    pub(super) fn login(
        &mut self,
        pin: SecretBytes,
        final_try: FinalTry,
        term: u64,
    ) -> Result<(), HsmError> {
        let shared = Arc::clone(&self.shared);
        let mut gate = shared.gate.lock();
        if shared.leaving.swap(false, Ordering::SeqCst) {
            end(gate.take());
        }
        if shared.auth.lock().pin.is_some() {
            return Ok(());
        }
        self.look_for_token()?;
        let keeper = self.open_keeper(&pin, final_try)?;
        let mut auth = shared.auth.lock();
        if auth.term != term {
            drop(auth);
            end(Some(keeper));
            return Err(HsmError::LoggedOut);
        }
        auth.pin = Some(pin);
        auth.refused = None;
        drop(auth);
        *gate = Some(keeper);
        shared.next_epoch();
        Ok(())
    }

    /// Tells the token that we are gone.
    pub(super) fn leave(&mut self) {
        self.session = None;
        let mut gate = self.shared.gate.lock();
        if self.shared.leaving.swap(false, Ordering::SeqCst) {
            end(gate.take());
        }
    }

    fn active(&mut self) -> Result<Active<'_>, HsmError> {
        if self.session.is_none() || self.epoch != self.shared.epoch() {
            self.connect()?;
        }
        let (Some(session), Some(slot)) = (&self.session, self.slot) else {
            return Err(HsmError::Unavailable("no session".to_owned()));
        };
        Ok(Active { session, shared: &self.shared, module: &self.module, slot, epoch: self.epoch })
    }

    /// Opens this thread's session, and the keeper's where the last one was lost.
    fn connect(&mut self) -> Result<(), HsmError> {
        self.session = None;
        let shared = Arc::clone(&self.shared);
        let mut gate = shared.gate.lock();
        // Set first: whatever fails below was met in this epoch, and losing it must end it.
        self.epoch = shared.epoch();
        let pin = shared.auth.lock().pin.clone().ok_or(HsmError::LoggedOut)?;
        let slot = if let Some(keeper) = gate.as_ref() {
            keeper.slot
        } else {
            let keeper = self.open_keeper(&pin, FinalTry::Refuse)?;
            tracing::info!("the HSM is back");
            gate.insert(keeper).slot
        };
        let session = self.module.context()?.open_rw_session(slot).map_err(|error| map(&error))?;
        self.session = Some(session);
        self.slot = Some(slot);
        Ok(())
    }

    /// Opens a session and logs in, with one attempt at most.
    fn open_keeper(&self, pin: &SecretBytes, final_try: FinalTry) -> Result<Keeper, HsmError> {
        let tag = {
            let auth = self.shared.auth.lock();
            let tag = hmac::sign(&auth.key, pin.expose());
            if auth.refused.as_ref().is_some_and(|refused| refused.as_ref() == tag.as_ref()) {
                return Err(HsmError::PinIncorrect);
            }
            tag
        };
        let context = self.module.context()?;
        let slot = self.find_slot()?;
        let token = context.get_token_info(slot).map_err(|error| map(&error))?;
        if final_try == FinalTry::Refuse && (token.user_pin_final_try() || token.user_pin_locked())
        {
            return Err(HsmError::PinFinalTry);
        }
        let session = context.open_rw_session(slot).map_err(|error| map(&error))?;
        let raw = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &raw) {
            Ok(()) => {}
            Err(error) if is_logged_in_already(&error) => {}
            Err(error) => {
                let error = map(&error);
                if error == HsmError::PinIncorrect {
                    let mut auth = self.shared.auth.lock();
                    auth.pin = None;
                    auth.refused = Some(tag);
                }
                return Err(error);
            }
        }
        Ok(Keeper { session, slot })
    }

    /// Lets the module look for the token again where it never found it.
    pub(super) fn settle(&self) -> Result<(), HsmError> {
        let _gate = self.shared.gate.lock();
        self.look_for_token()
    }

    /// Lets a module that looks for tokens only when it is initialised look again. Before the token
    /// was ever found there is no session, and whoever holds the gate is alone in the module.
    fn look_for_token(&self) -> Result<(), HsmError> {
        if !self.shared.found.load(Ordering::Relaxed) && self.find_slot().is_err() {
            self.module.start_over()?;
        }
        Ok(())
    }

    /// Finds the one token that the configuration names.
    pub(super) fn find_slot(&self) -> Result<Slot, HsmError> {
        let context = self.module.context()?;
        let mut found = Vec::new();
        for slot in context.get_slots_with_token().map_err(|error| map(&error))? {
            // A slot that does not answer is not ours to judge; ours is then missed below.
            let Ok(token) = context.get_token_info(slot) else { continue };
            let matches = match &self.shared.selector {
                TokenSelector::Label(label) => token.label() == label,
                TokenSelector::Serial(serial) => token.serial_number() == serial,
            };
            if matches && token.token_initialized() {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [slot] => {
                self.shared.found.store(true, Ordering::Relaxed);
                Ok(*slot)
            }
            [] if self.shared.found.load(Ordering::Relaxed) => {
                Err(HsmError::Unavailable("the token is gone".to_owned()))
            }
            [] => Err(self.missing("no token is there with", "plug it in, or name another")),
            // It was the only one when it was found: whoever asks then may be anybody.
            _ if self.shared.found.load(Ordering::Relaxed) => {
                Err(HsmError::Unavailable("another token like it is there".to_owned()))
            }
            _ => Err(self.missing("more than one token is there with", "name it by token_serial")),
        }
    }

    /// Says of the configured token what is wrong, and what to do.
    fn missing(&self, wrong: &str, advice: &str) -> HsmError {
        let (by, name) = match &self.shared.selector {
            TokenSelector::Label(label) => ("label", label),
            TokenSelector::Serial(serial) => ("serial number", serial),
        };
        let module = self.module.path().display();
        HsmError::TokenMissing(format!("{wrong} the {by} `{name}` behind {module}; {advice}"))
    }

    /// Drops everything of an epoch in which the token was lost.
    fn lose(&mut self) {
        self.session = None;
        let mut gate = self.shared.gate.lock();
        if self.epoch == self.shared.epoch() {
            tracing::warn!("the HSM was lost; connecting again at the next call");
            drop(gate.take());
            self.shared.next_epoch();
        }
    }
}

/// Logs a keeper out and closes it; a token that is gone needs neither.
fn end(keeper: Option<Keeper>) {
    if let Some(keeper) = keeper
        && let Err(error) = keeper.session.logout()
    {
        tracing::warn!(%error, "the token did not log out");
    }
}
