//! Identities as people read them.

use crate::cli::failure::Outcome;
use crate::cli::output::{fields, show, table, time};
use crate::cli::session::Session;
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{Identity, ProvenFactor, SignIn, WhoAmIRequest, WhoAmIResponse};

/// Shows who the caller is.
pub(in crate::cli) async fn whoami(session: &Session) -> Outcome {
    let me = session
        .call(WhoAmIRequest {}, async |wire, request| Client::new(wire).who_am_i(request).await)
        .await?;
    show(session.format, &me, whoami_text)
}

fn whoami_text(me: &WhoAmIResponse) -> String {
    let administrator = if me.administrator { "yes: every administrative action" } else { "" };
    let factor = |one: &ProvenFactor| format!("{} proven {}", one.kind, time(one.proven_at_ms));
    let factors = me.factors.iter().map(factor).collect::<Vec<_>>().join(", ");
    let signed_in = me.sign_in.as_ref().map(signed_in).unwrap_or_default();
    let mut text = fields(&[
        ("identity", me.identity.clone()),
        ("kind", me.kind.clone()),
        ("owner", owner(&me.owner, &me.owner_group)),
        ("person", me.person.clone()),
        ("method", me.method.clone()),
        ("credential", me.credential_id.clone()),
        ("credential ends", time(me.credential_expires_at_ms)),
        ("factors", factors),
        ("last seen to be you", time(me.auth_time_ms)),
        ("signed in by", signed_in),
        ("identity ends", time(me.expires_at_ms)),
        ("groups", me.groups.join(", ")),
        ("administrator", administrator.into()),
    ]);
    text.push('\n');
    if me.permissions.is_empty() {
        text.push_str("no grants\n");
    } else {
        let rows = me.permissions.iter().map(|may| {
            let through = may.group.clone();
            [may.action.clone(), may.resource.clone(), through, time(may.expires_at_ms)]
        });
        text.push_str(&table(["MAY", "ON", "THROUGH GROUP", "ENDS"], rows));
    }
    for notice in &me.notices {
        text.push('\n');
        text.push_str(&fields(&[("notice", notice.message.clone())]));
    }
    text
}

/// Writes what a provider said of the caller.
fn signed_in(said: &SignIn) -> String {
    let mut text = format!("{} as {}", said.issuer, said.sub);
    for (what, all) in [("by", &said.amr), ("in", &said.groups)] {
        if !all.is_empty() {
            text.extend([", ", what, " ", &all.join(", ")]);
        }
    }
    text
}

/// Writes who answers for an identity: a human, or a group.
pub(super) fn owner(human: &str, group: &str) -> String {
    if group.is_empty() { human.to_owned() } else { format!("group {group}") }
}

pub(super) fn text(identity: &Identity) -> String {
    let nobody = if identity.owner_active { "" } else { " (not active)" };
    let owner_text = owner(&identity.owner, &identity.owner_group);
    let former = identity.former_owners.iter().map(|former| {
        let until = time(former.until_ms);
        format!("{} until {until}", owner(&former.owner, &former.owner_group))
    });
    let labels = identity.labels.iter().map(|(key, value)| format!("{key}={value}"));
    fields(&[
        ("name", identity.name.clone()),
        ("id", identity.id.clone()),
        ("kind", identity.kind.clone()),
        ("owner", format!("{owner_text}{nobody}")),
        ("owned before by", former.collect::<Vec<_>>().join(", ")),
        ("person", identity.person.clone()),
        ("purpose", identity.purpose.clone()),
        ("needs", identity.needs.clone()),
        ("labels", labels.collect::<Vec<_>>().join(", ")),
        ("tier", identity.tier.clone()),
        ("state", identity.state.clone()),
        ("groups", identity.groups.join(", ")),
        ("ends", time(identity.expires_at_ms)),
        ("last used", time(identity.last_used_at_ms)),
        ("registered", by(identity.created_at_ms, &identity.created_by)),
        ("changed", by(identity.changed_at_ms, &identity.changed_by)),
    ])
}

/// Writes when something was done and by whom; nothing where it was not.
pub(in crate::cli) fn by(at_ms: i64, who: &str) -> String {
    match (time(at_ms), who) {
        (at, _) if at.is_empty() => at,
        (at, "") => at,
        (at, who) => format!("{at} by {who}"),
    }
}
