//! Messages are counted: a key rotates by itself before 2^30 and stops before 2^32.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use strongroom::Result;
use strongroom::store::keys::VaultRow;
use strongroom::store::named_keys::{NamedKeyCountRow, key_named, version_numbered};
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, KeyName, RequestContext, VaultId};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};
use tonic::Code;

use super::{Place, create, decrypt, encrypt, encrypt_all, show};
use crate::support::logins::{fingerprint, login};
use crate::support::node::{BACKENDS, Backend, Fixture};
use crate::support::target::until;

/// Sets how many messages a version has reserved, as if nodes had.
struct Set {
    name: KeyName,
    version: i64,
    reserved: i64,
}

#[async_trait]
impl Verb for Set {
    const ACTION: &'static str = "identities.list";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Operation for Set {
    const NEEDS: Needs = GOVERNS;

    async fn commit(&self, _: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let key = key_named(tx, &self.name).await?.unwrap().row.id;
        let version = version_numbered(tx, key, self.version).await?.unwrap().row.id;
        let found = tx.lookup::<NamedKeyCountRow>(&version).await?.unwrap();
        let row = NamedKeyCountRow { reserved: self.reserved, ..found.row.clone() };
        tx.change(&found, &row).await?;
        Ok(())
    }
}

/// Counts a restore, as its acceptance does.
struct Restore;

#[async_trait]
impl Verb for Restore {
    const ACTION: &'static str = "identities.list";
    type Prepared = VaultId;
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<VaultId> {
        Ok(view.vault_id())
    }
}

#[async_trait]
impl Operation for Restore {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        vault: &VaultId,
        _: &Decision,
    ) -> Result<()> {
        let found = tx.lookup::<VaultRow>(vault).await?.unwrap();
        let restore_epoch = found.row.restore_epoch + 1;
        tx.change(&found, &VaultRow { restore_epoch, ..found.row.clone() }).await?;
        Ok(())
    }
}

/// Runs a test's own operation as the administrator.
async fn run<O: Operation<Output = ()>>(f: &Fixture, op: O) {
    let vault = &f.node().vault;
    let fingerprint = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(fingerprint, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(admin), None).unwrap();
    vault.run(&ctx, op).boxed().await.unwrap();
}

async fn set(f: &Fixture, name: &str, version: i64, reserved: i64) {
    let name = name.parse().unwrap();
    run(f, Set { name, version, reserved }).await;
}

async fn reserved(p: &Place, name: &str) -> Vec<(i64, i64)> {
    let shown = show(&mut p.alice(), name).await.unwrap();
    shown.versions.iter().map(|version| (version.version, version.reserved)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_reserved_in_blocks_before_they_are_used() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        for name in ["aes-256-gcm", "chacha20-poly1305", "xaes-256-gcm"] {
            create(&mut p.alice(), &format!("team/{name}"), name).await;
        }
        for name in ["team/aes-256-gcm", "team/chacha20-poly1305"] {
            assert_eq!(reserved(&p, name).await, [(1, 0)]);
            encrypt(&mut p.alice(), name, b"x", b"").await.unwrap();
            assert_eq!(reserved(&p, name).await, [(1, 65_536)]);
            // What is left of a block serves the calls that follow, many at once.
            let calls = (0..32).map(|_| {
                let mut alice = p.alice();
                async move { encrypt(&mut alice, name, b"x", b"").await.map(drop) }
            });
            for done in futures_util::future::join_all(calls).await {
                done.unwrap();
            }
            assert_eq!(reserved(&p, name).await, [(1, 65_536)]);
        }
        encrypt(&mut p.alice(), "team/xaes-256-gcm", b"x", b"").await.unwrap();
        assert_eq!(reserved(&p, "team/xaes-256-gcm").await, [(1, 0)], "it needs no count");
        // Whatever a node had left is forfeited when it stops.
        p.f.restart().await;
        p.alice = p.f.connect(&login(&p.f, "alice").await).await;
        encrypt(&mut p.alice(), "team/aes-256-gcm", b"x", b"").await.unwrap();
        assert_eq!(reserved(&p, "team/aes-256-gcm").await, [(1, 131_072)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_used_up_is_followed_by_another() {
    let p = Place::new(Backend::Sqlite).await;
    create(&mut p.alice(), "team/a", "aes-256-gcm").await;
    let items = vec![(&b"x"[..], &b""[..]); 1_000];
    for _ in 0..66 {
        encrypt_all(&mut p.alice(), "team/a", &items).await.unwrap();
    }
    assert_eq!(reserved(&p, "team/a").await, [(1, 131_072)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_rotates_by_itself_before_it_has_encrypted_2_to_the_30_messages() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        let first = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap();
        set(&p.f, "team/a", 1, (1 << 30) - (1 << 24) - 1).await;
        p.f.clock.advance(std::time::Duration::from_secs(5));
        assert_eq!(show(&mut p.alice(), "team/a").await.unwrap().key.unwrap().version, 1);
        set(&p.f, "team/a", 1, (1 << 30) - (1 << 24)).await;
        until("it rotates", async || {
            show(&mut p.alice(), "team/a").await.unwrap().key.unwrap().version == 2
        })
        .await;
        let second = encrypt(&mut p.alice(), "team/a", b"y", b"").await.unwrap();
        let opened = decrypt(&mut p.alice(), "team/a", &second, b"").await;
        assert_eq!(opened, Ok((b"y".to_vec(), 2)));
        let opened = decrypt(&mut p.alice(), "team/a", &first, b"").await;
        assert_eq!(opened, Ok((b"x".to_vec(), 1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stops_below_2_to_the_32_messages_whatever_else_fails() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        let items = vec![(&b"x"[..], &b""[..]); 1_000];
        let mut ciphertext = Vec::new();
        for _ in 0..65 {
            let done = encrypt_all(&mut p.alice(), "team/a", &items).await.unwrap();
            ciphertext.clone_from(&done.results[0].ciphertext);
        }
        // 536 are left of the block: the next call wants another.
        let stop = (1_i64 << 32) - (1 << 16);
        set(&p.f, "team/a", 1, stop).await;
        match encrypt_all(&mut p.alice(), "team/a", &items).await {
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            // The worker was faster, and it was the next version that encrypted.
            Ok(done) => assert_eq!(done.used.unwrap().version, 2),
        }
        let counted = reserved(&p, "team/a").await;
        assert!(counted.contains(&(1, stop)), "{counted:?}");
        let opened = decrypt(&mut p.alice(), "team/a", &ciphertext, b"").await;
        assert_eq!(opened, Ok((b"x".to_vec(), 1)), "what was encrypted opens");
        until("it rotates", async || {
            show(&mut p.alice(), "team/a").await.unwrap().key.unwrap().version == 2
        })
        .await;
        encrypt_all(&mut p.alice(), "team/a", &items).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_counts_what_it_may_have_forgotten() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        let first = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap();
        assert_eq!(reserved(&p, "team/a").await, [(1, 65_536)]);
        run(&p.f, Restore).await;
        p.f.restart().await;
        p.alice = p.f.connect(&login(&p.f, "alice").await).await;
        // No block is given twice: the first call counts as many as there can have been, and goes on.
        let second = encrypt(&mut p.alice(), "team/a", b"y", b"").await.unwrap();
        until("it rotates", async || {
            show(&mut p.alice(), "team/a").await.unwrap().key.unwrap().version == 2
        })
        .await;
        let counted = reserved(&p, "team/a").await;
        assert_eq!(counted, [(2, 0), (1, (1 << 30) + 131_072)]);
        // What is made since knows of the restore.
        encrypt(&mut p.alice(), "team/a", b"z", b"").await.unwrap();
        assert_eq!(reserved(&p, "team/a").await[0], (2, 65_536));
        for (ciphertext, plain) in [(first, b"x"), (second, b"y")] {
            let opened = decrypt(&mut p.alice(), "team/a", &ciphertext, b"").await;
            assert_eq!(opened, Ok((plain.to_vec(), 1)));
        }
    }
}
