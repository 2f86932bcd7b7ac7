//! Fetches what an issuer publishes: over HTTPS alone, from where an administrator said, to a bound,
//! and following nobody anywhere else (rule 17 of the house).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Map;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;
use zeroize::Zeroizing;

use super::definition::{IssuerDefinition, KeySource, Review};
use super::json;
use crate::engines::notices::{Roots, Wire};

/// How long one answer takes at most, from the name to the last byte.
const TAKES: Duration = Duration::from_secs(5);
/// Bytes of an answer's body, of its head, and headers in it.
const BODY_BYTES: usize = 128 * 1_024;
const HEAD_BYTES: usize = 16 * 1_024;
const HEADERS: usize = 64;
/// Where a discovery document lies below the issuer (`OpenID` Connect Discovery 1.0, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Where a cluster reviews tokens, below its API server (Kubernetes API, authentication.k8s.io/v1).
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// How a form is sent (RFC 6749, appendix B).
const FORM: &str = "application/x-www-form-urlencoded";

/// Fetches the keys of an issuer.
///
/// # Errors
/// Why there are none, for an administrator.
pub(super) async fn keys(issuer: &str, definition: &IssuerDefinition) -> Result<Vec<u8>, String> {
    let url = match &definition.keys {
        KeySource::File(keys) => return Ok(keys.clone().into_bytes()),
        KeySource::Url(url) => parse(url)?,
        KeySource::Discovery => discover(issuer, definition).await?,
    };
    get(&url, definition).await.map_err(|why| format!("its keys cannot be had: {why}"))
}

/// Finds out where the keys are.
async fn discover(issuer: &str, definition: &IssuerDefinition) -> Result<Url, String> {
    let (found, document) = document(issuer, place(definition)).await?;
    let uri = document.get("jwks_uri").and_then(serde_json::Value::as_str);
    let keys = parse(uri.ok_or("its discovery document has no `jwks_uri`")?)?;
    if keys.origin() != found.origin() {
        return Err(format!(
            "its keys are said to be at {}, which is another origin; where that is right, name the \
             URL with --jwks-url",
            keys.origin().ascii_serialization()
        ));
    }
    Ok(keys)
}

/// Fetches the discovery document of an issuer, and tells where it lies.
pub(super) async fn document(
    issuer: &str,
    at: Place<'_>,
) -> Result<(Url, Map<String, serde_json::Value>), String> {
    let found = parse(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))?;
    let answer = ask(&found, at, Ask::Get).await.and_then(Answer::ok);
    let answer = answer.map_err(|why| format!("its discovery document cannot be had: {why}"))?;
    let document = json::object(&answer).ok_or("its discovery document is no JSON object")?;
    if document.get("issuer").and_then(serde_json::Value::as_str) != Some(issuer) {
        return Err("its discovery document is another issuer's".to_owned());
    }
    Ok((found, document))
}

/// Asks the server of a job's runner for the job's token, as the job.
///
/// # Errors
/// Why there is none.
///
/// Source: GitHub, "`OpenID` Connect reference", methods for requesting the token.
pub async fn request_id_token(
    url: &str,
    audience: &str,
    bearer: &str,
    ca_pem: &str,
) -> Result<String, String> {
    let mut url = parse(url)?;
    url.query_pairs_mut().append_pair("audience", audience);
    let at = Place { ca_pem, private: true };
    let answer = ask(&url, at, Ask::GetAs(bearer)).await?.ok()?;
    let answer = json::object(&answer).ok_or("the answer is no JSON object")?;
    let token = answer.get("value").and_then(serde_json::Value::as_str);
    token.map(str::to_owned).ok_or_else(|| "the answer holds no token".to_owned())
}

/// Asks a cluster's API server to review a token.
///
/// # Errors
/// Why there is no answer, for an administrator.
pub(super) async fn review(
    review: &Review,
    definition: &IssuerDefinition,
    bearer: &str,
    asks: Bytes,
) -> Result<Vec<u8>, String> {
    let url = parse(&format!("{}{REVIEWS}", review.url.trim_end_matches('/')))?;
    let at = Place { ca_pem: &review.ca_pem, private: definition.private };
    ask(&url, at, Ask::PostAs(bearer, asks)).await?.ok()
}

/// What may be at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) ca_pem: &'a str,
    pub(super) private: bool,
}

fn place(definition: &IssuerDefinition) -> Place<'_> {
    Place { ca_pem: &definition.ca_pem, private: definition.private }
}

/// What is asked of it.
#[derive(Clone)]
pub(super) enum Ask<'a> {
    /// What anybody may read.
    Get,
    /// What whoever has this bearer may.
    GetAs(&'a str),
    /// What follows from a form.
    Post(&'a str),
    /// What follows from a JSON document, for whoever has this bearer.
    PostAs(&'a str, Bytes),
}

/// What it answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Takes the body of one that went well.
    fn ok(self) -> Result<Vec<u8>, String> {
        match self.status {
            StatusCode::OK | StatusCode::CREATED => Ok(self.body.to_vec()),
            status => Err(format!("it answered {}", status.as_u16())),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| "what is to be fetched has no https URL".to_owned())
}

async fn get(url: &Url, definition: &IssuerDefinition) -> Result<Vec<u8>, String> {
    ask(url, place(definition), Ask::Get).await?.ok()
}

/// Asks, and waits for an answer no longer than a bound.
pub(super) async fn ask(url: &Url, at: Place<'_>, what: Ask<'_>) -> Result<Answer, String> {
    let fetched = tokio::time::timeout(TAKES, fetch(url, at, what)).await;
    fetched.map_err(|_elapsed| "no answer within five seconds".to_owned())?
}

fn bearing(bearer: &str) -> String {
    format!("Bearer {bearer}")
}

async fn fetch(url: &Url, at: Place<'_>, what: Ask<'_>) -> Result<Answer, String> {
    let roots = match at.ca_pem {
        "" => Roots::Public,
        pem => Roots::Own(pem.as_bytes().to_vec()),
    };
    let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(443));
    let wire = Wire::new(host, port, at.private, &roots);
    let wire = wire.map_err(|error| error.to_string())?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
    let (request, body) = match what {
        Ask::Get => (Request::get(path), Bytes::new()),
        Ask::GetAs(bearer) => {
            (Request::get(path).header(header::AUTHORIZATION, bearing(bearer)), Bytes::new())
        }
        Ask::Post(form) => {
            let request = Request::post(path).header(header::CONTENT_TYPE, FORM);
            (request, Bytes::copy_from_slice(form.as_bytes()))
        }
        Ask::PostAs(bearer, json) => {
            let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
            (request.header(header::AUTHORIZATION, bearing(bearer)), json)
        }
    };
    let request = request
        .header(header::HOST, wire.authority(443))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "strongroom")
        .body(Full::new(body))
        .map_err(|_malformed| "the URL cannot be asked for".to_owned())?;
    let stream = wire.connect().await.map_err(|error| error.to_string())?;
    let stream = wire.secure(stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |_lost| "the connection broke off".to_owned();
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let answer = async move { read(sender.send_request(request).await.map_err(lost)?).await };
    tokio::pin!(answer, connection);
    tokio::select! {
        answered = &mut answer => answered,
        _ended = &mut connection => answer.await,
    }
}

async fn read(answer: http::Response<Incoming>) -> Result<Answer, String> {
    let status = answer.status();
    if status.is_redirection() {
        return Err("it points elsewhere, and nobody is followed".to_owned());
    }
    let body = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
    let body = body.map_err(|_cut| "it broke off, or is larger than 128 KiB".to_owned())?;
    Ok(Answer { status, body: Zeroizing::new(body.to_bytes().to_vec()) })
}
