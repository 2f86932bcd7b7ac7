//! What shredding destroys, everywhere, and what stands against it.

use std::sync::Arc;

use strongroom::hsm::Hsm as _;
use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::recovery_set_service_client::RecoverySetServiceClient;
use strongroom::proto::{
    DestroyRecoverySetRequest, FinishShredRequest, ListConnectionsRequest, ListShredsRequest,
    PutConnectionRequest, PutDatabaseRoleRequest, RevokeLeaseRequest, RotateIdentityKeyRequest,
    SignItem, SignRequest,
};
use strongroom::store::Location;

use super::*;
use crate::keys::{self, create, encrypt};
use crate::secrets::{self, fetch, put};
use crate::support::hand::Hand;
use crate::support::logins::{human, login};
use crate::support::node::BACKENDS;
use crate::support::target::{World, ask, issue, until};
use crate::{recovery_sets, root};

/// Everything that alice does with what is hers, and bob reads.
const GRANTS: [(&str, &str); 8] = [
    ("secrets.put", "secrets/team/**"),
    ("secrets.get", "secrets/team/**"),
    ("keys.create", "keys/team/**"),
    ("keys.show", "keys/team/**"),
    ("keys.encrypt", "keys/team/**"),
    ("keys.decrypt", "keys/team/**"),
    ("keys.sign", "keys/team/**"),
    ("keys.rewrap", "keys/team/**"),
];

/// A development vault where alice has a secret, a sealed key and one in the HSM.
pub(super) struct Place {
    pub(super) f: Fixture,
    pub(super) admin: Channel,
    alice: Channel,
    pub(super) bob: Login,
    ciphertext: Vec<u8>,
    label: String,
}

impl Place {
    pub(super) async fn new(backend: Backend) -> Self {
        let f = Fixture::on(backend).await;
        let alice = human(&f, "alice").await;
        register(&f, "bob", "human", "").await;
        let bob = login(&f, "bob").await;
        for (action, resource) in GRANTS {
            grant(&f, "alice", action, resource).await;
            grant(&f, "bob", action, resource).await;
        }
        put(&mut secrets::client(&alice), "team/db", b"canary", 0).await.unwrap();
        put(&mut secrets::client(&alice), "team/db", b"canary", 1).await.unwrap();
        let mut client = keys::client(&alice);
        create(&mut client, "team/sealed", "aes-256-gcm").await;
        let made = create(&mut client, "team/hsm", "ecdsa-p256").await;
        let ciphertext = encrypt(&mut client, "team/sealed", b"canary", b"").await.unwrap();
        let vault = Hand::new(&f.parts.location).ask("SELECT id FROM vault").await.remove(0);
        let label = format!("strongroom/{vault}/key/{}/1", made.id);
        let admin = f.connect(&f.admin).await;
        Self { f, admin, alice, bob, ciphertext, label }
    }

    pub(super) fn hand(&self) -> Hand {
        Hand::new(&self.f.parts.location)
    }

    /// What bob is answered for each use, by the sentence where it is refused.
    pub(super) async fn uses(&self, bob: &Channel) -> [Result<(), String>; 3] {
        let said = |status: Status| format!("{:?}: {}", status.code(), status.message());
        let items = keys::sealed(&[(&self.ciphertext, b"")]);
        let name = "team/sealed".to_owned();
        let decrypt = strongroom::proto::DecryptRequest { name, items };
        let items = vec![SignItem { message: b"x".to_vec() }];
        let sign = SignRequest { name: "team/hsm".to_owned(), items };
        [
            fetch(&mut secrets::client(bob), "team/db", 0).await.map(drop).map_err(said),
            keys::client(bob).decrypt(decrypt).await.map(drop).map_err(said),
            keys::client(bob).sign(sign).await.map(drop).map_err(said),
        ]
    }

    pub(super) async fn wraps(&self) -> Vec<String> {
        let sql = "SELECT key_id FROM key_wraps WHERE key_id IN (SELECT k.id FROM identity_keys k \
                   JOIN identities i ON i.id = k.owner WHERE i.name = 'alice')";
        self.hand().ask(sql).await
    }

    pub(super) async fn alice_id(&self) -> String {
        self.hand().ask("SELECT id FROM identities WHERE name = 'alice'").await.remove(0)
    }
}

pub(super) fn all_shredded(uses: &[Result<(), String>; 3]) -> bool {
    uses.iter().all(|one| {
        one.as_ref().is_err_and(|why| why.contains("FailedPrecondition: its owner was shredded"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_who_is_shredded_opens_on_any_node_and_no_wrap_is_left_in_the_files() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let other = match backend {
            Backend::Postgres => Some(p.f.second_node().await),
            Backend::Sqlite => None,
        };
        let mut nodes = vec![p.f.connect(&p.bob).await];
        if let Some(other) = &other {
            nodes.push(p.f.connect_to(other, &p.bob).await);
        }
        for bob in &nodes {
            assert_eq!(p.uses(bob).await, [Ok(()), Ok(()), Ok(())], "it is in their caches");
        }
        let preview = shredding(&p.admin, "alice").await;
        let losses = preview.losses.as_ref().unwrap();
        assert_eq!((losses.secrets, losses.values, losses.key_versions), (1, 2, 1));
        assert_eq!((losses.named_keys, losses.hsm_keys, losses.connections), (1, 1, 0));
        let reads = |who: &str| preview.readers.iter().any(|one| one.subject == who);
        assert!(reads("bob") && !reads("alice"), "{preview:?}");
        let may = |action: &str| preview.readers.iter().any(|one| one.action == action);
        assert!(may("secrets.get") && may("keys.rewrap") && !may("keys.create"), "{preview:?}");
        assert_eq!((preview.shred, preview.obstacle.as_str()), (None, ""));
        let wrap = p.wraps().await.remove(0);
        let wrap = p.hand().bytes("blob", &format!("key_wraps WHERE key_id = '{wrap}'")).await;

        let mut identities = IdentityServiceClient::new(p.admin.clone());
        let confirm = "alicia".to_owned();
        let mistaken =
            ShredIdentityRequest { name: "alice".into(), confirm, reason: String::new() };
        let refused = identities.shred_identity(mistaken).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let done = shred(&p.admin, "alice").await.unwrap();
        assert_eq!((done.key_versions, done.hsm_keys, done.named_keys), (1, 1, 1));

        assert!(p.wraps().await.is_empty());
        if let Location::Sqlite { path, .. } = &p.f.parts.location {
            let log = format!("{}-wal", path.display());
            for file in [path.display().to_string(), log] {
                let bytes = std::fs::read(&file).unwrap_or_default();
                let left = bytes.windows(wrap.len()).any(|window| window == wrap);
                assert!(!left, "{file} holds a wrap");
            }
        }
        assert!(all_shredded(&p.uses(&nodes[0]).await), "on its own node at once");
        let began = std::time::Instant::now();
        for bob in &nodes {
            until("it is in force", async || all_shredded(&p.uses(bob).await)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let knock = fetch(&mut secrets::client(&p.alice), "team/db", 0).await.unwrap_err();
        assert_eq!(knock.code(), Code::Unauthenticated, "she is retired");
        until("the HSM forgot it", async || p.f.hsm.lookup_key(&p.label).await.unwrap().is_none())
            .await;
        until("it is on record", async || {
            shredding(&p.admin, "alice").await.shred.unwrap().hsm_keys_left == 0
        })
        .await;
        let refused = shred(&p.admin, "alice").await.unwrap_err();
        assert!(refused.message().contains("was shredded"), "{refused}");
        if let Some(other) = other {
            drop(nodes);
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_hsm_are_destroyed_after_a_crash_and_are_used_no_more_before() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        p.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        let told = shred(&p.admin, "alice").await.unwrap_err();
        assert_eq!(told.code(), Code::Unavailable, "done, and not kept in the HSM: {told}");
        let done = shredding(&p.admin, "alice").await.shred.unwrap();
        assert_eq!(done.hsm_keys_left, 1);
        p.f.hsm.set_fault(None);
        p.f.restart().await;
        let (hsm, label) = (Arc::clone(&p.f.hsm), p.label.clone());
        until("recovery destroys it", async || hsm.lookup_key(&label).await.unwrap().is_none())
            .await;
        let admin = p.f.connect(&p.f.admin).await;
        until("it is on record", async || {
            shredding(&admin, "alice").await.shred.unwrap().hsm_keys_left == 0
        })
        .await;
        let bob = p.f.connect(&p.bob).await;
        assert!(all_shredded(&p.uses(&bob).await));
        let shown = keys::show(&mut keys::client(&bob), "team/hsm").await.unwrap();
        assert_eq!(shown.key.unwrap().state, "shredded");
        assert_eq!(shown.versions[0].state, "destroyed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_somebody_is_shredded_is_shredded_or_refused() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut work = Vec::new();
        for n in 0..4 {
            let (alice, bob) = (p.alice.clone(), p.f.connect(&p.bob).await);
            work.push(tokio::spawn(async move {
                let (mut writes, mut reads) = (secrets::client(&alice), secrets::client(&bob));
                let path = format!("team/race-{n}");
                let mut written = 0;
                while let Ok(version) = put(&mut writes, &path, b"canary", written).await {
                    written = version;
                    if fetch(&mut reads, &path, 0).await.is_err() {
                        break;
                    }
                }
                (path, written)
            }));
        }
        until("all write", async || {
            let sql = "SELECT DISTINCT path FROM secrets WHERE path LIKE 'team/race-%'";
            p.hand().ask(sql).await.len() == work.len()
        })
        .await;
        shred(&p.admin, "alice").await.unwrap();
        let bob = p.f.connect(&p.bob).await;
        for one in work {
            let (path, written) = one.await.unwrap();
            if written == 0 {
                continue;
            }
            let refused = fetch(&mut secrets::client(&bob), &path, written).await.unwrap_err();
            assert!(refused.message().contains("its owner was shredded"), "{refused}");
        }
        assert!(p.wraps().await.is_empty());
        let sql = "SELECT k.id FROM identity_keys k JOIN identities i ON i.id = k.owner \
                   WHERE i.name = 'alice' AND k.state <> 'destroyed'";
        assert!(p.hand().ask(sql).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_leases_on_their_connections_stand_against_it() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let second = human(&w.f, "second").await;
        join(&w.admin, "second").await;
        let mut database = DatabaseServiceClient::new(second.clone());
        let connection = PutConnectionRequest { name: "own".into(), ..w.connection() };
        database.put_connection(connection).await.unwrap();
        let role = PutDatabaseRoleRequest { connection: "own".into(), ..w.role() };
        database.put_role(role).await.unwrap();
        grant(&w.f, "nightly-etl", "database.credentials", "database/own/reader").await;
        let lease =
            strongroom::proto::IssueCredentialsRequest { connection: "own".into(), ..ask() };
        let lease = issue(&w.etl, lease).await.unwrap().lease_id;
        let preview = shredding(&w.admin, "second").await;
        assert_eq!(preview.losses.as_ref().unwrap().connections, 1);
        assert!(preview.obstacle.contains("leases are live"), "{preview:?}");
        assert!(preview.readers.iter().any(|one| one.subject == "nightly-etl"), "{preview:?}");
        let refused = shred(&w.admin, "second").await.unwrap_err();
        assert!(refused.message().contains("leases are live"), "{refused}");
        let revoke = RevokeLeaseRequest { id: lease.clone(), ..Default::default() };
        w.lease_client().revoke_lease(revoke).await.unwrap();
        until("it has ended", async || w.lease(&lease).await.state == "revoked").await;
        assert_eq!(shred(&w.admin, "second").await.unwrap().connections, 1);
        let request = ListConnectionsRequest::default();
        let left = w.database_client().list_connections(request).await.unwrap().into_inner();
        let names: Vec<_> = left.connections.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["analytics"]);
        // Nobody shreds the last administrator.
        let last = shred(&w.admin, "admin").await.unwrap_err();
        assert_eq!(last.code(), Code::FailedPrecondition);
        assert!(shredding(&w.admin, "admin").await.shred.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_unrecoverable_once_nothing_is_left_that_opens_a_copy() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut identities = IdentityServiceClient::new(p.admin.clone());
        let finish = || FinishShredRequest { name: "alice".to_owned() };
        let refused = identities.finish_shred(finish()).await.unwrap_err();
        assert!(refused.message().contains("was not shredded"), "{refused}");
        let holders = recovery_sets::Holders::new(&["ann", "ben"]);
        let set = recovery_sets::create(&p.admin, holders.request(2)).await.unwrap();
        recovery_sets::covered(&p.admin).await;
        shred(&p.admin, "alice").await.unwrap();
        let shown = shredding(&p.admin, "alice").await.shred.unwrap();
        assert_eq!((shown.openers.len(), shown.unrecoverable_at_ms), (2, 0));
        assert!(shown.openers[0].ends_with(&format!("/recovery/{}", set.id)), "{shown:?}");
        assert!(shown.openers[1].ends_with(&["/root", "1"].join("/")), "{shown:?}");
        until("the HSM is done", async || {
            shredding(&p.admin, "alice").await.shred.unwrap().hsm_keys_left == 0
        })
        .await;
        // Neither of the two alone: the root that the HSM destroyed, the set that was destroyed.
        root::rotate(&p.admin, 1).await.unwrap();
        root::moved(&p.admin, 1).await;
        root::retire(&p.admin, 1).await.unwrap();
        let refused = identities.finish_shred(finish()).await.unwrap_err();
        assert!(refused.message().contains(&shown.openers[0]), "{refused}");
        assert!(!refused.message().contains(&shown.openers[1]), "{refused}");
        let destroy = DestroyRecoverySetRequest { id: set.id, reason: "a test".to_owned() };
        let mut sets = RecoverySetServiceClient::new(p.admin.clone());
        sets.destroy_recovery_set(destroy).await.unwrap();
        let finished = identities.finish_shred(finish()).await.unwrap().into_inner();
        let finished = finished.shred.unwrap();
        assert!(finished.openers.is_empty() && finished.unrecoverable_at_ms > 0, "{finished:?}");
        let again = identities.finish_shred(finish()).await.unwrap().into_inner().shred.unwrap();
        assert_eq!(again.unrecoverable_at_ms, finished.unrecoverable_at_ms, "it was then");
        let listed = identities.list_shreds(ListShredsRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().shreds[0].identity_id, p.alice_id().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_of_a_rotated_key_is_shredded_and_nothing_moves_or_wraps_it_again() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut identities = IdentityServiceClient::new(p.admin.clone());
        let rotate = RotateIdentityKeyRequest { name: "alice".to_owned(), expected_version: 0 };
        identities.rotate_identity_key(rotate).await.unwrap();
        let done = shred(&p.admin, "alice").await.unwrap();
        assert_eq!(done.key_versions, 2);
        // Both workers have their rounds: that of rotations, and that of recovery sets.
        let holders = recovery_sets::Holders::new(&["ann", "ben"]);
        recovery_sets::create(&p.admin, holders.request(2)).await.unwrap();
        recovery_sets::covered(&p.admin).await;
        root::rotate(&p.admin, 1).await.unwrap();
        root::moved(&p.admin, 1).await;
        assert!(p.wraps().await.is_empty());
        let sql = "SELECT state FROM rotations WHERE subject LIKE 'identity%'";
        until("its rotation ends", async || p.hand().ask(sql).await == ["retired"]).await;
        let bob = p.f.connect(&p.bob).await;
        until("it is in force", async || all_shredded(&p.uses(&bob).await)).await;
    }
}
