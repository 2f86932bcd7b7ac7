//! What went wrong, for people and for scripts: a message, a reason, what to do next, an exit
//! code.

use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use super::output::{Format, escape, json_text};
use crate::error::Error;
use crate::proto::{ErrorInfo, RpcStatus};

/// The result of one command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why the vault wants a factor proven first.
pub(super) const STEP_UP: &str = "STEP_UP_REQUIRED";

/// What `--help` and `docs/cli.md` say about exit codes.
pub const EXIT_CODES: &str = "Exit codes:
  0  it went as asked
  1  something unexpected
  2  the command line is wrong
  3  not authenticated: no credential, one that is not accepted, or a factor is wanted
  4  denied
  5  not found
  6  taken, or changed by somebody else meanwhile
  7  the request is invalid, or the state does not allow it
  8  unavailable, sealed, over a limit or too late: try again
  9  verification failed";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something unexpected.
    Unexpected = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No credential, or one that is not accepted.
    Unauthenticated = 3,
    /// Policy refused.
    Denied = 4,
    /// It does not exist.
    NotFound = 5,
    /// It is taken, or somebody changed it meanwhile.
    Conflict = 6,
    /// The request is invalid, or the state does not allow it.
    Invalid = 7,
    /// Try again.
    Unavailable = 8,
    /// The record is not what it says it is.
    Unverified = 9,
}

impl Exit {
    /// Shows the number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Unauthenticated => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::Invalid => 7,
            Self::Unavailable => 8,
            Self::Unverified => 9,
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// The sentence for people.
    pub message: String,
    /// The reason for machines, where the vault gave one.
    pub reason: Option<String>,
    /// The id that the record and the log know the request by.
    pub request_id: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether what was printed tells it already; as JSON it is not told twice.
    pub told: bool,
}

impl Failure {
    /// Makes a failure of this program's own.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let (reason, request_id, hint) = (None, None, None);
        Self { exit, message: message.into(), reason, request_id, hint, told: false }
    }

    /// Makes a failure of the command line.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that what was printed tells it already.
    #[must_use]
    pub const fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// Makes a failure from an answer with a reason that the vault gave.
    #[must_use]
    pub fn from_reason(reason: &str, message: impl Into<String>) -> Self {
        Self {
            exit: exit_of_reason(reason),
            message: message.into(),
            reason: Some(reason.to_owned()),
            request_id: None,
            hint: hint_of(reason).map(str::to_owned),
            told: false,
        }
    }

    /// Writes what standard error gets, without what a terminal would obey.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Human => self.human(),
            Format::Json if self.told => String::new(),
            Format::Json => {
                let error = json!({
                    "message": self.message,
                    "reason": self.reason,
                    "request_id": self.request_id,
                    "hint": self.hint,
                    "exit_code": self.exit.code(),
                });
                json_text(&json!({ "error": error }))
            }
        }
    }

    fn human(&self) -> String {
        let mut lines = vec![format!("error: {}", escape(&self.message))];
        if let Some(reason) = &self.reason {
            lines.push(format!("reason: {}", escape(reason)));
        }
        if let Some(id) = &self.request_id {
            lines.push(format!("request: {}", escape(id)));
        }
        if let Some(hint) = &self.hint {
            lines.push(format!("next: {}", escape(hint)));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

impl From<Error> for Failure {
    /// Takes an error of our own checks: what is invalid was wrong on the command line.
    fn from(error: Error) -> Self {
        if let Error::Invalid(message) = error {
            return Self::usage(message);
        }
        Self::from_reason(error.reason(), error.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let info = error_info(status.details());
        let local = causes(&status);
        if let (None, Some(causes)) = (&info, local) {
            return Self::new(Exit::Unavailable, format!("the vault does not answer: {causes}"))
                .hint(
                    "check --addr, --cacert, --cert and --key (STRONGROOM_ADDR, STRONGROOM_CACERT, \
                     STRONGROOM_CERT, STRONGROOM_KEY), and on the server `strongroom status`",
                );
        }
        let reason = info.as_ref().map(|info| info.reason.clone());
        let hint = reason.as_deref().map_or_else(|| hint_of(reason_of(status.code())), hint_of);
        let message = if status.message().is_empty() {
            status.code().description()
        } else {
            status.message()
        };
        let stepped = reason.as_deref() == Some(STEP_UP);
        Self {
            exit: if stepped { exit_of_reason(STEP_UP) } else { exit_of(status.code()) },
            message: message.to_owned(),
            reason,
            request_id: info.and_then(|mut i| i.metadata.remove(ErrorInfo::REQUEST_ID)),
            hint: hint.map(str::to_owned),
            told: false,
        }
    }
}

/// Finds our reason among the details of a status (`google.rpc.Status`).
pub(super) fn error_info(details: &[u8]) -> Option<ErrorInfo> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.into_iter().find(|any| any.type_url == ErrorInfo::TYPE_URL)?;
    ErrorInfo::decode(any.value.as_slice()).ok()
}

/// Joins the causes of a failure on this side of the wire; nothing for one the vault sent.
fn causes(status: &Status) -> Option<String> {
    let mut next = std::error::Error::source(status);
    let mut causes: Vec<String> = Vec::new();
    while let Some(cause) = next.filter(|_| causes.len() < 8) {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    (!causes.is_empty()).then(|| causes.join(": "))
}

const fn exit_of(code: Code) -> Exit {
    match code {
        Code::Unauthenticated => Exit::Unauthenticated,
        Code::PermissionDenied => Exit::Denied,
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists | Code::Aborted => Exit::Conflict,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => Exit::Invalid,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
            Exit::Unavailable
        }
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            Exit::Unexpected
        }
    }
}

fn exit_of_reason(reason: &str) -> Exit {
    match reason {
        "UNAUTHENTICATED" | "SPENT" | "STEP_UP_REQUIRED" => Exit::Unauthenticated,
        "DENIED" | "TAMPERED" => Exit::Denied,
        "NOT_FOUND" => Exit::NotFound,
        "ALREADY_EXISTS" | "CONFLICT" => Exit::Conflict,
        "INVALID" | "PRECONDITION" | "OPENED" | "CEREMONY_OPEN" => Exit::Invalid,
        "EXHAUSTED" | "UNAVAILABLE" | "SEALED" | "OUTCOME_UNKNOWN" | "DEADLINE" => {
            Exit::Unavailable
        }
        _ => Exit::Unexpected,
    }
}

/// The reason that a bare code stands for, where a middleman dropped the details.
const fn reason_of(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "DENIED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::Aborted => "CONFLICT",
        Code::InvalidArgument | Code::OutOfRange => "INVALID",
        Code::FailedPrecondition => "PRECONDITION",
        Code::Unavailable => "UNAVAILABLE",
        // Whoever stands between cut the call short.
        Code::DeadlineExceeded | Code::Cancelled => "DEADLINE",
        Code::ResourceExhausted => "EXHAUSTED",
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            "INTERNAL"
        }
    }
}

/// Says what to do next.
fn hint_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "INVALID" => "fix the request; --help shows what the command takes",
        "UNAUTHENTICATED" => {
            "give a current login certificate of an active identity with --cert and --key; an \
             administrator signs one with `strongroom identity issue-cert NAME --csr FILE`"
        }
        "SPENT" => {
            "a token with counted uses pays for so many calls; `strongroom token create` makes \
             another"
        }
        "OPENED" => {
            "if that was not you, somebody else has it: tell whoever made it, who replaces what was in \
             it (`strongroom wrap show ACCESSOR` shows them the same)"
        }
        "STEP_UP_REQUIRED" => {
            "prove one with `strongroom factor verify` and repeat; on a terminal it is asked for"
        }
        "DENIED" => {
            "`strongroom whoami` shows what you may do; for more, ask an administrator for a \
             grant: `strongroom actions` names the actions"
        }
        "TAMPERED" => {
            "call the operator: somebody wrote to the vault's database by hand; the log has the \
             alarm, and docs/operating.md says what to do"
        }
        "NOT_FOUND" => "check the name; the noun's `list` shows what there is",
        "ALREADY_EXISTS" => "choose another name, or `show` what is there",
        "CONFLICT" => "somebody changed it meanwhile: look at it again and repeat",
        "PRECONDITION" => "change the state that the message names, then repeat",
        "CEREMONY_OPEN" => {
            "nothing was done yet: have another administrator look with `strongroom ceremony show` \
             and approve, then repeat the same command"
        }
        "EXHAUSTED" => "wait a little and repeat, or ask the operator for a higher limit",
        "UNAVAILABLE" => "repeat later; on the server, `strongroom status` and the log say more",
        "SEALED" => "an operator runs `strongroom unseal` on the server",
        "OUTCOME_UNKNOWN" => "look whether it took effect (`show`, `list`) before repeating",
        "DEADLINE" => "repeat; what took effect is in the record",
        "INTERNAL" => "give the operator the request's id; the cause is in the log",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StepUp;

    fn refused(reason: &str) -> Status {
        let info = ErrorInfo {
            reason: reason.into(),
            domain: ErrorInfo::DOMAIN.into(),
            metadata: [(ErrorInfo::REQUEST_ID.to_owned(), "r-1".to_owned())].into(),
        };
        let details = RpcStatus {
            code: 14,
            message: "the vault is sealed".into(),
            details: vec![prost_types::Any {
                type_url: ErrorInfo::TYPE_URL.into(),
                value: info.encode_to_vec(),
            }],
        };
        Status::with_details(
            Code::Unavailable,
            "the vault is sealed",
            details.encode_to_vec().into(),
        )
    }

    #[test]
    fn the_machine_reason_is_read_from_the_details() {
        let failure = Failure::from(refused("SEALED"));
        assert_eq!(failure.exit, Exit::Unavailable);
        assert_eq!(failure.reason.as_deref(), Some("SEALED"));
        assert_eq!(failure.request_id.as_deref(), Some("r-1"));
        assert!(failure.hint.unwrap().contains("unseal"));
    }

    #[test]
    fn details_that_are_not_ours_are_no_reason() {
        for details in [&b""[..], b"\xff\xff\xff", b"hello"] {
            assert_eq!(error_info(details), None);
        }
    }

    #[test]
    fn each_code_has_its_exit() {
        for (code, exit) in [
            (Code::Unauthenticated, 3),
            (Code::PermissionDenied, 4),
            (Code::NotFound, 5),
            (Code::AlreadyExists, 6),
            (Code::Aborted, 6),
            (Code::InvalidArgument, 7),
            (Code::FailedPrecondition, 7),
            (Code::Unavailable, 8),
            (Code::DeadlineExceeded, 8),
            (Code::Cancelled, 8),
            (Code::Internal, 1),
        ] {
            assert_eq!(exit_of(code).code(), exit, "{code:?}");
            assert_eq!(exit_of_reason(reason_of(code)).code(), exit, "{code:?}");
        }
    }

    #[test]
    fn every_reason_of_ours_has_a_hint() {
        for error in [
            Error::invalid("x"),
            Error::Unauthenticated("x".into()),
            Error::Spent("x".into()),
            Error::Opened("x".into()),
            Error::Denied("x".into()),
            Error::StepUp(StepUp { kinds: vec![], within_s: 1 }),
            Error::not_found("x"),
            Error::AlreadyExists("x".into()),
            Error::Conflict("x".into()),
            Error::precondition("x"),
            Error::Ceremony("x".into()),
            Error::Exhausted("x".into()),
            Error::unavailable("x"),
            Error::Sealed,
            Error::OutcomeUnknown,
            Error::Deadline,
            Error::Tampered { table: "grants", id: "x".into() },
            Error::TamperedRow("x".into()),
            Error::Internal,
        ] {
            assert!(hint_of(error.reason()).is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_hostile_message_cannot_command_the_terminal() {
        let failure = Failure::new(Exit::Unexpected, "a\x1b[2Jb\nerror: forged");
        let shown = failure.render(Format::Human);
        assert_eq!(shown, "error: a\\u{1b}[2Jb\\nerror: forged\n");
        assert!(!failure.render(Format::Json).contains('\x1b'));
    }
}
