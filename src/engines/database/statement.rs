//! Statements of a role: SQL with named parameters, read once by PostgreSQL's lexical rules.
//!
//! A parameter stands where a whole token stands, never inside quotes, so that what a driver puts
//! there, quoted, can only be that token. One text is one statement, which begins with a word of a
//! short list: transactions and session settings are the driver's business.
//!
//! Source: PostgreSQL 15 manual, section 4.1 (lexical structure).

use serde::{Deserialize, Serialize};

use super::target::{Result, TargetError};

const STATEMENT_BYTES: usize = 8_192;
const FIRST_WORDS: &[&str] = &[
    "alter", "comment", "create", "delete", "do", "grant", "insert", "revoke", "security",
    "select", "update",
];

/// A parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// `{{name}}`: the role's name, as an identifier.
    Name,
    /// `{{password}}`: the verifier, as a string.
    Password,
    /// `{{expiration}}`: when the credential ends, as a string.
    Expiration,
}

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as the administrator wrote it.
    Text(String),
    /// A place to fill.
    Param(Param),
}

/// One statement, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Statement {
    source: String,
    pieces: Vec<Piece>,
}

impl Statement {
    /// Shows the parts in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Tells whether the statement uses a parameter.
    #[must_use]
    pub fn uses(&self, param: Param) -> bool {
        self.pieces.contains(&Piece::Param(param))
    }
}

impl From<Statement> for String {
    fn from(statement: Statement) -> Self {
        statement.source
    }
}

impl TryFrom<String> for Statement {
    type Error = TargetError;

    fn try_from(source: String) -> Result<Self> {
        if source.len() > STATEMENT_BYTES || source.contains('\0') {
            return invalid("a statement has at most 8192 bytes and no NUL");
        }
        let first: String =
            source.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        if !FIRST_WORDS.contains(&first.to_ascii_lowercase().as_str()) {
            return invalid(
                "a statement begins with alter, comment, create, delete, do, grant, insert, \
                 revoke, security, select or update",
            );
        }
        let mut reader = Reader { rest: &source, text: String::new(), pieces: Vec::new() };
        while reader.step()? {}
        let pieces = reader.finish();
        Ok(Self { source, pieces })
    }
}

impl TryFrom<&str> for Statement {
    type Error = TargetError;

    fn try_from(source: &str) -> Result<Self> {
        source.to_owned().try_into()
    }
}

fn invalid<T>(why: &'static str) -> Result<T> {
    Err(TargetError::Invalid(why.into()))
}

struct Reader<'a> {
    rest: &'a str,
    /// Text since the last parameter.
    text: String,
    pieces: Vec<Piece>,
}

impl Reader<'_> {
    /// Reads one token, or one character of it; answers `false` at the end.
    fn step(&mut self) -> Result<bool> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(false);
        };
        if self.rest.starts_with("{{") {
            return self.param();
        }
        if self.rest.starts_with("--") || self.rest.starts_with("/*") {
            return invalid("a statement holds no comments");
        }
        match first {
            '\'' => {
                let len = quoted_len(self.rest, '\'', self.is_escape_string());
                self.quoted(len)
            }
            '"' => self.quoted(quoted_len(self.rest, '"', false)),
            '$' if !self.text.chars().next_back().is_some_and(is_word) => {
                match dollar_tag(self.rest) {
                    Some(tag) => {
                        let body = self.rest.get(tag.len()..).unwrap_or_default();
                        let end = body.find(tag).and_then(|at| at.checked_add(tag.len() * 2));
                        self.quoted(end)
                    }
                    None => Ok(self.plain(first)),
                }
            }
            ';' if self.rest.get(1..).is_some_and(|rest| rest.trim().is_empty()) => Ok(false),
            ';' => invalid("a statement is one statement: put each into a text of its own"),
            _ => Ok(self.plain(first)),
        }
    }

    fn plain(&mut self, c: char) -> bool {
        self.text.push(c);
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        true
    }

    fn quoted(&mut self, len: Option<usize>) -> Result<bool> {
        let Some((token, rest)) = len.and_then(|len| self.rest.split_at_checked(len)) else {
            return invalid("a quote of a statement does not end");
        };
        if token.contains("{{") {
            return invalid("a parameter stands inside quotes: it is quoted by the vault");
        }
        self.text.push_str(token);
        self.rest = rest;
        Ok(true)
    }

    fn param(&mut self) -> Result<bool> {
        let Some((name, rest)) =
            self.rest.strip_prefix("{{").and_then(|rest| rest.split_once("}}"))
        else {
            return invalid("a parameter of a statement does not end");
        };
        let param = match name {
            "name" => Param::Name,
            "password" => Param::Password,
            "expiration" => Param::Expiration,
            _ => return invalid("the parameters are {{name}}, {{password}} and {{expiration}}"),
        };
        // Beside a word or a quote the token would become another one.
        let before = self.text.chars().next_back();
        let after = rest.chars().next();
        let apart = before.is_some_and(|c| c.is_ascii_whitespace() || "(,=.".contains(c))
            && after.is_none_or(|c| c.is_ascii_whitespace() || "),;.".contains(c));
        if !apart {
            return invalid("a parameter stands alone, between spaces, commas or brackets");
        }
        self.pieces.push(Piece::Text(std::mem::take(&mut self.text)));
        self.pieces.push(Piece::Param(param));
        self.rest = rest;
        Ok(true)
    }

    /// Tells whether what came last is the `E` of `E'…'`.
    fn is_escape_string(&self) -> bool {
        let mut back = self.text.chars().rev();
        matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(is_word)
    }

    fn finish(mut self) -> Vec<Piece> {
        if !self.text.is_empty() {
            self.pieces.push(Piece::Text(self.text));
        }
        self.pieces
    }
}

/// Measures a quoted token with both its quotes; a doubled quote stands for itself.
fn quoted_len(rest: &str, quote: char, backslash: bool) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslash {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at.checked_add(quote.len_utf8());
        }
    }
    None
}

/// Reads the `$tag$` that opens a dollar-quoted string.
fn dollar_tag(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix('$')?;
    let len = name.find('$')?;
    let tag = name.get(..len)?;
    let fits = tag.chars().all(is_word) && !tag.starts_with(|c: char| c.is_ascii_digit());
    if fits { rest.get(..len.checked_add(2)?) } else { None }
}

/// Tells characters that continue an identifier.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_where_a_token_may_stand() {
        let create: Statement =
            "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}};\n"
                .try_into()
                .unwrap();
        assert_eq!(
            create.pieces(),
            [
                Piece::Text("CREATE ROLE ".into()),
                Piece::Param(Param::Name),
                Piece::Text(" LOGIN PASSWORD ".into()),
                Piece::Param(Param::Password),
                Piece::Text(" VALID UNTIL ".into()),
                Piece::Param(Param::Expiration),
            ]
        );
        for good in [
            "GRANT a, b TO {{name}}",
            "  grant SELECT ON \"we\"\"ird; --\" TO {{name}}",
            "SELECT 'it''s; {fine}', E'\\'; ', $$a;b$$, $x$ $$; $x$, $1",
            "DO $body$ BEGIN PERFORM 1; END $body$",
            "ALTER DEFAULT PRIVILEGES FOR ROLE o GRANT SELECT ON TABLES TO {{name}};",
        ] {
            assert!(Statement::try_from(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn statements_that_could_become_others_are_refused() {
        for (bad, why) in [
            ("", "begins with"),
            ("COMMIT", "begins with"),
            ("SET ROLE x", "begins with"),
            ("-- GRANT", "begins with"),
            ("GRANT a TO {{name}} -- x", "no comments"),
            ("GRANT /* x */ a TO {{name}}", "no comments"),
            ("GRANT a TO '{{name}}'", "inside quotes"),
            ("GRANT a TO \"{{name}}\"", "inside quotes"),
            ("DO $$ BEGIN {{name}} END $$", "inside quotes"),
            ("SELECT E'\\'{{name}}'", "inside quotes"),
            ("SELECT 'open", "does not end"),
            ("SELECT \"open", "does not end"),
            ("SELECT $a$ open $b$", "does not end"),
            ("SELECT {{name", "does not end"),
            ("GRANT a TO {{nobody}}", "the parameters are"),
            ("GRANT a TO {{ name }}", "the parameters are"),
            ("SELECT E{{password}}", "stands alone"),
            ("SELECT 'a'{{password}}", "stands alone"),
            ("SELECT x{{name}}", "stands alone"),
            ("SELECT {{name}}{{name}}", "stands alone"),
            ("SELECT {{name}}'", "stands alone"),
            ("SELECT 1; DROP TABLE x", "one statement"),
            ("GRANT a TO {{name}}\0", "no NUL"),
        ] {
            let error = Statement::try_from(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
        assert!(Statement::try_from(format!("SELECT {}", "1".repeat(8_192))).is_err());
    }
}
