//! The record through the socket and the program: questions, streams, and independent readers.

mod accepted;
mod large;
mod state;
mod tamper;
mod upkeep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use signed_note::{StandardVerifier, VerifierList};
use strongroom::crypto::{TILE_WIDTH, TileId, TilePath, hex};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, GetCheckpointRequest, ListEntriesRequest, ReadLogRequest,
    TailEntriesRequest, WhoAmIRequest,
};
use strongroom::server::Node;
use strongroom::store::Location;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend, Fixture, PIN, pin};
use crate::support::target::until;
use crate::tlog::reader;

/// A vault whose log moves by hand alone.
async fn quiet(backend: Backend) -> Fixture {
    let mut f = Fixture::on(backend).await;
    // The first revocation list is an entry; another is due in an hour.
    let hand = Hand::new(&f.parts.location);
    until("a list was signed", async || !hand.ask("SELECT id FROM crls").await.is_empty()).await;
    f.node.take().unwrap().stop().await.unwrap();
    f.parts.checkpoint = Duration::from_hours(1);
    f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
    f
}

/// Makes calls one after the other, each a batch of its own.
async fn calls(f: &Fixture, count: usize) {
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    for _ in 0..count {
        client.who_am_i(WhoAmIRequest {}).await.unwrap();
    }
}

/// The program, as the administrator.
struct Audited {
    dir: TempDir,
    address: String,
}

impl Audited {
    fn new(f: &Fixture) -> Self {
        let dir = TempDir::new().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca", &f.root_pem);
        write("cert", &f.admin.certificate_pem);
        write("key", &f.admin.key_pem);
        let address = format!("https://localhost:{}", f.node().grpc_addr.port());
        Self { dir, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `audit …` and answers its exit code, its JSON and what it said.
    async fn run(&self, args: &[&str]) -> (i32, Value, String) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(["--output", "json", "audit"])
            .args(args)
            .env("STRONGROOM_ADDR", &self.address)
            .env("STRONGROOM_CACERT", self.path("ca"))
            .env("STRONGROOM_CERT", self.path("cert"))
            .env("STRONGROOM_KEY", self.path("key"))
            .env_remove("STRONGROOM_TOKEN")
            .output()
            .await
            .unwrap();
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), value, said)
    }

    async fn verify(&self, more: &[&str]) -> (i32, Value) {
        let (code, finding, said) = self.run(&[&["verify"], more].concat()).await;
        assert!(!finding.is_null() || code != 0, "{said}");
        (code, finding)
    }

    async fn keep_checkpoint(&self) -> PathBuf {
        let (note, key) = (self.path("kept"), self.path("record.key"));
        let (note_text, key_text) = (note.to_str().unwrap(), key.to_str().unwrap());
        let (code, _, said) =
            self.run(&["checkpoint", "--out", note_text, "--key-out", key_text]).await;
        assert_eq!(code, 0, "{said}");
        note
    }
}

async fn client(f: &Fixture) -> RecordServiceClient<Channel> {
    RecordServiceClient::new(f.connect(&f.admin).await)
}

async fn list(client: &mut RecordServiceClient<Channel>, filter: EntryFilter) -> Vec<Entry> {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEntriesRequest { page_size: 3, page_token, filter: Some(filter.clone()) };
        let page = client.list_entries(request).await.unwrap().into_inner();
        assert!(page.entries.len() <= 3);
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return entries;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_answers_who_what_on_which_resource_and_how_it_ended() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 5).await;
        let mut client = client(&f).await;
        let missing = ReadLogRequest { path: "tile/0/999".into() };
        assert_eq!(client.read_log(missing).await.unwrap_err().code(), Code::NotFound);
        f.node().vault.integrate().await.unwrap();

        let whoami = EntryFilter { action: "identities.whoami".into(), ..EntryFilter::default() };
        let found = list(&mut client, whoami.clone()).await;
        assert_eq!(found.len(), 5);
        assert!(found.is_sorted_by(|newer, older| newer.index > older.index));
        let entry = &found[0];
        assert_eq!((entry.identity.as_str(), entry.method.as_str()), ("admin", "mtls"));
        assert_eq!(entry.resource, "identities/admin");
        assert_eq!((entry.decision.as_str(), entry.outcome.as_str()), ("allow", "ok"));
        assert_eq!(entry.source, "127.0.0.1");
        assert!(entry.erased.is_empty() && entry.altered.is_empty());

        let id = entry.identity_id.clone();
        // Lanes have no order of time among them.
        let end = found.iter().map(|entry| entry.time_ms).max().unwrap() + 1;
        for (filter, expected) in [
            (EntryFilter { identity: "admin".into(), ..whoami.clone() }, 5),
            (EntryFilter { identity: id.clone(), ..whoami.clone() }, 5),
            (EntryFilter { object_id: id, ..whoami.clone() }, 5),
            (EntryFilter { resource: "identities/*".into(), ..whoami.clone() }, 5),
            (EntryFilter { resource: "pki/**".into(), ..whoami.clone() }, 0),
            (EntryFilter { outcome: "ok".into(), ..whoami.clone() }, 5),
            (EntryFilter { outcome: "refused".into(), ..whoami.clone() }, 0),
            (EntryFilter { from_ms: end, ..whoami.clone() }, 0),
            (EntryFilter { to_ms: end, ..whoami.clone() }, 5),
            (EntryFilter { to_ms: 1, ..whoami.clone() }, 0),
            (EntryFilter { outcome: "NOT_FOUND".into(), ..EntryFilter::default() }, 1),
            (EntryFilter { outcome: "refused".into(), ..EntryFilter::default() }, 1),
            (EntryFilter { identity: "system/init".into(), ..EntryFilter::default() }, 1),
        ] {
            let found = list(&mut client, filter.clone()).await;
            assert_eq!(found.len(), expected, "{filter:?}");
        }
        let init = EntryFilter { identity: "system/init".into(), ..EntryFilter::default() };
        let init = &list(&mut client, init).await[0];
        assert!(!init.keys.is_empty() && init.keys.iter().all(|used| used.version > 0));
        assert!(!init.changes.is_empty() && init.changes.iter().all(|row| row.sha256.len() == 64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_cannot_be_meant_and_a_foreign_page_are_refused() {
    let f = quiet(Backend::Sqlite).await;
    calls(&f, 5).await;
    f.node().vault.integrate().await.unwrap();
    let mut client = client(&f).await;
    let page = ListEntriesRequest { page_size: 2, ..ListEntriesRequest::default() };
    let token = client.list_entries(page).await.unwrap().into_inner().next_page_token;
    let filter = |filter| ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let named = |identity: &str| {
        filter(EntryFilter { identity: identity.to_owned(), ..EntryFilter::default() })
    };
    let other = EntryFilter { action: "pki.sign".into(), ..EntryFilter::default() };
    for (request, code) in [
        (named("nobody/here"), Code::NotFound),
        (named("Admin"), Code::InvalidArgument),
        (named("admin\u{2028}"), Code::InvalidArgument),
        (ListEntriesRequest { page_size: -1, ..Default::default() }, Code::InvalidArgument),
        (ListEntriesRequest { page_token: token, ..filter(other) }, Code::InvalidArgument),
    ] {
        let refused = client.list_entries(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{request:?}");
    }
    for path in ["", "checkpoint", "tile/0/0", "tile/../0", "tile/entries/000.p/256", "tile/64/000"]
    {
        let refused = client.read_log(ReadLogRequest { path: path.into() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}");
    }
    for last in [-1, 1_001, i32::MAX] {
        let request = TailEntriesRequest { last, filter: None };
        let refused = client.tail_entries(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_follows_the_log_and_leaves_an_entry_at_its_begin_and_its_end() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let mut client = client(&f).await;
        let whoami = EntryFilter { action: "identities.whoami".into(), ..EntryFilter::default() };
        let request = TailEntriesRequest { filter: Some(whoami), last: 1 };
        let mut stream = client.tail_entries(request.clone()).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap().entry.unwrap();
        calls(&f, 2).await;
        let second = stream.message().await.unwrap().unwrap().entry.unwrap();
        let third = stream.message().await.unwrap().unwrap().entry.unwrap();
        assert!(first.index < second.index && second.index < third.index);
        drop(stream);

        let mut cut = client.tail_entries(request).await.unwrap().into_inner();
        cut.message().await.unwrap().unwrap();
        let (stopped, ended) = tokio::join!(f.node.take().unwrap().stop(), async {
            loop {
                match cut.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status.code()),
                }
            }
        });
        stopped.unwrap();
        assert_eq!(ended, Some(Code::Unavailable));

        f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
        f.node().vault.integrate().await.unwrap();
        let tails = EntryFilter { action: "records.tail".into(), ..EntryFilter::default() };
        let entries = list(&mut self::client(&f).await, tails).await;
        let outcomes: Vec<_> = entries.iter().map(|entry| entry.outcome.as_str()).collect();
        assert_eq!(outcomes.len(), 4, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "BEGUN").count(), 2);
        assert!(outcomes.contains(&"ok") && outcomes.contains(&"UNAVAILABLE"), "{outcomes:?}");
        let ids: std::collections::HashSet<_> =
            entries.iter().map(|entry| &entry.request_id).collect();
        assert_eq!(ids.len(), 2, "begin and end are of one request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_when_its_caller_is_no_longer_accepted() {
    let f = Fixture::new().await;
    let mut client = client(&f).await;
    let request = TailEntriesRequest { filter: None, last: 1 };
    let mut stream = client.tail_entries(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    f.clock.advance(Duration::from_hours(24 * 400));
    let cut = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => return status,
            }
        }
    });
    let told = cut.await.unwrap();
    assert_eq!(told.code(), Code::Unauthenticated);
    assert!(told.message().contains("expired") && !told.details().is_empty(), "{told:?}");
}

/// Everything that is published of the log, and what stands beside its bundles.
async fn published(f: &Fixture, size: u64) -> (HashMap<String, Vec<u8>>, Vec<u8>) {
    let mut client = client(f).await;
    let (mut files, mut sides) = (HashMap::new(), Vec::new());
    let mut paths = Vec::new();
    for level in 0..3_u8 {
        let hashes = size >> (8 * level);
        for index in 0..hashes.div_ceil(u64::from(TILE_WIDTH)) {
            let left = hashes - index * u64::from(TILE_WIDTH);
            let width = u16::try_from(left.min(u64::from(TILE_WIDTH))).unwrap();
            paths.push(TilePath::Hashes(TileId { level, index, width }));
            if level == 0 {
                paths.push(TilePath::Entries { index, width });
            }
        }
    }
    for path in paths.iter().map(ToString::to_string) {
        let part = client.read_log(ReadLogRequest { path: path.clone() }).await.unwrap();
        let part = part.into_inner();
        sides.extend(part.side);
        files.insert(path, part.data);
    }
    (files, sides)
}

struct Files<'a>(&'a HashMap<String, Vec<u8>>);

impl tlog_tiles::TileReader for Files<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = tiles.iter().map(|tile| {
            let path = tile.path().replacen("/8/", "/", 1);
            self.0.get(&path).cloned().ok_or(tlog_tiles::Error::BadMath)
        });
        read.collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_readers_accept_what_a_vault_serves() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 300).await;
        f.node().vault.integrate().await.unwrap();
        let newest = client(&f).await.get_checkpoint(GetCheckpointRequest {}).await.unwrap();
        let newest = newest.into_inner();
        let verifier = StandardVerifier::new(&newest.verifier_key).unwrap();
        let note = signed_note::Note::from_bytes(newest.note.as_bytes()).unwrap();
        let (good, rest) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        assert_eq!((good.len(), rest.len()), (1, 0));
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        let (size, root) = (checkpoint.size(), *checkpoint.hash());
        assert!(size > 256 && i64::try_from(size).unwrap() == newest.size);

        let (files, _) = published(&f, size).await;
        let entries = reader::entries(&files, usize::try_from(size).unwrap()).unwrap();
        let tiles = Files(&files);
        let hashes = tlog_tiles::TileHashReader::new(size, root, &tiles);
        for index in [0, 1, 255, 256, size - 1] {
            let proof = tlog_tiles::prove_record(size, index, &hashes).unwrap();
            let leaf = tlog_tiles::record_hash(&entries[usize::try_from(index).unwrap()]);
            tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_verified_without_the_vault_and_an_altered_name_in_it_is_named() {
    let f = quiet(Backend::Sqlite).await;
    calls(&f, 300).await;
    f.node().vault.integrate().await.unwrap();
    let audited = Audited::new(&f);
    audited.keep_checkpoint().await;
    let copy = audited.path("copy");
    let (code, _, said) = audited.run(&["export", "--dir", copy.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{said}");
    let key = audited.path("record.key");
    let offline = ["--export", copy.to_str().unwrap(), "--public-key", key.to_str().unwrap()]
        .map(str::to_owned);
    let offline: Vec<_> = offline.iter().map(String::as_str).collect();
    drop(f);
    let (code, finding) = audited.verify(&offline).await;
    assert_eq!((code, &finding["entries_without_values"]), (0, &0.into()), "{finding}");
    assert!(finding["values_known"].as_u64().unwrap() >= 900, "{finding}");

    let side = copy.join("side/000");
    let mut bytes = std::fs::read(&side).unwrap();
    let at = bytes.windows(16).rposition(|window| window == b"identities/admin").unwrap();
    bytes[at + 15] = b'm';
    std::fs::write(&side, bytes).unwrap();
    let (code, finding) = audited.verify(&offline).await;
    assert_eq!((code, &finding["fault"]["first_entry"]), (9, &255.into()), "{finding}");
    std::fs::remove_file(&side).unwrap();
    let (code, finding) = audited.verify(&offline).await;
    assert_eq!((code, &finding["entries_without_values"]), (0, &256.into()), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_and_callers_smuggle_in_never_reaches_the_record() {
    const CANARY: &str = "canary-7f3a9c1e";
    let f = quiet(Backend::Sqlite).await;
    let mut client = client(&f).await;
    let mut nobody = RecordServiceClient::new(f.connect_as_nobody().await);
    for path in [CANARY.to_owned(), format!("tile/{CANARY}/000"), format!("\u{1b}[31m\n{CANARY}")] {
        for bears in [false, true] {
            let request = || {
                let mut request = Request::new(ReadLogRequest { path: path.clone() });
                if bears {
                    let bearer = format!("Bearer {CANARY}").parse().unwrap();
                    request.metadata_mut().insert("authorization", bearer);
                }
                request.metadata_mut().insert("x-request-id", CANARY.parse().unwrap());
                request
            };
            let code = if bears { Code::Unauthenticated } else { Code::InvalidArgument };
            assert_eq!(client.read_log(request()).await.unwrap_err().code(), code);
            assert_eq!(nobody.read_log(request()).await.unwrap_err().code(), Code::Unauthenticated);
        }
    }
    let asked =
        EntryFilter { action: CANARY.into(), identity: CANARY.into(), ..Default::default() };
    let asked = ListEntriesRequest { filter: Some(asked), ..Default::default() };
    assert_eq!(client.list_entries(asked).await.unwrap_err().code(), Code::NotFound);
    f.node().vault.summarise_refusals().await.unwrap();
    f.node().vault.integrate().await.unwrap();
    let size = u64::try_from(f.node().vault.head().await.unwrap().size).unwrap();
    let (files, sides) = published(&f, size).await;
    let mut all: Vec<u8> = files.into_values().flatten().collect();
    all.extend(sides);
    let text = String::from_utf8_lossy(&all).to_lowercase();
    assert!(text.contains("system.strangers"), "strangers are counted");
    let key = f.admin.key_pem.lines().nth(1).unwrap().to_owned();
    for secret in [CANARY.as_bytes(), PIN, key.as_bytes()] {
        let base64 = data_encoding::BASE64.encode(secret);
        let raw = String::from_utf8_lossy(secret).into_owned();
        for form in [raw, hex(secret), base64.trim_end_matches('=').to_owned()] {
            assert!(!text.contains(&form.to_lowercase()), "{form}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_what_it_cannot_record() {
    let dir = TempDir::new().unwrap();
    let path: &Path = dir.path();
    let location = Location::Sqlite { path: path.join("vault.db"), max_mib: 3, reserve_mib: 2 };
    let f = Fixture::at(dir, location).await;
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    let mut refused = None;
    for _ in 0..5_000 {
        if let Err(status) = client.who_am_i(WhoAmIRequest {}).await {
            refused = Some(status.code());
            break;
        }
    }
    assert!(matches!(refused, Some(Code::ResourceExhausted | Code::Unavailable)), "{refused:?}");
}
