//! Services that are not ours, behind the gate as ours are: whoever is nobody reads nothing there.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::accept::Gate;

/// A service that answers known callers alone. Its calls are no operations: they reach nothing of
/// the vault.
#[derive(Debug, Clone)]
pub(super) struct Known<S> {
    pub(super) gate: Gate,
    pub(super) inner: S,
}

impl<S: NamedService> NamedService for Known<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Known<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that was polled ready is the one that is called.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let gate = self.gate.clone();
        Box::pin(async move {
            match gate.know(request.headers(), request.extensions()).await {
                Ok(_known) => inner.call(request).await,
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}
