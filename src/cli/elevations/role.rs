//! `strongroom elevate role …`

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::approvers;
use crate::cli::database::put_text;
use crate::cli::failure::Outcome;
use crate::cli::files::read_json;
use crate::cli::identities::by;
use crate::cli::output::{fields, show, show_list, time};
use crate::cli::session::{Session, collect, must};
use crate::cli::span::{Span, show_seconds};
use crate::proto::elevation_service_client::ElevationServiceClient as Client;
use crate::proto::{
    ConfirmElevationRoleRequest, ElevationRole, ElevationRoleProposal, ElevationStep,
    ElevationWindow, GetElevationRoleRequest, ListElevationRolesRequest, PutElevationRoleRequest,
};
use crate::types::FactorKind;

/// Stands for the owners of what is asked for among the groups of a step.
const OWNERS: &str = "@owners";

/// `strongroom elevate role …`
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Configure a role; a change waits for another administrator and a day
    Put(Box<PutRole>),
    /// Confirm a change that another administrator wants, as it stands
    Confirm {
        /// Its name.
        name: String,
    },
    /// Show one role
    Show {
        /// Its name.
        name: String,
    },
    /// List roles
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
}

/// What `elevate role put` takes.
#[derive(Debug, Clone, Args)]
pub struct PutRole {
    /// Its name: one segment of a-z 0-9 . _ -.
    name: String,
    /// What it is for.
    #[arg(long)]
    purpose: Option<String>,
    /// An identity that may ask; may be repeated.
    #[arg(long, value_name = "NAME")]
    requester: Vec<String>,
    /// A group whose members may ask; may be repeated.
    #[arg(long, value_name = "GROUP")]
    requester_group: Vec<String>,
    /// What may be asked for, like 'database/analytics/*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    resource: Vec<String>,
    /// An action that it allows, like database.credentials or 'database.*'; may be repeated.
    #[arg(long)]
    action: Vec<String>,
    /// How long an elevation lasts where nobody says; an hour by default.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    /// How long it lasts at most, up to 8h; as --for by default.
    #[arg(long, value_name = "SPAN")]
    max: Option<Span>,
    /// A step of approval: how many of which groups, like 2:security,dba or 1:@owners; may be
    /// repeated, and the steps come one after the other.
    #[arg(long, value_name = "N:GROUPS", value_parser = step)]
    step: Vec<ElevationStep>,
    /// How many denials end a request; one by default.
    #[arg(long, value_name = "N")]
    denials: Option<u32>,
    /// Who asks has to say why.
    #[arg(long)]
    reason_required: bool,
    /// What a ticket looks like, with # for digits, like OPS-#.
    #[arg(long, value_name = "PATTERN")]
    ticket: Option<String>,
    /// A change window in UTC, like '22:00-04:00' or 'mon,tue 22:00-04:00'; may be repeated.
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    window: Vec<ElevationWindow>,
    /// It is for emergencies: nobody approves it beforehand.
    #[arg(long)]
    break_glass: bool,
    /// A group that reviews what was done in an emergency, or under --standing; may be repeated.
    #[arg(long, value_name = "GROUP")]
    reviewer_group: Vec<String>,
    /// A kind of factor of which one has to be proven to ask; may be repeated.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    factor_to_ask: Vec<String>,
    /// The same, to approve; any where it is left out.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    factor_to_approve: Vec<String>,
    /// The same, to activate.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    factor_to_activate: Vec<String>,
    /// An elevated call may make what stands by itself: grants, enrolments, roles; it is reviewed.
    #[arg(long)]
    standing: bool,
    /// Take the rest from what `elevate role show --output json` printed; `-` for standard input.
    /// Flags win.
    #[arg(long, value_name = "FILE")]
    from_json: Option<PathBuf>,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(FactorKind::ALL.iter().map(|kind| kind.as_str()))
}

fn step(text: &str) -> Result<ElevationStep, String> {
    let malformed = || "a step is like 2:security,dba or 1:@owners".to_owned();
    let (number, groups) = text.split_once(':').ok_or_else(malformed)?;
    let approvals = number.parse().map_err(|_not_a_number| malformed())?;
    let all: Vec<_> = groups.split(',').filter(|group| !group.is_empty()).collect();
    Ok(ElevationStep {
        approvals,
        owners: all.contains(&OWNERS),
        groups: all.into_iter().filter(|group| *group != OWNERS).map(str::to_owned).collect(),
    })
}

fn window(text: &str) -> Result<ElevationWindow, String> {
    let malformed = || "a window is like '22:00-04:00' or 'mon,tue 22:00-04:00'".to_owned();
    let (days, span) = text.split_once(' ').unwrap_or(("", text));
    let (from, to) = span.split_once('-').ok_or_else(malformed)?;
    let days = days.split(',').filter(|day| !day.is_empty()).map(str::to_owned).collect();
    Ok(ElevationWindow { days, from: from.to_owned(), to: to.to_owned() })
}

/// Runs `strongroom elevate role …`.
pub(super) async fn run(session: &Session, command: &RoleCommand) -> Outcome {
    match command {
        RoleCommand::Put(args) => put(session, args).await,
        RoleCommand::Show { name } => {
            let request = GetElevationRoleRequest { name: name.clone() };
            let found = session
                .call(request, async |wire, request| Client::new(wire).get_role(request).await)
                .await?;
            let (role, proposal) = (must(found.role)?, found.proposal);
            show(session.format, &role, |role| both(role, proposal.as_ref()))
        }
        RoleCommand::Confirm { name } => confirm(session, name).await,
        RoleCommand::List { limit } => list(session, *limit).await,
    }
}

async fn put(session: &Session, args: &PutRole) -> Outcome {
    let was: ElevationRole =
        args.from_json.as_deref().map(read_json).transpose()?.unwrap_or_default();
    let role = ElevationRole {
        name: args.name.clone(),
        purpose: args.purpose.clone().unwrap_or(was.purpose),
        requesters: or(&args.requester, was.requesters),
        requester_groups: or(&args.requester_group, was.requester_groups),
        resources: or(&args.resource, was.resources),
        actions: or(&args.action, was.actions),
        default_ttl_s: args.span.map_or(was.default_ttl_s, Span::seconds),
        max_ttl_s: args.max.map_or(was.max_ttl_s, Span::seconds),
        steps: or(&args.step, was.steps),
        denials: args.denials.unwrap_or(was.denials),
        reason_required: args.reason_required || was.reason_required,
        ticket_pattern: args.ticket.clone().unwrap_or(was.ticket_pattern),
        windows: or(&args.window, was.windows),
        standing: args.standing || was.standing,
        break_glass: args.break_glass || was.break_glass,
        reviewer_groups: or(&args.reviewer_group, was.reviewer_groups),
        factors_to_ask: or(&args.factor_to_ask, was.factors_to_ask),
        factors_to_approve: or(&args.factor_to_approve, was.factors_to_approve),
        factors_to_activate: or(&args.factor_to_activate, was.factors_to_activate),
        ..Default::default()
    };
    let stored = session
        .call(PutElevationRoleRequest { role: Some(role) }, async |wire, request| {
            Client::new(wire).put_role(request).await
        })
        .await?;
    let (changed, proposal) = (stored.changed, stored.proposal);
    show(session.format, &must(stored.role)?, |role| {
        put_text(changed, &both(role, proposal.as_ref()))
    })
}

/// Confirms what is there now.
async fn confirm(session: &Session, name: &str) -> Outcome {
    let request = GetElevationRoleRequest { name: name.to_owned() };
    let found = session
        .call(request, async |wire, request| Client::new(wire).get_role(request).await)
        .await?;
    let (name, version) = (name.to_owned(), must(found.role)?.version);
    let confirmed = session
        .call_once(ConfirmElevationRoleRequest { name, version }, async |wire, request| {
            Client::new(wire).confirm_role(request).await
        })
        .await?;
    let proposal = confirmed.proposal;
    show(session.format, &must(confirmed.role)?, |role| both(role, proposal.as_ref()))
}

/// Shows a role, and what it is to say.
fn both(role: &ElevationRole, proposal: Option<&ElevationRoleProposal>) -> String {
    let Some(wanted) = proposal else { return text(role) };
    let when = fields(&[
        ("wanted", by(wanted.proposed_at_ms, &wanted.proposed_by)),
        ("confirmed by", wanted.confirmed_by.clone()),
        ("takes effect", time(wanted.effective_at_ms)),
    ]);
    let said = wanted.role.as_ref().map(text).unwrap_or_default();
    format!("{}\nit is to say:\n{when}{said}", text(role))
}

fn or<T: Clone>(given: &[T], was: Vec<T>) -> Vec<T> {
    if given.is_empty() { was } else { given.to_vec() }
}

async fn list(session: &Session, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListElevationRolesRequest { page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_roles(request).await)
            .await?;
        Ok((page.roles, page.next_page_token))
    })
    .await?;
    let headers = ["ROLE", "PURPOSE", "WHO MAY ASK", "RESOURCES", "AT MOST", "APPROVED BY"];
    show_list(session.format, &listed, headers, |role| {
        [
            role.name.clone(),
            role.purpose.clone(),
            requesters(role),
            role.resources.join(", "),
            show_seconds(role.max_ttl_s),
            steps(role),
        ]
    })
}

fn requesters(role: &ElevationRole) -> String {
    let groups = role.requester_groups.iter().map(|group| format!("group {group}"));
    role.requesters.iter().cloned().chain(groups).collect::<Vec<_>>().join(", ")
}

fn steps(role: &ElevationRole) -> String {
    role.steps.iter().map(approvers).collect::<Vec<_>>().join(", then ")
}

fn text(role: &ElevationRole) -> String {
    let windows = role
        .windows
        .iter()
        .map(|it| format!("{} {}-{}", it.days.join(","), it.from, it.to).trim_start().to_owned());
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    fields(&[
        ("name", role.name.clone()),
        ("purpose", role.purpose.clone()),
        ("who may ask", requesters(role)),
        ("resources", role.resources.join(", ")),
        ("actions", role.actions.join(", ")),
        ("for", show_seconds(role.default_ttl_s)),
        ("at most", show_seconds(role.max_ttl_s)),
        ("approved by", steps(role)),
        ("denials that end it", role.denials.to_string()),
        ("reason required", yes(role.reason_required)),
        ("ticket", role.ticket_pattern.clone()),
        ("windows", windows.collect::<Vec<_>>().join("; ")),
        ("makes what stands", yes(role.standing)),
        ("for emergencies", yes(role.break_glass)),
        ("reviewed by", role.reviewer_groups.join(", ")),
        ("factors to ask", role.factors_to_ask.join(" or ")),
        ("factors to approve", any(&role.factors_to_approve)),
        ("factors to activate", role.factors_to_activate.join(" or ")),
        ("version", role.version.to_string()),
        ("created", by(role.created_at_ms, &role.created_by)),
        ("changed", by(role.changed_at_ms, &role.changed_by)),
    ])
}

/// Names kinds of factors of which one has to be proven in any case.
fn any(kinds: &[String]) -> String {
    if kinds.is_empty() { "any".to_owned() } else { kinds.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_windows_are_read() {
        let both = step("2:security,@owners").unwrap();
        assert_eq!((both.approvals, both.groups, both.owners), (2, vec!["security".into()], true));
        for bad in ["", "security", "x:security", "-1:security"] {
            assert!(step(bad).is_err(), "{bad:?}");
        }
        let night = window("fri,sat 22:00-04:00").unwrap();
        assert_eq!(
            (night.days.len(), night.from.as_str(), night.to.as_str()),
            (2, "22:00", "04:00")
        );
        assert!(window("22:00-04:00").unwrap().days.is_empty());
        assert!(window("22:00").is_err());
    }
}
