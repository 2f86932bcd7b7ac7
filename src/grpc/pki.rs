//! `PkiService`.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{optional, retry, span};
use crate::crypto::sha256;
use crate::engines::pki::{
    Anchors, Authorities, Authority, CertificateRole, CrlSlot, Issued, KeyType, KeyUse,
    ListCertificates, ListRoles, Listed, Mint, NewKey, Order, Profile, PutRole, Quota, RemoveRole,
    Request as Csr, RevokeCertificate, Role, Roles, Said, ShowAuthorities, ShowCrl, ShowRole,
    Standing, SubjectName, Usage, WildcardNames, crl_pem, listed,
};
use crate::error::{Error, Result};
use crate::proto::pki_service_server::PkiService;
use crate::proto::{
    Authority as AuthorityProto, Certificate, CertificateRole as RoleProto, GetAuthoritiesRequest,
    GetAuthoritiesResponse, GetCertificateRoleRequest, GetCertificateRoleResponse,
    GetRevocationListRequest, GetRevocationListResponse, IssueCertificateRequest,
    IssueCertificateResponse, ListCertificateRolesRequest, ListCertificateRolesResponse,
    ListCertificatesRequest, ListCertificatesResponse, PutCertificateRoleRequest,
    PutCertificateRoleResponse, RemoveCertificateRoleRequest, RemoveCertificateRoleResponse,
    RevokeCertificateRequest, RevokeCertificateResponse, SignCertificateRequest,
    SignCertificateResponse, SubjectNames,
};
use crate::store::credentials::CredentialRow;
use crate::vault::RetryKey;

/// Life of a certificate where its role does not say.
const DAY: Duration = Duration::from_hours(24);

/// Serves certificates.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    gate: Gate,
    roles: Roles,
    quota: Quota,
    crls: CrlSlot,
}

impl Pki {
    pub(super) fn new(gate: Gate, crls: CrlSlot, certificates: u32) -> Self {
        Self { gate, roles: Roles::default(), quota: Quota::new(certificates), crls }
    }

    fn order(&self, role: &str, ttl_s: i64, retry: Option<RetryKey>) -> Result<Order> {
        Ok(Order {
            authorities: self.gate.authorities.clone(),
            roles: self.roles.clone(),
            role: role.parse()?,
            ttl: span("ttl_s", ttl_s)?,
            quota: self.quota.clone(),
            retry,
        })
    }

    fn sign(&self, request: &SignCertificateRequest) -> Result<Mint<Csr>> {
        let retry = retry(&request.idempotency_key, request)?;
        let order = self.order(&request.role, request.ttl_s, retry)?;
        let csr = Csr::parse(request.csr_pem.as_bytes())?;
        let source = match &request.names {
            Some(names) => csr.renamed(subject_names(names)?)?,
            None => csr,
        };
        Ok(Mint { order, source })
    }

    fn issue(&self, request: &IssueCertificateRequest) -> Result<Mint<NewKey>> {
        // Asking for another in place of the first is the same request.
        let asked = IssueCertificateRequest { replace: false, ..request.clone() };
        let retry = retry(&request.idempotency_key, &asked)?;
        let retry = retry.map(|key| key.replacing(request.replace));
        let names = request.names.as_ref().map(subject_names).transpose()?.unwrap_or_default();
        let key_type = (!request.key_type.is_empty())
            .then(|| parse_word("key_type", &request.key_type))
            .transpose()?;
        let order = self.order(&request.role, request.ttl_s, retry)?;
        Ok(Mint { order, source: NewKey { key_type, names } })
    }
}

#[tonic::async_trait]
impl PkiService for Pki {
    async fn put_role(
        &self,
        request: Request<PutCertificateRoleRequest>,
    ) -> Result<Response<PutCertificateRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, put_role(&request))?;
        let put = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let role = Gate::answer(&ctx, role_proto(&put.role))?;
        Ok(Response::new(PutCertificateRoleResponse { role: Some(role), changed: put.changed }))
    }

    async fn get_role(
        &self,
        request: Request<GetCertificateRoleRequest>,
    ) -> Result<Response<GetCertificateRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let name = self.gate.read(&ctx, request.name.parse())?;
        let role = Gate::answer(&ctx, self.gate.vault.run(&ctx, ShowRole { name }).await)?;
        let role = Gate::answer(&ctx, role_proto(&role))?;
        Ok(Response::new(GetCertificateRoleResponse { role: Some(role) }))
    }

    async fn list_roles(
        &self,
        request: Request<ListCertificateRolesRequest>,
    ) -> Result<Response<ListCertificateRolesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = ListRoles { page_size: request.page_size, page_token: request.page_token };
        let (roles, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let roles = roles.iter().map(role_proto).collect::<Result<_>>();
        let roles = Gate::answer(&ctx, roles)?;
        Ok(Response::new(ListCertificateRolesResponse { roles, next_page_token }))
    }

    async fn remove_role(
        &self,
        request: Request<RemoveCertificateRoleRequest>,
    ) -> Result<Response<RemoveCertificateRoleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let name = self.gate.read(&ctx, request.name.parse())?;
        let was = Gate::answer(&ctx, self.gate.vault.run(&ctx, RemoveRole { name }).await)?;
        let role = Some(Gate::answer(&ctx, role_proto(&was))?);
        Ok(Response::new(RemoveCertificateRoleResponse { role }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let op = self.gate.read(&ctx, self.issue(&request))?;
        self.gate.give(&ctx, op, wrap, |issued: &Arc<Issued>| with_key(issued)).await
    }

    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, self.sign(&request))?;
        let issued = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(SignCertificateResponse {
            certificate_pem: issued.pem(),
            certificate: Some(issued_proto(&issued)),
            replayed: issued.replayed,
            chain_pem: issued.chain_pem.clone(),
        }))
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Result<Response<ListCertificatesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, list(request))?;
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let certificates = listed.iter().map(listed_proto).collect();
        Ok(Response::new(ListCertificatesResponse { certificates, next_page_token }))
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let id = self.gate.read(&ctx, request.id.parse())?;
        let op = RevokeCertificate { id, reason: request.reason };
        let ended = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let certificate = Some(listed_proto(&ended));
        Ok(Response::new(RevokeCertificateResponse { certificate }))
    }

    async fn get_revocation_list(
        &self,
        request: Request<GetRevocationListRequest>,
    ) -> Result<Response<GetRevocationListResponse>, Status> {
        let (ctx, GetRevocationListRequest { version }) = self.gate.accept(request).await?;
        let (crls, authorities) = (self.crls.clone(), self.gate.authorities.clone());
        let op = ShowCrl { crls, authorities, version };
        let crl = &Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?.row;
        Ok(Response::new(GetRevocationListResponse {
            crl_pem: crl_pem(&crl.der),
            number: crl.number,
            revoked: i64::try_from(listed(crl.listed.len())).unwrap_or(i64::MAX),
            signed_at_ms: crl.this_update.0,
            expires_at_ms: crl.next_update.0,
        }))
    }

    async fn get_authorities(
        &self,
        request: Request<GetAuthoritiesRequest>,
    ) -> Result<Response<GetAuthoritiesResponse>, Status> {
        let (ctx, GetAuthoritiesRequest {}) = self.gate.accept(request).await?;
        let op = ShowAuthorities { authorities: self.gate.authorities.clone() };
        let anchors = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(Gate::answer(&ctx, anchors_proto(&anchors))?))
    }
}

/// A certificate with the key that was made for it.
fn with_key(issued: &Issued) -> Result<IssueCertificateResponse> {
    let key = issued.private_key.as_deref().map(|key| key.expose().to_vec());
    Ok(IssueCertificateResponse {
        certificate_pem: issued.pem(),
        certificate: Some(issued_proto(issued)),
        replayed: issued.replayed,
        chain_pem: issued.chain_pem.clone(),
        private_key_pem: String::from_utf8(key.unwrap_or_default()).map_err(Error::internal)?,
        wrapped: None,
    })
}

fn put_role(request: &PutCertificateRoleRequest) -> Result<PutRole> {
    let max = span("max_ttl_s", request.max_ttl_s)?;
    let usual = max.map_or(DAY, |max| max.min(DAY));
    let default = span("default_ttl_s", request.default_ttl_s)?.unwrap_or(usual);
    let or = |list: &[String], usual: &str| {
        if list.is_empty() { vec![usual.to_owned()] } else { list.to_vec() }
    };
    let wildcards =
        if request.wildcard_names { WildcardNames::Allowed } else { WildcardNames::Refused };
    let profile = Profile {
        dns_names: parse_all(&request.allowed_dns)?,
        wildcard_names: wildcards,
        ip_ranges: parse_all(&request.allowed_ips)?,
        uris: parse_all(&request.allowed_uris)?,
        email_domains: parse_all(&request.allowed_emails)?,
        key_types: words("key_types", &or(&request.key_types, "p256"))?,
        usages: words("usages", &or(&request.usages, "server"))?,
        key_uses: words("key_uses", &or(&request.key_uses, "digital_signature"))?,
        default_ttl_s: default.as_secs(),
        max_ttl_s: max.unwrap_or(default).as_secs(),
    };
    Ok(PutRole { name: request.name.parse()?, profile })
}

fn list(request: ListCertificatesRequest) -> Result<ListCertificates> {
    let ListCertificatesRequest { page_size, page_token, identity, role } = request;
    let (identity, role) = (optional(&identity)?, optional(&role)?);
    Ok(ListCertificates { identity, role, page_size, page_token })
}

fn parse_all<T: std::str::FromStr<Err = Error>>(texts: &[String]) -> Result<Vec<T>> {
    texts.iter().map(|text| text.parse()).collect()
}

fn words<T: DeserializeOwned>(field: &str, words: &[String]) -> Result<Vec<T>> {
    words.iter().map(|word| parse_word(field, word)).collect()
}

/// Reads one of the words that profiles are stored with.
fn parse_word<T: DeserializeOwned>(field: &str, word: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|_unknown| Error::invalid(format!("{field} holds a word that is not known")))
}

fn word<T: Serialize>(value: &T) -> Result<String> {
    let value = serde_json::to_value(value).map_err(Error::internal)?;
    let word = value.as_str().ok_or_else(|| Error::internal("a word is stored as text"))?;
    Ok(word.to_owned())
}

fn subject_names(names: &SubjectNames) -> Result<Vec<SubjectName>> {
    let ip = |text: &String| format!("ip:{text}").parse();
    let dns = names.dns.iter().map(|text| SubjectName::dns(text));
    let uris = names.uris.iter().map(|text| SubjectName::uri(text));
    let emails = names.emails.iter().map(|text| SubjectName::email(text));
    dns.chain(names.ips.iter().map(ip)).chain(uris).chain(emails).collect()
}

fn names_proto(names: &[SubjectName]) -> SubjectNames {
    let mut out = SubjectNames::default();
    for name in names {
        match name {
            SubjectName::Dns(host) => out.dns.push(host.clone()),
            SubjectName::Ip(address) => out.ips.push(address.to_string()),
            SubjectName::Uri(uri) => out.uris.push(uri.clone()),
            SubjectName::Email(email) => out.emails.push(email.clone()),
        }
    }
    out
}

fn role_proto(role: &CertificateRole) -> Result<RoleProto> {
    let CertificateRole { row, profile, created_by, changed_by } = role;
    Ok(RoleProto {
        id: row.id.to_string(),
        name: row.name.to_string(),
        allowed_dns: profile.dns_names.iter().map(ToString::to_string).collect(),
        allowed_ips: profile.ip_ranges.iter().map(ToString::to_string).collect(),
        allowed_uris: profile.uris.iter().map(ToString::to_string).collect(),
        allowed_emails: profile.email_domains.iter().map(ToString::to_string).collect(),
        key_types: profile.key_types.iter().map(word::<KeyType>).collect::<Result<_>>()?,
        usages: profile.usages.iter().map(word::<Usage>).collect::<Result<_>>()?,
        default_ttl_s: i64::try_from(profile.default_ttl_s).map_err(Error::internal)?,
        max_ttl_s: i64::try_from(profile.max_ttl_s).map_err(Error::internal)?,
        created_at_ms: row.created_at.0,
        created_by: created_by.clone(),
        changed_at_ms: row.changed_at.0,
        changed_by: changed_by.clone(),
        wildcard_names: profile.wildcard_names == WildcardNames::Allowed,
        key_uses: profile.key_uses.iter().map(word::<KeyUse>).collect::<Result<_>>()?,
    })
}

fn issued_proto(issued: &Issued) -> Certificate {
    certificate_proto(&issued.row, &issued.said, &issued.identity, issued.standing)
}

fn listed_proto(listed: &Listed) -> Certificate {
    certificate_proto(&listed.row, &listed.said, &listed.identity, listed.standing)
}

fn certificate_proto(
    row: &CredentialRow,
    said: &Said,
    identity: &str,
    standing: Standing,
) -> Certificate {
    Certificate {
        id: row.id.to_string(),
        serial: said.serial.clone(),
        identity: identity.to_owned(),
        role: row.resource.as_str().trim_start_matches("pki/").to_owned(),
        names: Some(names_proto(&said.names)),
        fingerprint: HEXLOWER.encode(row.handle.as_deref().unwrap_or_default()),
        state: standing.as_str().to_owned(),
        not_before_ms: said.not_before.0,
        expires_at_ms: said.not_after.0,
        created_at_ms: row.issued_at.0,
    }
}

fn anchors_proto(anchors: &Anchors) -> Result<GetAuthoritiesResponse> {
    let authorities = &anchors.0;
    Ok(GetAuthoritiesResponse {
        authorities: vec![
            authority_proto(&authorities.root, CURRENT)?,
            authority_proto(&authorities.issuing, CURRENT)?,
        ],
        login_authority: Some(authority_proto(&authorities.login, CURRENT)?),
        retiring: [retiring(authorities, Role::Root)?, retiring(authorities, Role::Issuing)?]
            .concat(),
        link: authorities.link.as_ref().map(|link| authority_proto(link, LINK)).transpose()?,
        retiring_login_authorities: retiring(authorities, Role::Login)?,
    })
}

fn retiring(authorities: &Authorities, role: Role) -> Result<Vec<AuthorityProto>> {
    let old = authorities.old.iter().filter(|old| old.role() == role);
    old.map(|old| authority_proto(old, RETIRING)).collect()
}

/// Whether an authority signs, or what it signed is believed alone; and the certificate by which a
/// retiring root vouches for the current one.
const CURRENT: &str = "current";
const RETIRING: &str = "retiring";
const LINK: &str = "link";

fn authority_proto(authority: &Authority, state: &str) -> Result<AuthorityProto> {
    let name = match authority.role() {
        Role::Root => "root",
        Role::Issuing => "issuing",
        Role::Login => "login",
    };
    let der = authority.certificate_der();
    let said = Said::of_der(der)?;
    Ok(AuthorityProto {
        name: name.to_owned(),
        certificate_pem: authority.pem(),
        serial: said.serial,
        fingerprint: HEXLOWER.encode(&sha256(der)),
        key_type: word(&authority.key_type())?,
        not_before_ms: said.not_before.0,
        expires_at_ms: said.not_after.0,
        version: authority.version(),
        state: state.to_owned(),
    })
}
