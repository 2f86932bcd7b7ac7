//! Holds the record's formats in `docs/formats.md` to the code: each vector is computed again.

use std::collections::BTreeMap;

use minicbor::Encoder;

use super::filter::Bloom;
use super::head::digest;
use super::*;
use crate::crypto::{Frontier, MacKey, encode_bundle, hex, leaf_hash, parse_hex, sha256};
use crate::error::Result;
use crate::store::records::{HeadRow, LaneState};
use crate::store::{BatchCodec as _, Change, Entry};
use crate::types::{CredentialId, Entropy, FactorId, Id, IdentityId, RequestId, UnixMillis};

const PAGE: &str = include_str!("../../docs/formats.md");

/// Randomness that counts: salts are `00…0f`, `10…1f` and so on.
#[derive(Debug)]
struct Counting;

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        for (byte, value) in bytes.iter_mut().zip((0..=u8::MAX).cycle()) {
            *byte = value;
        }
        Ok(())
    }
}

const fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

/// The entry of the page: a certificate was signed.
pub(super) fn facts() -> EntryFacts<'static> {
    EntryFacts {
        at: UnixMillis(1_767_225_600_000),
        request: RequestId(id(0x11)),
        caller: CallerFact::Identity {
            identity: IdentityId(id(0x22)),
            credential: CredentialId(id(0x33)),
            method: "mtls",
        },
        action: "pki.sign",
        resources: vec![ResourceFact { noun: "pki".into(), id: Some(id(0x44)) }],
        decision: DecisionFact {
            allowed: true,
            reason: "allowed",
            by: id(0x55).to_string().into(),
        },
        factors: Vec::new(),
        private: vec![
            (Field::Identity, "nightly-etl".into()),
            (Field::Resource, "pki/service".into()),
            (Field::Source, "192.0.2.7".into()),
            (Field::Reason, "line one\nline two".into()),
            (Field::Detail, "é".into()),
        ],
    }
}

/// That entry, with what was changed.
pub(super) fn encode(changes: &[Change]) -> Entry {
    let keys =
        [KeyUse { key: "strongroom/ca/issuing/1".into(), version: 1, purpose: "certificate" }];
    let ending = Ending {
        keys: &keys,
        duration_us: 1_234,
        changes,
        credential: Some(CredentialId(id(0x66))),
        ..Ending::plain("OK")
    };
    facts().encode(&ending, &Counting).unwrap()
}

/// A refusal of a worker of the vault, with everything empty that may be.
fn least() -> EntryFacts<'static> {
    EntryFacts {
        caller: CallerFact::System("upkeep"),
        action: "system.strangers",
        resources: vec![ResourceFact { noun: "system".into(), id: None }],
        decision: DecisionFact { allowed: false, reason: "UNAUTHENTICATED", by: "summary".into() },
        private: Vec::new(),
        ..facts()
    }
}

fn encode_least() -> Entry {
    least().encode(&Ending::plain("DENIED"), &Counting).unwrap()
}

/// A refusal of the least that can be said of a caller who proved a factor.
fn encode_proven() -> Entry {
    let caller = facts().caller;
    let factor = FactorId(id(0x99));
    let proven = FactorFact { factor, kind: "totp", at: UnixMillis(1_767_225_599_000) };
    let facts = EntryFacts { caller, factors: vec![proven], ..least() };
    facts.encode(&Ending::plain("DENIED"), &Counting).unwrap()
}

fn computed() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| {
        out.insert(format!("entry.{name}"), hex(bytes));
    };
    let changes =
        [Change { table: "credentials", key: id(0x66).to_string(), version: 1, hash: [0x77; 32] }];
    let (entry, least) = (encode(&changes), encode_least());
    put("leaf", &entry.leaf);
    put("leaf-hash", &leaf_hash(&entry.leaf));
    put("side", &entry.side);
    put("least-leaf", &least.leaf);
    put("least-side", &least.side);
    put("factors-leaf", &encode_proven().leaf);
    let mut salt = [0; 16];
    Counting.fill(&mut salt).unwrap();
    let value = SideValue { field: Field::Identity, salt, value: "nightly-etl".into() };
    put("commitment", &value.commitment());
    put("bundle", &encode_bundle(&[&entry.leaf, &least.leaf]).unwrap());

    let codec = RecordCodec::default();
    let key = [0x88; 32];
    codec.set_key(Some(MacKey::new(&key)));
    let entries = [entry.clone(), least.clone()];
    let first = codec.batch(7, 1, &[0; 32], &entries).unwrap();
    let second = codec.batch(7, 2, &first.hash, &entries[1..]).unwrap();
    put("batch-key", &key);
    put("batch-hash-1", &first.hash);
    put("batch-mac-1", &first.mac);
    put("batch-side-1", &first.side);
    put("batch-hash-2", &second.hash);

    let lane = LaneState { lane: 7, seq: 1, hash: first.hash.to_vec(), last: 2 };
    let lanes = digest(&[lane]);
    let mut tree = Frontier::new();
    for entry in &entries {
        tree.append(leaf_hash(&entry.leaf)).unwrap();
    }
    let head = HeadRow {
        size: 2,
        root: tree.root().to_vec(),
        edge: tree.edge().concat(),
        lanes: lanes.clone(),
        mac: Vec::new(),
        checkpoint: String::new(),
        signed_at: 0,
    };
    put("lanes", &lanes);
    put("head-mac", &codec.vouch(&head).unwrap());
    let mut filter = Bloom::default();
    for entry in &entries {
        filter.add_entry(&ReadEntry::decode(&entry.leaf).unwrap());
    }
    let filter = filter.to_row(&codec, 0, 2).unwrap();
    put("filter-sha256", &sha256(&filter.filter));
    put("filter-mac", &filter.mac);
    out
}

#[test]
fn every_vector_of_the_page_is_what_the_code_yields() {
    let lines = PAGE.lines().filter_map(|line| line.split_once(" = "));
    let page: BTreeMap<_, _> = lines
        .filter(|(name, _)| name.starts_with("entry."))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let code = computed();
    for (name, value) in &code {
        assert_eq!(page.get(name), Some(value), "{name}");
    }
    assert_eq!(page.len(), code.len(), "the page has vectors that the code does not compute");
}

#[test]
fn an_entry_read_back_says_what_was_written() {
    let facts = facts();
    let entry = ReadEntry::decode(&encode(&[]).leaf).unwrap();
    assert_eq!((entry.at, entry.request), (facts.at, facts.request));
    assert_eq!(entry.identity, Some(IdentityId(id(0x22))));
    assert_eq!(entry.caller_credential, Some(CredentialId(id(0x33))));
    assert_eq!((entry.method.as_str(), entry.action.as_str()), ("mtls", "pki.sign"));
    assert_eq!(entry.resources, facts.resources);
    assert!(entry.allowed);
    assert_eq!((entry.reason.as_str(), entry.outcome.as_str()), ("allowed", "OK"));
    assert_eq!(entry.keys, [("strongroom/ca/issuing/1".into(), 1, "certificate".into())]);
    assert_eq!((entry.duration_us, entry.credential), (1_234, Some(CredentialId(id(0x66)))));
    assert_eq!(entry.commitments.len(), facts.private.len());

    let entry = ReadEntry::decode(&encode_least().leaf).unwrap();
    assert_eq!((entry.identity, entry.caller_credential), (None, None));
    assert_eq!((entry.method.as_str(), entry.allowed), ("upkeep", false));
    assert_eq!(entry.resources, least().resources);
    assert_eq!(entry.factors, []);

    let entry = ReadEntry::decode(&encode_proven().leaf).unwrap();
    assert_eq!(entry.identity, Some(IdentityId(id(0x22))));
    let [factor] = entry.factors.as_slice() else { panic!("{entry:?}") };
    assert_eq!((factor.factor, factor.kind.as_str()), (FactorId(id(0x99)), "totp"));
    assert_eq!(factor.at, UnixMillis(1_767_225_599_000));
}

#[test]
fn an_entry_that_is_cut_lengthened_or_of_another_format_is_refused() {
    let leaf = encode(&[]).leaf;
    for end in 0..leaf.len() {
        assert!(ReadEntry::decode(&leaf[..end]).is_err(), "{end}");
    }
    assert!(ReadEntry::decode(&[leaf.as_slice(), &[0]].concat()).is_err());
    let proven = encode_proven().leaf;
    for (leaf, start) in [(leaf, "ad0001"), (proven, "ae0002")] {
        assert_eq!(leaf[..3], parse_hex(start).unwrap());
        for (at, byte) in [(0, 0xad), (0, 0xae), (2, 1), (2, 2), (2, 3)] {
            let mut other = leaf.clone();
            other[at] = byte;
            assert!(other == leaf || ReadEntry::decode(&other).is_err(), "{start} {at} {byte}");
        }
    }
}

#[test]
fn an_entry_that_is_too_large_is_refused_and_never_cut() {
    let action = "a".repeat(65_536);
    let large = EntryFacts { action: &action, ..facts() };
    assert!(large.draft(&Counting).is_err());
    let draft = facts().draft(&Counting).unwrap();
    assert!(draft.end(&Ending::plain(&action)).is_err());
}

#[test]
fn a_batch_moved_altered_or_under_another_key_is_not_the_one_that_was_committed() {
    let codec = RecordCodec::default();
    let key = |byte| Some(MacKey::new(&[byte; 32]));
    codec.set_key(key(1));
    let entry = encode(&[]);
    let batch = codec.batch(7, 3, &[5; 32], std::slice::from_ref(&entry)).unwrap();
    let check = |place, previous: [u8; 32], body: &[u8]| {
        codec.check(place, &previous, body, &batch.mac).unwrap()
    };
    assert_eq!(check((7, 3), [5; 32], &batch.body), Some(batch.hash));
    assert_eq!(check((8, 3), [5; 32], &batch.body), None, "another lane");
    assert_eq!(check((7, 4), [5; 32], &batch.body), None, "another place");
    assert_eq!(check((7, 3), [6; 32], &batch.body), None, "another batch before it");
    for at in 0..batch.body.len() {
        let mut body = batch.body.clone();
        body[at] ^= 1;
        assert_eq!(check((7, 3), [5; 32], &body), None, "{at}");
    }
    codec.set_key(key(2));
    assert_eq!(codec.check((7, 3), &[5; 32], &batch.body, &batch.mac), Ok(None));
    codec.set_key(None);
    assert!(codec.check((7, 3), &[5; 32], &batch.body, &batch.mac).is_err(), "sealed");
    assert!(codec.batch(7, 4, &[5; 32], &[]).is_err(), "sealed");
}

#[test]
fn what_stands_beside_a_batch_is_the_array_of_what_stands_beside_its_entries() {
    let entry = encode(&[]);
    let mut expected = Encoder::new(Vec::new());
    expected.array(2).unwrap();
    let expected = [expected.into_writer(), entry.side.clone(), entry.side.clone()].concat();
    let codec = RecordCodec::default();
    codec.set_key(Some(MacKey::new(&[1; 32])));
    let batch = codec.batch(1, 1, &[0; 32], &[entry.clone(), entry]).unwrap();
    assert_eq!(batch.side, expected);
}
