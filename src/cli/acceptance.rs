//! What an administrator signs to accept a log that was rolled back or altered: a fixed statement,
//! with the key of a login certificate, on the administrator's own machine. The key goes nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::args::Global;
use super::control::Request;
use super::failure::{Exit, Failure, Outcome};
use super::files::read_text;

/// One way of signing for each kind of key: ECDSA on P-256 and P-384, Ed25519, RSA.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// The head of a log: how many entries, and the root over them in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    /// Entries in the tree.
    pub size: i64,
    /// Root hash.
    pub root: String,
}

impl LogHead {
    fn line(&self) -> String {
        format!("{} {}", self.size, self.root)
    }
}

/// A log that does not extend the head that was kept of it, or whose head no vault wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The vault's id.
    pub vault_id: String,
    /// What was kept of the log; none where nothing was.
    pub kept: Option<LogHead>,
    /// What the store holds.
    pub found: LogHead,
    /// Whether that is none that this vault wrote.
    pub altered: bool,
}

impl Rollback {
    /// Writes what is signed; nothing else that these keys sign begins like it.
    #[must_use]
    pub fn statement(&self) -> String {
        let Self { vault_id, kept, found, altered } = self;
        let kept = kept.as_ref().map_or_else(|| "none".to_owned(), LogHead::line);
        let found = found.line();
        let word = if *altered { "head altered\n" } else { "" };
        format!(
            "strongroom.accept-rollback.v1\nvault {vault_id}\nkept {kept}\nfound {found}\n{word}"
        )
    }
}

/// Signs the acceptance of a rollback with the login that the command line names; of an altered
/// head only for who says so.
pub(super) fn accept(global: &Global, rollback: &Rollback, altered: bool) -> Outcome<Request> {
    if rollback.altered && !altered {
        let message = "the head of the log is none that this vault wrote; no restored backup is so";
        return Err(Failure::new(Exit::Invalid, message)
            .hint("verify an export against a kept checkpoint first; then accept with --altered"));
    }
    let (Some(certificate), Some(key)) = (&global.cert, &global.key) else {
        return Err(Failure::usage("an acceptance is signed with your login certificate's key")
            .hint("give --cert and --key, or STRONGROOM_CERT and STRONGROOM_KEY"));
    };
    let unfit = |what: &str| Failure::usage(format!("{what}, so nothing can be signed"));
    let der = CertificateDer::from_pem_slice(read_text(certificate)?.as_bytes())
        .map_err(|_malformed| unfit("the certificate file holds no certificate as PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(read_text(key)?.as_bytes())
        .map_err(|_malformed| unfit("the key file holds no private key as PEM"))?;
    let key = any_supported_type(&key).map_err(|_kind| unfit("the key is of another kind"))?;
    let signer = key.choose_scheme(&SCHEMES).ok_or_else(|| unfit("the key is of another kind"))?;
    let signature = signer
        .sign(rollback.statement().as_bytes())
        .map_err(|error| unfit(&format!("signing failed: {error}")))?;
    Ok(Request::Accept {
        certificate: STANDARD.encode(&der),
        signature: STANDARD.encode(signature),
    })
}
