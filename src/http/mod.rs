//! The second listener, without TLS: `/metrics`, `/healthz`, `/readyz`, and `/crl/issuing.crl`, which
//! is signed and for everybody, as are the lists of its older versions. It answers nothing else about identities or what the vault holds.

mod listen;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::engines::pki::{CrlSlot, listed};
use crate::hsm::Hsm;
use crate::store::Versioned;
use crate::store::crls::CrlRow;
use crate::telemetry::{Gauges, Metrics};
use crate::types::{Segment, Standing, State as Serving, TaskGroup};
use crate::vault::Vault;

pub use listen::Limits;

/// How long the store may take to answer before the node is not ready.
const STORE: Duration = Duration::from_secs(2);
/// How long batches may wait without the log growing: it is integrated every second.
const STUCK: Duration = Duration::from_secs(30);
/// How long whoever stands between may keep a revocation list without asking again.
const CRL_CACHED: &str = "public, max-age=60, must-revalidate";

/// What the listener asks.
#[derive(Debug, Clone)]
pub struct Front {
    /// The vault.
    pub vault: Vault,
    /// Whether it serves.
    pub standing: Standing,
    /// What it counted.
    pub metrics: Arc<Metrics>,
    /// The token.
    pub hsm: Arc<dyn Hsm>,
    /// The newest revocation list.
    pub crls: CrlSlot,
}

/// Serves until the tasks are told to stop.
pub async fn serve(listener: TcpListener, front: Front, limits: Limits, tasks: TaskGroup) {
    let counted = Arc::clone(&front.metrics);
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/crl/{file}", get(crl))
        .with_state(front);
    listen::listen(&listener, &routes, limits, &counted, &tasks).await;
}

async fn metrics(State(front): State<Front>) -> Response {
    let activity = front.vault.activity();
    let crl = front.crls.current().map(|crl| (crl.row.next_update, listed(crl.row.listed.len())));
    let (crl_next_update, crl_certificates) = crl.unwrap_or_default();
    let text = front.metrics.render(&Gauges {
        commits: activity.commits,
        jobs: activity.jobs,
        entries: activity.entries,
        sealed: !front.standing.is_serving(),
        stuck_threads: front.hsm.stuck_threads(),
        crl_next_update,
        crl_certificates,
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn readyz(State(front): State<Front>) -> (StatusCode, String) {
    match unready(&front).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// A list that is sent from where it is kept.
struct Kept(Arc<Versioned<CrlRow>>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0.row.der
    }
}

/// The newest revocation list (RFC 2585, section 4.2). A node that does not serve may not know the
/// newest, so that it shows none; nor does anybody show one that may not be used any more.
async fn crl(State(front): State<Front>, Path(file): Path<String>, asked: HeaderMap) -> Response {
    // The current list's own name says that it is one that should be there.
    let id = file.strip_suffix(".crl").filter(|name| name.starts_with("issuing"));
    let Some(Ok(id)) = id.map(str::parse::<Segment>) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let now = front.vault.now().ok().filter(|_| front.standing.is_serving());
    let crl = front.crls.newest(&id).zip(now).filter(|(crl, now)| crl.row.next_update > *now);
    let Some((crl, _)) = crl else {
        return (StatusCode::SERVICE_UNAVAILABLE, "there is no list here now\n").into_response();
    };
    let tag = format!("\"{}\"", crl.row.number);
    let same =
        asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, "application/pkix-crl".to_owned()),
        (header::CACHE_CONTROL, CRL_CACHED.to_owned()),
        (header::ETAG, tag),
    ];
    if same {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Body::from(Bytes::from_owner(Kept(crl)))).into_response()
}

/// Why the node must get no requests.
async fn unready(front: &Front) -> Option<String> {
    match front.standing.state() {
        Serving::Serving => {}
        Serving::Sealed(_) => return Some("sealed".to_owned()),
        Serving::Held(_) => return Some("held: the store waits for acceptance".to_owned()),
        Serving::Unheard => return Some("the store does not answer".to_owned()),
        Serving::Stopping => return Some("stopping".to_owned()),
    }
    if let Err(error) = front.vault.now() {
        return Some(error.to_string());
    }
    match tokio::time::timeout(STORE, front.vault.log_state()).await {
        Err(_elapsed) => Some("the store does not answer".to_owned()),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(log)) if log.waiting > 0 && front.metrics.log_waits() > STUCK => {
            Some("the log is stuck: entries wait for a checkpoint".to_owned())
        }
        Ok(Ok(_)) => None,
    }
}
