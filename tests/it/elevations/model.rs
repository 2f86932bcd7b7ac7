//! The state machine as a model: two approvers who are both needed, two nodes, crashes and a clock.
//! It shares the table of transitions and the counting of approvals with the code, and walks every
//! state that can be reached.
//!
//! What the code does in one commit is one step here. A call is fixed to the time at which it began
//! and may be committed long after; what it read before its commit counts only where a safeguard is
//! left out, which is how each of them is seen to be needed.

use std::collections::BTreeSet;

use stateright::{Checker as _, HasDiscoveries, Model, Property};
use strongroom::engines::elevations::current_step;
use strongroom::types::{ElevationEvent, ElevationState};

/// Moments that pass, and how many of them a request waits, an approval waits, an elevation lasts.
const MOMENTS: u8 = 3;
const WAITS: u8 = 2;
const LASTS: u8 = 1;
const BOTH: u32 = 2;

/// What keeps the row right.
#[derive(Debug, Clone, Copy)]
struct Safeguards {
    /// A commit works on the row as it is then, not as it was read.
    compares: bool,
    /// What was approved is looked at again when it is activated.
    checks_again: bool,
    /// A call is decided on the row as it is at its commit.
    fences: bool,
}

const ALL: Safeguards = Safeguards { compares: true, checks_again: true, fences: true };

/// The sealed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    state: ElevationState,
    votes: [bool; 2],
    /// When the clock does something to it.
    due: u8,
}

/// What a node is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Call {
    Approve(usize),
    Deny,
    Withdraw,
    Activate,
    Revoke,
    /// The worker's look.
    Keep,
    /// Something that needs the elevation.
    Use,
}

/// A call that began and is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Begun {
    call: Call,
    now: u8,
    /// The row as it was read; the same for all where nothing looks at it.
    read: Option<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "what a walk remembers, each by itself")]
struct Everything {
    row: Row,
    nodes: [Option<Begun>; 2],
    clock: u8,
    /// Whether each approver still may.
    eligible: [bool; 2],
    /// Whether the role is what was asked for.
    same_role: bool,
    /// Who really approved, whatever the row says.
    approved: [bool; 2],
    /// It came into force without what its role demands.
    unsound: bool,
    /// It was used after it was over.
    overused: bool,
    /// It was over, and is somewhere else again.
    revived: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Begin(usize, Call),
    Commit(usize),
    Crash(usize),
    Suspend,
    ChangeRole,
    Tick,
}

impl Model for Safeguards {
    type State = Everything;
    type Action = Step;

    fn init_states(&self) -> Vec<Everything> {
        let state = ElevationState::Requested.after(ElevationEvent::Submit).unwrap();
        vec![Everything {
            row: Row { state, votes: [false; 2], due: WAITS },
            nodes: [None; 2],
            clock: 0,
            eligible: [true; 2],
            same_role: true,
            approved: [false; 2],
            unsound: false,
            overused: false,
            revived: false,
        }]
    }

    fn actions(&self, now: &Everything, steps: &mut Vec<Step>) {
        for (node, begun) in now.nodes.iter().enumerate() {
            if begun.is_some() {
                steps.extend([Step::Commit(node), Step::Crash(node)]);
                continue;
            }
            let calls = [
                Call::Approve(0),
                Call::Approve(1),
                Call::Deny,
                Call::Withdraw,
                Call::Activate,
                Call::Revoke,
                Call::Keep,
                Call::Use,
            ];
            steps.extend(calls.map(|call| Step::Begin(node, call)));
        }
        steps.extend([Step::Suspend, Step::ChangeRole, Step::Tick]);
    }

    fn next_state(&self, last: &Everything, step: Step) -> Option<Everything> {
        let mut next = last.clone();
        match step {
            Step::Begin(node, call) => {
                let reads = !(self.compares && self.fences);
                let read = reads.then_some(last.row);
                // Whoever only ends it asks for no time.
                let timeless = matches!(call, Call::Deny | Call::Withdraw | Call::Revoke);
                let now = if timeless { 0 } else { last.clock };
                next.nodes[node] = Some(Begun { call, now, read });
            }
            Step::Commit(node) => {
                let begun = next.nodes[node].take()?;
                self.commit(&mut next, begun);
                next.revived |= last.row.state.is_over() && next.row.state != last.row.state;
            }
            Step::Crash(node) => next.nodes[node] = None,
            Step::Suspend => next.eligible[0] = false,
            Step::ChangeRole => next.same_role = false,
            Step::Tick if last.clock < MOMENTS => next.clock += 1,
            Step::Tick => return None,
        }
        // One node is as good as the other, and nothing is due any more where it is over.
        next.nodes.sort_unstable();
        if next.row.state.is_over() {
            next.row.due = 0;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("approved as its role demands", |_, now: &Everything| !now.unsound),
            Property::always("not used after its end", |_, now: &Everything| !now.overused),
            Property::always("what is over stays so", |_, now: &Everything| !now.revived),
            Property::always(
                "the worker ends what is past its end",
                |model: &Self, now: &Everything| {
                    let mut next = now.clone();
                    let looks = Begun { call: Call::Keep, now: now.clock, read: None };
                    model.commit(&mut next, looks);
                    !now.is_past_its_end() || next.row.state.is_over()
                },
            ),
            Property::sometimes("it is past its end", |_, now: &Everything| now.is_past_its_end()),
            Property::sometimes("it comes into force", |_, now: &Everything| {
                now.row.state == ElevationState::Active
            }),
            Property::sometimes("its activation fails", |_, now: &Everything| {
                now.row.state == ElevationState::ActivationFailed
            }),
            Property::sometimes("it ends by the clock", |_, now: &Everything| {
                now.row.state == ElevationState::Ended
            }),
            Property::sometimes("it expires", |_, now: &Everything| {
                now.row.state == ElevationState::Expired
            }),
        ]
    }
}

impl Safeguards {
    /// What one commit does.
    fn commit(self, all: &mut Everything, Begun { call, now, read }: Begun) {
        let truth = all.row;
        let mut row = read.filter(|_| !self.compares).unwrap_or(truth);
        match call {
            Call::Approve(who) => {
                let waits = row.state == ElevationState::AwaitingApproval && now < row.due;
                if !(waits && all.eligible[who] && !row.votes[who] && all.same_role) {
                    return;
                }
                row.votes[who] = true;
                all.approved[who] = true;
                if is_complete(row.votes) {
                    row.state = row.state.after(ElevationEvent::Complete).unwrap();
                    row.due = now + WAITS;
                }
            }
            Call::Deny => match row.state.after(ElevationEvent::Deny) {
                Some(state) => row.state = state,
                None => return,
            },
            Call::Withdraw => match row.state.after(ElevationEvent::Withdraw) {
                Some(state) => row.state = state,
                None => return,
            },
            Call::Revoke => match row.state.after(ElevationEvent::Revoke) {
                Some(state) => row.state = state,
                None => return,
            },
            Call::Activate => {
                let Some(activating) = row.state.after(ElevationEvent::Activate) else { return };
                if now >= row.due {
                    return;
                }
                let voters = (0..2).filter(|who| row.votes[*who]);
                let stands = all.same_role && voters.clone().all(|who| all.eligible[who]);
                let stands = stands && is_complete(row.votes);
                let event = if stands || !self.checks_again {
                    ElevationEvent::Confirm
                } else {
                    ElevationEvent::Fail
                };
                row.state = activating.after(event).unwrap();
                row.due = now + LASTS;
                if row.state == ElevationState::Active {
                    let sound = all.approved == [true; 2] && all.eligible == [true; 2];
                    all.unsound |= !(sound && all.same_role);
                    // Whoever withdrew, denied or revoked it before was first.
                    all.unsound |= truth.state.is_over();
                }
            }
            Call::Keep => {
                let event = if row.state == ElevationState::Active {
                    ElevationEvent::End
                } else {
                    ElevationEvent::Expire
                };
                match row.state.after(event) {
                    Some(state) if now >= row.due => row.state = state,
                    Some(_) | None => return,
                }
            }
            Call::Use => {
                let seen = read.filter(|_| !self.fences).unwrap_or(truth);
                let in_force = |row: Row| row.state == ElevationState::Active && now < row.due;
                all.overused |= in_force(seen) && !in_force(truth);
                return;
            }
        }
        all.row = row;
    }
}

impl Everything {
    /// Tells whether it is in force by its row alone.
    fn is_past_its_end(&self) -> bool {
        self.row.state == ElevationState::Active && self.row.due <= self.clock
    }
}

fn is_complete(votes: [bool; 2]) -> bool {
    let given = votes.iter().map(|vote| u32::from(*vote)).sum();
    current_step([BOTH], &[given]).is_none()
}

#[test]
fn no_state_is_in_force_without_its_approvals_or_used_after_its_end() {
    let checked = ALL.checker().threads(2).spawn_bfs().join();
    assert!(checked.is_done());
    checked.assert_properties();
}

#[test]
fn each_safeguard_is_needed() {
    for (without, broken) in [
        (Safeguards { compares: false, ..ALL }, "approved as its role demands"),
        (Safeguards { compares: false, ..ALL }, "what is over stays so"),
        (Safeguards { checks_again: false, ..ALL }, "approved as its role demands"),
        (Safeguards { fences: false, ..ALL }, "not used after its end"),
    ] {
        let broken_once = HasDiscoveries::AnyOf(BTreeSet::from([broken]));
        let model = without.checker().finish_when(broken_once).threads(2);
        let checked = model.spawn_bfs().join();
        assert!(checked.discovery(broken).is_some(), "nothing breaks under {without:?}");
    }
}
