//! The root above the issuing CAs, rotated: chains lead to either root, then to the new one alone.

use std::time::Duration;

use strongroom::engines::pki::{Authority, Deployment, Founder, Role};
use strongroom::hsm::{Hsm as _, KeyKind};
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    GetAuthoritiesRequest, GetAuthoritiesResponse, GetRevocationListRequest,
    SignCertificateRequest, SignCertificateResponse, VerifyStateRequest,
};
use tonic::Code;

use super::crl::revoke;
use super::{Client, World, login_over, order};
use crate::authorities::{Authorities, serial};
use crate::root::authorities::{retire, rotate, shown, states, whoami};
use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend, Fixture, csr};
use crate::support::target::until;
use crate::x509::OpenSsl;

const DAY: Duration = Duration::from_hours(24);

/// Tells whether a certificate leads to a root by way of a chain, to the letter of the standard.
fn leads(openssl: &OpenSsl, root: &str, leaf_pem: &str, chain_pem: &str) -> bool {
    openssl.write("leaf.pem", leaf_pem);
    openssl.write("chain.pem", chain_pem);
    let fixed = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root];
    openssl.attempt(&[&fixed[..], &["-untrusted", "chain.pem", "leaf.pem"]].concat()).0
}

async fn shows(client: &Client) -> GetAuthoritiesResponse {
    client.clone().get_authorities(GetAuthoritiesRequest {}).await.unwrap().into_inner()
}

/// Waits until a node has heard of a version of an authority: 0 is the root, 1 the issuing CA.
async fn heard(client: &Client, place: usize, version: i64) {
    until("the node hears of it", async || {
        shows(client).await.authorities[place].version == version
    })
    .await;
}

/// What `pki ca` writes.
fn bundle(there: &GetAuthoritiesResponse) -> String {
    let all = there.authorities.iter().chain(&there.retiring).chain(&there.link);
    all.map(|one| one.certificate_pem.as_str()).collect()
}

/// Certificates in a chain.
fn links(signed: &SignCertificateResponse) -> usize {
    signed.chain_pem.matches("BEGIN CERTIFICATE").count()
}

/// Holds the record against the tables.
async fn is_right(f: &Fixture) {
    f.node().vault.integrate().await.unwrap();
    let mut records = RecordServiceClient::new(f.connect(&f.admin).await);
    let mut ticket = 0;
    let found = loop {
        let asked = records.verify_state(VerifyStateRequest { ticket }).await.unwrap();
        let found = asked.into_inner();
        if found.checked_at_ms != 0 {
            break found;
        }
        ticket = found.ticket;
    };
    assert!(found.faults.is_empty(), "{found:?}");
}

#[tokio::test]
async fn an_issuing_ca_that_a_new_root_signs_stays_what_it_is_and_the_old_root_leads_to_it() {
    let old = Authorities::new().await;
    let (openssl, domain) = (OpenSsl::new(), &old.trust_domain);
    let key = old.token.create_key("root2", KeyKind::EcdsaP384).await.unwrap();
    let founder = Founder {
        hsm: &old.token,
        vault: "0123abcdv2",
        deployment: Deployment::Development,
        trust_domain: domain,
        now: old.now,
    };
    let root = founder.root(&key, &serial()).await.unwrap();
    let link = founder.link(&key, &old.root, &serial()).await.unwrap();
    let again = founder.again(&old.issuing, &root, &serial()).await.unwrap();
    assert_eq!(again.not_after(), old.issuing.not_after());
    assert_eq!(again.key_label(), old.issuing.key_label());
    let leaf = old.listener().await.certificate.pem();
    openssl.write("old.pem", old.root.pem());
    openssl.write("new.pem", root.pem());
    for (chain, by_old, by_new) in [
        (old.issuing.pem(), true, false),
        (again.pem(), false, true),
        (again.pem() + &link.pem(), true, true),
    ] {
        assert_eq!(leads(&openssl, "old.pem", &leaf, &chain), by_old, "{chain}");
        assert_eq!(leads(&openssl, "new.pem", &leaf, &chain), by_new, "{chain}");
    }
    let [_, issuing_key, login_key] = &old.keys;
    let load = |role, key, der: &[u8], above| Authority::load(role, key, der, above, domain);
    assert!(load(Role::Root, &key, link.certificate_der(), Some(&old.root)).is_ok());
    for (claim, refused) in [
        ("another vouches", load(Role::Root, &key, link.certificate_der(), Some(&root))),
        ("nobody vouches", load(Role::Root, &key, link.certificate_der(), None)),
        (
            "below another",
            load(Role::Issuing, issuing_key, again.certificate_der(), Some(&old.root)),
        ),
        ("a login CA", load(Role::Login, login_key, old.login.certificate_der(), Some(&old.root))),
    ] {
        assert!(refused.is_err(), "{claim}");
    }
}

#[tokio::test]
async fn nothing_outlives_the_root_that_signs_it_and_one_whose_time_is_over_signs_nothing() {
    let old = Authorities::new().await;
    let key = old.token.create_key("later", KeyKind::EcdsaP384).await.unwrap();
    let issuing_key = old.token.create_key("below", KeyKind::EcdsaP256).await.unwrap();
    let end = old.root.not_after();
    for (now, signs) in [
        (old.now.plus(15 * 365 * DAY).unwrap(), true),
        (end.plus(Duration::from_secs(1)).unwrap(), false),
    ] {
        let founder = Founder {
            hsm: &old.token,
            vault: "0123abcdv3",
            deployment: Deployment::Development,
            trust_domain: &old.trust_domain,
            now,
        };
        let link = founder.link(&key, &old.root, &serial()).await;
        let issuing = founder.issuing(&issuing_key, &old.root, &serial()).await;
        for made in [link, issuing] {
            assert_eq!(made.map(|made| made.not_after()).ok(), signs.then_some(end));
        }
        // A new root is made all the same, and takes over an issuing CA whose time is over.
        let root = founder.root(&key, &serial()).await.unwrap();
        let again = founder.again(&old.issuing, &root, &serial()).await.unwrap();
        assert!(again.not_after() <= now);
    }
}

/// Retires the old root, after a start, and answers with the new one; what is given is from before the
/// rotation, and twice from after it.
async fn lets_go(
    w: &mut World,
    openssl: &OpenSsl,
    [before, during, third]: [&SignCertificateResponse; 3],
) -> String {
    w.f.restart().await;
    let a = w.f.connect(&w.f.admin).await;
    w.admin = Client::new(a.clone());
    let etl = login_over(a.clone(), "etl").await.unwrap();
    w.etl = Client::new(w.f.connect(&etl).await);
    let label = format!("strongroom/{}/ca/root/1", w.f.node().vault.installation().id);
    assert!(w.f.hsm.lookup_key(&label).await.unwrap().is_some());
    let refused = retire(&a, "root", 1, false).await;
    assert_eq!(refused, Err(Code::FailedPrecondition), "what came before is valid");
    assert_eq!(retire(&a, "root", 2, true).await, Err(Code::FailedPrecondition));
    assert_eq!(retire(&a, "root", 3, true).await, Err(Code::NotFound));
    is_right(&w.f).await;
    retire(&a, "root", 1, true).await.unwrap();
    assert_eq!(w.f.hsm.lookup_key(&label).await.unwrap(), None);
    assert_eq!(states(&shown(&a, "root").await), [(2, "current"), (1, "retired")]);
    until("the old root is let go of", async || shows(&w.admin).await.link.is_none()).await;
    let there = shows(&w.admin).await;
    assert!(there.retiring.iter().all(|it| it.name == "issuing"));
    openssl.write("bundle.pem", bundle(&there));
    let leads = |root: &str, signed: &SignCertificateResponse| {
        leads(openssl, root, &signed.certificate_pem, &signed.chain_pem)
    };
    assert!(leads("bundle.pem", before) && leads("bundle.pem", during));
    let after = w.sign(&csr().1).await.unwrap();
    assert!(leads("new.pem", &after) && !leads("old.pem", &after));
    assert!(leads("old.pem", third), "what was given out leads there to its end");
    until("nobody is led to it", async || !whoami(&w.f, &w.f.admin).await).await;
    there.authorities[0].certificate_pem.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_issued_while_two_roots_stand_leads_to_either_and_later_to_the_new_one_alone() {
    for backend in BACKENDS {
        let mut w = World::on(backend).await;
        let openssl = OpenSsl::new();
        let a = w.f.connect(&w.f.admin).await;
        let asked = SignCertificateRequest {
            idempotency_key: "0123456789abcdef0123456789abcdef".to_owned(),
            ..order(&csr().1)
        };
        let before = w.etl.clone().sign_certificate(asked.clone()).await.unwrap().into_inner();
        assert_eq!(shown(&a, "root").await.versions[0].valid, 1);
        assert_eq!(rotate(&a, "root", 5).await, Err(Code::Aborted));
        rotate(&a, "root", 1).await.unwrap();
        assert_eq!(rotate(&a, "root", 0).await, Err(Code::FailedPrecondition), "two at the most");
        heard(&w.admin, 0, 2).await;
        let there = shows(&w.admin).await;
        let link = there.link.clone().unwrap();
        let named = there.authorities.iter().chain(&there.retiring).chain([&link]);
        let named: Vec<_> =
            named.map(|it| (it.name.as_str(), it.version, it.state.as_str())).collect();
        let wanted = [
            ("root", 2, "current"),
            ("issuing", 1, "current"),
            ("root", 1, "retiring"),
            ("root", 2, "link"),
        ];
        assert_eq!(named, wanted);
        assert_eq!(there.retiring[0].certificate_pem, w.f.root_pem);
        openssl.write("old.pem", &w.f.root_pem);
        openssl.write("new.pem", &there.authorities[0].certificate_pem);
        openssl.write("bundle.pem", bundle(&there));
        let leads = |root: &str, signed: &SignCertificateResponse| {
            leads(&openssl, root, &signed.certificate_pem, &signed.chain_pem)
        };
        let during = w.sign(&csr().1).await.unwrap();
        let again = w.etl.clone().sign_certificate(asked).await.unwrap().into_inner();
        assert!(again.replayed && again.certificate_pem == before.certificate_pem);
        for signed in [&during, &again] {
            assert!(leads("old.pem", signed) && leads("new.pem", signed));
        }
        assert!(leads("old.pem", &before) && !leads("new.pem", &before));
        assert!(leads("bundle.pem", &before) && leads("bundle.pem", &during));

        // An issuing CA that is rotated now is below the new root.
        rotate(&a, "issuing", 1).await.unwrap();
        heard(&w.admin, 1, 2).await;
        let third = w.sign(&csr().1).await.unwrap();
        assert!(leads("old.pem", &third) && leads("new.pem", &third));

        w.f.root_pem = lets_go(&mut w, &openssl, [&before, &during, &third]).await;
        assert!(whoami(&w.f, &w.f.admin).await);
        is_right(&w.f).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revocation_list_goes_on_below_a_new_root() {
    for backend in BACKENDS {
        let w = World::on(backend).await;
        let openssl = OpenSsl::new();
        let a = w.f.connect(&w.f.admin).await;
        let bad = w.sign(&csr().1).await.unwrap();
        rotate(&a, "root", 1).await.unwrap();
        heard(&w.admin, 0, 2).await;
        let good = w.sign(&csr().1).await.unwrap();
        revoke(&w.etl, &bad.certificate.as_ref().unwrap().id).await.unwrap();
        let list = async || {
            let asked =
                w.admin.clone().get_revocation_list(GetRevocationListRequest::default()).await;
            asked.ok().map(tonic::Response::into_inner).filter(|list| list.revoked == 1)
        };
        until("it is on the list", async || list().await.is_some()).await;
        openssl.write("list.pem", list().await.unwrap().crl_pem);
        openssl.write("chain.pem", &good.chain_pem);
        openssl.write("old.pem", &w.f.root_pem);
        openssl.write("new.pem", &shows(&w.admin).await.authorities[0].certificate_pem);
        for root in ["old.pem", "new.pem"] {
            let verify = |signed: &SignCertificateResponse| {
                openssl.write("leaf.pem", &signed.certificate_pem);
                let fixed = ["verify", "-crl_check", "-CAfile", root, "-untrusted", "chain.pem"];
                openssl.attempt(&[&fixed[..], &["-CRLfile", "list.pem", "leaf.pem"]].concat())
            };
            let (accepted, why) = verify(&good);
            assert!(accepted, "{root}: {why}");
            let (accepted, why) = verify(&bad);
            assert!(!accepted && why.contains("certificate revoked"), "{root}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_retired_without_force_once_what_came_with_it_alone_is_over() {
    let w = World::on(Backend::Sqlite).await;
    let a = w.f.connect(&w.f.admin).await;
    w.sign(&csr().1).await.unwrap();
    rotate(&a, "root", 1).await.unwrap();
    let old = shown(&a, "root").await.versions[1].clone();
    assert!(old.valid == 1 && old.valid_until_ms > 0, "{old:?}");
    assert_eq!(retire(&a, "root", 1, false).await, Err(Code::FailedPrecondition));
    heard(&w.admin, 0, 2).await;
    w.f.clock.advance(Duration::from_hours(2));
    retire(&a, "root", 1, false).await.unwrap();
    rotate(&a, "root", 2).await.unwrap();
    let wanted = [(3, "current"), (2, "retiring"), (1, "retired")];
    assert_eq!(states(&shown(&a, "root").await), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_that_are_rotated_at_once_are_below_the_root_that_stands_at_the_end() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let a = f.connect(&f.admin).await;
        let mut came_true = 0;
        for _ in 0..4 {
            let racing = ["root", "issuing", "root", "issuing"].map(|name| rotate(&a, name, 0));
            for done in futures_util::future::join_all(racing).await {
                match done {
                    Ok(()) => came_true += 1,
                    Err(code) => {
                        assert!(matches!(code, Code::Aborted | Code::FailedPrecondition), "{code}");
                    }
                }
            }
        }
        assert!(came_true > 0);
        // A start proves each certificate by the key above it.
        f.restart().await;
        let client = Client::new(f.connect(&f.admin).await);
        let there = shows(&client).await;
        let (openssl, root) = (OpenSsl::new(), &there.authorities[0]);
        openssl.write("root.pem", &root.certificate_pem);
        let issuing = there.authorities.iter().chain(&there.retiring);
        for one in issuing.filter(|one| one.name == "issuing") {
            openssl.write("issuing.pem", &one.certificate_pem);
            openssl.run(&["verify", "-CAfile", "root.pem", "issuing.pem"]);
        }
        is_right(&f).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_gives_out_the_old_chain_once_a_new_root_was_answered() {
    let w = World::on(Backend::Postgres).await;
    let other = w.f.second_node().await;
    let a = w.f.connect(&w.f.admin).await;
    let etl = login_over(a.clone(), "etl").await.unwrap();
    let there = Client::new(w.f.connect_to(&other, &etl).await);
    let asked = SignCertificateRequest {
        idempotency_key: "0123456789abcdef0123456789abcdef".to_owned(),
        ..order(&csr().1)
    };
    let signed = there.clone().sign_certificate(asked.clone()).await.unwrap().into_inner();
    assert_eq!(links(&signed), 1);
    rotate(&a, "root", 1).await.unwrap();
    until("the other node signs, and answers a retry", async || {
        for (request, again) in [(asked.clone(), true), (order(&csr().1), false)] {
            match there.clone().sign_certificate(request).await.map(tonic::Response::into_inner) {
                Ok(signed) => assert_eq!((links(&signed), signed.replayed), (2, again)),
                Err(status) => {
                    assert_eq!(status.code(), Code::Aborted, "{status}");
                    return false;
                }
            }
        }
        true
    })
    .await;
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_epoch_set_back_keeps_no_tainted_key_signing_for_more_than_a_second() {
    let w = World::on(Backend::Postgres).await;
    let other = w.f.second_node().await;
    let a = w.f.connect(&w.f.admin).await;
    let etl = login_over(a.clone(), "etl").await.unwrap();
    let mut there = Client::new(w.f.connect_to(&other, &etl).await);
    other.vault.watch_authority().await.unwrap();
    there.sign_certificate(order(&csr().1)).await.unwrap();
    // The other node has nothing to notice.
    Hand::new(&w.f.parts.location).hold_epoch().await;
    rotate(&a, "issuing", 0).await.unwrap();
    w.f.clock.advance(Duration::from_secs(2));
    for _ in 0..2 {
        let refused = there.sign_certificate(order(&csr().1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
    }
    other.stop().await.unwrap();
}
