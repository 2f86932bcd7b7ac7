//! `GrantService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, retry, span};
use crate::engines::grants::{
    AddGrant, DescribedGrant, GrantTo, ListGrants, RemoveGrant, ShowGrant,
};
use crate::error::Error;
use crate::policy;
use crate::proto::grant_service_server::GrantService;
use crate::proto::{
    AddGrantRequest, AddGrantResponse, Conditions, GetGrantRequest, GetGrantResponse, Grant,
    ListGrantsRequest, ListGrantsResponse, Mask, RemoveGrantRequest, RemoveGrantResponse,
    add_grant_request, grant, list_grants_request,
};
use crate::types::UnixMillis;
use crate::vault::Terms;

/// Serves grants.
#[derive(Debug, Clone)]
pub(super) struct Grants(pub(super) Gate);

#[tonic::async_trait]
impl GrantService for Grants {
    async fn add_grant(
        &self,
        request: Request<AddGrantRequest>,
    ) -> Result<Response<AddGrantResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, add(&request))?;
        let added = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(AddGrantResponse { grant: Some(shown(added)) }))
    }

    async fn get_grant(
        &self,
        request: Request<GetGrantRequest>,
    ) -> Result<Response<GetGrantResponse>, Status> {
        let (ctx, GetGrantRequest { id }) = self.0.accept(request).await?;
        let op = ShowGrant { id: self.0.read(&ctx, id.parse())? };
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetGrantResponse { grant: Some(shown(found)) }))
    }

    async fn list_grants(
        &self,
        request: Request<ListGrantsRequest>,
    ) -> Result<Response<ListGrantsResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, list(request))?;
        let page = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(ListGrantsResponse {
            grants: page.grants.into_iter().map(shown).collect(),
            next_page_token: page.next,
        }))
    }

    async fn remove_grant(
        &self,
        request: Request<RemoveGrantRequest>,
    ) -> Result<Response<RemoveGrantResponse>, Status> {
        let (ctx, RemoveGrantRequest { id, reason }) = self.0.accept(request).await?;
        let op = RemoveGrant { id: self.0.read(&ctx, id.parse())?, reason };
        let was = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveGrantResponse { grant: Some(shown(was)) }))
    }
}

fn add(request: &AddGrantRequest) -> Result<AddGrant, Error> {
    let to = match &request.subject {
        Some(add_grant_request::Subject::Identity(name)) => GrantTo::Identity(name.parse()?),
        Some(add_grant_request::Subject::Group(name)) => GrantTo::Group(name.parse()?),
        None => return Err(Error::invalid("name the identity or the group that it is for")),
    };
    Ok(AddGrant {
        to,
        action: request.action.clone(),
        resource: request.resource.parse()?,
        terms: request.conditions.as_ref().map(terms).transpose()?.unwrap_or_default(),
        reason: request.reason.clone(),
        ticket: request.ticket.clone(),
        ttl: span("ttl_s", request.ttl_s)?,
        retry: retry(&request.idempotency_key, request)?,
    })
}

fn terms(given: &Conditions) -> Result<Terms, Error> {
    let sources = given.networks.iter().map(|one| one.parse()).collect::<Result<_, _>>()?;
    let max_ttl_s = span("max_ttl_s", given.max_ttl_s)?.map(|most| most.as_secs());
    let not_before = match given.not_before_ms {
        0 => None,
        from if from > 0 => Some(UnixMillis(from)),
        _ => return Err(Error::invalid("not_before_ms must not be negative")),
    };
    let mask = |one: &Mask| policy::Mask::parse(&one.field, &one.how);
    let masks = given.masks.iter().map(mask).collect::<Result<_, _>>()?;
    let login = policy::LoginTerms {
        max_auth_age_s: span("max_auth_age_s", given.max_auth_age_s)?.map(|most| most.as_secs()),
        amr: given.amr.clone(),
        groups: given.provider_groups.clone(),
    };
    Ok(Terms { not_before, conditions: policy::Conditions { sources, max_ttl_s, masks, login } })
}

fn list(request: ListGrantsRequest) -> Result<ListGrants, Error> {
    let to = match &request.subject {
        Some(list_grants_request::Subject::Identity(name)) => {
            Some(GrantTo::Identity(name.parse()?))
        }
        Some(list_grants_request::Subject::Group(name)) => Some(GrantTo::Group(name.parse()?)),
        None => None,
    };
    Ok(ListGrants {
        to,
        action: request.action,
        page_size: request.page_size,
        page_token: request.page_token,
    })
}

fn shown(described: DescribedGrant) -> Grant {
    let DescribedGrant { grant: row, to, terms, created_by, ended_by, last_used_at } = described;
    let policy::Conditions { sources, max_ttl_s, masks, login } = terms.conditions;
    let seconds =
        |most: Option<u64>| most.map_or(0, |most| i64::try_from(most).unwrap_or(i64::MAX));
    Grant {
        id: row.id.to_string(),
        subject: Some(match to {
            GrantTo::Identity(name) => grant::Subject::Identity(name.to_string()),
            GrantTo::Group(name) => grant::Subject::Group(name.to_string()),
        }),
        action: row.action,
        resource: row.resource.to_string(),
        conditions: Some(Conditions {
            networks: sources.iter().map(ToString::to_string).collect(),
            max_ttl_s: seconds(max_ttl_s),
            not_before_ms: ms(terms.not_before),
            masks: masks
                .into_iter()
                .map(|mask| Mask { field: mask.field, how: mask.how.as_str().to_owned() })
                .collect(),
            max_auth_age_s: seconds(login.max_auth_age_s),
            amr: login.amr,
            provider_groups: login.groups,
        }),
        reason: row.reason,
        ticket: row.ticket,
        expires_at_ms: ms(row.expires_at),
        created_at_ms: row.created_at.0,
        created_by,
        last_used_at_ms: ms(last_used_at),
        ended_at_ms: if row.active { 0 } else { row.changed_at.0 },
        ended_by,
    }
}
