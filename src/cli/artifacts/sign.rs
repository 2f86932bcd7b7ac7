//! Hashes files, writes their manifest, and has it signed.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::manifest::Line;
use super::tree::{Tree, canonical};
use super::{apart, envelope_of};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::{check_new, write_public};
use crate::cli::output::{fields, show};
use crate::cli::session::{Session, must};
use crate::crypto::{HASH_BYTES, Sha256, hex};
use crate::proto::SignArtifactRequest;
use crate::proto::key_service_client::KeyServiceClient as Client;

/// What `artifact sign` takes.
#[derive(Debug, Clone, Args)]
pub struct SignArgs {
    /// The key's name: one that was made with `key create --for-artifacts`.
    name: String,
    /// Files and directories, relative to --dir.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A new file for the manifest; the envelope is written beside it.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The directory that the files are below; the working directory where it is left out.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// A manifest that was written.
#[derive(Debug, Clone, Copy)]
struct Written {
    digest: [u8; HASH_BYTES],
    files: u64,
    size_bytes: u64,
}

pub(super) async fn sign(session: &Session, args: &SignArgs) -> Outcome {
    let envelope = envelope_of(&args.manifest);
    check_new(&args.manifest)?;
    check_new(&envelope)?;
    let name = args.manifest.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage("a manifest's name is UTF-8"))?.to_owned();
    let (reading, path) = (args.clone(), args.manifest.clone());
    let done = match apart(move || written(&reading)).await {
        Ok(written) => signed(session, args, (name, written), &envelope).await,
        Err(failure) => Err(failure),
    };
    // A manifest that nobody signed is none.
    if done.is_err() && !envelope.exists() {
        drop(std::fs::remove_file(path));
    }
    done
}

async fn signed(
    session: &Session,
    args: &SignArgs,
    (manifest, written): (String, Written),
    envelope: &Path,
) -> Outcome {
    let Written { digest, files, size_bytes } = written;
    let request = SignArtifactRequest {
        name: args.name.clone(),
        manifest,
        manifest_sha256: digest.to_vec(),
        files,
        size_bytes,
    };
    let signed = session
        .call(request, async |wire, request| Client::new(wire).sign_artifact(request).await)
        .await?;
    write_public(envelope, signed.envelope.as_bytes())?;
    let used = must(signed.used)?;
    let shown = serde_json::json!({
        "manifest": args.manifest.display().to_string(),
        "envelope": envelope.display().to_string(),
        "manifest_sha256": hex(&digest),
        "files": files,
        "size_bytes": size_bytes,
        "key_id": used.id,
        "version": used.version,
    });
    show(session.format, &shown, |_| {
        fields(&[
            ("manifest", args.manifest.display().to_string()),
            ("envelope", envelope.display().to_string()),
            ("files", files.to_string()),
            ("bytes", size_bytes.to_string()),
            ("key version", used.version.to_string()),
        ])
    })
}

/// Finds the files, hashes each, and writes the manifest.
fn written(args: &SignArgs) -> Outcome<Written> {
    let broken = |error: io::Error| Failure::new(Exit::Invalid, error.to_string());
    let tree = Tree::open(&args.dir).map_err(|error| {
        Failure::usage(format!("{} cannot be read: {error}", args.dir.display()))
    })?;
    let mut found = BTreeSet::new();
    for path in &args.paths {
        match canonical(path).map_err(broken)?.as_str() {
            "" => found.extend(tree.all().map_err(broken)?),
            path => tree.list(path, &mut found).map_err(broken)?,
        }
    }
    if found.is_empty() {
        return Err(Failure::usage("there are no files to sign"));
    }
    let unwritten = |error: io::Error| {
        let path = args.manifest.display();
        Failure::new(Exit::Unexpected, format!("{path} cannot be written: {error}"))
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o644).open(&args.manifest);
    let mut out = BufWriter::new(file.map_err(unwritten)?);
    let (mut hash, mut files, mut size_bytes) = (Sha256::new(), 0_u64, 0_u64);
    for path in found {
        let content = tree.hash(&path).map_err(broken)?;
        let line = Line { digest: content.digest, path }.write();
        hash.update(line.as_bytes());
        out.write_all(line.as_bytes()).map_err(unwritten)?;
        files = files.saturating_add(1);
        size_bytes = size_bytes.saturating_add(content.len_bytes);
    }
    let file: File = out.into_inner().map_err(|error| unwritten(error.into_error()))?;
    file.sync_all().map_err(unwritten)?;
    Ok(Written { digest: hash.finish(), files, size_bytes })
}
