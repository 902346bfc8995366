//! The decision: what the policy says of one action. Pure: no I/O, no clock.

#![forbid(unsafe_code)]

pub mod admission;
pub mod agents;
pub mod amount;
pub mod approval;
pub mod breaker;
pub mod command_text;
pub mod engine;
pub mod examples;
pub mod explanation;
pub mod find;
mod hook_text;
pub mod line;
pub mod observed;
pub mod own;
pub mod patch;
pub mod paths;
pub mod principal;
pub mod ratelimit;
pub mod recorded;
pub mod suggest;
pub mod tool;
pub mod tracers;
pub mod web;
pub mod wording;

pub use admission::{Refusal, admit};
pub use engine::Engine;
pub use explanation::{Explanation, Matched};
pub use find::{ByText, Find};
pub use principal::{Mode, Principal};
pub use wording::{Outcome, Wording};
