//! A second token as the recipient: it opens a vault whose HSM is lost, alone, and no other does.

use strongroom::crypto::{CryptoError, HpkePublic};
use strongroom::hsm::KeyKind;
use strongroom::keyring::{KeyringError, SetOpener, accept_share, make_token_key};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{RotateIdentityKeyRequest, ShredIdentityRequest};

use super::*;

/// An empty token that somebody is logged into.
async fn spare() -> Arc<dyn Hsm> {
    let token = MemoryHsm::new(pin());
    token.login(pin()).await.unwrap();
    Arc::new(token)
}

/// Makes a key in a token.
async fn key_of(token: &Arc<dyn Hsm>) -> HpkePublic {
    key_named(token, "spare").await
}

async fn key_named(token: &Arc<dyn Hsm>, name: &str) -> HpkePublic {
    make_token_key(token.as_ref(), &name.parse().unwrap()).await.unwrap()
}

fn request(public: &[u8]) -> CreateRecoverySetRequest {
    request_named("spare", public)
}

fn request_named(name: &str, public: &[u8]) -> CreateRecoverySetRequest {
    let token = RecoveryHolder { name: name.into(), public_key: hex(public), ..Default::default() };
    CreateRecoverySetRequest { token: Some(token), ..Default::default() }
}

/// Has a token take what the vault shares with it.
async fn accept(token: &Arc<dyn Hsm>, set: &RecoverySet) -> Result<(), KeyringError> {
    let of = Share {
        vault: set.vault_id.parse().unwrap(),
        set: set.id.parse().unwrap(),
        threshold: u8::try_from(set.threshold).unwrap(),
        holder: &set.holders[0].name,
    };
    let sealed = STANDARD.decode(&set.holders[0].sealed_share).unwrap();
    accept_share(token, &of, &sealed).await
}

async fn try_token(f: &Fixture, token: &Arc<dyn Hsm>) -> Result<VaultRecovered> {
    recover_vault(&f.parts, &SetOpener::Token(Arc::clone(token)), pin()).await
}

/// Makes a token the recipient of every key.
async fn with_spare(place: &Place) -> (Channel, Arc<dyn Hsm>, RecoverySet) {
    let admin = place.f.connect(&place.f.admin).await;
    let token = spare().await;
    let set = create(&admin, request(key_of(&token).await.as_bytes())).await.unwrap();
    assert_eq!((set.custody.as_str(), set.threshold, set.holders.len()), ("token", 1, 1));
    covered(&admin).await;
    (admin, token, set)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_whose_hsm_is_lost_opens_with_the_second_token_alone_and_then_in_it() {
    for backend in BACKENDS {
        let mut place = Place::new(backend).await;
        put(&mut place.alice(), "team/before", b"from before", 0).await.unwrap();
        let (admin, token, set) = with_spare(&place).await;
        let ml = machine(&place.f, "ml").await;
        place.grant("ml", "put", "secrets/ml/**").await;
        place.grant("ml", "get", "secrets/ml/**").await;
        put(&mut client(&ml), "ml/after", b"from after", 0).await.unwrap();
        let rotate = RotateIdentityKeyRequest { name: "alice".into(), expected_version: 0 };
        IdentityServiceClient::new(admin.clone()).rotate_identity_key(rotate).await.unwrap();
        put(&mut place.alice(), "team/rotated", b"under the next", 0).await.unwrap();
        let keys = covered(&admin).await;
        place.f.node.take().unwrap().stop().await.unwrap();

        refused_as_it_should(&mut place.f, &token, &set).await;
        let done = try_token(&place.f, &token).await.unwrap();
        assert_eq!((i64::try_from(done.wrapped).unwrap(), done.lost), (keys, 0), "{done:?}");

        let node = Node::start(place.f.parts.clone(), pin()).await.unwrap();
        place.f.root_pem = node.root_pem.clone();
        place.f.node = Some(node);
        let admin = back(&mut place.f, "admin").await;
        let alice = place.f.connect(&login(&place.f, "alice").await).await;
        for (path, value) in
            [("team/before", &b"from before"[..]), ("team/rotated", b"under the next")]
        {
            assert_eq!(get(&mut client(&alice), path, 0).await, Ok(value.to_vec()), "{path}");
        }
        let ml = place.f.connect(&login(&place.f, "ml").await).await;
        let after = get(&mut client(&ml), "ml/after", 0).await;
        assert_eq!(after, Ok(b"from after".to_vec()));
        put(&mut client(&alice), "team/new", b"since", 0).await.unwrap();
        let keys = covered(&admin).await;
        seen(&place.f, &admin).await;

        // That one is lost as well, and nothing is left but the second token.
        place.f.node.take().unwrap().stop().await.unwrap();
        place.f.parts.hsm = Arc::clone(&token);
        let done = try_token(&place.f, &token).await.unwrap();
        assert_eq!((i64::try_from(done.wrapped).unwrap(), done.lost), (keys, 0), "{done:?}");
        Node::start(place.f.parts.clone(), pin()).await.unwrap().stop().await.unwrap();
    }
}

/// Whoever has not the token, the whole of it, is refused, and so is everybody while the HSM is there.
async fn refused_as_it_should(f: &mut Fixture, token: &Arc<dyn Hsm>, set: &RecoverySet) {
    let early = try_token(f, token).await.unwrap_err();
    assert_eq!(early.reason(), "PRECONDITION", "it has taken nothing yet: {early}");
    accept(token, set).await.unwrap();
    let still = try_token(f, token).await.unwrap_err();
    assert_eq!(still.reason(), "ALREADY_EXISTS", "the HSM is there: {still}");
    other_hsm(f);
    let label = format!("strongroom/{}/recovery/{}", set.vault_id, set.id);
    let kept = token.read_data(&label).await.unwrap().unwrap();
    let other = spare().await;
    let refused = try_token(f, &other).await.unwrap_err();
    assert_eq!(refused.reason(), "PRECONDITION", "an empty token: {refused}");
    other.write_data(&label, &kept).await.unwrap();
    let refused = try_token(f, &other).await.unwrap_err();
    assert_eq!(refused.reason(), "PRECONDITION", "one without the key: {refused}");
    key_of(&other).await;
    let refused = try_token(f, &other).await.unwrap_err();
    assert_eq!(refused.reason(), "PRECONDITION", "one with another key: {refused}");
    assert_eq!(accept(&other, set).await, Err(KeyringError::Crypto(CryptoError::Open)));
    // Whoever knows the public half alone makes no vault that the token opens.
    let mut forged = kept.clone();
    forged[7] ^= 1;
    token.write_data(&label, &forged).await.unwrap();
    let refused = try_token(f, token).await.unwrap_err();
    assert_eq!(refused.reason(), "PRECONDITION", "another shared key: {refused}");
    accept(token, set).await.unwrap();
    assert_eq!(token.read_data(&label).await, Ok(Some(kept)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_whose_key_was_destroyed_in_the_token_does_not_stand_before_another() {
    let mut place = Place::new(Backend::Sqlite).await;
    put(&mut place.alice(), "team/db", b"canary", 0).await.unwrap();
    let (admin, token, first) = with_spare(&place).await;
    let next = key_named(&token, "next").await;
    let second = create(&admin, request_named("next", next.as_bytes())).await.unwrap();
    covered(&admin).await;
    for set in [&first, &second] {
        accept(&token, set).await.unwrap();
    }
    place.f.node.take().unwrap().stop().await.unwrap();
    other_hsm(&mut place.f);
    // Of which of the two is looked at first the other's key is left.
    let gone = if first.id < second.id { "spare" } else { "next" };
    token.destroy_key(&format!("strongroom/recovery/{gone}")).await.unwrap();
    let done = try_token(&place.f, &token).await.unwrap();
    assert_eq!(done.lost, 0, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_was_removed_opens_nothing_and_what_was_shredded_neither() {
    for backend in BACKENDS {
        let mut place = Place::new(backend).await;
        put(&mut place.alice(), "team/db", b"canary", 0).await.unwrap();
        let (admin, token, set) = with_spare(&place).await;
        accept(&token, &set).await.unwrap();
        let hand = Hand::new(&place.f.parts.location);
        let alices = "SELECT w.key_id FROM key_wraps w JOIN identity_keys k ON k.id = w.key_id \
                      JOIN identities i ON i.id = k.owner WHERE i.name = 'alice' AND w.suite = 3";
        assert_eq!(hand.ask(alices).await.len(), 1);
        let name = "alice".to_owned();
        let shred =
            ShredIdentityRequest { confirm: name.clone(), name, reason: "a test".to_owned() };
        IdentityServiceClient::new(admin.clone()).shred_identity(shred).await.unwrap();
        assert!(hand.ask(alices).await.is_empty(), "its wraps for the token are gone");

        // As a copy from before has them.
        hand.run("CREATE TABLE kept AS SELECT * FROM key_wraps WHERE suite = 3").await;
        let destroy = DestroyRecoverySetRequest { id: set.id, reason: "a test".into() };
        let mut client = RecoverySetServiceClient::new(admin.clone());
        let destroyed = client.destroy_recovery_set(destroy).await.unwrap().into_inner();
        let destroyed = destroyed.set.unwrap();
        assert_eq!((destroyed.custody.as_str(), destroyed.keys_covered), ("token", 0));
        place.f.node.take().unwrap().stop().await.unwrap();
        other_hsm(&mut place.f);
        let refused = try_token(&place.f, &token).await.unwrap_err();
        assert_eq!(refused.reason(), "PRECONDITION", "{refused}");
        hand.run("INSERT INTO key_wraps SELECT * FROM kept; DROP TABLE kept").await;
        let refused = try_token(&place.f, &token).await.unwrap_err();
        assert_eq!(refused.reason(), "PRECONDITION", "put back by hand: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_of_a_token_is_refused_and_leaves_nothing() {
    let f = Fixture::on(Backend::Sqlite).await;
    let admin = f.connect(&f.admin).await;
    let token = spare().await;
    let public = key_of(&token).await;
    assert_eq!(key_of(&token).await, public, "a second time it is shown again");
    let (good, holders) = (request(public.as_bytes()), Holders::new(&["ann", "ben"]));
    let mut beside = public.as_bytes().to_vec();
    beside[64] ^= 1;
    let mut named = good.clone();
    named.token.as_mut().unwrap().name = "../x".to_owned();
    let mut among = holders.request(2);
    among.holders[0].public_key = hex(public.as_bytes());
    let both = CreateRecoverySetRequest { token: good.token.clone(), ..holders.request(2) };
    for bad in [
        request(&beside),
        request(&public.as_bytes()[1..]),
        request(hpke_public(&holders.0[0].1).unwrap().as_bytes()),
        request(&[]),
        named,
        among,
        both,
        CreateRecoverySetRequest { threshold: 1, ..good.clone() },
        CreateRecoverySetRequest::default(),
    ] {
        let refused = create(&admin, bad.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}: {refused}");
    }
    assert!(sets(&admin).await.is_empty(), "nothing of it is left");

    // A key of another kind has the name.
    let other = spare().await;
    other.create_key("strongroom/recovery/spare", KeyKind::EcdsaP256).await.unwrap();
    let refused = make_token_key(other.as_ref(), &"spare".parse().unwrap()).await;
    assert!(matches!(refused, Err(KeyringError::Unfit(_))), "{refused:?}");
}
