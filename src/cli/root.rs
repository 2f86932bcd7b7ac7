//! `strongroom root …`, and the rotations of keys as people read them.

use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::output::{fields, show, table, time};
use super::session::{Session, must};
use super::span::{Span, seconds_or_default, show_seconds};
use crate::proto::root_service_client::RootServiceClient as Client;
use crate::proto::{
    GetRootRequest, RetireRootRequest, RootKey, RotateRootRequest, Rotation, RotationSchedule,
    ScheduleRootRequest,
};

/// `strongroom root …`
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Make the root key's next version in the HSM; what the old one wraps is moved in the background
    Rotate {
        /// The current version; with any other nothing is rotated.
        #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
        cas: i64,
    },
    /// Show the versions of the root key, how much each wraps, and how far rotations are
    Status,
    /// Destroy the HSM's key of an old version that wraps nothing any more
    ///
    /// Copies of the store that were made while it wrapped something cannot be opened by it again.
    Retire {
        /// Its number, as `root status` shows it.
        version: i64,
    },
    /// Say how often the root key rotates by itself
    Schedule(Every),
}

/// How often something rotates by itself.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Every {
    /// How often, like 90d.
    #[arg(long, value_name = "SPAN")]
    pub every: Option<Span>,
    /// Not by itself any more.
    #[arg(long)]
    pub never: bool,
}

impl Every {
    /// Shows the seconds: 0 for never.
    pub(super) fn seconds(&self) -> i64 {
        if self.never { 0 } else { seconds_or_default(self.every) }
    }
}

/// Runs `strongroom root …`.
pub(super) async fn run(session: &Session, command: &RootCommand) -> Outcome {
    let root = match command {
        RootCommand::Rotate { cas } => {
            // Once: a repetition would rotate again, or find another version than it names.
            let request = RotateRootRequest { expected_version: *cas };
            session
                .call_once(request, async |wire, request| {
                    Client::new(wire).rotate_root(request).await
                })
                .await?
                .root
        }
        RootCommand::Status => {
            session
                .call(GetRootRequest {}, async |wire, request| {
                    Client::new(wire).get_root(request).await
                })
                .await?
                .root
        }
        RootCommand::Retire { version } => {
            let request = RetireRootRequest { version: *version };
            session
                .call_once(request, async |wire, request| {
                    Client::new(wire).retire_root(request).await
                })
                .await?
                .root
        }
        RootCommand::Schedule(every) => {
            let request = ScheduleRootRequest { rotate_every_s: every.seconds() };
            session
                .call_once(request, async |wire, request| {
                    Client::new(wire).schedule_root(request).await
                })
                .await?
                .root
        }
    };
    show(session.format, &must(root)?, text)
}

/// What columns of versions are called.
pub(super) const HEADERS: [&str; 7] =
    ["VERSION", "STATE", "MADE", "UNDER IT", "MOVED", "LEFT", "BY"];

fn text(root: &RootKey) -> String {
    let rows = root.versions.iter().map(|version| {
        let made = time(version.created_at_ms);
        row((version.version, &version.state, made, version.wraps), version.replaced.as_ref())
    });
    let pending = root.pending.as_ref().map(|pending| format!("version {}", pending.to_version));
    let making = fields(&[("being made", pending.unwrap_or_default())]);
    [table(HEADERS, rows), making, schedule(root.schedule.as_ref())].concat()
}

/// Shows a version and how far what is under it is moved.
pub(super) fn row(
    (version, state, made, under): (i64, &str, String, i64),
    replaced: Option<&Rotation>,
) -> [String; 7] {
    let moved = |by: &Rotation| {
        let done = by.total.saturating_sub(by.left).max(0);
        format!("{done} of {} to version {}", by.total, by.to_version)
    };
    let left = |by: &Rotation| match by.state.as_str() {
        "moving" if by.per_second > 0 || by.estimate_s > 0 => {
            format!("{} at {}/s", show_seconds(by.estimate_s), by.per_second)
        }
        "moving" => "?".to_owned(),
        _ => String::new(),
    };
    [
        version.to_string(),
        state.to_owned(),
        made,
        under.to_string(),
        replaced.map(moved).unwrap_or_default(),
        replaced.map(left).unwrap_or_default(),
        replaced.map(|by| by.started_by.clone()).unwrap_or_default(),
    ]
}

/// Shows when something rotates by itself.
pub(super) fn schedule(schedule: Option<&RotationSchedule>) -> String {
    let every = schedule.map(|it| show_seconds(it.rotate_every_s)).unwrap_or_default();
    let next = schedule.map(|it| time(it.next_at_ms)).unwrap_or_default();
    fields(&[("rotates every", every), ("rotates next", next)])
}
