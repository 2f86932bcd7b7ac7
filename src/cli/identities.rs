//! `strongroom identity …` and `whoami`.

mod change;
mod contain;
mod key;
mod list;
mod policy;
mod show;
mod shred;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use self::change::{Transfer, Update, transfer, update};
use self::contain::{Contain, holdings, retire, suspend};
use self::key::{RotateKey, ScheduleKey};
use self::list::{List, list};
use self::policy::{PolicyCommand, policy};
use self::show::text;
use self::shred::{Shred, Shreds, shred};
use super::enrolments::{Enroll, enroll};
use super::failure::Outcome;
use super::files::{check_new, read_text, write_public};
use super::output::{Format, escape_lines, fields, note, print, show, time};
use super::session::{Session, idempotency_key, must};
use super::span::{Span, seconds_or_default};
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{
    CreateIdentityRequest, GetIdentityRequest, Identity, IssueLoginCertificateRequest,
    ResumeIdentityRequest,
};

pub(super) use self::show::{by, whoami};

const KINDS: [&str; 7] = ["human", "agent", "model", "dataset", "pipeline", "service", "runner"];
const TIERS: [&str; 4] = ["low", "medium", "high", "critical"];

/// `strongroom identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Register an identity; it can do nothing until it has a certificate and a grant
    Create(Create),
    /// Show one identity
    Show {
        /// Its name.
        name: String,
        /// What it holds: what a suspension would end, or what is still to be ended after one.
        #[arg(long)]
        holdings: bool,
    },
    /// List identities
    List(List),
    /// Change purpose, needs, tier, labels or end
    Update(Update),
    /// Give a machine to another owner
    Transfer(Transfer),
    /// Contain an identity: all it holds is dead at once
    Suspend(Contain),
    /// Contain an identity for good; its name is never used again
    Retire(Contain),
    /// Destroy an identity's key and with it all that is under it, for good; takes a ceremony
    Shred(Shred),
    /// Show what shredding an identity would take, or whether it is shredded and unrecoverable
    ShredStatus {
        /// Its name.
        name: String,
    },
    /// List identities that were shredded
    Shreds(Shreds),
    /// Let a suspended identity act again; what the suspension killed stays dead
    Resume(Reasoned),
    /// Say how the identities of a kind live
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make the next version of an identity's key; what is under the old one is moved in the background
    RotateKey(RotateKey),
    /// Show the versions of an identity's key, and how far rotations are
    Key {
        /// The identity's name.
        name: String,
    },
    /// Say how often an identity's key rotates by itself
    ScheduleKey(ScheduleKey),
    /// Sign a login certificate from a CSR
    IssueCert(IssueCert),
    /// Make a token with which a machine joins as an identity, once
    Enroll(Enroll),
}

/// What `identity create` takes.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Its name: one to four segments of a-z 0-9 . _ - joined by slashes.
    name: String,
    /// What stands behind it.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: String,
    /// The human who answers for it; a human is their own owner.
    #[arg(long)]
    owner: Option<String>,
    /// The group that answers for it, in place of a human.
    #[arg(long, value_name = "GROUP", conflicts_with = "owner")]
    owner_group: Option<String>,
    /// Of a human: which person it is, the same on all accounts of one person.
    #[arg(long)]
    person: Option<String>,
    /// What it has to reach.
    #[arg(long, value_name = "TEXT", default_value = "")]
    needs: String,
    /// A label, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What it is there for.
    #[arg(long)]
    purpose: String,
    /// How much harm a misuse could do.
    #[arg(long, value_parser = PossibleValuesParser::new(TIERS))]
    tier: String,
    /// How long it lives, like 30d. A machine lives for 90 days where this is left out, and for
    /// 365 at most.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
}

/// An identity, and why.
#[derive(Debug, Clone, Args)]
pub struct Reasoned {
    /// Its name.
    name: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
}

/// What `identity issue-cert` takes.
#[derive(Debug, Clone, Args)]
pub struct IssueCert {
    /// The name of the identity.
    name: String,
    /// The PKCS#10 request in PEM, `-` for standard input; its private key stays where it is.
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// How long the certificate lives.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// A new file for the certificate and its chain; standard output where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Reads `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs `strongroom identity …`.
pub(super) async fn run(session: &Session, command: &IdentityCommand) -> Outcome {
    let identity = match command {
        IdentityCommand::List(args) => return list(session, args).await,
        IdentityCommand::IssueCert(args) => return issue_cert(session, args).await,
        IdentityCommand::Enroll(args) => return enroll(session, args).await,
        IdentityCommand::RotateKey(args) => return key::rotate(session, args).await,
        IdentityCommand::Key { name } => return key::status(session, name).await,
        IdentityCommand::ScheduleKey(args) => return key::set(session, args).await,
        IdentityCommand::Policy(command) => return policy(session, command).await,
        IdentityCommand::Suspend(args) => return suspend(session, args).await,
        IdentityCommand::Retire(args) => return retire(session, args).await,
        IdentityCommand::Shred(args) => return shred(session, args).await,
        IdentityCommand::ShredStatus { name } => return shred::status(session, name).await,
        IdentityCommand::Shreds(args) => return shred::list(session, args).await,
        IdentityCommand::Create(args) => create(session, args).await?,
        IdentityCommand::Show { name, holdings: true } => return holdings(session, name).await,
        IdentityCommand::Show { name, holdings: false } => {
            let request = GetIdentityRequest { name: name.clone() };
            session
                .call(request, async |wire, request| Client::new(wire).get_identity(request).await)
                .await?
                .identity
        }
        IdentityCommand::Update(args) => update(session, args).await?,
        IdentityCommand::Transfer(args) => transfer(session, args).await?,
        IdentityCommand::Resume(args) => {
            let (name, reason) = (args.name.clone(), args.reason.clone());
            session
                .call(ResumeIdentityRequest { name, reason }, async |wire, request| {
                    Client::new(wire).resume_identity(request).await
                })
                .await?
                .identity
        }
    };
    show(session.format, &must(identity)?, text)?;
    if matches!(command, IdentityCommand::Transfer(_)) {
        note(
            "logins that the old owner had signed for it stay valid; to end them: identity suspend, \
             identity resume, identity issue-cert",
        );
    }
    Ok(())
}

async fn create(session: &Session, args: &Create) -> Outcome<Option<Identity>> {
    let request = CreateIdentityRequest {
        idempotency_key: idempotency_key()?,
        name: args.name.clone(),
        kind: args.kind.clone(),
        owner: args.owner.clone().unwrap_or_default(),
        owner_group: args.owner_group.clone().unwrap_or_default(),
        person: args.person.clone().unwrap_or_default(),
        needs: args.needs.clone(),
        labels: args.labels.iter().cloned().collect(),
        purpose: args.purpose.clone(),
        tier: args.tier.clone(),
        ttl_s: seconds_or_default(args.expires),
    };
    let created = session
        .call(request, async |wire, request| Client::new(wire).create_identity(request).await)
        .await?;
    Ok(created.identity)
}

async fn issue_cert(session: &Session, args: &IssueCert) -> Outcome {
    if let Some(out) = &args.out {
        check_new(out)?;
    }
    let request = IssueLoginCertificateRequest {
        idempotency_key: idempotency_key()?,
        name: args.name.clone(),
        csr_pem: read_text(&args.csr)?.to_string(),
        ttl_s: seconds_or_default(args.ttl),
    };
    let issued = session
        .call(request, async |wire, request| {
            Client::new(wire).issue_login_certificate(request).await
        })
        .await?;
    let chain =
        format!("{}{}", escape_lines(&issued.certificate_pem), escape_lines(&issued.chain_pem));
    let Some(out) = &args.out else {
        return match session.format {
            Format::Human => print(&chain),
            Format::Json => show(session.format, &issued, |_| String::new()),
        };
    };
    write_public(out, chain.as_bytes())?;
    show(session.format, &issued, |issued| {
        fields(&[
            ("certificate", out.display().to_string()),
            ("identity", issued.spiffe_id.clone()),
            ("fingerprint", issued.fingerprint.clone()),
            ("ends", time(issued.expires_at_ms)),
        ])
    })
}
