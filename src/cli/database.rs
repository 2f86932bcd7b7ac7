//! `strongroom db …`

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::credentials::{Creds, creds};
use super::failure::{Failure, Outcome};
use super::files::{read_json, read_secret, read_text};
use super::identities::by;
use super::output::{fields, show, show_list, time};
use super::session::{Session, collect, must};
use super::span::{Span, show_seconds};
use crate::proto::database_service_client::DatabaseServiceClient as Client;
use crate::proto::{
    Connection, DatabaseRole, GetDatabaseRoleRequest, ListConnectionsRequest,
    ListDatabaseRolesRequest, PutConnectionRequest, PutDatabaseRoleRequest,
    RemoveConnectionRequest, RemoveDatabaseRoleRequest,
};

/// `strongroom db …`
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Configure a connection; it is tested before it is stored
    Connect(Box<Connect>),
    /// List connections
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Remove a connection that no role and no lease uses; its password is forgotten
    Remove {
        /// Its name.
        name: String,
    },
    /// Configure what credentials may do
    #[command(subcommand)]
    Role(RoleCommand),
    /// Get a credential, made for you now and taken back when its lease ends
    Creds(Creds),
}

/// What `db connect` takes.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// The connection's name: one segment of a-z 0-9 . _ -.
    name: String,
    /// The host name or address of the database.
    #[arg(long, required_unless_present = "from_json")]
    host: Option<String>,
    /// Its TCP port.
    #[arg(long)]
    port: Option<u16>,
    /// The database that credentials connect to.
    #[arg(long, required_unless_present = "from_json")]
    database: Option<String>,
    /// The account of the vault there.
    #[arg(long, required_unless_present = "from_json")]
    username: Option<String>,
    /// A file that holds the account's password, `-` for standard input. Without it the stored
    /// password is kept, where the connection exists and still goes to the same account.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How the database is spoken to; `off` sends secrets in the clear.
    #[arg(long, value_parser = PossibleValuesParser::new(["verify-full", "off"]))]
    tls: Option<String>,
    /// The authorities that the database's certificate may come from beside the public ones, a PEM
    /// file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How many sessions a node of the vault opens there at once, at most; 10 by default.
    #[arg(long, value_name = "N")]
    max_connections: Option<i32>,
    /// Take the rest from a connection as `db list --output json` prints it; `-` for standard
    /// input. Flags win.
    #[arg(long, value_name = "FILE")]
    from_json: Option<PathBuf>,
}

/// `strongroom db role …`
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Configure a role; it is tried on the database before it is stored
    Put(Box<PutRole>),
    /// Show one role
    Show {
        /// Its name, CONNECTION/ROLE.
        name: RoleName,
    },
    /// Remove a role; credentials that were made live on to their end
    Remove {
        /// Its name, CONNECTION/ROLE.
        name: RoleName,
    },
    /// List roles
    List {
        /// Only those of this connection.
        connection: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
}

/// What `db role put` takes.
#[derive(Debug, Clone, Args)]
pub struct PutRole {
    /// Its name, CONNECTION/ROLE.
    name: RoleName,
    /// A group role of the database that credentials are members of; may be repeated.
    #[arg(long, value_name = "ROLE", conflicts_with = "statement_file")]
    member_of: Vec<String>,
    /// A file that holds one statement that makes a credential, with {{name}}, {{password}} and
    /// {{expiration}}; may be repeated, and they run in this order.
    #[arg(long, value_name = "FILE")]
    statement_file: Vec<PathBuf>,
    /// The role of the database that inherits what a credential leaves behind.
    #[arg(long, value_name = "ROLE", conflicts_with = "drop_owned")]
    owner_role: Option<String>,
    /// Drop what a credential leaves behind.
    #[arg(long)]
    drop_owned: bool,
    /// How long a credential lives where the caller does not say; an hour by default.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How long it lives at most; a day by default.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// Iterations of the password's SCRAM verifier; 4096 by default.
    #[arg(long, value_name = "N")]
    scram_iterations: Option<i32>,
    /// Take the rest from what `db role show --output json` printed; `-` for standard input.
    /// Flags win.
    #[arg(long, value_name = "FILE")]
    from_json: Option<PathBuf>,
}

/// A role's name with its connection's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName {
    pub(super) connection: String,
    pub(super) role: String,
}

impl std::str::FromStr for RoleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((connection, role))
                if ![connection, role].contains(&"") && !role.contains('/') =>
            {
                Ok(Self { connection: connection.into(), role: role.into() })
            }
            Some(_) | None => Err("a role is CONNECTION/ROLE, like analytics/reader".into()),
        }
    }
}

/// Runs `strongroom db …`.
pub(super) async fn run(session: &Session, command: &DatabaseCommand) -> Outcome {
    match command {
        DatabaseCommand::Connect(args) => connect(session, args).await,
        DatabaseCommand::List { limit } => list(session, *limit).await,
        DatabaseCommand::Remove { name } => remove(session, name).await,
        DatabaseCommand::Role(RoleCommand::Remove { name }) => remove_role(session, name).await,
        DatabaseCommand::Role(RoleCommand::Put(args)) => put_role(session, args).await,
        DatabaseCommand::Role(RoleCommand::Show { name }) => {
            let (connection, name) = (name.connection.clone(), name.role.clone());
            let found = session
                .call(GetDatabaseRoleRequest { connection, name }, async |wire, request| {
                    Client::new(wire).get_role(request).await
                })
                .await?;
            show(session.format, &must(found.role)?, role_text)
        }
        DatabaseCommand::Role(RoleCommand::List { connection, limit }) => {
            list_roles(session, connection.as_deref().unwrap_or_default(), *limit).await
        }
        DatabaseCommand::Creds(args) => creds(session, args).await,
    }
}

async fn connect(session: &Session, args: &Connect) -> Outcome {
    let was: Connection = args.from_json.as_deref().map(read_json).transpose()?.unwrap_or_default();
    let password = args.password_file.as_deref().map(read_secret).transpose()?;
    let ca_pem = args.ca_file.as_deref().map(read_text).transpose()?;
    let port = if was.port == 0 { 5_432 } else { was.port };
    let request = PutConnectionRequest {
        name: args.name.clone(),
        engine: was.engine,
        host: args.host.clone().unwrap_or(was.host),
        port: args.port.map_or(port, i32::from),
        database: args.database.clone().unwrap_or(was.database),
        username: args.username.clone().unwrap_or(was.username),
        password: password.map(|password| password.to_string()).unwrap_or_default(),
        tls: args.tls.clone().unwrap_or(was.tls),
        ca_pem: ca_pem.map_or(was.ca_pem, |pem| pem.to_string()),
        max_connections: args.max_connections.unwrap_or(was.max_connections),
    };
    let stored = session
        .call(request, async |wire, request| Client::new(wire).put_connection(request).await)
        .await?;
    show(session.format, &must(stored.connection)?, |connection| {
        put_text(stored.changed, &connection_text(connection))
    })
}

async fn list(session: &Session, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListConnectionsRequest { page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_connections(request).await)
            .await?;
        Ok((page.connections, page.next_page_token))
    })
    .await?;
    let headers = ["NAME", "ENGINE", "HOST", "PORT", "DATABASE", "USERNAME", "TLS", "TESTED"];
    show_list(session.format, &listed, headers, |connection| {
        [
            connection.name.clone(),
            connection.engine.clone(),
            connection.host.clone(),
            connection.port.to_string(),
            connection.database.clone(),
            connection.username.clone(),
            connection.tls.clone(),
            time(connection.tested_at_ms),
        ]
    })
}

async fn remove(session: &Session, name: &str) -> Outcome {
    let request = RemoveConnectionRequest { name: name.to_owned() };
    // Once: a repetition would not find what the first try had removed.
    let removed = session
        .call_once(request, async |wire, request| {
            Client::new(wire).remove_connection(request).await
        })
        .await?;
    show(session.format, &must(removed.connection)?, |connection| {
        format!("removed:\n{}", connection_text(connection))
    })
}

fn role_request(args: &PutRole, was: DatabaseRole) -> Outcome<PutDatabaseRoleRequest> {
    let mut request = PutDatabaseRoleRequest {
        connection: args.name.connection.clone(),
        name: args.name.role.clone(),
        member_of: was.member_of,
        statements: was.statements,
        owner_role: was.owner_role,
        drop_owned: was.drop_owned,
        default_ttl_s: args.ttl.map_or(was.default_ttl_s, Span::seconds),
        max_ttl_s: args.max_ttl.map_or(was.max_ttl_s, Span::seconds),
        scram_iterations: args.scram_iterations.unwrap_or(was.scram_iterations),
    };
    if !args.member_of.is_empty() {
        (request.member_of, request.statements) = (args.member_of.clone(), Vec::new());
    }
    if !args.statement_file.is_empty() {
        let texts = args.statement_file.iter().map(|file| Ok(read_text(file)?.to_string()));
        (request.member_of, request.statements) = (Vec::new(), texts.collect::<Outcome<_>>()?);
    }
    if let Some(owner) = &args.owner_role {
        (request.owner_role, request.drop_owned) = (owner.clone(), false);
    }
    if args.drop_owned {
        (request.owner_role, request.drop_owned) = (String::new(), true);
    }
    if request.member_of.is_empty() && request.statements.is_empty() {
        return Err(Failure::usage("a role needs --member-of or --statement-file"));
    }
    if request.owner_role.is_empty() && !request.drop_owned {
        return Err(Failure::usage("a role needs --owner-role, or --drop-owned by name")
            .hint("--owner-role ROLE inherits the tables that a credential leaves behind"));
    }
    Ok(request)
}

async fn put_role(session: &Session, args: &PutRole) -> Outcome {
    let was = args.from_json.as_deref().map(read_json).transpose()?.unwrap_or_default();
    let stored = session
        .call(role_request(args, was)?, async |wire, request| {
            Client::new(wire).put_role(request).await
        })
        .await?;
    show(session.format, &must(stored.role)?, |role| put_text(stored.changed, &role_text(role)))
}

async fn remove_role(session: &Session, name: &RoleName) -> Outcome {
    let (connection, name) = (name.connection.clone(), name.role.clone());
    let request = RemoveDatabaseRoleRequest { connection, name };
    let removed = session
        .call_once(request, async |wire, request| Client::new(wire).remove_role(request).await)
        .await?;
    show(session.format, &must(removed.role)?, |role| format!("removed:\n{}", role_text(role)))
}

async fn list_roles(session: &Session, connection: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let connection = connection.to_owned();
        let request = ListDatabaseRolesRequest { page_size, page_token, connection };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_roles(request).await)
            .await?;
        Ok((page.roles, page.next_page_token))
    })
    .await?;
    let headers = ["ROLE", "MEMBER OF", "OWNER ROLE", "TTL", "MAX TTL"];
    show_list(session.format, &listed, headers, |role| {
        [
            format!("{}/{}", role.connection, role.name),
            if role.member_of.is_empty() {
                "(statements)".into()
            } else {
                role.member_of.join(", ")
            },
            if role.drop_owned { "(drops)".into() } else { role.owner_role.clone() },
            show_seconds(role.default_ttl_s),
            show_seconds(role.max_ttl_s),
        ]
    })
}

fn connection_text(connection: &Connection) -> String {
    let ca = if connection.ca_pem.is_empty() { "" } else { "given" };
    fields(&[
        ("name", connection.name.clone()),
        ("engine", connection.engine.clone()),
        ("host", connection.host.clone()),
        ("port", connection.port.to_string()),
        ("database", connection.database.clone()),
        ("username", connection.username.clone()),
        ("tls", connection.tls.clone()),
        ("authorities", ca.into()),
        ("sessions", format!("{} at most", connection.max_connections)),
        ("server", connection.server_version.clone()),
        ("tested", time(connection.tested_at_ms)),
        ("configured", by(connection.created_at_ms, &connection.created_by)),
        ("changed", by(connection.changed_at_ms, &connection.changed_by)),
    ])
}

fn role_text(role: &DatabaseRole) -> String {
    let drops = if role.drop_owned { "what a credential leaves behind" } else { "" };
    fields(&[
        ("role", format!("{}/{}", role.connection, role.name)),
        ("member of", role.member_of.join(", ")),
        ("statements", role.statements.join("\n")),
        ("owner role", role.owner_role.clone()),
        ("drops", drops.into()),
        ("ttl", show_seconds(role.default_ttl_s)),
        ("longest ttl", show_seconds(role.max_ttl_s)),
        ("scram iterations", role.scram_iterations.to_string()),
        ("configured", by(role.created_at_ms, &role.created_by)),
        ("changed", by(role.changed_at_ms, &role.changed_by)),
    ])
}

/// Says before what is stored whether the call changed it.
pub(super) fn put_text(changed: bool, text: &str) -> String {
    format!("{}:\n{text}", if changed { "stored" } else { "unchanged" })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, ClientCommand, Command};

    fn put(words: &[&str]) -> PutRole {
        let line = ["strongroom", "db", "role", "put", "analytics/reader"];
        let cli = Cli::try_parse_from(line.iter().chain(words)).unwrap();
        let Command::Client(ClientCommand::Db(DatabaseCommand::Role(RoleCommand::Put(args)))) =
            cli.command
        else {
            panic!("another command");
        };
        *args
    }

    #[test]
    fn put_takes_what_show_gave() {
        let shown = DatabaseRole {
            id: "0".into(),
            connection: "analytics".into(),
            name: "reader".into(),
            member_of: vec!["analytics_reader".into()],
            owner_role: "etl_owner".into(),
            default_ttl_s: 3_600,
            max_ttl_s: 86_400,
            scram_iterations: 4_096,
            created_by: "admin".into(),
            ..DatabaseRole::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role.json");
        std::fs::write(&path, crate::cli::output::json_text(&shown)).unwrap();
        let read: DatabaseRole = read_json(&path).unwrap();
        assert_eq!(read, shown);
        let request = role_request(&put(&["--ttl", "30m"]), read).unwrap();
        assert_eq!(request.member_of, shown.member_of);
        assert_eq!(request.owner_role, "etl_owner");
        assert_eq!((request.default_ttl_s, request.max_ttl_s), (1_800, 86_400), "flags win");
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role.json");
        std::fs::write(&path, r#"{"member_off":["x"]}"#).unwrap();
        assert!(read_json::<DatabaseRole>(&path).is_err());
    }

    #[test]
    fn a_role_says_what_becomes_of_what_is_left_behind() {
        let was = DatabaseRole::default;
        assert!(role_request(&put(&["--member-of", "r"]), was()).is_err());
        assert!(role_request(&put(&["--owner-role", "o"]), was()).is_err());
        assert!(role_request(&put(&["--member-of", "r", "--owner-role", "o"]), was()).is_ok());
        assert!(role_request(&put(&["--member-of", "r", "--drop-owned"]), was()).is_ok());
    }

    #[test]
    fn a_role_is_named_with_its_connection() {
        for bad in ["reader", "/reader", "analytics/", "a/b/c", ""] {
            assert!(bad.parse::<RoleName>().is_err(), "{bad:?}");
        }
        assert_eq!("a/b".parse::<RoleName>().unwrap().role, "b");
    }
}
