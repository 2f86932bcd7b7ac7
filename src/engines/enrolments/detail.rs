//! What an enrolment's row says besides what every credential's does: where its token may be used
//! from, what was made of it, and by which keys.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::policy::Cidr;
use crate::store::credentials::CredentialRow;
use crate::types::{CredentialId, CredentialState, UnixMillis};

/// Renewals that are remembered at once: of certificates whose time is not over.
pub(super) const RENEWALS: usize = 16;
/// How long a renewal is remembered after its certificate is over, in milliseconds: the clock of the
/// node that forgets it may be ahead of that of the one that looks at the certificate.
const REMEMBERED_MS: i64 = 300_000;

/// The detail of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentDetail {
    /// Where its token may be used from; anywhere when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Cidr>,
    /// The vault's restore epoch when it was made: its token is void under another.
    pub restore_epoch: i64,
    /// Who made it: an identity's id.
    pub created_by: String,
    /// What its token was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Made>,
    /// What the certificates below it were renewed by, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewed: Vec<Renewal>,
    /// When the record last told that its token was shown after its time, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_late: Option<i64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
}

/// A certificate that was made for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// When, in Unix milliseconds.
    pub at: i64,
    /// The credential's id.
    pub id: String,
    /// SHA-256 of the key (DER of its `SubjectPublicKeyInfo`) in hexadecimal.
    pub key: String,
}

/// What a certificate was renewed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// The credential's id.
    pub of: String,
    /// When its time is over, in Unix milliseconds: it renews no more then.
    pub until: i64,
    /// By what.
    pub made: Made,
}

/// How an enrolment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Over {
    /// When, in Unix milliseconds.
    pub at: i64,
    /// By whom: an identity's id, or the name of what acts for the vault.
    pub by: String,
    /// Why.
    pub why: Why,
}

/// Why an enrolment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody revoked it.
    Revoked,
    /// Its token was used with two keys while it was good.
    JoinedTwice,
    /// One of its certificates was renewed with two keys.
    RenewedTwice,
}

/// What comes of a token or a certificate that is shown with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its one certificate.
    Anew,
    /// The certificate that it was given before, for the same key.
    Again(CredentialId),
    /// The end of the enrolment: there are two keys where there can be one.
    Locks(Why),
    /// Nothing: the token was used, and its time is over.
    Late,
    /// Nothing: it was not used in time, or the enrolment is over.
    Over,
}

impl EnrolmentDetail {
    /// Reads it from a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }

    /// Writes it for a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when it cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    /// Tells what comes of its token, shown with a key.
    pub(super) fn joins(&self, row: &CredentialRow, key: &str, now: UnixMillis) -> Result<Step> {
        let good = row.expires_at > now;
        Ok(match (row.state, &self.joined) {
            (CredentialState::Active, None) if good => Step::Anew,
            (CredentialState::Spent, Some(made)) if good && made.key == key => {
                Step::Again(made.id.parse()?)
            }
            (CredentialState::Spent, Some(_)) if good => Step::Locks(Why::JoinedTwice),
            (CredentialState::Spent, Some(_)) => Step::Late,
            (_, _) => Step::Over,
        })
    }

    /// Tells what comes of one of its certificates, shown with a key.
    pub(super) fn renews(&self, row: &CredentialRow, of: CredentialId, key: &str) -> Result<Step> {
        if row.state != CredentialState::Spent {
            return Ok(Step::Over);
        }
        let of = of.to_string();
        Ok(match self.renewed.iter().find(|renewal| renewal.of == of) {
            None => Step::Anew,
            Some(renewal) if renewal.made.key == key => Step::Again(renewal.made.id.parse()?),
            Some(_) => Step::Locks(Why::RenewedTwice),
        })
    }

    /// Forgets renewals of certificates that are over.
    pub(super) fn forget(&mut self, now: UnixMillis) {
        self.renewed.retain(|one| one.until.saturating_add(REMEMBERED_MS) > now.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CredentialKind, Id, IdentityId};

    fn id(byte: u8) -> CredentialId {
        CredentialId(Id::from_bytes([byte; 16]))
    }

    fn made(byte: u8, key: &str) -> Made {
        Made { at: 10, id: id(byte).to_string(), key: key.to_owned() }
    }

    fn row(state: CredentialState) -> CredentialRow {
        CredentialRow {
            id: id(1),
            kind: CredentialKind::Enrolment,
            identity: IdentityId(Id::from_bytes([9; 16])),
            parent: None,
            elevation: None,
            elevation_too: None,
            handle: None,
            resource: "enrolments/etl".parse().unwrap(),
            state,
            revocation_epoch: 1,
            issued_at: UnixMillis(0),
            expires_at: UnixMillis(100),
            max_expires_at: UnixMillis(1_000),
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: Vec::new(),
        }
    }

    fn unused() -> EnrolmentDetail {
        EnrolmentDetail {
            sources: vec![],
            restore_epoch: 0,
            created_by: "x".to_owned(),
            joined: None,
            renewed: vec![],
            shown_late: None,
            over: None,
        }
    }

    #[test]
    fn a_token_joins_once_and_repeats_itself_for_the_same_key_while_it_is_good() {
        use CredentialState::{Active, Ended, Revoking, Spent};
        let used = EnrolmentDetail { joined: Some(made(2, "a")), ..unused() };
        let twice = Step::Locks(Why::JoinedTwice);
        for (detail, state, key, now, step) in [
            (unused(), Active, "a", 99, Step::Anew),
            (unused(), Active, "a", 100, Step::Over),
            (used.clone(), Spent, "a", 99, Step::Again(id(2))),
            (used.clone(), Spent, "b", 99, twice),
            (used.clone(), Spent, "a", 100, Step::Late),
            (used.clone(), Spent, "b", 100, Step::Late),
            (used.clone(), Revoking, "a", 99, Step::Over),
            (used.clone(), Ended, "b", 99, Step::Over),
            // No such row is ever written.
            (used, Active, "a", 99, Step::Over),
            (unused(), Spent, "a", 99, Step::Over),
        ] {
            let found = detail.joins(&row(state), key, UnixMillis(now));
            assert_eq!(found, Ok(step), "{state} {key} {now}");
        }
    }

    #[test]
    fn a_certificate_renews_once_whatever_was_renewed_since() {
        let renewal =
            |of, by, key| Renewal { of: id(of).to_string(), until: 50, made: made(by, key) };
        let mut detail = EnrolmentDetail {
            joined: Some(made(2, "a")),
            renewed: vec![renewal(2, 3, "b"), renewal(3, 4, "c")],
            ..unused()
        };
        let spent = row(CredentialState::Spent);
        let twice = Step::Locks(Why::RenewedTwice);
        for (of, key, step) in [
            (2, "b", Step::Again(id(3))),
            (2, "c", twice),
            (3, "c", Step::Again(id(4))),
            (3, "b", twice),
            (4, "b", Step::Anew),
        ] {
            assert_eq!(detail.renews(&spent, id(of), key), Ok(step), "{of} {key}");
        }
        let over = row(CredentialState::Revoking);
        assert_eq!(detail.renews(&over, id(4), "d"), Ok(Step::Over));
        assert_eq!(EnrolmentDetail::decode(&detail.encode().unwrap()), Ok(detail.clone()));
        detail.forget(UnixMillis(49 + REMEMBERED_MS));
        assert_eq!(detail.renewed.len(), 2);
        detail.forget(UnixMillis(50 + REMEMBERED_MS));
        assert!(detail.renewed.is_empty());
    }

    #[test]
    fn what_nobody_checks_is_refused() {
        let text = String::from_utf8(unused().encode().unwrap()).unwrap();
        let bad = text.replace("\"created_by\"", "\"weekday\":1,\"created_by\"");
        assert_eq!(EnrolmentDetail::decode(bad.as_bytes()), Err(Error::Internal));
    }
}
