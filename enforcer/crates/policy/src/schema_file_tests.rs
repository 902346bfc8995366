//! The schemas in `docs/schema` are those of the types: `docs/policy.md` is generated from them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{hook_schema, native_schema, rule_set_schema};

/// Set (to anything but nothing) to write the files instead of comparing them; `cargo xtask docs` does.
const WRITE: &str = "ENFORCER_WRITE_SCHEMAS";

fn holds(name: &str, schema: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../docs/schema")
        .join(name);
    let now = format!("{schema:#}\n");
    if std::env::var_os(WRITE).is_some_and(|value| !value.is_empty()) {
        fs::write(&path, &now).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "docs/schema/{name} is not the schema of the types any more; run `cargo xtask docs`"
    );
}

#[test]
fn the_schema_files_are_those_of_the_types() {
    holds("native.json", &native_schema());
    holds("rule-set.json", &rule_set_schema());
    holds("hook.json", &hook_schema());
}
