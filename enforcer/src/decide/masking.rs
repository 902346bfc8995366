//! Personal data in the trail: what is masked, and how much of it stays readable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How personal data is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Masking {
    /// Left as it is.
    #[default]
    Off,
    /// The end stays readable.
    Standard,
    /// Nothing stays readable.
    Strict,
}
