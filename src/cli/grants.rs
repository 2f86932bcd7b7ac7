//! `strongroom grant …`

use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::identities::by;
use super::output::{fields, show, show_list, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default, show_seconds};
use crate::proto::grant_service_client::GrantServiceClient as Client;
use crate::proto::{
    AddGrantRequest, Conditions, GetGrantRequest, Grant, ListGrantsRequest, Mask,
    RemoveGrantRequest, add_grant_request, grant, list_grants_request,
};

/// `strongroom grant …`
#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// Allow an identity or a group an action on resources
    Add(Box<Add>),
    /// Show one grant: who gave it, when, why, and when it was last used
    Show {
        /// Its id.
        id: String,
    },
    /// List grants
    List(List),
    /// Take a grant back
    Remove {
        /// Its id.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What `grant add` takes.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// The name of the identity; of the group with --group.
    name: String,
    /// NAME is a group.
    #[arg(long)]
    group: bool,
    /// The action, like database.credentials; `strongroom actions` lists them.
    #[arg(long)]
    action: String,
    /// The resources, like 'database/analytics/reader' or 'database/**'.
    #[arg(long, value_name = "PATTERN")]
    resource: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
    /// The ticket that asked for it.
    #[arg(long, default_value = "")]
    ticket: String,
    /// How long it lives, like 30d; until it is removed where it is left out.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// It counts only for calls from this network, like 10.1.0.0/16; may be repeated.
    #[arg(long, value_name = "CIDR")]
    network: Vec<String>,
    /// The longest life of what is issued under it.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// Fields of JSON secrets that are hidden, like 'card=last4,email=hash,ssn=drop'; also redact.
    #[arg(long, value_name = "FIELD=HOW", value_delimiter = ',', value_parser = mask)]
    mask: Vec<Mask>,
    /// How long ago whoever uses it may have been seen to be who they are at the most, like 10m:
    /// when they signed in by their provider, or proved a factor.
    #[arg(long, value_name = "SPAN")]
    max_auth_age: Option<Span>,
    /// A method that whoever uses it has to have signed in with by their provider, like otp; one of
    /// them where it is repeated.
    #[arg(long, value_name = "METHOD")]
    amr: Vec<String>,
    /// A group that their provider has to say they are in; one of them where it is repeated.
    #[arg(long, value_name = "GROUP")]
    provider_group: Vec<String>,
}

/// Reads `FIELD=HOW`.
fn mask(text: &str) -> Result<Mask, String> {
    let (field, how) = text.rsplit_once('=').ok_or("a mask is FIELD=HOW")?;
    Ok(Mask { field: field.to_owned(), how: how.to_owned() })
}

/// What `grant list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only those of this identity; of this group with --group.
    name: Option<String>,
    /// NAME is a group.
    #[arg(long, requires = "name")]
    group: bool,
    /// Only those of this action.
    #[arg(long, default_value = "")]
    action: String,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Runs `strongroom grant …`.
pub(super) async fn run(session: &Session, command: &GrantCommand) -> Outcome {
    match command {
        GrantCommand::Add(args) => add(session, args).await,
        GrantCommand::Show { id } => {
            let found = session
                .call(GetGrantRequest { id: id.clone() }, async |wire, request| {
                    Client::new(wire).get_grant(request).await
                })
                .await?;
            show(session.format, &must(found.grant)?, text)
        }
        GrantCommand::List(args) => list(session, args).await,
        GrantCommand::Remove { id, reason } => {
            let request = RemoveGrantRequest { id: id.clone(), reason: reason.clone() };
            // Once: a repetition would not find what the first try had removed.
            let removed = session
                .call_once(request, async |wire, request| {
                    Client::new(wire).remove_grant(request).await
                })
                .await?;
            show(session.format, &must(removed.grant)?, |removed| {
                format!("removed:\n{}", text(removed))
            })
        }
    }
}

async fn add(session: &Session, args: &Add) -> Outcome {
    let name = args.name.clone();
    let request = AddGrantRequest {
        idempotency_key: idempotency_key()?,
        subject: Some(if args.group {
            add_grant_request::Subject::Group(name)
        } else {
            add_grant_request::Subject::Identity(name)
        }),
        action: args.action.clone(),
        resource: args.resource.clone(),
        conditions: Some(Conditions {
            networks: args.network.clone(),
            max_ttl_s: seconds_or_default(args.max_ttl),
            not_before_ms: 0,
            masks: args.mask.clone(),
            max_auth_age_s: seconds_or_default(args.max_auth_age),
            amr: args.amr.clone(),
            provider_groups: args.provider_group.clone(),
        }),
        reason: args.reason.clone(),
        ticket: args.ticket.clone(),
        ttl_s: seconds_or_default(args.expires),
    };
    let added = session
        .call(request, async |wire, request| Client::new(wire).add_grant(request).await)
        .await?;
    show(session.format, &must(added.grant)?, text)
}

async fn list(session: &Session, args: &List) -> Outcome {
    let subject = args.name.clone().map(|name| {
        if args.group {
            list_grants_request::Subject::Group(name)
        } else {
            list_grants_request::Subject::Identity(name)
        }
    });
    let listed = collect(args.limit, async |page_size, page_token| {
        let (subject, action) = (subject.clone(), args.action.clone());
        let request = ListGrantsRequest { page_size, page_token, action, subject };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_grants(request).await)
            .await?;
        Ok((page.grants, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "FOR", "ACTION", "RESOURCE", "GIVEN BY", "ENDS", "LAST USED"];
    show_list(session.format, &listed, headers, |grant| {
        [
            grant.id.clone(),
            subject_of(grant),
            grant.action.clone(),
            grant.resource.clone(),
            grant.created_by.clone(),
            time(grant.expires_at_ms),
            time(grant.last_used_at_ms),
        ]
    })
}

fn subject_of(grant: &Grant) -> String {
    match &grant.subject {
        Some(grant::Subject::Identity(name)) => name.clone(),
        Some(grant::Subject::Group(name)) => format!("group {name}"),
        None => String::new(),
    }
}

fn text(grant: &Grant) -> String {
    let conditions = grant.conditions.clone().unwrap_or_default();
    let masks = conditions.masks.iter().map(|mask| format!("{}={}", mask.field, mask.how));
    let span = |seconds| if seconds == 0 { String::new() } else { show_seconds(seconds) };
    fields(&[
        ("id", grant.id.clone()),
        ("for", subject_of(grant)),
        ("action", grant.action.clone()),
        ("resource", grant.resource.clone()),
        ("from networks", conditions.networks.join(", ")),
        ("not before", time(conditions.not_before_ms)),
        ("longest life", span(conditions.max_ttl_s)),
        ("logged in within", span(conditions.max_auth_age_s)),
        ("logged in by", conditions.amr.join(" or ")),
        ("provider's group", conditions.provider_groups.join(" or ")),
        ("masked", masks.collect::<Vec<_>>().join(", ")),
        ("reason", grant.reason.clone()),
        ("ticket", grant.ticket.clone()),
        ("given", by(grant.created_at_ms, &grant.created_by)),
        ("ends", time(grant.expires_at_ms)),
        ("last used", time(grant.last_used_at_ms)),
        ("removed", by(grant.ended_at_ms, &grant.ended_by)),
    ])
}
