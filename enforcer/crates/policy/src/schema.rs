//! The JSON Schemas of the two forms and of rule sets, generated from the types that read them.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::hook_form::HookPolicy;
use super::native::NativePolicy;
use super::rule_set::RuleSet;

/// The JSON Schema (2020-12) of the native form; what `policy schema` prints.
pub fn native_schema() -> Value {
    schema_of::<NativePolicy>()
}

/// The JSON Schema (2020-12) of rule sets; what `policy schema --rule-set` prints.
pub fn rule_set_schema() -> Value {
    schema_of::<RuleSet>()
}

/// The JSON Schema (2020-12) of the hook form.
pub fn hook_schema() -> Value {
    schema_of::<HookPolicy>()
}

fn schema_of<T: schemars::JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "schema_file_tests.rs"]
mod file_tests;
