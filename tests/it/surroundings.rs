//! The server's environment has no say in how a target is reached.

use std::fs;

use crate::support::postgres::{Options, PASSWORD, Postgres};
use crate::support::program::{Running, as_admin, program, text};

/// A development vault among variables that libpq and the driver read.
fn among(dir: &std::path::Path, variables: &[(&str, &str)]) -> Running {
    let mut command = program();
    command.arg("dev").arg("--dir").arg(dir).envs(variables.iter().copied());
    Running::start(command, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_postgresql_decide_nothing_about_a_target() {
    let target = Postgres::start(Options { tls: true });
    target.run("postgres", "CREATE ROLE reader; CREATE ROLE owner").await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("password"), PASSWORD).unwrap();
    fs::write(path("target.pem"), target.ca_pem()).unwrap();
    let connect = format!(
        "db connect analytics --host localhost --port {} --database postgres --username postgres \
         --password-file {}",
        target.port(),
        path("password")
    );
    let server = among(
        dir.path(),
        &[
            ("PGHOSTADDR", "192.0.2.1"),
            ("PGHOST", "192.0.2.2"),
            ("PGPORT", "1"),
            ("PGUSER", "nobody"),
            ("PGPASSWORD", "wrong"),
            ("PGDATABASE", "nothing"),
            ("PGSSLMODE", "disable"),
            ("PGSSLCERT", "/nonexistent"),
            ("PGSSLKEY", "/nonexistent"),
            ("PGOPTIONS", "-c default_transaction_read_only=on"),
            // The right authority, but nobody configured it.
            ("PGSSLROOTCERT", &path("target.pem")),
        ],
    );
    let untrusted = as_admin(&server, &connect);
    assert!(!untrusted.status.success());
    assert!(text(&untrusted.stderr).contains("TLS handshake"), "{}", text(&untrusted.stderr));
    for line in [
        format!("{connect} --ca-file {}", path("target.pem")),
        "db role put analytics/reader --member-of reader --owner-role owner".to_owned(),
        "db role remove analytics/reader".to_owned(),
        "db remove analytics".to_owned(),
    ] {
        let done = as_admin(&server, &line);
        assert!(done.status.success(), "{line}: {}{}", text(&done.stderr), server.log());
    }
    assert_eq!(server.stop(), Some(0));
}
