//! Which service answers a call: found by its name, and called.
//!
//! Tonic's own router is axum's, which is made for more: it copies and boxes the service for every
//! call, keeps what stood in the path, and wraps the answer's body three times. That is a tenth of what
//! the cheapest call costs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, ready};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::error::{Error, Result};

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// A service that is called: tonic's are always ready.
pub(super) trait Callable: Send + Sync {
    fn call(&self, request: http::Request<Body>) -> Answer;
}

impl<S> Callable for S
where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = Answer,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    fn call(&self, request: http::Request<Body>) -> Answer {
        Service::call(&mut self.clone(), request)
    }
}

/// Services, each under its name.
#[derive(Clone, Default)]
pub(super) struct Services(Arc<HashMap<&'static str, Box<dyn Callable>>>);

/// Services that are being put together.
#[derive(Default)]
pub(super) struct Gathering {
    named: HashMap<&'static str, Box<dyn Callable>>,
    taken: Option<&'static str>,
}

impl Gathering {
    /// Adds one.
    pub(super) fn add<S: Callable + NamedService + 'static>(&mut self, service: S) -> &mut Self {
        if self.named.insert(S::NAME, Box::new(service)).is_some() {
            self.taken = Some(S::NAME);
        }
        self
    }

    /// All that were added.
    ///
    /// # Errors
    /// [`Error::Internal`] where two have one name.
    pub(super) fn services(self) -> Result<Services> {
        match self.taken {
            Some(name) => Err(Error::internal(format!("two services are called {name}"))),
            None => Ok(Services(Arc::new(self.named))),
        }
    }
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let path = request.uri().path().strip_prefix('/').unwrap_or_default();
        let named = path.split_once('/').and_then(|(name, _)| self.0.get(name));
        match named {
            Some(service) => service.call(request),
            None => Box::pin(ready(Ok(Status::unimplemented("").into_http()))),
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
