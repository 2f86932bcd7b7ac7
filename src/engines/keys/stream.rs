//! Encrypts and decrypts streams that are larger than memory, as they come.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::batch::{AAD_BYTES, Fault, Used, Work, all_used};
use super::cipher::cipher;
use super::find::{Hot, Keys, unknown};
use crate::audit::Field;
use crate::crypto::{CryptoError, StreamHeader, StreamOpener, StreamSealer};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::types::{IdentityId, KeyName, KeyUsage, SecretBytes, UnixMillis};
use crate::vault::{Decision, Note, Resource, StreamOperation, Verb, View};

/// How long it is waited for what comes next, before it is looked whether the stream still stands.
const WAIT: Duration = Duration::from_millis(200);
/// Pieces that are given at once, where as much is there.
const PIECES: usize = 8;

/// Streams of one identity on this node at once, at most.
const STREAMS: usize = 32;
/// How long nothing may come before a stream is over, in milliseconds.
const IDLE_MS: i64 = 60_000;

/// How many streams each identity has on this node.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Counter>);

type Counter = parking_lot::Mutex<HashMap<IdentityId, usize>>;

/// One of them, as long as it is held.
#[derive(Debug)]
struct Held {
    of: IdentityId,
    streams: Arc<Counter>,
}

impl Streams {
    fn take(&self, of: IdentityId) -> Result<Held> {
        let mut streams = self.0.lock();
        let held = streams.entry(of).or_default();
        if *held >= STREAMS {
            let text = format!("you have {STREAMS} streams on this node, as many as may be");
            return Err(Error::Exhausted(text.into()));
        }
        *held = held.saturating_add(1);
        drop(streams);
        Ok(Held { of, streams: Arc::clone(&self.0) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        if let Some(held) = streams.get_mut(&self.of) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                streams.remove(&self.of);
            }
        }
    }
}

/// What comes in.
pub type Input = Pin<Box<dyn Stream<Item = Result<SecretBytes>> + Send>>;

/// What goes out.
pub struct Piece {
    /// Which key does it; with the first piece.
    pub used: Option<Used>,
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("used", &self.used).finish_non_exhaustive()
    }
}

/// What is done to a stream.
#[async_trait]
pub trait Way: Send + Sync + 'static {
    /// The verb.
    const ACTION: &'static str;
    /// What the key is used for.
    const PURPOSE: &'static str;

    /// Begins: the coder, the version that is used, and what goes out first.
    async fn begin(work: &Work<'_>, stream: &Begun) -> Result<(Coder, i64, Vec<u8>)>;
}

/// What a stream is asked for with.
#[derive(Debug)]
pub struct Begun {
    /// What it is bound to.
    pub associated_data: Vec<u8>,
    /// Its header, where it is to be decrypted.
    pub header: Vec<u8>,
}

/// Encrypts with the newest version.
#[derive(Debug)]
pub struct Sealing;

/// Decrypts.
#[derive(Debug)]
pub struct Opening;

/// What turns one into the other.
#[derive(Debug)]
pub enum Coder {
    /// Encrypts.
    Seal(StreamSealer),
    /// Decrypts.
    Open(StreamOpener),
}

impl Coder {
    fn push(&mut self, data: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>> {
        match self {
            Self::Seal(sealer) => Ok(sealer.push(data)?.into_iter().map(Zeroizing::new).collect()),
            Self::Open(opener) => {
                let plain = opener.push(data).map_err(refused)?;
                Ok(plain.iter().map(copied).collect())
            }
        }
    }

    fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Seal(sealer) => Ok(Zeroizing::new(sealer.finish()?)),
            Self::Open(opener) => Ok(copied(&opener.finish().map_err(refused)?)),
        }
    }
}

fn copied(segment: &SecretBytes) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(segment.expose().to_vec())
}

/// The one answer for whatever is wrong inside.
fn refused(error: CryptoError) -> Error {
    if error == CryptoError::Open { told(Fault::does_not_open()) } else { error.into() }
}

fn told(fault: Fault) -> Error {
    Error::invalid(fault.message)
}

#[async_trait]
impl Way for Sealing {
    const ACTION: &'static str = "keys.encrypt-stream";
    const PURPOSE: &'static str = "encrypt-stream/sealed";

    async fn begin(work: &Work<'_>, stream: &Begun) -> Result<(Coder, i64, Vec<u8>)> {
        let header = StreamHeader::new(work.header(&work.newest)?, work.entropy.as_ref())?;
        let key = work.hot.material(work.view, &work.newest).await?;
        let vault = work.view.vault_id();
        let sealer = StreamSealer::new(vault, &header, &key, &stream.associated_data)?;
        Ok((Coder::Seal(sealer), work.newest.version, header.encode()))
    }
}

#[async_trait]
impl Way for Opening {
    const ACTION: &'static str = "keys.decrypt-stream";
    const PURPOSE: &'static str = "decrypt-stream/sealed";

    async fn begin(work: &Work<'_>, stream: &Begun) -> Result<(Coder, i64, Vec<u8>)> {
        let header = StreamHeader::parse(&stream.header)
            .map_err(|_malformed| Error::invalid("this is no stream of a named key"))?;
        let (row, number) = (&work.hot.row.row, i64::from(header.of.version));
        if header.of.key != row.id.0 || header.of.cipher != cipher(row.algorithm)? {
            return Err(told(Fault::other_key()));
        }
        if (1..row.min_version).contains(&number) {
            return Err(Error::precondition(Fault::retired(number).message));
        }
        let version = work.version(number.max(1)).await?;
        let version = version.map_err(|_never_was| told(Fault::does_not_open()))?;
        let key = work.hot.material(work.view, &version).await?;
        let vault = work.view.vault_id();
        let opener = StreamOpener::new(vault, &header, &key, &stream.associated_data)?;
        // What says of itself that it is of version 0 opens as little as one with another bit changed.
        Ok((Coder::Open(opener), version.version, Vec::new()))
    }
}

/// Does something to a stream.
pub struct StreamKey<W> {
    keys: Keys,
    name: KeyName,
    begun: Begun,
    input: Arc<Mutex<Input>>,
    way: PhantomData<W>,
}

impl<W> fmt::Debug for StreamKey<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<W> StreamKey<W> {
    /// Takes a stream in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for associated data that is too long.
    pub fn new(keys: Keys, name: KeyName, begun: Begun, input: Input) -> Result<Self> {
        if begun.associated_data.len() > AAD_BYTES {
            return Err(Error::invalid(format!("associated data has at most {AAD_BYTES} bytes")));
        }
        let input = Arc::new(Mutex::new(input));
        Ok(Self { keys, name, begun, input, way: PhantomData })
    }
}

/// Where a stream stands.
#[derive(Debug)]
pub struct Flow {
    /// None once it is over.
    coder: Option<Coder>,
    used: Used,
    /// What goes out first.
    first: Option<Vec<u8>>,
    /// Bytes that came in, a header aside.
    came: u64,
    /// Keys that were used.
    noted: Vec<KeyUse>,
    /// When something came last.
    heard: UnixMillis,
    _held: Held,
}

#[async_trait]
impl<W: Way> Verb for StreamKey<W> {
    const ACTION: &'static str = W::ACTION;
    type Prepared = Flow;
    type Output = Piece;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.keys.resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Flow> {
        let usage = Some(KeyUsage::Encrypts);
        let hot: Arc<Hot> = self.keys.decided(view, decision, &self.name, usage).await?;
        let held = self.keys.streams.take(view.identity()?)?;
        let work = Work::new(&self.keys, view, &hot, 1)?;
        let (coder, version, first) = W::begin(&work, &self.begun).await?;
        let row = &hot.row.row;
        let used = Used { id: row.id, version, placement: row.placement, algorithm: row.algorithm };
        let key = KeyUse { key: row.id.to_string(), version, purpose: W::PURPOSE };
        let noted = all_used(view, vec![key]);
        let (coder, first, heard) = (Some(coder), Some(first), view.now());
        Ok(Flow { coder, used, first, came: 0, noted, heard, _held: held })
    }

    fn note(&self, at: &Flow, note: &mut Note) {
        note.keys.extend(at.noted.iter().cloned());
        note.private.push((Field::Detail, format!("{} bytes", at.came)));
    }
}

#[async_trait]
impl<W: Way> StreamOperation for StreamKey<W> {
    const ENDS: bool = true;

    async fn next(&self, view: &View, at: &mut Flow) -> Result<Vec<Piece>> {
        // Kept in memory until something moves: a key that may not go on ends its streams.
        let hot = self.keys.lookup(view, &self.name).await?.ok_or_else(unknown)?;
        hot.require_active()?;
        if at.used.version < hot.row.row.min_version {
            return Err(Error::precondition(Fault::retired(at.used.version).message));
        }
        let mut out = Vec::new();
        if let Some(bytes) = at.first.take() {
            out.push(Piece { used: Some(at.used), bytes: Zeroizing::new(bytes) });
        }
        let mut input = self.input.lock().await;
        let until = Instant::now() + WAIT;
        // What comes in small parts is no segment for a while.
        while out.len() < PIECES {
            let came = if out.is_empty() {
                tokio::time::timeout_at(until, input.next()).await.ok()
            } else {
                input.next().now_or_never()
            };
            let (Some(came), Some(coder)) = (came, at.coder.as_mut()) else { break };
            at.heard = view.now();
            let Some(data) = came.transpose()? else {
                if let Some(coder) = at.coder.take() {
                    out.push(Piece { used: None, bytes: coder.finish()? });
                }
                break;
            };
            at.came = at.came.saturating_add(u64::try_from(data.len_bytes()).unwrap_or(u64::MAX));
            let segments = coder.push(data.expose())?;
            out.extend(segments.into_iter().map(|bytes| Piece { used: None, bytes }));
        }
        if out.is_empty() && view.now().0.saturating_sub(at.heard.0) > IDLE_MS {
            return Err(Error::Deadline);
        }
        Ok(out)
    }

    fn is_over(&self, at: &Flow) -> bool {
        at.coder.is_none()
    }
}
