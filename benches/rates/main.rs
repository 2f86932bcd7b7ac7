//! `make bench`: each rate beside the ceiling measured in the same run; a bench is no test and
//! never fails the build because of a number.
//!
//! Everything runs in this process: client, server and ceiling share the same cores. Each workload
//! and its ceiling alternate three times; the median counts. The server whose memory counts alone,
//! that of many live tokens, is a process of its own: this program once more.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

mod caller;
mod db;
mod echo;
mod elevation;
mod gather;
mod insert;
mod keys;
mod load;
mod many;
mod oidc;
mod pki;
mod record;
mod report;
mod root;
mod secrets;
mod suspend;
mod tokens;
mod vault;
mod whoami;

use report::Row;
use strongroom::config::{Log, LogFormat, LogLevel, Telemetry};

fn main() {
    // `cargo test --benches` and `cargo bench` pass flags; a name narrows what is measured.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    if let Some((mut command, dir)) = vault::with_token() {
        let status = command.status().expect("the bench starts itself again with a token");
        dir.close().expect("what the bench kept is removed");
        std::process::exit(status.code().unwrap_or(1));
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    strongroom::store::tell_of_idle_workers(&mut runtime);
    let runtime = runtime.enable_all().build().unwrap();
    if let Some(role) = many::role() {
        return runtime.block_on(role);
    }
    vault::initialise_tokens();
    // As the real server: where no log was started, libraries evaluate what nobody asked them to say.
    let log = Log { format: LogFormat::Json, level: LogLevel::Info };
    strongroom::telemetry::start(&log, &Telemetry { otlp_endpoint: None }).unwrap();
    let mut rows: Vec<Row> = Vec::new();
    runtime.block_on(async {
        if wants("record_append") {
            rows.push(record::measure().await);
        }
        let vault = vault::Vault::start().await;
        if wants("whoami") {
            rows.push(whoami::measure(&vault).await);
        }
        if wants("whoami_token") {
            rows.push(tokens::whoami(&vault).await);
        }
        if wants("token_single_use") {
            rows.extend(tokens::single_use(&vault).await);
        }
        if wants("pki_sign_csr") {
            rows.extend(pki::measure(&vault).await);
        }
        if wants("db_creds") {
            rows.extend(db::measure(&vault).await);
        }
        if wants("elevation") {
            rows.extend(elevation::measure(&vault).await);
        }
        if wants("oidc_login") {
            rows.extend(oidc::measure(&vault).await);
        }
        rows.extend(keys::measure(&vault, &wants).await);
        vault.node.stop().await.expect("the node stops");
        if wants("root_rotate") {
            rows.extend(root::measure().await);
        }
        if wants("suspend") {
            rows.extend(suspend::measure().await);
        }
        if wants("live_tokens") {
            rows.push(many::measure().await);
        }
    });
    report::print(&rows);
    report::write(&rows);
}
