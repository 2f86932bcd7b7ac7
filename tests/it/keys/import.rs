//! Keys that come from elsewhere, wrapped as a stranger's tools wrap them.

use std::process::Command;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use strongroom::crypto::{Encoder, hkdf_sha256};
use strongroom::hsm::Hsm as _;
use strongroom::proto::{
    CreateKeyRequest, ExportKeyRequest, ImportKeyRequest, MacItem, MacRequest, MakeDataKeyRequest,
    NamedKey, SignItem, SignRequest, UpdateKeyRequest, VerifyMacItem, VerifyMacRequest,
};
use strongroom::types::VaultId;
use tonic::{Code, Status};

use super::{Client, Place, create, decrypt, encrypt, rotate, show, spec, update};
use crate::support::hand::Hand;
use crate::support::node::BACKENDS;
use crate::support::program::{Installation, text};
use crate::support::target::until;

/// Makes a name that awaits a key; its public half.
pub(super) async fn awaits(client: &mut Client, name: &str, algorithm: &str) -> String {
    let request = CreateKeyRequest { import: true, ..spec(name, algorithm) };
    let key = client.create_key(request).await.unwrap().into_inner().key.unwrap();
    assert_eq!((key.state.as_str(), key.origin.as_str()), ("awaiting", "imported"));
    assert_eq!((key.placement.as_str(), key.version), ("sealed", 1));
    let version = show(client, name).await.unwrap().versions.remove(0);
    assert_eq!(version.state, "awaiting");
    version.public_key_pem
}

/// Wraps a key: the AES key that is used once, under RSA-OAEP; the key under that.
pub(super) fn wrap(public_pem: &str, key: &[u8]) -> Vec<u8> {
    let once = [9; 32];
    let mut under = vec![0; key.len() + 15];
    let kek = AesKek::new(&AES_256, &once).unwrap();
    enclose(public_pem, &once, kek.wrap_with_padding(key, &mut under).unwrap())
}

/// Puts the AES key that is used once before what is wrapped by it.
pub(super) fn enclose(public_pem: &str, once: &[u8], under: &[u8]) -> Vec<u8> {
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(public_pem.as_bytes()).unwrap();
    let public = PublicEncryptingKey::from_der(spki.as_ref()).unwrap();
    let public = OaepPublicEncryptingKey::new(public).unwrap();
    let mut wrapped = vec![0; 384];
    public.encrypt(&OAEP_SHA1_MGF1SHA1, once, &mut wrapped, None).unwrap();
    wrapped.extend_from_slice(under);
    wrapped
}

pub(super) async fn import(
    client: &mut Client,
    name: &str,
    wrapped: &[u8],
) -> Result<NamedKey, Status> {
    let request = ImportKeyRequest { name: name.to_owned(), wrapped: wrapped.to_vec() };
    Ok(client.import_key(request).await?.into_inner().key.unwrap())
}

/// Opens a message as `docs/formats.md` says: header, nonce, ciphertext and tag.
fn opened(vault: &str, key: &[u8], message: &[u8], aad: &[u8]) -> Vec<u8> {
    let vault: VaultId = vault.parse().unwrap();
    let (domain, id) = ("strongroom/keys/message/v1", vault.0.as_bytes());
    let (header, sealed) = message.split_at(21);
    let derived = hkdf_sha256(key, id, &Encoder::new(domain).bytes(header).finish(), 32).unwrap();
    let (nonce, sealed) = sealed.split_at(12);
    let bound = Encoder::new(domain).bytes(id).bytes(header).bytes(aad).finish();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, derived.expose()).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let mut sealed = sealed.to_vec();
    key.open_in_place(nonce, Aad::from(bound), &mut sealed).unwrap().to_vec()
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_used_as_it_was_elsewhere_and_says_for_ever_where_it_comes_from() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        // Test case 2 of RFC 8032, and 1 of RFC 4231.
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let pkcs8 = format!("302e020100300506032b657004220420{seed}");
        let wrapping = awaits(&mut alice, "team/ed", "ed25519").await;
        let key = import(&mut alice, "team/ed", &wrap(&wrapping, &unhex(&pkcs8))).await.unwrap();
        assert_eq!((key.state.as_str(), key.origin.as_str()), ("active", "imported"));
        assert_eq!((key.version, key.min_version), (2, 2));
        let items = vec![SignItem { message: vec![0x72] }];
        let request = SignRequest { name: "team/ed".into(), items };
        let signed = alice.sign(request).await.unwrap().into_inner().results.remove(0).signature;
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(signed, unhex(expected));

        let wrapping = awaits(&mut alice, "team/mac", "hmac-sha-256").await;
        import(&mut alice, "team/mac", &wrap(&wrapping, &[0x0b; 20])).await.unwrap();
        let items = vec![MacItem { message: b"Hi There".to_vec() }];
        let request = MacRequest { name: "team/mac".into(), items };
        let mac = alice.mac(request).await.unwrap().into_inner().results.remove(0).mac;
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(mac, unhex(expected));
        let items = vec![VerifyMacItem { message: b"Hi There".to_vec(), mac, version: 2 }];
        let request = VerifyMacRequest { name: "team/mac".into(), items };
        assert!(alice.verify_mac(request).await.unwrap().into_inner().results[0].valid);

        // A key from elsewhere is a key: it rotates, and what is made here says so.
        assert_eq!(rotate(&mut alice, "team/mac", 2).await, Ok(3));
        let shown = show(&mut alice, "team/mac").await.unwrap();
        assert_eq!(shown.key.unwrap().origin, "imported");
        let origins: Vec<_> = shown.versions.iter().map(|it| it.origin.as_str()).collect();
        assert_eq!(origins, ["made", "imported", "made"]);
        // What unwrapped it is gone.
        let hand = Hand::new(&p.f.parts.location);
        let vault = hand.ask("SELECT id FROM vault").await.remove(0);
        let label = format!("strongroom/{vault}/key/{}/1", key.id);
        until("it is destroyed", async || {
            show(&mut p.alice(), "team/ed").await.unwrap().versions[1].state == "destroyed"
        })
        .await;
        assert_eq!(p.f.hsm.lookup_key(&label).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_awaits_a_key_does_nothing_and_takes_one_once() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    let wrapping = awaits(&mut alice, "team/a", "aes-256-gcm").await;
    let failed = Code::FailedPrecondition;
    assert_eq!(encrypt(&mut alice, "team/a", b"x", b"").await.unwrap_err().code(), failed);
    assert_eq!(rotate(&mut alice, "team/a", 1).await, Err(failed));
    for state in ["active", "disabled"] {
        let set = |request| UpdateKeyRequest { state: state.to_owned(), ..request };
        assert_eq!(update(&mut alice, "team/a", set).await.unwrap_err().code(), failed);
    }
    let other = awaits(&mut alice, "team/b", "ecdsa-p256").await;
    let request = ExportKeyRequest { name: "team/b".into(), version: 0 };
    assert_eq!(alice.export_key(request).await.unwrap_err().code(), failed);

    // Whatever is wrong inside, the answer is one.
    let good = wrap(&wrapping, &[5; 32]);
    let (mut oaep, mut under) = (good.clone(), good.clone());
    oaep[200] ^= 1;
    under[390] ^= 1;
    let foreign = wrap(&other, &[5; 32]);
    let mut told = Vec::new();
    for bad in [&oaep[..], &under, &foreign, &good[..384], &good[..383], &[], &[0; 424]] {
        let status = import(&mut alice, "team/a", bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        told.push(status.message().to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    // What opens and is no key of the algorithm is told.
    for (name, public, key) in [("team/a", &wrapping, 16), ("team/b", &other, 32)] {
        let status = import(&mut alice, name, &wrap(public, &vec![5; key])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(!told.contains(&status.message().to_owned()), "{status}");
    }
    import(&mut alice, "team/a", &good).await.unwrap();
    let sealed = encrypt(&mut alice, "team/a", b"one", b"row 7").await.unwrap();
    assert_eq!(decrypt(&mut alice, "team/a", &sealed, b"row 7").await, Ok((b"one".to_vec(), 2)));
    // Whoever has the key opens what was made with it, and data keys, without the vault.
    let vault = Hand::new(&p.f.parts.location).ask("SELECT id FROM vault").await.remove(0);
    assert_eq!(opened(&vault, &[5; 32], &sealed, b"row 7"), b"one");
    let request = MakeDataKeyRequest { name: "team/a".into(), ..Default::default() };
    let made = alice.make_data_key(request).await.unwrap().into_inner();
    assert_eq!(opened(&vault, &[5; 32], &made.ciphertext, b""), made.plaintext);
    assert_eq!(import(&mut alice, "team/a", &good).await.unwrap_err().code(), failed);
    create(&mut alice, "team/own", "aes-256-gcm").await;
    assert_eq!(import(&mut alice, "team/own", &good).await.unwrap_err().code(), failed);
    for (algorithm, placement) in [("rsa-pss-3072", ""), ("ed25519", "hsm")] {
        let placement = placement.to_owned();
        let request = CreateKeyRequest { import: true, placement, ..spec("team/no", algorithm) };
        let refused = alice.create_key(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{algorithm}");
    }
}

/// The block of a page that holds a text, as it is typed.
pub(super) fn block(page: &str, with: &str) -> String {
    let text = std::fs::read_to_string(page).unwrap();
    let mut blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.find(|block| block.contains(with)).unwrap().to_owned()
}

/// Types a block, as somebody, in a directory.
pub(super) fn type_in(
    dir: &std::path::Path,
    command: &Command,
    block: &str,
) -> std::process::Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", block]).current_dir(dir);
    shell.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.output().unwrap()
}

#[test]
fn the_page_wraps_a_key_with_openssl_and_what_it_computes_is_what_openssl_does() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    real.ask(&server, &alice, "grant add alice --action keys.create --resource keys/apps/**");
    let dir = tempfile::tempdir().unwrap();
    let block = block("docs/keys.md", "key import");
    let done = type_in(dir.path(), &real.client(&server, &alice, "whoami"), &block);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    let check = "openssl dgst -sha256 -mac HMAC -macopt hexkey:$(od -An -v -tx1 mac.key | tr -d ' \\n') \
                 -binary message > expected && cmp expected message.mac";
    let checked = type_in(dir.path(), &Command::new("true"), check);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}
