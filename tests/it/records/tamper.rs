//! What somebody does who can write to the database, and what verification says to it.

use strongroom::engines::ceremonies::InCeremony;
use strongroom::engines::system::AcceptRollback;
use strongroom::error::Error;
use strongroom::proto::ListEntriesRequest;
use strongroom::server::Node;
use strongroom::types::Caller;
use strongroom::vault::Anchored;
use tonic::Code;

use super::{Audited, calls, client, quiet};
use crate::support::hand::{Hand, Place};
use crate::support::logins;
use crate::support::node::{BACKENDS, Fixture, pin};

/// One act: statements, statements that undo it, the first wrong entry, the last.
struct Act {
    name: &'static str,
    done: String,
    undo: String,
    names: Option<(i64, i64)>,
}

fn act(name: &'static str, done: String, undo: String, first: i64) -> Act {
    Act { name, done, undo, names: Some((first, first)) }
}

/// An update of one column of bytes, and its undoing.
async fn edit(
    hand: &Hand,
    table: &str,
    column: &str,
    row: &str,
    change: impl Fn(&mut Vec<u8>),
) -> (String, String) {
    let before = hand.bytes(column, &format!("{table} WHERE {row}")).await;
    let mut after = before.clone();
    change(&mut after);
    assert_ne!(before, after);
    let set =
        |bytes: &[u8]| format!("UPDATE {table} SET {column} = {} WHERE {row}", hand.literal(bytes));
    (set(&after), set(&before))
}

fn row(place: Place) -> String {
    format!("lane = {} AND seq = {}", place.lane, place.seq)
}

async fn acts(hand: &Hand, a: Place, b: Place, size: i64) -> Vec<Act> {
    let (ra, rb) = (row(a), row(b));
    let last = a.first + a.entries - 1;
    let mut acts = Vec::new();
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let (done, undone) = edit(hand, "record_batches", "body", &ra, flip).await;
    acts.push(act("an entry altered", done, undone, last));
    let (done, undone) = edit(hand, "record_batches", "body", &ra, |body| body[0] ^= 0x80).await;
    acts.push(act("a batch that cannot be cut", done, undone, a.first));
    let (done, undone) = edit(hand, "record_batches", "body", &ra, Vec::clear).await;
    acts.push(act("a batch emptied", done, undone, a.first));
    let away = |from: i64, to: i64| {
        format!("UPDATE record_batches SET seq = {to} WHERE lane = {} AND seq = {from}", a.lane)
    };
    acts.push(act("a batch removed", away(a.seq, -7), away(-7, a.seq), a.first));
    let moved =
        |from: i64, to: i64| format!("UPDATE log_places SET first = {to} WHERE first = {from}");
    acts.push(act("a place removed", moved(a.first, -9), moved(-9, a.first), a.first));
    let bodies = (
        hand.bytes("body", &format!("record_batches WHERE {ra}")).await,
        hand.bytes("body", &format!("record_batches WHERE {rb}")).await,
    );
    let swap = |first: &[u8], second: &[u8]| {
        let set = |row: &str, bytes: &[u8]| {
            format!("UPDATE record_batches SET body = {} WHERE {row};", hand.literal(bytes))
        };
        [set(&ra, first), set(&rb, second)].concat()
    };
    let (done, undone) = (swap(&bodies.1, &bodies.0), swap(&bodies.0, &bodies.1));
    acts.push(act("two batches swapped", done, undone, a.first));
    let rename = |side: &mut Vec<u8>| {
        let at = side.windows(5).position(|window| window == b"admin").unwrap();
        side[at + 3] = b'1';
    };
    let (done, undone) = edit(hand, "record_batches", "side", &ra, rename).await;
    acts.push(act("a name altered", done, undone, a.first));
    let (done, undone) = edit(hand, "record_batches", "side", &ra, |side| side[0] = 0xff).await;
    acts.push(act("names made unreadable", done, undone, a.first));
    let at = usize::try_from(a.first).unwrap() * 32;
    let tile = "level = 0 AND tile = 0";
    let (done, undone) = edit(hand, "log_tiles", "hashes", tile, |tile| tile[at] ^= 1).await;
    acts.push(act("a tile altered", done, undone, a.first));
    let (done, undone) = edit(hand, "log_tiles", "hashes", tile, |tile| tile.truncate(at)).await;
    let names = Some((0, size - 1));
    acts.push(Act { name: "a tile cut off", done, undo: undone, names });
    let (done, undone) = edit(hand, "log_head", "root", "id = 1", |root| root[0] ^= 1).await;
    // The checkpoint is what was signed; the head beside it is the vault's own note.
    acts.push(Act { name: "the head altered", done, undo: undone, names: None });
    acts
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_names_the_first_wrong_entry_whatever_was_done_to_the_store() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 12).await;
        f.node().vault.integrate().await.unwrap();
        let audited = Audited::new(&f);
        let (code, good) = audited.verify(&[]).await;
        assert_eq!((code, &good["verified"]), (0, &true.into()), "{good}");
        let size = good["size"].as_i64().unwrap();
        let hand = Hand::new(&f.parts.location);
        let places: Vec<_> =
            hand.places().await.into_iter().filter(|place| place.entries == 1).collect();
        let (a, b) = (places[places.len() - 4], places[places.len() - 2]);
        for act in acts(&hand, a, b, size).await {
            hand.run(&act.done).await;
            let (code, finding) = audited.verify(&[]).await;
            let fault = &finding["fault"];
            match act.names {
                Some((first, last)) => {
                    assert_eq!(code, 9, "{}: {finding}", act.name);
                    let named = (fault["first_entry"].as_i64(), fault["last_entry"].as_i64());
                    assert_eq!(named, (Some(first), Some(last)), "{}: {finding}", act.name);
                }
                None => assert_eq!((code, fault.is_null()), (0, true), "{}: {finding}", act.name),
            }
            hand.run(&act.undo).await;
        }
        let (code, again) = audited.verify(&[]).await;
        assert_eq!((code, &again["root"]), (0, &good["root"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_rolled_back_fails_against_a_kept_checkpoint_and_is_never_signed_again() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let old = hand.head().await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let audited = Audited::new(&f);
        let kept = audited.keep_checkpoint().await;
        let kept = ["--since", kept.to_str().unwrap()];
        let (code, finding) = audited.verify(&kept).await;
        assert_eq!((code, &finding["extends_size"]), (0, &finding["size"]));

        let new = hand.head().await;
        hand.run(&old).await;
        assert_eq!(audited.verify(&[]).await.0, 0, "it was signed once: only who kept more sees");
        let (code, finding) = audited.verify(&kept).await;
        assert_eq!((code, &finding["verified"]), (9, &false.into()));
        assert!(f.node().vault.integrate().await.is_err());
        let places = "DELETE FROM log_places WHERE first >= (SELECT size FROM log_head)";
        hand.run(places).await;
        assert!(f.node().vault.integrate().await.is_err(), "a fork is not signed");
        hand.run(&new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_altered_or_removed_before_it_has_its_place_stops_the_log() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        calls(&f, 4).await;
        let hand = Hand::new(&f.parts.location);
        let behind = "record_batches b WHERE seq > (SELECT integrated_seq FROM record_lanes l \
                      WHERE l.lane = b.lane)";
        let sql = format!("SELECT lane || ' ' || seq FROM {behind} ORDER BY lane, seq");
        let pending = hand.ask(&sql).await;
        assert!(pending.len() >= 4, "{pending:?}");
        let size = f.node().vault.head().await.unwrap().size;
        for (nth, key) in pending.iter().enumerate() {
            let (lane, seq) = key.split_once(' ').unwrap();
            let place = Place {
                first: 0,
                lane: lane.parse().unwrap(),
                seq: seq.parse().unwrap(),
                entries: 1,
            };
            let row = row(place);
            let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
            let (body, body_back) = edit(&hand, "record_batches", "body", &row, flip).await;
            let (mac, mac_back) = edit(&hand, "record_batches", "mac", &row, flip).await;
            let (before, before_back) = edit(&hand, "record_batches", "previous", &row, flip).await;
            let hide = |from: &str, to: &str| {
                format!("UPDATE record_batches SET seq = {to} WHERE lane = {lane} AND seq = {from}")
            };
            let counted = format!("UPDATE record_batches SET entries = entries + 1 WHERE {row}");
            let back = format!("UPDATE record_batches SET entries = entries - 1 WHERE {row}");
            for (act, undo) in [
                (body, body_back),
                (mac, mac_back),
                (before, before_back),
                (counted, back),
                (hide(seq, "-7"), hide("-7", seq)),
            ] {
                hand.run(&act).await;
                let refused = f.node().vault.integrate().await;
                assert!(
                    matches!(refused, Err(Error::Tampered { .. })),
                    "{nth}: {act}: {refused:?}"
                );
                assert_eq!(f.node().vault.head().await.unwrap().size, size);
                hand.run(&undo).await;
            }
        }
        f.node().vault.integrate().await.unwrap();
        assert!(f.node().vault.head().await.unwrap().size >= size + 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_extend_what_the_hsm_keeps_is_seen_until_it_is_accepted() {
    for backend in BACKENDS {
        let mut f: Fixture = quiet(backend).await;
        let kept = f.node().vault.check_anchor().await;
        assert!(matches!(kept, Ok(Anchored::Unknown | Anchored::Extends { .. })), "{kept:?}");
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let old = state(&hand).await.join(";");
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let kept = f.node().vault.head().await.unwrap();
        f.node().vault.write_anchor().await.unwrap();
        f.node().vault.write_anchor().await.unwrap();
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        assert_eq!(f.node().vault.check_anchor().await, Ok(Anchored::Extends { kept }));
        assert_eq!(Anchored::Extends { kept }.divergence(), None, "there is nothing to accept");
        f.restart().await;
        // A clean stop leaves the newest head with the HSM.
        let Ok(Anchored::Extends { kept: stopped }) = f.node().vault.check_anchor().await else {
            panic!("the log extends what the stop kept");
        };
        assert!(stopped.size > kept.size);
        let kept = stopped;

        hand.run(&old).await;
        let found = f.node().vault.head().await.unwrap();
        assert!(found.size < kept.size);
        let seen = f.node().vault.check_anchor().await;
        assert_eq!(seen, Ok(Anchored::RolledBack { kept, found }));
        let refused = f.node().vault.write_anchor().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "the HSM keeps what it has");
        accept(&f, seen.unwrap()).await.unwrap();
        let seen = f.node().vault.check_anchor().await;
        assert_eq!(seen, Ok(Anchored::Extends { kept: found }));
    }
}

/// A log of so many entries by hand: the true ones and an invented one, consistent in itself.
async fn forge(hand: &Hand) {
    hand.run(&forgery(hand).await.join(";")).await;
}

/// The statements of a forgery; the last is that of the head.
pub(super) async fn forgery(hand: &Hand) -> [String; 5] {
    let places = hand.places().await;
    let last = places.last().unwrap();
    let size = last.first + last.entries;
    assert!(size < 256, "one tile");
    let body = hand.bytes("body", &format!("record_batches WHERE {}", row(*last))).await;
    let leaf = &body[2..2 + usize::from(u16::from_be_bytes([body[0], body[1]]))];
    let tile = hand.bytes("hashes", "log_tiles WHERE level = 0 AND tile = 0").await;
    let mut leaves: Vec<[u8; 32]> = tile.as_chunks::<32>().0.to_vec();
    leaves.push(strongroom::crypto::leaf_hash(leaf));
    let mut tree = strongroom::crypto::Frontier::from_parts(0, Vec::new()).unwrap();
    for leaf in &leaves {
        tree.append(*leaf).unwrap();
    }
    let invented = [&u16::try_from(leaf.len()).unwrap().to_be_bytes()[..], leaf].concat();
    let nothing = hand.literal(&[0; 32]);
    [
        format!(
            "INSERT INTO record_batches (lane, seq, entries, previous, mac, body) \
             VALUES (77, 1, 1, {nothing}, {nothing}, {})",
            hand.literal(&invented)
        ),
        format!(
            "INSERT INTO record_lanes (lane, node, integrated_seq, integrated_hash) \
             VALUES (77, 'node', 1, {nothing})"
        ),
        format!("INSERT INTO log_places (first, lane, seq, entries) VALUES ({size}, 77, 1, 1)"),
        format!(
            "UPDATE log_tiles SET hashes = {} WHERE level = 0 AND tile = 0",
            hand.literal(&leaves.concat())
        ),
        format!(
            "UPDATE log_head SET size = {}, root = {}, edge = {}",
            size + 1,
            hand.literal(&tree.root()),
            hand.literal(&tree.edge().concat())
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_forged_in_every_table_is_not_signed_and_not_shown() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 3).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let note = hand.ask("SELECT checkpoint FROM log_head").await;
        forge(&hand).await;
        let refused = f.node().vault.integrate().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        assert_eq!(hand.ask("SELECT checkpoint FROM log_head").await, note);
        let seen = f.node().vault.check_anchor().await;
        assert!(matches!(seen, Ok(Anchored::Altered { .. })), "{seen:?}");
        let asked = ListEntriesRequest { page_size: 3, ..Default::default() };
        let refused = client(&f).await.list_entries(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
}

/// The record as it stands, as statements that put it back; that of the head is the first.
pub(super) async fn state(hand: &Hand) -> Vec<String> {
    let mut old = vec![hand.head().await];
    let lanes = hand.ask("SELECT '' || lane FROM record_lanes").await;
    for lane in &lanes {
        let row = format!("record_lanes WHERE lane = {lane}");
        let hash = hand.bytes("integrated_hash", &row).await;
        let seq = hand.ask(&format!("SELECT '' || integrated_seq FROM {row}")).await.remove(0);
        old.push(format!(
            "UPDATE record_lanes SET integrated_seq = {seq}, integrated_hash = {} \
             WHERE lane = {lane}",
            hand.literal(&hash)
        ));
    }
    old.push("DELETE FROM log_places WHERE first >= (SELECT size FROM log_head)".into());
    old.push(format!(
        "DELETE FROM record_batches WHERE lane IN ({}) AND NOT EXISTS (SELECT 1 FROM log_places p \
         WHERE p.lane = record_batches.lane AND p.seq = record_batches.seq)",
        lanes.join(", ")
    ));
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_rolled_back_is_not_signed_after_a_restart_either() {
    for (backend, anchored) in BACKENDS.into_iter().flat_map(|b| [(b, false), (b, true)]) {
        let mut f = quiet(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let mut old = state(&hand).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let kept = f.node().vault.head().await.unwrap();
        if !anchored {
            // The HSM learns nothing, but what was signed stays.
            f.node().life.seal("tests").await.unwrap();
            let end = old[0].find(", checkpoint").unwrap();
            old[0].truncate(end);
        }
        f.node.take().unwrap().stop().await.unwrap();
        hand.run(&old.join(";")).await;
        let note = hand.ask("SELECT checkpoint FROM log_head").await;
        f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
        match f.node().vault.check_anchor().await.unwrap() {
            Anchored::RolledBack { kept: newest, .. } => assert!(newest.size >= kept.size),
            other @ (Anchored::Extends { .. } | Anchored::Unknown | Anchored::Altered { .. }) => {
                panic!("{other:?}")
            }
        }
        let refused = f.node().vault.integrate().await;
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{refused:?}");
        assert_eq!(hand.ask("SELECT checkpoint FROM log_head").await, note);
        // What was to be signed had its place before that was refused.
        let seen = f.node().vault.check_anchor().await.unwrap();
        let Anchored::RolledBack { kept: newest, found } = seen else { panic!("{seen:?}") };
        let other = Anchored::RolledBack { kept: found, found: newest };
        let other = accept(&f, other).await;
        assert!(matches!(other, Err(Error::Precondition(_))), "another rollback: {other:?}");
        accept(&f, seen).await.unwrap();
        f.node().vault.integrate().await.unwrap();
        assert_ne!(hand.ask("SELECT checkpoint FROM log_head").await, note, "accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_the_vault_did_not_sign_is_replaced() {
    for backend in BACKENDS {
        let f = quiet(backend).await;
        calls(&f, 2).await;
        f.node().vault.integrate().await.unwrap();
        let hand = Hand::new(&f.parts.location);
        let good = hand.ask("SELECT checkpoint FROM log_head").await.remove(0);
        let (text, _) = good.split_once("\n\n").unwrap();
        for bogus in [format!("{text}\n\n\u{2014} x AAAAAAAA\n"), "nothing".to_owned()] {
            hand.run(&format!("UPDATE log_head SET checkpoint = '{bogus}'")).await;
            f.node().vault.integrate().await.unwrap();
            let now = hand.ask("SELECT checkpoint FROM log_head").await.remove(0);
            assert!(now.starts_with(&format!("{text}\n\n")), "{now}");
            assert_ne!(now, bogus);
        }
    }
}

/// Accepts a log as the first administrator of a development vault, in the ceremony of one.
pub(super) async fn accept(f: &Fixture, seen: Anchored) -> strongroom::Result<()> {
    let (vault, log) = (&f.node().vault, seen.divergence().unwrap());
    let fingerprint = logins::fingerprint(&f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(fingerprint, |_| true).await?;
    let ctx = vault.context(Caller::Identity(admin), None)?;
    vault.run(&ctx, InCeremony(AcceptRollback { log, unnamed: 0 })).await?.done()?;
    vault.adopt(log.found, 0).await
}
