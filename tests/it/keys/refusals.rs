//! What is refused: who may not, and what is no proper request.

use strongroom::proto::{
    CreateKeyRequest, EncryptItem, EncryptRequest, EncryptResponse, EncryptStreamRequest,
    ExportKeyRequest, GetRandomRequest, MacItem, MacRequest, MakeDataKeyRequest, RewrapRequest,
    SignItem, SignRequest, UpdateKeyRequest, VerifyItem, VerifyMacItem, VerifyMacRequest,
    VerifyRequest,
};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{
    CIPHERS, Place, create, decrypt, decrypt_all, encrypt, encrypt_all, rotate, sealed, show, spec,
    update,
};
use crate::support::node::BACKENDS;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_grant_learns_nothing_of_a_key() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        let mut told = Vec::new();
        for name in ["team/a", "team/none"] {
            let mut etl = p.etl();
            let encrypted = encrypt(&mut etl, name, b"x", b"").await.unwrap_err();
            let shown = show(&mut etl, name).await.unwrap_err();
            let made = etl.create_key(spec(name, "aes-256-gcm")).await.unwrap_err();
            let rotated = rotate(&mut etl, name, 0).await.unwrap_err();
            told.push([encrypted.code(), shown.code(), made.code(), rotated]);
            assert_eq!(told[0], [Code::PermissionDenied; 4]);
        }
        assert_eq!(told[0], told[1]);
        // A right to encrypt is none to decrypt.
        p.grant("etl", "encrypt", "keys/team/a").await;
        let ciphertext = encrypt(&mut p.etl(), "team/a", b"x", b"").await.unwrap();
        assert!(decrypt(&mut p.etl(), "team/a", &ciphertext, b"").await.is_err());
        assert!(decrypt(&mut p.alice(), "team/a", &ciphertext, b"").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_thing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for (name, algorithm) in
            [("team/enc", "aes-256-gcm"), ("team/mac", "hmac-sha-256"), ("team/sig", "ecdsa-p256")]
        {
            create(&mut alice, name, algorithm).await;
        }
        let name = |name: &str| name.to_owned();
        for other in ["team/mac", "team/sig"] {
            let told = encrypt(&mut alice, other, b"x", b"").await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let request = MakeDataKeyRequest { name: name(other), ..Default::default() };
            let told = alice.make_data_key(request).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let told = decrypt(&mut alice, other, &[1; 60], b"").await;
            assert_eq!(told, Err(Code::InvalidArgument.to_string()));
            let items = sealed(&[(&[1; 60], b"")]);
            let told = alice.rewrap(RewrapRequest { name: name(other), items }).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let first = EncryptStreamRequest { name: name(other), ..Default::default() };
            let told = alice.encrypt_stream(tokio_stream::iter([first])).await;
            assert_eq!(told.map(drop).unwrap_err().code(), Code::InvalidArgument);
        }
        for other in ["team/enc", "team/sig"] {
            let items = vec![MacItem { message: b"x".to_vec() }];
            let told = alice.mac(MacRequest { name: name(other), items }).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let items =
                vec![VerifyMacItem { message: b"x".to_vec(), mac: vec![0; 32], version: 1 }];
            let request = VerifyMacRequest { name: name(other), items };
            let told = alice.verify_mac(request).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
        }
        for other in ["team/enc", "team/mac"] {
            let items = vec![SignItem { message: b"x".to_vec() }];
            let told = alice.sign(SignRequest { name: name(other), items }).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let item = VerifyItem { message: b"x".to_vec(), signature: vec![0; 64], version: 1 };
            let request = VerifyRequest { name: name(other), items: vec![item] };
            let told = alice.verify(request).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
            let request = ExportKeyRequest { name: name(other), version: 0 };
            let told = alice.export_key(request).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_proper_item_is_told_for_itself() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "aes-256-gcm").await;
        let (large, long) = (vec![b'x'; 1_024 * 1_024 + 1], vec![b'x'; 65_537]);
        for (plaintext, aad) in [(&b""[..], &b""[..]), (&large, b""), (b"x", &long)] {
            let done = encrypt_all(&mut alice, "team/a", &[(plaintext, aad)]).await.unwrap();
            let one = &done.results[0];
            assert_eq!(one.fault.as_ref().unwrap().reason, "INVALID");
            assert!(one.ciphertext.is_empty());
        }
        let most = vec![b'x'; 1_024 * 1_024];
        let ciphertext = encrypt(&mut alice, "team/a", &most, b"").await.unwrap();
        assert_eq!(decrypt(&mut alice, "team/a", &ciphertext, b"").await, Ok((most, 1)));
        // None, or too many.
        for count in [0, 1_001] {
            let items = vec![EncryptItem::default(); count];
            let request = EncryptRequest { name: "team/a".into(), items };
            let told = alice.encrypt(request).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
        }
        let small = encrypt(&mut alice, "team/a", b"canary", b"a").await.unwrap();
        for len_bytes in 0..small.len() {
            let told = decrypt(&mut alice, "team/a", &small[..len_bytes], b"a").await.unwrap_err();
            let cut = ["INVALID", "DOES_NOT_OPEN"].contains(&told.as_str());
            assert!(cut, "{len_bytes}: {told}");
        }
        for len_bytes in [-1, 0, 65_537] {
            let told = alice.get_random(GetRandomRequest { len_bytes }).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{told}");
        }
        let request =
            MakeDataKeyRequest { name: "team/a".into(), len_bytes: 24, ..Default::default() };
        assert_eq!(alice.make_data_key(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_never_were_are_refused_and_open_nothing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "aes-256-gcm").await;
        create(&mut alice, "team/m", "hmac-sha-512").await;
        create(&mut alice, "team/s", "ed25519").await;
        let ciphertext = encrypt(&mut alice, "team/a", b"x", b"").await.unwrap();
        for version in [0_u32, 2, u32::MAX] {
            let mut forged = ciphertext.clone();
            forged[17..21].copy_from_slice(&version.to_be_bytes());
            let told = decrypt(&mut alice, "team/a", &forged, b"").await;
            assert_eq!(told, Err("DOES_NOT_OPEN".to_owned()), "{version}");
        }
        // 2^63 is what an integer of 64 bits makes of it.
        for version in [-1, 2, i64::MAX, i64::MIN] {
            let item = VerifyMacItem { message: b"x".to_vec(), mac: vec![0; 64], version };
            let request = VerifyMacRequest { name: "team/m".into(), items: vec![item] };
            let told = alice.verify_mac(request).await.unwrap().into_inner().results.remove(0);
            assert_eq!((told.valid, told.fault.unwrap().reason.as_str()), (false, "INVALID"));
            let item = VerifyItem { message: b"x".to_vec(), signature: vec![0; 64], version };
            let request = VerifyRequest { name: "team/s".into(), items: vec![item] };
            let told = alice.verify(request).await.unwrap().into_inner().results.remove(0);
            assert_eq!((told.valid, told.fault.unwrap().reason.as_str()), (false, "INVALID"));
            let request = ExportKeyRequest { name: "team/s".into(), version };
            assert_eq!(alice.export_key(request).await.unwrap_err().code(), Code::NotFound);
            let set =
                |request: UpdateKeyRequest| UpdateKeyRequest { min_version: version, ..request };
            let told = update(&mut alice, "team/a", set).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{version}");
            assert_eq!(rotate(&mut alice, "team/a", version).await, Err(Code::Aborted));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_are_not_made() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    let good = || spec("team/a", "aes-256-gcm");
    let bad = [
        spec("team/a", ""),
        spec("team/a", "aes-128-ecb"),
        spec("Team/a", "aes-256-gcm"),
        spec("", "aes-256-gcm"),
        CreateKeyRequest { placement: "hsm".into(), ..good() },
        CreateKeyRequest { placement: "cloud".into(), ..good() },
        CreateKeyRequest { placement: "sealed".into(), ..spec("team/a", "rsa-pss-3072") },
        CreateKeyRequest { rotate_every_s: -2, ..good() },
        CreateKeyRequest { rotate_every_s: 60, ..good() },
        CreateKeyRequest { labels: [("A".to_owned(), "b".to_owned())].into(), ..good() },
    ];
    for request in bad {
        let told = alice.create_key(request.clone()).await.unwrap_err();
        assert_eq!(told.code(), Code::InvalidArgument, "{request:?}: {told}");
    }
    assert_eq!(show(&mut alice, "team/a").await.unwrap_err().code(), Code::NotFound);
    let other = CreateKeyRequest { owner: "etl".into(), ..good() };
    assert_eq!(alice.create_key(other).await.unwrap_err().code(), Code::PermissionDenied);
}

/// What a caller would send who wants to say the nonce.
#[derive(Clone, PartialEq, prost::Message)]
struct WithNonce {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    items: Vec<ItemWithNonce>,
    #[prost(bytes = "vec", tag = "3")]
    nonce: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ItemWithNonce {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    nonce: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_chooses_a_nonce() {
    let p = Place::new(BACKENDS[0]).await;
    for (cipher, len_bytes) in CIPHERS.into_iter().zip([12, 12, 24]) {
        let name = format!("team/{cipher}");
        create(&mut p.alice(), &name, cipher).await;
        let nonce = vec![7; len_bytes];
        let item = ItemWithNonce { plaintext: b"x".to_vec(), nonce: nonce.clone() };
        let request = WithNonce { name, items: vec![item; 2], nonce: nonce.clone() };
        let mut client = tonic::client::Grpc::new(p.alice.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/strongroom.v1.KeyService/Encrypt");
        let codec = ProstCodec::<WithNonce, EncryptResponse>::default();
        let done = client.unary(Request::new(request), path, codec).await.unwrap().into_inner();
        let drawn: Vec<_> =
            done.results.iter().map(|one| &one.ciphertext[21..][..len_bytes]).collect();
        assert!(drawn.len() == 2 && drawn[0] != drawn[1], "{drawn:?}");
        assert!(!drawn.contains(&nonce.as_slice()), "{drawn:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_inside_a_ciphertext_the_answer_is_one() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    for cipher in CIPHERS {
        let name = format!("team/{cipher}");
        create(&mut alice, &name, cipher).await;
        rotate(&mut alice, &name, 1).await.unwrap();
        let good = encrypt(&mut alice, &name, b"canary", b"aad").await.unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad
        };
        let last = good.len() - 1;
        let bad = [
            // Its nonce, what is encrypted, its tag; a version that never was, or is another.
            with(&|it| it[21] ^= 1),
            with(&|it| it[last - 17] ^= 0x80),
            with(&|it| it[last] ^= 1),
            with(&|it| it[20] = 1),
            with(&|it| it[20] = 0),
            with(&|it| it[17] = 0xff),
            with(&|it| it.truncate(last)),
            with(&|it| it.push(0)),
        ];
        let mut items: Vec<(&[u8], &[u8])> =
            bad.iter().map(|it| (it.as_slice(), &b"aad"[..])).collect();
        items.extend([(good.as_slice(), &b"aae"[..]), (&good, b""), (&good, b"aad\0")]);
        let told = decrypt_all(&mut alice, &name, &items).await.unwrap();
        let first = told[0].fault.clone().unwrap();
        assert_eq!(first.reason, "DOES_NOT_OPEN");
        for (at, one) in told.iter().enumerate() {
            assert!(one.plaintext.is_empty(), "{cipher} {at}");
            assert_eq!(one.fault.as_ref(), Some(&first), "{cipher} {at}");
            assert_eq!(one.version, told[0].version, "{cipher} {at}");
        }
    }
}
