//! Counted tokens that are shown elsewhere, or again: from another address, on another node, with
//! another key, to a store that somebody wrote to.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use strongroom::engines::pki::CrlSlot;
use strongroom::hsm::memory::MemoryFault;
use strongroom::proto::{AddGrantRequest, IssueCredentialsRequest};
use strongroom::server::Node;
use strongroom::types::{Bearer, Caller, TaskGroup};
use strongroom::vault::{Decision, Presented, Resource, StreamOperation, Verb, View};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::certificates;
use super::spending::{entries, findings, is_spent, issue};
use super::*;
use crate::support::hand::Hand;
use crate::support::node::Login;
use crate::support::postgres::Postgres;
use crate::support::target::{Proxy, Wire, World, ask, until};

const KEY: &str = "a-key-of-the-test";

fn keyed(replace: bool) -> IssueCredentialsRequest {
    IssueCredentialsRequest { idempotency_key: KEY.to_owned(), replace, ..ask() }
}

fn single() -> TokenOrder {
    TokenOrder { uses: 1, ..with(0) }
}

/// Connects from another address of this machine, with a certificate or without.
async fn from_elsewhere(f: &Fixture, node: &Node, login: Option<&Login>) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&f.root_pem))
        .domain_name("localhost");
    let tls = match login {
        Some(login) => tls.identity(Identity::from_pem(&login.certificate_pem, &login.key_pem)),
        None => tls,
    };
    let uri = format!("https://127.0.0.1:{}", node.grpc_addr.port());
    let endpoint = Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap();
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    endpoint.local_address(Some(elsewhere)).connect().await.unwrap()
}

async fn active(world: &World) -> Vec<String> {
    let leases = world.leases().await.into_iter().filter(|lease| lease.state == "active");
    leases.map(|lease| lease.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_not_resumed_from_elsewhere_on_a_node_that_knows_the_token_unspent() {
    let world = World::new(Backend::Postgres).await;
    let other = world.f.second_node().await;
    let token = mint(&world.admin, "nightly-etl", single()).await.unwrap();
    let owner = bearing(&world.f.connect_as_nobody().await, &token);
    let thief = bearing(&from_elsewhere(&world.f, &other, None).await, &token);
    assert_eq!(knock(&thief).await, Code::Ok);
    let issued = issue(&owner, keyed(true)).await.unwrap();
    for replace in [true, false, true] {
        let refusal = issue(&thief, keyed(replace)).await.unwrap_err();
        assert!(is_spent(&refusal), "{refusal}");
    }
    assert_eq!(active(&world).await, [issued.lease_id]);
    // Nor is it good there for long for what takes no use.
    until("the other node knows", async || knock(&thief).await == Code::Unauthenticated).await;
    // The finding names both: where it was shown, and where its use was made.
    let found = findings(&world.f).await;
    let shown = found.iter().find(|entry| entry.source == "127.0.0.2").unwrap();
    assert!(shown.detail.contains("spent from 127.0.0.1"), "{}", shown.detail);
    drop(thief);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_resumed_from_another_address_with_the_certificate_that_it_was_made_with() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let [own, other] = [login(&world.f, "nightly-etl").await, login(&world.f, "admin").await];
        let token = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let here = bearing(&world.f.connect(&own).await, &token);
        let issued = issue(&here, keyed(true)).await.unwrap();
        let from = async |login| {
            let channel = from_elsewhere(&world.f, world.f.node(), login).await;
            issue(&bearing(&channel, &token), keyed(false)).await
        };
        for stranger in [None, Some(&other)] {
            assert!(is_spent(&from(stranger).await.unwrap_err()));
        }
        let resumed = from(Some(&own)).await.unwrap();
        assert!(resumed.replayed);
        assert_eq!(resumed.lease_id, issued.lease_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_resume_one_use_with_one_key_one_has_what_it_pays_for() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(world.f.second_node().await),
        };
        let token = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let mut nodes = vec![world.f.connect(&world.f.admin).await];
        if let Some(node) = &second {
            nodes.push(world.f.connect_to(node, &world.f.admin).await);
        }
        let lost = issue(&bearing(&nodes[0], &token), keyed(true)).await.unwrap();
        let tasks = TaskGroup::default();
        let resume = |n: usize| {
            let bearer = bearing(&nodes[n % nodes.len()], &token);
            tasks.spawn(async move { issue(&bearer, keyed(true)).await })
        };
        // Until the first of them has it: what it got, the others may replace in their turn.
        let got = Mutex::new(Vec::new());
        until("one has it", async || {
            let race: Vec<_> = (0..16).map(resume).collect();
            for call in race {
                match call.await.unwrap() {
                    Ok(issued) => got.lock().push(issued.lease_id),
                    Err(refusal) => {
                        // It waits, or another is about to have it; never is the key used up.
                        let later = [Code::Unavailable, Code::Aborted];
                        assert!(later.contains(&refusal.code()), "{refusal}");
                    }
                }
            }
            assert!(active(&world).await.len() <= 1, "one lease a use");
            !got.lock().is_empty()
        })
        .await;
        assert!(!got.lock().contains(&lost.lease_id), "that was lost");
        until("it is settled", async || {
            let all = world.leases().await.into_iter();
            all.filter(|lease| lease.state != "revoked").count() <= 1
        })
        .await;
        let got: HashSet<_> = got.lock().iter().cloned().collect();
        assert!(active(&world).await.iter().all(|lease| got.contains(lease)));
        drop(nodes);
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_token_with_another_key_costs_no_signature() {
    for backend in BACKENDS {
        let world = certificates::world(backend).await;
        let token = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        certificates::issue(&bearer, KEY, false).await.unwrap();
        world.f.hsm.set_fault(Some(MemoryFault::Unavailable));
        let refusal = certificates::issue(&bearer, "another-key-of-the-test", false).await;
        world.f.hsm.set_fault(None);
        assert!(is_spent(&refusal.unwrap_err()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_to_the_store_buys_no_use_twice() {
    for backend in BACKENDS {
        let world = World::new(backend).await;
        let hand = Hand::new(&world.f.parts.location);
        let nobody = world.f.connect_as_nobody().await;
        let first = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let first = bearing(&nobody, &first);
        // One lease that was replaced, and so lets its own call go on.
        let lost = issue(&first, keyed(true)).await.unwrap();
        until("it is replaced", async || issue(&first, keyed(true)).await.is_ok()).await;
        let second = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let second = bearing(&nobody, &second);
        let paid = issue(&second, keyed(true)).await.unwrap();
        let before = active(&world).await;
        hand.run(&format!(
            "UPDATE idempotency SET object = '{}' WHERE object = '{}'",
            lost.lease_id, paid.lease_id
        ))
        .await;
        for replace in [false, true] {
            let refusal = issue(&second, keyed(replace)).await.unwrap_err();
            assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
        }
        assert_eq!(active(&world).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_that_a_change_of_rights_interrupts_accuses_nobody() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    for backend in BACKENDS {
        proxy.set(Wire::Whole);
        let world = World::over(backend, Postgres::shared(), proxy.port).await;
        let token = mint(&world.admin, "nightly-etl", single()).await.unwrap();
        let bearer = bearing(&world.f.connect_as_nobody().await, &token);
        proxy.set(Wire::HoldsAnswers);
        let meanwhile = async {
            until("the use is taken", async || !world.leases().await.is_empty()).await;
            let more =
                |grant| AddGrantRequest { resource: "database/other/reader".into(), ..grant };
            world.grant("nightly-etl", more).await.unwrap();
            proxy.set(Wire::Whole);
        };
        let (answer, ()) = tokio::join!(issue(&bearer, ask()), meanwhile);
        let refusal = answer.unwrap_err();
        assert_eq!(refusal.code(), Code::Aborted, "{refusal}");
        assert!(findings(&world.f).await.is_empty(), "it was shown once");
        assert!(is_spent(&issue(&bearer, ask()).await.unwrap_err()), "never refunded");
        world.advance(61);
        world.all_over().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_an_accessor_hears_the_one_sentence_whatever_became_of_the_row() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let hand = Hand::new(&f.parts.location);
        let etl = machine(&f, "etl").await;
        let made = token(&etl, 0).await;
        let accessor = made.token.unwrap().accessor;
        let nobody = f.connect_as_nobody().await;
        let whoami = async |token: &str| {
            let mut client = IdentityServiceClient::new(bearing(&nobody, token));
            let answer = client.who_am_i(WhoAmIRequest {}).await;
            answer.map(drop).map_err(|refusal| (refusal.code(), refusal.message().to_owned()))
        };
        let one = whoami(&guess(&made.bearer)).await.unwrap_err();
        assert_eq!(one.0, Code::Unauthenticated);
        hand.run(&format!("UPDATE credentials SET tries = 7 WHERE id = '{accessor}'")).await;
        for token in [guess(&made.bearer), made.bearer.clone()] {
            assert_eq!(whoami(&token).await.unwrap_err(), one);
        }
        hand.run(&format!("UPDATE credentials SET tries = 0 WHERE id = '{accessor}'")).await;
        assert_eq!(whoami(&made.bearer).await, Ok(()));
    }
}

/// A stream that everybody may follow.
struct Follow(CrlSlot);

#[async_trait::async_trait]
impl Verb for Follow {
    const ACTION: &'static str = "pki.crl";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> strongroom::Result<Vec<Resource>> {
        Ok(vec![Resource::named("pki/crl".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> strongroom::Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl StreamOperation for Follow {
    async fn next(&self, _: &View, (): &mut ()) -> strongroom::Result<Vec<()>> {
        async { Ok(self.0.current().map(drop).into_iter().collect()) }.boxed().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_use_pays_for_no_stream_and_that_it_asked_is_on_the_record() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let token = create(&etl, single()).await.unwrap().bearer;
    let (vault, names) = (&f.node().vault, []);
    let with = Presented { source: None, certificate: None, names: &names };
    let caller = Bearer::parse(token.as_bytes()).unwrap();
    let caller = vault.authenticate_bearer(&caller, with).await.unwrap();
    let ctx = vault.context(Caller::Identity(caller), None).unwrap();
    let refusal = vault.stream(&ctx, Follow(CrlSlot::default())).await.unwrap_err();
    assert_eq!(refusal.reason(), "DENIED");
    assert_eq!(inspect(&bearing(&etl, &token), "").await.unwrap().uses_left, 1);
    let told = entries(&f, "pki.crl", "DENIED").await;
    assert_eq!(told.len(), 1, "{told:?}");
}
