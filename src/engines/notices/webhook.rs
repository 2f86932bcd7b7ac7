//! Posts notices, signed in the shape of Standard Webhooks, so that its verifiers work.
//!
//! Source: Standard Webhooks 1.0.0: headers `webhook-id`, `webhook-timestamp`, `webhook-signature`
//! with `v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`; keys `whsec_` and base64.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::letter::Letter;
use super::wire::Wire;
use crate::crypto::hmac_sha256;
use crate::error::{Error, Result};
use crate::types::{SecretBytes, UnixMillis};

/// How long it takes at most, from the name to the answer.
const TAKES: Duration = Duration::from_secs(15);
/// Bytes of an answer's head, and headers in it. Its body is not read.
const HEAD_BYTES: usize = 16 * 1_024;
const HEADERS: usize = 64;
/// What a key begins with, and how many bytes it has.
const PREFIX: &[u8] = b"whsec_";
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What notices are signed with.
#[derive(Debug, Clone)]
pub struct WebhookKey(SecretBytes);

impl WebhookKey {
    /// Reads it as its file holds it: `whsec_` and the base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// [`Error::Precondition`] for anything else.
    pub fn parse(text: &SecretBytes) -> Result<Self> {
        let encoded = text.expose().strip_prefix(PREFIX);
        let key = encoded.and_then(|encoded| STANDARD.decode(encoded).map(Zeroizing::new).ok());
        let key = key.filter(|key| KEY_BYTES.contains(&key.len()));
        key.map(|key| Self(SecretBytes::from(key))).ok_or_else(|| {
            Error::precondition(
                "webhook.key: must be whsec_ and the base64 of 24 to 64 random bytes; make one with \
                 echo whsec_$(openssl rand -base64 32)",
            )
        })
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        format!("v1,{}", STANDARD.encode(hmac_sha256(self.0.expose(), &parts)))
    }
}

/// Where notices are posted.
#[derive(Debug, Clone)]
pub struct WebhookSink {
    wire: Wire,
    secure: bool,
    path: String,
    key: WebhookKey,
}

impl WebhookSink {
    /// Takes where it is, below which path, and the key.
    #[must_use]
    pub fn new(wire: Wire, secure: bool, path: String, key: WebhookKey) -> Self {
        Self { wire, secure, path, key }
    }

    /// Posts a notice.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it was not taken, and why.
    pub(super) async fn send(&self, letter: &Letter, now: UnixMillis) -> Result<()> {
        let posted = tokio::time::timeout(TAKES, self.post(letter, now)).await;
        posted.map_err(|_elapsed| Error::unavailable("the receiver did not answer in time"))?
    }

    async fn post(&self, letter: &Letter, now: UnixMillis) -> Result<()> {
        let request = self.request(letter, now)?;
        let stream = self.wire.connect().await?;
        let status = if self.secure {
            exchange(self.wire.secure(stream).await?, request).await?
        } else {
            exchange(stream, request).await?
        };
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(Error::unavailable(
                "the receiver points elsewhere, and notices go where the configuration says alone",
            )),
            status => Err(Error::unavailable(format!("the receiver answered {}", status.as_u16()))),
        }
    }

    fn request(&self, letter: &Letter, now: UnixMillis) -> Result<Request<Full<Bytes>>> {
        let timestamp = now.seconds().to_string();
        let signature = self.key.sign(&letter.id, &timestamp, &letter.body);
        Request::post(&self.path)
            .header(header::HOST, self.wire.authority(if self.secure { 443 } else { 80 }))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "strongroom")
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Full::new(letter.body.clone()))
            .map_err(Error::internal)
    }
}

/// Sends a request and reads the head of the answer.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |_lost| Error::unavailable("the receiver broke off");
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answered = tokio::select! {
        answered = &mut answer => answered,
        _ended = &mut connection => answer.await,
    };
    answered.map(|answer| answer.status()).map_err(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<WebhookKey> {
        WebhookKey::parse(&SecretBytes::new(text.as_bytes().to_vec()))
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn a_signature_is_what_standard_webhooks_says() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(!format!("{key:?}").contains("MfKQ"));
    }

    #[test]
    fn a_key_in_another_form_or_too_short_is_refused_and_not_quoted() {
        for bad in
            ["", "whsec_", "secret", "whsec_AAAA", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        {
            let refused = key(bad).unwrap_err().to_string();
            assert!(bad.len() < 10 || !refused.contains(bad), "{refused}");
        }
    }
}
