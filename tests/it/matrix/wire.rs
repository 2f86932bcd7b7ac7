//! A call of any RPC, whatever its messages are.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Sends an encoded message; the code of the answer, of a stream's first message.
pub(super) async fn call(channel: Channel, rpc: &str, message: Vec<u8>) -> Code {
    send(channel, rpc, message).await.map_or_else(|status| status.code(), |()| Code::Ok)
}

/// Sends an encoded message; what is answered to it.
pub(crate) async fn send(channel: Channel, rpc: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path: PathAndQuery = format!("/strongroom.v1.{rpc}").parse().unwrap();
    // On the wire a single answer is a stream of one message.
    let answer = client.server_streaming(Request::new(message), path, Bytes).await?;
    let mut stream = answer.into_inner();
    let first = stream.message();
    if !rpc.contains("/Watch") {
        return first.await.map(drop);
    }
    // Whoever watches is told of changes alone, and here is none: a refusal comes at once.
    let waited = tokio::time::timeout(Duration::from_secs(3), first).await;
    waited.map_or(Ok(()), |first| first.map(drop))
}

struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
