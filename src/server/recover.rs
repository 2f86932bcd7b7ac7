//! `strongroom recover-admin`: proves the PIN to the HSM, in a process of its own, and asks the server
//! on this machine.
//!
//! A process of its own, because a token checks no PIN where somebody is logged in already: the
//! server is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::assemble;
use super::recovery::RecoveryOrder;
use super::run::{environment, failed, in_runtime};
use crate::cli::control::{PinChallenge, RecoveryReport, Reply, Request as Ask, ask};
use crate::cli::{
    Format, Global, Outcome, RecoverAdminArgs, beside_the_point, check_new, escape_lines, fields,
    note, print, prompt_secret, read_secret, read_text, show, time, write_public,
};
use crate::config::Config;
use crate::engines::pki::Request;
use crate::error::{Error, Result};
use crate::hsm::Hsm as _;
use crate::keyring::{Challenge, NONCE_BYTES};
use crate::types::{IdentityName, SecretBytes};

/// Largest request, in bytes: it fits into a line of the socket.
const MOST_CSR_BYTES: usize = 8 * 1_024;

/// Asks for a recovery.
pub(super) fn run(global: &Global, args: &RecoverAdminArgs) -> Outcome {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    if let Some(out) = &args.out {
        check_new(out)?;
    }
    let name: IdentityName = args.name.parse()?;
    let csr = read_csr(&args.csr)?;
    let pin = match &args.pin_file {
        Some(file) => read_secret(file)?,
        None => prompt_secret("PIN of the HSM token")?,
    };
    let pin = SecretBytes::new(pin.as_bytes().to_vec());
    in_runtime(&config, true, async {
        let socket = &config.server.control_socket;
        // Before the PIN is tried: a server that does not serve costs no attempt.
        let Reply::Challenge(challenge) = ask(socket, &Ask::Challenge).await? else {
            return Err(beside_the_point());
        };
        let asked = challenge_of(&challenge).ok_or_else(beside_the_point)?;
        let proof = prove(&config, &asked, pin, &RecoveryOrder::statement(&name, &csr)).await;
        let proof = STANDARD.encode(proof.map_err(|error| failed(&error))?.expose());
        let nonce = challenge.nonce;
        let order = Ask::RecoverAdmin { name: name.to_string(), csr, nonce, proof };
        let Reply::Recovery(report) = ask(socket, &order).await? else {
            return Err(beside_the_point());
        };
        tell(global.output, &report, args.out.as_deref())
    })
}

/// Reads the request, and refuses here what the server would refuse.
fn read_csr(path: &Path) -> Outcome<String> {
    let text = read_text(path)?;
    if text.len() > MOST_CSR_BYTES {
        let message = format!("a request has at most {MOST_CSR_BYTES} bytes here");
        return Err(Error::invalid(message).into());
    }
    Request::parse(text.as_bytes())?;
    Ok(text.to_string())
}

/// Reads a challenge; none where it is none of this version.
fn challenge_of(shown: &PinChallenge) -> Option<Challenge> {
    let nonce: [u8; NONCE_BYTES] = STANDARD.decode(&shown.nonce).ok()?.try_into().ok()?;
    let vault = shown.vault_id.parse().ok()?;
    Some(Challenge { vault, root_version: shown.root_version, nonce })
}

/// Logs into the token with the PIN, once, and has it answer.
async fn prove(
    config: &Config,
    challenge: &Challenge,
    pin: SecretBytes,
    statement: &[u8],
) -> Result<SecretBytes> {
    let token = assemble::token(config)?;
    token.login(pin).await.map_err(|error| assemble::explain(&error))?;
    let answer = challenge.answer(token.as_ref(), statement).await;
    if let Err(error) = token.logout().await {
        tracing::warn!(%error, "the HSM could not be logged out");
    }
    answer.map_err(|error| assemble::explain(&error))
}

fn tell(format: Format, report: &RecoveryReport, out: Option<&Path>) -> Outcome {
    if report.certificate_pem.is_empty() {
        show(format, report, waiting)?;
        note(
            "every administrator is told in whoami, and can cancel it; run the same command again \
             when it is due",
        );
        return Ok(());
    }
    let [certificate, chain] =
        [&report.certificate_pem, &report.chain_pem].map(|pem| escape_lines(pem));
    let chain = format!("{certificate}{chain}");
    let Some(out) = out else {
        return match format {
            Format::Human => print(&chain),
            Format::Json => show(format, report, waiting),
        };
    };
    write_public(out, chain.as_bytes())?;
    show(format, report, |report| {
        fields(&[
            ("certificate", out.display().to_string()),
            ("identity", report.identity.clone()),
            ("recovery", report.id.clone()),
            ("ends", time(report.expires_at_ms)),
        ])
    })
}

fn waiting(report: &RecoveryReport) -> String {
    fields(&[
        ("recovery", report.id.clone()),
        ("identity", report.identity.clone()),
        ("state", report.state.clone()),
        ("key (SHA-256)", report.key_sha256.clone()),
        ("asked for", time(report.requested_at_ms)),
        ("takes effect", time(report.takes_effect_at_ms)),
        ("lapses", time(report.lapses_at_ms)),
    ])
}
