//! What the vault says to somebody of itself.

use super::super::system::recovery_notice;
use super::{owner_names, person};
use crate::engines::identities::WhoAmI;
use crate::policy::GrantSubject;
use crate::proto::{self, Notice, Permission, WhoAmIResponse};
use crate::types::RequestContext;
use crate::vault::{EndingSoon, ProvenFactor};

pub(super) fn whoami(ctx: &RequestContext, answer: &WhoAmI) -> WhoAmIResponse {
    let subject = &answer.subject;
    let (owner, owner_group) = owner_names(&subject.owner.name);
    let (row, credential) = (&subject.identity.row, &subject.credential.row);
    let method = ctx.authenticated().map(|caller| caller.method.as_str()).unwrap_or_default();
    let mut permissions: Vec<_> = subject
        .all_grants()
        .map(|held| Permission {
            action: held.row.action.clone(),
            resource: held.row.resource.to_string(),
            expires_at_ms: held.row.expires_at.map_or(0, |end| end.0),
            group: match held.facts().subject {
                GrantSubject::Identity(_) => String::new(),
                GrantSubject::Group(id) => subject
                    .groups
                    .iter()
                    .find(|group| group.row.id == id)
                    .map(|group| group.row.name.to_string())
                    .unwrap_or_default(),
            },
        })
        .collect();
    permissions.sort_by(|a, b| (&a.action, &a.resource).cmp(&(&b.action, &b.resource)));
    WhoAmIResponse {
        id: row.id.to_string(),
        identity: row.name.to_string(),
        kind: row.kind.to_string(),
        owner,
        owner_group,
        person: person(row.person.as_ref()),
        method: method.to_owned(),
        credential_id: credential.id.to_string(),
        credential_expires_at_ms: credential.expires_at.0,
        expires_at_ms: row.expires_at.map_or(0, |end| end.0),
        groups: subject.groups.iter().map(|group| group.row.name.to_string()).collect(),
        administrator: subject.is_administrator(),
        permissions,
        notices: notices(answer),
        auth_time_ms: subject.auth_time().0,
        factors: subject.factors().iter().map(proven).collect(),
        sign_in: subject.signed_in().map(|said| proto::SignIn {
            issuer: said.issuer.clone(),
            sub: said.sub.clone(),
            groups: said.groups.clone(),
            amr: said.amr.clone(),
        }),
    }
}

fn proven(factor: &ProvenFactor) -> proto::ProvenFactor {
    proto::ProvenFactor {
        id: factor.id().to_string(),
        kind: factor.kind().to_string(),
        proven_at_ms: factor.proven_at.0,
    }
}

fn notices(answer: &WhoAmI) -> Vec<Notice> {
    let all = [
        (
            answer.dev,
            "DEVELOPMENT_VAULT",
            "this vault is marked as development for ever; its keys are files",
        ),
        (
            answer.identity_ends_soon,
            "IDENTITY_EXPIRES_SOON",
            "this identity ends soon; ask an administrator to move its end",
        ),
        (
            answer.credential_ends_soon,
            "CREDENTIAL_EXPIRES_SOON",
            "this credential ends soon; get the next one in time",
        ),
    ];
    let told = all.into_iter().filter(|(so, ..)| *so);
    let told = told.map(|(_, code, message)| Notice { code: code.into(), message: message.into() });
    let owned = owned_notice(&answer.owned_end_soon);
    answer.recovery.iter().map(recovery_notice).chain(told).chain(owned).collect()
}

/// Tells an owner which machines end soon.
fn owned_notice(found: &EndingSoon) -> Option<Notice> {
    if found.count == 0 {
        return None;
    }
    let named = found.first.iter().map(|(name, end)| format!("{name} ({end})"));
    let others = match (found.count.saturating_sub(found.first.len()), found.more) {
        (0, _) => String::new(),
        (others, false) => format!(" and {others} more"),
        (others, true) => format!(" and at least {others} more"),
    };
    let message = format!(
        "what you answer for ends soon: {}{others}; ask an administrator to move its end, or let it go",
        named.collect::<Vec<_>>().join(", ")
    );
    Some(Notice { code: "OWNED_EXPIRE_SOON".to_owned(), message })
}
