//! Takes values out of parsed TOML, with the key and line of whatever is wrong.
//!
//! Knows TOML and how to complain; must not know what any key means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Environment, SECTIONS};

type Result<T> = std::result::Result<T, ConfigError>;

/// A whole file: every section in it is known, and every key in every section.
#[derive(Debug)]
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    table: DeTable<'a>,
    /// Where systemd put credentials.
    pub(super) environment: &'a Environment,
}

impl<'a> Document<'a> {
    /// Parses TOML and refuses sections and keys that nobody knows.
    pub(super) fn parse(
        file: &'a Path,
        text: &'a str,
        environment: &'a Environment,
    ) -> Result<Self> {
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().and_then(|span| line_of(text, span.start));
            ConfigError::of_line(file, line, format!("not TOML: {}", first_line(e.message())))
        })?;
        let document = Self { file, text, table: table.into_inner(), environment };
        document.refuse_unknown()?;
        Ok(document)
    }

    fn refuse_unknown(&self) -> Result<()> {
        for (name, value) in &self.table {
            let line = self.line(name);
            let blame =
                |fault| ConfigError::of_key(self.file, line, first_line(name.get_ref()), fault);
            let known = SECTIONS.iter().find(|(section, _)| section == name.get_ref());
            let Some((section, keys)) = known else {
                let all: Vec<_> = SECTIONS.iter().map(|(section, _)| *section).collect();
                return Err(blame(format!("unknown section; there are {}", all.join(", "))));
            };
            let DeValue::Table(table) = value.get_ref() else {
                return Err(blame(format!("must be a section; write [{section}]")));
            };
            for key in table.keys() {
                if !keys.contains(&key.get_ref().as_ref()) {
                    let full = format!("{section}.{}", first_line(key.get_ref()));
                    let fault = format!("unknown key; [{section}] takes {}", keys.join(", "));
                    return Err(ConfigError::of_key(self.file, self.line(key), full, fault));
                }
            }
        }
        Ok(())
    }

    /// Opens a section; an absent one is an empty one.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        let table = match self.table.get(name).map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
        Section { document: self, name, table }
    }

    fn line<T>(&self, at: &Spanned<T>) -> Option<usize> {
        line_of(self.text, at.span().start)
    }
}

/// One section, asked key by key.
#[derive(Debug)]
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    name: &'static str,
    table: Option<&'d DeTable<'d>>,
}

impl Section<'_> {
    /// Where systemd put credentials.
    pub(super) fn environment(&self) -> &Environment {
        self.document.environment
    }

    /// The file, for messages that come later.
    pub(super) fn file(&self) -> &Path {
        self.document.file
    }

    /// Writes `section.key`.
    pub(super) fn full_key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Tells whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Blames a key.
    pub(super) fn fault(&self, key: &str, fault: impl Into<String>) -> ConfigError {
        let line = self.value(key).and_then(|value| self.document.line(value));
        ConfigError::of_key(self.document.file, line, self.full_key(key), fault)
    }

    /// Blames a key for not being there.
    pub(super) fn missing(&self, key: &str, advice: &str) -> ConfigError {
        self.fault(key, format!("missing; {advice}"))
    }

    /// Takes a string and parses it; `expected` completes "must be …".
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let parsed = value.get_ref().as_str().and_then(parse);
        parsed.map(Some).ok_or_else(|| self.fault(key, format!("must be {expected}")))
    }

    /// Takes an absolute path.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        self.parsed(key, "an absolute path, in quotes", absolute)
    }

    /// Takes an integer within bounds.
    pub(super) fn integer(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let integer = value.get_ref().as_integer();
        let parsed = integer.and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        parsed.filter(|n| bounds.contains(n)).ok_or_else(|| {
            let (least, most) = (bounds.start(), bounds.end());
            self.fault(key, format!("must be a whole number from {least} to {most}"))
        })
    }

    /// Takes an integer within bounds that fits 32 bits.
    pub(super) fn small(
        &self,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32> {
        let wide = u64::from(*bounds.start())..=u64::from(*bounds.end());
        let value = self.integer(key, wide, u64::from(default))?;
        u32::try_from(value).map_err(|e| self.fault(key, format!("too large: {e}")))
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.get_ref().as_bool().ok_or_else(|| self.fault(key, "must be true or false"))
    }

    /// Takes a list of strings, each of which must pass.
    pub(super) fn list(
        &self,
        key: &str,
        expected: &str,
        most: usize,
        valid: impl Fn(&str) -> bool,
    ) -> Result<Option<Vec<String>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts: Option<Vec<String>> = value.get_ref().as_array().and_then(|items| {
            let text = |item: &Spanned<DeValue<'_>>| {
                item.get_ref().as_str().filter(|text| valid(text)).map(str::to_owned)
            };
            items.iter().map(text).collect()
        });
        let fits = texts.filter(|texts| !texts.is_empty() && texts.len() <= most);
        fits.map(Some)
            .ok_or_else(|| self.fault(key, format!("must be a list of 1 to {most} {expected}")))
    }

    /// Takes a table of strings, each of which must pass.
    pub(super) fn strings(
        &self,
        key: &str,
        expected: &str,
        valid: impl Fn(&str, &str) -> bool,
    ) -> Result<BTreeMap<String, String>> {
        let Some(value) = self.value(key) else { return Ok(BTreeMap::new()) };
        let pairs = value.get_ref().as_table().and_then(|table| {
            let pair = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &str = AsRef::<str>::as_ref(name.get_ref());
                let text = value.get_ref().as_str().filter(|text| valid(name, text))?;
                Some((name.to_owned(), text.to_owned()))
            };
            table.iter().map(|(k, v)| pair((k, v))).collect::<Option<BTreeMap<_, _>>>()
        });
        pairs.ok_or_else(|| self.fault(key, format!("must be a table of {expected}")))
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        self.table.and_then(|table| table.get(key))
    }
}

/// Parses an absolute path without `..`, NUL or control characters.
pub(super) fn absolute(text: &str) -> Option<PathBuf> {
    let plain = !text.chars().any(char::is_control) && !text.split('/').any(|part| part == "..");
    let path = PathBuf::from(text);
    (plain && path.is_absolute()).then_some(path)
}

fn line_of(text: &str, offset: usize) -> Option<usize> {
    let before = text.as_bytes().get(..offset)?;
    Some(before.iter().fold(1_usize, |line, byte| line.saturating_add(usize::from(*byte == b'\n'))))
}

/// Cuts what a file says to what a message may carry: one short, printable line.
fn first_line(text: &str) -> String {
    text.chars().take_while(|c| !c.is_control()).take(80).collect()
}
