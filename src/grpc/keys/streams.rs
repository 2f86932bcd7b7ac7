//! The streams of `KeyService`: what comes in as one stream, what goes out as another.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::NamedKeys;
use super::translate::used;
use crate::crypto::STREAM_HEADER_BYTES;
use crate::engines::keys::{Begun, Input, Opening, Piece, Sealing, StreamKey};
use crate::error::{Error, Result};
use crate::grpc::accept::Gate;
use crate::proto::{DecryptStreamRequest, EncryptStreamRequest, UsedKey};
use crate::types::{RequestContext, SecretBytes};
use crate::vault::{Items, StreamOperation};

/// What goes out.
pub(super) type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Pieces = Items<Piece>;

/// Encrypts a stream: its first message names the key.
pub(super) async fn encrypt(
    service: &NamedKeys,
    ctx: &RequestContext,
    mut inbound: Streaming<EncryptStreamRequest>,
) -> Result<Pieces, Status> {
    let gate = &service.gate;
    let mut first = gate.read(ctx, first(inbound.message().await))?;
    let name = gate.read(ctx, first.name.parse())?;
    let data = SecretBytes::new(std::mem::take(&mut first.data));
    let associated_data = std::mem::take(&mut first.associated_data);
    let rest = inbound.map(|part| match part {
        Ok(mut part) if part.name.is_empty() && part.associated_data.is_empty() => {
            Ok(SecretBytes::new(std::mem::take(&mut part.data)))
        }
        Ok(_) => Err(named_again()),
        Err(_status) => Err(broken()),
    });
    let input: Input = Box::pin(tokio_stream::once(Ok(data)).chain(rest));
    let begun = Begun { associated_data, header: Vec::new() };
    let op = StreamKey::<Sealing>::new(service.keys.clone(), name, begun, input);
    begin(service, ctx, gate.read(ctx, op)?).await
}

/// Decrypts a stream: its first message names the key, and its header is read before anything is
/// decided, because it names the version.
pub(super) async fn decrypt(
    service: &NamedKeys,
    ctx: &RequestContext,
    mut inbound: Streaming<DecryptStreamRequest>,
) -> Result<Pieces, Status> {
    let gate = &service.gate;
    let first = gate.read(ctx, first(inbound.message().await))?;
    let name = gate.read(ctx, first.name.parse())?;
    let (mut header, associated_data) = (first.data, first.associated_data);
    while header.len() < STREAM_HEADER_BYTES {
        let next = gate.read(ctx, first_rest(inbound.message().await))?;
        if !(next.name.is_empty() && next.associated_data.is_empty()) {
            return gate.read(ctx, Err(named_again()));
        }
        header.extend_from_slice(&next.data);
    }
    let data = header.split_off(STREAM_HEADER_BYTES);
    let rest = inbound.map(|part| match part {
        Ok(part) if part.name.is_empty() && part.associated_data.is_empty() => {
            Ok(SecretBytes::new(part.data))
        }
        Ok(_) => Err(named_again()),
        Err(_status) => Err(broken()),
    });
    let input: Input = Box::pin(tokio_stream::once(Ok(SecretBytes::new(data))).chain(rest));
    let begun = Begun { associated_data, header };
    let op = StreamKey::<Opening>::new(service.keys.clone(), name, begun, input);
    begin(service, ctx, gate.read(ctx, op)?).await
}

async fn begin<O: StreamOperation<Output = Piece>>(
    service: &NamedKeys,
    ctx: &RequestContext,
    op: O,
) -> Result<Pieces, Status> {
    Gate::answer(ctx, service.gate.vault.stream(ctx, op).await)
}

/// Answers with pieces; those that hold nothing are left out, but the one that says which key it is.
pub(super) fn out<T: Send + 'static>(
    ctx: RequestContext,
    pieces: Pieces,
    answer: impl Fn((Vec<u8>, Option<UsedKey>)) -> T + Send + 'static,
) -> Out<T> {
    Box::pin(pieces.filter_map(move |piece| match Gate::answer(&ctx, piece) {
        Ok(Piece { used: None, bytes }) if bytes.is_empty() => None,
        Ok(mut piece) => {
            let bytes = std::mem::take(&mut *piece.bytes);
            Some(Ok(answer((bytes, piece.used.map(used)))))
        }
        Err(status) => Some(Err(status)),
    }))
}

fn first<T>(message: Result<Option<T>, Status>) -> Result<T> {
    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Error::invalid("the first message of a stream names the key")),
        Err(_status) => Err(broken()),
    }
}

fn first_rest<T>(message: Result<Option<T>, Status>) -> Result<T> {
    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Error::invalid("this is no stream of a named key")),
        Err(_status) => Err(broken()),
    }
}

fn named_again() -> Error {
    Error::invalid("only the first message of a stream names the key and what it is bound to")
}

fn broken() -> Error {
    Error::invalid("the caller's stream broke off")
}
