//! `strongroom identity …` and `whoami`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::files::{check_new, read_text, write_public};
use super::output::{Format, escape_lines, fields, print, show, show_list, table, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default};
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{
    CreateIdentityRequest, GetIdentityRequest, Identity, IssueLoginCertificateRequest,
    ListIdentitiesRequest, ResumeIdentityRequest, SuspendIdentityRequest, WhoAmIRequest,
    WhoAmIResponse,
};

const KINDS: [&str; 7] = ["human", "agent", "model", "dataset", "pipeline", "service", "runner"];
const TIERS: [&str; 4] = ["low", "medium", "high", "critical"];
const STATES: [&str; 2] = ["active", "suspended"];

/// `strongroom identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Register an identity; it can do nothing until it has a certificate and a grant
    Create(Create),
    /// Show one identity
    Show {
        /// Its name.
        name: String,
    },
    /// List identities
    List(List),
    /// Contain an identity: all it holds is dead at once
    Suspend(Reasoned),
    /// Let a suspended identity act again; what the suspension killed stays dead
    Resume(Reasoned),
    /// Sign a login certificate from a CSR
    IssueCert(IssueCert),
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
    #[arg(long, required_if_eq_any = [
        ("kind", "agent"), ("kind", "model"), ("kind", "dataset"), ("kind", "pipeline"),
        ("kind", "service"), ("kind", "runner"),
    ])]
    owner: Option<String>,
    /// What it is there for.
    #[arg(long)]
    purpose: String,
    /// How much harm a misuse could do.
    #[arg(long, value_parser = PossibleValuesParser::new(TIERS))]
    tier: String,
    /// How long it lives, like 90d; machines must end.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
}

/// What `identity list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Only those of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Only those of this tier.
    #[arg(long, value_parser = PossibleValuesParser::new(TIERS))]
    tier: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
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

/// Shows who the caller is.
pub(super) async fn whoami(session: &Session) -> Outcome {
    let me = session
        .call(WhoAmIRequest {}, async |wire, request| Client::new(wire).who_am_i(request).await)
        .await?;
    show(session.format, &me, whoami_text)
}

fn whoami_text(me: &WhoAmIResponse) -> String {
    let administrator = if me.administrator { "yes: every administrative action" } else { "" };
    let mut text = fields(&[
        ("identity", me.identity.clone()),
        ("kind", me.kind.clone()),
        ("owner", me.owner.clone()),
        ("method", me.method.clone()),
        ("credential", me.credential_id.clone()),
        ("credential ends", time(me.credential_expires_at_ms)),
        ("identity ends", time(me.expires_at_ms)),
        ("groups", me.groups.join(", ")),
        ("administrator", administrator.into()),
    ]);
    text.push('\n');
    if me.permissions.is_empty() {
        text.push_str("no grants\n");
    } else {
        let rows = me.permissions.iter().map(|may| {
            let through = may.group.clone();
            [may.action.clone(), may.resource.clone(), through, time(may.expires_at_ms)]
        });
        text.push_str(&table(["MAY", "ON", "THROUGH GROUP", "ENDS"], rows));
    }
    for notice in &me.notices {
        text.push('\n');
        text.push_str(&fields(&[("notice", notice.message.clone())]));
    }
    text
}

/// Runs `strongroom identity …`.
pub(super) async fn run(session: &Session, command: &IdentityCommand) -> Outcome {
    let identity = match command {
        IdentityCommand::List(args) => return list(session, args).await,
        IdentityCommand::IssueCert(args) => return issue_cert(session, args).await,
        IdentityCommand::Create(args) => create(session, args).await?,
        IdentityCommand::Show { name } => {
            let request = GetIdentityRequest { name: name.clone() };
            session
                .call(request, async |wire, request| Client::new(wire).get_identity(request).await)
                .await?
                .identity
        }
        IdentityCommand::Suspend(args) => {
            let (name, reason) = (args.name.clone(), args.reason.clone());
            session
                .call(SuspendIdentityRequest { name, reason }, async |wire, request| {
                    Client::new(wire).suspend_identity(request).await
                })
                .await?
                .identity
        }
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
    show(session.format, &must(identity)?, text)
}

async fn create(session: &Session, args: &Create) -> Outcome<Option<Identity>> {
    let request = CreateIdentityRequest {
        idempotency_key: idempotency_key()?,
        name: args.name.clone(),
        kind: args.kind.clone(),
        owner: args.owner.clone().unwrap_or_default(),
        purpose: args.purpose.clone(),
        tier: args.tier.clone(),
        ttl_s: seconds_or_default(args.expires),
    };
    let created = session
        .call(request, async |wire, request| Client::new(wire).create_identity(request).await)
        .await?;
    Ok(created.identity)
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListIdentitiesRequest {
            page_size,
            page_token,
            kind: args.kind.clone().unwrap_or_default(),
            owner: args.owner.clone().unwrap_or_default(),
            state: args.state.clone().unwrap_or_default(),
            tier: args.tier.clone().unwrap_or_default(),
        };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_identities(request).await)
            .await?;
        Ok((page.identities, page.next_page_token))
    })
    .await?;
    let headers = ["NAME", "KIND", "OWNER", "TIER", "STATE", "ENDS", "LAST USED", "PURPOSE"];
    show_list(session.format, &listed, headers, |identity| {
        [
            identity.name.clone(),
            identity.kind.clone(),
            identity.owner.clone(),
            identity.tier.clone(),
            identity.state.clone(),
            time(identity.expires_at_ms),
            time(identity.last_used_at_ms),
            identity.purpose.clone(),
        ]
    })
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

fn text(identity: &Identity) -> String {
    fields(&[
        ("name", identity.name.clone()),
        ("id", identity.id.clone()),
        ("kind", identity.kind.clone()),
        ("owner", identity.owner.clone()),
        ("purpose", identity.purpose.clone()),
        ("tier", identity.tier.clone()),
        ("state", identity.state.clone()),
        ("groups", identity.groups.join(", ")),
        ("ends", time(identity.expires_at_ms)),
        ("last used", time(identity.last_used_at_ms)),
        ("registered", by(identity.created_at_ms, &identity.created_by)),
        ("changed", by(identity.changed_at_ms, &identity.changed_by)),
    ])
}

/// Writes when something was done and by whom; nothing where it was not.
pub(super) fn by(at_ms: i64, who: &str) -> String {
    match (time(at_ms), who) {
        (at, _) if at.is_empty() => at,
        (at, "") => at,
        (at, who) => format!("{at} by {who}"),
    }
}
