//! How secrets are shown to people.

use super::args::Chosen;
use crate::cli::identities::by;
use crate::cli::output::{fields, time};
use crate::cli::span::show_seconds;
use crate::proto::{SecretItem, SecretMetadata, SecretVersion};

pub(super) const HEADERS: [&str; 5] = ["PATH", "VERSION", "OWNER", "WRITTEN", "LABELS"];

pub(super) fn row(item: &SecretItem) -> [String; 5] {
    let labels = item.labels.iter().map(|(key, value)| format!("{key}={value}"));
    [
        item.path.clone(),
        item.version.to_string(),
        item.owner.clone(),
        time(item.written_at_ms),
        labels.collect::<Vec<_>>().join(" "),
    ]
}

pub(super) fn version_text(path: &str, version: i64) -> String {
    fields(&[("path", path.to_owned()), ("version", version.to_string())])
}

pub(super) fn versions_text(chosen: &Chosen, done: &str, versions: &[i64]) -> String {
    let numbers = versions.iter().map(ToString::to_string).collect::<Vec<_>>();
    let numbers = if numbers.is_empty() { "nothing".to_owned() } else { numbers.join(", ") };
    fields(&[("path", chosen.path.clone()), (done, numbers)])
}

pub(super) fn metadata_text(found: &SecretMetadata) -> String {
    let newest: SecretVersion = found.newest.clone().unwrap_or_default();
    let labels = found.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let last_read = match found.last_read_version {
        0 => String::new(),
        version => {
            let by = by(found.last_read_at_ms, &found.last_read_by);
            format!("version {version}, {by}")
        }
    };
    let replace = match newest.replace_since_ms {
        0 => String::new(),
        since => format!("since {}, read under elevation {}", time(since), newest.read_under),
    };
    let contained = if found.owner_active { "" } else { " (not active)" };
    fields(&[
        ("path", found.path.clone()),
        ("id", found.id.clone()),
        ("owner", format!("{}{contained}", found.owner)),
        ("labels", labels.collect::<Vec<_>>().join(", ")),
        ("newest version", newest.version.to_string()),
        ("state", newest.state.clone()),
        ("written", by(newest.created_at_ms, &newest.created_by)),
        ("bytes", newest.len_bytes.to_string()),
        ("ends", time(newest.expires_at_ms)),
        ("destroyed", time(newest.destroyed_at_ms)),
        ("to be replaced", replace),
        ("last read", last_read),
        ("versions kept", found.max_versions.to_string()),
        ("undelete within", show_seconds(found.window_s)),
        ("revision", found.revision.to_string()),
        ("created", by(found.created_at_ms, &found.created_by)),
        ("changed", by(found.changed_at_ms, &found.changed_by)),
    ])
}
