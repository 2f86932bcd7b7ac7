//! `GroupService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::retry;
use crate::engines::groups::{
    AddMember, CreateGroup, DescribedGroup, DescribedMember, ListGroups, RemoveMember, ShowGroup,
};
use crate::error::Error;
use crate::proto::group_service_server::GroupService;
use crate::proto::{
    AddMemberRequest, AddMemberResponse, CreateGroupRequest, CreateGroupResponse, GetGroupRequest,
    GetGroupResponse, Group, ListGroupsRequest, ListGroupsResponse, Member, RemoveMemberRequest,
    RemoveMemberResponse,
};

/// Serves groups.
#[derive(Debug, Clone)]
pub(super) struct Groups(pub(super) Gate);

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, create(&request))?;
        let created = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(CreateGroupResponse { group: Some(group(created)) }))
    }

    async fn get_group(
        &self,
        request: Request<GetGroupRequest>,
    ) -> Result<Response<GetGroupResponse>, Status> {
        let (ctx, GetGroupRequest { name, page_size, page_token }) = self.0.accept(request).await?;
        let name = self.0.read(&ctx, name.parse())?;
        let op = ShowGroup { name, page_size, page_token };
        let page = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetGroupResponse {
            group: Some(group(page.group)),
            members: page.members.into_iter().map(member).collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let (ctx, ListGroupsRequest { page_size, page_token }) = self.0.accept(request).await?;
        let op = ListGroups { page_size, page_token };
        let (groups, next_page_token) = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let groups = groups.into_iter().map(group).collect();
        Ok(Response::new(ListGroupsResponse { groups, next_page_token }))
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<AddMemberResponse>, Status> {
        let (ctx, AddMemberRequest { group, identity }) = self.0.accept(request).await?;
        let group = self.0.read(&ctx, group.parse())?;
        let op = AddMember { group, identity: self.0.read(&ctx, identity.parse())? };
        let done = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let (member, added) = (Some(member(done.member)), done.added);
        Ok(Response::new(AddMemberResponse { member, added }))
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        let (ctx, RemoveMemberRequest { group, identity }) = self.0.accept(request).await?;
        let group = self.0.read(&ctx, group.parse())?;
        let op = RemoveMember { group, identity: self.0.read(&ctx, identity.parse())? };
        let removed = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveMemberResponse { removed }))
    }
}

fn create(request: &CreateGroupRequest) -> Result<CreateGroup, Error> {
    Ok(CreateGroup {
        name: request.name.parse()?,
        purpose: request.purpose.clone(),
        retry: retry(&request.idempotency_key, request)?,
    })
}

fn group(described: DescribedGroup) -> Group {
    let row = described.group.row;
    Group {
        id: row.id.to_string(),
        name: row.name.to_string(),
        purpose: row.purpose,
        created_at_ms: row.created_at.0,
        created_by: described.created_by,
        changed_at_ms: row.changed_at.0,
        changed_by: described.changed_by,
    }
}

fn member(described: DescribedMember) -> Member {
    Member {
        identity: described.identity.to_string(),
        added_at_ms: described.added_at.0,
        added_by: described.added_by,
    }
}
