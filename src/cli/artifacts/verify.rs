//! Verifies files with a manifest, its envelope and a public key. Asks no vault.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::manifest::{LINE_BYTES, Line, Order};
use super::statement::{Predicate, Statement, open, public_key};
use super::tree::{Tree, canonical};
use super::{apart, envelope_of};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::read_text;
use crate::cli::output::{Format, fields, show};
use crate::crypto::{HASH_BYTES, Sha256, hex};

/// Faults that are told one by one.
const TOLD: usize = 100;
/// Bytes that are read at once.
const PART: usize = 128 * 1_024;

/// What `artifact verify` takes.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The manifest.
    manifest: PathBuf,
    /// The public key, PEM, as `key export` prints it.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// The signed envelope; `MANIFEST.dsse.json` where it is left out.
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// The directory that the files are below; the working directory where it is left out.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Files below the directory that the manifest does not list are a fault as well.
    #[arg(long)]
    exact: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    verified: bool,
    manifest: String,
    manifest_sha256: String,
    signed: Predicate,
    /// Files that are what the manifest says.
    files: u64,
    /// What is wrong, up to a hundred of it.
    faults: Vec<String>,
    /// What is wrong and not told.
    more_faults: u64,
}

/// What is wrong, with a bound on what is told.
#[derive(Debug, Default)]
struct Faults {
    told: Vec<String>,
    more: u64,
}

impl Faults {
    fn add(&mut self, fault: impl Into<String>) {
        if self.told.len() < TOLD {
            self.told.push(fault.into());
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

pub(super) async fn verify(format: Format, args: &VerifyArgs) -> Outcome {
    let reading = args.clone();
    let finding = apart(move || checked(&reading)).await?;
    show(format, &finding, text)?;
    if finding.verified {
        return Ok(());
    }
    let faults = u64::try_from(finding.faults.len()).unwrap_or(u64::MAX);
    let faults = faults.saturating_add(finding.more_faults);
    Err(Failure::new(Exit::Unverified, format!("{faults} faults were found")).told())
}

fn text(finding: &Finding) -> String {
    let signed = &finding.signed;
    let mut text = fields(&[
        ("verified", if finding.verified { "yes" } else { "NO" }.to_owned()),
        ("files", finding.files.to_string()),
        ("signed by", format!("{} ({})", signed.identity, signed.identity_id)),
        ("signed at", signed.signed_at.clone()),
        ("key", format!("{}, version {} ({})", signed.key, signed.version, signed.key_id)),
        ("vault", signed.vault.clone()),
        ("manifest", finding.manifest.clone()),
        ("sha256", finding.manifest_sha256.clone()),
    ]);
    for fault in &finding.faults {
        text.push_str(&fields(&[("fault", fault.clone())]));
    }
    if finding.more_faults > 0 {
        text.push_str(&fields(&[("fault", format!("and {} more", finding.more_faults))]));
    }
    text
}

fn unverified(what: &Path, why: &str) -> Failure {
    Failure::new(Exit::Unverified, format!("{}: {why}", what.display()))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::usage(format!("{} cannot be read: {error}", path.display()))
}

fn checked(args: &VerifyArgs) -> Outcome<Finding> {
    let key = public_key(&read_text(&args.public_key)?)
        .map_err(|why| Failure::usage(format!("{}: {why}", args.public_key.display())))?;
    let path = args.envelope.clone().unwrap_or_else(|| envelope_of(&args.manifest));
    let statement = open(&read_text(&path)?, &key).map_err(|why| unverified(&path, why))?;
    let tree = Tree::open(&args.dir).map_err(unreadable(&args.dir))?;
    // Its names are looked at once it is known that they were signed.
    let file = File::open(&args.manifest).map_err(unreadable(&args.manifest))?;
    if digest(file).map_err(unreadable(&args.manifest))? != statement.digest {
        return Err(unverified(&args.manifest, "it is not the manifest that was signed"));
    }
    let mut faults = Faults::default();
    let (files, listed) = lines(args, &tree, &statement, &mut faults)?;
    if let Some(listed) = listed {
        extra(args, &tree, &listed, &mut faults);
    }
    let Faults { told, more } = faults;
    Ok(Finding {
        verified: told.is_empty(),
        manifest: statement.manifest,
        manifest_sha256: hex(&statement.digest),
        signed: statement.predicate,
        files,
        faults: told,
        more_faults: more,
    })
}

/// Hashes a file to its end.
fn digest(mut file: File) -> io::Result<[u8; HASH_BYTES]> {
    let (mut hash, mut part) = (Sha256::new(), vec![0; PART]);
    loop {
        let read = file.read(&mut part)?;
        let Some(data) = part.get(..read).filter(|data| !data.is_empty()) else { break };
        hash.update(data);
    }
    Ok(hash.finish())
}

/// Checks every file that the manifest lists; tells how many are right, and which it lists where
/// others are a fault.
fn lines(
    args: &VerifyArgs,
    tree: &Tree,
    statement: &Statement,
    faults: &mut Faults,
) -> Outcome<(u64, Option<BTreeSet<String>>)> {
    let wrong = |why: &str| unverified(&args.manifest, why);
    let file = File::open(&args.manifest).map_err(unreadable(&args.manifest))?;
    let mut reader = BufReader::with_capacity(PART, file);
    let (mut hash, mut order, mut line) = (Sha256::new(), Order::default(), Vec::new());
    let (mut right, mut size_bytes) = (0_u64, 0_u64);
    let mut listed = args.exact.then(BTreeSet::new);
    let most = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
    loop {
        line.clear();
        let read = reader.by_ref().take(most).read_until(b'\n', &mut line);
        if read.map_err(unreadable(&args.manifest))? == 0 {
            break;
        }
        hash.update(&line);
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(wrong("a line is too long, or not ended"));
        };
        let one = Line::parse(text).map_err(&wrong)?;
        order.next(&one.path).map_err(&wrong)?;
        match tree.hash(&one.path) {
            Ok(found) if found.digest == one.digest => {
                right = right.saturating_add(1);
                size_bytes = size_bytes.saturating_add(found.len_bytes);
            }
            Ok(_) => faults.add(format!("{}: it is not what was signed", one.path)),
            Err(error) => faults.add(error.to_string()),
        }
        if let Some(listed) = &mut listed {
            listed.insert(one.path);
        }
    }
    if hash.finish() != statement.digest {
        return Err(wrong("it was changed while it was read"));
    }
    let Predicate { files, size_bytes: signed_bytes, .. } = &statement.predicate;
    if order.files() != *files || (right == *files && size_bytes != *signed_bytes) {
        faults.add("the manifest lists other files than its statement counts");
    }
    Ok((right, listed))
}

/// Finds files that the manifest does not list, itself and its envelope aside.
fn extra(args: &VerifyArgs, tree: &Tree, listed: &BTreeSet<String>, faults: &mut Faults) {
    let all = match tree.all() {
        Ok(all) => all,
        Err(error) => return faults.add(error.to_string()),
    };
    let envelope = args.envelope.clone().unwrap_or_else(|| envelope_of(&args.manifest));
    let own = [&args.manifest, &envelope, &args.public_key].map(|path| below(&args.dir, path));
    for path in all.difference(listed) {
        if !own.iter().flatten().any(|own| own == path) {
            faults.add(format!("{path}: the manifest does not list it"));
        }
    }
}

/// Where a file is below a directory, if it is.
fn below(dir: &Path, path: &Path) -> Option<String> {
    let (dir, path) = (dir.canonicalize().ok()?, path.canonicalize().ok()?);
    canonical(path.strip_prefix(dir).ok()?).ok()
}
