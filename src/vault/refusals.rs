//! Refusals are recorded, but nobody fills the record with them: what repeats is summarised.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::types::IdentityId;

/// Refusals of one identity that are recorded one by one in a second.
const PER_SECOND: u32 = 10;
/// Identities and sources counted at once; what is beyond is counted together.
const KEPT: usize = 4_096;

/// Counts refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    known: Mutex<HashMap<IdentityId, Window>>,
    findings: Mutex<HashMap<IdentityId, Window>>,
    strangers: Mutex<BTreeMap<(&'static str, String), u64>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    count: u32,
    summarised: BTreeMap<&'static str, u64>,
}

impl Window {
    const fn new(began: Instant) -> Self {
        Self { began, count: 0, summarised: BTreeMap::new() }
    }

    fn summarise(&mut self, what: &'static str, count: u64) {
        let counted = self.summarised.entry(what).or_default();
        *counted = counted.saturating_add(count);
    }
}

/// Counts one more of an identity; tells whether it is among the first of its second.
fn is_among_first(
    windows: &mut HashMap<IdentityId, Window>,
    identity: IdentityId,
    now: Instant,
) -> bool {
    if windows.len() >= KEPT && !windows.contains_key(&identity) {
        windows.retain(|_, window| {
            !window.summarised.is_empty()
                || now.saturating_duration_since(window.began) < Duration::from_secs(1)
        });
    }
    let window = windows.entry(identity).or_insert_with(|| Window::new(now));
    if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
        window.began = now;
        window.count = 0;
    }
    window.count = window.count.saturating_add(1);
    window.count <= PER_SECOND
}

impl Refusals {
    /// Tells whether a refusal gets an entry of its own; otherwise it is counted.
    pub(super) fn records(&self, identity: IdentityId, action: &'static str, now: Instant) -> bool {
        let recorded = is_among_first(&mut self.known.lock(), identity, now);
        if !recorded {
            self.count(identity, action, now);
        }
        recorded
    }

    /// Tells the same of a finding, which no refusal of another kind may hide.
    pub(super) fn records_finding(
        &self,
        identity: IdentityId,
        action: &'static str,
        now: Instant,
    ) -> bool {
        let recorded = is_among_first(&mut self.findings.lock(), identity, now);
        if !recorded {
            self.count(identity, action, now);
        }
        recorded
    }

    /// Counts what has no entry of its own however rare it is.
    pub(super) fn count(&self, identity: IdentityId, what: &'static str, now: Instant) {
        self.put_back_known(vec![(identity, what, 1)], now);
    }

    /// Takes what was counted of known identities: who, what, how often.
    pub(super) fn take_known(&self) -> Vec<(IdentityId, &'static str, u64)> {
        let mut known = self.known.lock();
        let mut taken = Vec::new();
        for (identity, window) in known.iter_mut() {
            let counted = std::mem::take(&mut window.summarised);
            taken.extend(counted.into_iter().map(|(action, count)| (*identity, action, count)));
        }
        taken
    }

    /// Gives back what was taken of known identities and could not be recorded.
    pub(super) fn put_back_known(&self, taken: Vec<(IdentityId, &'static str, u64)>, now: Instant) {
        let mut known = self.known.lock();
        for (identity, action, count) in taken {
            known.entry(identity).or_insert_with(|| Window::new(now)).summarise(action, count);
        }
    }

    /// Counts a caller that is nobody we know.
    pub(super) fn stranger(&self, reason: &'static str, source: Option<IpAddr>) {
        self.count_strangers(reason, prefix(source), 1);
    }

    /// Gives back what was taken of strangers and could not be recorded.
    pub(super) fn put_back_strangers(&self, taken: Vec<(&'static str, String, u64)>) {
        for (reason, source, count) in taken {
            self.count_strangers(reason, source, count);
        }
    }

    fn count_strangers(&self, reason: &'static str, source: String, calls: u64) {
        let mut strangers = self.strangers.lock();
        let mut key = (reason, source);
        if strangers.len() >= KEPT && !strangers.contains_key(&key) {
            "elsewhere".clone_into(&mut key.1);
        }
        let count = strangers.entry(key).or_default();
        *count = count.saturating_add(calls);
    }

    /// Takes what was counted of strangers: reason, source prefix, how often.
    pub(super) fn take_strangers(&self) -> Vec<(&'static str, String, u64)> {
        let taken = std::mem::take(&mut *self.strangers.lock());
        taken.into_iter().map(|((reason, source), count)| (reason, source, count)).collect()
    }
}

/// The network that a source is counted under: /24 or /48.
fn prefix(source: Option<IpAddr>) -> String {
    match source.map(|source| source.to_canonical()) {
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    #[test]
    fn the_eleventh_refusal_in_a_second_is_counted_instead_of_recorded() {
        let refusals = Refusals::default();
        let (who, now) = (IdentityId(Id::from_bytes([7; 16])), Instant::now());
        let recorded = (0..25).filter(|_| refusals.records(who, "pki.sign", now)).count();
        assert_eq!(recorded, 10);
        assert_eq!(refusals.take_known(), [(who, "pki.sign", 15)]);
        assert!(refusals.take_known().is_empty());
        assert!(refusals.records(who, "pki.sign", now + Duration::from_secs(1)));
    }

    #[test]
    fn no_refusal_hides_a_finding_and_findings_are_bounded_as_well() {
        let refusals = Refusals::default();
        let (who, now) = (IdentityId(Id::from_bytes([7; 16])), Instant::now());
        for _ in 0..25 {
            refusals.records(who, "pki.sign", now);
        }
        let found = (0..25).filter(|_| refusals.records_finding(who, "tokens.list", now)).count();
        assert_eq!(found, 10);
        assert_eq!(refusals.take_known(), [(who, "pki.sign", 15), (who, "tokens.list", 15)]);
        assert!(refusals.records_finding(who, "tokens.list", now + Duration::from_secs(1)));
    }

    #[test]
    fn strangers_are_counted_by_network() {
        let refusals = Refusals::default();
        for host in 1..=200 {
            refusals.stranger("no_credential", Some([10, 0, 0, host].into()));
        }
        let taken = refusals.take_strangers();
        assert_eq!(taken, [("no_credential", "10.0.0.0/24".to_owned(), 200)]);
        // What could not be recorded is counted on.
        refusals.put_back_strangers(taken);
        refusals.stranger("no_credential", Some([10, 0, 0, 1].into()));
        assert_eq!(refusals.take_strangers(), [("no_credential", "10.0.0.0/24".to_owned(), 201)]);
    }
}
