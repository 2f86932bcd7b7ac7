//! How keys are shown to people.

use crate::cli::identities::by;
use crate::cli::output::{fields, table, time};
use crate::cli::span::show_seconds;
use crate::proto::{GetKeyResponse, KeyUsage, NamedKey};

pub(super) const HEADERS: [&str; 7] =
    ["NAME", "ALGORITHM", "PLACEMENT", "STATE", "VERSION", "OWNER", "LAST USED"];

pub(super) fn row(key: &NamedKey) -> [String; 7] {
    [
        key.name.clone(),
        key.algorithm.clone(),
        key.placement.clone(),
        key.state.clone(),
        key.version.to_string(),
        key.owner.clone(),
        key.last_use.as_ref().map(|last| time(last.at_ms)).unwrap_or_default(),
    ]
}

pub(super) const USAGE: [&str; 6] = ["DAY", "BY", "VERSION", "FOR", "USES", "LAST"];

pub(super) fn usage_row(usage: &KeyUsage) -> [String; 6] {
    // Of a moment of the day, its date.
    let day = time(usage.day_ms).split('T').next().unwrap_or_default().to_owned();
    [
        day,
        usage.by.clone(),
        usage.version.to_string(),
        usage.purpose.clone(),
        usage.uses.to_string(),
        time(usage.last_at_ms),
    ]
}

pub(super) fn key_text(key: &NamedKey) -> String {
    let labels = key.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let rotates = match key.rotate_every_s {
        0 => String::new(),
        every => format!("every {}, next {}", show_seconds(every), time(key.rotates_at_ms)),
    };
    let last_use = key.last_use.as_ref().map(|last| {
        format!("{}, version {}, {}", by(last.at_ms, &last.by), last.version, last.purpose)
    });
    fields(&[
        ("name", key.name.clone()),
        ("id", key.id.clone()),
        ("algorithm", key.algorithm.clone()),
        ("placement", key.placement.clone()),
        ("origin", key.origin.clone()),
        ("signs", if key.purpose == "artifacts" { "artifacts alone" } else { "" }.to_owned()),
        ("may be backed up", if key.may_back_up { "yes" } else { "" }.to_owned()),
        ("state", key.state.clone()),
        ("newest version", key.version.to_string()),
        ("oldest version used", key.min_version.to_string()),
        ("rotates", rotates),
        ("owner", key.owner.clone()),
        ("labels", labels.collect::<Vec<_>>().join(", ")),
        ("revision", key.revision.to_string()),
        ("created", by(key.created_at_ms, &key.created_by)),
        ("changed", by(key.changed_at_ms, &key.changed_by)),
        ("last used", last_use.unwrap_or_default()),
    ])
}

pub(super) fn shown_text(shown: &GetKeyResponse) -> String {
    let key = shown.key.clone().unwrap_or_default();
    let rows = shown.versions.iter().map(|version| {
        let retired = version.version < key.min_version && version.state == "live";
        let state = if retired { "retired" } else { version.state.as_str() };
        [
            version.version.to_string(),
            state.to_owned(),
            by(version.created_at_ms, &version.created_by),
            match version.reserved {
                0 => String::new(),
                reserved => reserved.to_string(),
            },
        ]
    });
    let versions = table(["VERSION", "STATE", "MADE", "RESERVED"], rows);
    format!("{}\n{versions}", key_text(&key))
}
