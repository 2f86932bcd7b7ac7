//! Why a token is not believed. The record counts the short word, an administrator who tests a token
//! reads the sentence, and whoever presents one hears neither.

use crate::error::Error;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What the record counts it as.
    pub word: &'static str,
    /// What is wrong, for an administrator.
    pub text: String,
}

impl Why {
    pub(super) fn new(word: &'static str, text: impl Into<String>) -> Self {
        Self { word, text: text.into() }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new("TOKEN_MALFORMED", text)
    }

    pub(super) fn claims(text: impl Into<String>) -> Self {
        Self::new("TOKEN_CLAIMS", text)
    }

    pub(super) fn time(text: impl Into<String>) -> Self {
        Self::new("TOKEN_TIME", text)
    }
}

/// What came of looking at a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is not believed.
    Token(Why),
    /// Nothing is known of it: what the vault itself answers.
    Vault(Error),
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        Self::Token(why)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Vault(error)
    }
}

/// The one sentence of every refusal: it tells neither what exists nor what was wrong.
pub(super) fn refused() -> Error {
    Error::Unauthenticated(
        "the token is not accepted for this identity; `strongroom issuer test` tells an \
         administrator why"
            .into(),
    )
}
