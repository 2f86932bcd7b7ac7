//! `strongroom login`: trades the OIDC token that a job has, or that a person gets by signing in, for a
//! session, which other commands use.
//!
//! The session is one file that its owner alone can read. Nothing secret is printed, but to GitHub's
//! runner, so that it hides it.

mod browser;
mod people;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use zeroize::Zeroizing;

use self::people::{PersonArgs, SignedIn, certify, sign_in};
use super::args::Global;
use super::failure::{Exit, Failure, Outcome};
use super::files::{check_folder, read_secret, read_text};
use super::output::{Format, fields, json_text, print, tell, time};
use super::session::{Session, keep, variable};
use super::span::{Span, seconds_or_default};
use crate::engines::issuers::request_id_token;
use crate::proto::issuer_service_client::IssuerServiceClient as Client;
use crate::proto::{LoginRequest, LoginResponse};

/// Where the runner of GitHub says how a token is had, and whether it is one.
const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
const ON_GITHUB: &str = "GITHUB_ACTIONS";
/// Where a pod's projected token is mounted where nobody says.
const POD_TOKEN: &str = "/var/run/secrets/strongroom/token";

/// What `login` takes.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("way").args(["github", "gitlab", "kubernetes", "oidc"]))]
pub struct LoginArgs {
    /// The identity; of one that a rule names by a template, the name that it makes.
    #[arg(long, visible_alias = "as", value_name = "NAME", env = "STRONGROOM_IDENTITY")]
    identity: String,
    /// In a job of GitHub Actions, which needs `permissions: id-token: write`.
    #[arg(long)]
    github: bool,
    /// In a job of GitLab CI, with the token of `id_tokens` in this variable.
    #[arg(
        long,
        value_name = "VARIABLE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "STRONGROOM_ID_TOKEN"
    )]
    gitlab: Option<String>,
    /// In a pod, with its projected token in this file.
    #[arg(
        long,
        value_name = "TOKEN-FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = POD_TOKEN
    )]
    kubernetes: Option<PathBuf>,
    /// With a token in this file, `-` for standard input.
    #[arg(long, value_name = "TOKEN-FILE")]
    oidc: Option<PathBuf>,
    /// Whom GitHub's token is to be for: the audience that the vault knows the issuer by.
    #[arg(
        long,
        value_name = "NAME",
        env = "STRONGROOM_AUDIENCE",
        required_if_eq("github", "true")
    )]
    audience: Option<String>,
    /// The authorities that the certificate of GitHub's server, or of a person's provider, may come
    /// from, a PEM file; the public ones, or what the vault says, where it is left out.
    #[arg(long, value_name = "FILE", env = "STRONGROOM_ISSUER_CACERT")]
    issuer_cacert: Option<PathBuf>,
    /// How long the session lives; as long as the rule says where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    #[command(flatten, next_help_heading = "People, who say nothing of a token")]
    person: PersonArgs,
}

/// Logs in, and keeps the session.
pub(super) async fn login(global: &Global, args: &LoginArgs) -> Outcome {
    // Before the token is used up, which is once.
    let path = global.session_path().ok_or_else(|| {
        Failure::usage("there is nowhere to keep a session")
            .hint("say where with --session-file, or set HOME")
    })?;
    check_folder(&path)?;
    args.person.check()?;
    let token = find_token(args).await?;
    let session = Session::open_as_nobody(&global.as_nobody())?;
    let mut answer = if let Some(token) = token {
        trade(&session, args, &token, "").await?
    } else {
        let signed_in = sign_in(&session, &args.person, args.issuer_cacert.as_deref()).await?;
        let SignedIn { token, proof, .. } = &signed_in;
        let answer = trade(&session, args, token, proof).await;
        answer.map_err(|failure| signed_in.explain(failure, &args.identity))?
    };
    let bearer = Zeroizing::new(std::mem::take(&mut answer.bearer));
    hide(&bearer)?;
    keep(&global.addr, &path, &bearer)?;
    let certificate = match args.person.files() {
        Some(files) => Some(certify(&session.bearing(&bearer)?, &args.identity, files).await?),
        None => None,
    };
    tell_session(global, args, &answer, (&path, certificate))
}

/// Trades a token for a session. It is used once: what may have reached the vault is not sent again.
async fn trade(
    session: &Session,
    args: &LoginArgs,
    token: &str,
    proof: &str,
) -> Outcome<LoginResponse> {
    let request = LoginRequest {
        identity: args.identity.clone(),
        token: token.to_owned(),
        ttl_s: seconds_or_default(args.ttl),
        proof: proof.to_owned(),
    };
    session.call_unsent(request, async |wire, request| Client::new(wire).login(request).await).await
}

/// Says what there is now, and where; nothing secret of it.
fn tell_session(
    global: &Global,
    args: &LoginArgs,
    answer: &LoginResponse,
    (path, certificate): (&Path, Option<i64>),
) -> Outcome {
    let shown = path.display().to_string();
    match global.output {
        Format::Human => tell(&format!(
            "{}{}",
            if answer.registered { "registered, and " } else { "" },
            fields(&[
                ("logged in as", args.identity.clone()),
                ("session", shown),
                ("ends", time(answer.expires_at_ms)),
                ("ends at the latest", time(answer.max_expires_at_ms)),
                ("certificate ends", certificate.map(time).unwrap_or_default()),
            ])
        ))?,
        Format::Json => print(&json_text(&serde_json::json!({
            "identity": args.identity,
            "accessor": answer.accessor,
            "session_file": shown,
            "registered": answer.registered,
            "expires_at_ms": answer.expires_at_ms,
            "max_expires_at_ms": answer.max_expires_at_ms,
            "certificate_expires_at_ms": certificate.unwrap_or_default(),
        })))?,
    }
    Ok(())
}

/// Finds the token that the job has; none where it is no job that asks.
async fn find_token(args: &LoginArgs) -> Outcome<Option<Zeroizing<String>>> {
    if args.github {
        return ask_github(args).await.map(Some);
    }
    if let Some(name) = &args.gitlab {
        return variable(name).map(Zeroizing::new).map(Some).ok_or_else(|| {
            Failure::usage(format!("the variable {name} holds no token")).hint(
                "the job needs `id_tokens:` with that variable and `aud:` the vault's audience",
            )
        });
    }
    args.kubernetes.as_ref().or(args.oidc.as_ref()).map(|path| read_secret(path)).transpose()
}

/// Asks the runner's server for a token (GitHub: "`OpenID` Connect reference").
async fn ask_github(args: &LoginArgs) -> Outcome<Zeroizing<String>> {
    let (Some(url), Some(bearer)) = (variable(REQUEST_URL), variable(REQUEST_TOKEN)) else {
        return Err(Failure::usage("GitHub offers this job no token")
            .hint("the job needs `permissions:` with `id-token: write`"));
    };
    let ca = args.issuer_cacert.as_deref().map(read_text).transpose()?;
    let ca = ca.map(|pem| pem.to_string()).unwrap_or_default();
    let audience = args.audience.as_deref().unwrap_or_default();
    let bearer = Zeroizing::new(bearer);
    let token = request_id_token(&url, audience, &bearer, &ca).await;
    token
        .map(Zeroizing::new)
        .map_err(|why| Failure::new(Exit::Unavailable, format!("GitHub gave no token: {why}")))
}

/// Tells GitHub's runner what its log must not show.
pub(super) fn hide(secret: &str) -> Outcome {
    if secret.is_empty() || variable(ON_GITHUB).as_deref() != Some("true") {
        return Ok(());
    }
    // The runner reads it there too, and standard output is somebody else's.
    tell(&Zeroizing::new(format!("::add-mask::{secret}\n")))
}
