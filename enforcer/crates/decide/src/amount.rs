//! How much an exec is: the policy's limits on arguments, as the kernel counts them.

use enforcer_common::{
    event::CAUSE_COMPLEXITY,
    limits::{COMPLEX_ARGUMENTS, COMPLEX_BYTES, complexity_rank},
};

use super::{Engine, Outcome};
use enforcer_policy::{Decision, ExecAction, matcher::Judgement};

/// The denial of an exec that has more arguments, or more bytes of them, than the policy's limits. Of a text that is not
/// run, variables and patterns are not yet what they will become: the kernel counts what really runs. How deep in the
/// process tree it runs is known to the kernel only.
pub fn too_complex(engine: &Engine, action: &ExecAction) -> Option<Outcome> {
    let limits = &engine.policy().limits;
    let mut arguments = action.argv.len().saturating_sub(1);
    let mut bytes: usize = action.argv.iter().map(|word| word.len() + 1).sum();
    if action.argv.is_empty() {
        // The kernel makes up an empty name.
        bytes = 1;
    }
    if let Some(script) = &action.script {
        // Interpreter, its argument and the script's path take the place of the name.
        let own = action.argv.first().map_or(1, |name| name.len() + 1);
        let argument = script.argument.as_ref();
        arguments += 1 + usize::from(argument.is_some());
        bytes = bytes.saturating_sub(own)
            + script.interpreter.len()
            + 1
            + argument.map_or(0, |argument| argument.len() + 1)
            + action.path.len()
            + 1;
    }
    let over =
        |limit: Option<u32>, measured: usize| limit.is_some_and(|limit| measured > limit as usize);
    let (what, measured) = if over(limits.arguments, arguments) {
        (COMPLEX_ARGUMENTS, arguments)
    } else if over(limits.argv_bytes, bytes) {
        (COMPLEX_BYTES, bytes)
    } else {
        return None;
    };
    Some(engine.wording().exec_outcome(Judgement {
        decision: Decision::Deny,
        rank: complexity_rank(what, u32::try_from(measured).unwrap_or(u32::MAX)),
        cause: CAUSE_COMPLEXITY,
    }))
}
