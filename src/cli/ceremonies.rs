//! `strongroom ceremony …`

use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::identities::by;
use super::output::{fields, show, show_list, show_next, stream_ended, table, time};
use super::session::{Session, collect, must};
use crate::proto::ceremony_service_client::CeremonyServiceClient as Client;
use crate::proto::{
    ApproveCeremonyRequest, CancelCeremonyRequest, Ceremony, DenyCeremonyRequest, ElevationBasis,
    GetCeremonyRequest, ListCeremoniesRequest, WatchCeremoniesRequest,
};

/// `strongroom ceremony …`
#[derive(Debug, Subcommand)]
pub enum CeremonyCommand {
    /// List ceremonies that wait
    List(List),
    /// Print ceremonies as they change
    Watch,
    /// Show one: exactly what was asked for, and who voted
    Show {
        /// Its id.
        id: String,
    },
    /// Approve what another administrator asked for, exactly as it stands
    Approve(Vote),
    /// Deny what another administrator asked for: that ends it
    Deny(Vote),
    /// Take back what you asked for
    Cancel {
        /// Its id.
        id: String,
    },
}

/// What `ceremony list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those that are over, too.
    #[arg(long)]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// A vote on a ceremony.
#[derive(Debug, Clone, Args)]
pub struct Vote {
    /// Its id.
    id: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Runs `strongroom ceremony …`.
pub(super) async fn run(session: &Session, command: &CeremonyCommand) -> Outcome {
    let ceremony = match command {
        CeremonyCommand::List(args) => return list(session, args).await,
        CeremonyCommand::Watch => return watch(session).await,
        CeremonyCommand::Show { id } => find(session, id).await?,
        CeremonyCommand::Approve(vote) => approve(session, vote).await?,
        CeremonyCommand::Deny(Vote { id, reason }) => {
            let request = DenyCeremonyRequest { id: id.clone(), reason: reason.clone() };
            let denied = session.call_once(request, async |wire, request| {
                Client::new(wire).deny_ceremony(request).await
            });
            must(denied.await?.ceremony)?
        }
        CeremonyCommand::Cancel { id } => {
            let request = CancelCeremonyRequest { id: id.clone() };
            let cancelled = session.call_once(request, async |wire, request| {
                Client::new(wire).cancel_ceremony(request).await
            });
            must(cancelled.await?.ceremony)?
        }
    };
    show(session.format, &ceremony, text)
}

async fn find(session: &Session, id: &str) -> Outcome<Ceremony> {
    let found = session
        .call(GetCeremonyRequest { id: id.to_owned() }, async |wire, request| {
            Client::new(wire).get_ceremony(request).await
        })
        .await?;
    must(found.ceremony)
}

/// Approves what is there now: the hash of what was read binds the approval to it.
async fn approve(session: &Session, vote: &Vote) -> Outcome<Ceremony> {
    let hash = find(session, &vote.id).await?.hash;
    let request = ApproveCeremonyRequest { id: vote.id.clone(), hash, reason: vote.reason.clone() };
    let approved = session
        .call_once(request, async |wire, request| Client::new(wire).approve_ceremony(request).await)
        .await?;
    must(approved.ceremony)
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListCeremoniesRequest { include_over: args.all, page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_ceremonies(request).await)
            .await?;
        Ok((page.ceremonies, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "WHO", "ACTION", "RESOURCES", "STATE", "MISSING", "UNTIL"];
    show_list(session.format, &listed, headers, |one| {
        [
            one.id.clone(),
            one.identity.clone(),
            one.action.clone(),
            one.resources.join(", "),
            one.state.clone(),
            one.missing.to_string(),
            time(one.expires_at_ms),
        ]
    })
}

async fn watch(session: &Session) -> Outcome {
    let request = tonic::Request::new(WatchCeremoniesRequest {});
    let mut stream = Client::new(session.wire()).watch_ceremonies(request).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        let Some(one) = answer.ceremony else { continue };
        let line = [
            time(one.changed_at_ms),
            one.id.clone(),
            one.identity.clone(),
            one.action.clone(),
            one.resources.join(", "),
            one.state.clone(),
        ];
        show_next(session.format, &one, &line)?;
    }
    Err(stream_ended())
}

fn text(one: &Ceremony) -> String {
    let basis = |it: &ElevationBasis| format!("{} {} version {}", it.table, it.id, it.version);
    let mut about = fields(&[
        ("id", one.id.clone()),
        ("who", one.identity.clone()),
        ("action", one.action.clone()),
        ("resources", one.resources.join(", ")),
        ("state", one.state.clone()),
        ("administrators", one.needed.to_string()),
        ("missing", one.missing.to_string()),
        ("stands on", one.stands_on.iter().map(basis).collect::<Vec<_>>().join(", ")),
        ("requested", time(one.requested_at_ms)),
        ("until", time(one.expires_at_ms)),
        ("changed", by(one.changed_at_ms, &one.changed_by)),
        ("hash", one.hash.clone()),
    ]);
    if !one.terms.is_empty() {
        about.push('\n');
        let rows = one.terms.iter().map(|term| [term.name.clone(), term.value.clone()]);
        about.push_str(&table(["ASKED FOR", "AS"], rows));
    }
    if !one.votes.is_empty() {
        about.push('\n');
        let rows = one.votes.iter().map(|vote| {
            let what = if vote.approves { "approved" } else { "denied" };
            [what.to_owned(), by(vote.at_ms, &vote.by), vote.reason.clone()]
        });
        about.push_str(&table(["VOTE", "BY", "REASON"], rows));
    }
    about
}
