//! `strongroom pki revoke`, `strongroom pki crl`

use clap::Args;

use super::{Client, names_text, page};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{escape_lines, fields, show, time};
use crate::cli::session::{Session, must};
use crate::proto::{GetRevocationListRequest, RevokeCertificateRequest};

/// Certificates asked for at a time.
const PAGE: i32 = 1_000;
/// Largest revocation list that is taken, in bytes.
const LIST_BYTES: usize = 16 << 20;

/// What `pki revoke` takes.
#[derive(Debug, Clone, Args)]
pub struct Revoke {
    /// Its serial number, as `pki list` shows it, or its id.
    certificate: String,
    /// Look for the serial number among the certificates of this identity.
    #[arg(long, default_value = "")]
    identity: String,
    /// Look for the serial number among the certificates of this role.
    #[arg(long, default_value = "")]
    role: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Ends a certificate.
pub(super) async fn revoke(session: &Session, args: &Revoke) -> Outcome {
    let id = match serial(&args.certificate) {
        Some(serial) => find(session, args, &serial).await?,
        None => args.certificate.clone(),
    };
    let request = RevokeCertificateRequest { id, reason: args.reason.clone() };
    let revoked = session
        .call(request, async |wire, request| Client::new(wire).revoke_certificate(request).await)
        .await?;
    show(session.format, &must(revoked.certificate)?, |certificate| {
        fields(&[
            ("id", certificate.id.clone()),
            ("serial", certificate.serial.clone()),
            ("identity", certificate.identity.clone()),
            ("role", certificate.role.clone()),
            ("names", names_text(certificate)),
            ("state", certificate.state.clone()),
            ("ends", time(certificate.expires_at_ms)),
        ])
    })
}

/// Reads a serial number, as others write them as well: `4A:2B:…`.
fn serial(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let fits = digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| digits.to_ascii_lowercase())
}

/// Finds the id of a certificate by its serial number, among those that the caller may see.
async fn find(session: &Session, args: &Revoke, serial: &str) -> Outcome<String> {
    let mut token = String::new();
    loop {
        let (found, next) =
            page(session, (&args.identity, &args.role), PAGE, std::mem::take(&mut token)).await?;
        if let Some(found) = found.into_iter().find(|found| found.serial == serial) {
            return Ok(found.id);
        }
        if next.is_empty() {
            let what = "no certificate that you may see has this serial number";
            return Err(Failure::new(Exit::NotFound, what)
                .hint("name its holder with --identity where it is not yours"));
        }
        token = next;
    }
}

/// Shows the list.
pub(super) async fn show_list(session: &Session) -> Outcome {
    let found = session
        .call(GetRevocationListRequest::default(), async |wire, request| {
            let mut client = Client::new(wire).max_decoding_message_size(LIST_BYTES);
            client.get_revocation_list(request).await
        })
        .await?;
    show(session.format, &found, |list| {
        // Text before a PEM block is a comment (RFC 7468, section 2): the whole is a list.
        let text = fields(&[
            ("number", list.number.to_string()),
            ("revoked", list.revoked.to_string()),
            ("signed", time(list.signed_at_ms)),
            ("ends", time(list.expires_at_ms)),
        ]);
        text + &escape_lines(&list.crl_pem)
    })
}
