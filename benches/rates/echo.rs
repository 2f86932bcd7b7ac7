//! The ceiling of any call: a bare tonic server with mTLS that answers what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use strongroom::proto::{EncryptRequest, EncryptResponse, Encrypted};
use tonic::body::Body;
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::caller::Caller;
use crate::gather;
use crate::vault::connect;

/// What is sent to and fro.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
}

/// What the server makes of what it was sent.
pub(crate) type Work = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

const UNARY: &str = "/bench.Echo/Unary";
const STREAM: &str = "/bench.Echo/Stream";
const BATCH: &str = "/bench.Echo/Batch";

#[derive(Clone)]
struct Echo(Work);

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

struct Answer(Work);

impl UnaryService<Payload> for Answer {
    type Response = Payload;
    type Future = BoxFuture<'static, Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let answer = (self.0)(request.into_inner().data);
        Box::pin(async move { Ok(Response::new(Payload { data: answer.await })) })
    }
}

/// Answers items with as many, of what they hold.
struct Items;

impl UnaryService<EncryptRequest> for Items {
    type Response = EncryptResponse;
    type Future = BoxFuture<'static, Result<Response<EncryptResponse>, Status>>;

    fn call(&mut self, request: Request<EncryptRequest>) -> Self::Future {
        let items = request.into_inner().items.into_iter();
        let results = items.map(|mut item| Encrypted {
            ciphertext: std::mem::take(&mut item.plaintext),
            fault: None,
        });
        let answer = EncryptResponse { results: results.collect(), used: None };
        Box::pin(async move { Ok(Response::new(answer)) })
    }
}

/// Answers each message of a stream as it comes.
struct Back;

impl StreamingService<Payload> for Back {
    type Response = Payload;
    type ResponseStream = Streaming<Payload>;
    type Future = BoxFuture<'static, Result<Response<Streaming<Payload>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Payload>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl tonic::codegen::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let work = Arc::clone(&self.0);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Payload, Payload>::default());
            if request.uri().path() == BATCH {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
                return Ok(grpc.unary(Items, request).await);
            }
            if request.uri().path() == STREAM {
                return Ok(grpc.streaming(Back, request).await);
            }
            Ok(grpc.unary(Answer(work), request).await)
        })
    }
}

/// Where a server is, the root that its certificate leads to, and a login with its key.
struct Served {
    address: String,
    root: String,
    login: (String, String),
}

/// Starts a server that answers what it was sent, and connects to it.
pub(crate) async fn channels(count: usize) -> Vec<Channel> {
    let served = serve(Arc::new(|sent| Box::pin(async move { sent })), false).await;
    let login = Identity::from_pem(&served.login.0, &served.login.1);
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(connect(&served.address, &served.root, Some(login.clone())).await);
    }
    channels
}

/// Starts a server that does no more for an answer than some work, and connects to it. Its answers
/// leave as the vault's do, gathered: what it misses of the ceiling is then the price of gRPC over
/// mutual TLS and of that work.
pub(crate) async fn working(count: usize, work: Work) -> Vec<Caller> {
    let Served { address, root, login } = serve(work, true).await;
    let mut callers = Vec::new();
    for _ in 0..count {
        callers.push(Caller::connect(&address, &root, Some((&login.0, &login.1))).await);
    }
    callers
}

async fn serve(work: Work, gathers: bool) -> Served {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap().pem();
    let issuer = Issuer::new(params, authority);
    let certified = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let own = certified("localhost");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    if gathers {
        let incoming = gather::accept(listener, (&own.0, &own.1), &root);
        let server = Server::builder().add_service(Echo(work));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    } else {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(own.0, own.1))
            .client_ca_root(Certificate::from_pem(&root));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().tls_config(tls).unwrap().add_service(Echo(work));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    }
    Served { address: addr.to_string(), root, login: certified("client") }
}

/// Has a server work on one payload and waits for its answer.
pub(crate) async fn ask(caller: Caller, data: Bytes) {
    let answer: Payload = caller.call(UNARY, &Payload { data }, None).await;
    assert!(!answer.data.is_empty());
}

/// Sends one payload and waits for an answer to come back.
pub(crate) async fn call(channel: Channel, data: Bytes) {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(UNARY);
    let codec = ProstCodec::<Payload, Payload>::default();
    let answer: Response<Payload> =
        client.unary(Request::new(Payload { data }), path, codec).await.unwrap();
    assert!(!answer.get_ref().data.is_empty());
}

/// Sends items and waits for as many.
pub(crate) async fn items(channel: Channel, request: EncryptRequest) {
    let (mut client, sent) = (tonic::client::Grpc::new(channel), request.items.len());
    client.ready().await.unwrap();
    let codec = ProstCodec::<EncryptRequest, EncryptResponse>::default();
    let path = PathAndQuery::from_static(BATCH);
    let answer = client.unary(Request::new(request), path, codec).await.unwrap();
    assert_eq!(answer.get_ref().results.len(), sent);
}

/// Sends a stream of payloads and takes back as many.
pub(crate) async fn stream(channel: Channel, parts: usize, bytes: usize) {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(STREAM);
    let codec = ProstCodec::<Payload, Payload>::default();
    let data = Bytes::from(vec![7; bytes]);
    let sent = tokio_stream::iter((0..parts).map(move |_| Payload { data: data.clone() }));
    let answers: Response<Streaming<Payload>> =
        client.streaming(Request::new(sent), path, codec).await.unwrap();
    let (mut answers, mut came) = (answers.into_inner(), 0);
    while let Some(answer) = answers.message().await.unwrap() {
        came += answer.data.len();
    }
    assert_eq!(came, parts * bytes);
}
