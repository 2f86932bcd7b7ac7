//! The door in front of every service: a node that does not serve answers health alone, too many
//! requests at once are told to come back, and every answer is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::serve::Settings;
use super::status::status;
use super::tls::PeerInfo;
use crate::error::Error;
use crate::telemetry::{Metrics, OTHER_RPC, SPANS};
use crate::types::{Standing, VERBS};
use crate::vault::Vault;

/// The one service that a node answers always.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// What stands before the names in [`VERBS`].
const PACKAGE: &str = "/strongroom.v1.";

/// The door.
#[derive(Debug, Clone)]
pub(super) struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vault: Vault,
    standing: Standing,
    metrics: Arc<Metrics>,
    places: Semaphore,
    /// How long an answer may take.
    deadline: Duration,
    rpcs: HashMap<&'static str, &'static str>,
}

impl Door {
    pub(super) fn new(
        vault: Vault,
        standing: Standing,
        metrics: Arc<Metrics>,
        settings: &Settings,
    ) -> Self {
        let rpcs = VERBS.iter().map(|verb| (verb.rpc, verb.rpc)).collect();
        let places = Semaphore::new(settings.in_flight.min(Semaphore::MAX_PERMITS));
        let deadline = settings.deadline;
        Self(Arc::new(Inner { vault, standing, metrics, places, deadline, rpcs }))
    }
}

impl Inner {
    /// Why a request goes no further.
    fn refusal(&self, source: Option<IpAddr>) -> Option<Error> {
        let refusal = self.standing.refusal()?;
        self.metrics.refused();
        // Summarised on the record once there is a key to record with.
        self.vault.count_stranger(refusal.reason(), source);
        Some(refusal)
    }

    /// How long this request may take: what its caller said, where that is less.
    fn patience(&self, headers: &HeaderMap) -> Duration {
        let said = headers.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        said.map_or(self.deadline, |said| said.min(self.deadline))
    }

    fn rpc(&self, path: &str) -> &'static str {
        let name = path.strip_prefix(PACKAGE).unwrap_or_default();
        self.rpcs.get(name).copied().unwrap_or(OTHER_RPC)
    }
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), inner }
    }
}

/// A service behind the door.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    door: Door,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that was polled ready is the one that is called.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let door = Arc::clone(&self.door.0);
        // Fixed here: what tonic makes of the caller's word ends no earlier, and looks later.
        let until = Instant::now() + door.patience(request.headers());
        Box::pin(async move {
            let path = request.uri().path();
            if path.starts_with(HEALTH) {
                return inner.call(request).await;
            }
            let (rpc, began) = (door.rpc(path), Instant::now());
            let source = request.extensions().get::<PeerInfo>();
            let source = source.map(|peer| peer.address.ip().to_canonical());
            let (answer, code) = if let Some(refusal) = door.refusal(source) {
                refused(&refusal)
            } else if let Ok(_place) = door.places.try_acquire() {
                let span = span(rpc);
                let called = inner.call(request).instrument(span.clone());
                let (answer, code) = match timeout_at(until, called).await {
                    Ok(answer) => {
                        let answer = answer?;
                        let code = code_of(&answer);
                        (answer, code)
                    }
                    Err(_elapsed) => refused(&Error::Deadline),
                };
                span.record("code", code);
                (answer, code)
            } else {
                refused(&Error::unavailable("too many requests at once; retry with back-off"))
            };
            door.metrics.answered(rpc, code, began.elapsed());
            Ok(answer)
        })
    }
}

/// What a collector is told of a request: which RPC, how it went, how long it took.
fn span(rpc: &'static str) -> Span {
    tracing::info_span!(target: SPANS, "rpc", otel.name = rpc, otel.kind = "server", code = Empty)
}

fn refused(error: &Error) -> (http::Response<Body>, &'static str) {
    let status = status(error, None);
    let code = name_of(status.code());
    (status.into_http(), code)
}

/// Reads how long a caller waits: at most eight digits, and a unit.
///
/// Source: gRPC over HTTP/2, Timeout.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = matches!(digits.len(), 1..=8).then(|| digits.parse().ok()).flatten()?;
    match unit {
        "H" => Some(Duration::from_hours(number)),
        "M" => Some(Duration::from_mins(number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Reads the code off an answer; one whose status comes after its messages counts as well.
fn code_of(answer: &http::Response<Body>) -> &'static str {
    let header = answer.headers().get("grpc-status");
    header.map_or("OK", |value| name_of(Code::from_bytes(value.as_bytes())))
}

const fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_the_wire_writes_it_and_nothing_else_is_one() {
        for (text, read) in [
            ("2H", Some(Duration::from_hours(2))),
            ("3M", Some(Duration::from_mins(3))),
            ("30S", Some(Duration::from_secs(30))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("30", None),
            ("-1S", None),
            ("+1S", Some(Duration::from_secs(1))),
            ("1 S", None),
            ("123456789S", None),
            ("1ß", None),
        ] {
            assert_eq!(timeout(text), read, "{text:?}");
        }
    }
}
