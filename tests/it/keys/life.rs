//! What a key does from its making on.

use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    CreateKeyRequest, Entry, EntryFilter, GetRandomRequest, ListEntriesRequest, ListKeysRequest,
    MakeDataKeyRequest, UpdateKeyRequest,
};
use tonic::Code;

use super::{
    CIPHERS, Place, create, decrypt, decrypt_all, encrypt, encrypt_all, rewrap, rotate, show, spec,
    update,
};
use crate::support::node::{BACKENDS, Fixture};

async fn entries(f: &Fixture, action: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter { action: action.to_owned(), ..Default::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_encrypts_it_decrypts_and_the_record_says_with_what() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for cipher in CIPHERS {
            let name = format!("team/{cipher}");
            let key = create(&mut alice, &name, cipher).await;
            assert_eq!((key.version, key.min_version, key.owner.as_str()), (1, 1, "alice"));
            assert_eq!((key.placement.as_str(), key.state.as_str()), ("sealed", "active"));
            let done = encrypt_all(&mut alice, &name, &[(b"canary", b"row 7")]).await.unwrap();
            let used = done.used.clone().unwrap();
            assert_eq!((used.id, used.version), (key.id.clone(), 1));
            assert_eq!((used.placement.as_str(), used.algorithm.as_str()), ("sealed", cipher));
            let ciphertext = done.results[0].ciphertext.clone();
            assert!(!ciphertext.windows(6).any(|part| part == b"canary"));
            let opened = decrypt(&mut alice, &name, &ciphertext, b"row 7").await;
            assert_eq!(opened, Ok((b"canary".to_vec(), 1)));
            for wrong in [&b""[..], b"row 8", b"row 7 "] {
                let told = decrypt(&mut alice, &name, &ciphertext, wrong).await;
                assert_eq!(told, Err("DOES_NOT_OPEN".to_owned()));
            }
            let entry = entries(&p.f, "keys.encrypt").await.remove(0);
            let used = entry.keys.iter().find(|used| used.key == key.id).unwrap();
            assert_eq!((used.version, used.purpose.as_str()), (1, "encrypt/sealed"));
            assert_eq!((entry.outcome.as_str(), entry.detail.as_str()), ("ok", "1 item"));
        }
        let entry = entries(&p.f, "keys.decrypt").await.remove(0);
        assert_eq!(entry.outcome, "NONE_DONE");
        assert_eq!(entry.detail, "1 item, not done: 0:DOES_NOT_OPEN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_used_at_once_and_old_versions_open_until_they_are_retired() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for cipher in CIPHERS {
            let name = format!("team/{cipher}");
            create(&mut alice, &name, cipher).await;
            let first = encrypt(&mut alice, &name, b"one", b"").await.unwrap();
            assert_eq!(rotate(&mut alice, &name, 1).await, Ok(2));
            assert_eq!(rotate(&mut alice, &name, 1).await, Err(Code::Aborted));
            let second = encrypt(&mut alice, &name, b"two", b"").await.unwrap();
            assert_eq!(decrypt(&mut alice, &name, &second, b"").await, Ok((b"two".to_vec(), 2)));
            assert_eq!(decrypt(&mut alice, &name, &first, b"").await, Ok((b"one".to_vec(), 1)));
            let again = rewrap(&mut alice, &name, &first).await;
            assert_eq!(decrypt(&mut alice, &name, &again, b"").await, Ok((b"one".to_vec(), 2)));
            let retire = |request: UpdateKeyRequest| UpdateKeyRequest { min_version: 2, ..request };
            assert_eq!(update(&mut alice, &name, retire).await.unwrap().min_version, 2);
            let told = decrypt(&mut alice, &name, &first, b"").await;
            assert_eq!(told, Err("RETIRED".to_owned()));
            assert_eq!(decrypt(&mut alice, &name, &again, b"").await, Ok((b"one".to_vec(), 2)));
            // It only ever rises, and not beyond what there is.
            for (min_version, code) in [(1, Code::FailedPrecondition), (3, Code::InvalidArgument)] {
                let set = |request: UpdateKeyRequest| UpdateKeyRequest { min_version, ..request };
                assert_eq!(update(&mut alice, &name, set).await.unwrap_err().code(), code);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_a_batch_has_its_answer() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "aes-256-gcm").await;
        create(&mut alice, "team/b", "aes-256-gcm").await;
        let texts: Vec<_> = (0..1_000_u32).map(u32::to_be_bytes).collect();
        let items: Vec<(&[u8], &[u8])> = texts.iter().map(|text| (&text[..], &b""[..])).collect();
        let done = encrypt_all(&mut alice, "team/a", &items).await.unwrap();
        let mut ciphertexts: Vec<_> = done.results.into_iter().map(|one| one.ciphertext).collect();
        let foreign = encrypt(&mut alice, "team/b", b"x", b"").await.unwrap();
        ciphertexts[3] = foreign;
        ciphertexts[5][40] ^= 1;
        ciphertexts[7] = b"no ciphertext".to_vec();
        let items: Vec<(&[u8], &[u8])> =
            ciphertexts.iter().map(|text| (text.as_slice(), &b""[..])).collect();
        let opened = decrypt_all(&mut alice, "team/a", &items).await.unwrap();
        for (at, one) in opened.iter().enumerate() {
            let reason = one.fault.as_ref().map(|fault| fault.reason.as_str());
            let wanted = match at {
                3 => Some("OTHER_KEY"),
                5 => Some("DOES_NOT_OPEN"),
                7 => Some("INVALID"),
                _ => None,
            };
            assert_eq!(reason, wanted, "{at}");
            let text: &[u8] = if wanted.is_none() { &texts[at] } else { b"" };
            assert_eq!(one.plaintext, text, "{at}");
        }
        let entry = entries(&p.f, "keys.decrypt").await.remove(0);
        assert_eq!(entry.outcome, "SOME_DONE");
        let said = "1000 items, not done: 3:OTHER_KEY 5:DOES_NOT_OPEN 7:INVALID";
        assert_eq!(entry.detail, said);
        // Nonces are drawn ahead: none is given twice.
        let mut nonces: Vec<_> = ciphertexts.iter().filter_map(|text| text.get(21..33)).collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), 999);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_is_given_with_its_ciphertext_or_its_ciphertext_alone() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "xaes-256-gcm").await;
        for (len_bytes, wanted) in [(0, 32), (16, 16), (32, 32), (64, 64)] {
            let request = MakeDataKeyRequest {
                name: "team/a".into(),
                associated_data: b"file".to_vec(),
                len_bytes,
                wrapped_only: false,
            };
            let made = alice.make_data_key(request.clone()).await.unwrap().into_inner();
            assert_eq!(made.plaintext.len(), wanted);
            let opened = decrypt(&mut alice, "team/a", &made.ciphertext, b"file").await;
            assert_eq!(opened, Ok((made.plaintext.clone(), 1)));
            let request = MakeDataKeyRequest { wrapped_only: true, ..request };
            let made = alice.make_data_key(request).await.unwrap().into_inner();
            assert!(made.plaintext.is_empty());
            let (opened, _) =
                decrypt(&mut alice, "team/a", &made.ciphertext, b"file").await.unwrap();
            assert_eq!(opened.len(), wanted);
        }
        let bytes = alice.get_random(GetRandomRequest { len_bytes: 65_536 }).await.unwrap();
        let bytes = bytes.into_inner().data.clone();
        assert!(bytes.len() == 65_536 && bytes.chunks(16).all(|part| part != [0; 16]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_does_nothing_until_it_is_enabled() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "aes-256-gcm").await;
        let ciphertext = encrypt(&mut alice, "team/a", b"x", b"").await.unwrap();
        let turn = |state: &str| {
            let state = state.to_owned();
            move |request: UpdateKeyRequest| UpdateKeyRequest { state, ..request }
        };
        update(&mut alice, "team/a", turn("disabled")).await.unwrap();
        let told = encrypt(&mut alice, "team/a", b"x", b"").await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition);
        let told = decrypt(&mut alice, "team/a", &ciphertext, b"").await.unwrap_err();
        assert!(told.contains("state"), "{told}");
        update(&mut alice, "team/a", turn("active")).await.unwrap();
        assert!(decrypt(&mut alice, "team/a", &ciphertext, b"").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_rotates_by_itself_when_its_time_has_come() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    let request = CreateKeyRequest { rotate_every_s: 3_600, ..spec("team/a", "aes-256-gcm") };
    let key = alice.create_key(request).await.unwrap().into_inner().key.unwrap();
    assert!(key.rotates_at_ms > key.created_at_ms);
    p.f.clock.advance(std::time::Duration::from_secs(3_601));
    crate::support::target::until("it rotates", async || {
        show(&mut p.alice(), "team/a").await.unwrap().key.unwrap().version == 2
    })
    .await;
    let entry = entries(&p.f, "keys.rotate").await.remove(0);
    assert_eq!(entry.identity, "system/key_keeper");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_key_that_the_first_try_made() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for (name, algorithm) in [("team/a", "aes-256-gcm"), ("team/b", "ecdsa-p256")] {
            let idempotency_key = format!("a key of 128 bits {name}").replace(' ', "-");
            let request = CreateKeyRequest { idempotency_key, ..spec(name, algorithm) };
            let first = alice.create_key(request.clone()).await.unwrap().into_inner().key.unwrap();
            let again = alice.create_key(request).await.unwrap().into_inner().key.unwrap();
            assert_eq!(first, again);
            let taken = alice.create_key(spec(name, algorithm)).await.unwrap_err();
            assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
            assert_eq!(show(&mut alice, name).await.unwrap().versions.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_keys_to_who_may_do_something_with_them() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for name in ["team/a", "team/b", "team/sub/c"] {
            create(&mut alice, name, "xaes-256-gcm").await;
        }
        p.grant("etl", "encrypt", "keys/team/b").await;
        let listed = async |client: &mut super::Client, prefix: &str, page_size| {
            let (mut names, mut page_token) = (Vec::new(), String::new());
            loop {
                let prefix = prefix.to_owned();
                let request =
                    ListKeysRequest { page_size, page_token, prefix, ..Default::default() };
                let page = client.list_keys(request).await.unwrap().into_inner();
                names.extend(page.keys.into_iter().map(|key| key.name));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return names;
                }
            }
        };
        assert_eq!(listed(&mut alice, "", 1).await, ["team/a", "team/b", "team/sub/c"]);
        assert_eq!(listed(&mut alice, "team/s", 0).await, ["team/sub/c"]);
        assert_eq!(listed(&mut p.etl(), "", 1).await, ["team/b"]);
    }
}
