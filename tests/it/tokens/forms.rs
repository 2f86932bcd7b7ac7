//! What the documents say of tokens, held against the program: what they look like, which calls take
//! no use, and what binds them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use strongroom::types::VERBS;

use super::*;
use crate::support::logins::fingerprint;

/// Texts of every source file below a directory.
fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn whoami_and_looking_renewing_and_revoking_by_token_alone_take_no_use() {
    let mut texts = Vec::new();
    sources(Path::new("src"), &mut texts);
    let mut free = BTreeSet::new();
    for text in &texts {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for at in (0..lines.len()).filter(|at| lines[*at] == "const SPENDS: bool = false;") {
            let action = lines[at - 1].strip_prefix("const ACTION: &'static str = \"").unwrap();
            free.insert(action.strip_suffix("\";").unwrap().to_owned());
        }
    }
    let said = ["identities.whoami", "tokens.inspect", "tokens.renew", "tokens.revoke"];
    assert_eq!(free, said.map(str::to_owned).into());
    assert!(said.iter().all(|action| VERBS.iter().any(|verb| verb.action == *action)));
}

/// What a scanner finds in a text by a pattern.
fn scan(pattern: &str, text: &str) -> String {
    let mut grep = Command::new("grep");
    let piped = grep.args(["-oE", pattern]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let found = child.wait_with_output().unwrap().stdout;
    String::from_utf8(found).unwrap().trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_pattern_finds_every_token_and_no_accessor() {
    let f = Fixture::new().await;
    let etl = machine(&f, "etl").await;
    let docs = fs::read_to_string("docs/tokens.md").unwrap();
    let pattern = docs.lines().find(|line| line.trim().starts_with(r"\bsr[")).unwrap().trim();
    let single = TokenOrder { uses: 1, ..with(0) };
    for order in [with(0), single] {
        let made = create(&etl, order).await.unwrap();
        let log = format!("GET / authorization=\"Bearer {}\" 200", made.bearer);
        assert_eq!(scan(pattern, &log), made.bearer);
        assert_eq!(scan(pattern, &made.token.unwrap().accessor), "", "that is no secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_is_renewed_and_revoked_with_its_certificate_alone() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        register(&f, "etl", "pipeline", "admin").await;
        let own = login(&f, "etl").await;
        let etl = f.connect(&own).await;
        let certificate_sha256 = strongroom::crypto::hex(&fingerprint(&own.certificate_pem));
        let bound = TokenOrder { certificate_sha256: certificate_sha256.clone(), ..with(600) };
        let made = create(&etl, bound).await.unwrap();
        let with_it = bearing(&etl, &made.bearer);
        let copied = [f.connect_as_nobody().await, f.connect(&f.admin).await];
        for copied in copied.map(|channel| bearing(&channel, &made.bearer)) {
            for refusal in [
                renew(&copied, "", 0).await.unwrap_err(),
                revoke(&copied, "").await.unwrap_err(),
                child(&copied, with(0)).await.unwrap_err(),
            ] {
                assert_eq!(refusal.code(), Code::Unauthenticated);
            }
        }
        f.clock.advance(Duration::from_secs(100));
        let renewed = renew(&with_it, "", 600).await.unwrap();
        assert!(renewed.expires_at_ms > made.token.unwrap().expires_at_ms);
        assert_eq!(renewed.certificate_sha256, certificate_sha256, "as bound as before");
        // A child is as bound as its parent: it takes that over, and is bound to no other.
        let heir = bearing(&etl, &child(&with_it, with(0)).await.unwrap());
        assert_eq!(inspect(&heir, "").await.unwrap().certificate_sha256, certificate_sha256);
        let other = TokenOrder { certificate_sha256: "0".repeat(64), ..with(0) };
        let refusal = child(&with_it, other.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        // One that is not bound may bind.
        let free = bearing(&etl, &create(&etl, with(0)).await.unwrap().bearer);
        let heir = bearing(&etl, &child(&free, other).await.unwrap());
        assert_eq!(knock(&heir).await, Code::Unauthenticated, "bound to what nobody has here");
        revoke(&with_it, "").await.unwrap();
        assert_eq!(knock(&with_it).await, Code::Unauthenticated);
    }
}
