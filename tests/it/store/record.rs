//! The record's batches on their way into the one tree, and questions to it.

use std::sync::Arc;

use strongroom::audit::{
    self, CallerFact, DecisionFact, Ended, Ending, EntryFacts, Field, Filter, Head, LogEntry,
    ReadEntry, ResourceFact,
};
use strongroom::crypto::{EMPTY_ROOT, Hash, leaf_hash, node_hash};
use strongroom::types::{CredentialId, RequestId, SystemEntropy};

use super::*;
use crate::support::log::Log;

/// Commits an entry of its own.
struct Record(Entry);

#[async_trait]
impl Work for Record {
    async fn run(&mut self, _: &mut Tx) -> Result<()> {
        Ok(())
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        Some(self.0.clone())
    }

    fn settle(self: Box<Self>, settled: Settled) {
        assert!(matches!(settled, Settled::Durable { .. }), "{settled:?}");
    }
}

const ACTIONS: [&str; 4] = ["secrets.get", "database.credentials", "pki.sign", "identities.show"];
const OUTCOMES: [&str; 3] = ["OK", "DENIED", "CONFLICT"];

pub(super) fn entry(dice: &mut Dice, at: i64) -> Entry {
    let object = dice.roll::<u64>(40);
    let facts = EntryFacts {
        at: UnixMillis(at),
        request: RequestId(id(dice.roll(1 << 30))),
        caller: if dice.once_in(9) {
            CallerFact::System("lease_reaper")
        } else {
            CallerFact::Identity {
                identity: IdentityId(id(dice.roll(30))),
                credential: CredentialId(id(7)),
                method: "mtls",
            }
        },
        action: dice.pick(&ACTIONS),
        resources: vec![ResourceFact {
            noun: "secrets".into(),
            id: (object < 30).then(|| id(object + 1_000)),
        }],
        decision: DecisionFact { allowed: true, reason: "grant", by: "g".into() },
        factors: Vec::new(),
        private: (0..dice.roll::<u8>(3))
            .map(|n| (Field::Reason, format!("because {n}").into()))
            .collect(),
    };
    let ending = Ending {
        credential: (dice.once_in(5)).then(|| CredentialId(id(2_000 + dice.roll::<u64>(5)))),
        ..Ending::plain(OUTCOMES[dice.roll::<usize>(20).min(2)])
    };
    facts.encode(&ending, &SystemEntropy).unwrap()
}

/// Records entries; what is handed over together falls into few batches.
async fn record(node: &Node, dice: &mut Dice, count: i64) {
    for at in 0..count {
        let needs = Needs { writes: Writes::Nothing, bumps: false, urgent: false };
        let work = Box::new(Record(entry(dice, at)));
        node.writer.submit(Job { fence: None, needs, work }).await.unwrap();
        if dice.once_in(20) {
            flush(node).await;
        }
    }
    flush(node).await;
}

/// Waits for every lane's earlier jobs, one lane being behind a job for each.
async fn flush(node: &Node) {
    node.done(Act::new(|_| async { Ok(()) }.boxed())).await;
}

/// One step of the log; nothing when nothing was left.
async fn step(node: &Node) -> Result<Option<(Head, Settled)>> {
    let Some(plan) = audit::plan(&node.reader, &node.codec).await? else { return Ok(None) };
    let head = plan.head();
    let (plan, settled) = plan.watched();
    let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
    node.writer.submit(Job { fence: None, needs, work: Box::new(plan) }).await.unwrap();
    Ok(Some((head, settled.await.unwrap())))
}

/// Steps until every batch has its place.
pub(super) async fn integrate(node: &Node) -> Head {
    let mut head = Head { size: 0, root: EMPTY_ROOT };
    while let Some((next, settled)) = step(node).await.unwrap() {
        assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "{settled:?}");
        head = next;
    }
    head
}

pub(super) async fn entries(node: &Node) -> Vec<LogEntry> {
    node.reader
        .view(|tx| async move { Ok(audit::entries_of(tx, 0, i64::MAX).await?) }.boxed())
        .await
        .unwrap()
}

/// The definition of RFC 9162, section 2.1.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

fn root_of(entries: &[LogEntry]) -> Hash {
    root(&entries.iter().map(|entry| leaf_hash(&entry.leaf)).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_gets_one_place_and_a_restart_continues_the_tree() {
    for place in Place::both().await {
        let mut dice = Dice(11);
        let mut total = 0;
        for count in [1, 254, 1, 3, 700] {
            let node = place.node().await;
            record(&node, &mut dice, count).await;
            total += count;
            let head = integrate(&node).await;
            let entries = entries(&node).await;
            assert_eq!(head.size, total);
            assert!(entries.iter().map(|entry| entry.index).eq(0..total));
            assert_eq!(head.root, root_of(&entries), "at {total}");
            assert_eq!(step(&node).await.unwrap(), None, "nothing is left");
            node.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_integrate_at_once_place_each_entry_once() {
    let place = Place::postgres().await;
    let nodes = [
        Node::open(&place.location(2)).await.unwrap(),
        Node::open(&place.location(2)).await.unwrap(),
    ]
    .map(Arc::new);
    let mut tasks = Vec::new();
    for (seed, node) in (1..).zip(&nodes) {
        let recorder = Arc::clone(node);
        tasks.push(spawn(async move { record(&recorder, &mut Dice(seed), 800).await }));
        let node = Arc::clone(node);
        tasks.push(spawn(async move {
            for _ in 0..60 {
                match step(&node).await.unwrap() {
                    Some((_, Settled::Durable { outcome, .. })) => {
                        let stale = Err(Error::Conflict("somebody else changed it first".into()));
                        assert!(outcome == Ok(()) || outcome == stale, "{outcome:?}");
                    }
                    None => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for node in &nodes {
        // Its other lane may still be at work behind the flush.
        for _ in 0..20 {
            flush(node).await;
        }
    }
    integrate(&nodes[0]).await;
    let found = entries(&nodes[1]).await;
    assert!(found.iter().map(|entry| entry.index).eq(0..1_600));
    let mut leaves: Vec<_> = found.iter().map(|entry| &entry.leaf).collect();
    leaves.sort();
    leaves.dedup();
    assert_eq!(leaves.len(), 1_600, "each once");
    let head = nodes[1]
        .reader
        .view(|tx| async move { Ok(strongroom::store::records::head(tx).await?) }.boxed())
        .await
        .unwrap();
    assert_eq!(head.root, root_of(&found));
    for node in nodes {
        Arc::into_inner(node).unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_removed_altered_or_swapped_is_found_and_named() {
    let taken = "SELECT MIN(lane) FROM record_batches";
    for (what, edit, at) in [
        ("middle", "DELETE FROM record_batches WHERE seq = 3", 3),
        ("first", "DELETE FROM record_batches WHERE seq = 1", 1),
        ("tail", "DELETE FROM record_batches WHERE seq >= 5", 5),
        ("all", "DELETE FROM record_batches; DELETE FROM record_lanes", 1),
        ("mac", "UPDATE record_batches SET mac = previous WHERE seq = 4", 4),
        ("previous", "UPDATE record_batches SET previous = mac WHERE seq = 4", 4),
        ("count", "UPDATE record_batches SET entries = entries + 1 WHERE seq = 2", 2),
        (
            "body",
            "UPDATE record_batches SET body = \
             (SELECT b.body FROM record_batches b WHERE b.seq = 6) WHERE seq = 5",
            5,
        ),
        (
            "swap",
            "UPDATE record_batches SET seq = 100 WHERE seq = 2; \
             UPDATE record_batches SET seq = 2 WHERE seq = 3; \
             UPDATE record_batches SET seq = 3 WHERE seq = 100",
            2,
        ),
    ] {
        for place in [Place::sqlite(), Place::postgres().await] {
            let node = place.node().await;
            let mut dice = Dice(5);
            for _ in 0..7 {
                record(&node, &mut dice, 1).await;
            }
            let lane: i64 = node
                .reader
                .view(move |tx| {
                    async move { Ok(tx.query_one(taken, vec![]).await?.unwrap().take()?) }.boxed()
                })
                .await
                .unwrap();
            place.by_hand(edit).await;
            let log = Log::begin();
            let answer = audit::plan(&node.reader, &node.codec).await;
            assert!(matches!(answer, Err(Error::Tampered { .. })), "{what}: {answer:?}");
            assert!(log.text().contains(&format!("{lane}/{at}")), "{what}: {}", log.text());
            node.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_removed_after_it_had_its_place_is_found_while_the_node_lives() {
    for place in Place::both().await {
        let node = place.node().await;
        record(&node, &mut Dice(5), 3).await;
        integrate(&node).await;
        place.by_hand("DELETE FROM record_batches; DELETE FROM record_lanes").await;
        let answer = audit::plan(&node.reader, &node.codec).await;
        assert!(matches!(answer, Err(Error::Tampered { .. })), "{answer:?}");
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_moved_on_by_hand_is_found_by_its_node_and_by_another() {
    for place in Place::both().await {
        let node = place.node().await;
        record(&node, &mut Dice(5), 3).await;
        integrate(&node).await;
        for _ in 0..3 {
            record(&node, &mut Dice(5), 1).await;
        }
        // The hash of what is deleted stands in the batch after it.
        let hidden = "(SELECT MAX(seq) - 1 FROM record_batches)";
        let next = "(SELECT previous FROM record_batches ORDER BY seq DESC LIMIT 1)";
        place
            .by_hand(&format!(
                "UPDATE record_lanes SET integrated_hash = {next}, integrated_seq = {hidden}; \
                 DELETE FROM record_batches WHERE seq = {hidden}"
            ))
            .await;
        let other = place.node().await;
        for node in [node, other] {
            let answer = audit::plan(&node.reader, &node.codec).await;
            assert!(matches!(answer, Err(Error::Tampered { .. })), "{answer:?}");
            node.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_step_takes_a_bounded_number_of_bytes_and_what_has_its_place_is_forgotten() {
    for place in Place::both().await {
        let node = place.node().await;
        let mut dice = Dice(8);
        for _ in 0..6 {
            record(&node, &mut dice, 1).await;
        }
        for _ in 0..180 {
            let needs = Needs { writes: Writes::Nothing, bumps: false, urgent: false };
            let work = Box::new(Record(Entry { leaf: large_leaf(), side: Vec::new() }));
            node.writer.submit(Job { fence: None, needs, work }).await.unwrap();
            flush(&node).await;
        }
        let (first, settled) = step(&node).await.unwrap().unwrap();
        assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }));
        assert!((100..186).contains(&first.size), "{first:?}");
        assert_eq!(integrate(&node).await.size, 186);
        assert_eq!(node.reader.own_lanes().values().next().unwrap().batches.len(), 1);
        node.close().await;
    }
}

/// An entry of about 60,000 bytes.
fn large_leaf() -> Vec<u8> {
    let action = "a".repeat(60_000);
    let facts = EntryFacts {
        at: UnixMillis(1),
        request: RequestId(id(1)),
        caller: CallerFact::System("lease_reaper"),
        action: &action,
        resources: vec![],
        decision: DecisionFact { allowed: true, reason: "grant", by: "g".into() },
        factors: Vec::new(),
        private: vec![],
    };
    facts.encode(&Ending::plain("OK"), &SystemEntropy).unwrap().leaf
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_side_values_leave_entries_that_verify() {
    for place in Place::both().await {
        let node = place.node().await;
        record(&node, &mut Dice(3), 40).await;
        let head = integrate(&node).await;
        let before = entries(&node).await;
        let values: usize = before.iter().map(|entry| entry.side.as_ref().unwrap().len()).sum();
        assert!(values > 10);
        for entry in &before {
            let read = ReadEntry::decode(&entry.leaf).unwrap();
            let side = entry.side.as_ref().unwrap();
            assert_eq!(read.commitments.len(), side.len());
            for (value, (field, commitment)) in side.iter().zip(&read.commitments) {
                assert_eq!(
                    (value.field.as_str(), &value.commitment()[..]),
                    (&**field, &**commitment)
                );
            }
        }
        place.by_hand("UPDATE record_batches SET side = NULL").await;
        let after = entries(&node).await;
        assert!(after.iter().all(|entry| entry.side.as_ref().unwrap().is_empty()));
        assert_eq!(root_of(&after), head.root);
        record(&node, &mut Dice(4), 5).await;
        assert_eq!(integrate(&node).await.size, 45);
        node.close().await;
    }
}

fn random_filter(dice: &mut Dice) -> Filter {
    let some = |dice: &mut Dice| dice.once_in(3);
    Filter {
        identity: some(dice).then(|| IdentityId(id(dice.roll(32)))),
        action: some(dice).then(|| dice.pick(&ACTIONS).into()),
        outcome: some(dice).then(|| Ended::As(dice.pick(&OUTCOMES).into())),
        object: some(dice).then(|| id(dice.pick(&[1_000, 2_000]) + dice.roll::<u64>(6))),
        from: some(dice).then(|| UnixMillis(dice.roll::<i64>(1_500))),
        to: some(dice).then(|| UnixMillis(dice.roll::<i64>(1_500))),
        ..Filter::default()
    }
}

/// The same question, answered by looking at everything.
fn naive(filter: &Filter, entries: &[LogEntry]) -> Vec<i64> {
    let fits = |read: &ReadEntry| {
        let objects = read.resources.iter().filter_map(|resource| resource.id);
        let mut objects = objects.chain(read.credential.map(|credential| credential.0));
        filter.identity.is_none_or(|wanted| read.identity == Some(wanted))
            && filter.action.as_ref().is_none_or(|wanted| read.action == *wanted)
            && filter
                .outcome
                .as_ref()
                .is_none_or(|wanted| Ended::As(read.outcome.clone()) == *wanted)
            && filter.object.is_none_or(|wanted| objects.any(|object| object == wanted))
            && filter.from.is_none_or(|from| from <= read.at)
            && filter.to.is_none_or(|to| read.at <= to)
    };
    let newest_first = entries.iter().rev();
    newest_first
        .filter(|entry| fits(&ReadEntry::decode(&entry.leaf).unwrap()))
        .map(|entry| entry.index)
        .collect()
}

async fn ask(node: &Node, filter: &Filter, from: i64, most: usize) -> Vec<i64> {
    let (mut below, mut answer) = (Some(from), Vec::new());
    while let Some(next) = below {
        let (filter, codec) = (filter.clone(), Arc::clone(&node.codec));
        let found = node
            .reader
            .view(move |tx| {
                async move { audit::find(tx, &codec, &filter, next, most).await }.boxed()
            })
            .await
            .unwrap();
        assert!(found.entries.len() <= most);
        assert!(found.below.is_none_or(|below| below < next || below < from));
        answer.extend(found.entries.iter().map(|shown| shown.index));
        below = found.below;
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_answer_what_a_scan_of_everything_does_page_by_page() {
    for place in Place::both().await {
        let node = place.node().await;
        let mut dice = Dice(77);
        for _ in 0..4 {
            record(&node, &mut dice, 330).await;
            integrate(&node).await;
        }
        let all = entries(&node).await;
        for _ in 0..60 {
            let filter = random_filter(&mut dice);
            let most = dice.pick(&[1, 7, 100]);
            let from = dice.pick(&[1_320, i64::MAX]);
            assert_eq!(ask(&node, &filter, from, most).await, naive(&filter, &all), "{filter:?}");
        }
        // Whoever removes the filters hides nothing.
        place.by_hand("DELETE FROM log_filters WHERE bundle <> 2").await;
        record(&node, &mut dice, 10).await;
        integrate(&node).await;
        let all = entries(&node).await;
        for _ in 0..20 {
            let filter = random_filter(&mut dice);
            assert_eq!(
                ask(&node, &filter, i64::MAX, 100).await,
                naive(&filter, &all),
                "{filter:?}"
            );
        }
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_nothing_is_committed() {
    for place in Place::both().await {
        let node = place.node().await;
        node.codec.set_key(None);
        let settled = node.commit(insert(identity(1, "a")).leaf(b"entry")).await;
        assert_eq!(settled, Settled::Lost(StoreError::Sealed));
        assert_eq!(node.identity(IdentityId(id(1))).await, Ok(None));
        node.codec.set_key(Some(MacKey::new(&[2; 32])));
        node.done(insert(identity(1, "a")).leaf(b"entry")).await;
        node.close().await;
    }
}
