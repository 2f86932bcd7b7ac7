//! `strongroom ca …`: the authorities of certificates and of logins, and the root above the former.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::output::{fields, show, table, time};
use super::root::{Every, schedule};
use super::session::{Session, must};
use crate::proto::authority_service_client::AuthorityServiceClient as Client;
use crate::proto::{
    AuthorityVersion, GetAuthorityRequest, RetireAuthorityRequest, RotateAuthorityRequest,
    RotatingAuthority, ScheduleAuthorityRequest,
};

const NAMES: [&str; 3] = ["root", "issuing", "login"];

/// `strongroom ca …`
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority's next version; the one before signs nothing new
    Rotate(Rotate),
    /// Show the versions of an authority, and how much of what hangs on each alone is valid
    Status(Which),
    /// Retire an old version: its key is destroyed, and logins that it signed open nothing any more
    ///
    /// Before a root is retired, have whoever trusts it trust the new one: chains lead to it no more.
    Retire(Retire),
    /// Say how often an authority rotates by itself
    Schedule(Schedule),
}

/// An authority.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The authority.
    #[arg(value_parser = PossibleValuesParser::new(NAMES))]
    name: String,
}

/// What `ca rotate` takes.
#[derive(Debug, Clone, Args)]
pub struct Rotate {
    #[command(flatten)]
    which: Which,
    /// The current version; with any other nothing is rotated.
    #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
    cas: i64,
}

/// What `ca retire` takes.
#[derive(Debug, Clone, Args)]
pub struct Retire {
    #[command(flatten)]
    which: Which,
    /// Its number, as `ca status` shows it.
    version: i64,
    /// Also where something that hangs on it alone is valid: logins open nothing then, certificates have
    /// no list, or no root that everybody trusts.
    #[arg(long)]
    force: bool,
}

/// What `ca schedule` takes.
#[derive(Debug, Clone, Args)]
pub struct Schedule {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    every: Every,
}

/// Runs `strongroom ca …`.
pub(super) async fn run(session: &Session, command: &CaCommand) -> Outcome {
    let authority = match command {
        CaCommand::Rotate(Rotate { which, cas }) => {
            // Once: a repetition would rotate again, or find another version than it names.
            let request =
                RotateAuthorityRequest { name: which.name.clone(), expected_version: *cas };
            let rotated = session
                .call_once(request, async |wire, request| {
                    Client::new(wire).rotate_authority(request).await
                })
                .await?;
            rotated.authority
        }
        CaCommand::Status(which) => {
            let request = GetAuthorityRequest { name: which.name.clone() };
            let shown = session
                .call(request, async |wire, request| Client::new(wire).get_authority(request).await)
                .await?;
            shown.authority
        }
        CaCommand::Retire(Retire { which, version, force }) => {
            let (name, version, force) = (which.name.clone(), *version, *force);
            let request = RetireAuthorityRequest { name, version, force };
            let retired = session
                .call_once(request, async |wire, request| {
                    Client::new(wire).retire_authority(request).await
                })
                .await?;
            retired.authority
        }
        CaCommand::Schedule(Schedule { which, every }) => {
            let (name, rotate_every_s) = (which.name.clone(), every.seconds());
            let request = ScheduleAuthorityRequest { name, rotate_every_s };
            let set = session
                .call(request, async |wire, request| {
                    Client::new(wire).schedule_authority(request).await
                })
                .await?;
            set.authority
        }
    };
    show(session.format, &must(authority)?, text)
}

fn text(authority: &RotatingAuthority) -> String {
    let row = |version: &AuthorityVersion| {
        [
            version.version.to_string(),
            version.state.clone(),
            time(version.created_at_ms),
            version.valid.to_string(),
            time(version.valid_until_ms),
            version.replaced.as_ref().map(|by| by.started_by.clone()).unwrap_or_default(),
        ]
    };
    let headers = ["VERSION", "STATE", "MADE", "VALID", "UNTIL", "REPLACED BY"];
    let versions = table(headers, authority.versions.iter().map(row));
    let pending = authority.pending.as_ref().map(|it| format!("version {}", it.to_version));
    let making = fields(&[("being made", pending.unwrap_or_default())]);
    [versions, making, schedule(authority.schedule.as_ref())].concat()
}
