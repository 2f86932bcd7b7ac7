//! `strongroom audit …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tonic::Request;

use super::args::Global;
use super::export::export;
use super::failure::Outcome;
use super::files::write_public;
use super::output::{
    Format, escape_lines, fields, print, show, show_list, show_next, stream_ended, time,
};
use super::session::{Session, Wire, collect};
use super::span::Span;
use super::verify::{VerifyArgs, verify};
use crate::proto::record_service_client::RecordServiceClient;
use crate::proto::{
    Entry, EntryFilter, GetCheckpointRequest, GetCheckpointResponse, ListEntriesRequest,
    TailEntriesRequest,
};
use crate::types::{Clock as _, SystemClock};

/// `strongroom audit …`
#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// List entries, newest first
    List(List),
    /// Print entries as they come
    Tail(Tail),
    /// Print the newest signed checkpoint, to be kept somewhere else
    Checkpoint {
        /// A new file for it; standard output where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// A new file for the key that verifies it.
        #[arg(long, value_name = "FILE")]
        key_out: Option<PathBuf>,
    },
    /// Check the whole record against a signed checkpoint; names the first entry that is wrong
    Verify(VerifyArgs),
    /// Copy the record into a directory that can be verified without the vault
    Export {
        /// The directory; one that holds an earlier copy is brought up to date.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Which entries.
#[derive(Debug, Clone, Args)]
pub(super) struct Filter {
    /// Only those of this identity.
    #[arg(long, default_value = "")]
    identity: String,
    /// Only those of this action.
    #[arg(long, default_value = "")]
    action: String,
    /// Only those on these resources, like 'database/**'.
    #[arg(long, value_name = "PATTERN", default_value = "")]
    resource: String,
    /// Only those on this resource, or about this lease or certificate, by its id.
    #[arg(long, value_name = "ID", default_value = "")]
    object: String,
    /// Only those that ended so: ok, a reason like DENIED, or `refused` for all but ok.
    #[arg(long, default_value = "")]
    outcome: String,
    /// Only those of the last while, like 1h.
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    /// Only those that are older than this, like 5m.
    #[arg(long, value_name = "SPAN")]
    until: Option<Span>,
}

impl Filter {
    fn message(&self) -> EntryFilter {
        let now = SystemClock.now().0;
        let ago = |span: Option<Span>| {
            span.map_or(0, |s| now.saturating_sub(s.seconds().saturating_mul(1_000)))
        };
        EntryFilter {
            identity: self.identity.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            outcome: self.outcome.clone(),
            object_id: self.object.clone(),
            from_ms: ago(self.since),
            to_ms: ago(self.until),
        }
    }
}

/// What `audit list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Which entries.
    #[command(flatten)]
    filter: Filter,
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Show what each says in detail, and the reason that was given, in a column more.
    #[arg(long)]
    detail: bool,
}

/// What `audit tail` takes.
#[derive(Debug, Clone, Args)]
pub struct Tail {
    /// Which entries.
    #[command(flatten)]
    filter: Filter,
    /// How many of the newest come first.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(0..=1_000))]
    last: i32,
}

/// Bytes of an answer at most: 256 entries of 64 KiB in a bundle, and the names beside them.
const ANSWER_BYTES: usize = 64 << 20;

/// A client that takes a whole bundle.
pub(super) fn client(wire: Wire) -> RecordServiceClient<Wire> {
    RecordServiceClient::new(wire).max_decoding_message_size(ANSWER_BYTES)
}

/// Runs `strongroom audit …`. Verifying an export needs no vault, and so no connection.
pub(super) async fn run(global: &Global, command: &RecordCommand) -> Outcome {
    match command {
        RecordCommand::Verify(args) => verify(global, args).await,
        RecordCommand::List(args) => list(&Session::open(global)?, args).await,
        RecordCommand::Tail(args) => tail(&Session::open(global)?, args).await,
        RecordCommand::Export { dir } => export(&Session::open(global)?, dir).await,
        RecordCommand::Checkpoint { out, key_out } => {
            let session = Session::open(global)?;
            let checkpoint = checkpoint(&session).await?;
            for (path, text) in [(out, &checkpoint.note), (key_out, &checkpoint.verifier_key)] {
                if let Some(path) = path {
                    let newline = if text.ends_with('\n') { "" } else { "\n" };
                    write_public(path, format!("{text}{newline}").as_bytes())?;
                }
            }
            if out.is_some() && session.format == Format::Human {
                return print(&fields(&[(
                    "checkpoint of",
                    format!("{} entries", checkpoint.size),
                )]));
            }
            show(session.format, &checkpoint, |checkpoint| escape_lines(&checkpoint.note))
        }
    }
}

/// Fetches the newest checkpoint.
pub(super) async fn checkpoint(session: &Session) -> Outcome<GetCheckpointResponse> {
    session
        .call(GetCheckpointRequest {}, async |wire, request| {
            client(wire).get_checkpoint(request).await
        })
        .await
}

async fn list(session: &Session, args: &List) -> Outcome {
    let filter = args.filter.message();
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListEntriesRequest { page_size, page_token, filter: Some(filter.clone()) };
        let page = session
            .call(request, async |wire, request| client(wire).list_entries(request).await)
            .await?;
        Ok((page.entries, page.next_page_token))
    })
    .await?;
    if args.detail {
        let [h0, h1, h2, h3, h4, h5, h6, h7, h8, h9] = HEADERS;
        let headers = [h0, h1, h2, h3, h4, h5, h6, h7, h8, h9, "DETAIL"];
        return show_list(session.format, &listed, headers, |entry| {
            let [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9] = row(entry);
            [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, detail(entry)]
        });
    }
    show_list(session.format, &listed, HEADERS, row)
}

async fn tail(session: &Session, args: &Tail) -> Outcome {
    let filter = Some(args.filter.message());
    let request = Request::new(TailEntriesRequest { filter, last: args.last });
    let mut stream = client(session.wire()).tail_entries(request).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        let Some(entry) = answer.entry else { continue };
        show_next(session.format, &entry, &row(&entry))?;
    }
    Err(stream_ended())
}

const HEADERS: [&str; 10] =
    ["INDEX", "TIME", "WHO", "SOURCE", "ACTION", "RESOURCE", "DECISION", "BY", "OUTCOME", "KEYS"];

/// What an entry says in detail, and why somebody said that they did it.
fn detail(entry: &Entry) -> String {
    let said = [("detail", &entry.detail), ("reason", &entry.given_reason)];
    let said = said.map(|(field, value)| shown(entry, field, value));
    said.into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join("; ")
}

fn row(entry: &Entry) -> [String; 10] {
    let keys: Vec<_> =
        entry.keys.iter().map(|used| format!("{} v{}", used.key, used.version)).collect();
    [
        entry.index.to_string(),
        time(entry.time_ms),
        shown(entry, "identity", &entry.identity),
        shown(entry, "source", &entry.source),
        entry.action.clone(),
        shown(entry, "resource", &entry.resource),
        entry.decision.clone(),
        if entry.decided_by.is_empty() { entry.reason.clone() } else { entry.decided_by.clone() },
        entry.outcome.clone(),
        keys.join(", "),
    ]
}

/// Shows a value, or why there is none.
fn shown(entry: &Entry, field: &str, value: &str) -> String {
    let among = |fields: &[String]| fields.iter().any(|found| found == field);
    if among(&entry.altered) {
        "(altered)".into()
    } else if value.is_empty() && among(&entry.erased) {
        "(erased)".into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::{escape, json_line, json_text, table};
    use super::*;

    const SMUGGLED: &str = "ok\nadmin\u{1b}[31m\u{2028}\u{202e}x\r\0";

    fn entry() -> Entry {
        Entry {
            identity: SMUGGLED.into(),
            resource: SMUGGLED.into(),
            outcome: SMUGGLED.into(),
            given_reason: SMUGGLED.into(),
            detail: SMUGGLED.into(),
            ..Entry::default()
        }
    }

    #[test]
    fn free_text_is_escaped_for_people_and_exact_in_json() {
        let row = row(&entry());
        let line = escape(&row.join("  "));
        let rows = table(HEADERS, std::iter::once(row));
        for text in [&line, &rows] {
            for smuggled in ['\u{1b}', '\u{2028}', '\u{202e}', '\r', '\0'] {
                assert!(!text.contains(smuggled), "{text:?}");
            }
        }
        assert!(!line.contains('\n'));
        assert_eq!(rows.lines().count(), 2, "one line for headers, one for the entry");

        for json in [json_text(&entry()), json_line(&entry())] {
            assert!(json.is_ascii(), "{json:?}");
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            for field in ["identity", "given_reason", "detail"] {
                assert_eq!(read[field], SMUGGLED);
            }
        }
        assert_eq!(json_line(&entry()).lines().count(), 1);
    }

    #[test]
    fn an_erased_and_an_altered_name_are_said_to_be() {
        let erased = Entry { erased: vec!["identity".into()], ..Entry::default() };
        let altered = Entry { altered: vec!["resource".into()], ..Entry::default() };
        assert_eq!(row(&erased)[2], "(erased)");
        assert_eq!(row(&altered)[5], "(altered)");
        let several = Entry { erased: vec!["resource".into()], ..entry() };
        assert_eq!(row(&several)[5], SMUGGLED, "others of the field are left");
    }
}
