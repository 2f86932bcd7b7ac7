//! A client that costs little, for workloads whose ceiling has no server and so no client either.
//!
//! Client and server share this machine's cores, where a vault's client has its own: what it spends
//! would count as the vault's. So messages go straight into HTTP/2 frames (`h2`, which tonic stands
//! on), and requests leave gathered, as answers do. Beside an echo both sides are called by tonic's
//! client instead.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::gather::Gathering;

/// Bytes that may be on their way: more than all that is asked at once.
const WINDOW: u32 = 4 << 20;
/// Bytes of a message's frame before the message.
const FRAME: usize = 5;

/// A connection, shared by the tasks that call over it.
#[derive(Clone)]
pub(crate) struct Caller(SendRequest<Bytes>);

impl Caller {
    /// Connects, with a login's certificate and key or without.
    pub(crate) async fn connect(address: &str, root: &str, login: Option<(&str, &str)>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match login {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        builder.enable_push(false);
        let (sender, connection) = builder.handshake(Gathering::new(stream)).await.unwrap();
        // It ends when nobody calls any more, or with the server.
        tokio::spawn(connection);
        Self(sender)
    }

    /// Calls a method, with a token or without, and takes its answer.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        token: Option<&HeaderValue>,
    ) -> A {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        let uri = Uri::builder().scheme("https").authority("localhost").path_and_query(path);
        *request.uri_mut() = uri.build().unwrap();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        let size = message.encoded_len();
        let mut frame = BytesMut::with_capacity(FRAME + size);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(size).unwrap());
        message.encode(&mut frame).unwrap();
        let mut sender = self.0.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(frame.freeze(), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        // An answer without a body carries its status at once.
        assert_eq!(answer.headers().get("grpc-status"), None, "{path}");
        let mut body = answer.into_body();
        let mut whole = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            whole.extend_from_slice(&part);
        }
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0", "{path}: {:?}", trailers.get("grpc-message"));
        let (frame, message) = whole.split_at(FRAME);
        let size = u32::try_from(message.len()).unwrap().to_be_bytes();
        assert_eq!(frame, [&[0][..], &size].concat(), "one message, as it is");
        A::decode(message).unwrap()
    }
}
