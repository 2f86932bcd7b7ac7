//! Revocation: whatever a credential did, and wherever an earlier attempt stopped.

use sqlx::ConnectOptions;
use strongroom::engines::database::target::{DatabaseTarget, TargetError};

use strongroom::types::TaskGroup;

use super::*;

#[tokio::test]
async fn what_a_credential_leaves_belongs_to_the_owner_in_every_database() {
    let f = Fixture::new().await;
    let second = format!("{}_2", f.database);
    data(f.cluster, &second).await;
    let credential = f.reader().await;
    for database in [&f.database, &second] {
        let mut session = f.login(&credential, database).connect().await.unwrap();
        let made = "SET ROLE NONE; CREATE TABLE work.own AS SELECT 7 AS kept; \
                    CREATE VIEW work.seen AS SELECT * FROM work.own; \
                    CREATE FUNCTION work.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                    CREATE TYPE work.kind AS ENUM ('a'); \
                    ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT SELECT ON TABLES TO PUBLIC; \
                    RESET ROLE; CREATE TABLE work.of_group ()";
        assert_eq!(state(&mut session, made).await, None);
    }
    f.revoke(&credential).await.unwrap();
    assert!(f.gone(&credential).await);
    for database in [&f.database, &second] {
        for (owned, owner) in [
            ("pg_class WHERE relname = 'own'", "relowner"),
            ("pg_class WHERE relname = 'seen'", "relowner"),
            ("pg_proc WHERE proname = 'f'", "proowner"),
            ("pg_type WHERE typname = 'kind'", "typowner"),
        ] {
            let sql = format!("SELECT {owner}::regrole FROM {owned}");
            let found = f.cluster.ask(database, &sql).await;
            assert_eq!(found.as_deref(), Some("analytics_owner"), "{owned} in {database}");
        }
        let kept = f.cluster.ask(database, "SELECT kept FROM work.own").await;
        assert_eq!(kept.as_deref(), Some("7"));
        let sql = "SELECT relowner::regrole FROM pg_class WHERE relname = 'of_group'";
        assert_eq!(f.cluster.ask(database, sql).await.as_deref(), Some("analytics_reader"));
    }
}

#[tokio::test]
async fn on_revoke_drop_takes_what_the_credential_made() {
    let f = Fixture::new().await;
    let role = r#"{"groups": ["analytics_reader"], "on_revoke": "drop"}"#;
    let credential = f.create(role).await.unwrap();
    let mut session = f.connect(&credential).await;
    assert_eq!(state(&mut session, "SET ROLE NONE; CREATE TABLE work.own ()").await, None);
    f.target.revoke(&credential.name, &disposal(role)).await.unwrap();
    assert!(f.gone(&credential).await);
    let left = "SELECT count(*) FROM pg_class WHERE relname = 'own'";
    assert_eq!(f.ask(left).await.unwrap(), "0");
    assert_eq!(f.ask("SELECT count(*) FROM facts").await.unwrap(), "1");
}

#[tokio::test]
async fn open_sessions_are_cut_also_busy_ones_and_in_other_databases() {
    let f = Fixture::new().await;
    let credential = f.reader().await;
    let mut idle = f.connect(&credential).await;
    let mut elsewhere = f.login(&credential, "postgres").connect().await.unwrap();
    let mut open = f.connect(&credential).await;
    let locked = "BEGIN; SET ROLE NONE; CREATE TABLE work.unfinished ()";
    assert_eq!(state(&mut open, locked).await, None);
    let mut busy = f.connect(&credential).await;
    let busy = TaskGroup::default().spawn(async move {
        sqlx::query("SELECT pg_sleep(600)").execute(&mut busy).await.is_err()
    });
    let bystander = f.reader().await;
    let mut untouched = f.connect(&bystander).await;
    f.revoke(&credential).await.unwrap();
    assert!(busy.await.unwrap(), "the sleeper was ended");
    for session in [&mut idle, &mut elsewhere, &mut open] {
        assert!(sqlx::query("SELECT 1").execute(session).await.is_err());
    }
    assert!(f.gone(&credential).await);
    assert!(f.login(&credential, &f.database).connect().await.is_err());
    assert_eq!(value(&mut untouched, "SELECT answer::text FROM facts").await, "42");
}

#[tokio::test]
async fn revoking_again_and_again_is_success_also_of_what_never_was() {
    let f = Fixture::new().await;
    let credential = f.reader().await;
    for _ in 0..3 {
        f.revoke(&credential).await.unwrap();
        assert!(f.gone(&credential).await);
    }
    let never = Credential { name: f.mint(), password: String::new() };
    f.revoke(&never).await.unwrap();
    let by_hand = f.reader().await;
    f.cluster.run("postgres", &format!("DROP ROLE {}", by_hand.name)).await;
    f.revoke(&by_hand).await.unwrap();
    let raced = f.reader().await;
    let (one, two, three) = tokio::join!(f.revoke(&raced), f.revoke(&raced), f.revoke(&raced));
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    assert!(f.gone(&raced).await);
}

#[tokio::test]
async fn an_interrupted_revocation_is_finished_by_the_next() {
    let f = Fixture::new().await;
    let steps = [
        "ALTER ROLE $ NOLOGIN",
        "GRANT $ TO strongroom",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '$'",
        "REASSIGN OWNED BY $ TO analytics_owner",
        "DROP OWNED BY $",
    ];
    for stop in 1..=steps.len() {
        let credential = f.reader().await;
        let mut session = f.connect(&credential).await;
        let table = format!("SET ROLE NONE; CREATE TABLE work.t{stop} ()");
        assert_eq!(state(&mut session, &table).await, None);
        for step in &steps[..stop] {
            f.cluster.run(&f.database, &step.replace('$', credential.name.as_str())).await;
        }
        f.revoke(&credential).await.unwrap();
        assert!(f.gone(&credential).await, "stopped after {stop} steps");
        let owner = format!("SELECT relowner::regrole FROM pg_class WHERE relname = 't{stop}'");
        assert_eq!(f.ask(&owner).await.unwrap(), "analytics_owner");
    }
}

#[tokio::test]
async fn a_database_that_the_account_cannot_enter_is_named_until_it_can() {
    let f = Fixture::new().await;
    let closed = format!("{}_closed", f.database);
    data(f.cluster, &closed).await;
    let only = format!(
        "REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC; \
         CREATE ROLE \"{closed}\"; GRANT \"{closed}\" TO strongroom WITH ADMIN OPTION; \
         GRANT CONNECT ON DATABASE {closed} TO \"{closed}\"; \
         ALTER ROLE strongroom IN DATABASE {closed} SET role TO 'none'"
    );
    f.cluster.run("postgres", &only).await;
    // Nothing owned there: it need not be entered.
    let harmless = f.reader().await;
    f.revoke(&harmless).await.unwrap();
    let credential = f.reader().await;
    let owned = format!("CREATE TABLE kept (); ALTER TABLE kept OWNER TO {}", credential.name);
    f.cluster.run(&closed, &owned).await;
    f.cluster.run("postgres", &format!("REVOKE \"{closed}\" FROM strongroom")).await;
    let error = f.revoke(&credential).await.unwrap_err();
    assert_eq!(error, TargetError::Leftover { database: closed.clone() });
    assert!(!error.to_string().contains(&closed), "the client learns no names of databases");
    assert!(f.login(&credential, &f.database).connect().await.is_err(), "logins ended first");
    assert!(f.target.exists(&credential.name).await.unwrap());
    let opened = format!("GRANT CONNECT ON DATABASE {closed} TO strongroom");
    f.cluster.run("postgres", &opened).await;
    f.revoke(&credential).await.unwrap();
    assert!(f.gone(&credential).await);
}

#[tokio::test]
async fn what_others_built_on_a_credentials_table_stops_a_drop_and_survives() {
    let f = Fixture::new().await;
    let role = r#"{"groups": ["analytics_reader"], "on_revoke": "drop"}"#;
    let credential = f.create(role).await.unwrap();
    let mut session = f.connect(&credential).await;
    assert_eq!(state(&mut session, "SET ROLE NONE; CREATE TABLE work.base ()").await, None);
    f.cluster.run(&f.database, "CREATE VIEW built AS SELECT * FROM work.base").await;
    let error = f.target.revoke(&credential.name, &Disposal::Drop).await.unwrap_err();
    assert!(matches!(&error, TargetError::Refused { sqlstate, .. } if sqlstate == "2BP01"));
    assert!(f.login(&credential, &f.database).connect().await.is_err(), "logins ended first");
    f.cluster.run(&f.database, "DROP VIEW built").await;
    f.target.revoke(&credential.name, &Disposal::Drop).await.unwrap();
    assert!(f.gone(&credential).await);
}
