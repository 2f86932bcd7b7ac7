//! `DatabaseService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::crypto::Encoder;
use crate::engines::database::names::TargetRole;
use crate::engines::database::postgres::{ConnectionDefinition, Tls};
use crate::engines::database::template::{OnRevoke, RoleDefinition, SCRAM_ITERATIONS, Statement};
use crate::engines::database::{
    Connection, Credential, Databases, GetRole, IssueCredentials, ListConnections, ListRoles,
    PutConnection, PutRole, RemoveConnection, RemoveRole, Role,
};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::database_service_server::DatabaseService;
use crate::proto::{
    GetDatabaseRoleRequest, GetDatabaseRoleResponse, IssueCredentialsRequest,
    IssueCredentialsResponse, ListConnectionsRequest, ListConnectionsResponse,
    ListDatabaseRolesRequest, ListDatabaseRolesResponse, PutConnectionRequest,
    PutConnectionResponse, PutDatabaseRoleRequest, PutDatabaseRoleResponse,
    RemoveConnectionRequest, RemoveConnectionResponse, RemoveDatabaseRoleRequest,
    RemoveDatabaseRoleResponse,
};
use crate::types::{SecretBytes, Segment};
use crate::vault::RetryKey;

/// Serves databases.
#[derive(Debug, Clone)]
pub(super) struct DatabaseRpc {
    pub(super) gate: Gate,
    pub(super) databases: Databases,
}

const DEFAULT_TTL_S: u32 = 3_600;
const MAX_TTL_S: u32 = 86_400;
const DEFAULT_PORT: u16 = 5_432;
const MAX_CONNECTIONS: u32 = 10;

#[tonic::async_trait]
impl DatabaseService for DatabaseRpc {
    async fn put_connection(
        &self,
        request: Request<PutConnectionRequest>,
    ) -> Result<Response<PutConnectionResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, put_connection(self.databases.clone(), request))?;
        let (connection, changed) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let connection = Some(show_connection(connection));
        Ok(Response::new(PutConnectionResponse { connection, changed }))
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListConnectionsRequest { page_size, page_token } = request;
        let op = ListConnections { page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let connections = listed.into_iter().map(show_connection).collect();
        Ok(Response::new(ListConnectionsResponse { connections, next_page_token }))
    }

    async fn remove_connection(
        &self,
        request: Request<RemoveConnectionRequest>,
    ) -> Result<Response<RemoveConnectionResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = RemoveConnection { name: self.gate.read(&ctx, request.name.parse())? };
        let (was, accounts) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        self.databases.forget(&accounts);
        Ok(Response::new(RemoveConnectionResponse { connection: Some(show_connection(was)) }))
    }

    async fn put_role(
        &self,
        request: Request<PutDatabaseRoleRequest>,
    ) -> Result<Response<PutDatabaseRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, put_role(self.databases.clone(), request))?;
        let (role, changed) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(PutDatabaseRoleResponse { role: Some(show_role(role)), changed }))
    }

    async fn get_role(
        &self,
        request: Request<GetDatabaseRoleRequest>,
    ) -> Result<Response<GetDatabaseRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let named = segments(&request.connection, &request.name);
        let (connection, name) = self.gate.read(&ctx, named)?;
        let op = GetRole { databases: self.databases.clone(), connection, name };
        let role = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetDatabaseRoleResponse { role: Some(show_role(role)) }))
    }

    async fn list_roles(
        &self,
        request: Request<ListDatabaseRolesRequest>,
    ) -> Result<Response<ListDatabaseRolesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let connection = match request.connection.as_str() {
            "" => None,
            name => Some(self.gate.read(&ctx, name.parse())?),
        };
        let (page_size, page_token) = (request.page_size, request.page_token);
        let op = ListRoles { connection, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let roles = listed.into_iter().map(show_role).collect();
        Ok(Response::new(ListDatabaseRolesResponse { roles, next_page_token }))
    }

    async fn remove_role(
        &self,
        request: Request<RemoveDatabaseRoleRequest>,
    ) -> Result<Response<RemoveDatabaseRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let named = segments(&request.connection, &request.name);
        let (connection, name) = self.gate.read(&ctx, named)?;
        let op = RemoveRole { databases: self.databases.clone(), connection, name };
        let was = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveDatabaseRoleResponse { role: Some(show_role(was)) }))
    }

    async fn issue_credentials(
        &self,
        request: Request<IssueCredentialsRequest>,
    ) -> Result<Response<IssueCredentialsResponse>, Status> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let op = self.gate.read(&ctx, issue(self.databases.clone(), &request))?;
        self.gate.give_effect(&ctx, op, wrap, show_credential).await
    }
}

fn put_connection(databases: Databases, request: PutConnectionRequest) -> Result<PutConnection> {
    if !["", "postgresql"].contains(&request.engine.as_str()) {
        return Err(Error::invalid("engine is postgresql"));
    }
    let tls = match request.tls.as_str() {
        "" | "verify-full" => Tls::Verify,
        "off" => Tls::Off,
        _ => return Err(Error::invalid("tls is verify-full or off")),
    };
    let port = match request.port {
        0 => DEFAULT_PORT,
        port => u16::try_from(port).map_err(|_range| Error::invalid("port is 1 to 65535"))?,
    };
    let max_connections = match u32::try_from(request.max_connections) {
        Ok(0) => MAX_CONNECTIONS,
        Ok(most) => most,
        Err(_range) => return Err(Error::invalid("max_connections is 1 to 64")),
    };
    let password = SecretBytes::new(request.password.into_bytes());
    let printable = password.expose().iter().all(|byte| (b' '..=b'~').contains(byte));
    if !printable || password.len_bytes() > 1_024 {
        return Err(Error::invalid("password is at most 1024 printable ASCII characters"));
    }
    Ok(PutConnection {
        databases,
        name: request.name.parse()?,
        settings: ConnectionDefinition {
            host: request.host,
            port,
            database: request.database,
            username: request.username,
            tls,
            ca_pem: Some(request.ca_pem).filter(|pem| !pem.is_empty()),
            max_connections,
        },
        password: (password.len_bytes() > 0).then_some(password),
    })
}

fn put_role(databases: Databases, request: PutDatabaseRoleRequest) -> Result<PutRole> {
    let (connection, name) = segments(&request.connection, &request.name)?;
    let groups = request.member_of.into_iter().map(TargetRole::try_from);
    let statements = request.statements.into_iter().map(Statement::try_from);
    let owner_role = Some(request.owner_role).filter(|role| !role.is_empty());
    let seconds = |what: &'static str, given: i64, default: u32| match u32::try_from(given) {
        Ok(0) => Ok(default),
        Ok(seconds) => Ok(seconds),
        Err(_range) => Err(Error::invalid(format!("{what} is out of range"))),
    };
    let max_ttl_s = seconds("max_ttl_s", request.max_ttl_s, MAX_TTL_S)?;
    let definition = RoleDefinition {
        groups: groups.collect::<Result<_, _>>()?,
        statements: statements.collect::<Result<_, _>>()?,
        owner_role: owner_role.map(TargetRole::try_from).transpose()?,
        on_revoke: if request.drop_owned { OnRevoke::Drop } else { OnRevoke::Reassign },
        scram_iterations: seconds(
            "scram_iterations",
            request.scram_iterations.into(),
            SCRAM_ITERATIONS,
        )?,
        default_ttl_s: seconds(
            "default_ttl_s",
            request.default_ttl_s,
            DEFAULT_TTL_S.min(max_ttl_s),
        )?,
        max_ttl_s,
    };
    Ok(PutRole { databases, connection, name, definition })
}

fn issue(databases: Databases, request: &IssueCredentialsRequest) -> Result<IssueCredentials> {
    let named = segments(&request.connection, &request.role)?;
    // Asking for a replacement is no other request.
    let bound = Encoder::new("strongroom/credentials/v1")
        .text(&request.connection)
        .text(&request.role)
        .integer(request.ttl_s)
        .finish();
    let retry = RetryKey::parse(&request.idempotency_key, &bound)?;
    if request.replace && retry.is_none() {
        return Err(Error::invalid("replacing takes the idempotency key of the first call"));
    }
    let retry = retry.map(|key| key.replacing(request.replace));
    Ok(IssueCredentials::new(databases, named, request.ttl_s, retry))
}

fn segments(connection: &str, role: &str) -> Result<(Segment, Segment)> {
    Ok((connection.parse()?, role.parse()?))
}

const fn tls_word(tls: Tls) -> &'static str {
    match tls {
        Tls::Verify => "verify-full",
        Tls::Off => "off",
    }
}

fn show_connection(shown: Connection) -> proto::Connection {
    let Connection { row, target, settings, created_by, changed_by } = shown;
    proto::Connection {
        id: row.id.to_string(),
        name: row.name.to_string(),
        engine: "postgresql".to_owned(),
        host: settings.host,
        port: settings.port.into(),
        database: settings.database,
        username: settings.username,
        tls: tls_word(settings.tls).to_owned(),
        ca_pem: settings.ca_pem.unwrap_or_default(),
        server_version: target.server_version,
        tested_at_ms: target.tested_at.0,
        created_at_ms: row.created_at.0,
        created_by,
        changed_at_ms: row.changed_at.0,
        changed_by,
        // Between 1 and 64, as the definition was checked.
        max_connections: i32::try_from(settings.max_connections).unwrap_or_default(),
    }
}

fn show_role(shown: Role) -> proto::DatabaseRole {
    let Role { row, definition, created_by, changed_by } = shown;
    let (connection, name) = row.name.as_str().split_once('/').unwrap_or_default();
    proto::DatabaseRole {
        id: row.id.to_string(),
        connection: connection.to_owned(),
        name: name.to_owned(),
        member_of: definition.groups.into_iter().map(String::from).collect(),
        statements: definition.statements.into_iter().map(String::from).collect(),
        owner_role: definition.owner_role.map(String::from).unwrap_or_default(),
        drop_owned: definition.on_revoke == OnRevoke::Drop,
        default_ttl_s: definition.default_ttl_s.into(),
        max_ttl_s: definition.max_ttl_s.into(),
        // Between 1 and 4,096, as the definition was checked.
        scram_iterations: i32::try_from(definition.scram_iterations).unwrap_or_default(),
        created_at_ms: row.created_at.0,
        created_by,
        changed_at_ms: row.changed_at.0,
        changed_by,
    }
}

fn show_credential(made: &Credential) -> Result<IssueCredentialsResponse> {
    let Credential { lease, access, handle, replayed } = made;
    let text = |secret: &SecretBytes| {
        std::str::from_utf8(secret.expose()).map(str::to_owned).map_err(Error::internal)
    };
    let dsn = if *replayed { String::new() } else { text(&access.dsn(None))? };
    Ok(IssueCredentialsResponse {
        lease_id: lease.id.to_string(),
        host: access.host.clone(),
        port: access.port.into(),
        database: access.database.clone(),
        username: access.username.clone(),
        password: text(&access.password)?,
        tls: tls_word(access.tls).to_owned(),
        ca_pem: access.ca_pem.clone().unwrap_or_default(),
        expires_at_ms: lease.expires_at.0,
        max_expires_at_ms: lease.max_expires_at.0,
        dsn,
        replayed: *replayed,
        lease_handle: handle.as_ref().map(text).transpose()?.unwrap_or_default(),
        wrapped: None,
    })
}
