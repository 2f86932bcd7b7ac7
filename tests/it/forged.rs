//! Rows edited or inserted by hand, met by lists and shows at the real socket: refused as an alarm
//! that names the row to whoever may look, and says nothing of it to others.

use std::collections::BTreeSet;

use prost::Message as _;
use strongroom::engines::identities::Whoami;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, CreateGroupRequest, Entry, EntryFilter, ErrorInfo,
    GetCertificateRoleRequest, GetDatabaseRoleRequest, GetGrantRequest, GetGroupRequest,
    GetIdentityRequest, ListEntriesRequest, PutCertificateRoleRequest, RpcStatus,
    SignCertificateRequest, SubjectNames,
};
use strongroom::store::Location;
use strongroom::types::Caller;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::matrix::wire::send;
use crate::support::logins::{fingerprint, human, login, register};
use crate::support::node::{Backend, csr};
use crate::support::target::World;

/// A hand in the embedded store.
fn by_hand(w: &World, sql: &str) {
    store(w).execute_batch(sql).expect(sql);
}

fn look(w: &World, sql: &str) -> String {
    store(w).query_row(sql, [], |row| row.get(0)).expect(sql)
}

fn store(w: &World) -> rusqlite::Connection {
    let Location::Sqlite { path, .. } = &w.f.parts.location else { panic!("not embedded") };
    let store = rusqlite::Connection::open(path).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    store
}

fn reason(status: &Status) -> String {
    let details = RpcStatus::decode(status.details()).unwrap().details;
    ErrorInfo::decode(details[0].value.as_slice()).unwrap().reason
}

/// A vault with at least one row in every table that is listed or shown.
async fn world() -> World {
    let w = World::new(Backend::Sqlite).await;
    w.issue().await.unwrap();
    let role = PutCertificateRoleRequest {
        name: "etl".into(),
        allowed_dns: vec!["etl.test".into()],
        ..Default::default()
    };
    PkiServiceClient::new(w.admin.clone()).put_role(role).await.unwrap();
    let sign =
        |grant| AddGrantRequest { action: "pki.sign".into(), resource: "pki/etl".into(), ..grant };
    w.grant("nightly-etl", sign).await.unwrap();
    let request = SignCertificateRequest {
        role: "etl".into(),
        csr_pem: csr().1,
        names: Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() }),
        ..Default::default()
    };
    PkiServiceClient::new(w.etl.clone()).sign_certificate(request).await.unwrap();
    let mut groups = GroupServiceClient::new(w.admin.clone());
    let (name, purpose) = ("etl".to_owned(), "tests".to_owned());
    let group = CreateGroupRequest { name, purpose, ..Default::default() };
    groups.create_group(group).await.unwrap();
    let member = AddMemberRequest { group: "etl".into(), identity: "nightly-etl".into() };
    groups.add_member(member).await.unwrap();
    w
}

async fn refused(caller: &Channel, rpc: &str, message: &[u8]) -> Status {
    let refused = send(caller.clone(), rpc, message.to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{rpc}: {refused}");
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_or_a_show_over_an_edited_row_is_an_alarm_that_names_it() {
    let w = world().await;
    let name = || "etl".to_owned();
    // Not the caller's own: what it is by, it may be asked for at any moment.
    let group = GetGroupRequest { name: name(), ..Default::default() };
    let role = GetDatabaseRoleRequest { connection: "analytics".into(), name: "reader".into() };
    let etl = GetIdentityRequest { name: "nightly-etl".into() };
    let grant = GetGrantRequest { id: look(&w, "SELECT id FROM grants ORDER BY id LIMIT 1") };
    let certificate_role = GetCertificateRoleRequest { name: name() };
    let (all, lists) = (Vec::new(), "ORDER BY id LIMIT 1");
    for (table, column, which, rpc, message) in [
        ("grants", "changed_at", lists, "GrantService/ListGrants", all.clone()),
        ("grants", "seal_version", lists, "GrantService/ListGrants", all.clone()),
        ("grants", "changed_at", lists, "GrantService/GetGrant", grant.encode_to_vec()),
        (
            "identities",
            "changed_at",
            "WHERE name = 'nightly-etl'",
            "IdentityService/ListIdentities",
            all.clone(),
        ),
        (
            "identities",
            "changed_at",
            "WHERE name = 'nightly-etl'",
            "IdentityService/GetIdentity",
            etl.encode_to_vec(),
        ),
        (
            "groups",
            "changed_at",
            "WHERE name = 'etl'",
            "GroupService/GetGroup",
            group.encode_to_vec(),
        ),
        (
            "members",
            "changed_at",
            "WHERE group_id = (SELECT id FROM groups WHERE name = 'etl')",
            "GroupService/GetGroup",
            group.encode_to_vec(),
        ),
        ("db_connections", "changed_at", lists, "DatabaseService/ListConnections", all.clone()),
        ("db_targets", "tested_at", lists, "DatabaseService/ListConnections", all.clone()),
        ("db_roles", "changed_at", lists, "DatabaseService/ListRoles", all.clone()),
        ("db_roles", "changed_at", lists, "DatabaseService/GetRole", role.encode_to_vec()),
        ("pki_roles", "changed_at", lists, "PkiService/ListRoles", all.clone()),
        ("pki_roles", "changed_at", lists, "PkiService/GetRole", certificate_role.encode_to_vec()),
        (
            "credentials",
            "issued_at",
            "WHERE kind = 'certificate'",
            "PkiService/ListCertificates",
            all.clone(),
        ),
        ("credentials", "issued_at", "WHERE kind = 'lease'", "LeaseService/ListLeases", all),
    ] {
        let id = look(&w, &format!("SELECT id FROM {table} {which}"));
        by_hand(&w, &format!("UPDATE {table} SET {column} = {column} + 1 WHERE id = '{id}'"));
        let alarm = refused(&w.admin, rpc, &message).await;
        by_hand(&w, &format!("UPDATE {table} SET {column} = {column} - 1 WHERE id = '{id}'"));
        assert_eq!(reason(&alarm), "TAMPERED", "{rpc} {table}");
        let named = format!("row {id} of table {table} is not what was sealed");
        assert!(alarm.message().starts_with(&named), "{rpc} {table}: {alarm}");
        assert!(alarm.message().contains("alarm"), "{alarm}");
        send(w.admin.clone(), rpc, message).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_grant_is_named_to_an_administrator_and_to_nobody_else() {
    let w = World::new(Backend::Sqlite).await;
    let dave = human(&w.f, "dave").await;
    let columns = "subject, subject_is_group, action, resource, conditions, reason, ticket, \
                   expires_at, active, created_at, created_by, changed_at, changed_by, \
                   row_version, seal_version, mac";
    for id in ["ffffffff-0000-7000-8000-0000000000ff", "zz\u{1b}[2J"] {
        by_hand(
            &w,
            &format!(
                "INSERT INTO grants (id, {columns}) SELECT '{id}', {columns} FROM grants LIMIT 1"
            ),
        );
        let alarm = refused(&w.admin, "GrantService/ListGrants", &[]).await;
        assert_eq!(reason(&alarm), "TAMPERED");
        let named = id.chars().all(|c| c.is_ascii_graphic());
        assert_eq!(alarm.message().contains(id), named, "{alarm}");
        assert!(alarm.message().contains("of table grants"), "{alarm}");
        let get = GetGrantRequest { id: id.to_owned() }.encode_to_vec();
        if named {
            let alarm = refused(&w.admin, "GrantService/GetGrant", &get).await;
            assert!(alarm.message().contains(id), "{alarm}");
            let veiled = refused(&dave, "GrantService/GetGrant", &get).await;
            assert!(!veiled.message().contains(id), "{veiled}");
            assert!(!veiled.message().contains("grants"), "{veiled}");
        }
        let veiled = refused(&dave, "GrantService/ListGrants", &[]).await;
        assert_eq!(reason(&veiled), "DENIED", "{veiled}");
        by_hand(&w, &format!("DELETE FROM grants WHERE id = '{id}'"));
        send(w.admin.clone(), "GrantService/ListGrants", Vec::new()).await.unwrap();
    }
}

async fn entries(w: &World, action: &str, outcome: &str) -> Vec<Entry> {
    w.f.node().vault.integrate().await.unwrap();
    let (action, outcome) = (action.to_owned(), outcome.to_owned());
    let filter = EntryFilter { action, outcome, ..EntryFilter::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(w.admin.clone());
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_forged_row_keeps_from_being_decided_is_on_the_record() {
    let w = world().await;
    let dave = human(&w.f, "dave").await;
    let rpc = "IdentityService/GetIdentity";
    let etl = GetIdentityRequest { name: "nightly-etl".into() }.encode_to_vec();
    let id = look(&w, "SELECT id FROM identities WHERE name = 'nightly-etl'");
    let edit = |by| format!("UPDATE identities SET changed_at = changed_at {by} WHERE id = '{id}'");
    assert!(entries(&w, "identities.show", "TAMPERED").await.is_empty());
    by_hand(&w, &edit("+ 1"));
    for caller in [&w.admin, &dave] {
        assert_eq!(reason(&refused(caller, rpc, &etl).await), "TAMPERED");
    }
    by_hand(&w, &edit("- 1"));
    let found = entries(&w, "identities.show", "TAMPERED").await;
    let names: BTreeSet<_> = found.iter().map(|entry| entry.identity.as_str()).collect();
    assert_eq!((found.len(), names), (2, BTreeSet::from(["admin", "dave"])), "{found:?}");
    for entry in &found {
        assert!(entry.decision == "deny" && entry.reason == "undecided", "{entry:?}");
        assert!(entry.detail.contains(&format!("row {id} of table identities")), "{entry:?}");
    }

    // What repeats is counted, as refusals are.
    by_hand(&w, &edit("+ 1"));
    for _ in 0..30 {
        refused(&dave, rpc, &etl).await;
    }
    by_hand(&w, &edit("- 1"));
    let recorded = entries(&w, "identities.show", "TAMPERED").await.len() - found.len();
    w.f.node().vault.summarise_refusals().await.unwrap();
    let counted: usize = entries(&w, "system.refusals", "")
        .await
        .iter()
        .filter_map(|entry| entry.detail.split_once("identities.show: "))
        .map(|(_, count)| count.split(';').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(recorded + counted, 30, "{recorded} entries");

    // A caller whose own row is forged is nobody, and is counted among strangers.
    let who = "IdentityService/WhoAmI";
    send(dave.clone(), who, Vec::new()).await.unwrap();
    let id = look(&w, "SELECT id FROM identities WHERE name = 'dave'");
    let edit = |by| format!("UPDATE identities SET changed_at = changed_at {by} WHERE id = '{id}'");
    by_hand(&w, &edit("+ 1"));
    // What was kept of callers is forgotten.
    human(&w.f, "erin").await;
    assert_eq!(reason(&refused(&dave, who, &[]).await), "TAMPERED");
    by_hand(&w, &edit("- 1"));
    w.f.node().vault.summarise_refusals().await.unwrap();
    let summary = format!("{:?}", entries(&w, "system.strangers", "").await);
    assert!(summary.contains("TAMPERED: 1"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_row_is_forged_between_its_login_and_its_decision_is_on_the_record() {
    let w = World::new(Backend::Sqlite).await;
    register(&w.f, "dave", "human", "").await;
    let login = login(&w.f, "dave").await;
    let vault = &w.f.node().vault;
    let print = fingerprint(&login.certificate_pem);
    let caller = vault.authenticate_certificate(print, |_| true).await.unwrap();
    let (id, credential) = (caller.identity.to_string(), caller.credential.to_string());
    let ctx = vault.context(Caller::Identity(caller), None).unwrap();
    let edit = |by| format!("UPDATE identities SET changed_at = changed_at {by} WHERE id = '{id}'");
    // What was kept of callers is forgotten.
    human(&w.f, "erin").await;
    by_hand(&w, &edit("+ 1"));
    let refused = vault.run(&ctx, Whoami).await.unwrap_err();
    by_hand(&w, &edit("- 1"));
    assert_eq!(refused.reason(), "TAMPERED");
    assert!(!refused.to_string().contains(&id), "it learns nothing of the row: {refused}");

    let found = entries(&w, "identities.whoami", "TAMPERED").await;
    let [entry] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&entry.identity_id, &entry.credential_id), (&id, &credential));
    assert_eq!(entry.identity, "", "nobody vouches for a name: {entry:?}");
    assert_eq!((entry.decision.as_str(), entry.reason.as_str()), ("deny", "undecided"));
    assert!(entry.detail.contains(&format!("row {id} of table identities")), "{entry:?}");
    vault.run(&ctx, Whoami).await.unwrap();
}
