//! Clients that come with a token.

use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{CreateTokenRequest, CreateTokenResponse, MintTokenRequest, TokenOrder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Adds a header to every call.
#[derive(Debug, Clone)]
pub(crate) struct Header(Option<MetadataValue<Ascii>>);

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A connection that may send a token.
pub(crate) type Bearing = InterceptedService<Channel, Header>;

/// Sends a token with every call.
pub(crate) fn bearing(channel: &Channel, token: &str) -> Bearing {
    let header = format!("Bearer {token}").parse().unwrap();
    InterceptedService::new(channel.clone(), Header(Some(header)))
}

/// Sends none.
pub(crate) fn plain(channel: &Channel) -> Bearing {
    InterceptedService::new(channel.clone(), Header(None))
}

/// Makes a token for whoever asks by certificate.
pub(crate) async fn token(channel: &Channel, ttl_s: i64) -> CreateTokenResponse {
    create(channel, TokenOrder { ttl_s, ..Default::default() }).await.unwrap()
}

/// Makes a token for whoever asks by certificate.
pub(crate) async fn create(
    channel: &Channel,
    order: TokenOrder,
) -> Result<CreateTokenResponse, Status> {
    let request = CreateTokenRequest { order: Some(order), ..Default::default() };
    Ok(TokenServiceClient::new(channel.clone()).create_token(request).await?.into_inner())
}

/// Makes a token for a machine; the token itself.
pub(crate) async fn mint(
    channel: &Channel,
    identity: &str,
    order: TokenOrder,
) -> Result<String, Status> {
    let request = MintTokenRequest {
        identity: identity.to_owned(),
        order: Some(order),
        ..Default::default()
    };
    Ok(TokenServiceClient::new(channel.clone()).mint_token(request).await?.into_inner().bearer)
}
