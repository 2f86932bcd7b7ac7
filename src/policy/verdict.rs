//! What a decision says: yes or no, why, on what, until when.
//!
//! A refusal tells the caller what it may do about it and nothing about what exists: the same
//! sentence whether or not the resource is there.

use std::borrow::Cow;
use std::fmt;

use super::Mask;
use crate::error::{Error, Message};
use crate::types::{GrantId, UnixMillis};

/// The outcome of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the action may go on.
    pub allow: bool,
    /// Why, for machines and for the caller.
    pub reason: Reason,
    /// Which grants or which rule made the decision.
    pub by: Basis,
    /// The first moment at which the same facts may be decided differently; `None` is never. A
    /// decision that must not be kept has the moment of its making.
    pub valid_until: Option<UnixMillis>,
    /// What whoever carries it out must keep to.
    pub obligations: Obligations,
    /// Whether a request from elsewhere may be decided differently.
    pub depends_on_source: bool,
    /// Whether a request by somebody of the same identity who logged in otherwise may be.
    pub depends_on_login: bool,
}

/// What made a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// These grants, one for each resource, without repetition.
    Grants(Vec<GrantId>),
    /// This rule: of the built-in policy, or one of those in code that no policy can lift.
    Rule(&'static str),
}

/// What follows from a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Obligations {
    /// How long, in seconds, what is issued may live at most.
    pub max_ttl_s: Option<u64>,
    /// Which fields of what is given are hidden, and how.
    pub masks: Vec<Mask>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// Why a decision went as it did; the text is stable and stands in the record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant),+ }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Shows the stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

reasons! {
    /// The one reason of everything that is allowed.
    Allowed = "allowed",
    /// No such verb.
    UnknownAction = "unknown_action",
    /// The action names no resource, so there is nothing that could be allowed.
    NothingAsked = "nothing_asked",
    /// The caller is suspended.
    IdentitySuspended = "identity_suspended",
    /// The caller was never issued a credential, or is retired.
    IdentityNotActive = "identity_not_active",
    /// The caller's time is over.
    IdentityExpired = "identity_expired",
    /// The credential's time is over.
    CredentialExpired = "credential_expired",
    /// The bootstrap certificate was used for more than it is for.
    BootstrapLimited = "bootstrap_limited",
    /// An administrative action by what is not a human.
    MachinesNeverAdminister = "machines_never_administer",
    /// A factor is asked for, or shown, by what is not a human.
    MachinesHaveNoFactors = "machines_have_no_factors",
    /// The caller has no active owner and asks for something new.
    OwnerInactive = "owner_inactive",
    /// A login certificate for an identity without an active owner.
    SubjectOwnerInactive = "subject_owner_inactive",
    /// A login certificate by somebody who is neither administrator nor the machine's owner.
    MintForbidden = "mint_forbidden",
    /// An administrative action without membership and without an exact grant.
    NotAdministrator = "not_administrator",
    /// A lease or certificate of somebody else.
    NotHolder = "not_holder",
    /// A grant covers it, and wants a newer login, or one by other means.
    LoginUnfit = "login_unfit",
    /// No grant covers all of it.
    NoGrant = "no_grant",
    /// A token asks for what is beyond its scope.
    OutOfScope = "out_of_scope",
    /// A token asks for an administrative action that it does not name.
    TokenLimited = "token_limited",
    /// The handle of a lease was used for something else.
    HandleLimited = "handle_limited",
    /// An elevated call would make what stands by itself.
    ElevationLimited = "elevation_limited",
    /// A worker asked for what is not on its list.
    SystemLimited = "system_limited",
    /// The policy failed, ran out of time or said nothing that can be understood.
    PolicyFailed = "policy_failed",
}

impl Reason {
    /// Finds a reason for refusing by its text.
    #[must_use]
    pub fn lookup_refusal(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text && *reason != Self::Allowed)
    }

    /// Tells the caller what it may do about a refusal; `action` is one of the table of verbs.
    #[must_use]
    pub fn advice(self, action: &str) -> Message {
        Cow::Borrowed(match self {
            Self::Allowed => "this is allowed",
            Self::UnknownAction => "there is no such action; `strongroom actions` lists them all",
            Self::NothingAsked => "name at least one resource",
            Self::IdentitySuspended => {
                "this identity is suspended; ask an administrator to resume it"
            }
            Self::IdentityNotActive => {
                "this identity is retired, or was never issued a credential; ask for another one"
            }
            Self::IdentityExpired => {
                "this identity has expired; ask its owner or an administrator for a new one"
            }
            Self::CredentialExpired => "this credential has expired; use a new one",
            Self::BootstrapLimited => {
                "the bootstrap certificate may only register human administrators and sign their \
                 first login certificate; go on as one of them"
            }
            Self::MachinesNeverAdminister => {
                "only humans administer; ask a human administrator to do this"
            }
            Self::MachinesHaveNoFactors => {
                "only humans have factors; a machine is as good as its credential"
            }
            Self::OwnerInactive => {
                "an identity without an active owner receives nothing new; ask an administrator \
                 to give it one"
            }
            Self::SubjectOwnerInactive => {
                "an identity without an active owner receives nothing new; give it one first"
            }
            Self::MintForbidden => {
                "login certificates, tokens and invitations are issued by an administrator or, for \
                 a machine, by its owner; ask one of them"
            }
            Self::NotAdministrator => {
                return Cow::Owned(format!(
                    "ask an administrator to do this, or for a grant of {action} on exactly what \
                     you asked for"
                ));
            }
            Self::NotHolder => {
                return Cow::Owned(format!(
                    "this is for its holder; ask the holder or an administrator to do it, or for \
                     a grant of {action} on what you asked for"
                ));
            }
            Self::LoginUnfit => "sign in anew, and by the means that the grant for this wants",
            Self::NoGrant => {
                return Cow::Owned(format!(
                    "ask an administrator or the owner of the resource for a grant of {action} on \
                     what you asked for"
                ));
            }
            Self::OutOfScope => {
                "this is beyond the scope of the token; ask for one whose scope covers it"
            }
            Self::TokenLimited => {
                "a token administers only what its scope names exactly, action and resource, and \
                 never where its uses are counted; use a login certificate"
            }
            Self::HandleLimited => "the handle of a lease renews or revokes that lease alone",
            Self::ElevationLimited => {
                "an elevated call makes nothing that stands by itself, unless its role says so"
            }
            Self::SystemLimited => "workers do only what the list in code says",
            Self::PolicyFailed => {
                "the policy could not be evaluated, so nothing is allowed; ask the operator"
            }
        })
    }

    /// Makes the error that a refused caller gets.
    #[must_use]
    pub fn refusal(self, action: &str) -> Error {
        Error::Denied(self.advice(action))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verdict {
    /// Refuses by a rule that has the reason's name.
    #[must_use]
    pub const fn refuse(reason: Reason, valid_until: Option<UnixMillis>) -> Self {
        Self {
            allow: false,
            reason,
            by: Basis::Rule(reason.as_str()),
            valid_until,
            obligations: Obligations { max_ttl_s: None, masks: Vec::new() },
            depends_on_source: false,
            depends_on_login: false,
        }
    }

    /// Says in one line which grants or which rule decided, and until when that holds.
    #[must_use]
    pub fn explain(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.allow { "allowed" } else { "refused" };
        write!(f, "{what} by {}", self.by)?;
        if let Some(max_ttl_s) = self.obligations.max_ttl_s {
            write!(f, ", for at most {max_ttl_s} s")?;
        }
        if !self.obligations.masks.is_empty() {
            f.write_str(", masked")?;
        }
        if let Some(until) = self.valid_until {
            write!(f, ", until {until} at the latest")?;
        }
        if self.depends_on_source {
            f.write_str(", for this source address")?;
        }
        if self.depends_on_login {
            f.write_str(", for this login")?;
        }
        Ok(())
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Grants(ids) => {
                f.write_str(if ids.len() == 1 { "grant" } else { "grants" })?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
        }
    }
}
