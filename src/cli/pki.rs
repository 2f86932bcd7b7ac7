//! `strongroom pki …`

mod revoke;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::database::put_text;
use super::failure::{Exit, Failure, Outcome};
use super::files::{check_new, read_json, read_text, write_private, write_public};
use super::identities::by;
use super::output::{Format, escape_lines, fields, json_text, print, show, show_list, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default, show_seconds};
use super::wraps::WrapArgs;
use crate::proto::pki_service_client::PkiServiceClient as Client;
use crate::proto::{
    Certificate, CertificateRole, GetAuthoritiesRequest, GetCertificateRoleRequest,
    IssueCertificateRequest, IssueCertificateResponse, ListCertificateRolesRequest,
    ListCertificatesRequest, PutCertificateRoleRequest, RemoveCertificateRoleRequest,
    SignCertificateRequest, SubjectNames,
};

const KEY_TYPES: [&str; 4] = ["p256", "p384", "ed25519", "rsa"];
const USAGES: [&str; 2] = ["server", "client"];
const KEY_USES: [&str; 2] = ["digital_signature", "key_encipherment"];

/// `strongroom pki …`
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Configure what certificates may say
    #[command(subcommand)]
    Role(RoleCommand),
    /// Get a key and a certificate for it
    Issue(Issue),
    /// Get a certificate for a key that you keep, from a CSR
    Sign(Sign),
    /// End a certificate before its time
    Revoke(revoke::Revoke),
    /// Show the authorities' certificates
    Ca,
    /// Show the list of revoked certificates
    Crl,
    /// List issued certificates: yours, and others where you may
    List(List),
}

/// `strongroom pki role …`
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Configure a role
    Put(Box<PutRole>),
    /// Show one role
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a role; certificates that were signed live on to their end
    Remove {
        /// Its name.
        name: String,
    },
    /// List roles
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
}

/// What `pki role put` takes.
#[derive(Debug, Clone, Args)]
pub struct PutRole {
    /// Its name: one segment of a-z 0-9 . _ -.
    name: String,
    /// A DNS name allowed, like api.example, '*.api.example' or '**.example'; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP network allowed, like 10.1.0.0/16; may be repeated.
    #[arg(long, value_name = "CIDR")]
    ip: Vec<String>,
    /// A URI allowed, like `spiffe://example/ci/*`; may be repeated.
    #[arg(long)]
    uri: Vec<String>,
    /// A domain whose mail addresses are allowed; may be repeated.
    #[arg(long, value_name = "DOMAIN")]
    email: Vec<String>,
    /// Allow names like '*.api.example' themselves, where a pattern covers them.
    #[arg(long)]
    wildcard_names: bool,
    /// A key allowed; may be repeated.
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(KEY_TYPES))]
    key_type: Vec<String>,
    /// What certificates are for; may be repeated.
    #[arg(long, value_parser = PossibleValuesParser::new(USAGES))]
    usage: Vec<String>,
    /// What keys do; may be repeated.
    #[arg(long, value_parser = PossibleValuesParser::new(KEY_USES))]
    key_use: Vec<String>,
    /// How long a certificate lives where the caller does not say; a day by default.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How long it lives at most; as --ttl by default.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// Take the rest from what `pki role show --output json` printed; `-` for standard input.
    /// Flags win.
    #[arg(long, value_name = "FILE")]
    from_json: Option<PathBuf>,
}

/// The names that a certificate is to say.
#[derive(Debug, Clone, Args)]
pub(super) struct Names {
    /// A DNS name; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<String>,
    /// A URI; may be repeated.
    #[arg(long)]
    uri: Vec<String>,
    /// A mail address; may be repeated.
    #[arg(long)]
    email: Vec<String>,
}

impl Names {
    /// Takes the names; nothing where none is given.
    fn subject(&self) -> Option<SubjectNames> {
        let names = SubjectNames {
            dns: self.dns.clone(),
            ips: self.ip.clone(),
            uris: self.uri.clone(),
            emails: self.email.clone(),
        };
        (names != SubjectNames::default()).then_some(names)
    }
}

/// What `pki issue` takes.
#[derive(Debug, Clone, Args)]
pub struct Issue {
    /// The role.
    role: String,
    /// The names to say.
    #[command(flatten)]
    names: Names,
    /// The key to make; the role's first where it is left out.
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(KEY_TYPES))]
    key_type: Option<String>,
    /// How long it lives; the role's default where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// A new file for the certificate and its chain; standard output where it is left out.
    #[arg(long, value_name = "FILE", requires = "key_out")]
    out: Option<PathBuf>,
    /// A new file for the private key, readable by you alone; standard output where it is left
    /// out.
    #[arg(long, value_name = "FILE", requires = "out")]
    key_out: Option<PathBuf>,
    /// How the answer is wrapped.
    #[command(flatten)]
    wrap: WrapArgs,
}

/// What `pki sign` takes.
#[derive(Debug, Clone, Args)]
pub struct Sign {
    /// The role.
    role: String,
    /// The PKCS#10 request in PEM, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// The names to say, in place of those in the request.
    #[command(flatten)]
    names: Names,
    /// How long it lives; the role's default where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// A new file for the certificate and its chain; standard output where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `pki list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only those of this identity.
    #[arg(long, default_value = "")]
    identity: String,
    /// Only those of this role.
    #[arg(long, default_value = "")]
    role: String,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Runs `strongroom pki …`.
pub(super) async fn run(session: &Session, command: &PkiCommand) -> Outcome {
    match command {
        PkiCommand::Role(RoleCommand::Put(args)) => put_role(session, args).await,
        PkiCommand::Role(RoleCommand::Show { name }) => {
            let request = GetCertificateRoleRequest { name: name.clone() };
            let found = session
                .call(request, async |wire, request| Client::new(wire).get_role(request).await)
                .await?;
            show(session.format, &must(found.role)?, role_text)
        }
        PkiCommand::Role(RoleCommand::Remove { name }) => {
            let request = RemoveCertificateRoleRequest { name: name.clone() };
            // Once: a repetition would not find what the first try had removed.
            let removed = session
                .call_once(request, async |wire, request| {
                    Client::new(wire).remove_role(request).await
                })
                .await?;
            show(session.format, &must(removed.role)?, |role| {
                format!("removed:\n{}", role_text(role))
            })
        }
        PkiCommand::Role(RoleCommand::List { limit }) => list_roles(session, *limit).await,
        PkiCommand::Issue(args) => issue(session, args).await,
        PkiCommand::Sign(args) => sign(session, args).await,
        PkiCommand::Revoke(args) => revoke::revoke(session, args).await,
        PkiCommand::Ca => authorities(session).await,
        PkiCommand::Crl => revoke::show_list(session).await,
        PkiCommand::List(args) => list(session, args).await,
    }
}

async fn put_role(session: &Session, args: &PutRole) -> Outcome {
    let was: CertificateRole =
        args.from_json.as_deref().map(read_json).transpose()?.unwrap_or_default();
    let or =
        |given: &Vec<String>, was: Vec<String>| if given.is_empty() { was } else { given.clone() };
    let request = PutCertificateRoleRequest {
        name: args.name.clone(),
        allowed_dns: or(&args.dns, was.allowed_dns),
        allowed_ips: or(&args.ip, was.allowed_ips),
        allowed_uris: or(&args.uri, was.allowed_uris),
        allowed_emails: or(&args.email, was.allowed_emails),
        key_types: or(&args.key_type, was.key_types),
        usages: or(&args.usage, was.usages),
        default_ttl_s: args.ttl.map_or(was.default_ttl_s, Span::seconds),
        max_ttl_s: args.max_ttl.map_or(was.max_ttl_s, Span::seconds),
        wildcard_names: args.wildcard_names || was.wildcard_names,
        key_uses: or(&args.key_use, was.key_uses),
    };
    let stored = session
        .call(request, async |wire, request| Client::new(wire).put_role(request).await)
        .await?;
    show(session.format, &must(stored.role)?, |role| put_text(stored.changed, &role_text(role)))
}

async fn list_roles(session: &Session, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListCertificateRolesRequest { page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_roles(request).await)
            .await?;
        Ok((page.roles, page.next_page_token))
    })
    .await?;
    let headers = ["ROLE", "NAMES", "KEYS", "USAGES", "TTL", "MAX TTL"];
    show_list(session.format, &listed, headers, |role| {
        let lists =
            [&role.allowed_dns, &role.allowed_ips, &role.allowed_uris, &role.allowed_emails];
        let names: Vec<_> = lists.into_iter().flatten().map(String::as_str).collect();
        [
            role.name.clone(),
            names.join(", "),
            role.key_types.join(", "),
            role.usages.join(", "),
            show_seconds(role.default_ttl_s),
            show_seconds(role.max_ttl_s),
        ]
    })
}

async fn issue(session: &Session, args: &Issue) -> Outcome {
    args.wrap.excludes(&[("--out", args.out.is_some())])?;
    for path in [&args.out, &args.key_out].into_iter().flatten() {
        check_new(path)?;
    }
    let request = IssueCertificateRequest {
        idempotency_key: idempotency_key()?,
        role: args.role.clone(),
        names: args.names.subject(),
        key_type: args.key_type.clone().unwrap_or_default(),
        ttl_s: seconds_or_default(args.ttl),
        // The key is fresh: only a retry of this very command is a replay.
        replace: true,
    };
    let session = &args.wrap.session(session)?;
    let mut issued = session
        .call(request, async |wire, request| Client::new(wire).issue_certificate(request).await)
        .await?;
    if args.wrap.hand_over(session.format, issued.wrapped.take())? {
        return Ok(());
    }
    let key = Zeroizing::new(std::mem::take(&mut issued.private_key_pem));
    if key.is_empty() {
        return Err(Failure::new(Exit::Unavailable, "the answer that held the key was lost")
            .hint("ask again: a certificate whose key nobody has is of no use to anybody"));
    }
    let chain = chain(&issued.certificate_pem, &issued.chain_pem);
    match (&args.out, &args.key_out, session.format) {
        (Some(out), Some(key_out), format) => {
            write_private(key_out, &key)?;
            write_public(out, chain.as_bytes())?;
            show(format, &must(issued.certificate)?, |certificate| {
                written(certificate, &[("certificate", out), ("private key", key_out)])
            })
        }
        (_, _, Format::Human) => print(&Zeroizing::new(chain + &escape_lines(&key))),
        (_, _, Format::Json) => print(&issued_json(&issued, &key)),
    }
}

/// Writes what was issued and wrapped, as `pki issue` does.
pub(super) fn unwrapped(format: Format, issued: &IssueCertificateResponse) -> Zeroizing<Vec<u8>> {
    let key = &issued.private_key_pem;
    match format {
        Format::Human => {
            let chain = chain(&issued.certificate_pem, &issued.chain_pem);
            Zeroizing::new((chain + &escape_lines(key)).into_bytes())
        }
        Format::Json => Zeroizing::new(issued_json(issued, key).as_bytes().to_vec()),
    }
}

/// Writes what was issued with its key: that is what it was asked for.
fn issued_json(issued: &IssueCertificateResponse, key: &str) -> Zeroizing<String> {
    Zeroizing::new(json_text(&json!({
        "certificate": issued.certificate,
        "certificate_pem": issued.certificate_pem,
        "chain_pem": issued.chain_pem,
        "private_key_pem": key,
    })))
}

async fn sign(session: &Session, args: &Sign) -> Outcome {
    if let Some(out) = &args.out {
        check_new(out)?;
    }
    let request = SignCertificateRequest {
        idempotency_key: idempotency_key()?,
        role: args.role.clone(),
        csr_pem: read_text(&args.csr)?.to_string(),
        names: args.names.subject(),
        ttl_s: seconds_or_default(args.ttl),
    };
    let signed = session
        .call(request, async |wire, request| Client::new(wire).sign_certificate(request).await)
        .await?;
    let chain = chain(&signed.certificate_pem, &signed.chain_pem);
    match (&args.out, session.format) {
        (Some(out), format) => {
            write_public(out, chain.as_bytes())?;
            show(format, &must(signed.certificate)?, |certificate| {
                written(certificate, &[("certificate", out)])
            })
        }
        (None, Format::Human) => print(&chain),
        (None, Format::Json) => show(session.format, &signed, |_| String::new()),
    }
}

async fn authorities(session: &Session) -> Outcome {
    let found = session
        .call(GetAuthoritiesRequest {}, async |wire, request| {
            Client::new(wire).get_authorities(request).await
        })
        .await?;
    let all = found.authorities.into_iter().chain(found.retiring).chain(found.link);
    let all: Vec<_> = all.collect();
    show(session.format, &all, |authorities| {
        // Text before a PEM block is a comment (RFC 7468, section 2): the whole is a bundle.
        authorities
            .iter()
            .map(|authority| {
                let text = fields(&[
                    ("authority", authority.name.clone()),
                    ("version", authority.version.to_string()),
                    ("state", authority.state.clone()),
                    ("key", authority.key_type.clone()),
                    ("fingerprint", authority.fingerprint.clone()),
                    ("ends", time(authority.expires_at_ms)),
                ]);
                text + &escape_lines(&authority.certificate_pem)
            })
            .collect()
    })
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        page(session, (&args.identity, &args.role), page_size, page_token).await
    })
    .await?;
    let headers = ["SERIAL", "IDENTITY", "ROLE", "NAMES", "STATE", "ENDS"];
    show_list(session.format, &listed, headers, |certificate| {
        [
            certificate.serial.clone(),
            certificate.identity.clone(),
            certificate.role.clone(),
            names_text(certificate),
            certificate.state.clone(),
            time(certificate.expires_at_ms),
        ]
    })
}

async fn page(
    session: &Session,
    (identity, role): (&str, &str),
    page_size: i32,
    page_token: String,
) -> Outcome<(Vec<Certificate>, String)> {
    let (identity, role) = (identity.to_owned(), role.to_owned());
    let request = ListCertificatesRequest { page_size, page_token, identity, role };
    let page = session
        .call(request, async |wire, request| Client::new(wire).list_certificates(request).await)
        .await?;
    Ok((page.certificates, page.next_page_token))
}

fn chain(certificate: &str, chain: &str) -> String {
    escape_lines(certificate) + &escape_lines(chain)
}

fn written(certificate: &Certificate, files: &[(&str, &PathBuf)]) -> String {
    let mut pairs: Vec<_> =
        files.iter().map(|(what, path)| (*what, path.display().to_string())).collect();
    pairs.extend([
        ("serial", certificate.serial.clone()),
        ("names", names_text(certificate)),
        ("fingerprint", certificate.fingerprint.clone()),
        ("ends", time(certificate.expires_at_ms)),
    ]);
    fields(&pairs)
}

fn names_text(certificate: &Certificate) -> String {
    let names = certificate.names.clone().unwrap_or_default();
    [names.dns, names.ips, names.uris, names.emails].concat().join(", ")
}

fn role_text(role: &CertificateRole) -> String {
    fields(&[
        ("role", role.name.clone()),
        ("dns", role.allowed_dns.join(", ")),
        ("ip", role.allowed_ips.join(", ")),
        ("uri", role.allowed_uris.join(", ")),
        ("email", role.allowed_emails.join(", ")),
        ("wildcard names", if role.wildcard_names { "allowed".into() } else { String::new() }),
        ("keys", role.key_types.join(", ")),
        ("keys do", role.key_uses.join(", ")),
        ("usages", role.usages.join(", ")),
        ("ttl", show_seconds(role.default_ttl_s)),
        ("longest ttl", show_seconds(role.max_ttl_s)),
        ("configured", by(role.created_at_ms, &role.created_by)),
        ("changed", by(role.changed_at_ms, &role.changed_by)),
    ])
}
