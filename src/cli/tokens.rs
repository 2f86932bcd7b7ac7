//! `strongroom token …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome};
use super::files::{check_new, read_text, write_private};
use super::output::{Format, fields, json_text, note, print, show, show_list, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default};
use super::wraps::WrapArgs;
use crate::crypto::sha256;
use crate::proto::token_service_client::TokenServiceClient as Client;
use crate::proto::{
    CreateTokenRequest, InspectTokenRequest, ListTokensRequest, MintTokenRequest,
    RenewTokenRequest, RevokeTokenRequest, Token, TokenOrder,
};

/// `strongroom token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for yourself, or for a machine that you own
    Create(Box<Create>),
    /// Show a token; takes none of its uses
    Inspect {
        /// Its accessor; the token that asks where it is left out.
        #[arg(default_value = "")]
        accessor: String,
    },
    /// Move a token's end, never past its maximum
    Renew {
        /// Its accessor; the token that asks where it is left out.
        #[arg(default_value = "")]
        accessor: String,
        /// How long it lives from now; as long as it was made for where it is left out.
        #[arg(long, value_name = "SPAN")]
        ttl: Option<Span>,
    },
    /// End a token now, with everything that was made through it
    Revoke {
        /// Its accessor; the token that asks where it is left out.
        #[arg(default_value = "")]
        accessor: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// List tokens in force: yours, or a machine's
    List(List),
}

/// What `token create` takes.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// The machine that it proves; you where it is left out.
    #[arg(long = "for", value_name = "NAME")]
    identity: Option<String>,
    /// How long it lives; 15m, or 5m with --uses 1, where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How long it lives at the most, however often it is renewed.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// How often it can be used; any number of times where it is left out.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    uses: i32,
    /// A network that it may be used from, like 10.0.0.0/8; several may be given.
    #[arg(long, value_name = "CIDR")]
    cidr: Vec<String>,
    /// A node that accepts it, as in its `server_names`; several may be given.
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// What it may be used for, RESOURCE or RESOURCE:ACTION; several may be given.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// The client certificate that it must come with, a PEM file.
    #[arg(long, value_name = "FILE")]
    bind_cert: Option<PathBuf>,
    /// A new file for the token, which you alone can read; printed where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How the answer is wrapped.
    #[command(flatten)]
    wrap: WrapArgs,
}

/// What `token list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Whose; yours where it is left out.
    #[arg(long, default_value = "")]
    identity: String,
    /// Those that are spent, over or revoked, too.
    #[arg(long)]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Runs `strongroom token …`.
pub(super) async fn run(session: &Session, command: &TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(session, args).await,
        TokenCommand::Inspect { accessor } => {
            let request = InspectTokenRequest { accessor: accessor.clone() };
            let found = session
                .call(request, async |wire, request| Client::new(wire).inspect_token(request).await)
                .await?;
            show(session.format, &must(found.token)?, text)
        }
        TokenCommand::Renew { accessor, ttl } => {
            let (accessor, ttl_s) = (accessor.clone(), seconds_or_default(*ttl));
            let request = RenewTokenRequest { accessor, ttl_s };
            let renewed = session
                .call(request, async |wire, request| Client::new(wire).renew_token(request).await)
                .await?;
            show(session.format, &must(renewed.token)?, text)
        }
        TokenCommand::Revoke { accessor, reason } => {
            let request = RevokeTokenRequest { accessor: accessor.clone(), reason: reason.clone() };
            let revoked = session
                .call(request, async |wire, request| Client::new(wire).revoke_token(request).await)
                .await?;
            show(session.format, &must(revoked.token)?, text)
        }
        TokenCommand::List(args) => list(session, args).await,
    }
}

async fn create(session: &Session, args: &Create) -> Outcome {
    if let Some(path) = &args.out {
        check_new(path)?;
    }
    args.wrap.excludes(&[("--out", args.out.is_some())])?;
    let session = &args.wrap.session(session)?;
    let order = TokenOrder {
        ttl_s: seconds_or_default(args.ttl),
        max_ttl_s: seconds_or_default(args.max_ttl),
        uses: args.uses,
        networks: args.cidr.clone(),
        audience: args.audience.clone(),
        scope: args.scope.clone(),
        certificate_sha256: args
            .bind_cert
            .as_deref()
            .map(thumbprint)
            .transpose()?
            .unwrap_or_default(),
    };
    // The key is fresh: only a retry of this very command is a replay.
    let (idempotency_key, order, replace) = (idempotency_key()?, Some(order), true);
    let (bearer, token, wrapped) = if let Some(identity) = args.identity.clone() {
        let request = MintTokenRequest { idempotency_key, identity, order, replace };
        let made = session
            .call(request, async |wire, request| Client::new(wire).mint_token(request).await)
            .await?;
        (made.bearer, made.token, made.wrapped)
    } else {
        let request = CreateTokenRequest { idempotency_key, order, replace };
        let made = session
            .call(request, async |wire, request| Client::new(wire).create_token(request).await)
            .await?;
        (made.bearer, made.token, made.wrapped)
    };
    if args.wrap.hand_over(session.format, wrapped)? {
        return Ok(());
    }
    let (bearer, token) = (Zeroizing::new(bearer), must(token)?);
    if bearer.is_empty() {
        let message = format!("token {} was made, but its answer was lost", token.accessor);
        return Err(Failure::new(Exit::Unavailable, message)
            .hint("revoke it with `strongroom token revoke ACCESSOR` and make another"));
    }
    hand_over(session.format, args.out.as_deref(), &bearer, &token)
}

/// Prints the token, which is what was asked for, or writes it to its file.
fn hand_over(format: Format, out: Option<&Path>, bearer: &str, token: &Token) -> Outcome {
    if let Some(path) = out {
        write_private(path, bearer)?;
        return show(format, token, text);
    }
    print(&shown(format, bearer, token))
}

/// Writes a token that was wrapped, as `token create` does.
pub(super) fn unwrapped(format: Format, bearer: &str, token: &Token) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(shown(format, bearer, token).as_bytes().to_vec())
}

fn shown(format: Format, bearer: &str, token: &Token) -> Zeroizing<String> {
    Zeroizing::new(match format {
        Format::Human => {
            note(&format!("accessor {}, ends {}", token.accessor, time(token.expires_at_ms)));
            format!("{bearer}\n")
        }
        Format::Json => json_text(&json!({ "bearer": bearer, "token": token })),
    })
}

/// SHA-256 of the certificate in a file (RFC 8705, section 3.1), in hexadecimal.
fn thumbprint(path: &Path) -> Outcome<String> {
    let text = read_text(path)?;
    match x509_parser::pem::parse_x509_pem(text.as_bytes()) {
        Ok((_, pem)) if pem.label == "CERTIFICATE" => Ok(HEXLOWER.encode(&sha256(&pem.contents))),
        Ok(_) | Err(_) => Err(Failure::usage(format!("{} holds no certificate", path.display()))),
    }
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListTokensRequest {
            page_size,
            page_token,
            identity: args.identity.clone(),
            include_ended: args.all,
        };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_tokens(request).await)
            .await?;
        Ok((page.tokens, page.next_page_token))
    })
    .await?;
    let headers = ["ACCESSOR", "IDENTITY", "STATE", "USES LEFT", "ENDS", "SCOPE"];
    show_list(session.format, &listed, headers, |token| {
        [
            token.accessor.clone(),
            token.identity.clone(),
            token.state.clone(),
            uses(token),
            time(token.expires_at_ms),
            token.scope.join(" "),
        ]
    })
}

fn uses(token: &Token) -> String {
    if token.counted { token.uses_left.to_string() } else { String::new() }
}

fn text(token: &Token) -> String {
    fields(&[
        ("accessor", token.accessor.clone()),
        ("identity", token.identity.clone()),
        ("state", token.state.clone()),
        ("parent", token.parent.clone()),
        ("made", time(token.created_at_ms)),
        ("made by", token.created_by.clone()),
        ("ends", time(token.expires_at_ms)),
        ("ends at the latest", time(token.max_expires_at_ms)),
        ("uses left", uses(token)),
        ("networks", token.networks.join(" ")),
        ("audience", token.audience.join(" ")),
        ("scope", token.scope.join(" ")),
        ("certificate", token.certificate_sha256.clone()),
        ("spent", time(token.spent_at_ms)),
        ("spent from", token.spent_from.clone()),
        ("revoked", time(token.revoked_at_ms)),
    ])
}
