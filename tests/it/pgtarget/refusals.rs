//! What must be refused, and what must not break out of its quotes.

use strongroom::engines::database::target::{DatabaseTarget, TargetError};

use super::*;

#[tokio::test]
async fn names_with_quotes_and_semicolons_stay_names() {
    let f = Fixture::new().await;
    // One cluster serves all tests: these names carry the vault's id.
    let tag = &f.vault.to_string()[..8];
    let group = format!("we\"ird'; DROP TABLE facts; -- {tag}");
    let schema = format!("s\"'; {tag}");
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql = format!(
        "CREATE ROLE {group}; GRANT {group} TO strongroom WITH ADMIN OPTION; \
         CREATE SCHEMA {schema} AUTHORIZATION {group}; \
         GRANT {group} TO analytics_owner",
        group = quote(&group),
        schema = quote(&schema)
    );
    f.cluster.run(&f.database, &sql).await;
    let role = serde_json::json!({"groups": [group], "owner_role": group}).to_string();
    f.target.check_role(&parse(&role)).await.unwrap();
    let credential = f.create(&role).await.unwrap();
    let mut session = f.connect(&credential).await;
    assert_eq!(value(&mut session, "SELECT current_user::text").await, group);
    let made = format!("CREATE TABLE {}.\"t\"\"';\" ()", quote(&schema));
    assert_eq!(state(&mut session, &made).await, None);
    f.target.revoke(&credential.name, &disposal(&role)).await.unwrap();
    assert!(f.gone(&credential).await);
    assert_eq!(f.ask("SELECT count(*) FROM facts").await.unwrap(), "1", "nothing broke out");

    let statement = format!("GRANT USAGE ON SCHEMA {} TO {{{{name}}}}", quote(&schema));
    let role = serde_json::json!({"statements": [statement], "on_revoke": "drop"}).to_string();
    f.target.check_role(&parse(&role)).await.unwrap();

    for bad in ["a\0b", "a\nb", ""] {
        let role = serde_json::json!({"groups": [bad], "on_revoke": "drop"});
        assert!(serde_json::from_value::<RoleDefinition>(role).is_err(), "{bad:?}");
    }
    for bad in ["etl\"; DROP", "etl'", "etl;x", "e\0tl", "ETL"] {
        assert!(bad.parse::<strongroom::types::IdentityName>().is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn roles_of_another_vault_are_never_touched() {
    let f = Fixture::new().await;
    let other = Fixture::new().await;
    let foreign = other.reader().await;
    let (role, verifier) = (parse(READER), verifier("p", 1));
    let refused = || Err(TargetError::NotOurs);
    assert_eq!(f.target.create(&role, &other.mint(), &verifier, FAR).await, refused());
    assert_eq!(f.target.extend(&foreign.name, UnixMillis(0)).await, refused());
    assert_eq!(f.target.exists(&foreign.name).await, Err(TargetError::NotOurs));
    assert_eq!(f.revoke(&foreign).await, refused());
    assert!(f.target.sweep().await.unwrap().is_empty());
    assert_eq!(RoleName::parse(f.vault, foreign.name.as_str()), Err(TargetError::NotOurs));
    assert_eq!(RoleName::parse(f.vault, "postgres"), Err(TargetError::NotOurs));
    other.connect(&foreign).await;
    // A role that copies our prefix but not the whole grammar is somebody's own.
    let copied = f.mint().to_string().replace("nightly", "NIGHTLY");
    f.cluster.run("postgres", &format!("CREATE ROLE \"{copied}\"")).await;
    assert!(f.target.sweep().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_role_that_the_target_does_not_run_is_told_when_it_is_checked() {
    let f = Fixture::new().await;
    let tag = &f.vault.to_string()[..8];
    f.cluster.run("postgres", &format!("CREATE ROLE \"stranger {tag}\"")).await;
    let stranger = format!(r#"{{"groups": ["analytics_reader"], "owner_role": "stranger {tag}"}}"#);
    for (role, why) in [
        (
            r#"{"statements": ["GRANT SELEKT ON facts TO {{name}}"], "on_revoke": "drop"}"#,
            "cannot run statement 1: unrecognized privilege type",
        ),
        (
            r#"{"statements": ["SELECT 1", "GRANT SELECT facts TO {{name}}"], "on_revoke": "drop"}"#,
            "cannot run statement 2: syntax error",
        ),
        (
            r#"{"statements": ["GRANT SELECT ON nothing TO {{name}}"], "on_revoke": "drop"}"#,
            "relation \"nothing\" does not exist",
        ),
        (
            r#"{"statements": ["CREATE DATABASE x TEMPLATE {{name}}"], "on_revoke": "drop"}"#,
            "cannot run inside a transaction block",
        ),
        (
            r#"{"statements": ["ALTER ROLE {{name}} VALID UNTIL 'infinity'"], "on_revoke": "drop"}"#,
            "until {{expiration}}",
        ),
        (
            r#"{"statements": ["CREATE ROLE {{name}} PASSWORD {{password}} VALID UNTIL {{expiration}}"], "on_revoke": "drop"}"#,
            "may log in",
        ),
        (
            r#"{"statements": ["CREATE ROLE {{name}} SUPERUSER LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}}"], "on_revoke": "drop"}"#,
            "must be superuser",
        ),
        (r#"{"groups": ["no such; group"], "on_revoke": "drop"}"#, "\"no such; group\" does not"),
        (
            r#"{"groups": ["analytics_reader"], "owner_role": "nobody"}"#,
            "owner_role \"nobody\" does not exist",
        ),
        (&stranger, "no member of owner_role"),
    ] {
        let role = parse(role);
        let Err(TargetError::Rejected(said)) = f.target.check_role(&role).await else {
            panic!("not rejected: {role:?}");
        };
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("SCRAM"), "{said}");
    }
    assert!(f.target.sweep().await.unwrap().is_empty(), "no trial leaves anything behind");
    f.target.check_role(&parse(READER)).await.unwrap();
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing_and_says_nothing_secret() {
    let f = Fixture::new().await;
    let name = f.mint();
    let role =
        parse(r#"{"statements": ["GRANT SELECT ON nothing TO {{name}}"], "on_revoke": "drop"}"#);
    let error = f.target.create(&role, &name, &verifier("p", 1), FAR).await.unwrap_err();
    let told = error.to_string();
    assert_eq!(told, "the target database refused to create the role (SQLSTATE 42P01)");
    assert!(!f.target.exists(&name).await.unwrap());
    for bad in ["hunter2", "x' SUPERUSER --", "SCRAM-SHA-256$1:a$b:c'"] {
        let bad = SecretBytes::new(bad.as_bytes().to_vec());
        let error = f.target.create(&parse(READER), &name, &bad, FAR).await.unwrap_err();
        assert!(matches!(error, TargetError::Invalid(_)), "{error:?}");
    }
    assert!(!f.target.exists(&name).await.unwrap());
}

#[tokio::test]
async fn a_wrong_account_is_refused_and_its_password_shown_nowhere() {
    let f = Fixture::new().await;
    let connection = definition(f.cluster, &f.database);
    let wrong = driver(f.vault, &connection, "canary-password");
    let error = wrong.test().await.unwrap_err();
    assert!(matches!(&error, TargetError::Refused { sqlstate, .. } if sqlstate == "28P01"));
    assert!(!format!("{wrong:?} {error:?} {error}").contains("canary"));

    let user = format!("weak_{}", &f.vault.to_string()[..8]);
    f.cluster.run("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD 'weak'")).await;
    let weak = ConnectionDefinition { username: user, ..connection };
    let lacking = TargetError::Rejected("the management account lacks CREATEROLE".into());
    assert_eq!(driver(f.vault, &weak, "weak").test().await, Err(lacking));
}
