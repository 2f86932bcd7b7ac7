//! Pages of lists: by key, sealed, bound to the caller and to what the list is narrowed by.
//!
//! Sealed and not only authentic: where a page ended may be something that the caller must not know.

use super::View;
use crate::crypto::{Encoder, base32, open, parse_base32, seal};
use crate::error::{Error, Result};

/// Items in a page that names no size.
const DEFAULT: i64 = 100;
/// Items in a page at most.
const MOST: i64 = 1_000;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Items at most.
    pub size: i64,
    /// The key after which it begins; empty for the first page.
    pub after: String,
}

/// A list's tokens: what they are bound to.
#[derive(Debug, Clone)]
pub struct PageToken {
    binding: Vec<u8>,
}

impl PageToken {
    /// Binds tokens to the caller, the action and what the list is narrowed by.
    ///
    /// # Errors
    /// As [`View::identity`].
    pub fn new(view: &View, action: &str, filter: &str) -> Result<Self> {
        let binding = Encoder::new("strongroom/page/v1")
            .text(&view.identity()?.to_string())
            .text(action)
            .text(filter)
            .finish();
        Ok(Self { binding })
    }

    /// Reads a request's page.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a size below zero or a token of another list or caller.
    pub fn open(&self, view: &View, size: i32, token: &str) -> Result<Page> {
        let size = match i64::from(size) {
            0 => DEFAULT,
            size if size > 0 => size.min(MOST),
            _ => return Err(Error::invalid("page_size must not be negative")),
        };
        if token.is_empty() {
            return Ok(Page { size, after: String::new() });
        }
        let foreign = || Error::invalid("page_token is not of this list; begin again without one");
        let bytes = parse_base32(token).map_err(|_malformed| foreign())?;
        let opened = open(&view.keyring().page_key()?, &self.binding, &bytes);
        let after = opened.map_err(|_other| foreign())?;
        let after = String::from_utf8(after.expose().to_vec()).map_err(|_encoding| foreign())?;
        Ok(Page { size, after })
    }

    /// Makes the token of the next page.
    ///
    /// # Errors
    /// [`Error::Sealed`]; [`Error::Internal`] when randomness fails.
    pub fn seal(&self, view: &View, after: &str) -> Result<String> {
        let key = view.keyring().page_key()?;
        let sealed = seal(&key, &self.binding, after.as_bytes(), view.entropy());
        Ok(base32(&sealed.map_err(Error::internal)?))
    }

    /// Cuts a list that was read with one item more than the page holds.
    ///
    /// # Errors
    /// As [`PageToken::seal`].
    pub fn cut<T>(
        &self,
        view: &View,
        page: &Page,
        mut items: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, String)> {
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        if items.len() <= size {
            return Ok((items, String::new()));
        }
        items.truncate(size);
        let next = items.last().map(|last| self.seal(view, &key(last))).transpose()?;
        Ok((items, next.unwrap_or_default()))
    }
}
