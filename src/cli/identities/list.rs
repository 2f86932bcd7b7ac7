//! `strongroom identity list`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::show::owner;
use super::{KINDS, TIERS, label};
use crate::cli::failure::Outcome;
use crate::cli::output::{show_list, time};
use crate::cli::session::{Session, collect};
use crate::cli::span::{Span, seconds_or_default};
use crate::proto::ListIdentitiesRequest;
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::types::{Clock as _, SystemClock};

const STATES: [&str; 4] = ["registered", "active", "suspended", "retired"];

/// What `identity list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Only those of this human.
    #[arg(long)]
    owner: Option<String>,
    /// Only those of this group.
    #[arg(long, value_name = "GROUP", conflicts_with = "owner")]
    owner_group: Option<String>,
    /// Only those with this label, KEY=VALUE; with all of them where there are several.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only the accounts of this person.
    #[arg(long)]
    person: Option<String>,
    /// Only names that begin so.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only those whose name, purpose, needs or labels hold this text, whatever its case.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those that end within this span from now, like 14d.
    #[arg(long, value_name = "SPAN")]
    expiring_before: Option<Span>,
    /// Only those that were allowed nothing for this long, like 30d.
    #[arg(long, value_name = "SPAN")]
    unused_since: Option<Span>,
    /// Only those whom nobody active answers for.
    #[arg(long)]
    orphaned: bool,
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Only those of this tier.
    #[arg(long, value_parser = PossibleValuesParser::new(TIERS))]
    tier: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

impl List {
    fn request(&self, page_size: i32, page_token: String, now_ms: i64) -> ListIdentitiesRequest {
        let ms = |span: Span| seconds_or_default(Some(span)).saturating_mul(1_000);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ListIdentitiesRequest {
            page_size,
            page_token,
            kind: text(&self.kind),
            owner: text(&self.owner),
            owner_group: text(&self.owner_group),
            state: text(&self.state),
            tier: text(&self.tier),
            labels: self.labels.iter().cloned().collect(),
            person: text(&self.person),
            prefix: text(&self.prefix),
            expiring_before_ms: self
                .expiring_before
                .map_or(0, |span| now_ms.saturating_add(ms(span))),
            unused_since_ms: self
                .unused_since
                .map_or(0, |span| now_ms.saturating_sub(ms(span)).max(1)),
            orphaned: self.orphaned,
            search: text(&self.search),
        }
    }
}

/// Lists identities; the moment of a span is the same on all pages.
pub(super) async fn list(session: &Session, args: &List) -> Outcome {
    let now_ms = SystemClock.now().0;
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = args.request(page_size, page_token, now_ms);
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_identities(request).await)
            .await?;
        Ok((page.identities, page.next_page_token))
    })
    .await?;
    let headers = ["NAME", "KIND", "OWNER", "TIER", "STATE", "ENDS", "LAST USED", "PURPOSE"];
    show_list(session.format, &listed, headers, |identity| {
        [
            identity.name.clone(),
            identity.kind.clone(),
            owner(&identity.owner, &identity.owner_group),
            identity.tier.clone(),
            identity.state.clone(),
            time(identity.expires_at_ms),
            time(identity.last_used_at_ms),
            identity.purpose.clone(),
        ]
    })
}
