//! `strongroom group …`

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Outcome;
use super::identities::by;
use super::output::{fields, note, show, show_list, table, time};
use super::session::{Session, collect, idempotency_key, must};
use crate::proto::group_service_client::GroupServiceClient as Client;
use crate::proto::{
    AddMemberRequest, CreateGroupRequest, GetGroupRequest, Group, ListGroupsRequest, Member,
    RemoveMemberRequest,
};

/// `strongroom group …`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Create an empty group
    Create {
        /// Its name: one segment of a-z 0-9 . _ -.
        name: String,
        /// What it is there for.
        #[arg(long, default_value = "")]
        purpose: String,
    },
    /// Show a group and its members
    Show {
        /// Its name.
        name: String,
        /// How many members at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// List groups
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Put an identity into a group
    Add(Membership),
    /// Take an identity out of a group
    Remove(Membership),
}

/// A group and an identity.
#[derive(Debug, Clone, Args)]
pub struct Membership {
    /// The name of the group.
    group: String,
    /// The name of the identity.
    identity: String,
}

/// Runs `strongroom group …`.
pub(super) async fn run(session: &Session, command: &GroupCommand) -> Outcome {
    match command {
        GroupCommand::Create { name, purpose } => create(session, name, purpose).await,
        GroupCommand::Show { name, limit } => show_group(session, name, *limit).await,
        GroupCommand::List { limit } => list(session, *limit).await,
        GroupCommand::Add(args) => add(session, args).await,
        GroupCommand::Remove(args) => remove(session, args).await,
    }
}

async fn create(session: &Session, name: &str, purpose: &str) -> Outcome {
    let request = CreateGroupRequest {
        idempotency_key: idempotency_key()?,
        name: name.into(),
        purpose: purpose.into(),
    };
    let created = session
        .call(request, async |wire, request| Client::new(wire).create_group(request).await)
        .await?;
    show(session.format, &must(created.group)?, text)
}

async fn show_group(session: &Session, name: &str, limit: usize) -> Outcome {
    let page = async |page_size, page_token| {
        let request = GetGroupRequest { name: name.into(), page_size, page_token };
        session
            .call(request, async |wire, request| Client::new(wire).get_group(request).await)
            .await
    };
    let group = must(page(1, String::new()).await?.group)?;
    let members = collect(limit, async |page_size, page_token| {
        let found = page(page_size, page_token).await?;
        Ok((found.members, found.next_page_token))
    })
    .await?;
    show(session.format, &json!({ "group": group, "members": members.items }), |_| {
        let row =
            |member: &Member| [member.identity.clone(), by(member.added_at_ms, &member.added_by)];
        let rows = members.items.iter().map(row);
        format!("{}\n{}", text(&group), table(["MEMBER", "ADDED"], rows))
    })?;
    if members.more {
        note("there are more; raise --limit to see them");
    }
    Ok(())
}

async fn list(session: &Session, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListGroupsRequest { page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_groups(request).await)
            .await?;
        Ok((page.groups, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, ["NAME", "PURPOSE", "CREATED"], |group| {
        let created = by(group.created_at_ms, &group.created_by);
        [group.name.clone(), group.purpose.clone(), created]
    })
}

async fn add(session: &Session, args: &Membership) -> Outcome {
    let (group, identity) = (args.group.clone(), args.identity.clone());
    let answer = session
        .call(AddMemberRequest { group, identity }, async |wire, request| {
            Client::new(wire).add_member(request).await
        })
        .await?;
    show(session.format, &answer, |answer| {
        let how = if answer.added { "added" } else { "was in it already" };
        fields(&[
            ("group", args.group.clone()),
            ("member", args.identity.clone()),
            ("done", how.into()),
            ("added", answer.member.as_ref().map_or_else(String::new, |m| time(m.added_at_ms))),
        ])
    })
}

async fn remove(session: &Session, args: &Membership) -> Outcome {
    let (group, identity) = (args.group.clone(), args.identity.clone());
    let answer = session
        .call(RemoveMemberRequest { group, identity }, async |wire, request| {
            Client::new(wire).remove_member(request).await
        })
        .await?;
    show(session.format, &answer, |answer| {
        let how = if answer.removed { "removed" } else { "was not in it" };
        fields(&[
            ("group", args.group.clone()),
            ("identity", args.identity.clone()),
            ("done", how.into()),
        ])
    })
}

fn text(group: &Group) -> String {
    fields(&[
        ("name", group.name.clone()),
        ("id", group.id.clone()),
        ("purpose", group.purpose.clone()),
        ("created", by(group.created_at_ms, &group.created_by)),
        ("changed", by(group.changed_at_ms, &group.changed_by)),
    ])
}
