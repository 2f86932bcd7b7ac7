//! `strongroom artifact …`: signs model files and datasets, and verifies them without a vault.

mod manifest;
mod sign;
mod statement;
mod tree;
mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tokio::sync::oneshot;

use super::args::Global;
use super::failure::{Exit, Failure, Outcome};
use super::session::Session;

use sign::SignArgs;
use verify::VerifyArgs;

/// `strongroom artifact …`
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Sign files: their digests go into a manifest, which a key in the HSM signs
    ///
    /// Directories are taken with all that is below them; symbolic links are refused. The manifest is
    /// what `sha256sum --check` reads; beside it the signed envelope is written, `MANIFEST.dsse.json`.
    Sign(SignArgs),
    /// Verify files with a manifest, its envelope and a public key; asks no vault
    Verify(VerifyArgs),
}

/// Runs `strongroom artifact …`.
pub(super) async fn run(global: &Global, command: &ArtifactCommand) -> Outcome {
    match command {
        ArtifactCommand::Sign(args) => sign::sign(&Session::open(global)?, args).await,
        ArtifactCommand::Verify(args) => verify::verify(global.output, args).await,
    }
}

/// Where the envelope of a manifest is.
fn envelope_of(manifest: &Path) -> PathBuf {
    let mut path = manifest.as_os_str().to_owned();
    path.push(".dsse.json");
    path.into()
}

/// Reads files on a thread of its own, which does not keep the program from being interrupted.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("files".to_owned());
    let started = thread.spawn(move || {
        // Whoever waited was interrupted.
        let _gone = reply.send(work());
    });
    started.map_err(|error| Failure::new(Exit::Unexpected, format!("no thread: {error}")))?;
    answer.await.map_err(|_gone| Failure::new(Exit::Unexpected, "reading files came to nothing"))?
}
