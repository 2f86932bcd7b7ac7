//! `strongroom join`: makes a key on this machine, trades a join token for its login certificate, and
//! renews that when it is due.
//!
//! Key and certificate are one file, so that whoever reads it never sees a pair that does not fit. The
//! key of a call whose answer is not known is kept beside it until it is: the same key hears the same
//! answer, another would lock the enrolment.

mod place;

use std::path::PathBuf;

use clap::Args;

use self::place::{Key, Login, Place};
use super::args::Global;
use super::credentials::shell_quote;
use super::failure::{Failure, Outcome};
use super::files::read_secret;
use super::output::{Format, json_text, note, print, time};
use super::session::{Session, must, variable};
use crate::proto::enrolment_service_client::EnrolmentServiceClient as Client;
use crate::proto::{EnrolledLogin, JoinRequest, RenewLoginRequest};
use crate::types::{Clock as _, SystemClock};

/// What `join` takes.
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// Where the key and the certificate are kept, in one file `login.pem`; `.strongroom` in `HOME`
    /// where it is left out.
    #[arg(long, value_name = "DIR", env = "STRONGROOM_JOIN_DIR")]
    dir: Option<PathBuf>,
    /// Renew now, also where two thirds of the certificate's life are not over yet.
    #[arg(long)]
    renew: bool,
}

impl JoinArgs {
    fn dir(&self) -> Outcome<PathBuf> {
        let usual = || variable("HOME").map(|home| PathBuf::from(home).join(".strongroom"));
        self.dir.clone().or_else(usual).ok_or_else(|| {
            Failure::usage("there is nowhere to keep a login")
                .hint("say where with --dir, or set HOME")
        })
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Joined,
    Renewed,
}

impl Done {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing to do",
            Self::Joined => "joined",
            Self::Renewed => "renewed",
        }
    }
}

/// Joins, renews, or does nothing.
pub(super) async fn join(global: &Global, args: &JoinArgs) -> Outcome {
    let place = Place::open(&args.dir()?)?;
    let now = SystemClock.now().0;
    let (done, login) = match place.login()? {
        Some(login) if login.ends_at > now && !args.renew && !login.is_due(now) => {
            (Done::Nothing, login)
        }
        Some(login) if login.ends_at > now => (Done::Renewed, renew(global, &place).await?),
        Some(_) | None => (Done::Joined, begin(global, &place).await?),
    };
    if matches!(done, Done::Nothing | Done::Renewed) && global.token_file.is_some() {
        note(&format!(
            "no join token was used: {} holds a login whose time is not over; to enrol anew, move \
             it away or name another directory with --dir",
            place.file().display()
        ));
    }
    tell(global, &place, done, &login)
}

/// Trades the join token for the first certificate.
async fn begin(global: &Global, place: &Place) -> Outcome<Login> {
    let file = global.token_file.as_ref().ok_or_else(|| {
        Failure::usage(format!("{} holds no login that is valid", place.file().display())).hint(
            "give the token that `strongroom identity enroll NAME` printed with --token-file, `-` \
             for standard input",
        )
    })?;
    let token = read_secret(file)?;
    let key = place.key()?;
    let request = JoinRequest { token: token.to_string(), csr_pem: key.request()? };
    let session = Session::open_as_nobody(&global.as_nobody())?;
    let answer =
        session.call(request, async |wire, request| Client::new(wire).join(request).await).await?;
    keep(place, &key, &must(answer.login)?)
}

/// Trades the certificate for the next.
async fn renew(global: &Global, place: &Place) -> Outcome<Login> {
    let key = place.key()?;
    let file = Some(place.file().to_owned());
    let itself = Global { cert: file.clone(), key: file, ..global.clone() };
    let request = RenewLoginRequest { csr_pem: key.request()? };
    let session = Session::open_as_nobody(&itself)?;
    let answer = session
        .call(request, async |wire, request| Client::new(wire).renew_login(request).await)
        .await?;
    keep(place, &key, &must(answer.login)?)
}

fn keep(place: &Place, key: &Key, given: &EnrolledLogin) -> Outcome<Login> {
    place.keep(key, &given.certificate_pem, &given.chain_pem)
}

/// Says what was done, and prints what other commands need to know.
fn tell(global: &Global, place: &Place, done: Done, login: &Login) -> Outcome {
    let file = place.file().display().to_string();
    if global.output == Format::Json {
        return print(&json_text(&serde_json::json!({
            "done": done.as_str(),
            "login_file": file,
            "name": login.name,
            "not_before_ms": login.begins_at,
            "expires_at_ms": login.ends_at,
            "renew_at_ms": login.due_at(),
        })));
    }
    let (ends, due) = (time(login.ends_at), time(login.due_at()));
    note(&format!("{}: {}, ends {ends}, to be renewed {due}", done.as_str(), login.name));
    let mut exports = vec![("STRONGROOM_ADDR", global.addr.clone())];
    let ca = global.cacert.as_ref().map(|ca| ca.canonicalize().unwrap_or_else(|_| ca.clone()));
    exports.extend(ca.map(|ca| ("STRONGROOM_CACERT", ca.display().to_string())));
    exports.extend([("STRONGROOM_CERT", file.clone()), ("STRONGROOM_KEY", file)]);
    let line = |(name, value): &(&str, String)| format!("export {name}={}\n", shell_quote(value));
    print(&exports.iter().map(line).collect::<Vec<_>>().concat())
}
