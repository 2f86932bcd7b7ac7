//! `[hsm]`: the PKCS#11 module, the token in it, and where the PIN comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::Document;
use super::{ConfigError, SecretSource, environment, secret};

pub(super) const SECTION: &str = "hsm";
pub(super) const KEYS: &[&str] = &[
    "module",
    "token_label",
    "token_serial",
    "pin_file",
    "pin_fd",
    "pin_credential",
    "environment",
];

/// Bytes in a token's label: `CK_TOKEN_INFO` (PKCS#11 3.1, section 3.2).
const LABEL_BYTES: usize = 32;
/// Bytes in a token's serial number: `CK_TOKEN_INFO`.
const SERIAL_BYTES: usize = 16;

/// How the HSM is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsm {
    /// The PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// Which token; never a slot number, since those move.
    pub token: TokenName,
    /// Where the PIN comes from; none where somebody unseals by hand.
    pub pin: Option<SecretSource>,
    /// Variables that the module reads from the environment.
    pub environment: BTreeMap<String, String>,
}

/// What a token is chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenName {
    /// Its label.
    Label(String),
    /// Its serial number.
    Serial(String),
}

impl Hsm {
    /// Lists the variables that this process does not carry as the module needs them; where there
    /// are any, the program re-executes itself once with them, since a running process cannot
    /// change its own environment safely.
    #[must_use]
    pub fn environment_missing(&self) -> BTreeMap<&str, &str> {
        let differs = |(name, value): &(&String, &String)| {
            environment::lookup(name).is_none_or(|there| there != value.as_str())
        };
        self.environment
            .iter()
            .filter(differs)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

pub(super) fn read(document: &Document<'_>) -> Result<Hsm, ConfigError> {
    let section = document.section(SECTION);
    let module = section.path("module")?.ok_or_else(|| {
        section.missing("module", "name the PKCS#11 library, for example libsofthsm2.so")
    })?;
    let printable = |most: usize| {
        move |text: &str| {
            let fits = !text.is_empty() && text.len() <= most && text.trim() == text;
            (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
        }
    };
    let label = section.parsed("token_label", "text of 1 to 32 bytes", printable(LABEL_BYTES))?;
    let serial =
        section.parsed("token_serial", "text of 1 to 16 bytes", printable(SERIAL_BYTES))?;
    let token = match (label, serial) {
        (Some(label), None) => TokenName::Label(label),
        (None, Some(serial)) => TokenName::Serial(serial),
        (None, None) => {
            return Err(section.missing("token_label", "name the token by it or by token_serial"));
        }
        (Some(_), Some(_)) => {
            return Err(
                section.fault("token_serial", "token_label is there too; keep one of the two")
            );
        }
    };
    let expected = "environment variables in quotes, none of which steers the loader or the shell";
    Ok(Hsm {
        module,
        token,
        pin: secret::read(&section, "pin")?,
        environment: section.strings("environment", expected, is_variable)?,
    })
}

fn is_variable(name: &str, value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let named = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
        && name.len() <= 64
        && name.bytes().all(plain);
    let steers = name.starts_with("LD_")
        || name.starts_with("GLIBC_")
        || matches!(name, "PATH" | "HOME" | "IFS" | "ENV" | "BASH_ENV" | "CREDENTIALS_DIRECTORY");
    named && !steers && value.len() <= 4096 && !value.chars().any(char::is_control)
}
