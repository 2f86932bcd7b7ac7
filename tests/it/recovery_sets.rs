//! A vault whose HSM is lost: made with a recovery set, opened again with enough of its shares in
//! another HSM, and with fewer not at all.

pub(crate) mod program;
mod token;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use strongroom::Result;
use strongroom::crypto::{hex, hpke_private, hpke_public};
use strongroom::hsm::{Hsm, MemoryHsm};
use strongroom::keyring::{SetKey, SetOpener, Share};
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::recovery_set_service_client::RecoverySetServiceClient;
use strongroom::proto::{
    CreateRecoverySetRequest, DestroyRecoverySetRequest, EntryFilter, ListEntriesRequest,
    ListRecoverySetsRequest, RecoveryHolder, RecoverySet, VerifyStateRequest,
};
use strongroom::server::{Node, VaultRecovered, recover_vault};
use strongroom::types::{SecretBytes, SystemEntropy};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::root::authorities::issuer;
use crate::secrets::{Place, client, get, put};
use crate::support::hand::Hand;
use crate::support::logins::{login, machine};
use crate::support::node::{BACKENDS, Backend, Fixture, Login, PIN, csr, pin};
use crate::support::recovery::recover;
use crate::support::target::until;

/// Who holds which share, and with which key.
pub(crate) struct Holders(Vec<(String, SecretBytes)>);

impl Holders {
    pub(crate) fn new(names: &[&str]) -> Self {
        let key = |name: &&str| ((*name).to_owned(), hpke_private(&SystemEntropy).unwrap());
        Self(names.iter().map(key).collect())
    }

    pub(crate) fn request(&self, threshold: i32) -> CreateRecoverySetRequest {
        let holder = |(name, key): &(String, SecretBytes)| RecoveryHolder {
            name: name.clone(),
            public_key: hex(hpke_public(key).unwrap().as_bytes()),
            sealed_share: String::new(),
        };
        let holders = self.0.iter().map(holder).collect();
        CreateRecoverySetRequest { threshold, holders, token: None }
    }

    /// The shares of some of them, opened.
    fn open(&self, set: &RecoverySet, which: &[usize]) -> Vec<SecretBytes> {
        let open = |nth: &usize| {
            let (name, key) = &self.0[*nth];
            let of = Share {
                vault: set.vault_id.parse().unwrap(),
                set: set.id.parse().unwrap(),
                threshold: u8::try_from(set.threshold).unwrap(),
                holder: name,
            };
            of.open(key, &STANDARD.decode(&set.holders[*nth].sealed_share).unwrap()).unwrap()
        };
        which.iter().map(open).collect()
    }
}

async fn sets(admin: &Channel) -> Vec<RecoverySet> {
    let mut client = RecoverySetServiceClient::new(admin.clone());
    client.list_recovery_sets(ListRecoverySetsRequest {}).await.unwrap().into_inner().sets
}

pub(crate) async fn create(
    admin: &Channel,
    request: CreateRecoverySetRequest,
) -> std::result::Result<RecoverySet, Status> {
    let mut client = RecoverySetServiceClient::new(admin.clone());
    Ok(client.create_recovery_set(request).await?.into_inner().set.unwrap())
}

/// Waits until every key is wrapped for every set.
pub(crate) async fn covered(admin: &Channel) -> i64 {
    until("every key is covered", async || {
        sets(admin).await.iter().all(|set| set.keys_covered == set.keys_total)
    })
    .await;
    sets(admin).await[0].keys_total
}

/// Tries to recover into the fixture's HSM.
async fn try_with(
    f: &Fixture,
    set: &RecoverySet,
    shares: &[SecretBytes],
) -> Result<VaultRecovered> {
    let of = (set.vault_id.parse().unwrap(), set.id.parse().unwrap());
    let key = SetKey::join(of, shares)?;
    recover_vault(&f.parts, &SetOpener::Shares(key), pin()).await
}

fn other_hsm(f: &mut Fixture) {
    f.hsm = Arc::new(MemoryHsm::new(SecretBytes::new(PIN.to_vec())));
    f.parts.hsm = Arc::clone(&f.hsm) as Arc<dyn Hsm>;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_whose_hsm_is_lost_opens_again_with_enough_shares_in_another() {
    for backend in BACKENDS {
        let mut place = Place::new(backend).await;
        put(&mut place.alice(), "team/before", b"from before", 0).await.unwrap();
        let admin = place.f.connect(&place.f.admin).await;
        let holders = Holders::new(&["ann", "ben", "cem"]);
        let set = create(&admin, holders.request(2)).await.unwrap();
        // What was there is wrapped for it by a worker, what is new as it is made.
        covered(&admin).await;
        let ml = machine(&place.f, "ml").await;
        place.grant("ml", "put", "secrets/ml/**").await;
        place.grant("ml", "get", "secrets/ml/**").await;
        put(&mut client(&ml), "ml/after", b"from after", 0).await.unwrap();
        let keys = covered(&admin).await;

        place.f.node.take().unwrap().stop().await.unwrap();
        let enough = holders.open(&set, &[2, 0]);
        let still = try_with(&place.f, &set, &enough).await.unwrap_err();
        assert_eq!(still.reason(), "ALREADY_EXISTS", "the HSM is there: {still}");
        other_hsm(&mut place.f);
        for few in [&[1][..], &[]] {
            let refused = try_with(&place.f, &set, &holders.open(&set, few)).await;
            assert!(refused.is_err(), "{refused:?}");
        }
        let mut bent = enough.clone();
        let mut bytes = bent[0].expose().to_vec();
        bytes[7] ^= 1;
        bent[0] = SecretBytes::new(bytes);
        let refused = try_with(&place.f, &set, &bent).await.unwrap_err();
        assert_eq!(refused.reason(), "PRECONDITION", "{refused}");
        // What one that came to nothing wrapped, for a key of that name in a token that is gone too.
        let stale = format!(
            "INSERT INTO key_wraps (key_id, recipient, suite, blob) \
             SELECT key_id, 'strongroom/{}/root/2', suite, blob FROM key_wraps WHERE suite = 1",
            set.vault_id
        );
        Hand::new(&place.f.parts.location).run(&stale).await;
        let done = try_with(&place.f, &set, &enough).await.unwrap();
        assert_eq!((i64::try_from(done.wrapped).unwrap(), done.lost), (keys, 0), "{done:?}");
        let again = try_with(&place.f, &set, &enough).await.unwrap_err();
        assert_eq!(again.reason(), "ALREADY_EXISTS", "{again}");

        let node = Node::start(place.f.parts.clone(), pin()).await.unwrap();
        let (lost, made) = (issuer(&place.f.root_pem), issuer(&node.root_pem));
        assert!(made != lost && made.contains("v2"), "{lost} and {made}: each has its name");
        place.f.root_pem = node.root_pem.clone();
        place.f.node = Some(node);
        let admin = back(&mut place.f, "admin").await;
        let alice = place.f.connect(&login(&place.f, "alice").await).await;
        let before = get(&mut client(&alice), "team/before", 0).await;
        assert_eq!(before, Ok(b"from before".to_vec()));
        let ml = place.f.connect(&login(&place.f, "ml").await).await;
        let after = get(&mut client(&ml), "ml/after", 0).await;
        assert_eq!(after, Ok(b"from after".to_vec()));
        put(&mut client(&alice), "team/new", b"since", 0).await.unwrap();
        covered(&admin).await;
        seen(&place.f, &admin).await;
    }
}

/// Gets an administrator in again, who has no login of the new authority: an hour, and the PIN.
async fn back(f: &mut Fixture, name: &str) -> Channel {
    let (key_pem, request) = csr();
    assert!(recover(f, f.node(), name, &request).await.unwrap().login.is_none());
    f.clock.advance(Duration::from_hours(1));
    let done = recover(f, f.node(), name, &request).await.unwrap();
    let certificate_pem = done.login.unwrap().pem();
    f.admin = Login { key_pem, certificate_pem };
    f.connect(&f.admin).await
}

/// The recovery is on the record, and the record is what the tables say.
async fn seen(f: &Fixture, admin: &Channel) {
    f.node().vault.integrate().await.unwrap();
    let mut records = RecordServiceClient::new(admin.clone());
    let filter = EntryFilter { action: "system.recover".into(), ..EntryFilter::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 10, ..Default::default() };
    let entries = records.list_entries(request).await.unwrap().into_inner().entries;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].detail.contains("0 lost"), "{entries:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_made_of_holders_that_differ_and_destroyed_with_its_wraps() {
    let f = Fixture::on(Backend::Sqlite).await;
    let admin = f.connect(&f.admin).await;
    let holders = Holders::new(&["ann", "ben", "cem"]);
    for (threshold, change) in [
        (1, None),
        (4, None),
        (-1, None),
        (2, Some(("ben".to_owned(), String::new()))),
        (2, Some((String::new(), hex(hpke_public(&holders.0[1].1).unwrap().as_bytes())))),
        (2, Some((String::new(), "00".to_owned()))),
        (2, Some(("../x".to_owned(), String::new()))),
        (2, Some((String::new(), "00".repeat(32)))),
    ] {
        let mut request = holders.request(threshold);
        if let Some((name, key)) = &change {
            if !name.is_empty() {
                request.holders[0].name.clone_from(name);
            }
            if !key.is_empty() {
                request.holders[0].public_key.clone_from(key);
            }
        }
        let refused = create(&admin, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{threshold} {change:?}: {refused}");
    }
    assert!(sets(&admin).await.is_empty(), "nothing of it is left");

    let set = create(&admin, holders.request(2)).await.unwrap();
    covered(&admin).await;
    let hand = Hand::new(&f.parts.location);
    let wraps = async || hand.ask("SELECT key_id FROM key_wraps WHERE suite = 2").await.len();
    assert!(wraps().await > 0);
    let destroy = DestroyRecoverySetRequest { id: set.id.clone(), reason: "a test".into() };
    let mut client = RecoverySetServiceClient::new(admin.clone());
    client.destroy_recovery_set(destroy.clone()).await.unwrap();
    assert_eq!(wraps().await, 0);
    let twice = client.destroy_recovery_set(destroy).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition);
    let left = &sets(&admin).await[0];
    assert_eq!((left.state.as_str(), left.holders.len()), ("destroyed", 0));
}
