//! The local socket of a vault: what may not go over the network, as one line of JSON each way.
//!
//! The server listens on a Unix socket of mode 0600. A client writes one [`Request`] and reads
//! one [`Reply`], each a JSON object that ends with a newline; then both close. The server side
//! imports the types from here.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

pub use super::acceptance::{LogHead, Rollback};
pub use super::backup::BackupReport;
use super::failure::{Exit, Failure, Outcome};
pub use super::recovery::{PinChallenge, RecoveryReport};
use crate::error::Error;

/// Longest line in bytes, its newline included; both sides refuse a longer one.
pub const MOST_LINE_BYTES: usize = 16 * 1024;

/// How long a client waits: a login to an HSM and the check of the store's state lie in between.
const PATIENCE: Duration = Duration::from_mins(2);

/// A PIN or a code on its way: zeroized, never in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "zeroizing")] Zeroizing<String>);

impl Secret {
    /// Takes one.
    #[must_use]
    pub const fn new(secret: Zeroizing<String>) -> Self {
        Self(secret)
    }

    /// Shows it to code that must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

mod zeroizing {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        secret: &Zeroizing<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Asks for the state.
    Status,
    /// Logs into the HSM and takes up the keys.
    Unseal {
        /// The PIN; none to use the configured source.
        #[serde(default)]
        pin: Option<Secret>,
        /// Tries even where the token allows one last attempt.
        #[serde(default)]
        force: bool,
    },
    /// Asks which rollback waits for acceptance.
    Rollback,
    /// Accepts the store that the answer to [`Request::Rollback`] speaks of.
    Accept {
        /// An administrator's login certificate, DER in base64.
        certificate: String,
        /// Its key's signature over [`Rollback::statement`], in base64.
        signature: String,
        /// The ceremony of another that is approved; none where the administrator asks.
        #[serde(default)]
        ceremony: Option<String>,
        /// A code of the administrator's factor; none where one was proven a moment ago.
        #[serde(default)]
        code: Option<Secret>,
    },
    /// Asks for what proves that the PIN of the HSM is known.
    Challenge,
    /// Recovers an administrator.
    RecoverAdmin {
        /// Who.
        name: String,
        /// The request for the new login, PEM.
        csr: String,
        /// The nonce of the answer to [`Request::Challenge`], as it came.
        nonce: String,
        /// What the HSM answers to it, in base64.
        proof: String,
    },
    /// Makes a backup.
    Backup {
        /// A new file, named from the root on.
        out: String,
        /// `whole`, `without-key-wraps` or `key-wraps`.
        content: String,
    },
}

impl Request {
    /// Reads a line on the server's side.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no request. It quotes nothing: the line may hold a PIN.
    pub fn parse(line: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::invalid("the line is no request of this version");
        if line.len() > MOST_LINE_BYTES {
            return Err(malformed());
        }
        serde_json::from_slice(line).map_err(|_may_quote_a_pin| malformed())
    }
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The state.
    Status(Status),
    /// What waits for acceptance.
    Rollback(Rollback),
    /// What the HSM is to answer.
    Challenge(PinChallenge),
    /// A recovery.
    Recovery(RecoveryReport),
    /// A backup that was made.
    Backup(BackupReport),
    /// It was done.
    Done {
        /// What was done, in a sentence.
        message: String,
    },
    /// It was not done.
    Failed {
        /// The reason, as [`crate::Error::reason`] names it.
        reason: String,
        /// The sentence for people.
        message: String,
    },
}

impl From<&Error> for Reply {
    fn from(error: &Error) -> Self {
        Self::Failed { reason: error.reason().to_owned(), message: error.to_string() }
    }
}

/// Whether the vault serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It serves.
    Unsealed,
    /// Its keys are out of memory.
    Sealed,
    /// It waits for administrators to accept a restored store.
    Held,
    /// It does not hear from its store.
    Unheard,
    /// It finishes what runs, and ends.
    Stopping,
}

impl State {
    /// Shows the word that is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Held => "held",
            Self::Unheard => "unheard",
            Self::Stopping => "stopping",
        }
    }
}

/// The state of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The vault's id; none where the store cannot be read.
    pub vault_id: Option<String>,
    /// Whether it serves.
    pub state: State,
    /// Why it does not serve; none where it does.
    pub because: Option<String>,
    /// Whether it is a development vault, for ever.
    pub development: bool,
    /// How many restores of it were accepted; none where its rows cannot be verified now.
    pub restores: Option<i64>,
    /// Where it serves gRPC, `address:port`.
    pub grpc_addr: String,
    /// Where it serves metrics and health, `address:port`.
    pub http_addr: String,
    /// The HSM's token, by its label.
    pub token: String,
    /// The store: `sqlite` or `postgres`.
    pub store: String,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: i64,
    /// What the newest check of the state found; none before the first.
    pub state_check: Option<StateCheck>,
    /// What opens the vault once the HSM is lost; none where that cannot be verified now.
    pub recovery_sets: Option<Vec<SetCoverage>>,
}

/// A recovery set, and how many keys it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetCoverage {
    /// Its id.
    pub id: String,
    /// Where its private half is: `shares` or `token`.
    pub custody: String,
    /// Who holds shares, or the name of the token's key.
    pub holders: Vec<String>,
    /// Keys that are wrapped for it.
    pub keys_covered: i64,
    /// Keys that there are.
    pub keys_total: i64,
}

/// What a check of the state found: the record held against the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateCheck {
    /// When it ended, in Unix milliseconds.
    pub checked_at_ms: i64,
    /// Rows that were compared.
    pub rows: u64,
    /// Rows that are not what the record says.
    pub wrong: u64,
}

/// Asks a vault on this machine.
pub(crate) async fn ask(socket: &Path, request: &Request) -> Outcome<Reply> {
    ask_within(socket, request, PATIENCE).await
}

/// Asks a vault on this machine for what takes its time.
pub(super) async fn ask_within(socket: &Path, request: &Request, most: Duration) -> Outcome<Reply> {
    let exchange = async {
        let stream = UnixStream::connect(socket).await?;
        let (from, mut to) = stream.into_split();
        let mut line = Zeroizing::new(serde_json::to_vec(request)?);
        line.push(b'\n');
        to.write_all(&line).await?;
        let mut answer = Zeroizing::new(Vec::new());
        let most = u64::try_from(MOST_LINE_BYTES).unwrap_or(u64::MAX);
        BufReader::new(from.take(most)).read_until(b'\n', &mut answer).await?;
        Ok::<Reply, std::io::Error>(serde_json::from_slice(&answer)?)
    };
    let unreachable = |error: &dyn fmt::Display| {
        let message = format!("no vault answers on {}: {error}", socket.display());
        Failure::new(Exit::Unavailable, message).hint(
            "run this on the server, as the user that the vault runs as, with the control_socket \
             of its configuration as --socket",
        )
    };
    match tokio::time::timeout(most, exchange).await {
        Ok(Ok(Reply::Failed { reason, message })) => Err(Failure::from_reason(&reason, message)),
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(elapsed) => Err(unreachable(&elapsed)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        let pin = Secret::new(Zeroizing::new("1234".into()));
        for (request, json) in [
            (Request::Status, r#"{"command":"status"}"#),
            (
                Request::Unseal { pin: None, force: false },
                r#"{"command":"unseal","pin":null,"force":false}"#,
            ),
            (
                Request::Unseal { pin: Some(pin), force: true },
                r#"{"command":"unseal","pin":"1234","force":true}"#,
            ),
            (Request::Rollback, r#"{"command":"rollback"}"#),
            (
                Request::Accept {
                    certificate: "MA==".into(),
                    signature: "AA==".into(),
                    ceremony: None,
                    code: Some(Secret::new(Zeroizing::new("123456".into()))),
                },
                r#"{"command":"accept","certificate":"MA==","signature":"AA==","ceremony":null,"code":"123456"}"#,
            ),
            (Request::Challenge, r#"{"command":"challenge"}"#),
            (
                Request::RecoverAdmin {
                    name: "carol".into(),
                    csr: "-----".into(),
                    nonce: "MA==".into(),
                    proof: "AA==".into(),
                },
                r#"{"command":"recover_admin","name":"carol","csr":"-----","nonce":"MA==","proof":"AA=="}"#,
            ),
            (
                Request::Backup { out: "/b".into(), content: "whole".into() },
                r#"{"command":"backup","out":"/b","content":"whole"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), json);
            assert_eq!(Request::parse(json.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn unknown_commands_and_fields_are_refused() {
        for json in [
            "{}",
            r#"{"command":"seal"}"#,
            r#"{"command":"accept"}"#,
            r#"{"command":"unseal","pni":"1234"}"#,
            r#"{"command":"unseal","pin":1234}"#,
        ] {
            let error = Request::parse(json.as_bytes()).unwrap_err();
            assert_eq!(error.reason(), "INVALID", "{json}");
            assert!(!format!("{:?}", Reply::from(&error)).contains("1234"), "{json}");
        }
    }

    #[test]
    fn debug_shows_no_pin() {
        let pin = Some(Secret::new(Zeroizing::new("4711".into())));
        assert!(!format!("{:?}", Request::Unseal { pin, force: false }).contains("4711"));
    }

    #[tokio::test]
    async fn one_line_each_way_and_a_refusal_keeps_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (from, mut to) = stream.into_split();
            let mut line = String::new();
            BufReader::new(from).read_line(&mut line).await.unwrap();
            let reply =
                Reply::Failed { reason: "PRECONDITION".into(), message: "not sealed".into() };
            to.write_all(serde_json::to_string(&reply).unwrap().as_bytes()).await.unwrap();
            to.write_all(b"\n").await.unwrap();
            line
        };
        let request = Request::Unseal { pin: None, force: false };
        let (line, answer) = tokio::join!(serve, ask(&socket, &request));
        assert_eq!(line, "{\"command\":\"unseal\",\"pin\":null,\"force\":false}\n");
        let failure = answer.unwrap_err();
        assert_eq!(
            (failure.exit, failure.reason.as_deref()),
            (Exit::Invalid, Some("PRECONDITION"))
        );
    }

    #[tokio::test]
    async fn a_missing_socket_is_unavailable_and_says_what_to_do() {
        let failure = ask(Path::new("/nonexistent/control.sock"), &Request::Status).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.hint.is_some());
    }
}
