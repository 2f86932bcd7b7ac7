//! Creation, use and renewal.

use std::sync::Arc;

use sqlx::ConnectOptions;
use strongroom::engines::database::postgres::{Access, Tls};
use strongroom::engines::database::target::{DatabaseTarget, Outage, TargetError};

use super::*;
use crate::support::postgres::Options;

#[tokio::test]
async fn the_account_of_the_manual_is_no_superuser_and_serves() {
    let f = Fixture::new().await;
    f.target.test().await.unwrap();
    let superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'strongroom'";
    assert_eq!(f.ask(superuser).await.unwrap(), "false");
    f.target.check_role(&parse(READER)).await.unwrap();
    assert!(f.target.sweep().await.unwrap().is_empty(), "a check leaves nothing behind");
    f.target.close().await;
    let closed = TargetError::Unreachable(Outage::NoConnection);
    assert_eq!(f.target.test().await, Err(closed));
}

#[tokio::test]
async fn a_credential_logs_in_runs_as_its_group_reads_and_cannot_write() {
    let f = Fixture::new().await;
    let credential = f.reader().await;
    let mut session = f.connect(&credential).await;
    assert_eq!(value(&mut session, "SELECT current_user::text").await, "analytics_reader");
    assert_eq!(value(&mut session, "SELECT session_user::text").await, credential.name.as_str());
    assert_eq!(value(&mut session, "SELECT answer::text FROM facts").await, "42");
    for (denied, sqlstate) in [
        ("INSERT INTO facts VALUES (1)", "42501"),
        ("DROP TABLE facts", "42501"),
        ("CREATE ROLE another", "42501"),
        ("ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'", "42501"),
    ] {
        assert_eq!(state(&mut session, denied).await.as_deref(), Some(sqlstate), "{denied}");
    }
    let wrong = f.cluster.login(credential.name.as_str(), "wrong", &f.database).connect().await;
    assert!(wrong.is_err(), "the password is asked for");
    assert_eq!(f.target.sweep().await.unwrap(), std::slice::from_ref(&credential.name));
    let stored = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", credential.name);
    assert!(f.ask(&stored).await.unwrap().starts_with("SCRAM-SHA-256$4096:"));
}

#[tokio::test]
async fn the_dsn_and_a_verifier_of_one_iteration_let_libpq_in() {
    let f = Fixture::new().await;
    let (name, password) = (f.mint(), random_hex());
    f.target.create(&parse(READER), &name, &verifier(&password, 1), FAR).await.unwrap();
    let secret = SecretBytes::new(password.into_bytes());
    let access = Access::new(&definition(f.cluster, &f.database), name.as_str(), secret);
    let dsn = access.dsn(None);
    let dsn = std::str::from_utf8(dsn.expose()).unwrap();
    let done = std::process::Command::new("psql")
        .arg(dsn)
        .args(["-X", "-A", "-t", "-c", "SELECT answer FROM facts"])
        .output()
        .unwrap();
    assert_eq!(done.stdout, b"42\n", "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn expiry_ends_logins_and_renewal_moves_it() {
    let f = Fixture::new().await;
    let credential = Credential { name: f.mint(), password: random_hex() };
    let verifier = verifier(&credential.password, 4_096);
    let past = UnixMillis(1_000);
    f.target.create(&parse(READER), &credential.name, &verifier, past).await.unwrap();
    let refused = f.login(&credential, &f.database).connect().await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "28P01");
    f.target.extend(&credential.name, FAR).await.unwrap();
    f.connect(&credential).await;
    f.target.extend(&credential.name, past).await.unwrap();
    assert!(f.login(&credential, &f.database).connect().await.is_err());
    f.revoke(&credential).await.unwrap();
    assert_eq!(f.target.extend(&credential.name, FAR).await, Err(TargetError::Gone));
}

#[tokio::test]
async fn statements_are_filled_in_and_run_together() {
    let f = Fixture::new().await;
    let role = r#"{"statements": [
        "CREATE ROLE {{name}} LOGIN CONNECTION LIMIT 4 PASSWORD {{password}} VALID UNTIL {{expiration}}",
        "GRANT SELECT ON public.facts TO {{name}}"
    ], "on_revoke": "drop"}"#;
    f.target.check_role(&parse(role)).await.unwrap();
    let credential = f.create(role).await.unwrap();
    let mut session = f.connect(&credential).await;
    assert_eq!(value(&mut session, "SELECT answer::text FROM facts").await, "42");
    f.target.revoke(&credential.name, &Disposal::Drop).await.unwrap();
    assert!(f.gone(&credential).await);
}

#[tokio::test]
async fn eight_direct_grants_at_once_all_succeed_also_from_two_nodes() {
    let f = Arc::new(Fixture::new().await);
    let other = definition(f.cluster, &f.database);
    let other = Arc::new(driver(f.vault, &other, ACCOUNT_PASSWORD));
    let role = r#"{"statements": ["GRANT SELECT ON facts TO {{name}}"], "on_revoke": "drop"}"#;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..16 {
        let (f, other) = (Arc::clone(&f), Arc::clone(&other));
        tasks.spawn(async move {
            let name = f.mint();
            let target = if i % 2 == 0 { &f.target } else { &*other };
            target.create(&parse(role), &name, &verifier("p", 1), FAR).await.unwrap();
            name
        });
    }
    let mut made = tasks.join_all().await;
    made.sort();
    assert_eq!(f.target.sweep().await.unwrap(), made);
    let mut tasks = tokio::task::JoinSet::new();
    for name in made {
        let f = Arc::clone(&f);
        tasks.spawn(async move { f.target.revoke(&name, &Disposal::Drop).await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    assert!(f.target.sweep().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_is_unreachable_and_serves_when_it_is_back() {
    let mut cluster = Postgres::start(Options::default());
    prepare(&cluster).await;
    data(&cluster, "d").await;
    let vault = new_vault();
    let target = driver(vault, &definition(&cluster, "d"), ACCOUNT_PASSWORD);
    let mint = || RoleName::mint(vault, &"etl".parse().unwrap(), &SystemEntropy).unwrap();
    let (first, second) = (mint(), mint());
    let (role, verifier) = (parse(READER), verifier("p", 1));
    target.create(&role, &first, &verifier, FAR).await.unwrap();
    cluster.stop();
    let down = |error: TargetError| {
        assert!(matches!(error, TargetError::Unreachable(_)), "{error:?}");
        assert!(error.is_passing());
        assert_eq!(strongroom::Error::from(error).reason(), "UNAVAILABLE");
    };
    down(target.create(&role, &second, &verifier, FAR).await.unwrap_err());
    down(target.extend(&first, FAR).await.unwrap_err());
    down(target.exists(&first).await.unwrap_err());
    down(target.revoke(&first, &disposal(READER)).await.unwrap_err());
    down(target.test().await.unwrap_err());
    cluster.resume();
    target.create(&role, &second, &verifier, FAR).await.unwrap();
    assert!(target.exists(&first).await.unwrap());
    // Restarted within a second, while connections rest in the pool.
    cluster.stop();
    cluster.resume();
    target.create(&role, &mint(), &verifier, FAR).await.unwrap();
    for name in target.sweep().await.unwrap() {
        target.revoke(&name, &disposal(READER)).await.unwrap();
    }
    assert!(target.sweep().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_against_the_ca_and_the_host_name() {
    let cluster = Postgres::start(Options { tls: true });
    prepare(&cluster).await;
    let mut connection = definition(&cluster, "postgres");
    connection.tls = Tls::Verify;
    connection.ca_pem = Some(cluster.ca_pem());
    let test = async |connection: &ConnectionDefinition| {
        driver(new_vault(), connection, ACCOUNT_PASSWORD).test().await
    };
    assert!(test(&connection).await.unwrap().starts_with(char::is_numeric));
    let handshake = Err(TargetError::Unreachable(Outage::Tls));
    // No CA: the public roots did not sign it.
    let public = ConnectionDefinition { ca_pem: None, ..connection.clone() };
    assert_eq!(test(&public).await, handshake);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut foreign = rcgen::CertificateParams::default();
    foreign.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let foreign = foreign.self_signed(&key).unwrap().pem();
    let wrong = ConnectionDefinition { ca_pem: Some(foreign), ..connection.clone() };
    assert_eq!(test(&wrong).await, handshake);
    // The certificate names `localhost` and 127.0.0.1, not 127.0.0.2 nor this alias.
    let named = ConnectionDefinition { host: "localhost".into(), ..connection.clone() };
    assert!(test(&named).await.is_ok());
    let alias = ConnectionDefinition { host: "0.0.0.0".into(), ..connection.clone() };
    assert_eq!(test(&alias).await, handshake);
    // A server without TLS is not talked to in clear either, unless that is asked for by name.
    let plain = definition(Postgres::shared(), "postgres");
    for ca_pem in [None, connection.ca_pem.clone()] {
        let plain = ConnectionDefinition { tls: Tls::Verify, ca_pem, ..plain.clone() };
        assert_eq!(test(&plain).await, handshake);
    }
    // A server that refuses clear connections is not talked to in clear.
    let clear = ConnectionDefinition { tls: Tls::Off, ca_pem: None, ..connection };
    assert!(
        matches!(test(&clear).await, Err(TargetError::Refused { sqlstate, .. }) if sqlstate == "28000")
    );
}
