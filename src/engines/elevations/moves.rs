//! What a commit did to elevations, for its entry in the record: which, from where, by what, to where.

use crate::audit::Field;
use crate::types::{ElevationEvent, ElevationId, ElevationState};

/// What one commit did.
#[derive(Debug, Clone, Default)]
pub struct Moves(Vec<String>);

impl Moves {
    /// Adds a transition.
    pub(super) fn add(
        &mut self,
        id: ElevationId,
        from: ElevationState,
        event: ElevationEvent,
        to: ElevationState,
    ) {
        self.0.push(format!("elevation {id}: {event} from {from} to {to}"));
    }

    /// Adds what a commit did to an elevation that is no transition.
    pub(super) fn note(&mut self, id: ElevationId, what: &str) {
        self.0.push(format!("elevation {id}: {what}"));
    }

    /// Writes them as an entry holds them.
    pub(super) fn fields(&self) -> Vec<(Field, String)> {
        self.0.iter().map(|one| (Field::Detail, one.clone())).collect()
    }
}
