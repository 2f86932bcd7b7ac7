//! The same random operations on both databases: equal answers, equal tables.

use strongroom::store::credentials::{self, CredentialRow};
use strongroom::store::identities::{self, IdentityWalk};
use strongroom::store::{Row, Value};
use strongroom::types::{CredentialId, CredentialKind, CredentialState};

use super::*;

/// A job, made twice alike.
#[derive(Debug, Clone)]
enum Step {
    Insert(IdentityRow),
    Update(i64, IdentityRow),
    Credential(CredentialRow),
    /// Several statements, of which the last may fail.
    Pair(IdentityRow, IdentityRow),
    Usage(u64, i64),
    Bump,
    /// A change of authority that was not declared.
    Undeclared,
    /// Goes on after a statement that failed.
    Swallow(IdentityRow, IdentityRow),
    Nul,
    Refusal,
    Nothing,
}

fn act(step: Step, fence: Option<Fence>, leaf: &[u8]) -> Act {
    let writes = match &step {
        Step::Nothing => Writes::Nothing,
        Step::Insert(_) | Step::Update(..) | Step::Credential(_) | Step::Usage(..) | Step::Nul => {
            Writes::One
        }
        Step::Pair(..) | Step::Bump | Step::Undeclared | Step::Swallow(..) | Step::Refusal => {
            Writes::Many
        }
    };
    let bumps = matches!(step, Step::Bump);
    let mut act = Act::new(move |tx| {
        let step = step.clone();
        async move { run(tx, &step).await }.boxed()
    })
    .writes(writes)
    .leaf(leaf);
    act.needs.bumps = bumps;
    act.fence = fence;
    act
}

async fn run(tx: &mut Tx, step: &Step) -> Result<()> {
    match step {
        Step::Insert(row) => drop(tx.insert(row).await?),
        Step::Update(read, row) => drop(tx.update(*read, row).await?),
        Step::Credential(row) => drop(tx.insert(row).await?),
        Step::Pair(first, second) => {
            tx.insert(first).await?;
            tx.insert(second).await?;
        }
        Step::Usage(grant, at) => {
            let grant = strongroom::types::GrantId(id(*grant));
            identities::note_grant_use(tx, grant, UnixMillis(*at)).await?;
        }
        Step::Bump | Step::Undeclared => tx.bump_authority()?,
        Step::Swallow(first, second) => {
            tx.insert(first).await?;
            let _swallowed = tx.insert(second).await;
        }
        Step::Nul => {
            let mut row = identity(1 << 40, "nul");
            row.purpose = "a\0b".into();
            tx.insert(&row).await?;
        }
        Step::Refusal => {
            tx.insert(&identity(1 << 41, "refused")).await?;
            return Err(Error::precondition("changed its mind"));
        }
        Step::Nothing => {}
    }
    Ok(())
}

fn random_name(dice: &mut Dice) -> String {
    const NAMES: [&str; 12] =
        ["a", "a-b", "a.b", "a/b", "ab", "a_b", "a0", "b", "ci/one", "ci-one", "ci/one/two", "ci0"];
    let base = dice.pick(&NAMES);
    if dice.once_in(3) { base.into() } else { format!("{base}{}", dice.roll::<u8>(40)) }
}

fn random_identity(dice: &mut Dice) -> IdentityRow {
    let mut row = identity(dice.roll(60), &random_name(dice));
    row.expires_at = (dice.once_in(2)).then(|| UnixMillis(dice.roll::<i64>(1 << 40)));
    row.kind = dice.pick(Kind::ALL);
    row.tier = dice.pick(Tier::ALL);
    row.person = dice.once_in(2).then(|| "team".parse().unwrap());
    row.revocation_epoch = dice.pick(&[0, -1, i64::MAX, i64::MIN]);
    row.purpose =
        dice.pick(&["", "'; DROP TABLE identities; --", "$1 ?1", "ünï\u{2028}\n\t", "x"]).into();
    row
}

fn random_credential(dice: &mut Dice) -> CredentialRow {
    let size = if dice.once_in(25) { 1_500_000 } else { dice.pick(&[0, 1, 255, 20_000]) };
    let first = dice.roll::<u8>(256);
    let some = |dice: &mut Dice| dice.once_in(2);
    CredentialRow {
        id: CredentialId(id(dice.roll(1 << 30))),
        kind: dice.pick(CredentialKind::ALL),
        identity: IdentityId(id(dice.roll(5))),
        parent: some(dice).then(|| CredentialId(id(3))),
        elevation: None,
        elevation_too: None,
        handle: some(dice).then(|| vec![dice.roll::<u8>(20); 32]),
        resource: "database/analytics/reader".parse().unwrap(),
        state: dice.pick(CredentialState::ALL),
        revocation_epoch: dice.roll::<i64>(3),
        issued_at: UnixMillis(dice.roll::<i64>(1 << 40)),
        expires_at: UnixMillis(dice.roll::<i64>(1 << 40)),
        max_expires_at: UnixMillis(i64::MAX),
        next_try: some(dice).then(|| UnixMillis(dice.roll::<i64>(100))),
        tries: 0,
        trouble: String::new(),
        proofs: String::new(),
        detail: (0..size).map(|n: u32| first.wrapping_add(n.to_be_bytes()[3])).collect(),
    }
}

fn random_step(dice: &mut Dice, versions: &[(IdentityRow, i64)]) -> Step {
    let known = |dice: &mut Dice| {
        let (row, version) = versions.get(dice.roll::<usize>(versions.len().max(1) as u64))?;
        Some((row.clone(), *version))
    };
    match dice.roll::<u8>(20) {
        0..=4 => Step::Insert(random_identity(dice)),
        5..=9 => match known(dice) {
            Some((mut row, version)) => {
                row.purpose.push('+');
                row.expires_at = row.expires_at.is_none().then_some(UnixMillis(7));
                // One in four is stale, or taken from the future.
                Step::Update(version + dice.pick(&[0, 0, 0, 1, -1]), row)
            }
            None => Step::Nothing,
        },
        10 | 11 => Step::Credential(random_credential(dice)),
        12 | 13 => Step::Pair(random_identity(dice), random_identity(dice)),
        14 => Step::Usage(dice.roll(4), dice.roll::<i64>(100)),
        15 => Step::Bump,
        16 => Step::Swallow(random_identity(dice), random_identity(dice)),
        17 => Step::Refusal,
        18 => dice.pick(&[Step::Nul, Step::Undeclared]),
        _ => Step::Nothing,
    }
}

/// Everything that must be equal on both, in one order.
async fn tables(node: &Node) -> Vec<String> {
    node.reader
        .view(|tx| {
            async move {
                let mut out = Vec::new();
                for (table, order) in [
                    ("schema_versions", "version"),
                    ("authority", "id"),
                    ("identities", "name"),
                    ("groups", "id"),
                    ("credentials", "id"),
                    ("grant_usage", "id"),
                ] {
                    let sql = format!("SELECT * FROM {table} ORDER BY {order}");
                    let rows = tx.query(&sql, vec![]).await?;
                    out.extend(rows.iter().map(|row| format!("{table} {:?}", row.rest())));
                }
                // Lanes have random numbers and cut groups as they come; what they say is equal.
                let rows = tx.query("SELECT body FROM record_batches ORDER BY seq", vec![]).await?;
                let body = rows.into_iter().map(|mut row: Row| row.take::<Vec<u8>>());
                out.push(format!("{:?}", body.collect::<Result<Vec<_>, _>>()?.concat()));
                Ok(out)
            }
            .boxed()
        })
        .await
        .unwrap()
}

/// What the lists answer.
async fn lists(node: &Node, after: &'static str) -> Vec<String> {
    node.reader
        .view(move |tx| {
            async move {
                let mut out = Vec::new();
                let team = "team".parse()?;
                let owned = IdentityWalk::Owned(IdentityId(id(1)).into());
                for walk in [IdentityWalk::All, owned, IdentityWalk::Person(&team)] {
                    for row in identities::identities_from(tx, walk, (after, "~"), 20).await? {
                        out.push(format!("{row:?}"));
                    }
                }
                for number in 0..5 {
                    let (of, now) = (IdentityId(id(number)), UnixMillis(1 << 39));
                    out.push(format!("{:?}", credentials::open_leases(tx, of, 1).await?));
                    let logins = credentials::unexpired(tx, CredentialKind::Login, of, 1, now);
                    out.push(format!("{:?}", logins.await?));
                }
                for row in credentials::due(tx, CredentialKind::Lease, UnixMillis(50), 10).await? {
                    // Equal times have no order.
                    out.push(format!("{:?}", row.row.next_try));
                }
                for kind in CredentialKind::ALL {
                    for row in credentials::after(tx, *kind, None, "", 5).await? {
                        out.push(format!("{:?}", row.row.id));
                    }
                }
                let found = credentials::by_handle(tx, &[3; 32]).await?;
                out.push(format!("{:?}", found.map(|found| found.row.id)));
                let nulls = tx.query_one("SELECT COUNT(*), NULL FROM credentials", vec![]).await?;
                out.push(format!("{:?}", nulls.map(|row| row.rest().to_vec())));
                Ok(out)
            }
            .boxed()
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_operations_give_the_same_answers_and_tables_on_both() {
    let places = Place::both().await;
    let [lite, server] = [places[0].node().await, places[1].node().await];
    let mut dice = Dice(0x5eed_1234);
    let mut fences = vec![None];
    for round in 0..60_u8 {
        // What is known now, to be updated; it grows stale within the group.
        let known = lite
            .reader
            .view(|tx| {
                async move { Ok(tx.select::<IdentityRow>("ORDER BY id", vec![]).await?) }.boxed()
            })
            .await
            .unwrap();
        let known: Vec<_> = known.into_iter().map(|row| (row.row, row.version)).collect();
        if let Some((row, _)) = known.get(dice.roll::<usize>(known.len().max(1) as u64)) {
            let (one, other) = (lite.fence(row.id).await, server.fence(row.id).await);
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            fences.push(Some(one));
        }
        let steps: Vec<_> = (0..=dice.roll::<u8>(24))
            .map(|number| {
                let fence = dice.pick(&fences);
                (random_step(&mut dice, &known), fence, vec![round, number, 1])
            })
            .collect();
        let answers = [settle(&lite, &steps).await, settle(&server, &steps).await];
        assert_eq!(answers[0], answers[1], "round {round}: {steps:?}");
        let after = ["", "a", "a/b", "ci"][usize::from(round) % 4];
        assert_eq!(lists(&lite, after).await, lists(&server, after).await);
    }
    let [one, other] = [tables(&lite).await, tables(&server).await];
    assert!(one.len() > 60, "the dice made something: {}", one.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
    lite.close().await;
    server.close().await;
}

/// Hands all over at once, so that they fall into groups, and waits for each.
async fn settle(node: &Node, steps: &[(Step, Option<Fence>, Vec<u8>)]) -> Vec<Settled> {
    let mut waiting = Vec::new();
    for (step, fence, leaf) in steps {
        waiting.push(node.submit(act(step.clone(), fence.clone(), leaf)).await);
    }
    let mut settled = Vec::new();
    for answer in waiting {
        settled.push(answer.await.unwrap());
    }
    settled
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_in_a_group_leaves_the_others_whole() {
    for place in Place::both().await {
        let node = place.node().await;
        node.insert(&identity(1, "taken")).await;
        let mut waiting = Vec::new();
        for number in 10..30 {
            let good = identity(number, &format!("good{number}"));
            let half = identity(number + 100, &format!("half{number}"));
            let bad = identity(number + 200, "taken");
            waiting.push(node.submit(act(Step::Insert(good), None, &[1])).await);
            waiting.push(node.submit(act(Step::Pair(half, bad), None, &[2])).await);
        }
        for (place, answer) in waiting.into_iter().enumerate() {
            let Settled::Durable { outcome, .. } = answer.await.unwrap() else { panic!("lost") };
            let want = if place % 2 == 0 {
                Ok(())
            } else {
                Err(Error::AlreadyExists("the name is taken".into()))
            };
            assert_eq!(outcome, want);
        }
        let names = tables(&node).await;
        assert_eq!(names.iter().filter(|row| row.contains("good")).count(), 20);
        assert_eq!(names.iter().filter(|row| row.contains("half")).count(), 0);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_statement_that_wrote_and_then_failed_is_not_kept() {
    for place in Place::both().await {
        let node = place.node().await;
        let settled = node.commit(act(Step::Refusal, None, &[1]).writes(Writes::One)).await;
        assert!(!matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "{settled:?}");
        assert!(!tables(&node).await.iter().any(|row| row.contains("refused")));
        node.insert(&identity(1, "after")).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_schema_is_refused() {
    for place in Place::both().await {
        place.node().await.close().await;
        place.by_hand("INSERT INTO schema_versions (version) VALUES (99)").await;
        let refused = Node::open(&place.location(1)).await.err();
        assert!(matches!(refused, Some(StoreError::Newer { found: 99, known: _ })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back_as_it_went_whatever_came_before_it() {
    for place in Place::both().await {
        let node = place.node().await;
        place.by_hand("CREATE TABLE probe (id BIGINT PRIMARY KEY, n BIGINT, t TEXT)").await;
        // NULL first and last: a prepared statement must not remember its type.
        for (key, n, t) in [
            (1, Value::Null, Value::Null),
            (2, Value::Int(i64::MIN), Value::Text("€".repeat(100_000))),
            (3, Value::Null, Value::Text(String::new())),
            (4, Value::Int(0), Value::Null),
        ] {
            let row = vec![Value::Int(key), n.clone(), t.clone()];
            node.done(Act::new(move |tx| {
                let row = row.clone();
                let sql = "INSERT INTO probe (id, n, t) VALUES ($1, $2, $3)";
                async move { Ok(tx.execute(sql, row).await.map(drop)?) }.boxed()
            }))
            .await;
            let found = node
                .reader
                .view(move |tx| {
                    let sql = "SELECT n, t FROM probe WHERE id = $1";
                    async move { Ok(tx.query_one(sql, vec![Value::Int(key)]).await?) }.boxed()
                })
                .await
                .unwrap();
            assert_eq!(found.unwrap().rest(), [n, t]);
        }
        node.close().await;
    }
}
