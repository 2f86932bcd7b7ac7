//! The server's environment has no say in how a target or the store is reached.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::postgres::{Options, PASSWORD, Postgres};
use crate::support::program::{Installation, Running, as_admin, program, text};

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

/// A PostgreSQL that asks whoever connects for a password, in clear, and tells what it got.
fn asks_for_a_password() -> (u16, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let packet = |client: &mut TcpStream, head: usize| {
                let mut length = [0; 4];
                let mut kind = vec![0; head];
                client.read_exact(&mut kind).ok()?;
                client.read_exact(&mut length).ok()?;
                let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
                client.read_exact(&mut body).ok().map(|()| body)
            };
            if packet(&mut client, 0).is_none() {
                continue;
            }
            // AuthenticationCleartextPassword.
            client.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
            if let Some(password) = packet(&mut client, 1)
                && told.send(password).is_err()
            {
                return;
            }
        }
    });
    (port, heard)
}

#[test]
fn a_store_without_a_password_gets_none_from_a_pgpass_either() {
    let real = Installation::new();
    let (port, heard) = asks_for_a_password();
    let store = format!("postgres://vault@127.0.0.1:{port}/state?sslmode=disable");
    real.replace("[vault]", &format!("[store]\nurl = \"{store}\"\n[vault]"));
    real.write_secret(".pgpass", "*:*:*:*:found-by-chance\n");
    let done = program()
        .arg("doctor")
        .arg("--config")
        .arg(&real.config)
        .env("HOME", real.dir.path())
        .env("PGPASSWORD", "found-by-chance")
        .output()
        .unwrap();
    assert!(!done.status.success(), "{}", text(&done.stdout));
    let passwords: Vec<_> = heard.try_iter().collect();
    assert!(!passwords.is_empty(), "it was asked: {}", text(&done.stdout));
    assert!(passwords.iter().all(|password| password == b"\0"), "{passwords:?}");
}
