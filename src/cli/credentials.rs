//! `strongroom db creds`: a database credential in the form that its user needs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::database::RoleName;
use super::failure::{Exit, Failure, Outcome};
use super::files::{check_new, write_public};
use super::login::hide;
use super::output::{Format, escape, fields, json_text, print, time};
use super::session::{Session, idempotency_key};
use super::span::{Span, seconds_or_default};
use super::wraps::WrapArgs;
use crate::engines::database::postgres::ssl_root;
use crate::proto::database_service_client::DatabaseServiceClient as Client;
use crate::proto::{IssueCredentialsRequest, IssueCredentialsResponse};

/// What `db creds` takes.
#[derive(Debug, Clone, Args)]
pub struct Creds {
    /// The role, CONNECTION/ROLE.
    name: RoleName,
    /// How long it lives; the role's default where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// What is printed; fields to read where it is left out.
    #[arg(long, value_enum)]
    format: Option<CredsFormat>,
    /// A new file for the authorities that the database's certificate may come from, which the
    /// printed credential then names.
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// How the answer is wrapped.
    #[command(flatten)]
    wrap: WrapArgs,
}

/// What `db creds` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CredsFormat {
    /// Shell exports of libpq's variables.
    Env,
    /// One postgresql:// URI.
    Dsn,
    /// JSON.
    Json,
}

/// Gets a credential and prints it.
pub(super) async fn creds(session: &Session, args: &Creds) -> Outcome {
    if let Some(path) = &args.ca_out {
        check_new(path)?;
    }
    let plain = [("--ca-out", args.ca_out.is_some()), ("--format", args.format.is_some())];
    args.wrap.excludes(&plain)?;
    let (session, ttl_s) = (&args.wrap.session(session)?, seconds_or_default(args.ttl));
    let mut issued = ask(session, &args.name, ttl_s).await?;
    if args.wrap.hand_over(session.format, issued.wrapped.take())? {
        return Ok(());
    }
    let issued = held(issued)?;
    for secret in [&issued.password, &issued.lease_handle] {
        hide(secret)?;
    }
    let ca_file = match &args.ca_out {
        Some(path) if !issued.ca_pem.is_empty() => {
            write_public(path, issued.ca_pem.as_bytes())?;
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            Some(path.display().to_string())
        }
        Some(_) | None => None,
    };
    let format = args.format.or(match session.format {
        Format::Human => None,
        Format::Json => Some(CredsFormat::Json),
    });
    print(&render(&issued, ca_file.as_deref(), format))
}

/// Writes a credential that was wrapped, as `db creds` does.
pub(super) fn unwrapped(format: Format, issued: &IssueCredentialsResponse) -> Zeroizing<Vec<u8>> {
    let format = match format {
        Format::Human => None,
        Format::Json => Some(CredsFormat::Json),
    };
    Zeroizing::new(render(issued, None, format).as_bytes().to_vec())
}

/// Gets a credential.
pub(super) async fn lease(
    session: &Session,
    role: &RoleName,
    ttl_s: i64,
) -> Outcome<IssueCredentialsResponse> {
    held(ask(session, role, ttl_s).await?)
}

async fn ask(session: &Session, role: &RoleName, ttl_s: i64) -> Outcome<IssueCredentialsResponse> {
    let request = IssueCredentialsRequest {
        idempotency_key: idempotency_key()?,
        connection: role.connection.clone(),
        role: role.role.clone(),
        ttl_s,
        // The key is fresh: only a retry of this very command is a replay.
        replace: true,
    };
    session
        .call(request, async |wire, request| Client::new(wire).issue_credentials(request).await)
        .await
}

/// Checks that the answer holds what was asked for: a replay does not.
fn held(issued: IssueCredentialsResponse) -> Outcome<IssueCredentialsResponse> {
    if issued.password.is_empty() {
        let message = format!("lease {} was issued, but its answer was lost", issued.lease_id);
        return Err(Failure::new(Exit::Unavailable, message)
            .hint("revoke it with `strongroom lease revoke ID` and ask again"));
    }
    Ok(issued)
}

/// Writes a credential. The caller prints it: that is what it was asked for.
fn render(
    issued: &IssueCredentialsResponse,
    ca_file: Option<&str>,
    format: Option<CredsFormat>,
) -> Zeroizing<String> {
    Zeroizing::new(match format {
        None => human(issued, ca_file),
        Some(CredsFormat::Env) => env(issued, ca_file),
        Some(CredsFormat::Dsn) => format!("{}\n", escape(&dsn(issued, ca_file))),
        Some(CredsFormat::Json) => json_text(&json(issued, ca_file)),
    })
}

fn human(issued: &IssueCredentialsResponse, ca_file: Option<&str>) -> String {
    fields(&[
        ("lease", issued.lease_id.clone()),
        ("host", issued.host.clone()),
        ("port", issued.port.to_string()),
        ("database", issued.database.clone()),
        ("username", issued.username.clone()),
        ("password", issued.password.clone()),
        ("tls", issued.tls.clone()),
        ("authorities", ca_file.unwrap_or_default().into()),
        ("ends", time(issued.expires_at_ms)),
        ("ends at the latest", time(issued.max_expires_at_ms)),
        ("dsn", dsn(issued, ca_file)),
        ("handle", issued.lease_handle.clone()),
    ])
}

fn json(issued: &IssueCredentialsResponse, ca_file: Option<&str>) -> Value {
    json!({
        "lease_id": issued.lease_id,
        "host": issued.host,
        "port": issued.port,
        "database": issued.database,
        "username": issued.username,
        "password": issued.password,
        "tls": issued.tls,
        "ca_pem": issued.ca_pem,
        "ca_file": ca_file,
        "expires_at_ms": issued.expires_at_ms,
        "max_expires_at_ms": issued.max_expires_at_ms,
        "dsn": dsn(issued, ca_file),
        "lease_handle": issued.lease_handle,
    })
}

fn env(issued: &IssueCredentialsResponse, ca_file: Option<&str>) -> String {
    let mut text = String::new();
    for (name, value) in variables(issued, ca_file) {
        text.extend(["export ", name, "=", &shell_quote(&value), "\n"]);
    }
    text
}

/// The variables of libpq, and of the lease.
pub(super) fn variables(
    issued: &IssueCredentialsResponse,
    ca_file: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mode = if issued.tls == "off" { "disable" } else { &issued.tls };
    let own_ca = !issued.ca_pem.is_empty();
    let root = ssl_root(issued.tls != "off", own_ca, ca_file).unwrap_or_default();
    let port = issued.port.to_string();
    let ends = issued.expires_at_ms.to_string();
    let all = [
        ("PGHOST", issued.host.as_str()),
        ("PGPORT", &port),
        ("PGDATABASE", &issued.database),
        ("PGUSER", &issued.username),
        ("PGPASSWORD", &issued.password),
        ("PGSSLMODE", mode),
        ("PGSSLROOTCERT", root),
        ("STRONGROOM_LEASE_ID", &issued.lease_id),
        ("STRONGROOM_LEASE_EXPIRES_AT_MS", &ends),
        ("STRONGROOM_LEASE_HANDLE", &issued.lease_handle),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| (name, value.to_owned())).collect()
}

/// Quotes a value for a POSIX shell, where nothing is special within single quotes but their end.
pub(super) fn shell_quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Adds the file of authorities to the vault's URI.
fn dsn(issued: &IssueCredentialsResponse, ca_file: Option<&str>) -> String {
    let Some(ca_file) = ca_file else {
        return issued.dsn.clone();
    };
    let joint = if issued.dsn.contains('?') { '&' } else { '?' };
    let mut text = format!("{}{joint}sslrootcert=", issued.dsn);
    for byte in ca_file.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            text.extend(["%", &format!("{byte:02X}")]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued() -> IssueCredentialsResponse {
        IssueCredentialsResponse {
            lease_id: "l-1".into(),
            host: "db.example".into(),
            port: 5_432,
            database: "it's".into(),
            username: "sr_x".into(),
            password: "pa$$`w'ord".into(),
            tls: "verify-full".into(),
            ca_pem: "PEM".into(),
            expires_at_ms: 1_795_392_000_000,
            max_expires_at_ms: 1_795_392_000_000,
            dsn: "postgresql://sr_x:p@db.example:5432/x?sslmode=verify-full".into(),
            replayed: false,
            lease_handle: String::new(),
            wrapped: None,
        }
    }

    #[test]
    fn exports_are_what_a_shell_reads_back() {
        let text = render(&issued(), Some("/tmp/a b.pem"), Some(CredsFormat::Env));
        let script = format!(
            "{}printf '%s|%s|%s' \"$PGPASSWORD\" \"$PGDATABASE\" \"$PGSSLROOTCERT\"",
            *text
        );
        let shell = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), "pa$$`w'ord|it's|/tmp/a b.pem");
    }

    #[test]
    fn tls_off_is_disable_to_libpq() {
        let plain = IssueCredentialsResponse { tls: "off".into(), ..issued() };
        let text = render(&plain, None, Some(CredsFormat::Env));
        assert!(text.contains("export PGSSLMODE='disable'\n"));
        assert!(!text.contains("PGSSLROOTCERT"));
    }

    #[test]
    fn the_variables_name_the_public_authorities_where_the_database_has_none_of_its_own() {
        let public = IssueCredentialsResponse { ca_pem: String::new(), ..issued() };
        let text = render(&public, None, Some(CredsFormat::Env));
        assert!(text.contains("export PGSSLROOTCERT='/etc/ssl/certs/ca-certificates.crt'\n"));
        let own = render(&issued(), None, Some(CredsFormat::Env));
        assert!(!own.contains("PGSSLROOTCERT"), "--ca-out writes them");
    }

    #[test]
    fn the_dsn_names_the_file_of_authorities() {
        let text = render(&issued(), Some("/tmp/a b&c.pem"), Some(CredsFormat::Dsn));
        assert!(text.ends_with("?sslmode=verify-full&sslrootcert=/tmp/a%20b%26c.pem\n"));
        assert_eq!(*render(&issued(), None, Some(CredsFormat::Dsn)), issued().dsn + "\n");
    }

    #[test]
    fn json_holds_everything_under_its_name_in_the_proto() {
        let text = render(&issued(), None, Some(CredsFormat::Json));
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["password"], "pa$$`w'ord");
        assert_eq!(read["lease_id"], "l-1");
        assert_eq!(read["port"], 5_432);
        assert_eq!(read["ca_file"], Value::Null);
    }
}
