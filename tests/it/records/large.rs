//! A record of large entries: a bundle is many times what a gRPC client takes by default.

use async_trait::async_trait;
use strongroom::Result;
use strongroom::keyring::KeyUse;
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, RequestContext};
use strongroom::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

use super::{Audited, quiet};
use crate::support::logins::fingerprint;
use crate::support::node::Backend;

/// Entries, so that one bundle is full.
const ENTRIES: usize = 256;
/// Uses of keys that one entry names.
const USES: usize = 600;

/// An operation whose entry is near its longest.
struct Large;

#[async_trait]
impl Verb for Large {
    const ACTION: &'static str = "identities.show";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities/admin".parse()?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        let uses =
            (0..USES).map(|nth| KeyUse { key: format!("{nth:0>90}"), version: 1, purpose: "test" });
        note.keys.extend(uses);
    }
}

#[async_trait]
impl Operation for Large {
    const NEEDS: Needs = READS;

    async fn commit(&self, _: &RequestContext, _: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_the_longest_entries_is_verified_and_exported() {
    let f = quiet(Backend::Sqlite).await;
    let vault = &f.node().vault;
    let print = fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(print, |_| true).await.unwrap();
    for _ in 0..ENTRIES {
        let ctx = vault.context(Caller::Identity(admin), None).unwrap();
        vault.run(&ctx, Large).await.unwrap();
    }
    vault.integrate().await.unwrap();
    let program = Audited::new(&f);
    let (code, finding) = program.verify(&[]).await;
    assert_eq!((code, &finding["verified"]), (0, &true.into()), "{finding}");
    let copy = program.path("copy");
    let (code, _, said) = program.run(&["export", "--dir", copy.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{said}");
    let bundles = std::fs::read_dir(copy.join("tile/entries")).unwrap();
    let most = bundles.map(|file| file.unwrap().metadata().unwrap().len()).max().unwrap();
    assert!(most > 12 << 20, "only {most} bytes");
    program.keep_checkpoint().await;
    let key = program.path("record.key");
    let (copy, key) = (copy.to_str().unwrap(), key.to_str().unwrap());
    let (code, finding) = program.verify(&["--export", copy, "--public-key", key]).await;
    assert_eq!((code, &finding["verified"]), (0, &true.into()), "{finding}");
}
