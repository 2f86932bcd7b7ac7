//! The register VM: compiles a policy once, runs it under limits, reads what it said.
//!
//! Nothing here knows a rule. Whatever goes wrong is an error, and the caller refuses. The time
//! limit is looked at between instructions, so it does not bound a single call of a built-in
//! function, and recursion is not bounded at all: before policies come from outside, both are to
//! be refused when they are pushed.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::program::Program;
use regorus::rvm::vm::{RegoVM, VmError};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{PolicyModule, Value, compile_policy_with_entrypoint};

use crate::error::{Error, Result};

/// The rule that a policy answers with.
const ENTRY_POINT: &str = "data.strongroom.decision";
/// Ten thousand times what a decision takes: wall-clock time passes on a busy machine as well, and
/// only what hangs is to be cut.
pub(super) const TIME_LIMIT: Duration = Duration::from_millis(200);
/// Instructions between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);
/// The second net: more than the time limit lets through.
const MAX_INSTRUCTIONS: usize = 100_000_000;

/// What a policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// No, for this reason.
    Refuse(Arc<str>),
    /// Yes, by this rule.
    Rule(Arc<str>),
    /// Yes, by the grants with these indexes, one for each resource.
    Grants(Vec<usize>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The machine stopped: an error in the policy, or a limit.
    #[error("{0}")]
    Stopped(#[from] VmError),
    /// The policy has no answer, or one that means nothing.
    #[error("the policy gave no answer that means anything")]
    Meaningless,
}

/// A compiled policy and its limits.
pub(super) struct Machine {
    program: Arc<Program>,
    limits: ExecutionTimerConfig,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Machine {
    /// Compiles a policy.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not compile or has no `strongroom.decision`.
    pub(super) fn compile(source: &str, time_limit: Duration) -> Result<Self> {
        let refused = |cause: &dyn std::fmt::Display| {
            tracing::warn!(%cause, "a policy does not compile");
            Error::invalid("the policy does not compile")
        };
        let modules = [PolicyModule { id: "policy.rego".into(), content: source.into() }];
        let policy =
            compile_policy_with_entrypoint(Value::new_object(), &modules, ENTRY_POINT.into())
                .map_err(|cause| refused(&cause))?;
        let program = Compiler::compile_from_policy(&policy, &[ENTRY_POINT])
            .map_err(|cause| refused(&cause))?;
        let limits = ExecutionTimerConfig { limit: time_limit, check_interval: CHECK_INTERVAL };
        Ok(Self { program, limits })
    }

    /// Evaluates the policy once, on a VM of its own.
    pub(super) fn run(&self, input: Value) -> Result<Answer, Fault> {
        let mut vm = RegoVM::new();
        vm.set_strict_builtin_errors(true);
        vm.set_max_instructions(MAX_INSTRUCTIONS);
        vm.set_execution_timer_config(Some(self.limits));
        vm.load_program(Arc::clone(&self.program));
        vm.set_data(Value::new_object())?;
        vm.set_input(input);
        let answer = vm.execute_entry_point_by_index(0)?;
        read(&answer).ok_or(Fault::Meaningless)
    }
}

/// Reads an answer: an object with exactly one key. Anything else, undefined included, is none.
pub(super) fn read(answer: &Value) -> Option<Answer> {
    let fields = answer.as_object().ok()?;
    let (key, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
    match key.as_string().ok()?.as_ref() {
        "refuse" => Some(Answer::Refuse(value.as_string().ok()?.clone())),
        "rule" => Some(Answer::Rule(value.as_string().ok()?.clone())),
        "grants" => {
            let index = |one: &Value| one.as_u64().ok().and_then(|n| usize::try_from(n).ok());
            value.as_array().ok()?.iter().map(index).collect::<Option<_>>().map(Answer::Grants)
        }
        _ => None,
    }
}
