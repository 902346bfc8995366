//! A policy: from its two JSON forms to one model, and from the model to the kernel's tables. Pure.

pub mod compile;
pub mod model;

pub use model::Policy;
