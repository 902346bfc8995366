//! A policy: from its two JSON forms to one model, and from the model to the kernel's tables. Pure.
//!
//! [`parse`] takes text and gives the model with warnings, or the first fault with its place and mend.
//! Reading a policy's file safely is the business of `enforcer-policy-files`.

#![forbid(unsafe_code)]

pub mod action;
pub mod approvals;
pub mod capability;
mod cause;
pub mod compare;
pub mod compile;
mod decision;
mod error;
pub mod findings;
pub mod governance;
pub mod guard;
pub mod hook_form;
pub mod hosts;
pub mod include;
pub mod json_text;
#[cfg(test)]
mod judged;
mod lower;
pub mod matcher;
pub mod model;
pub mod native;
mod near;
mod parse;
mod place;
mod reach;
pub mod rule_check;
pub mod rule_set;
pub mod schema;
pub mod settle;
pub mod shape;
pub mod sockets;
pub mod standing;
mod tools;
pub mod unix_name;
pub mod validate;

pub use action::{ConnectAction, ExecAction, ScriptHead, UnixAction};
pub use cause::Cause;
pub use decision::{Decision, Risk};
pub use error::{PolicyError, Warning};
pub use include::Sources;
pub use matcher::Judgement;
pub use model::{Policy, Waiting};
pub use parse::{
    MAX_BYTES, Parsed, parse, parse_all, parse_bytes, parse_known, parse_sound, parse_sources, utf8,
};
pub use place::{JsonPath, Place, Step};
pub use rule_check::RuleCheck;
