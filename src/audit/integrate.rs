//! Gives entries their place in the one tree, and finds what was removed or altered before.
//!
//! [`plan`] reads and hashes, behind the requests: on a runtime's thread, where it began, the calls
//! of the connections beside it waited for it, and a second's log cost a tenth of a second's rate.
//! The plan is committed as upkeep, fenced by the head's size, so that any number of nodes may try
//! at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::RecordCodec;
use super::batch::cut;
use super::entry::ReadEntry;
use super::extend::Tiles;
use super::filter::{Bloom, entries_in};
use super::head::{Head, digest, tampered};
use super::usage::KeyUses;
use crate::crypto::{self, Frontier, Hash, Tile, TileEdge, TileId};
use crate::error::{Error, Result};
use crate::store::records::{self, FilterRow, HeadRow, LaneState, PendingBatch};
use crate::store::{Change, Entry, OwnLane, Reader, Settled, StoreError, Tx, Work};

/// Batches of one lane that one integration takes.
const BATCHES: i64 = 512;
/// Bytes of batches that one integration takes, unless a single one is larger.
const BYTES: i64 = 8 << 20;
/// Entries in a bundle, and hashes in a tile.
const WIDTH: i64 = 256;

/// One step of the log, ready to be committed.
#[derive(Debug)]
pub struct Integration {
    from: HeadRow,
    to: HeadRow,
    places: Vec<(i64, i64, i64, i64)>,
    lanes: Vec<LaneState>,
    tiles: Vec<Tile>,
    filters: Vec<FilterRow>,
    uses: KeyUses,
    settled: Option<tokio::sync::oneshot::Sender<Settled>>,
}

/// What one view reads.
struct Gathered {
    head: HeadRow,
    lanes: Vec<LaneState>,
    /// Lanes of this process that passed out of sight.
    ended: Vec<LaneState>,
    batches: Vec<PendingBatch>,
    tiles: HashMap<(u8, u64), Vec<u8>>,
    filter: Option<FilterRow>,
}

/// Plans the next step; nothing when every batch has its place.
///
/// # Errors
/// [`Error::Tampered`], with an alarm, when a batch was removed or altered, or the head is none that
/// a vault wrote.
pub async fn plan(reader: &Reader, codec: &Arc<RecordCodec>) -> Result<Option<Integration>> {
    let (seen, codec) = (reader.clone(), Arc::clone(codec));
    // What this process committed before the view begins must be there.
    let own = reader.own_lanes();
    reader.yielding_view(move |tx| look(tx, seen, codec, own).boxed()).await
}

async fn look(
    tx: &mut Tx,
    reader: Reader,
    codec: Arc<RecordCodec>,
    own: BTreeMap<i64, OwnLane>,
) -> Result<Option<Integration>> {
    let gathered = gather(tx, &own).await?;
    let Gathered { head, lanes, ended, .. } = &gathered;
    let known = || lanes.iter().chain(ended);
    for (lane, own) in &own {
        demand(known().find(|state| state.lane == *lane), *lane, own)?;
    }
    if !codec.vouches(head)? || digest(lanes) != head.lanes {
        return Err(tampered(head).into());
    }
    reader.saw_placed(known().map(|lane| (lane.lane, lane.seq)));
    if gathered.batches.is_empty() {
        return Ok(None);
    }
    integrate(&codec, gathered, &own).map(Some)
}

/// Demands of a lane's row what this process committed there.
fn demand(state: Option<&LaneState>, lane: i64, own: &OwnLane) -> Result<(), StoreError> {
    let (seq, last) = state.map_or((0, 0), |state| (state.seq, state.last.max(state.seq)));
    if own.batches.last_key_value().is_some_and(|(newest, _)| *newest > last) {
        return Err(removed(lane, last.saturating_add(1)));
    }
    match (own.batches.get(&seq), state) {
        (Some(hash), Some(state)) if state.hash != hash => Err(removed(lane, seq)),
        (Some(_) | None, _) => Ok(()),
    }
}

async fn gather(tx: &mut Tx, own: &BTreeMap<i64, OwnLane>) -> Result<Gathered> {
    let head = records::head(tx).await?;
    let lanes = records::lanes(tx).await?;
    let mut ended = Vec::new();
    for &lane in own.keys().filter(|own| lanes.iter().all(|state| state.lane != **own)) {
        ended.extend(records::ended_lane(tx, lane).await?);
    }
    let behind = || lanes.iter().filter(|lane| lane.last > lane.seq);
    let share = BYTES / i64::try_from(behind().count().max(1)).map_err(Error::internal)?;
    let mut batches = Vec::new();
    let mut total = 0_i64;
    for lane in behind() {
        if total >= BYTES {
            break;
        }
        let (mut last, mut bytes) = (lane.seq, 0_i64);
        for (seq, size) in records::sizes_after(tx, lane.lane, lane.seq, BATCHES).await? {
            if bytes > 0 && bytes.saturating_add(size) > share {
                break;
            }
            (last, bytes) = (seq, bytes.saturating_add(size));
        }
        total = total.saturating_add(bytes);
        batches.extend(records::batches_between(tx, lane.lane, lane.seq, last).await?);
    }
    let mut tiles = HashMap::new();
    let mut filter = None;
    if !batches.is_empty() {
        for id in TileEdge::tiles_at(unsigned(head.size)?) {
            if let Some(bytes) = records::tile(tx, i64::from(id.level), signed(id.index)?).await? {
                tiles.insert((id.level, id.index), bytes);
            }
        }
        let bundle = head.size / WIDTH;
        let last = records::filters_down(tx, bundle, 1).await?.into_iter().next();
        filter = last.filter(|found| found.bundle == bundle);
    }
    Ok(Gathered { head, lanes, ended, batches, tiles, filter })
}

fn integrate(
    codec: &RecordCodec,
    gathered: Gathered,
    own: &BTreeMap<i64, OwnLane>,
) -> Result<Integration> {
    let Gathered { head, mut lanes, ended: _, batches, tiles, filter } = gathered;
    let hashes = head.edge.as_chunks::<32>().0.to_vec();
    let mut frontier = Frontier::from_parts(unsigned(head.size)?, hashes)?;
    if head.size > 0 && head.root != frontier.root() {
        return Err(tampered(&head).into());
    }
    let mut edge = TileEdge::load(unsigned(head.size)?, &Tiles(tiles))?;
    let mut step = Integration {
        to: head.clone(),
        from: head,
        places: Vec::new(),
        lanes: Vec::new(),
        tiles: Vec::new(),
        filters: Vec::new(),
        uses: KeyUses::default(),
        settled: None,
    };
    let mut filters = BTreeMap::new();
    let (bundle, begun) = (step.from.size / WIDTH, step.from.size % WIDTH);
    if begun != 0 {
        filters.insert(bundle, Bloom::open(codec, bundle, begun, filter)?);
    }
    let mut leaves = Vec::new();
    for lane in lanes.iter_mut().filter(|lane| lane.last > lane.seq) {
        let (id, before) = (lane.lane, lane.seq);
        for batch in batches.iter().filter(|batch| batch.lane == id) {
            let committed = own.get(&id).and_then(|own| own.batches.get(&batch.seq));
            step.take(codec, lane, batch, committed, &mut leaves, &mut filters)?;
        }
        if lane.seq != before {
            step.lanes.push(lane.clone());
        }
    }
    for leaf in &leaves {
        frontier.append(*leaf)?;
    }
    step.tiles = edge.append(&leaves)?;
    for (bundle, filter) in filters {
        let entries = entries_in(bundle, step.to.size);
        step.filters.push(filter.to_row(codec, bundle, entries)?);
    }
    step.to.root = frontier.root().to_vec();
    step.to.edge = frontier.edge().concat();
    step.to.lanes = digest(&lanes);
    step.to.mac = codec.vouch(&step.to)?.to_vec();
    Ok(step)
}

impl Integration {
    /// The head that this step makes.
    #[must_use]
    pub fn head(&self) -> Head {
        Head::read(&self.to)
    }

    /// Asks to be told what became of it.
    #[must_use]
    pub fn watched(mut self) -> (Self, tokio::sync::oneshot::Receiver<Settled>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.settled = Some(sender);
        (self, receiver)
    }

    /// Checks a batch against its lane's chain and takes its leaves.
    fn take(
        &mut self,
        codec: &RecordCodec,
        lane: &mut LaneState,
        batch: &PendingBatch,
        committed: Option<&Hash>,
        leaves: &mut Vec<Hash>,
        filters: &mut BTreeMap<i64, Bloom>,
    ) -> Result<()> {
        let next = lane.seq.saturating_add(1);
        if batch.seq != next {
            return Err(removed(lane.lane, next).into());
        }
        let place = (batch.lane, batch.seq);
        let hash = codec.check(place, &lane.hash, &batch.body, &batch.mac)?;
        let entries = cut(&batch.body)?;
        let whole = i64::try_from(entries.len()).is_ok_and(|count| count == batch.entries);
        let Some(hash) = hash.filter(|hash| {
            whole && batch.previous == lane.hash && committed.is_none_or(|ours| ours == hash)
        }) else {
            return Err(StoreError::Tampered {
                table: "record_batches",
                id: format!("{}/{}", batch.lane, batch.seq),
            }
            .into());
        };
        self.places.push((self.to.size, batch.lane, batch.seq, batch.entries));
        for entry in entries {
            let bundle = self.to.size / WIDTH;
            let read = ReadEntry::decode(entry)?;
            filters.entry(bundle).or_default().add_entry(&read);
            self.uses.add(&read);
            leaves.push(crypto::leaf_hash(entry));
            self.to.size = self.to.size.saturating_add(1);
        }
        lane.seq = batch.seq;
        lane.hash = hash.to_vec();
        Ok(())
    }
}

#[async_trait]
impl Work for Integration {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        records::advance_head(tx, &self.from, &self.to).await?;
        for (first, lane, seq, entries) in &self.places {
            records::place(tx, *first, *lane, *seq, *entries).await?;
        }
        for lane in &self.lanes {
            records::advance_lane(tx, lane).await?;
        }
        for tile in &self.tiles {
            let TileId { level, index, .. } = tile.id;
            records::put_tile(tx, i64::from(level), signed(index)?, tile.bytes.clone()).await?;
        }
        for filter in &self.filters {
            records::put_filter(tx, filter).await?;
        }
        self.uses.store(tx).await?;
        Ok(())
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        None
    }

    fn settle(mut self: Box<Self>, settled: Settled) {
        if let Some(sender) = self.settled.take() {
            // Whoever asked may have gone.
            let _gone = sender.send(settled);
        }
    }
}

fn removed(lane: i64, seq: i64) -> StoreError {
    StoreError::Tampered { table: "record_batches", id: format!("{lane}/{seq}") }
}

fn unsigned(size: i64) -> Result<u64, StoreError> {
    u64::try_from(size).map_err(|_negative| StoreError::Malformed)
}

fn signed(index: u64) -> Result<i64, StoreError> {
    i64::try_from(index).map_err(|_large| StoreError::Malformed)
}
