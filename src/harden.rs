//! Hardens the process: nothing of its memory reaches a core file, a debugger or the swap.
//!
//! Only wrappers that are safe to call (`rustix`). What cannot be done is reported, never fatal:
//! `doctor` and the log tell the operator. Must not know what is worth protecting.

use std::borrow::Cow;
use std::fmt;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// What became of each measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// `RLIMIT_CORE` is 0, soft and hard.
    pub core_dumps: Measure,
    /// `PR_SET_DUMPABLE` is 0: no core file and no ptrace by this user's other processes.
    pub tracing: Measure,
    /// `mlockall`: pages, once touched, stay out of the swap.
    pub memory: Measure,
}

/// Whether a measure was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// It is in force.
    Done,
    /// It is not: why, and what the operator may do.
    NotDone(Cow<'static, str>),
}

impl Hardening {
    /// Names each measure with its outcome, for the log and for `doctor`.
    pub fn measures(&self) -> [(&'static str, &Measure); 3] {
        [
            ("core dumps disabled", &self.core_dumps),
            ("tracing disabled", &self.tracing),
            ("memory locked", &self.memory),
        ]
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("yes"),
            Self::NotDone(why) => write!(f, "no: {why}"),
        }
    }
}

/// Takes every measure, once, before any secret is read.
pub fn harden() -> Hardening {
    Hardening {
        core_dumps: measure(setrlimit(
            Resource::Core,
            Rlimit { current: Some(0), maximum: Some(0) },
        )),
        tracing: measure(set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        memory: lock_memory(),
    }
}

/// Locks memory where the limit is lifted.
///
/// A finite limit counts address space, not touched pages, once future mappings are locked too:
/// thread stacks and the allocator's reserves would reach it and the server would die of it.
fn lock_memory() -> Measure {
    let unlimited = Rlimit { current: None, maximum: None };
    // The superuser may lift the limit; others may go as far as their hard limit.
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let hard = getrlimit(Resource::Memlock).maximum;
        if let Some(bytes) = hard {
            return Measure::NotDone(Cow::Owned(format!(
                "RLIMIT_MEMLOCK is {bytes} bytes; start with LimitMEMLOCK=infinity or ulimit -l \
                 unlimited, or turn the swap off"
            )));
        }
    }
    measure(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT))
}

fn measure(result: rustix::io::Result<()>) -> Measure {
    match result {
        Ok(()) => Measure::Done,
        Err(e) => Measure::NotDone(Cow::Owned(format!("the system refused ({e})"))),
    }
}
