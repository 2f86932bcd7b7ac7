//! `strongroom identity rotate-key | key | schedule-key`.

use clap::Args;

use crate::cli::failure::Outcome;
use crate::cli::output::{show, table, time};
use crate::cli::root::{Every, HEADERS, row, schedule};
use crate::cli::session::{Session, must};
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{
    GetIdentityKeyRequest, IdentityKey, RotateIdentityKeyRequest, ScheduleIdentityKeyRequest,
};

/// What `identity rotate-key` takes.
#[derive(Debug, Clone, Args)]
pub struct RotateKey {
    /// The identity's name.
    name: String,
    /// The current version; with any other nothing is rotated.
    #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
    cas: i64,
}

/// What `identity schedule-key` takes.
#[derive(Debug, Clone, Args)]
pub struct ScheduleKey {
    /// The identity's name.
    name: String,
    #[command(flatten)]
    every: Every,
}

pub(super) async fn rotate(session: &Session, args: &RotateKey) -> Outcome {
    // Once: a repetition would rotate again, or find another version than it names.
    let request = RotateIdentityKeyRequest { name: args.name.clone(), expected_version: args.cas };
    let rotated = session
        .call_once(request, async |wire, request| {
            Client::new(wire).rotate_identity_key(request).await
        })
        .await?;
    show(session.format, &must(rotated.key)?, text)
}

pub(super) async fn status(session: &Session, name: &str) -> Outcome {
    let request = GetIdentityKeyRequest { name: name.to_owned() };
    let shown = session
        .call(request, async |wire, request| Client::new(wire).get_identity_key(request).await)
        .await?;
    show(session.format, &must(shown.key)?, text)
}

pub(super) async fn set(session: &Session, args: &ScheduleKey) -> Outcome {
    let (name, rotate_every_s) = (args.name.clone(), args.every.seconds());
    let request = ScheduleIdentityKeyRequest { name, rotate_every_s };
    let set = session
        .call(request, async |wire, request| Client::new(wire).schedule_identity_key(request).await)
        .await?;
    show(session.format, &must(set.key)?, text)
}

fn text(key: &IdentityKey) -> String {
    let rows = key.versions.iter().map(|version| {
        let made = time(version.created_at_ms);
        row((version.version, &version.state, made, version.under), version.replaced.as_ref())
    });
    [table(HEADERS, rows), schedule(key.schedule.as_ref())].concat()
}
