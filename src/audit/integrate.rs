//! Gives entries their place in the one tree, and finds what was removed or altered before.
//!
//! [`plan`] reads and hashes; the plan is committed as upkeep, fenced by the head's size, so that
//! any number of nodes may try at once.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::RecordCodec;
use super::batch::cut;
use super::entry::ReadEntry;
use super::extend::Tiles;
use super::filter::Bloom;
use crate::crypto::{self, EMPTY_ROOT, Frontier, Hash, Tile, TileEdge, TileId};
use crate::error::{Error, Result};
use crate::store::records::{self, HeadRow, LaneState, PendingBatch};
use crate::store::{Change, Entry, Reader, Settled, StoreError, Tx, Work};

/// Batches of one lane that one integration takes.
const BATCHES: i64 = 512;
/// Entries in a bundle, and hashes in a tile.
const WIDTH: i64 = 256;

/// The log's head: how many entries, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries in the tree.
    pub size: i64,
    /// Root hash.
    pub root: Hash,
}

impl Head {
    /// Takes it from its row; a root that is none is the empty tree's.
    #[must_use]
    pub fn read(row: &HeadRow) -> Self {
        Self { size: row.size, root: row.root.as_slice().try_into().unwrap_or(EMPTY_ROOT) }
    }
}

/// One step of the log, ready to be committed.
#[derive(Debug)]
pub struct Integration {
    from: i64,
    head: Head,
    edge: Vec<u8>,
    places: Vec<(i64, i64, i64, i64)>,
    lanes: Vec<LaneState>,
    tiles: Vec<Tile>,
    filters: BTreeMap<i64, Bloom>,
    settled: Option<tokio::sync::oneshot::Sender<Settled>>,
}

/// What one view reads.
struct Gathered {
    head: HeadRow,
    lanes: Vec<(LaneState, Vec<PendingBatch>)>,
    tiles: HashMap<(u8, u64), Vec<u8>>,
    filter: Option<Vec<u8>>,
    /// The first batch that this process committed and that is gone: lane and sequence.
    gone: Option<(i64, i64)>,
}

/// Plans the next step; nothing when every batch has its place.
///
/// # Errors
/// [`Error::Denied`], with an alarm, when a batch was removed or altered.
pub async fn plan(reader: &Reader, codec: &RecordCodec) -> Result<Option<Integration>> {
    let own = reader.own_lanes();
    let gathered = reader.view(|tx| gather(tx, own).boxed()).await?;
    if let Some((lane, seq)) = gathered.gone {
        return Err(removed(lane, seq).into());
    }
    if gathered.lanes.is_empty() {
        return Ok(None);
    }
    integrate(codec, gathered).map(Some)
}

async fn gather(tx: &mut Tx, own: Vec<(i64, i64)>) -> Result<Gathered> {
    let head = records::head(tx).await?;
    let mut lanes = Vec::new();
    for lane in records::lanes_behind(tx).await? {
        let batches = records::batches_after(tx, lane.lane, lane.seq, BATCHES).await?;
        lanes.push((lane, batches));
    }
    // What this process committed before the view began must be there.
    let mut gone = None;
    for (lane, seq) in own {
        let read = lanes.iter().find(|(state, _)| state.lane == lane);
        let last = read.and_then(|(_, batches)| batches.last().map(|batch| batch.seq));
        let full = read.is_some_and(|(_, batches)| {
            i64::try_from(batches.len()).is_ok_and(|count| count >= BATCHES)
        });
        let last = match last {
            Some(last) => last,
            None => records::lane(tx, lane).await?.map_or(0, |state| state.seq),
        };
        if last < seq && !full {
            gone = gone.or(Some((lane, last.saturating_add(1))));
        }
    }
    let mut tiles = HashMap::new();
    let filter;
    if lanes.is_empty() {
        filter = None;
    } else {
        for id in TileEdge::tiles_at(unsigned(head.size)?) {
            if let Some(bytes) = records::tile(tx, i64::from(id.level), signed(id.index)?).await? {
                tiles.insert((id.level, id.index), bytes);
            }
        }
        let bundle = head.size / WIDTH;
        let last = records::filters_down(tx, bundle, 1).await?.into_iter().next();
        filter = last.filter(|(found, _)| *found == bundle).map(|(_, filter)| filter);
    }
    Ok(Gathered { head, lanes, tiles, filter, gone })
}

fn integrate(codec: &RecordCodec, gathered: Gathered) -> Result<Integration> {
    let Gathered { head, lanes, tiles, filter, gone: _ } = gathered;
    let hashes = head.edge.as_chunks::<32>().0.to_vec();
    let mut frontier = Frontier::from_parts(unsigned(head.size)?, hashes)?;
    if head.size > 0 && head.root != frontier.root() {
        return Err(StoreError::Tampered { table: "log_head", id: head.size.to_string() }.into());
    }
    let mut edge = TileEdge::load(unsigned(head.size)?, &Tiles(tiles))?;
    let mut step = Integration {
        from: head.size,
        head: Head { size: head.size, root: [0; 32] },
        edge: Vec::new(),
        places: Vec::new(),
        lanes: Vec::new(),
        tiles: Vec::new(),
        filters: BTreeMap::new(),
        settled: None,
    };
    if head.size % WIDTH != 0 {
        // One that was removed holds everything: it must hide nothing.
        let filter = Bloom::from_stored(filter.unwrap_or_default());
        step.filters.insert(head.size / WIDTH, filter);
    }
    let mut leaves = Vec::new();
    for (mut lane, batches) in lanes {
        for batch in batches {
            step.take(codec, &mut lane, &batch, &mut leaves)?;
        }
        step.lanes.push(lane);
    }
    for leaf in &leaves {
        frontier.append(*leaf)?;
    }
    step.tiles = edge.append(&leaves)?;
    step.head.root = frontier.root();
    step.edge = frontier.edge().concat();
    Ok(step)
}

impl Integration {
    /// The head that this step makes.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
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
        leaves: &mut Vec<Hash>,
    ) -> Result<()> {
        let next = lane.seq.saturating_add(1);
        if batch.seq != next {
            return Err(removed(lane.lane, next).into());
        }
        let place = (batch.lane, batch.seq);
        let hash = codec.check(place, &lane.hash, &batch.body, &batch.mac)?;
        let entries = cut(&batch.body)?;
        let whole = i64::try_from(entries.len()).is_ok_and(|count| count == batch.entries);
        let Some(hash) = hash.filter(|_| whole && batch.previous == lane.hash) else {
            return Err(StoreError::Tampered {
                table: "record_batches",
                id: format!("{}/{}", batch.lane, batch.seq),
            }
            .into());
        };
        self.places.push((self.head.size, batch.lane, batch.seq, batch.entries));
        for entry in entries {
            let bundle = self.head.size / WIDTH;
            self.filters.entry(bundle).or_default().add_entry(&ReadEntry::decode(entry)?);
            leaves.push(crypto::leaf_hash(entry));
            self.head.size = self.head.size.saturating_add(1);
        }
        lane.seq = batch.seq;
        lane.hash = hash.to_vec();
        Ok(())
    }
}

#[async_trait]
impl Work for Integration {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let Head { size, root } = self.head;
        records::advance_head(tx, self.from, size, &root, self.edge.clone()).await?;
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
        for (bundle, filter) in &self.filters {
            records::put_filter(tx, *bundle, filter.as_bytes().to_vec()).await?;
        }
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
