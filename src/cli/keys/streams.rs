//! Files of any size: read, sent, received and written as they go.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::args::Piece;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::check_new;
use crate::cli::output::note;
use crate::cli::session::Session;
use crate::proto::key_service_client::KeyServiceClient as Client;
use crate::proto::{
    DecryptStreamRequest, DecryptStreamResponse, EncryptStreamRequest, EncryptStreamResponse,
    UsedKey,
};

/// Bytes of a part: what goes fastest.
const PART: usize = 64 * 1_024;
/// Parts on their way.
const AHEAD: usize = 8;

/// Tells whether a stream is asked for: from which file, and into which.
pub(super) fn asked(piece: &Piece) -> Outcome<Option<(&Path, &Path)>> {
    match (&piece.file, &piece.out) {
        (Some(from), Some(to)) => Ok(Some((from, to))),
        (Some(_), None) => Err(Failure::usage("a stream needs a file to go to: give --out FILE")),
        (None, _) => Ok(None),
    }
}

pub(super) async fn encrypt(
    session: &Session,
    piece: &Piece,
    (from, to): (&Path, &Path),
) -> Outcome {
    let (name, aad) = (piece.name.clone(), piece.aad.clone().into_bytes());
    let first = EncryptStreamRequest { name, associated_data: aad, data: Vec::new() };
    let part = |data| EncryptStreamRequest { data, ..Default::default() };
    let mut client = Client::new(session.wire());
    let take = |answer: EncryptStreamResponse| (answer.data, answer.used);
    let call = async |parts| client.encrypt_stream(Request::new(parts)).await;
    run((from, to, 0o644), (first, part), call, take).await
}

pub(super) async fn decrypt(
    session: &Session,
    piece: &Piece,
    (from, to): (&Path, &Path),
) -> Outcome {
    let (name, aad) = (piece.name.clone(), piece.aad.clone().into_bytes());
    let first = DecryptStreamRequest { name, associated_data: aad, data: Vec::new() };
    let part = |data| DecryptStreamRequest { data, ..Default::default() };
    let mut client = Client::new(session.wire());
    let take =
        |mut answer: DecryptStreamResponse| (std::mem::take(&mut answer.data), answer.used.take());
    let call = async |parts| client.decrypt_stream(Request::new(parts)).await;
    run((from, to, 0o600), (first, part), call, take).await
}

/// Sends a file and writes what comes back. A file that is not whole is not left behind.
async fn run<Q: Send + 'static, R>(
    (from, to, mode): (&Path, &Path, u32),
    (first, part): (Q, impl Fn(Vec<u8>) -> Q + Send + 'static),
    call: impl AsyncFnOnce(ReceiverStream<Q>) -> Result<Response<Streaming<R>>, Status>,
    take: impl Fn(R) -> (Vec<u8>, Option<UsedKey>),
) -> Outcome {
    check_new(to)?;
    let broken = |path: &Path, error: std::io::Error| {
        Failure::new(Exit::Unexpected, format!("{}: {error}", path.display()))
    };
    let mut source = File::open(from).map_err(|error| broken(from, error))?;
    let (parts, sent) = mpsc::channel(AHEAD);
    // A thread of its own: reading blocks.
    let reading = tokio::task::spawn_blocking(move || {
        let mut next = Some(first);
        loop {
            let sending = match next.take() {
                Some(first) => first,
                None => match read(&mut source)? {
                    Some(data) => part(data),
                    None => return Ok(()),
                },
            };
            if parts.blocking_send(sending).is_err() {
                return Ok(());
            }
        }
    });
    let mut target = OpenOptions::new();
    let target = target.write(true).create_new(true).mode(mode);
    let mut target = target.open(to).map_err(|error| broken(to, error))?;
    let done = receive(call(ReceiverStream::new(sent)), take, &mut target).await;
    let read: std::io::Result<()> =
        reading.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
    let whole = done.and_then(|used| match read {
        Ok(()) => target.sync_all().map(|()| used).map_err(|error| broken(to, error)),
        Err(error) => Err(broken(from, error)),
    });
    match whole {
        Ok(used) => {
            let (version, algorithm) = (used.version, used.algorithm);
            note(&format!("{} is done by version {version} ({algorithm})", to.display()));
            Ok(())
        }
        Err(failure) => {
            if let Err(error) = std::fs::remove_file(to) {
                note(&format!("{} is not whole, and stays: {error}", to.display()));
            }
            Err(failure)
        }
    }
}

async fn receive<R>(
    call: impl Future<Output = Result<Response<Streaming<R>>, Status>>,
    take: impl Fn(R) -> (Vec<u8>, Option<UsedKey>),
    target: &mut File,
) -> Outcome<UsedKey> {
    let mut answers = call.await?.into_inner();
    let mut by = UsedKey::default();
    while let Some(answer) = answers.message().await? {
        let (data, used) = take(answer);
        let data = Zeroizing::new(data);
        by = used.unwrap_or(by);
        target.write_all(&data).map_err(|error| {
            Failure::new(Exit::Unexpected, format!("the file takes nothing: {error}"))
        })?;
    }
    Ok(by)
}

/// Reads a part, whole where the file has as much; none at its end.
fn read(source: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    let mut data = Vec::with_capacity(PART);
    let limit = u64::try_from(PART).unwrap_or(u64::MAX);
    source.take(limit).read_to_end(&mut data)?;
    Ok((!data.is_empty()).then_some(data))
}
