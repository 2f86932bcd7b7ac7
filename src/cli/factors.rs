//! `strongroom factor …`

use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::Outcome;
use super::files::{check_new, prompt_secret, read_secret, write_private};
use super::output::{Format, fields, json_text, note, print, show, table, time};
use super::session::Session;
use super::span::{Span, seconds_or_default};
use super::wraps::WrapArgs;
use crate::proto::factor_service_client::FactorServiceClient as Client;
use crate::proto::{
    ConfirmFactorRequest, EnrolFactorRequest, Factor, InviteFactorRequest, InviteFactorResponse,
    ListFactorsRequest, ListFactorsResponse, MakeRecoveryCodesRequest, RemoveFactorRequest,
    ResetFactorsRequest, VerifyFactorRequest,
};

/// `strongroom factor …`
#[derive(Debug, Subcommand)]
pub enum FactorCommand {
    /// Make an invitation with which a human enrols a first factor, or one in place of lost ones
    ///
    /// It works once, for that human alone. A newer one takes the place of the last.
    Invite {
        /// The name of the human.
        name: String,
        /// How long it can be used; a day where it is left out, seven at the most.
        #[arg(long, value_name = "SPAN")]
        ttl: Option<Span>,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
        /// A new file for the invitation, which you alone can read; printed where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How the answer is wrapped.
        #[command(flatten)]
        wrap: WrapArgs,
    },
    /// Get the secret of an authenticator app, shown once; `factor confirm` makes it count
    ///
    /// With an invitation, or with another factor that was proven now.
    Enrol {
        /// A file that holds your invitation, or `-` for standard input, where it is asked for on a
        /// terminal.
        #[arg(long, value_name = "FILE")]
        invitation: Option<PathBuf>,
        /// What to enrol.
        #[arg(long, value_enum, default_value_t = Kind::Totp)]
        kind: Kind,
    },
    /// Give the first code of an authenticator; from then on it counts
    Confirm {
        /// The id that `factor enrol` printed.
        id: String,
        /// The code, with spaces or without; better asked for here, or read from standard input.
        code: Option<String>,
    },
    /// Get ten recovery codes, shown once, each of which works once; they void the last ten
    RecoveryCodes,
    /// Prove a factor, for the credential that asks
    Verify {
        /// The code of an authenticator or a recovery code; better asked for here, or read from
        /// standard input: what stands on a command line is everybody's to read.
        code: Option<String>,
    },
    /// Show the factors of a human
    List {
        /// The name of the human; you where it is left out.
        #[arg(default_value = "")]
        name: String,
    },
    /// Remove a factor of yours, for good
    Remove {
        /// Its id.
        id: String,
    },
    /// Remove every factor of a human who lost them
    Reset {
        /// The name of the human.
        name: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What can be enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An authenticator app.
    Totp,
}

/// Runs `strongroom factor …`.
pub(super) async fn run(session: &Session, command: &FactorCommand) -> Outcome {
    match command {
        FactorCommand::Invite { name, ttl, reason, out, wrap } => {
            let (identity, reason) = (name.clone(), reason.clone());
            let request = InviteFactorRequest { identity, ttl_s: seconds_or_default(*ttl), reason };
            invite(session, request, out.as_deref(), wrap).await
        }
        FactorCommand::Enrol { invitation, kind: Kind::Totp } => {
            enrol(session, invitation.as_deref()).await
        }
        FactorCommand::Confirm { id, code } => confirm(session, id, code.as_deref()).await,
        FactorCommand::RecoveryCodes => recovery_codes(session).await,
        FactorCommand::Verify { code } => {
            let code = given(code.as_deref())?;
            let answer = verify(session, &code).await?;
            show(session.format, &answer, |answer| {
                let recovery = answer.factor.as_ref().filter(|factor| factor.kind == "recovery");
                let left = recovery.map(|_| answer.codes_left.to_string()).unwrap_or_default();
                fields(&[("proven", proven(answer.factor.as_ref())), ("codes left", left)])
            })
        }
        FactorCommand::List { name } => list(session, name).await,
        FactorCommand::Remove { id } => {
            let request = RemoveFactorRequest { id: id.clone() };
            session
                .call_once(request, async |wire, request| {
                    Client::new(wire).remove_factor(request).await
                })
                .await?;
            show(session.format, &json!({ "id": id }), |_| fields(&[("removed", id.clone())]))
        }
        FactorCommand::Reset { name, reason } => {
            let request = ResetFactorsRequest { identity: name.clone(), reason: reason.clone() };
            let answer = session
                .call(request, async |wire, request| Client::new(wire).reset_factors(request).await)
                .await?;
            show(session.format, &answer, |answer| {
                fields(&[("identity", name.clone()), ("removed", answer.removed.to_string())])
            })
        }
    }
}

/// Proves a factor with a code.
pub(super) async fn verify(
    session: &Session,
    code: &str,
) -> Outcome<crate::proto::VerifyFactorResponse> {
    let request = VerifyFactorRequest { code: code.to_owned() };
    // Not repeated unasked: a code works once.
    session
        .call_once(request, async |wire, request| Client::new(wire).verify_factor(request).await)
        .await
}

/// Takes a code from the command line, a prompt, or standard input.
fn given(code: Option<&str>) -> Outcome<Zeroizing<String>> {
    match code {
        Some(code) => Ok(Zeroizing::new(code.to_owned())),
        None => typed("code"),
    }
}

/// Asks for a secret on a terminal, or reads it from standard input.
pub(super) fn typed(what: &str) -> Outcome<Zeroizing<String>> {
    if stdin().is_terminal() { prompt_secret(what) } else { read_secret(Path::new("-")) }
}

async fn invite(
    session: &Session,
    request: InviteFactorRequest,
    out: Option<&Path>,
    wrap: &WrapArgs,
) -> Outcome {
    if let Some(out) = out {
        check_new(out)?;
    }
    wrap.excludes(&[("--out", out.is_some())])?;
    let (session, name) = (&wrap.session(session)?, request.identity.clone());
    let mut made = session
        .call_once(request, async |wire, request| Client::new(wire).invite_factor(request).await)
        .await?;
    if wrap.hand_over(session.format, made.wrapped.take())? {
        return Ok(());
    }
    if let Some(out) = out {
        write_private(out, &format!("{}\n", made.invitation))?;
        made.invitation.clear();
    }
    print(&invited(session.format, &name, &made))?;
    if session.format == Format::Human {
        note("it is shown once: they give it to `strongroom factor enrol --invitation`");
    }
    Ok(())
}

/// Writes an invitation that was wrapped, as `factor invite` does.
pub(super) fn unwrapped(
    format: Format,
    name: &str,
    made: &InviteFactorResponse,
) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(invited(format, name, made).as_bytes().to_vec())
}

fn invited(format: Format, name: &str, made: &InviteFactorResponse) -> Zeroizing<String> {
    let InviteFactorResponse { invitation, accessor, expires_at_ms, wrapped: _ } = made;
    Zeroizing::new(match format {
        Format::Json => json_text(&json!({
            "invitation": invitation,
            "accessor": accessor,
            "expires_at_ms": expires_at_ms,
        })),
        Format::Human => fields(&[
            ("for", name.to_owned()),
            ("invitation", invitation.clone()),
            ("accessor", accessor.clone()),
            ("ends", time(*expires_at_ms)),
        ]),
    })
}

async fn enrol(session: &Session, invitation: Option<&Path>) -> Outcome {
    let invitation = match invitation {
        Some(file) if file.as_os_str() == "-" => typed("invitation")?,
        Some(file) => read_secret(file)?,
        None => Zeroizing::default(),
    };
    let request = EnrolFactorRequest { invitation: invitation.to_string(), kind: "totp".into() };
    let made = session
        .call(request, async |wire, request| Client::new(wire).enrol_factor(request).await)
        .await?;
    match session.format {
        Format::Json => print(&json_text(&json!({
            "id": made.id,
            "secret": made.secret,
            "uri": made.uri,
            "expires_at_ms": made.expires_at_ms,
        }))),
        Format::Human => {
            let confirm = format!(
                "it is shown once: give it to your authenticator app, then run `strongroom factor \
                 confirm {}` until {}",
                made.id,
                time(made.expires_at_ms)
            );
            print(&fields(&[("id", made.id), ("secret", made.secret), ("address", made.uri)]))?;
            note(&confirm);
            Ok(())
        }
    }
}

async fn confirm(session: &Session, id: &str, code: Option<&str>) -> Outcome {
    let request = ConfirmFactorRequest { id: id.into(), code: given(code)?.to_string() };
    let answer = session
        .call_once(request, async |wire, request| Client::new(wire).confirm_factor(request).await)
        .await?;
    show(session.format, &answer, |answer| {
        fields(&[("enrolled", id.to_owned()), ("proven", proven(answer.factor.as_ref()))])
    })
}

async fn recovery_codes(session: &Session) -> Outcome {
    let made = session
        .call_once(MakeRecoveryCodesRequest {}, async |wire, request| {
            Client::new(wire).make_recovery_codes(request).await
        })
        .await?;
    match session.format {
        Format::Json => print(&json_text(&json!({ "id": made.id, "codes": made.codes }))),
        Format::Human => {
            print(&format!("{}\n", made.codes.join("\n")))?;
            note(
                "they are shown once, and each works once: keep them where you keep your passport",
            );
            Ok(())
        }
    }
}

async fn list(session: &Session, name: &str) -> Outcome {
    let request = ListFactorsRequest { identity: name.into() };
    let listed = session
        .call(request, async |wire, request| Client::new(wire).list_factors(request).await)
        .await?;
    show(session.format, &listed, list_text)
}

fn list_text(listed: &ListFactorsResponse) -> String {
    let row = |one: &Factor| {
        let state = match one.kind.as_str() {
            "recovery" => format!("{} codes left", one.codes_left),
            _ => one.state.clone(),
        };
        let since = if one.enrolled_at_ms == 0 { one.created_at_ms } else { one.enrolled_at_ms };
        [one.id.clone(), one.kind.clone(), state, time(since), one.vouched_by.clone()]
    };
    let rows = listed.factors.iter().map(row);
    let mut text = table(["ID", "KIND", "STATE", "SINCE", "VOUCHED FOR BY"], rows);
    let more = fields(&[
        ("locked until", time(listed.locked_until_ms)),
        ("invited until", time(listed.invited_until_ms)),
    ]);
    if listed.locked_until_ms != 0 || listed.invited_until_ms != 0 {
        text.push('\n');
        text.push_str(&more);
    }
    text
}

fn proven(factor: Option<&crate::proto::ProvenFactor>) -> String {
    factor
        .map(|factor| format!("{} at {}", factor.kind, time(factor.proven_at_ms)))
        .unwrap_or_default()
}
