//! Room for connections: for all, for strangers, and for each who opens many.
//!
//! Must not know identities: one certificate, in force or not, is one of those who open many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::PeerInfo;
use crate::telemetry::Metrics;

/// What each may have at least, however few there are.
const EACH_AT_LEAST: usize = 16;

/// Room for connections, counted from the end of their handshakes on.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    each_known: usize,
    each_stranger: usize,
    each: Arc<Mutex<HashMap<Holder, usize>>>,
    metrics: Arc<Metrics>,
}

/// Who has places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    /// Whoever holds a certificate's key, by its SHA-256.
    Certificate([u8; 32]),
    /// Whoever comes from a network without showing one: the first 24 bits of its address, or 56.
    Network(u128),
}

impl Holder {
    fn of(peer: &PeerInfo) -> Self {
        match (&peer.certificate, peer.address.ip().to_canonical()) {
            (Some(certificate), _) => Self::Certificate(certificate.der_sha256),
            (None, IpAddr::V4(ip)) => Self::Network(u128::from(ip.to_bits() >> 8)),
            (None, IpAddr::V6(ip)) => Self::Network(ip.to_bits() >> 72 << 72),
        }
    }
}

impl Places {
    pub(super) fn new(connections: usize, metrics: Arc<Metrics>) -> Self {
        let semaphore =
            |places: usize| Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        let strangers = connections / 4;
        Self {
            all: semaphore(connections),
            strangers: semaphore(strangers),
            each_known: (connections / 8).max(EACH_AT_LEAST),
            each_stranger: (strangers / 8).max(EACH_AT_LEAST),
            each: Arc::default(),
            metrics,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.available_permits() == 0
    }

    pub(super) fn take(&self, peer: &PeerInfo) -> Option<Place> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        let (stranger, most) = match &peer.certificate {
            Some(_) => (None, self.each_known),
            None => (Some(take(&self.strangers)?), self.each_stranger),
        };
        let one = One::of(&self.each, Holder::of(peer), most)?;
        Some(Place { _all: take(&self.all)?, _stranger: stranger, _one: one })
    }

    pub(super) fn refuse(&self) {
        self.metrics.connection_refused();
    }
}

/// A connection's place; another gets it once it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
    _one: One,
}

/// One of those that its holder may have.
#[derive(Debug)]
struct One {
    each: Arc<Mutex<HashMap<Holder, usize>>>,
    holder: Holder,
}

impl One {
    fn of(each: &Arc<Mutex<HashMap<Holder, usize>>>, holder: Holder, most: usize) -> Option<Self> {
        let mut counts = each.lock();
        let count = counts.entry(holder).or_default();
        if *count >= most {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Self { each: Arc::clone(each), holder })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.each.lock().entry(self.holder) {
            let left = held.get().saturating_sub(1);
            if left == 0 {
                held.remove();
            } else {
                held.insert(left);
            }
        }
    }
}
