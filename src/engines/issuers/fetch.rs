//! Fetches what an issuer publishes: over HTTPS alone, from where an administrator said, to a bound,
//! and following nobody anywhere else (rule 17 of the house).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

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
    let found = parse(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))?;
    let answer = get(&found, definition).await;
    let answer = answer.map_err(|why| format!("its discovery document cannot be had: {why}"))?;
    let document = json::object(&answer).ok_or("its discovery document is no JSON object")?;
    let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err("its discovery document is another issuer's".to_owned());
    }
    let keys = parse(text("jwks_uri").ok_or("its discovery document has no `jwks_uri`")?)?;
    if keys.origin() != found.origin() {
        return Err(format!(
            "its keys are said to be at {}, which is another origin; where that is right, name the \
             URL with --jwks-url",
            keys.origin().ascii_serialization()
        ));
    }
    Ok(keys)
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
    let answer = tokio::time::timeout(TAKES, fetch(&url, at, Some(bearer), None)).await;
    let answer = answer.map_err(|_elapsed| "no answer within five seconds".to_owned())??;
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
    let answer = tokio::time::timeout(TAKES, fetch(&url, at, Some(bearer), Some(asks))).await;
    answer.map_err(|_elapsed| "no answer within five seconds".to_owned())?
}

/// What may be at the other end.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    ca_pem: &'a str,
    private: bool,
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| "what is to be fetched has no https URL".to_owned())
}

async fn get(url: &Url, definition: &IssuerDefinition) -> Result<Vec<u8>, String> {
    let at = Place { ca_pem: &definition.ca_pem, private: definition.private };
    let fetched = tokio::time::timeout(TAKES, fetch(url, at, None, None)).await;
    fetched.map_err(|_elapsed| "no answer within five seconds".to_owned())?
}

async fn fetch(
    url: &Url,
    at: Place<'_>,
    bearer: Option<&str>,
    posts: Option<Bytes>,
) -> Result<Vec<u8>, String> {
    let roots = match at.ca_pem {
        "" => Roots::Public,
        pem => Roots::Own(pem.as_bytes().to_vec()),
    };
    let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(443));
    let wire = Wire::new(host, port, at.private, &roots);
    let wire = wire.map_err(|error| error.to_string())?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
    let mut request = match posts {
        Some(_) => Request::post(path).header(header::CONTENT_TYPE, "application/json"),
        None => Request::get(path),
    };
    if let Some(bearer) = bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    }
    let request = request
        .header(header::HOST, wire.authority(443))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "strongroom")
        .body(Full::new(posts.unwrap_or_default()))
        .map_err(|_malformed| "the URL cannot be asked for".to_owned())?;
    let stream = wire.connect().await.map_err(|error| error.to_string())?;
    let stream = wire.secure(stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Vec<u8>, String>
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

async fn read(answer: http::Response<Incoming>) -> Result<Vec<u8>, String> {
    match answer.status() {
        StatusCode::OK | StatusCode::CREATED => {}
        status if status.is_redirection() => {
            return Err("it points elsewhere, and nobody is followed".to_owned());
        }
        status => return Err(format!("it answered {}", status.as_u16())),
    }
    let body = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
    let body = body.map_err(|_cut| "it broke off, or is larger than 128 KiB".to_owned())?;
    Ok(body.to_bytes().to_vec())
}
