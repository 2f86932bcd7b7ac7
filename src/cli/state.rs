//! `strongroom audit verify --state`: what the record says of every sealed row, held against the
//! tables by the vault itself.

use std::time::{Duration, Instant};

use super::failure::{Exit, Failure, Outcome};
use super::output::{escape, fields, show};
use super::records::client;
use super::session::Session;
use crate::proto::{StateFault, VerifyStateRequest, VerifyStateResponse};

/// How long the command waits; a check of a large record goes on without it.
const PATIENCE: Duration = Duration::from_mins(10);

/// Asks for a check and waits for it, prints what came out, and fails where something is wrong.
pub(super) async fn verify(session: &Session) -> Outcome {
    let began = Instant::now();
    let mut ticket = 0;
    let found = loop {
        let request = VerifyStateRequest { ticket };
        let answer = session
            .call(request, async |wire, request| client(wire).verify_state(request).await)
            .await?;
        if answer.checked_at_ms != 0 {
            break answer;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::new(Exit::Unavailable, "the check has not ended")
                .hint("it goes on; `strongroom status` on the server shows when it has"));
        }
        ticket = answer.ticket;
    };
    show(session.format, &found, text)?;
    match found.faults.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(Exit::Unverified, line(first))
            .hint("keep the store as it is; `audit list --object ID` shows what the record has of a row")
            .told()),
    }
}

fn text(found: &VerifyStateResponse) -> String {
    let right = if found.faults.is_empty() { "yes" } else { "NO" };
    let more = match found.more_faults {
        0 => String::new(),
        more => more.to_string(),
    };
    let mut text = fields(&[
        ("right", right.into()),
        ("entries", found.entries.to_string()),
        ("rows", found.rows.to_string()),
        ("more wrong", more),
    ]);
    for fault in &found.faults {
        text.push_str(&escape(&line(fault)));
        text.push('\n');
    }
    text
}

fn line(fault: &StateFault) -> String {
    let StateFault { table, key, problem, named_version, found_version } = fault;
    format!("{table} {key}: {problem} (version named {named_version}, found {found_version})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_somebody_chose_commands_no_terminal() {
        let key = "x\u{1b}[2J\n".to_owned();
        let fault = StateFault { table: "grants".into(), key, ..Default::default() };
        let text = text(&VerifyStateResponse { faults: vec![fault], ..Default::default() });
        assert!(text.contains("right"), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().filter(|line| line.starts_with("grants ")).count(), 1);
    }
}
