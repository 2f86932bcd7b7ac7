//! Holds what the record says of every sealed row against the tables, on the node that is asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::log;
use crate::audit::Field;
use crate::error::Result;
use crate::store::{Needs, Tx};
use crate::types::RequestContext;
use crate::vault::{Decision, Note, Operation, READS, Resource, StateReport, Verb, View};

/// How long one call waits for the check.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for a check of the state.
#[derive(Debug, Clone, Copy)]
pub struct VerifyState {
    /// The check that was asked for before; 0 for a new one.
    pub ticket: u64,
}

/// How far the check is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its number, to ask again with.
    pub ticket: u64,
    /// What it found; none while it runs.
    pub report: Option<Arc<StateReport>>,
}

#[async_trait]
impl Verb for VerifyState {
    const ACTION: &'static str = "records.verify-state";
    type Prepared = Verified;
    type Output = Verified;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        log()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Verified> {
        let (ticket, report) = view.state().wait(self.ticket, PATIENCE).await;
        Ok(Verified { ticket, report })
    }

    fn note(&self, verified: &Verified, note: &mut Note) {
        let told = match &verified.report {
            None => "the check goes on".to_owned(),
            Some(report) if report.wrong() == 0 => format!("{} rows are right", report.rows),
            Some(report) => report.told(),
        };
        note.private.push((Field::Detail, told));
    }
}

#[async_trait]
impl Operation for VerifyState {
    const NEEDS: Needs = READS;

    fn outcome(&self, verified: &Verified) -> &'static str {
        match &verified.report {
            Some(report) if report.wrong() > 0 => "TAMPERED",
            Some(_) | None => "OK",
        }
    }

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        verified: &Verified,
        _: &Decision,
    ) -> Result<Verified> {
        Ok(verified.clone())
    }
}
