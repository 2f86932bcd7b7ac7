//! One verb on up to a thousand items under one key: decided once, one entry, an answer for each.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::count::Reservation;
use super::find::{Hot, Keys};
use super::sign::Turns;
use crate::audit::Field;
use crate::crypto::MessageKey;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::named_keys::NamedKeyVersionRow;
use crate::store::{Needs, Tx};
use crate::types::{
    Entropy, Id, KeyAlgorithm, KeyName, KeyUsage, ObjectId, Placement, RequestContext,
};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View, WRITES};

/// Items of one call, at most.
pub const ITEMS: usize = 1_000;
/// Bytes of an item at most.
pub(super) const ITEM_BYTES: usize = 1_024 * 1_024;
/// Bytes of an item's associated data at most.
pub(super) const AAD_BYTES: usize = 64 * 1_024;
/// Bytes of randomness that are drawn at once, at most.
const DRAWN_BYTES: usize = 4_096;
/// Numbers of failed items that an entry names, at most.
const NAMED: usize = 1_000;

/// Why an item was not done, while others were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// The item can never succeed as it is.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: "INVALID", message: message.into() }
    }

    /// Another key made it, or is asked for.
    pub(super) const fn other_key() -> Self {
        let message = Cow::Borrowed("the ciphertext is of another key");
        Self { reason: "OTHER_KEY", message }
    }

    /// Its version is not used any more.
    pub(super) fn retired(version: i64) -> Self {
        Self {
            reason: "RETIRED",
            message: format!("version {version} is not used any more").into(),
        }
    }

    /// The one answer for whatever is wrong inside.
    pub(super) const fn does_not_open() -> Self {
        Self {
            reason: "DOES_NOT_OPEN",
            message: Cow::Borrowed("ciphertext and associated data do not belong together"),
        }
    }
}

/// Checks an item's length.
pub(super) fn check_item(what: &str, item: &[u8]) -> Result<(), Fault> {
    if item.is_empty() || item.len() > ITEM_BYTES {
        return Err(Fault::invalid(format!("{what} has 1 to {ITEM_BYTES} bytes")));
    }
    Ok(())
}

/// Checks the length of associated data.
pub(super) fn check_aad(aad: &[u8]) -> Result<(), Fault> {
    if aad.len() > AAD_BYTES {
        return Err(Fault::invalid(format!("associated data has at most {AAD_BYTES} bytes")));
    }
    Ok(())
}

/// Which key did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Its id.
    pub id: ObjectId,
    /// The version; 0 where items name their own.
    pub version: i64,
    /// Where it is kept.
    pub placement: Placement,
    /// What it is.
    pub algorithm: KeyAlgorithm,
}

/// An answer for each item.
#[derive(Debug, Clone)]
pub struct Answers<D> {
    /// In the order of the items.
    pub results: Vec<Result<D, Fault>>,
    /// Which key did it.
    pub used: Used,
}

/// Keys that were used, with those that were used to open them, each once.
pub(super) fn all_used(view: &View, mut noted: Vec<KeyUse>) -> Vec<KeyUse> {
    for used in view.used() {
        if !noted.contains(&used) {
            noted.push(used);
        }
    }
    noted
}

/// What is done to each item.
pub trait Job: Send + Sync + 'static {
    /// The verb.
    const ACTION: &'static str;
    /// What the key has to be for.
    const USAGE: KeyUsage;
    /// What a sealed key, and one in the HSM, was used for.
    const PURPOSES: [&'static str; 2];
    /// Whether the newest version does it, and each item counts as a message.
    const MAKES: bool;
    /// An item.
    type Item: Send + Sync + 'static;
    /// What becomes of one.
    type Done: Clone + Send + Sync + 'static;

    /// Tells whether an item is worth a message's number, before any is taken.
    fn is_sound(_item: &Self::Item) -> bool {
        true
    }

    /// Does one.
    fn one(
        work: &Work<'_>,
        item: &Self::Item,
    ) -> impl Future<Output = Result<Result<Self::Done, Fault>>> + Send;
}

/// What is at hand for a call's items.
pub struct Work<'a> {
    pub(super) view: &'a View,
    pub(super) hot: &'a Hot,
    pub(super) turns: &'a Turns,
    pub(super) newest: Arc<NamedKeyVersionRow>,
    pub(super) entropy: Box<dyn Entropy>,
    ready: Mutex<BTreeMap<i64, Arc<MessageKey>>>,
    /// Versions that were used.
    used: Mutex<BTreeSet<i64>>,
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// Randomness for the items of one call, drawn for many of them at once: to ask for it costs more than
/// what is given.
struct Drawn<E> {
    source: E,
    items: usize,
    /// What was given to nobody yet.
    kept: Mutex<Zeroizing<Vec<u8>>>,
}

impl<E> std::fmt::Debug for Drawn<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawn").finish_non_exhaustive()
    }
}

impl<E: Entropy> Entropy for Drawn<E> {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let mut kept = self.kept.lock();
        if kept.len() < buffer.len() {
            let most = DRAWN_BYTES.checked_div(buffer.len()).unwrap_or_default().max(1);
            let items = self.items.clamp(1, most);
            let mut more = Zeroizing::new(vec![0; buffer.len().saturating_mul(items)]);
            self.source.fill(&mut more)?;
            *kept = more;
        }
        let rest = kept.len().saturating_sub(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(kept.drain(rest..)) {
            *place = byte;
        }
        Ok(())
    }
}

impl<'a> Work<'a> {
    /// Gets ready for so many items.
    pub(super) fn new(keys: &'a Keys, view: &'a View, hot: &'a Hot, items: usize) -> Result<Self> {
        let source = view.keyring().entropy()?;
        let entropy = Drawn { source, items, kept: Mutex::default() };
        Ok(Self {
            turns: &keys.turns,
            newest: hot.newest()?,
            entropy: Box::new(entropy),
            view,
            hot,
            ready: Mutex::default(),
            used: Mutex::default(),
        })
    }

    /// Notes that a version is used.
    pub(super) fn uses(&self, version: i64) {
        self.used.lock().insert(version);
    }

    /// The version that an item names: 0 for the newest.
    pub(super) async fn version(
        &self,
        number: i64,
    ) -> Result<Result<Arc<NamedKeyVersionRow>, Fault>> {
        let row = &self.hot.row.row;
        let number = if number == 0 { row.newest } else { number };
        if !(1..=row.newest).contains(&number) {
            return Ok(Err(Fault::invalid("there is no such version of the key")));
        }
        if number < row.min_version {
            return Ok(Err(Fault::retired(number)));
        }
        let found = self.hot.version(self.view, number).await?;
        Ok(found.ok_or_else(|| Fault::invalid("there is no such version of the key")))
    }

    /// A version that encrypts, ready.
    pub(super) async fn message_key(
        &self,
        version: &NamedKeyVersionRow,
    ) -> Result<Arc<MessageKey>> {
        let kept = self.ready.lock().get(&version.version).cloned();
        if let Some(ready) = kept {
            return Ok(ready);
        }
        let material = self.hot.material(self.view, version).await?;
        let (vault, header) = (self.view.vault_id(), self.header(version)?);
        let ready = material.message_key(vault, &header)?;
        self.uses(version.version);
        self.ready.lock().insert(version.version, Arc::clone(&ready));
        Ok(ready)
    }

    /// The keys that were used, for the record.
    fn uses_of(&self, purposes: [&'static str; 2]) -> Vec<KeyUse> {
        let row = &self.hot.row.row;
        let [sealed, hsm] = purposes;
        let purpose = match row.placement {
            Placement::Sealed => sealed,
            Placement::Hsm => hsm,
        };
        let id = row.id.to_string();
        let used = self.used.lock();
        used.iter().map(|version| KeyUse { key: id.clone(), version: *version, purpose }).collect()
    }
}

/// Does one verb to items under one key.
#[derive(Debug)]
pub struct Batch<J: Job> {
    keys: Keys,
    name: KeyName,
    items: Vec<J::Item>,
}

impl<J: Job> Batch<J> {
    /// Takes items in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or too many.
    pub fn new(keys: Keys, name: KeyName, items: Vec<J::Item>) -> Result<Self> {
        if items.is_empty() || items.len() > ITEMS {
            return Err(Error::invalid(format!("a call has 1 to {ITEMS} items")));
        }
        Ok(Self { keys, name, items })
    }
}

/// What was done, before it is on the record.
#[derive(Debug)]
pub struct Done<D> {
    answers: Arc<Answers<D>>,
    reservation: Option<Reservation>,
    noted: Vec<KeyUse>,
}

#[async_trait]
impl<J: Job> Verb for Batch<J> {
    const ACTION: &'static str = J::ACTION;
    type Prepared = Done<J::Done>;
    type Output = Arc<Answers<J::Done>>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.keys.resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Done<J::Done>> {
        let hot = self.keys.decided(view, decision, &self.name, Some(J::USAGE)).await?;
        let row = &hot.row.row;
        let sound = self.items.iter().filter(|item| J::is_sound(item)).count();
        let work = Work::new(&self.keys, view, &hot, sound)?;
        let counts = J::MAKES && row.algorithm.is_counted() && sound > 0;
        let of = (view.vault_id(), work.newest.id);
        let reservation = if counts { self.keys.counts.take(of, sound).await? } else { None };
        let mut results = Vec::with_capacity(self.items.len());
        for item in &self.items {
            results.push(J::one(&work, item).await?);
        }
        let version = if J::MAKES { row.newest } else { 0 };
        let used = Used { id: row.id, version, placement: row.placement, algorithm: row.algorithm };
        let noted = all_used(view, work.uses_of(J::PURPOSES));
        Ok(Done { answers: Arc::new(Answers { results, used }), reservation, noted })
    }

    fn note(&self, it: &Done<J::Done>, note: &mut Note) {
        note.keys.extend(it.noted.iter().cloned());
        note.private.push((Field::Detail, detail(&it.answers)));
    }
}

/// What an entry says of the items: how many, and which were not done.
fn detail<D>(answers: &Answers<D>) -> String {
    let mut text = match answers.results.len() {
        1 => "1 item".to_owned(),
        many => format!("{many} items"),
    };
    let faults = answers.results.iter().enumerate();
    let faults = faults.filter_map(|(at, one)| Some((at, one.as_ref().err()?.reason)));
    for (place, (at, reason)) in faults.take(NAMED).enumerate() {
        let before = if place == 0 { ", not done: " } else { " " };
        text.extend([before, at.to_string().as_str(), ":", reason]);
    }
    text
}

#[async_trait]
impl<J: Job> Operation for Batch<J> {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    fn needs(&self, it: &Done<J::Done>) -> Needs {
        if it.reservation.is_some() { WRITES } else { READS }
    }

    fn outcome(&self, answers: &Arc<Answers<J::Done>>) -> &'static str {
        let failed = answers.results.iter().filter(|one| one.is_err()).count();
        match failed {
            0 => "OK",
            all if all == answers.results.len() => "NONE_DONE",
            _ => "SOME_DONE",
        }
    }

    fn durable(&self, it: &Done<J::Done>) {
        if let Some(reservation) = &it.reservation {
            reservation.durable();
        }
    }

    fn holds(&self, it: &Done<J::Done>) -> Option<Id> {
        it.reservation.as_ref().map(Reservation::holds)
    }

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Done<J::Done>,
        _: &Decision,
    ) -> Result<Arc<Answers<J::Done>>> {
        if let Some(reservation) = &it.reservation {
            reservation.reserve(tx).await?;
        }
        Ok(Arc::clone(&it.answers))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// Counts upward, a number each time that it is asked.
    #[derive(Debug, Default)]
    struct Asked(AtomicU8);

    impl Entropy for Asked {
        fn fill(&self, buffer: &mut [u8]) -> Result<()> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            for (at, byte) in buffer.iter_mut().enumerate() {
                *byte = number.wrapping_mul(128).wrapping_add(u8::try_from(at % 128).unwrap());
            }
            Ok(())
        }
    }

    #[test]
    fn randomness_is_given_once_and_asked_for_once_for_many() {
        let drawn = Drawn { source: Asked::default(), items: 10, kept: Mutex::default() };
        let mut given = BTreeSet::new();
        for _ in 0..20 {
            let mut nonce = [0; 12];
            drawn.fill(&mut nonce).unwrap();
            given.insert(nonce);
        }
        assert_eq!(given.len(), 20, "none was given twice");
        assert_eq!(drawn.source.0.load(Ordering::Relaxed), 2);
        let mut long = vec![0; DRAWN_BYTES * 2];
        drawn.fill(&mut long).unwrap();
        assert!(long.iter().any(|byte| *byte != 0));
        assert_eq!(drawn.source.0.load(Ordering::Relaxed), 3, "what is kept is too little");
    }
}
