//! `strongroom identity update` and `transfer`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{TIERS, label};
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::cli::span::Span;
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{Identity, TransferIdentityRequest, UpdateIdentityRequest};

/// What `identity update` takes: what is left out stays.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// Its name.
    name: String,
    /// What it is there for.
    #[arg(long)]
    purpose: Option<String>,
    /// What it has to reach.
    #[arg(long, value_name = "TEXT")]
    needs: Option<String>,
    /// How much harm a misuse could do.
    #[arg(long, value_parser = PossibleValuesParser::new(TIERS))]
    tier: Option<String>,
    /// A label to set, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The key of a label to take away; may be given several times.
    #[arg(long = "no-label", value_name = "KEY")]
    no_labels: Vec<String>,
    /// How long it lives from now on, like 90d.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Take a human's end away.
    #[arg(long, conflicts_with = "expires")]
    no_end: bool,
}

/// What `identity transfer` takes.
#[derive(Debug, Clone, Args)]
pub struct Transfer {
    /// The name of the machine.
    name: String,
    /// The human who is to answer for it.
    #[arg(long, value_name = "HUMAN", required_unless_present = "to_group")]
    to: Option<String>,
    /// The group that is to answer for it.
    #[arg(long, value_name = "GROUP", conflicts_with = "to")]
    to_group: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn update(session: &Session, args: &Update) -> Outcome<Option<Identity>> {
    let request = UpdateIdentityRequest {
        name: args.name.clone(),
        purpose: args.purpose.clone(),
        needs: args.needs.clone(),
        tier: args.tier.clone(),
        set_labels: args.labels.iter().cloned().collect(),
        remove_labels: args.no_labels.clone(),
        ttl_s: if args.no_end { Some(0) } else { args.expires.map(Span::seconds) },
    };
    let updated = session
        .call(request, async |wire, request| Client::new(wire).update_identity(request).await)
        .await?;
    Ok(updated.identity)
}

pub(super) async fn transfer(session: &Session, args: &Transfer) -> Outcome<Option<Identity>> {
    let request = TransferIdentityRequest {
        name: args.name.clone(),
        owner: args.to.clone().unwrap_or_default(),
        owner_group: args.to_group.clone().unwrap_or_default(),
        reason: args.reason.clone(),
    };
    let transferred = session
        .call(request, async |wire, request| Client::new(wire).transfer_identity(request).await)
        .await?;
    Ok(transferred.identity)
}
