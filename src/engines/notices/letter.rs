//! A notice as it is sent: the same for each sink, and the same again when it is sent again.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::template::Templates;
use crate::error::{Error, Result};
use crate::store::notices::NoticeRow;
use crate::types::{NoticeKind, UnixMillis};
use crate::vault::Recipients;

/// What is sent.
#[derive(Debug)]
pub(super) struct Letter {
    /// Its id: whoever gets it twice knows it by that.
    pub(super) id: String,
    /// When what it is about happened.
    pub(super) at: UnixMillis,
    /// On one line.
    pub(super) subject: String,
    /// In words.
    pub(super) text: String,
    /// As JSON.
    pub(super) body: Bytes,
    /// Whom it is for.
    pub(super) recipients: Vec<Recipients>,
}

/// The body of a delivery; `docs/notices.md` explains every field.
#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: NoticeWord,
    timestamp: String,
    sequence: i64,
    vault: &'a str,
    subject: &'a str,
    text: &'a str,
    recipients: &'a [Recipients],
    data: &'a Map<String, Value>,
}

#[derive(Debug)]
struct NoticeWord(NoticeKind);

impl Serialize for NoticeWord {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl Letter {
    /// Writes a notice of a vault out.
    ///
    /// # Errors
    /// [`Error::Internal`] when a row holds what it must not.
    pub(super) fn new(
        row: &NoticeRow,
        facts: &Map<String, Value>,
        recipients: Vec<Recipients>,
        vault: &str,
        templates: &Templates,
    ) -> Result<Self> {
        let timestamp = row.created_at.to_string();
        let (subject, text) = templates.word(row.kind, vault, &timestamp, facts)?;
        let body = Body {
            r#type: NoticeWord(row.kind),
            timestamp,
            sequence: row.id.0,
            vault,
            subject: &subject,
            text: &text,
            recipients: &recipients,
            data: facts,
        };
        let body = serde_json::to_vec(&body).map_err(Error::internal)?.into();
        // The request's id as well: after a restore, numbers are given anew.
        let id = format!("ntc_{}_{}", row.id.0, row.request);
        Ok(Self { id, at: row.created_at, subject, text, body, recipients })
    }
}
