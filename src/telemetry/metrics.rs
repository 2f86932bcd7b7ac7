//! Metrics in the form of Prometheus. Labels are bounded: RPCs and codes, never names.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::types::{Kind, UnixMillis};

/// How an RPC that the vault does not have is labelled: strangers choose no labels.
pub const OTHER_RPC: &str = "other";

/// Upper bounds of latencies, in seconds.
const LATENCY_S: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    rpc: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rpc {
    rpc: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CredentialLabels {
    kind: String,
    state: String,
}

/// What a node counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<Call, Counter>,
    latency: Family<Rpc, Histogram>,
    refused_sealed: Counter,
    refused_connections: Counter,
    commits: Counter,
    jobs: Counter,
    entries: Counter,
    log_size: Gauge,
    log_lag: Gauge,
    checkpoint_age: Gauge<f64, AtomicU64>,
    credentials: Family<CredentialLabels, Gauge>,
    ending: Family<KindLabel, Gauge>,
    notices_waiting: Family<SinkLabel, Gauge>,
    notices_given_up: Family<SinkLabel, Gauge>,
    sealed: Gauge<i64, AtomicI64>,
    stuck: Gauge,
    crl_next_update: Gauge,
    crl_certificates: Gauge,
    state_checked: Gauge,
    state_wrong: Gauge,
    /// The log's size since batches wait, and since when it has not grown.
    waits: Mutex<Option<(i64, Instant)>>,
}

/// What is read off elsewhere when somebody asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Durable transactions, each one group of commits.
    pub commits: u64,
    /// Operations in them.
    pub jobs: u64,
    /// Entries of the record in them.
    pub entries: u64,
    /// Whether the node does not serve.
    pub sealed: bool,
    /// Threads that are stuck inside the PKCS#11 module.
    pub stuck_threads: usize,
    /// Until when the newest revocation list may be used; 0 before the first.
    pub crl_next_update: UnixMillis,
    /// Certificates on it.
    pub crl_certificates: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        let latency: Family<Rpc, Histogram> =
            Family::new_with_constructor(|| Histogram::new(LATENCY_S));
        let mut metrics = Self {
            registry: Registry::with_prefix("strongroom"),
            calls: Family::default(),
            latency,
            refused_sealed: Counter::default(),
            refused_connections: Counter::default(),
            commits: Counter::default(),
            jobs: Counter::default(),
            entries: Counter::default(),
            log_size: Gauge::default(),
            log_lag: Gauge::default(),
            checkpoint_age: Gauge::default(),
            credentials: Family::default(),
            ending: Family::default(),
            notices_waiting: Family::default(),
            notices_given_up: Family::default(),
            sealed: Gauge::default(),
            stuck: Gauge::default(),
            crl_next_update: Gauge::default(),
            crl_certificates: Gauge::default(),
            state_checked: Gauge::default(),
            state_wrong: Gauge::default(),
            waits: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests by RPC and gRPC code", self.calls.clone());
        let help = "Time until the answer's head";
        registry.register_with_unit("request", help, Unit::Seconds, self.latency.clone());
        let help = "Requests refused because the vault is sealed or held";
        registry.register("requests_refused_closed", help, self.refused_sealed.clone());
        let help = "Connections closed because there were too many";
        registry.register("connections_refused", help, self.refused_connections.clone());
        let help = "Durable transactions, each one group";
        registry.register("store_commits", help, self.commits.clone());
        registry.register("store_jobs", "Operations in all groups", self.jobs.clone());
        registry.register("record_entries", "Entries of the record", self.entries.clone());
        registry.register("log_size", "Entries with a place in the log", self.log_size.clone());
        registry.register("log_lag", "Batches that wait for a place", self.log_lag.clone());
        let help = "Age of the newest checkpoint";
        registry.register_with_unit(
            "log_checkpoint_age",
            help,
            Unit::Seconds,
            self.checkpoint_age.clone(),
        );
        let help = "Leases and certificates by kind and state";
        registry.register("credentials", help, self.credentials.clone());
        let help = "Identities that end within the notice of their kind";
        registry.register("identities_ending", help, self.ending.clone());
        let help = "Notices that wait to be sent";
        registry.register("notices_waiting", help, self.notices_waiting.clone());
        let help = "Notices that were given up, of all that the vault ever wrote";
        registry.register("notices_given_up", help, self.notices_given_up.clone());
        registry.register("sealed", "1 while the vault does not serve", self.sealed.clone());
        let help = "Threads stuck inside the PKCS#11 module, of 4";
        registry.register("hsm_stuck_threads", help, self.stuck.clone());
        let (help, unit) = ("When the newest revocation list expires, Unix time", Unit::Seconds);
        let gauge = self.crl_next_update.clone();
        registry.register_with_unit("crl_next_update_timestamp", help, unit, gauge);
        let (help, gauge) = ("Certificates on that list", self.crl_certificates.clone());
        registry.register("crl_certificates", help, gauge);
        let (help, unit) = ("When the record was last held against the tables", Unit::Seconds);
        let gauge = self.state_checked.clone();
        registry.register_with_unit("state_checked_timestamp", help, unit, gauge);
        let (help, gauge) = ("Rows that are not what the record says", self.state_wrong.clone());
        registry.register("state_wrong_rows", help, gauge);
    }

    /// Counts a request that was answered.
    pub fn answered(&self, rpc: &'static str, code: &'static str, took: Duration) {
        self.calls.get_or_create(&Call { rpc, code }).inc();
        self.latency.get_or_create(&Rpc { rpc }).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused because the node does not serve.
    pub fn refused(&self) {
        self.refused_sealed.inc();
    }

    /// Counts a connection that was closed because there were too many.
    pub fn connection_refused(&self) {
        self.refused_connections.inc();
    }

    /// Takes notice of the log: entries, batches that wait, age of the checkpoint.
    pub fn log(&self, size: i64, lag: i64, checkpoint_age: Duration) {
        let mut waits = self.waits.lock();
        *waits = match *waits {
            _ if lag == 0 => None,
            Some((before, since)) if before == size => Some((before, since)),
            Some(_) | None => Some((size, Instant::now())),
        };
        self.log_size.set(size);
        self.log_lag.set(lag);
        self.checkpoint_age.set(checkpoint_age.as_secs_f64());
    }

    /// Takes notice of a check of the state: when it ended, and how many rows are wrong.
    pub fn state(&self, checked_at: UnixMillis, wrong: u64) {
        self.state_checked.set(checked_at.seconds());
        self.state_wrong.set(i64::try_from(wrong).unwrap_or(i64::MAX));
    }

    /// Tells for how long batches have waited without the log growing.
    #[must_use]
    pub fn log_waits(&self) -> Duration {
        self.waits.lock().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// Takes notice of how many credentials there are, by kind and state.
    pub fn credentials(&self, counts: Vec<(String, String, i64)>) {
        self.credentials.clear();
        for (kind, state, count) in counts {
            self.credentials.get_or_create(&CredentialLabels { kind, state }).set(count);
        }
    }

    /// Takes notice of how many identities end within their notice, of each kind.
    pub fn ending(&self, counts: &[(Kind, i64)]) {
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Bootstrap) {
            let found = counts.iter().find(|(counted, _)| counted == kind);
            let gauge = self.ending.get_or_create(&KindLabel { kind: kind.as_str() });
            gauge.set(found.map_or(0, |(_, count)| *count));
        }
    }

    /// Takes notice of how many notices wait for each sink, and how many were given up.
    pub fn notices(&self, counts: Vec<(String, i64, i64)>) {
        for (sink, waiting, given_up) in counts {
            let label = SinkLabel { sink };
            self.notices_waiting.get_or_create(&label).set(waiting);
            self.notices_given_up.get_or_create(&label).set(given_up);
        }
    }

    /// Writes everything as text.
    #[must_use]
    pub fn render(&self, now: &Gauges) -> String {
        self.commits.inner().store(now.commits, Ordering::Relaxed);
        self.jobs.inner().store(now.jobs, Ordering::Relaxed);
        self.entries.inner().store(now.entries, Ordering::Relaxed);
        self.sealed.set(i64::from(now.sealed));
        self.stuck.set(i64::try_from(now.stuck_threads).unwrap_or(i64::MAX));
        self.crl_next_update.set(now.crl_next_update.seconds());
        self.crl_certificates.set(i64::try_from(now.crl_certificates).unwrap_or(i64::MAX));
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail.
            Err(_never) => "# EOF\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown_in_the_form_of_prometheus() {
        let metrics = Metrics::default();
        metrics.answered("IdentityService/WhoAmI", "OK", Duration::from_millis(3));
        metrics.credentials(vec![("lease".into(), "active".into(), 4)]);
        metrics.ending(&[(Kind::Pipeline, 3)]);
        metrics.notices(vec![("webhook".into(), 2, 1)]);
        metrics.log(12, 2, Duration::from_millis(1_500));
        metrics.state(UnixMillis(7_000), 2);
        let gauges = Gauges {
            commits: 5,
            jobs: 9,
            entries: 8,
            sealed: true,
            stuck_threads: 1,
            crl_next_update: UnixMillis(86_400_000),
            crl_certificates: 7,
        };
        let text = metrics.render(&gauges);
        for line in [
            "strongroom_requests_total{rpc=\"IdentityService/WhoAmI\",code=\"OK\"} 1",
            "strongroom_request_seconds_count{rpc=\"IdentityService/WhoAmI\"} 1",
            "strongroom_credentials{kind=\"lease\",state=\"active\"} 4",
            "strongroom_identities_ending{kind=\"pipeline\"} 3",
            "strongroom_identities_ending{kind=\"human\"} 0",
            "strongroom_notices_waiting{sink=\"webhook\"} 2",
            "strongroom_notices_given_up{sink=\"webhook\"} 1",
            "strongroom_log_size 12",
            "strongroom_log_checkpoint_age_seconds 1.5",
            "strongroom_store_commits_total 5",
            "strongroom_record_entries_total 8",
            "strongroom_sealed 1",
            "strongroom_hsm_stuck_threads 1",
            "strongroom_crl_next_update_timestamp_seconds 86400",
            "strongroom_crl_certificates 7",
            "strongroom_state_checked_timestamp_seconds 7",
            "strongroom_state_wrong_rows 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
