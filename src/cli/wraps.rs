//! `strongroom unwrap`, `strongroom wrap …`, and `--wrap` of the commands whose answers can be wrapped.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use prost::Message;
use serde_json::json;
use zeroize::Zeroizing;

use super::factors::{self, typed};
use super::failure::{Exit, Failure, Outcome};
use super::files::{check_new, write_private_bytes};
use super::output::{Format, fields, json_text, note, print, print_bytes, show, show_list, time};
use super::session::{Session, collect, must};
use super::span::Span;
use super::{credentials, enrolments, keys, pki, secrets, tokens};
use crate::proto::wrap_service_client::WrapServiceClient as Client;
use crate::proto::{
    CreateEnrolmentResponse, CreateTokenResponse, DecryptResponse, GetRandomResponse,
    GetSecretResponse, GetWrapRequest, InviteFactorResponse, IssueCertificateResponse,
    IssueCredentialsResponse, ListWrapsRequest, MakeDataKeyResponse, MintTokenResponse,
    RevokeWrapRequest, UnwrapRequest, UnwrapResponse, Wrap, Wrappable as _, Wrapped,
};

/// What asks for an answer to be wrapped.
#[derive(Debug, Clone, Default, Args)]
pub struct WrapArgs {
    /// Print a handle in place of what is secret, which `strongroom unwrap` opens once, for this long:
    /// 24h at the most.
    #[arg(long, value_name = "SPAN", help_heading = "Wrapping")]
    wrap: Option<Span>,
    /// Who alone can open it; every active identity that has the handle where it is left out.
    #[arg(long, value_name = "IDENTITY", requires = "wrap", help_heading = "Wrapping")]
    wrap_for: Option<String>,
}

impl WrapArgs {
    /// Whether a wrap is asked for.
    pub(super) const fn asked(&self) -> bool {
        self.wrap.is_some()
    }

    /// The session whose calls are answered so.
    pub(super) fn session(&self, session: &Session) -> Outcome<Session> {
        match self.wrap {
            None => Ok(session.clone()),
            Some(span) => session.wrapping(span.seconds(), self.wrap_for.as_deref()),
        }
    }

    /// Refuses what is not for whoever gets a handle.
    pub(super) fn excludes(&self, flags: &[(&str, bool)]) -> Outcome {
        match flags.iter().find(|(_, given)| self.asked() && *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Failure::usage(format!("{flag} does not go with --wrap"))
                .hint("whoever unwraps it says where it goes")),
        }
    }

    /// Prints the handle where one was asked for; false where none was.
    pub(super) fn hand_over(&self, format: Format, wrapped: Option<Wrapped>) -> Outcome<bool> {
        match (self.asked(), wrapped) {
            (false, _) => Ok(false),
            (true, Some(wrapped)) => hand_over(format, &wrapped).map(|()| true),
            (true, None) => {
                Err(Failure::new(Exit::Unavailable, "it was done, but its answer was lost")
                    .hint("ask again; what was made is listed, and can be revoked"))
            }
        }
    }
}

/// Prints a handle, which is what was asked for.
fn hand_over(format: Format, wrapped: &Wrapped) -> Outcome {
    let Wrapped { handle, accessor, creator, path, action, recipient, expires_at_ms } = wrapped;
    match format {
        Format::Human => {
            let whom = if recipient.is_empty() { "whoever has it" } else { recipient };
            note(&format!("wrap {accessor} for {whom}, ends {}", time(*expires_at_ms)));
            note(&format!("opened by: strongroom unwrap --from {creator} --path {path}:{action}"));
            print(&Zeroizing::new(format!("{handle}\n")))
        }
        Format::Json => print(&Zeroizing::new(json_text(&json!({
            "handle": handle,
            "accessor": accessor,
            "creator": creator,
            "path": path,
            "action": action,
            "recipient": recipient,
            "expires_at_ms": expires_at_ms,
        })))),
    }
}

/// What `unwrap` takes. The handle is asked for on a terminal, or read from standard input: what stands
/// on a command line is everybody's to read.
#[derive(Debug, Clone, Args)]
pub struct UnwrapArgs {
    /// Who you expect to have made it.
    #[arg(long, value_name = "CREATOR")]
    from: String,
    /// What you expect in it: RESOURCE, or RESOURCE:ACTION.
    #[arg(long, value_name = "PATH")]
    path: String,
    /// A new file for it, which you alone can read; printed where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `strongroom wrap …`
#[derive(Debug, Subcommand)]
pub enum WrapCommand {
    /// List what you wrapped, and what was wrapped for you, the newest first
    List {
        /// Whose; yours where it is left out.
        #[arg(long, default_value = "")]
        identity: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Show what became of a wrap: who opened it, when, and from where
    Show {
        /// Its accessor.
        accessor: String,
    },
    /// Take a wrap back: nobody opens it any more
    Revoke {
        /// Its accessor.
        accessor: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Runs `strongroom wrap …`.
pub(super) async fn run(session: &Session, command: &WrapCommand) -> Outcome {
    match command {
        WrapCommand::List { identity, limit } => list(session, identity, *limit).await,
        WrapCommand::Show { accessor } => {
            let request = GetWrapRequest { accessor: accessor.clone() };
            let found = session
                .call(request, async |wire, request| Client::new(wire).get_wrap(request).await)
                .await?;
            show(session.format, &must(found.wrap)?, text)
        }
        WrapCommand::Revoke { accessor, reason } => {
            let request = RevokeWrapRequest { accessor: accessor.clone(), reason: reason.clone() };
            let revoked = session
                .call(request, async |wire, request| Client::new(wire).revoke_wrap(request).await)
                .await?;
            show(session.format, &must(revoked.wrap)?, text)
        }
    }
}

/// Runs `strongroom unwrap`: it prints what the command would have that was answered so.
pub(super) async fn unwrap(session: &Session, args: &UnwrapArgs) -> Outcome {
    if let Some(path) = &args.out {
        check_new(path)?;
    }
    let handle = typed("handle")?;
    let (path, action) = args.path.split_once(':').unwrap_or((args.path.as_str(), ""));
    let request = UnwrapRequest {
        handle: handle.to_string(),
        creator: args.from.clone(),
        path: path.to_owned(),
        action: action.to_owned(),
    };
    // Sent once: a second try would find it opened, by nobody but this one.
    let opened = session
        .call_unsent(request, async |wire, request| Client::new(wire).unwrap(request).await)
        .await?;
    let told = render(session.format, path, &opened)?;
    match &args.out {
        Some(file) => {
            write_private_bytes(file, &told)?;
            note(&format!("what was in it is in {}", file.display()));
            Ok(())
        }
        None => print_bytes(&told),
    }
}

fn render(format: Format, path: &str, opened: &UnwrapResponse) -> Outcome<Zeroizing<Vec<u8>>> {
    let object = path.split_once('/').map_or("", |(_, object)| object);
    let bytes = opened.answer.as_slice();
    Ok(match opened.message.as_str() {
        GetSecretResponse::MESSAGE => secrets::unwrapped(format, object, read(bytes)?),
        IssueCredentialsResponse::MESSAGE => {
            credentials::unwrapped(format, &read::<IssueCredentialsResponse>(bytes)?)
        }
        CreateTokenResponse::MESSAGE => {
            let made = read::<CreateTokenResponse>(bytes)?;
            tokens::unwrapped(format, &made.bearer, &must(made.token)?)
        }
        MintTokenResponse::MESSAGE => {
            let made = read::<MintTokenResponse>(bytes)?;
            tokens::unwrapped(format, &made.bearer, &must(made.token)?)
        }
        CreateEnrolmentResponse::MESSAGE => enrolments::unwrapped(format, &read(bytes)?)?,
        IssueCertificateResponse::MESSAGE => {
            pki::unwrapped(format, &read::<IssueCertificateResponse>(bytes)?)
        }
        InviteFactorResponse::MESSAGE => {
            factors::unwrapped(format, object, &read::<InviteFactorResponse>(bytes)?)
        }
        DecryptResponse::MESSAGE => keys::unwrapped_plaintext(format, read(bytes)?)?,
        MakeDataKeyResponse::MESSAGE => {
            keys::unwrapped_data_key(format, &read::<MakeDataKeyResponse>(bytes)?)
        }
        GetRandomResponse::MESSAGE => {
            keys::unwrapped_random(format, &read::<GetRandomResponse>(bytes)?)
        }
        _ => return Err(unreadable().hint("a newer program of this name can")),
    })
}

fn read<M: Message + Default>(bytes: &[u8]) -> Outcome<M> {
    M::decode(bytes).map_err(|_malformed| unreadable())
}

fn unreadable() -> Failure {
    Failure::new(Exit::Unexpected, "what was in it cannot be read by this program")
}

async fn list(session: &Session, identity: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let identity = identity.to_owned();
        let request = ListWrapsRequest { page_size, page_token, identity };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_wraps(request).await)
            .await?;
        Ok((page.wraps, page.next_page_token))
    })
    .await?;
    let headers = ["ACCESSOR", "FROM", "FOR", "PATH", "STATE", "ENDS", "OPENED BY", "OPENED FROM"];
    show_list(session.format, &listed, headers, |wrap| {
        [
            wrap.accessor.clone(),
            wrap.creator.clone(),
            wrap.recipient.clone(),
            format!("{}:{}", wrap.path, wrap.action),
            wrap.state.clone(),
            time(wrap.expires_at_ms),
            wrap.opened_by.clone(),
            wrap.opened_from.clone(),
        ]
    })
}

fn text(wrap: &Wrap) -> String {
    fields(&[
        ("accessor", wrap.accessor.clone()),
        ("from", wrap.creator.clone()),
        ("for", wrap.recipient.clone()),
        ("path", format!("{}:{}", wrap.path, wrap.action)),
        ("state", wrap.state.clone()),
        ("because", wrap.void_because.clone()),
        ("made", time(wrap.created_at_ms)),
        ("ends", time(wrap.expires_at_ms)),
        ("opened by", wrap.opened_by.clone()),
        ("opened", time(wrap.opened_at_ms)),
        ("opened from", wrap.opened_from.clone()),
        ("changed", time(wrap.changed_at_ms)),
        ("changed by", wrap.changed_by.clone()),
    ])
}
