//! Revocation lists: written, read anew by another parser, compared, and then signed in the HSM.
//!
//! Pure, as [`super::certificate`] is: what stands on a list is told, not looked for. Must not know
//! the store.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateRevocationListDer;
use x509_parser::asn1_rs::FromDer;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::num_bigint::BigUint;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::{ReasonCode, X509Version};

use super::authorities::Authorities;
use super::authority::Authority;
use super::{der, lint};
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::types::{CredentialId, Id, Segment, Serial};

/// Why a certificate stands on a list, where more is known than that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nothing more: no code is written (RFC 5280, section 5.3.1).
    Unspecified,
    /// Another took its place.
    Superseded,
    /// Its identity was retired.
    Cessation,
}

/// A certificate on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revoked {
    /// The certificate.
    pub(super) id: CredentialId,
    /// Its serial number.
    pub(super) serial: Serial,
    /// When it was first on a list, in seconds since the epoch.
    pub(super) since_s: i64,
    /// When it ends by time, in seconds since the epoch.
    pub(super) until_s: i64,
    /// Why.
    pub(super) reason: Reason,
}

/// What a list will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RevocationList {
    /// Its number.
    pub(super) number: u64,
    /// When it is signed, in seconds since the epoch.
    pub(super) this_update_s: i64,
    /// Until when another is signed, in seconds since the epoch.
    pub(super) next_update_s: i64,
    /// Who stands on it.
    pub(super) revoked: Vec<Revoked>,
}

impl RevocationList {
    /// Has an issuing CA sign its list.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Sealed`] when the HSM cannot sign, [`Error::Internal`]
    /// when a check fails.
    pub(super) async fn sign(
        self,
        hsm: &dyn Hsm,
        authorities: &Arc<Authorities>,
        id: &Segment,
    ) -> Result<Vec<u8>> {
        let gone = || Error::Conflict("the authority of the list was retired".into());
        let (list, with, of) = (Arc::new(self), Arc::clone(authorities), id.clone());
        // A list may be long: whoever waits for a request must not wait for it.
        let tbs =
            tokio::task::spawn_blocking(move || list.unsigned(with.listing(&of).ok_or_else(gone)?));
        let tbs = tbs.await.map_err(Error::internal)??;
        let issuing = authorities.listing(id).ok_or_else(gone)?;
        let signature = hsm.sign(issuing.key_label(), &tbs).await?;
        der::signed(&tbs, issuing.key().key_type(), &signature)
    }

    /// Writes the list, checks what was written, and hands out the bytes to sign.
    fn unsigned(&self, authority: &Authority) -> Result<Vec<u8>> {
        self.check(&self.write(authority)?, authority)
    }

    fn write(&self, authority: &Authority) -> Result<CertificateRevocationListDer<'static>> {
        let moment = |seconds: i64| {
            let since_epoch = u64::try_from(seconds).unwrap_or(0);
            date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch)
        };
        let revoked = self.revoked.iter().map(|one| RevokedCertParams {
            serial_number: SerialNumber::from_slice(one.serial.as_bytes()),
            revocation_time: moment(one.since_s),
            reason_code: match one.reason {
                Reason::Unspecified => None,
                Reason::Superseded => Some(RevocationReason::Superseded),
                Reason::Cessation => Some(RevocationReason::CessationOfOperation),
            },
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: moment(self.this_update_s),
            next_update: moment(self.next_update_s),
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(authority.key_id().to_vec()),
        };
        Ok(params.signed_by(authority.writer()).map_err(Error::internal)?.into())
    }

    /// Compares what was written with what was meant. Shares no code with the writer.
    fn check(&self, unsigned: &[u8], authority: &Authority) -> Result<Vec<u8>> {
        let fault = |what: &str| Error::internal(format!("a list was not signed: {what}"));
        let (rest, written) = CertificateRevocationList::from_der(unsigned)
            .map_err(|_malformed| fault("it does not parse"))?;
        let tbs = &written.tbs_cert_list;
        let algorithm = lint::signature_algorithm(authority).ok_or_else(|| fault("algorithm"))?;
        let extensions = tbs.extensions_map().is_ok_and(|map| map.len() == 2)
            && tbs.extensions().iter().all(|extension| self.extension_fits(extension, authority));
        let revoked = tbs.revoked_certificates.len() == self.revoked.len()
            && tbs.revoked_certificates.iter().zip(&self.revoked).all(|(w, m)| same(w, m));
        let next_s = tbs.next_update.map(|at| at.timestamp());
        let faults = [
            (!rest.is_empty(), "bytes follow it"),
            (tbs.version != Some(X509Version::V2), "version"),
            (tbs.signature.algorithm != algorithm, "signature algorithm"),
            (tbs.signature.parameters.is_some(), "signature parameters"),
            (tbs.issuer.as_raw() != authority.subject_der(), "issuer"),
            (tbs.this_update.timestamp() != self.this_update_s, "begin"),
            (next_s != Some(self.next_update_s), "end"),
            (!extensions, "extensions"),
            (!revoked, "certificates"),
        ];
        match faults.iter().find(|(is_fault, _)| *is_fault) {
            Some((_, what)) => Err(fault(what)),
            None => Ok(tbs.as_ref().to_vec()),
        }
    }

    fn extension_fits(&self, extension: &X509Extension<'_>, authority: &Authority) -> bool {
        let parsed = extension.parsed_extension();
        let fits = if let ParsedExtension::CRLNumber(number) = parsed {
            *number == BigUint::from(self.number)
        } else if let ParsedExtension::AuthorityKeyIdentifier(id) = parsed {
            id.key_identifier.as_ref().is_some_and(|id| id.0 == authority.key_id())
                && id.authority_cert_issuer.is_none()
                && id.authority_cert_serial.is_none()
        } else {
            false
        };
        fits && !extension.critical
    }
}

fn same(written: &RevokedCertificate<'_>, meant: &Revoked) -> bool {
    let reason = match meant.reason {
        Reason::Unspecified => None,
        Reason::Superseded => Some((false, ReasonCode::Superseded)),
        Reason::Cessation => Some((false, ReasonCode::CessationOfOperation)),
    };
    written.raw_serial() == meant.serial.as_bytes()
        && written.revocation_date.timestamp() == meant.since_s
        && written.reason_code() == reason
        && written.extensions().len() == usize::from(reason.is_some())
}

/// What is kept of each certificate on a list, beside the list itself.
pub(super) const KEPT_BYTES: usize = 16 + Serial::LEN_BYTES + 8 + 8 + 1;

impl Revoked {
    /// Writes down what the next list has to know of all that stand on this one.
    pub(super) fn encode(all: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(all.len().saturating_mul(KEPT_BYTES));
        for one in all {
            bytes.extend_from_slice(one.id.0.as_bytes());
            bytes.extend_from_slice(one.serial.as_bytes());
            bytes.extend_from_slice(&one.since_s.to_be_bytes());
            bytes.extend_from_slice(&one.until_s.to_be_bytes());
            bytes.push(match one.reason {
                Reason::Unspecified => 0,
                Reason::Superseded => 1,
                Reason::Cessation => 2,
            });
        }
        bytes
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is none of it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Self>> {
        let (all, []) = bytes.as_chunks::<KEPT_BYTES>() else {
            return Err(Error::internal("a list that ends within a certificate"));
        };
        all.iter().map(Self::decode_one).collect()
    }

    fn decode_one(bytes: &[u8; KEPT_BYTES]) -> Result<Self> {
        let malformed = || Error::internal("a list names what is no certificate");
        let (id, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
        let (serial, rest) =
            rest.split_first_chunk::<{ Serial::LEN_BYTES }>().ok_or_else(malformed)?;
        let (since, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (until, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let reason = match rest {
            [0] => Reason::Unspecified,
            [1] => Reason::Superseded,
            [2] => Reason::Cessation,
            _ => return Err(malformed()),
        };
        Ok(Self {
            id: CredentialId(Id::from_bytes(*id)),
            serial: Serial::from_bytes(serial)?,
            since_s: i64::from_be_bytes(*since),
            until_s: i64::from_be_bytes(*until),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::authority::Role;
    use super::super::certificate::tests::authority;
    use super::*;
    use crate::types::SystemEntropy;

    /// 2026-01-01T00:00:00Z.
    const NOW_S: i64 = 1_767_225_600;

    fn revoked(reason: Reason) -> Revoked {
        let serial = Serial::random(&SystemEntropy).unwrap();
        let id = CredentialId(Id::random(&SystemEntropy).unwrap());
        Revoked { id, serial, since_s: NOW_S - 5, until_s: NOW_S + 5, reason }
    }

    fn list(revoked: Vec<Revoked>) -> RevocationList {
        let (this_update_s, next_update_s) = (NOW_S, NOW_S + 86_400);
        RevocationList { number: 300, this_update_s, next_update_s, revoked }
    }

    fn some() -> Vec<Revoked> {
        [Reason::Unspecified, Reason::Superseded, Reason::Cessation].map(revoked).to_vec()
    }

    #[test]
    fn what_was_written_as_meant_is_handed_out_for_signing() {
        let issuer = authority(Role::Issuing);
        for revoked in [vec![], some()] {
            let meant = list(revoked);
            let der = meant.write(&issuer).unwrap();
            let tbs = meant.check(&der, &issuer).unwrap();
            assert!(der.windows(tbs.len()).any(|window| window == tbs));
        }
    }

    #[test]
    fn what_stands_on_a_list_is_kept_for_the_next() {
        for revoked in [vec![], some()] {
            let kept = Revoked::encode(&revoked);
            assert_eq!(Revoked::decode(&kept).unwrap(), revoked);
            let more = [&kept[..], &[0]].concat();
            assert!(Revoked::decode(&more).is_err());
        }
        let mut kept = Revoked::encode(&some());
        *kept.last_mut().unwrap() = 3;
        assert!(Revoked::decode(&kept).is_err(), "no such reason");
    }

    #[test]
    fn any_difference_from_what_was_meant_is_refused() {
        let issuer = authority(Role::Issuing);
        let meant = list(some());
        let but = |change: &dyn Fn(&mut RevocationList)| {
            let mut other = meant.clone();
            change(&mut other);
            other
        };
        for (what, other) in [
            ("number", but(&|list| list.number += 1)),
            ("begin", but(&|list| list.this_update_s += 1)),
            ("end", but(&|list| list.next_update_s += 1)),
            ("one less", but(&|list| list.revoked.truncate(2))),
            ("one more", but(&|list| list.revoked.push(revoked(Reason::Unspecified)))),
            ("another", but(&|list| list.revoked[1] = revoked(Reason::Superseded))),
            ("date", but(&|list| list.revoked[1].since_s += 1)),
            ("reason", but(&|list| list.revoked[1].reason = Reason::Unspecified)),
            ("order", but(&|list| list.revoked.reverse())),
        ] {
            let der = other.write(&issuer).unwrap();
            assert!(meant.check(&der, &issuer).is_err(), "{what}");
        }
        let der = meant.write(&issuer).unwrap();
        assert!(meant.check(&[&der[..], &[0]].concat(), &issuer).is_err(), "length");
        assert!(meant.check(&der, &authority(Role::Issuing)).is_err(), "authority");
    }

    #[test]
    fn a_hundred_thousand_take_seconds_and_a_few_mebibytes() {
        let issuer = authority(Role::Issuing);
        let meant = list((0..100_000).map(|_| revoked(Reason::Superseded)).collect());
        let began = Instant::now();
        let tbs = meant.unsigned(&issuer).unwrap();
        let took = began.elapsed();
        assert!(tbs.len() < 6 << 20, "{}", tbs.len());
        // A tenth of that where the program is built to be fast.
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}
