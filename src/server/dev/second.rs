//! The human `second` of a development vault: an administrator with a second factor, so that one
//! person can play both sides of an approval.
//!
//! Its factor is enrolled the way everybody's is, over the socket; its secret then lies in a file,
//! which is what a development vault is for.

use std::path::Path;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

use super::Files;
use crate::crypto::{hotp, otp_step};
use crate::error::{Error, Result};
use crate::proto::factor_service_client::FactorServiceClient;
use crate::proto::{ConfirmFactorRequest, EnrolFactorRequest, InviteFactorRequest};
use crate::server::files;
use crate::server::found::SECOND;
use crate::server::node::Node;
use crate::types::{Clock as _, SecretBytes, SystemClock};

/// Enrols its factor, where its secret is not there yet: it invites itself, as a development vault
/// lets everybody do.
pub(super) async fn enrol(node: &Node, files: &Files, secret: &Path) -> Result<()> {
    if secret.exists() || !node.life.standing().is_serving() {
        return Ok(());
    }
    let refused = |status: tonic::Status| Error::precondition(status.message().to_owned());
    let mut factors = FactorServiceClient::new(connect(node, files).await?);
    let invite = InviteFactorRequest { identity: SECOND.to_owned(), ..Default::default() };
    let invited = factors.invite_factor(invite).await.map_err(refused)?.into_inner();
    let enrol = EnrolFactorRequest { invitation: invited.invitation, kind: "totp".to_owned() };
    let enrolled = factors.enrol_factor(enrol).await.map_err(refused)?.into_inner();
    let text = Zeroizing::new(enrolled.secret);
    // The code of the step before counts as well, and leaves the current one to be used.
    let code = code(&text, otp_step(SystemClock.now()).saturating_sub(1))?;
    let confirm = ConfirmFactorRequest { id: enrolled.id, code: code.to_string() };
    factors.confirm_factor(confirm).await.map_err(refused)?;
    files::replace(secret, text.as_bytes(), 0o600)
}

async fn connect(node: &Node, files: &Files) -> Result<Channel> {
    let (key, _) = files.key()?;
    let pem = std::fs::read(&files.cert).map_err(Error::internal)?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&node.root_pem))
        .identity(Identity::from_pem(pem, key.as_bytes()));
    let endpoint = Endpoint::from_shared(format!("https://{}", node.grpc_addr));
    let endpoint = endpoint.and_then(|endpoint| endpoint.tls_config(tls));
    endpoint.map_err(Error::internal)?.connect().await.map_err(Error::internal)
}

/// The code of a step, of a secret as authenticator apps take it.
fn code(secret: &str, step: i64) -> Result<Zeroizing<String>> {
    let bytes = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).map_err(Error::internal)?;
    let counter = u64::try_from(step).map_err(Error::internal)?;
    let code = hotp(&SecretBytes::new(bytes), counter)?;
    Ok(Zeroizing::new(code.digits().iter().copied().map(char::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{OtpCode, otp_secret_text, totp_step};
    use crate::types::UnixMillis;

    #[test]
    fn the_code_of_the_step_before_is_accepted_and_leaves_the_current_one() {
        let secret = SecretBytes::new(b"12345678901234567890".to_vec());
        let now = UnixMillis(1_795_392_000_000);
        let text = String::from_utf8(otp_secret_text(&secret).expose().to_vec()).unwrap();
        let before = code(&text, otp_step(now) - 1).unwrap();
        let accepted = totp_step(&secret, &OtpCode::parse(before.as_bytes()).unwrap(), now);
        assert_eq!(accepted.unwrap(), Some(otp_step(now) - 1));
    }
}
