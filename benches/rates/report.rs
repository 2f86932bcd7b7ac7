//! The table for people and `target/bench/summary.json` for programs.

use std::time::Duration;

use serde::Serialize;

/// One workload, measured beside its ceiling.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) rate_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) ceiling: &'static str,
    pub(crate) ceiling_per_s: f64,
    pub(crate) ratio: f64,
    pub(crate) rss_mb: f64,
    #[serde(skip)]
    pub(crate) target: f64,
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
        rate_per_s: ours.rate_per_s,
        p50_ms: ours.p50.as_secs_f64() * 1e3,
        p99_ms: ours.p99.as_secs_f64() * 1e3,
        ceiling,
        ceiling_per_s: theirs.rate_per_s,
        ratio: ours.rate_per_s / theirs.rate_per_s,
        rss_mb: rss_mb(),
        target,
    }
}

/// Resident memory of this process, in MB.
fn rss_mb() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1e6
}

pub(crate) fn print(rows: &[Row]) {
    println!(
        "{:<16} {:>4} {:>10} {:>8} {:>8}  {:<44} {:>10} {:>6} {:>7} {:>7}",
        "workload",
        "conc",
        "rate/s",
        "p50 ms",
        "p99 ms",
        "ceiling",
        "ceiling/s",
        "ratio",
        "reach",
        "RSS MB"
    );
    for row in rows {
        println!(
            "{:<16} {:>4} {:>10.0} {:>8.2} {:>8.2}  {:<44} {:>10.0} {:>6.2} {:>7.2} {:>7.0}",
            row.workload,
            row.concurrency,
            row.rate_per_s,
            row.p50_ms,
            row.p99_ms,
            row.ceiling,
            row.ceiling_per_s,
            row.ratio,
            row.target,
            row.rss_mb
        );
    }
}

pub(crate) fn write(rows: &[Row]) {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let dir = std::path::Path::new(&target).join("bench");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(rows).unwrap()).unwrap();
    eprintln!("written: {}", path.display());
}
