//! A policy: from its two JSON forms to one model, and from the model to the kernel's tables. Pure.
//!
//! [`parse`] takes text and gives the model with warnings, or the first fault with its place and mend.
//! Reading a policy's file safely is the business of [`crate::policy_file`].

pub mod approvals;
pub mod compare;
pub mod compile;
mod error;
pub mod findings;
mod governance;
pub mod guard;
pub mod hook_form;
pub mod hosts;
pub mod json_text;
mod lower;
pub mod model;
pub mod native;
mod parse;
mod place;
mod reach;
pub mod schema;
pub mod settle;
pub mod shape;
pub mod sockets;
pub mod standing;
mod tools;
pub mod unix_name;
pub mod validate;

pub use error::{PolicyError, Warning};
pub use model::{Policy, Waiting};
pub use parse::{MAX_BYTES, Parsed, parse, parse_all, parse_bytes, parse_known};
pub use place::{JsonPath, Place, Step};
