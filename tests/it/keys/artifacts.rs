//! Signed artifacts, and whoever tampers with them.

use std::os::unix::fs::symlink;
use std::path::Path;

use data_encoding::BASE64;
use serde_json::Value;
use strongroom::crypto::{Scheme, pre_authentication, verifies};
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    CreateKeyRequest, EntryFilter, ListEntriesRequest, SignArtifactRequest, SignItem, SignRequest,
};
use tonic::Code;

use super::import::{block, type_in};
use super::{Place, create, rotate, show, spec};
use crate::support::node::BACKENDS;
use crate::support::program::{Installation, program, text};

fn on(name: &str) -> SignArtifactRequest {
    SignArtifactRequest {
        name: name.to_owned(),
        manifest: "model.sha256".to_owned(),
        manifest_sha256: vec![0xab; 32],
        files: 3,
        size_bytes: 1_000,
    }
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    BASE64.decode(body.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_says_who_had_what_signed_and_the_record_says_so_too() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        let request =
            CreateKeyRequest { purpose: "artifacts".into(), ..spec("team/models", "ecdsa-p256") };
        let key = alice.create_key(request).await.unwrap().into_inner().key.unwrap();
        assert_eq!((key.purpose.as_str(), key.placement.as_str()), ("artifacts", "hsm"));
        p.grant("etl", "sign-artifact", "keys/team/models").await;
        rotate(&mut alice, "team/models", 1).await.unwrap();
        let signed = p.etl().sign_artifact(on("team/models")).await.unwrap().into_inner();
        assert_eq!(signed.used.unwrap().version, 2);
        let envelope: Value = serde_json::from_str(&signed.envelope).unwrap();
        assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
        assert_eq!(envelope["signatures"][0]["keyid"], format!("{}/2", key.id));
        let payload = BASE64.decode(envelope["payload"].as_str().unwrap().as_bytes()).unwrap();
        let sig = envelope["signatures"][0]["sig"].as_str().unwrap();
        let sig = BASE64.decode(sig.as_bytes()).unwrap();
        let public = show(&mut alice, "team/models").await.unwrap().versions.remove(0);
        let message = pre_authentication("application/vnd.in-toto+json", &payload);
        assert!(verifies(Scheme::EcdsaP256, &der(&public.public_key_pem), &message, &sig));
        let statement: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(statement["subject"][0]["name"], "model.sha256");
        assert_eq!(statement["subject"][0]["digest"]["sha256"], "ab".repeat(32));
        let said = &statement["predicate"];
        assert_eq!(said["identity"], "etl");
        assert_eq!(said["key"], "team/models");
        assert_eq!(said["keyId"], key.id);
        assert_eq!(said["version"], 2);
        assert_eq!(said["files"], 3);
        assert_eq!(said["sizeBytes"], 1_000);

        p.f.node().vault.integrate().await.unwrap();
        let filter = EntryFilter { action: "keys.sign-artifact".into(), ..Default::default() };
        let request =
            ListEntriesRequest { filter: Some(filter), page_size: 10, ..Default::default() };
        let mut records = RecordServiceClient::new(p.f.connect(&p.f.admin).await);
        let entry = records.list_entries(request).await.unwrap().into_inner().entries.remove(0);
        assert_eq!((entry.identity.as_str(), entry.outcome.as_str()), ("etl", "ok"));
        assert!(entry.detail.contains(&"ab".repeat(32)), "{}", entry.detail);
        let purposes: Vec<_> = entry.keys.iter().map(|used| used.purpose.as_str()).collect();
        assert_eq!(purposes, ["sign-artifact/hsm"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_artifacts_signs_nothing_else_and_no_other_key_signs_them() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    let for_artifacts = |name: &str, algorithm: &str, placement: &str| CreateKeyRequest {
        purpose: "artifacts".into(),
        placement: placement.to_owned(),
        ..spec(name, algorithm)
    };
    alice.create_key(for_artifacts("team/models", "ed25519", "")).await.unwrap();
    create(&mut alice, "team/plain", "ed25519").await;
    // What it would sign by itself is what a statement's signature covers.
    let message = pre_authentication("application/vnd.in-toto+json", b"{}");
    let items = vec![SignItem { message }];
    let request = SignRequest { name: "team/models".into(), items };
    assert_eq!(alice.sign(request).await.unwrap_err().code(), Code::InvalidArgument);
    let refused = alice.sign_artifact(on("team/plain")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for (algorithm, placement) in [("ed25519", "sealed"), ("aes-256-gcm", ""), ("hmac-sha-256", "")]
    {
        let request = for_artifacts("team/no", algorithm, placement);
        let refused = alice.create_key(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{algorithm}");
    }
    let with = |change: &dyn Fn(&mut SignArtifactRequest)| {
        let mut request = on("team/models");
        change(&mut request);
        request
    };
    for bad in [
        with(&|it| it.manifest_sha256 = vec![1; 31]),
        with(&|it| it.manifest_sha256.clear()),
        with(&|it| it.manifest.clear()),
        with(&|it| it.manifest = "../m".into()),
        with(&|it| it.manifest = "a\nb".into()),
        with(&|it| it.manifest = "..".into()),
        with(&|it| it.manifest = "a".repeat(256)),
        with(&|it| it.files = 0),
        with(&|it| it.files = 1_000_001),
    ] {
        let shown = format!("{bad:?}");
        let refused = alice.sign_artifact(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{shown}");
    }
    let refused = p.etl().sign_artifact(on("team/models")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    alice.sign_artifact(on("team/models")).await.unwrap();
}

/// Verifies as a stranger does: the exit code, and the faults that are told.
fn verified(dir: &Path, more: &[&str]) -> (Option<i32>, Vec<String>) {
    let mut command = program();
    command.args(["artifact", "verify", "model-1.sha256", "--public-key", "models.pem"]);
    let done = command.args(more).args(["--output", "json"]).current_dir(dir).output().unwrap();
    let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let faults = told["faults"].as_array().cloned().unwrap_or_default();
    let faults = faults.iter().map(|fault| fault.as_str().unwrap().to_owned()).collect();
    (done.status.code(), faults)
}

#[test]
fn the_page_is_typed_command_by_command_and_whatever_is_altered_afterwards_is_found() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    real.ask(&server, &alice, "grant add alice --action keys.create --resource keys/releases/**");
    let trainer =
        "identity create ci/trainer --kind pipeline --owner alice --purpose test --tier low";
    real.ask(&server, &alice, trainer);
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (as_alice, nobody) = (real.client(&server, &alice, "whoami"), program());
    for with in ["artifact sign", "grant add", "artifact verify", "openssl pkeyutl"] {
        // Nobody but the signer asks the vault.
        let asks = with.contains("sign") || with.contains("grant");
        let who = if asks { &as_alice } else { &nobody };
        let done = type_in(dir, who, &block("docs/artifacts.md", with));
        let told = format!("{}{}", text(&done.stdout), text(&done.stderr));
        // The page's own OpenSSL leaves files that no manifest lists.
        assert!(done.status.success(), "{with}: {told}");
    }
    assert_eq!(verified(dir, &[]), (Some(0), vec![]));
    let exact = verified(dir, &["--exact"]);
    assert_eq!((exact.0, exact.1.len()), (Some(9), 3), "{:?}", exact.1);
    for extra in ["signed", "signature", "signed.sha256"] {
        std::fs::remove_file(dir.join(extra)).unwrap();
    }
    assert_eq!(verified(dir, &["--exact"]), (Some(0), vec![]));

    whatever_becomes_of_the_files_is_found(dir);
    for (file, from, to) in [
        ("model-1.sha256", "model/config.json", "model/../etc"),
        ("model-1.sha256", "\n", "\n\n"),
        ("model-1.sha256.dsse.json", "in-toto", "in-toto2"),
        ("model-1.sha256.dsse.json", "\"sig\": \"M", "\"sig\": \"N"),
    ] {
        let path = dir.join(file);
        let good = std::fs::read_to_string(&path).unwrap();
        assert!(good.contains(from), "{good}");
        std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
        assert_eq!(verified(dir, &[]).0, Some(9), "{file} {from:?}");
        std::fs::write(&path, good).unwrap();
    }
    // Another key's public half verifies nothing; a link is not signed.
    let other = "strongroom key create releases/other --algorithm ecdsa-p256 --for-artifacts\n\
                 strongroom key export releases/other > other.pem";
    assert!(type_in(dir, &as_alice, other).status.success());
    let with_other = program()
        .args(["artifact", "verify", "model-1.sha256", "--public-key", "other.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert_eq!(with_other.status.code(), Some(9));
    symlink("config.json", dir.join("model/link")).unwrap();
    let signs = "strongroom artifact sign releases/models model --manifest model-2.sha256";
    assert_eq!(type_in(dir, &as_alice, signs).status.code(), Some(7));
    assert!(!dir.join("model-2.sha256").exists(), "a manifest that nobody signed is none");
}

/// What the files are once they are something else.
fn whatever_becomes_of_the_files_is_found(dir: &Path) {
    let shard = dir.join("model/shards/1.bin");
    let fault = |told: (Option<i32>, Vec<String>), of: &str| {
        assert_eq!(told.0, Some(9), "{of}: {:?}", told.1);
        assert!(
            told.1.is_empty() || told.1.iter().any(|one| one.contains(of)),
            "{of}: {:?}",
            told.1
        );
    };
    std::fs::write(&shard, "weightz").unwrap();
    fault(verified(dir, &[]), "model/shards/1.bin");
    std::fs::remove_file(&shard).unwrap();
    fault(verified(dir, &[]), "model/shards/1.bin");
    // The same bytes behind a link are something else tomorrow.
    std::fs::write(dir.join("elsewhere"), "weights").unwrap();
    symlink(dir.join("elsewhere"), &shard).unwrap();
    fault(verified(dir, &[]), "model/shards/1.bin");
    std::fs::rename(dir.join("model/shards"), dir.join("moved")).unwrap();
    symlink(dir.join("moved"), dir.join("model/shards")).unwrap();
    std::fs::remove_file(dir.join("moved/1.bin")).unwrap();
    std::fs::rename(dir.join("elsewhere"), dir.join("moved/1.bin")).unwrap();
    fault(verified(dir, &[]), "model/shards/1.bin");
    std::fs::remove_file(dir.join("model/shards")).unwrap();
    std::fs::rename(dir.join("moved"), dir.join("model/shards")).unwrap();
    assert_eq!(verified(dir, &["--exact"]), (Some(0), vec![]));
    std::fs::write(dir.join("model/more"), "").unwrap();
    fault(verified(dir, &["--exact"]), "model/more");
    assert_eq!(verified(dir, &[]), (Some(0), vec![]));
}
