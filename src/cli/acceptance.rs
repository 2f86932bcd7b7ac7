//! What an administrator signs to accept a log that was rolled back or altered: a fixed statement,
//! with the key of a login certificate, on the administrator's own machine. The key goes nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::args::Global;
use super::failure::{Exit, Failure, Outcome};
use super::files::read_text;
use super::output::note;
use crate::crypto::parse_hex;
use crate::types::Id;

/// One way of signing for each kind of key: ECDSA on P-256 and P-384, Ed25519, RSA.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// The head of a log: how many entries, and the root over them in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    /// Entries in the tree.
    pub size: i64,
    /// Root hash.
    pub root: String,
}

impl LogHead {
    fn line(&self) -> String {
        format!("{} {}", self.size, self.root)
    }

    /// Writes it as `--found` takes it.
    fn named(&self) -> String {
        format!("{}:{}", self.size, self.root)
    }

    fn is_well_formed(&self) -> bool {
        self.size >= 0 && parse_hex(&self.root).is_ok_and(|root| root.len() == 32)
    }
}

/// A log that does not extend the head that was kept of it, or whose head no vault wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The vault's id.
    pub vault_id: String,
    /// What was kept of the log; none where nothing was.
    pub kept: Option<LogHead>,
    /// What the store holds.
    pub found: LogHead,
    /// Whether that is none that this vault wrote.
    pub altered: bool,
    /// How many were shredded and are named nowhere: they come back with the store.
    pub unnamed: i64,
}

impl Rollback {
    /// Whether it says what it may: whoever answers on the socket may write anything into a text.
    fn is_well_formed(&self) -> bool {
        self.vault_id.parse::<Id>().is_ok()
            && self.found.is_well_formed()
            && self.unnamed >= 0
            && self.kept.as_ref().is_none_or(LogHead::is_well_formed)
    }

    /// Writes what is signed; nothing else that these keys sign begins like it.
    #[must_use]
    pub fn statement(&self) -> String {
        let Self { vault_id, kept, found, altered, unnamed } = self;
        let kept = kept.as_ref().map_or_else(|| "none".to_owned(), LogHead::line);
        let found = found.line();
        let mut text = format!(
            "strongroom.accept-rollback.v1\nvault {vault_id}\nkept {kept}\nfound {found}\n"
        );
        if *altered {
            text.push_str("head altered\n");
        }
        if *unnamed > 0 {
            text = format!("{text}shredded and named nowhere {unnamed}\n");
        }
        text
    }
}

/// Demands that what the socket shows is what the administrator means to accept: the head that they
/// name, and an altered one only where they say so.
fn demand(rollback: &Rollback, found: Option<&str>, altered: bool) -> Outcome {
    if !rollback.is_well_formed() {
        let message = "the vault answered something that is no head of a log; nothing is signed";
        return Err(Failure::new(Exit::Unexpected, message));
    }
    if rollback.altered && !altered {
        let message = "the head of the log is none that this vault wrote; no restored backup is so";
        return Err(Failure::new(Exit::Invalid, message)
            .hint("verify an export against a kept checkpoint first; then accept with --altered"));
    }
    let shown = rollback.found.named();
    let back = match rollback.unnamed {
        0 => String::new(),
        some => format!(", and {some} who were shredded and are named nowhere come back"),
    };
    match found {
        Some(found) if found == shown => Ok(()),
        Some(found) => Err(Failure::new(
            Exit::Invalid,
            format!("the vault found {shown}, not {found}; nothing is signed"),
        )),
        None => Err(Failure::new(
            Exit::Invalid,
            format!("the vault found {shown}{back}; say with --found that this is what you accept"),
        )
        .hint("compare it with what the restored store should hold before you sign")),
    }
}

/// The acceptance of a rollback, signed.
#[derive(Debug)]
pub(super) struct Signed {
    /// The login certificate, DER in base64.
    pub(super) certificate: String,
    /// Its key's signature, in base64.
    pub(super) signature: String,
}

/// Signs the acceptance of a rollback with the login that the command line names; of the head alone
/// that it names as well, and of an altered one only for who says so.
pub(super) fn sign(
    global: &Global,
    rollback: &Rollback,
    found: Option<&str>,
    altered: bool,
) -> Outcome<Signed> {
    let (Some(certificate), Some(key)) = (&global.cert, &global.key) else {
        return Err(Failure::usage("an acceptance is signed with your login certificate's key")
            .hint("give --cert and --key, or STRONGROOM_CERT and STRONGROOM_KEY"));
    };
    demand(rollback, found, altered)?;
    let unfit = |what: &str| Failure::usage(format!("{what}, so nothing can be signed"));
    let der = CertificateDer::from_pem_slice(read_text(certificate)?.as_bytes())
        .map_err(|_malformed| unfit("the certificate file holds no certificate as PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(read_text(key)?.as_bytes())
        .map_err(|_malformed| unfit("the key file holds no private key as PEM"))?;
    let key = any_supported_type(&key).map_err(|_kind| unfit("the key is of another kind"))?;
    let signer = key.choose_scheme(&SCHEMES).ok_or_else(|| unfit("the key is of another kind"))?;
    let statement = rollback.statement();
    note("this is signed:");
    for line in statement.lines() {
        note(line);
    }
    let signature = signer
        .sign(statement.as_bytes())
        .map_err(|error| unfit(&format!("signing failed: {error}")))?;
    Ok(Signed { certificate: STANDARD.encode(&der), signature: STANDARD.encode(signature) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Rollback {
        let head = |size: i64, digit: &str| LogHead { size, root: digit.repeat(64) };
        Rollback {
            vault_id: "0197a1c0-0000-7000-8000-000000000001".into(),
            kept: Some(head(9, "a")),
            found: head(7, "b"),
            altered: false,
            unnamed: 0,
        }
    }

    #[test]
    fn what_no_vault_says_is_not_signed_whatever_is_named() {
        let good = shown();
        assert!(demand(&good, Some(&good.found.named()), false).is_ok());
        for change in [
            |r: &mut Rollback| r.found.root.push_str("\nhead altered"),
            |r: &mut Rollback| r.found.root.make_ascii_uppercase(),
            |r: &mut Rollback| r.found.root.truncate(62),
            |r: &mut Rollback| r.found.root.clear(),
            |r: &mut Rollback| r.found.size = -1,
            |r: &mut Rollback| r.unnamed = -1,
            |r: &mut Rollback| r.vault_id.push_str("\nkept none"),
            |r: &mut Rollback| r.vault_id.clear(),
            |r: &mut Rollback| r.kept.as_mut().unwrap().root.push('\n'),
        ] {
            let mut other = shown();
            change(&mut other);
            let refused = demand(&other, Some(&other.found.named()), true).unwrap_err();
            assert_eq!(refused.exit, Exit::Unexpected, "{other:?}");
        }
    }

    #[test]
    fn only_the_head_that_is_named_is_signed() {
        let good = shown();
        let named = good.found.named();
        let unnamed = demand(&good, None, false).unwrap_err();
        assert!(unnamed.message.contains(&named), "{}", unnamed.message);
        let kept = good.kept.as_ref().unwrap().named();
        for other in [kept.as_str(), "7", "", &format!("8{}", &named[1..])] {
            let refused = demand(&good, Some(other), false).unwrap_err();
            assert_eq!(refused.exit, Exit::Invalid, "{other}");
        }
        let back = Rollback { unnamed: 3, ..good.clone() };
        let told = demand(&back, None, false).unwrap_err();
        assert!(told.message.contains("3 who were shredded"), "{}", told.message);
        let line = "shredded and named nowhere 3\n";
        assert_eq!(back.statement(), format!("{}{line}", good.statement()));
        let altered = Rollback { altered: true, ..good };
        assert!(demand(&altered, Some(&named), false).is_err());
        assert!(demand(&altered, Some(&named), true).is_ok());
    }
}
