//! Database credentials at the real socket, with a real target, on both stores.

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use strongroom::keyring::FinalTry;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    EntryFilter, GetDatabaseRoleRequest, ListConnectionsRequest, ListDatabaseRolesRequest,
    ListEntriesRequest, PutConnectionRequest, PutDatabaseRoleRequest, RemoveConnectionRequest,
    RemoveDatabaseRoleRequest, RevokeLeaseRequest,
};
use strongroom::server::Occasion;
use strongroom::types::TaskGroup;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::logins;
use crate::support::node::{BACKENDS, Backend, pin};
use crate::support::postgres::{Options, Postgres};
use crate::support::target::{Proxy, Wire, World, ask, issue, log_in, outcome, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_reads_cannot_write_and_is_gone_when_its_lease_ends() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let issued = w.issue().await.unwrap();
        assert!(issued.username.contains("_nightly_etl_"), "{}", issued.username);
        assert_eq!((issued.password.len(), issued.replayed), (43, false));
        assert!(issued.dsn.starts_with(&format!("postgresql://{}:", issued.username)));
        assert_eq!((issued.tls.as_str(), issued.database.as_str()), ("off", &*w.database));
        let mut session = log_in(&issued, w.port).await.unwrap();
        outcome(&mut session, "SELECT answer FROM facts").await.unwrap();
        let refused = outcome(&mut session, "INSERT INTO facts VALUES (1)").await;
        assert_eq!(refused, Err("42501".to_owned()));
        let lease = w.lease(&issued.lease_id).await;
        assert_eq!((lease.state.as_str(), lease.identity.as_str()), ("active", "nightly-etl"));
        assert_eq!((&lease.accessor, &lease.end_reason), (&issued.username, &String::new()));
        assert_eq!(lease.resource, "database/analytics/reader");
        assert_eq!(w.roles(Postgres::shared()).await, std::slice::from_ref(&issued.username));
        w.advance(601);
        w.all_over().await;
        assert_eq!(w.roles(Postgres::shared()).await, Vec::<String>::new());
        outcome(&mut session, "SELECT 1").await.expect_err("the session is cut");
        let lease = w.lease(&issued.lease_id).await;
        assert_eq!((lease.end_reason.as_str(), lease.next_try_at_ms), ("expired", 0));
        assert!(lease.ended_at_ms >= lease.expires_at_ms);
        assert_eq!(lease.retry_reason, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_tested_before_it_is_kept_and_its_password_goes_nowhere_else() {
    let w = World::new(Backend::Sqlite).await;
    let mut client = w.database_client();
    let put = async |request: PutConnectionRequest| {
        w.database_client().put_connection(request).await.map(tonic::Response::into_inner)
    };
    assert!(!put(w.connection()).await.unwrap().changed, "a repetition changes nothing");
    let kept = PutConnectionRequest { password: String::new(), ..w.connection() };
    assert!(!put(kept.clone()).await.unwrap().changed, "an empty password keeps the stored one");
    let shown = put(kept.clone()).await.unwrap().connection.unwrap();
    assert!(shown.server_version.starts_with(char::is_numeric), "{}", shown.server_version);
    assert_eq!((shown.created_by.as_str(), shown.changed_by.as_str()), ("admin", "admin"));
    for (code, wrong) in [
        (
            Code::FailedPrecondition,
            PutConnectionRequest { password: "no".into(), ..w.connection() },
        ),
        (Code::Unavailable, PutConnectionRequest { port: 1, ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { port: 1, ..kept.clone() }),
        (Code::InvalidArgument, PutConnectionRequest { username: "x".into(), ..kept.clone() }),
        (Code::InvalidArgument, PutConnectionRequest { host: "localhost".into(), ..kept.clone() }),
        (Code::InvalidArgument, PutConnectionRequest { tls: "verify-full".into(), ..kept.clone() }),
        (Code::InvalidArgument, PutConnectionRequest { tls: "prefer".into(), ..w.connection() }),
        // The target has no TLS, which is on unless it is turned off by name.
        (Code::Unavailable, PutConnectionRequest { tls: String::new(), ..w.connection() }),
        (Code::Unavailable, PutConnectionRequest { tls: "verify-full".into(), ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { engine: "mysql".into(), ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { host: "a'b".into(), ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { database: "d\0".into(), ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { password: "p\0".into(), ..w.connection() }),
        (Code::InvalidArgument, PutConnectionRequest { port: 65_536, ..w.connection() }),
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(put(wrong).await.unwrap_err().code(), code, "{shown}");
    }
    let listed = client.list_connections(ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().connections, [shown], "nothing of it was kept");
    w.issue().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_run_on_the_target_is_told_and_not_kept() {
    let w = World::new(Backend::Sqlite).await;
    let mut client = w.database_client();
    assert!(!client.put_role(w.role()).await.unwrap().into_inner().changed);
    let named =
        |role: PutDatabaseRoleRequest| PutDatabaseRoleRequest { name: "bad".into(), ..role };
    let statement = |text: &str| PutDatabaseRoleRequest {
        statements: vec![text.to_owned()],
        member_of: vec![],
        owner_role: String::new(),
        drop_owned: true,
        ..named(w.role())
    };
    for (wrong, said) in [
        (statement("GRANT SELECT ON nowhere TO {{name}}"), "nowhere"),
        (statement("GRANT SELECT ON facts TO {{who}}"), "{{"),
        (statement("GRANT SELECT ON facts TO {{name}}; DROP TABLE facts"), "one statement"),
        (statement("GRANT SELECT ON facts TO {{name}}\0"), "NUL"),
        (PutDatabaseRoleRequest { member_of: vec!["nobody".into()], ..named(w.role()) }, "nobody"),
        (PutDatabaseRoleRequest { owner_role: String::new(), ..named(w.role()) }, "owner_role"),
        (PutDatabaseRoleRequest { max_ttl_s: 2_592_001, ..named(w.role()) }, "30 days"),
        (PutDatabaseRoleRequest { default_ttl_s: -1, ..named(w.role()) }, "default_ttl_s"),
        (PutDatabaseRoleRequest { scram_iterations: 5_000, ..named(w.role()) }, "scram"),
    ] {
        let refused = client.put_role(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{said}: {refused}");
        assert!(refused.message().contains(said), "{said}: {refused}");
    }
    let elsewhere = PutDatabaseRoleRequest { connection: "nowhere".into(), ..w.role() };
    assert_eq!(client.put_role(elsewhere).await.unwrap_err().code(), Code::NotFound);
    let roles = client.list_roles(ListDatabaseRolesRequest::default()).await.unwrap().into_inner();
    assert_eq!(roles.roles.len(), 1);
    let request = GetDatabaseRoleRequest { connection: "analytics".into(), name: "reader".into() };
    let shown = client.get_role(request).await.unwrap().into_inner().role.unwrap();
    assert_eq!(roles.roles, [shown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_canonical_are_refused_everywhere_and_change_nothing() {
    let w = World::new(Backend::Sqlite).await;
    let mut client = w.database_client();
    for bad in ["", "a'b", "a\"b", "a;--", "a\0", "A", "a/b", "..", "*", "a ", "a%2fb", "é"] {
        let code = |refused: tonic::Status| assert_eq!(refused.code(), Code::InvalidArgument);
        let name = bad.to_owned();
        code(
            client
                .put_connection(PutConnectionRequest { name, ..w.connection() })
                .await
                .unwrap_err(),
        );
        let name = bad.to_owned();
        code(client.put_role(PutDatabaseRoleRequest { name, ..w.role() }).await.unwrap_err());
        let mut request = ask();
        request.role = bad.to_owned();
        code(issue(&w.etl, request).await.unwrap_err());
        let mut request = ask();
        request.connection = bad.to_owned();
        code(issue(&w.etl, request).await.unwrap_err());
    }
    assert!(w.leases().await.is_empty() && w.roles(Postgres::shared()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_cut_to_what_role_grant_and_identity_allow() {
    let w = World::new(Backend::Sqlite).await;
    let mut request = ask();
    for (ttl_s, lives) in
        [(0, Some(600)), (1, Some(1)), (3_600, Some(3_600)), (3_601, None), (-1, None)]
    {
        request.ttl_s = ttl_s;
        match (issue(&w.etl, request.clone()).await, lives) {
            (Ok(issued), Some(lives)) => {
                let began = w.lease(&issued.lease_id).await.created_at_ms;
                assert_eq!(issued.expires_at_ms - began, lives * 1_000);
                assert_eq!(issued.max_expires_at_ms - began, 3_600_000);
            }
            (Err(refused), None) => assert_eq!(refused.code(), Code::InvalidArgument),
            (other, _) => panic!("{ttl_s}: {other:?}"),
        }
    }
    // A grant that allows less, on a role of its own.
    let other = PutDatabaseRoleRequest { name: "short".into(), ..w.role() };
    w.database_client().put_role(other).await.unwrap();
    w.grant("nightly-etl", |mut grant| {
        grant.resource = "database/analytics/short".into();
        grant.ttl_s = 60;
        grant.conditions =
            Some(strongroom::proto::Conditions { max_ttl_s: 90, ..Default::default() });
        grant
    })
    .await
    .unwrap();
    request.role = "short".into();
    request.ttl_s = 91;
    assert_eq!(issue(&w.etl, request.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    request.ttl_s = 90;
    let issued = issue(&w.etl, request).await.unwrap();
    let began = w.lease(&issued.lease_id).await.created_at_ms;
    assert!(issued.expires_at_ms - began <= 60_000, "not beyond the grant itself");
    assert_eq!(issued.max_expires_at_ms, issued.expires_at_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_the_refusal_is_the_same_whatever_exists() {
    let w = World::new(Backend::Sqlite).await;
    let stranger = logins::machine(&w.f, "stranger").await;
    let mut said = Vec::new();
    for (connection, role) in [("analytics", "reader"), ("analytics", "none"), ("none", "none")] {
        let mut request = ask();
        (request.connection, request.role) = (connection.into(), role.into());
        let refused = issue(&stranger, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        said.push(refused.message().to_owned());
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    // An administrator needs a grant as well, and machines administer nothing.
    assert_eq!(issue(&w.admin, ask()).await.unwrap_err().code(), Code::PermissionDenied);
    let mut client =
        strongroom::proto::database_service_client::DatabaseServiceClient::new(w.etl.clone());
    let refused = client.put_connection(w.connection()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_what_was_made_and_never_the_secret_and_may_replace_it_for_a_minute() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut request = ask();
        request.idempotency_key = "0123456789abcdef0123456789abcdef".into();
        let first = issue(&w.etl, request.clone()).await.unwrap();
        let again = issue(&w.etl, request.clone()).await.unwrap();
        assert!(again.replayed && again.password.is_empty() && again.dsn.is_empty());
        assert_eq!((&again.lease_id, &again.username), (&first.lease_id, &first.username));
        assert_eq!(again.expires_at_ms, first.expires_at_ms);
        let mut other = request.clone();
        other.ttl_s = 5;
        assert_eq!(issue(&w.etl, other).await.unwrap_err().code(), Code::InvalidArgument);
        request.replace = true;
        let second = issue(&w.etl, request.clone()).await.unwrap();
        assert!(!second.replayed && second.lease_id != first.lease_id);
        until("the first is over", async || w.lease(&first.lease_id).await.state == "revoked")
            .await;
        assert_eq!(w.roles(Postgres::shared()).await, std::slice::from_ref(&second.username));
        log_in(&second, w.port).await.unwrap().close().await.unwrap();
        w.advance(61);
        let late = issue(&w.etl, request.clone()).await.unwrap();
        assert!(late.replayed && late.password.is_empty() && late.lease_id == second.lease_id);
        request.idempotency_key = String::new();
        assert_eq!(issue(&w.etl, request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_each_get_their_own() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let etl = w.etl.clone();
            tasks.spawn(async move { issue(&etl, ask()).await.unwrap().username });
        }
        let mut made = tasks.join_all().await;
        made.sort();
        made.dedup();
        assert_eq!(w.roles(Postgres::shared()).await, made);
        assert_eq!(made.len(), 16);
        w.advance(601);
        w.all_over().await;
        assert!(w.roles(Postgres::shared()).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_hang_up_leave_a_lease_or_nothing() {
    let w = World::new(Backend::Sqlite).await;
    for wait_ms in 0..40 {
        let etl = w.etl.clone();
        let call = TaskGroup::default().spawn(async move { issue(&etl, ask()).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        call.abort();
    }
    until("nothing is pending", async || {
        w.leases().await.iter().all(|lease| ["active", "revoked"].contains(&&*lease.state))
    })
    .await;
    let active = w.leases().await.into_iter().filter(|lease| lease.state == "active");
    let mut names: Vec<_> = active.map(|lease| lease.accessor).collect();
    names.sort();
    assert_eq!(w.roles(Postgres::shared()).await, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_where_they_were_made_when_the_connection_goes_elsewhere() {
    let w = World::new(Backend::Sqlite).await;
    let old = w.issue().await.unwrap();
    let elsewhere = Postgres::start(Options::default());
    let tag = &w.tag;
    elsewhere
        .run(
            "postgres",
            &format!(
                "CREATE ROLE account_{tag} LOGIN SUPERUSER PASSWORD 'other'; \
                 CREATE ROLE reader_{tag}; CREATE ROLE owner_{tag}"
            ),
        )
        .await;
    let moved = PutConnectionRequest {
        port: elsewhere.port().into(),
        database: "postgres".into(),
        password: "other".into(),
        ..w.connection()
    };
    let moved = w.database_client().put_connection(moved).await.unwrap().into_inner();
    assert!(moved.changed);
    let role = PutDatabaseRoleRequest { owner_role: String::new(), drop_owned: true, ..w.role() };
    assert!(w.database_client().put_role(role).await.unwrap().into_inner().changed);
    let new = w.issue().await.unwrap();
    assert_eq!(new.port, i32::from(elsewhere.port()));
    assert_eq!(w.roles(&elsewhere).await, [new.username]);
    assert_eq!(w.roles(Postgres::shared()).await, [old.username]);
    w.advance(601);
    w.all_over().await;
    assert!(w.roles(&elsewhere).await.is_empty());
    assert!(w.roles(Postgres::shared()).await.is_empty(), "ended at the old account");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_removed_only_when_nothing_uses_it_and_its_password_is_forgotten() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let mut client = w.database_client();
        let issued = w.issue().await.unwrap();
        let connection = || RemoveConnectionRequest { name: "analytics".into() };
        let role =
            || RemoveDatabaseRoleRequest { connection: "analytics".into(), name: "reader".into() };
        let told = client.remove_connection(connection()).await.unwrap_err();
        assert_eq!(
            (told.code(), told.message().contains("roles")),
            (Code::FailedPrecondition, true)
        );

        let was = client.remove_role(role()).await.unwrap().into_inner().role.unwrap();
        assert_eq!((was.name.as_str(), was.member_of.len()), ("reader", 1));
        assert_eq!(client.remove_role(role()).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(w.issue().await.unwrap_err().code(), Code::NotFound);
        let get = GetDatabaseRoleRequest { connection: "analytics".into(), name: "reader".into() };
        assert_eq!(client.get_role(get).await.unwrap_err().code(), Code::NotFound);
        let listed = client.list_roles(ListDatabaseRolesRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().roles, []);
        assert_eq!(w.lease(&issued.lease_id).await.state, "active", "it goes on to its own end");

        for neighbour in ["an", "analytics-2", "analytics.old", "analytics0"] {
            let name = || neighbour.to_owned();
            let put = PutConnectionRequest { name: name(), ..w.connection() };
            client.put_connection(put).await.unwrap();
            let remove = RemoveConnectionRequest { name: name() };
            client.remove_connection(remove).await.expect("the lease is not its own");
        }
        let told = client.remove_connection(connection()).await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition);
        assert!(told.message().contains("leases"), "{told}");
        let revoke = RevokeLeaseRequest { id: issued.lease_id.clone(), reason: String::new() };
        w.lease_client().revoke_lease(revoke).await.unwrap();
        assert!(w.roles(Postgres::shared()).await.is_empty(), "ended after its role was removed");

        let was = client.remove_connection(connection()).await.unwrap().into_inner();
        let was = was.connection.unwrap();
        assert_eq!((was.name.as_str(), was.max_connections), ("analytics", 10));
        let sessions = format!(
            "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'account_{}'",
            w.tag
        );
        until("its connections are closed", async || {
            Postgres::shared().ask("postgres", &sessions).await.unwrap() == "0"
        })
        .await;
        assert_eq!(
            client.remove_connection(connection()).await.unwrap_err().code(),
            Code::NotFound
        );
        let listed = client.list_connections(ListConnectionsRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().connections, []);
        assert_eq!(client.put_role(w.role()).await.unwrap_err().code(), Code::NotFound);
        let kept = PutConnectionRequest { password: String::new(), ..w.connection() };
        let told = client.put_connection(kept).await.unwrap_err();
        assert_eq!(told.code(), Code::InvalidArgument, "its password was forgotten: {told}");

        let more = PutConnectionRequest { max_connections: 3, ..w.connection() };
        let again = client.put_connection(more).await.unwrap().into_inner();
        let (changed, again) = (again.changed, again.connection.unwrap());
        assert!(changed);
        assert_eq!((again.id, again.max_connections), (was.id, 3));
        assert!(client.put_role(w.role()).await.unwrap().into_inner().changed);
        w.issue().await.unwrap();
        for max_connections in [-1, 65] {
            let wrong = PutConnectionRequest { max_connections, ..w.connection() };
            let told = client.put_connection(wrong).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{max_connections}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_another_node_kept_are_closed_when_theirs_is_removed_or_changed() {
    let w = World::new(Backend::Postgres).await;
    let (other, login) = (w.f.second_node().await, logins::login(&w.f, "nightly-etl").await);
    let etl = w.f.connect_to(&other, &login).await;
    let sessions =
        format!("SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'account_{}'", w.tag);
    let kept = async || Postgres::shared().ask("postgres", &sessions).await.unwrap() != "0";
    let closed = async || until("its connections are closed", async || !kept().await).await;
    for remove in [false, true] {
        let issued = issue(&etl, ask()).await.unwrap();
        let revoke = RevokeLeaseRequest { id: issued.lease_id, reason: String::new() };
        LeaseServiceClient::new(etl.clone()).revoke_lease(revoke).await.unwrap();
        assert!(kept().await, "{remove}");
        // Nobody asks the other node again, and its own time to rest is longer than this waits.
        let (began, mut client) = (Instant::now(), w.database_client());
        if remove {
            let (connection, name) = ("analytics".to_owned(), "reader".to_owned());
            let role = RemoveDatabaseRoleRequest { connection: connection.clone(), name };
            client.remove_role(role).await.unwrap();
            client.remove_connection(RemoveConnectionRequest { name: connection }).await.unwrap();
        } else {
            let more = PutConnectionRequest { max_connections: 3, ..w.connection() };
            client.put_connection(more).await.unwrap();
        }
        closed().await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_closes_the_connections_to_targets_and_unsealing_opens_them_again() {
    let w = World::new(Backend::Sqlite).await;
    w.issue().await.unwrap();
    let sessions =
        format!("SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'account_{}'", w.tag);
    let kept = async || Postgres::shared().ask("postgres", &sessions).await.unwrap() != "0";
    assert!(kept().await);
    let (began, life) = (Instant::now(), &w.f.node().life);
    life.seal("a test").await.unwrap();
    until("its connections are closed", async || !kept().await).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    life.unseal(pin(), FinalTry::Refuse, Occasion::Start).await.unwrap();
    w.issue().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_decrypted_is_on_the_record_though_the_target_failed_or_nobody_waited()
{
    let proxy = Proxy::to(Postgres::shared().port()).await;
    let w = World::over(Backend::Sqlite, Postgres::shared(), proxy.port).await;
    let stored = PutConnectionRequest { password: String::new(), ..w.connection() };
    let failed = async || {
        w.f.node().vault.integrate().await.unwrap();
        let filter = EntryFilter { action: "database.connect".into(), ..EntryFilter::default() };
        let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let listed = RecordServiceClient::new(w.admin.clone()).list_entries(request).await;
        let mut found = listed.unwrap().into_inner().entries;
        found.retain(|entry| entry.outcome != "ok");
        found
    };
    let nowhere = PutConnectionRequest { database: "nowhere".into(), ..stored.clone() };
    w.database_client().put_connection(nowhere).await.unwrap_err();
    assert_eq!(failed().await.len(), 1);
    proxy.set(Wire::HoldsRequests);
    let call = async { w.database_client().put_connection(stored).await };
    let cut = tokio::time::timeout(Duration::from_millis(500), call).await;
    assert!(cut.is_err(), "the target keeps it waiting");
    proxy.set(Wire::Cut);
    until("it is on the record", async || failed().await.len() == 2).await;
    for entry in failed().await {
        let decrypted = entry.keys.iter().any(|key| key.purpose == "decrypt");
        assert!(decrypted, "{entry:?}");
    }
}
