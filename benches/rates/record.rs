//! `record_append`: ready entries through the committer, integration included, beside durable
//! grouped inserts of the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom::audit::{CallerFact, DecisionFact, Ending, EntryFacts, Field, RecordCodec, plan};
use strongroom::crypto::MacKey;
use strongroom::error::{Error, Result};
use strongroom::store::{
    BatchCodec, Change, Entry, Job, Location, Needs, Reader, RowSealer, Settled, Store, Tx, Work,
    Writer, Writes,
};
use strongroom::types::{
    CredentialId, Id, IdentityId, RequestId, SystemEntropy, TaskGroup, UnixMillis,
};
use tokio::sync::{mpsc, oneshot};

use crate::insert;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};

const CONCURRENCY: usize = 64;
const NEEDS: Needs = Needs { writes: Writes::Nothing, bumps: false, urgent: false };

pub(crate) async fn measure() -> Row {
    let entry = Arc::new(entry());
    let dir = tempfile::tempdir().unwrap();
    let vault = Committer::open(dir.path()).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    vault.run(&entry, WARM).await;
    for _ in 0..3 {
        let mut best: Option<Run> = None;
        for group in [32, 64] {
            let run = ceiling(&entry, group).await;
            if best.as_ref().is_none_or(|best| run.rate_per_s > best.rate_per_s) {
                best = Some(run);
            }
        }
        theirs.extend(best);
        ours.push(vault.run(&entry, RUN).await);
    }
    let ceiling = "durable grouped inserts, one blob a group";
    row("record_append", CONCURRENCY, ceiling, 0.60, ours, theirs)
}

/// An entry as `whoami` leaves it.
fn entry() -> Entry {
    let id = Id::from_bytes([9; 16]);
    let facts = EntryFacts {
        at: UnixMillis(1_795_392_000_000),
        request: RequestId(id),
        caller: CallerFact::Identity {
            identity: IdentityId(id),
            credential: CredentialId(id),
            method: "mtls",
        },
        action: "identities.whoami",
        resources: vec![strongroom::audit::ResourceFact {
            noun: "identities".into(),
            id: Some(id),
        }],
        decision: DecisionFact { allowed: true, reason: "allowed", by: "whoami".into() },
        factors: Vec::new(),
        private: vec![
            (Field::Identity, "nightly-etl".into()),
            (Field::Resource, "identities/nightly-etl".into()),
            (Field::Source, "127.0.0.1".into()),
        ],
    };
    facts.encode(&Ending::plain("OK"), &SystemEntropy).unwrap()
}

struct Committer {
    reader: Reader,
    writer: Writer,
    codec: Arc<RecordCodec>,
}

impl Committer {
    async fn open(dir: &std::path::Path) -> Self {
        let codec = Arc::new(RecordCodec::default());
        codec.set_key(Some(MacKey::new(&[3; 32])));
        let location = Location::Sqlite { path: dir.join("record.db"), max_mib: 0, reserve_mib: 0 };
        let batches = Arc::clone(&codec) as Arc<dyn BatchCodec>;
        let sealer = Arc::new(RowSealer::default());
        let tasks = TaskGroup::default();
        let (reader, writer) =
            Store::open(&location, "bench", sealer, batches, &tasks).await.unwrap();
        Self { reader, writer, codec }
    }

    /// Appends while the log is integrated as a node does, and until it has caught up.
    async fn run(&self, entry: &Arc<Entry>, span: Duration) -> Run {
        let ended = Arc::new(AtomicBool::new(false));
        let (reader, codec) = (self.reader.clone(), Arc::clone(&self.codec));
        let (writer, stopped) = (self.writer.clone(), Arc::clone(&ended));
        let integration = tokio::spawn(async move {
            loop {
                let last = stopped.load(Ordering::Acquire);
                while let Some(step) = plan(&reader, &codec).await.unwrap() {
                    let (step, settled) = step.watched();
                    let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
                    let work = Box::new(step);
                    writer.submit(Job { fence: None, needs, work }).await.unwrap();
                    assert!(matches!(settled.await, Ok(Settled::Durable { .. })));
                }
                if last {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let (writer, entry) = (self.writer.clone(), Arc::clone(entry));
        let began = std::time::Instant::now();
        let mut run = drive(CONCURRENCY, span, vec![writer], move |writer, _| {
            let entry = Arc::clone(&entry);
            async move {
                let (reply, settled) = oneshot::channel();
                let work = Box::new(Append { entry, reply });
                writer.submit(Job { fence: None, needs: NEEDS, work }).await.unwrap();
                assert!(matches!(settled.await, Ok(Settled::Durable { .. })));
            }
        })
        .await;
        let appended = run.rate_per_s * began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Release);
        integration.await.unwrap();
        run.rate_per_s = appended / began.elapsed().as_secs_f64();
        run
    }
}

struct Append {
    entry: Arc<Entry>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Append {
    async fn run(&mut self, _: &mut Tx) -> Result<()> {
        Ok(())
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        Some((*self.entry).clone())
    }

    fn settle(self: Box<Self>, settled: Settled) {
        self.reply.send(settled).unwrap();
    }
}

/// The same bytes, handed over by the same number of tasks, in one prepared insert a group.
async fn ceiling(entry: &Entry, group: usize) -> Run {
    let (sender, writer) = insert::start(group);
    let bytes = Bytes::from([entry.leaf.as_slice(), &entry.side].concat());
    let call = move |sender: mpsc::Sender<_>, _| {
        let bytes = bytes.clone();
        async move { insert::call(&sender, bytes).await }
    };
    let run = drive(CONCURRENCY, RUN / 2, vec![sender], call).await;
    writer.join().unwrap();
    run
}
