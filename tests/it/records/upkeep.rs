//! What keeps the log: its head, its filters, its lanes, and the HSM's copy of the head.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use strongroom::engines::records::{Question, Raw, Tail};
use strongroom::error::{Error, Result};
use strongroom::hsm::{Hsm, HsmError, KeyInfo, KeyKind, MemoryHsm};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{EntryFilter, GetIdentityRequest, WhoAmIRequest};
use strongroom::server::{AcceptOrder, Accepted, Ingredients, Node};
use strongroom::types::{Caller, SecretBytes, State};
use strongroom::vault::{Anchored, Decision, Resource, StreamOperation, Verb, View};
use tokio::sync::oneshot;
use tonic::Code;

use super::{calls, client, list, quiet};
use crate::support::hand::Hand;
use crate::support::logins::{fingerprint, machine, sign};
use crate::support::node::{BACKENDS, Backend, pin};
use crate::support::target::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_no_vault_wrote_holds_the_node_until_it_is_accepted() {
    for backend in BACKENDS {
        let mut f = quiet(backend).await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        f.node.take().unwrap().stop().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let zeros = hand.literal(&[0; 32]);
        hand.run(&format!("UPDATE log_head SET mac = {zeros}")).await;

        let node = Node::start(f.parts.clone(), pin()).await.unwrap();
        let State::Held(because) = node.life.standing().state() else {
            panic!("{:?}", node.life.standing().state())
        };
        assert!(because.contains("none that this vault wrote"), "{because}");
        let channel = f.connect_to(&node, &f.admin).await;
        let refused = IdentityServiceClient::new(channel.clone())
            .who_am_i(WhoAmIRequest {})
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(node.vault.write_anchor().await.is_err(), "the HSM keeps what it has");
        assert!(node.vault.integrate().await.is_err(), "nothing is signed");

        assert!(node.vault.state().report().is_none(), "nothing is checked while it is held");
        let waits = node.life.rollback().await.unwrap();
        assert!(waits.altered && waits.statement().ends_with("\nhead altered\n"), "{waits:?}");
        let (certificate_der, signature) = sign(&f.admin, &waits.statement());
        let order = AcceptOrder { certificate_der, signature, ceremony: None, code: None };
        let accepted = node.life.accept(order).await;
        assert_eq!(accepted, Ok(Accepted::Wholly), "of a development vault one");
        assert_eq!(node.life.standing().state(), State::Serving);
        until("its state is checked", async || node.vault.state().report().is_some()).await;
        assert_eq!(node.vault.state().report().unwrap().wrong(), 0);
        f.node = Some(node);
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let accepted =
            EntryFilter { action: "system.accept-rollback".to_owned(), ..EntryFilter::default() };
        assert_eq!(list(&mut client(&f).await, accepted).await.len(), 1);
        f.restart().await;
        assert!(f.node().life.standing().is_serving());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_emptied_or_put_back_by_hand_hides_nothing() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let older = (
            hand.bytes("filter", "log_filters WHERE bundle = 0").await,
            hand.bytes("mac", "log_filters WHERE bundle = 0").await,
        );
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let mac = hand.bytes("mac", "log_filters WHERE bundle = 0").await;
        let whoami =
            EntryFilter { action: "identities.whoami".to_owned(), ..EntryFilter::default() };
        let mut client = client(&f).await;
        assert_eq!(list(&mut client, whoami.clone()).await.len(), 3);
        for (filter, mac) in [(vec![0; older.0.len()], mac), older] {
            let (filter, mac) = (hand.literal(&filter), hand.literal(&mac));
            hand.run(&format!("UPDATE log_filters SET filter = {filter}, mac = {mac}")).await;
            assert_eq!(list(&mut client, whoami.clone()).await.len(), 3);
        }
        // Nor do entries that come after.
        calls(&f, 1).await;
        f.node().vault.integrate().await.unwrap();
        assert_eq!(list(&mut client, whoami.clone()).await.len(), 4);
    }
}

async fn lanes_in_sight(hand: &Hand) -> i64 {
    let sql = "SELECT '' || COUNT(*) FROM record_lanes WHERE ended = 0";
    hand.ask(sql).await[0].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_whose_connection_is_gone_pass_out_of_sight_and_nothing_else_does() {
    for backend in BACKENDS {
        let mut f = quiet(backend).await;
        for _ in 0..3 {
            calls(&f, 4).await;
            f.restart().await;
        }
        calls(&f, 4).await;
        let hand = Hand::new(&f.parts.location);
        let ever = lanes_in_sight(&hand).await;
        assert!(ever >= 4, "{ever}");
        f.node().vault.retire_lanes().await.unwrap();
        f.node().vault.integrate().await.unwrap();
        // A server may take a moment to see that a connection is gone.
        let live = if backend == Backend::Sqlite { 1 } else { 2 };
        let began = Instant::now();
        while lanes_in_sight(&hand).await > live {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", lanes_in_sight(&hand).await);
            f.node().vault.retire_lanes().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let size = f.node().vault.head().await.unwrap().size;
        calls(&f, 4).await;
        f.node().vault.integrate().await.unwrap();
        f.node().vault.retire_lanes().await.unwrap();
        assert!(f.node().vault.head().await.unwrap().size >= size + 4, "live lanes stay");
        assert!(lanes_in_sight(&hand).await >= 1);

        // Whoever takes a lane out of sight, or puts one back, by hand is seen.
        calls(&f, 1).await;
        for (from, to) in [(0, 1), (1, 0)] {
            let lane = format!("SELECT '' || MIN(lane) FROM record_lanes WHERE ended = {from}");
            let lane = hand.ask(&lane).await.remove(0);
            let set =
                |ended| format!("UPDATE record_lanes SET ended = {ended} WHERE lane = {lane}");
            hand.run(&set(to)).await;
            for refused in [f.node().vault.integrate().await, f.node().vault.retire_lanes().await] {
                assert!(matches!(refused, Err(Error::Tampered { .. })), "{from}: {refused:?}");
            }
            hand.run(&set(from)).await;
        }
        f.node().vault.integrate().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_another_node_may_still_write_to_stays_in_sight() {
    let f = quiet(Backend::Postgres).await;
    let other = f.second_node().await;
    let mut client = IdentityServiceClient::new(f.connect_to(&other, &f.admin).await);
    client.who_am_i(WhoAmIRequest {}).await.unwrap();
    f.node().vault.integrate().await.unwrap();
    let hand = Hand::new(&f.parts.location);
    let theirs = "SELECT '' || lane FROM record_lanes l WHERE node = 'b' AND ended = 0 AND \
                  EXISTS (SELECT 1 FROM record_batches b WHERE b.lane = l.lane)";
    let before = hand.ask(theirs).await;
    assert!(!before.is_empty());
    f.node().vault.retire_lanes().await.unwrap();
    assert_eq!(hand.ask(theirs).await, before, "its connection lives");
    drop(client);
    other.stop().await.unwrap();
    let began = Instant::now();
    while !hand.ask(theirs).await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20));
        f.node().vault.integrate().await.unwrap();
        f.node().vault.retire_lanes().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A token whose next write of data waits until the test lets it go.
#[derive(Debug)]
struct Slow {
    token: Arc<MemoryHsm>,
    next: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

#[async_trait]
impl Hsm for Slow {
    async fn login(&self, pin: SecretBytes) -> Result<(), HsmError> {
        self.token.login(pin).await
    }

    async fn logout(&self) -> Result<(), HsmError> {
        self.token.logout().await
    }

    async fn create_key(&self, label: &str, kind: KeyKind) -> Result<KeyInfo, HsmError> {
        self.token.create_key(label, kind).await
    }

    async fn lookup_key(&self, label: &str) -> Result<Option<KeyInfo>, HsmError> {
        self.token.lookup_key(label).await
    }

    async fn destroy_key(&self, label: &str) -> Result<(), HsmError> {
        self.token.destroy_key(label).await
    }

    async fn hmac(&self, label: &str, data: &[u8]) -> Result<SecretBytes, HsmError> {
        self.token.hmac(label, data).await
    }

    async fn sign(&self, label: &str, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.token.sign(label, message).await
    }

    async fn decrypt(
        &self,
        label: &str,
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, HsmError> {
        self.token.decrypt(label, ciphertext).await
    }

    async fn agree(&self, label: &str, point: &[u8]) -> Result<Option<SecretBytes>, HsmError> {
        self.token.agree(label, point).await
    }

    async fn random(&self, len_bytes: usize) -> Result<SecretBytes, HsmError> {
        self.token.random(len_bytes).await
    }

    async fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
        self.token.read_data(label).await
    }

    async fn write_data(&self, label: &str, value: &[u8]) -> Result<(), HsmError> {
        let next = self.next.lock().take();
        if let Some((waits, go)) = next {
            waits.send(()).unwrap();
            go.await.unwrap();
        }
        self.token.write_data(label, value).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_slow_to_write_leaves_the_hsm_with_the_newest_head() {
    let f = quiet(Backend::Postgres).await;
    let slow = Arc::new(Slow { token: Arc::clone(&f.hsm), next: Mutex::default() });
    let parts = Ingredients {
        node: "slow".to_owned(),
        hsm: Arc::clone(&slow) as Arc<dyn Hsm>,
        ..f.parts.clone()
    };
    let other = Node::start(parts, pin()).await.unwrap();
    calls(&f, 2).await;
    f.node().vault.integrate().await.unwrap();
    let (waits, waiting) = oneshot::channel();
    let (go, gone) = oneshot::channel();
    *slow.next.lock() = Some((waits, gone));
    let (written, ()) = tokio::join!(other.vault.write_anchor(), async {
        waiting.await.unwrap();
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        f.node().vault.write_anchor().await.unwrap();
        go.send(()).unwrap();
    });
    written.unwrap();
    let newest = f.node().vault.head().await.unwrap();
    assert_eq!(f.node().vault.check_anchor().await, Ok(Anchored::Extends { kept: newest }));
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_only_counted_waits_for_its_commit_like_any_other() {
    let f = quiet(Backend::Sqlite).await;
    let channel = machine(&f, "prober").await;
    let mut prober = IdentityServiceClient::new(channel);
    let before = f.node().vault.activity();
    for nth in 0..60 {
        let name = if nth % 2 == 0 { "admin".to_owned() } else { format!("missing{nth}") };
        let refused = prober.get_identity(GetIdentityRequest { name }).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let after = f.node().vault.activity();
    assert!(after.jobs - before.jobs >= 60, "{before:?} {after:?}");
    assert!(after.entries - before.entries < 60, "what repeats is summarised: {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_caller_goes_away_at_its_beginning_has_an_end_on_the_record() {
    let f = quiet(Backend::Sqlite).await;
    let vault = &f.node().vault;
    let found = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(found, |_| true).await.unwrap();
    for nth in 0..60 {
        let ctx = vault.context(Caller::Identity(admin), None).unwrap();
        let tail = Tail::new(Question::parse(Raw::default()).unwrap(), 0).unwrap();
        let patience = Duration::from_micros(nth * 100);
        drop(tokio::time::timeout(patience, vault.stream(&ctx, tail)).await);
    }
    let mut client = client(&f).await;
    let told = |outcome: &str| EntryFilter {
        action: "records.tail".to_owned(),
        outcome: outcome.to_owned(),
        ..EntryFilter::default()
    };
    let since = Instant::now();
    loop {
        vault.integrate().await.unwrap();
        let begun = list(&mut client, told("BEGUN")).await.len();
        let ended = list(&mut client, told("ok")).await.len();
        if begun > 0 && begun == ended {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{begun} begun, {ended} ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives as many items as are on their way to a reader at once, and is cut then.
struct Cut;

#[async_trait]
impl Verb for Cut {
    const ACTION: &'static str = "records.tail";
    type Prepared = bool;
    type Output = u8;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("records/log".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<bool> {
        Ok(false)
    }
}

#[async_trait]
impl StreamOperation for Cut {
    async fn next(&self, _: &View, was_here: &mut bool) -> Result<Vec<u8>> {
        if std::mem::replace(was_here, true) {
            return Err(Error::invalid("what comes next does not open"));
        }
        Ok((0..16).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_cut_says_so_to_the_slowest_reader() {
    let f = quiet(Backend::Sqlite).await;
    let vault = &f.node().vault;
    let found = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(found, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(admin), None).unwrap();
    let mut items = vault.stream(&ctx, Cut).await.unwrap();
    // Nobody takes anything before its end is on the record.
    let mut client = client(&f).await;
    let told = EntryFilter {
        action: "records.tail".to_owned(),
        outcome: "INVALID".to_owned(),
        ..EntryFilter::default()
    };
    let since = Instant::now();
    while list(&mut client, told.clone()).await.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10), "its end is not on the record");
        vault.integrate().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for nth in 0..16 {
        assert_eq!(items.next().await, Some(Ok(nth)));
    }
    assert!(matches!(items.next().await, Some(Err(Error::Invalid(_)))), "it looks like whole");
    assert_eq!(items.next().await, None);
}
