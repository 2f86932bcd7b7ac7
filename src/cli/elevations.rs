//! `strongroom elevate …`

mod role;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::failure::{Exit, Failure, Outcome};
use super::identities::by;
use super::output::{fields, show, show_list, show_next, stream_ended, table, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default, show_seconds};
use crate::proto::elevation_service_client::ElevationServiceClient as Client;
use crate::proto::{
    ActivateElevationRequest, ApproveElevationRequest, DenyElevationRequest, Elevation,
    ElevationBasis, ElevationStep, ExtendElevationRequest, GetElevationRequest,
    ListElevationsRequest, RequestElevationRequest, ReviewElevationRequest, RevokeElevationRequest,
    WatchElevationsRequest, WithdrawElevationRequest,
};
use crate::types::{Clock as _, ElevationState, SystemClock};

/// `strongroom elevate …`
#[derive(Debug, Subcommand)]
pub enum ElevateCommand {
    /// Configure who may ask for what, and who approves it
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Ask for rights for a time
    Request(Request),
    /// List elevations that concern you: yours, and those that you may approve
    List(List),
    /// Print elevations that concern you as they change
    Watch,
    /// Show one: what was asked for, who approved it, what happens next
    Show {
        /// Its id.
        id: String,
    },
    /// Approve what somebody else asked for, as it stands, or for a shorter time
    Approve {
        /// Its id.
        id: String,
        /// How long it may last at the most; as asked for where it is left out.
        #[arg(long = "for", value_name = "SPAN")]
        span: Option<Span>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Deny what somebody else asked for
    Deny {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take a request back
    Withdraw {
        /// Its id.
        id: String,
    },
    /// Put what was approved in force: its time runs from here
    Activate {
        /// Its id.
        id: String,
    },
    /// End an elevation before its time, with everything made under it; give your own back
    Revoke {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Review what was done in an emergency, or could make something that stands
    Review {
        /// Its id.
        id: String,
        /// What you found.
        #[arg(long, value_parser = PossibleValuesParser::new(["accepted", "violation"]))]
        verdict: String,
        /// In words.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Ask for more time of an elevation in force; it is approved anew
    Extend {
        /// Its id.
        id: String,
        /// How much more; the role's usual time where it is left out.
        #[arg(long = "for", value_name = "SPAN")]
        span: Option<Span>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
        /// The ticket that asks for it.
        #[arg(long, default_value = "")]
        ticket: String,
    },
}

/// What `elevate request` takes.
#[derive(Debug, Clone, Args)]
pub struct Request {
    /// The role; `elevate role list` shows them.
    #[arg(long)]
    role: String,
    /// A resource, like database/analytics/admin or 'database/analytics/*'; may be repeated.
    #[arg(long, value_name = "PATTERN", required = true)]
    resource: Vec<String>,
    /// How long; the role's usual time where it is left out.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
    /// The ticket that asks for it.
    #[arg(long, default_value = "")]
    ticket: String,
    /// From when on it may be activated, for an hour: HH:MM in UTC, the next time that it comes.
    #[arg(long, value_name = "HH:MM", value_parser = minutes)]
    start: Option<i64>,
}

/// What `elevate list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only those in this state.
    #[arg(long, value_parser = states())]
    state: Option<String>,
    /// Those that are over, too.
    #[arg(long)]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(ElevationState::ALL.iter().map(|state| state.as_str()))
}

/// Reads a time of day, in minutes.
fn minutes(text: &str) -> Result<i64, String> {
    let malformed = || "a time of day is like 22:00, in UTC".to_owned();
    let two = |text: &str, most: i64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|number| digits && *number < most);
        number.ok_or_else(malformed)
    };
    let (hours, minutes) = text.split_once(':').ok_or_else(malformed)?;
    Ok(two(hours, 24)? * 60 + two(minutes, 60)?)
}

/// When a time of day comes next, in Unix milliseconds; 0 for none.
fn next(minutes: Option<i64>, now_ms: i64) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    minutes.map_or(0, |minutes| {
        let today = now_ms.div_euclid(DAY_MS) * DAY_MS + minutes * 60_000;
        if today > now_ms { today } else { today.saturating_add(DAY_MS) }
    })
}

/// Runs `strongroom elevate …`.
pub(super) async fn run(session: &Session, command: &ElevateCommand) -> Outcome {
    let elevation = match command {
        ElevateCommand::Role(command) => return role::run(session, command).await,
        ElevateCommand::List(args) => return list(session, args).await,
        ElevateCommand::Watch => return watch(session).await,
        ElevateCommand::Request(args) => request(session, args).await?,
        ElevateCommand::Show { id } => find(session, id).await?,
        ElevateCommand::Approve { id, span, reason } => approve(session, id, *span, reason).await?,
        ElevateCommand::Deny { id, reason } => {
            let request = DenyElevationRequest { id: id.clone(), reason: reason.clone() };
            let denied = session.call_once(request, async |wire, request| {
                Client::new(wire).deny_elevation(request).await
            });
            must(denied.await?.elevation)?
        }
        ElevateCommand::Withdraw { id } => {
            let request = WithdrawElevationRequest { id: id.clone() };
            let withdrawn = session.call_once(request, async |wire, request| {
                Client::new(wire).withdraw_elevation(request).await
            });
            must(withdrawn.await?.elevation)?
        }
        ElevateCommand::Activate { id } => activate(session, id).await?,
        ElevateCommand::Revoke { id, reason } => {
            let request = RevokeElevationRequest { id: id.clone(), reason: reason.clone() };
            let revoked = session.call(request, async |wire, request| {
                Client::new(wire).revoke_elevation(request).await
            });
            must(revoked.await?.elevation)?
        }
        ElevateCommand::Review { id, verdict, note } => {
            let request = ReviewElevationRequest {
                id: id.clone(),
                verdict: verdict.clone(),
                note: note.clone(),
            };
            let reviewed = session.call_once(request, async |wire, request| {
                Client::new(wire).review_elevation(request).await
            });
            must(reviewed.await?.elevation)?
        }
        ElevateCommand::Extend { id, span, reason, ticket } => {
            let request = ExtendElevationRequest {
                idempotency_key: idempotency_key()?,
                id: id.clone(),
                ttl_s: seconds_or_default(*span),
                reason: reason.clone(),
                ticket: ticket.clone(),
            };
            let asked = session.call(request, async |wire, request| {
                Client::new(wire).extend_elevation(request).await
            });
            must(asked.await?.elevation)?
        }
    };
    show(session.format, &elevation, text)
}

async fn request(session: &Session, args: &Request) -> Outcome<Elevation> {
    let request = RequestElevationRequest {
        idempotency_key: idempotency_key()?,
        role: args.role.clone(),
        resources: args.resource.clone(),
        ttl_s: seconds_or_default(args.span),
        reason: args.reason.clone(),
        ticket: args.ticket.clone(),
        start_ms: next(args.start, SystemClock.now().0),
    };
    let asked = session
        .call(request, async |wire, request| Client::new(wire).request_elevation(request).await)
        .await?;
    must(asked.elevation)
}

async fn find(session: &Session, id: &str) -> Outcome<Elevation> {
    let found = session
        .call(GetElevationRequest { id: id.to_owned() }, async |wire, request| {
            Client::new(wire).get_elevation(request).await
        })
        .await?;
    must(found.elevation)
}

/// Approves what is there now: the hash of what was read binds the approval to it.
async fn approve(
    session: &Session,
    id: &str,
    span: Option<Span>,
    reason: &str,
) -> Outcome<Elevation> {
    let seen = find(session, id).await?;
    let request = ApproveElevationRequest {
        id: id.to_owned(),
        scope_hash: seen.scope_hash,
        ttl_s: seconds_or_default(span),
        reason: reason.to_owned(),
    };
    let approved = session
        .call_once(request, async |wire, request| {
            Client::new(wire).approve_elevation(request).await
        })
        .await?;
    must(approved.elevation)
}

async fn activate(session: &Session, id: &str) -> Outcome<Elevation> {
    let request = ActivateElevationRequest { id: id.to_owned() };
    let answer = session
        .call_once(request, async |wire, request| {
            Client::new(wire).activate_elevation(request).await
        })
        .await?;
    let elevation = must(answer.elevation)?;
    if elevation.state == ElevationState::ActivationFailed.as_str() {
        let why = format!("the activation failed: {}", elevation.why);
        return Err(Failure::new(Exit::Invalid, why).hint("ask again with `elevate request`"));
    }
    Ok(elevation)
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListElevationsRequest {
            page_size,
            page_token,
            state: args.state.clone().unwrap_or_default(),
            include_over: args.all,
        };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_elevations(request).await)
            .await?;
        Ok((page.elevations, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "WHO", "ROLE", "RESOURCES", "STATE", "FOR", "ENDS"];
    show_list(session.format, &listed, headers, |one| {
        [
            one.id.clone(),
            one.identity.clone(),
            one.role.clone(),
            one.resources.join(", "),
            one.state.clone(),
            show_seconds(one.ttl_s),
            time(one.ends_at_ms),
        ]
    })
}

async fn watch(session: &Session) -> Outcome {
    let request = tonic::Request::new(WatchElevationsRequest {});
    let mut stream = Client::new(session.wire()).watch_elevations(request).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        let Some(one) = answer.elevation else { continue };
        let line = [
            time(one.changed_at_ms),
            one.id.clone(),
            one.identity.clone(),
            one.role.clone(),
            one.state.clone(),
            one.why.clone(),
        ];
        show_next(session.format, &one, &line)?;
    }
    Err(stream_ended())
}

/// Shows who approves in a step.
fn approvers(step: &ElevationStep) -> String {
    let mut who: Vec<_> = step.groups.iter().map(|group| format!("group {group}")).collect();
    if step.owners {
        who.push("the owners".to_owned());
    }
    format!("{} of {}", step.approvals, who.join(", "))
}

fn text(one: &Elevation) -> String {
    let steps: Vec<_> = one.steps.iter().map(approvers).collect();
    let turn = match one.step {
        0 => String::new(),
        step => step.to_string(),
    };
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    let basis = |it: &ElevationBasis| format!("{} {} version {}", it.table, it.id, it.version);
    let about = fields(&[
        ("id", one.id.clone()),
        ("who", one.identity.clone()),
        ("role", one.role.clone()),
        ("state", one.state.clone()),
        ("because", one.why.clone()),
        ("resources", one.resources.join(", ")),
        ("actions", one.actions.join(", ")),
        ("for", show_seconds(one.ttl_s)),
        ("reason", one.reason.clone()),
        ("ticket", one.ticket.clone()),
        ("prolongs", one.extends.clone()),
        ("makes what stands", yes(one.standing)),
        ("for emergencies", yes(one.break_glass)),
        ("stands on", one.stands_on.iter().map(basis).collect::<Vec<_>>().join(", ")),
        ("approved by", steps.join(", then ")),
        ("step", turn),
        ("requested", time(one.requested_at_ms)),
        ("starts", time(one.starts_at_ms)),
        ("activated", time(one.activated_at_ms)),
        ("ends", time(one.ends_at_ms)),
        ("next", time(one.next_at_ms)),
        ("changed", by(one.changed_at_ms, &one.changed_by)),
        ("to be reviewed by", time(one.review_due_at_ms)),
        ("reviewed", by(one.reviewed_at_ms, &one.reviewed_by)),
        ("review", format!("{} {}", one.review_verdict, one.review_note).trim().to_owned()),
        ("hash", one.scope_hash.clone()),
    ]);
    if one.votes.is_empty() {
        return about;
    }
    let rows = one.votes.iter().map(|vote| {
        let what = if vote.approves { "approved" } else { "denied" };
        [
            what.to_owned(),
            by(vote.at_ms, &vote.by),
            vote.step.to_string(),
            show_seconds(vote.ttl_s),
            vote.reason.clone(),
        ]
    });
    format!("{about}\n{}", table(["VOTE", "BY", "STEP", "FOR", "REASON"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one() {
        const NOON_MS: i64 = 43_200_000;
        assert_eq!(minutes("22:00"), Ok(1_320));
        for bad in ["", "22", "24:00", "22:60", "2:00", "+2:00", "22:00:00", "22:0"] {
            assert!(minutes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(next(Some(1_320), NOON_MS), 79_200_000);
        assert_eq!(next(Some(60), NOON_MS), 86_400_000 + 3_600_000);
        assert_eq!(next(None, NOON_MS), 0);
    }
}
