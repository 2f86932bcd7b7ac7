//! `IdentityService/IssueLoginCertificate`: its request and its answer.

use data_encoding::HEXLOWER;

use super::fields::{retry, span};
use crate::engines::pki::{AuthoritySlot, IssueLogin, LoginIssued, LoginTtl, Request, SubjectName};
use crate::error::{Error, Result};
use crate::proto::{IssueLoginCertificateRequest, IssueLoginCertificateResponse};

/// Reads a request.
pub(super) fn decode(
    request: &IssueLoginCertificateRequest,
    authorities: &AuthoritySlot,
    limits: LoginTtl,
) -> Result<IssueLogin> {
    Ok(IssueLogin {
        authorities: authorities.clone(),
        limits,
        name: request.name.parse()?,
        request: Request::parse(request.csr_pem.as_bytes())?,
        ttl: span("ttl_s", request.ttl_s)?,
        retry: retry(&request.idempotency_key, request)?,
    })
}

/// Writes the answer.
pub(super) fn encode(issued: &LoginIssued) -> Result<IssueLoginCertificateResponse> {
    let (row, said) = (&issued.row, &issued.said);
    let [name] = said.names.as_slice() else {
        return Err(Error::internal("a login certificate carries one name"));
    };
    Ok(IssueLoginCertificateResponse {
        credential_id: row.id.to_string(),
        certificate_pem: issued.pem(),
        chain_pem: issued.chain_pem.clone(),
        spiffe_id: SubjectName::text(name),
        serial: said.serial.clone(),
        fingerprint: HEXLOWER.encode(row.handle.as_deref().unwrap_or_default()),
        not_before_ms: said.not_before.0,
        expires_at_ms: said.not_after.0,
    })
}
