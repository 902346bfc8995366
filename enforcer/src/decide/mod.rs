//! The decision: what the policy says of one action. Pure: no I/O, no clock.

pub mod action;
pub mod admission;
pub mod amount;
pub mod approval;
pub mod breaker;
pub mod command_text;
mod decision;
pub mod engine;
pub mod explanation;
mod hook_text;
pub mod line;
pub mod masking;
pub mod matcher;
pub mod observed;
pub mod own;
pub mod paths;
pub mod ratelimit;
pub mod recorded;
pub mod redact;
pub mod shell;
pub mod subject;
pub mod suggest;
pub mod tool;
pub mod tracers;
pub mod web;
pub mod wording;

pub use action::{ByText, ConnectAction, ExecAction, Find, Script, UnixAction};
pub use admission::{Refusal, admit};
pub use decision::{Decision, Risk};
pub use engine::{Engine, RuleCheck};
pub use explanation::{Explanation, Matched};
pub use masking::Masking;
pub use matcher::{Judgement, Matcher};
pub use subject::{Mode, Subject};
pub use wording::{Outcome, Wording};
