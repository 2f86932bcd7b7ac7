//! The table for people and `target/bench/summary.json` for programs.

use std::time::Duration;

use serde::Serialize;

/// One workload: a rate beside its ceiling, or seconds beside the most that they may be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) ceiling: &'static str,
    pub(crate) ceiling_per_s: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) seconds_most: Option<f64>,
    pub(crate) rss_mb: f64,
    pub(crate) rss_mb_most: Option<f64>,
    /// The ratio that we build towards.
    #[serde(skip)]
    pub(crate) target: Option<f64>,
}

/// One run of a load.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) rate_per_s: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Takes the median of three runs, by rate.
pub(crate) fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    runs.swap_remove(runs.len() / 2)
}

/// Joins both sides of a workload.
pub(crate) fn row(
    workload: &'static str,
    concurrency: usize,
    ceiling: &'static str,
    target: f64,
    ours: Vec<Run>,
    theirs: Vec<Run>,
) -> Row {
    let (ours, theirs) = (median(ours), median(theirs));
    Row {
        workload,
        concurrency,
        rate_per_s: Some(ours.rate_per_s),
        p50_ms: Some(ours.p50.as_secs_f64() * 1e3),
        p99_ms: Some(ours.p99.as_secs_f64() * 1e3),
        ceiling,
        ceiling_per_s: Some(theirs.rate_per_s),
        ratio: Some(ours.rate_per_s / theirs.rate_per_s),
        seconds: None,
        seconds_most: None,
        rss_mb: rss_mb(),
        rss_mb_most: None,
        target: Some(target),
    }
}

/// A workload whose seconds count: their median.
pub(crate) fn seconds(
    workload: &'static str,
    concurrency: usize,
    what: &'static str,
    most: f64,
    mut runs: Vec<f64>,
) -> Row {
    runs.sort_by(f64::total_cmp);
    Row {
        workload,
        concurrency,
        rate_per_s: None,
        p50_ms: None,
        p99_ms: None,
        ceiling: what,
        ceiling_per_s: None,
        ratio: None,
        seconds: Some(runs[runs.len() / 2]),
        seconds_most: Some(most),
        rss_mb: rss_mb(),
        rss_mb_most: None,
        target: None,
    }
}

/// Resident memory of this process, in MB.
fn rss_mb() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1e6
}

pub(crate) fn print(rows: &[Row]) {
    line(
        ["workload", "conc", "rate/s", "p50 ms", "p99 ms"],
        "ceiling, or what the seconds are",
        ["ceiling/s", "ratio", "reach", "seconds", "most", "RSS MB", "most"],
    );
    for row in rows {
        let some = |value: Option<f64>, digits: usize| {
            value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
        };
        let (concurrency, rss) = (row.concurrency.to_string(), some(Some(row.rss_mb), 0));
        line(
            [
                row.workload,
                &concurrency,
                &some(row.rate_per_s, 0),
                &some(row.p50_ms, 2),
                &some(row.p99_ms, 2),
            ],
            row.ceiling,
            [
                &some(row.ceiling_per_s, 0),
                &some(row.ratio, 2),
                &some(row.target, 2),
                &some(row.seconds, 3),
                &some(row.seconds_most, 0),
                &rss,
                &some(row.rss_mb_most, 0),
            ],
        );
    }
}

fn line([workload, concurrency, rate, p50, p99]: [&str; 5], ceiling: &str, rest: [&str; 7]) {
    let [ceiling_rate, ratio, reach, seconds, seconds_most, rss, rss_most] = rest;
    println!(
        "{workload:<16} {concurrency:>4} {rate:>10} {p50:>8} {p99:>8}  {ceiling:<50} \
         {ceiling_rate:>10} {ratio:>6} {reach:>6} {seconds:>8} {seconds_most:>5} {rss:>7} \
         {rss_most:>5}"
    );
}

pub(crate) fn write(rows: &[Row]) {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let dir = std::path::Path::new(&target).join("bench");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(rows).unwrap()).unwrap();
    eprintln!("written: {}", path.display());
}
