//! Who acts: what a name, a mode, a tenant and capabilities change in a real run, and what a run does that only observes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod admission;
mod capabilities;
mod labels;
mod observe;
mod risk;

use enforcer_tests::{Ended, Line};

/// The only line of the trail whose command begins so.
fn line<'a>(ended: &'a Ended, command: &str) -> &'a Line {
    let lines: Vec<&Line> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.command().starts_with(command))
        .collect();
    let [line] = lines[..] else {
        panic!("{command}: not one line: {}", ended.trail.shown());
    };
    line
}
