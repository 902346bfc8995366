//! The schema says what the types read: the same keys, and the same verdict on good and bad policies.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::parse_all;

/// Why `value` does not follow `schema`, if so. Knows the keywords that the generated schemas use, and panics on
/// any other, so that none goes unchecked.
fn fault(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let schema = match schema {
        Value::Bool(true) => return None,
        Value::Object(keywords) => keywords,
        other => panic!("{at}: schema {other}"),
    };
    for (keyword, wanted) in schema {
        let found = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => None,
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                fault(root, root.pointer(pointer).unwrap(), value, at)
            }
            "type" => {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(_) => "integer",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let fits = wanted == kind
                    || wanted
                        .as_array()
                        .is_some_and(|kinds| kinds.contains(&json!(kind)));
                (!fits).then(|| format!("{at}: {kind} instead of {wanted}"))
            }
            "properties" => value.as_object().and_then(|object| {
                let known = wanted.as_object().unwrap();
                object.iter().find_map(|(key, value)| {
                    known
                        .get(key)
                        .and_then(|schema| fault(root, schema, value, &format!("{at}.{key}")))
                })
            }),
            "additionalProperties" => value.as_object().and_then(|object| {
                let known = schema.get("properties").and_then(Value::as_object);
                object
                    .iter()
                    .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)))
                    .find_map(|(key, value)| match wanted {
                        Value::Bool(false) => Some(format!("{at}: unknown {key}")),
                        schema => fault(root, schema, value, &format!("{at}.{key}")),
                    })
            }),
            "required" => value.as_object().and_then(|object| {
                let keys = wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|key| key.as_str().unwrap());
                keys.into_iter()
                    .find(|key| !object.contains_key(*key))
                    .map(|key| format!("{at}: no {key}"))
            }),
            "items" => value.as_array().and_then(|items| {
                items
                    .iter()
                    .enumerate()
                    .find_map(|(index, item)| fault(root, wanted, item, &format!("{at}[{index}]")))
            }),
            "anyOf" | "oneOf" => {
                let schemas = wanted.as_array().unwrap();
                let fits = schemas
                    .iter()
                    .filter(|schema| fault(root, schema, value, at).is_none())
                    .count();
                let good = if keyword == "oneOf" {
                    fits == 1
                } else {
                    fits > 0
                };
                (!good).then(|| format!("{at}: {fits} of {} choices fit", schemas.len()))
            }
            "enum" => {
                let fits = wanted.as_array().unwrap().contains(value);
                (!fits).then(|| format!("{at}: {value} is not one of {wanted}"))
            }
            "const" => (wanted != value).then(|| format!("{at}: {value} is not {wanted}")),
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minimum" | "maximum" => {
                out_of_bounds(keyword, wanted, value).map(|why| format!("{at}: {why}"))
            }
            "pattern" => value.as_str().and_then(|text| {
                let pattern = regex::Regex::new(wanted.as_str().unwrap()).unwrap();
                (!pattern.is_match(text)).then(|| format!("{at}: {text} is not {wanted}"))
            }),
            other => panic!("{at}: the keyword {other} is not checked here"),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn out_of_bounds(keyword: &str, bound: &Value, value: &Value) -> Option<String> {
    let size = match value {
        Value::Array(items) if keyword.ends_with("Items") => i64::try_from(items.len()).ok()?,
        Value::String(text) if keyword.ends_with("Length") => {
            i64::try_from(text.chars().count()).ok()?
        }
        Value::Number(number) if keyword.ends_with("imum") => number.as_i64()?,
        _ => return None,
    };
    let bound = bound.as_i64().unwrap();
    let out = if keyword.starts_with("min") {
        size < bound
    } else {
        size > bound
    };
    out.then(|| format!("{size} breaks {keyword} {bound}"))
}

/// What the schema and the reader say of a text; they must agree.
fn verdict(schema: &Value, text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).unwrap();
    let by_schema = fault(schema, schema, &value, "");
    let by_reader = parse_all(text).err();
    assert_eq!(
        by_schema.is_some(),
        by_reader.is_some(),
        "{text}\n{by_schema:?}\n{by_reader:?}"
    );
    by_schema
}

const RULES: &str =
    r#"{"version": "2", "exec": {"rules": [RULE]}, "connect": {"rules": [CONNECT]}}"#;

#[test]
fn schema_and_reader_agree_on_rules() {
    let schema = native_schema();
    let rule = r#"{"id": "a", "decision": "deny", "glob": ["x"]}"#;
    let connect = r#"{"id": "b", "decision": "ask", "ports": [1]}"#;
    let text = |rule: &str, connect: &str| RULES.replace("RULE", rule).replace("CONNECT", connect);
    for good in [
        rule,
        r#"{"id": "a", "decision": "deny", "regex": ["x"], "risk": "LOW", "match": ["x", ["x", "y"]]}"#,
        r#"{"id": "a", "decision": "deny", "argv": {"program": "x"}, "justification": null}"#,
        r#"{"id": "a", "decision": "ask", "argv": {"program": ["x"], "words": ["y", ["z"]], "flags_all": ["-f"]}}"#,
    ] {
        assert_eq!(verdict(&schema, &text(good, connect)), None, "{good}");
    }
    for bad in [
        r#"{"id": "a", "decision": "deny"}"#,
        r#"{"id": "a", "decision": "deny", "glob": ["x"], "regex": ["x"]}"#,
        r#"{"id": "", "decision": "deny", "glob": ["x"]}"#,
        r#"{"id": "a", "decision": "deny", "glob": []}"#,
        r#"{"id": "a", "decision": "Deny", "glob": ["x"]}"#,
        r#"{"id": "a", "decision": "deny", "risk": "low", "glob": ["x"]}"#,
        r#"{"id": "a", "decision": "deny", "glob": "x"}"#,
        r#"{"id": "a", "decision": "deny", "argv": {"program": []}}"#,
        r#"{"id": "a", "decision": "deny", "argv": {"words": ["x"]}}"#,
        r#"{"id": "a", "decision": "deny", "argv": {"program": "x", "flags_any": []}}"#,
        r#"{"id": "a", "decision": "deny", "glob": ["x"], "match": [7]}"#,
        r#"{"id": "a", "decision": "deny", "glob": ["x"], "requires": null}"#,
        r#"["a", "deny", null, ["x"]]"#,
    ] {
        assert!(verdict(&schema, &text(bad, connect)).is_some(), "{bad}");
    }
    for good in [
        connect,
        r#"{"id": "b", "decision": "ask", "hosts": ["10.0.0.0/8"], "protocols": ["udp", "tcp"]}"#,
        r#"{"id": "b", "decision": "ask", "unix": ["/run/x", "@y*", "*/z"]}"#,
    ] {
        assert_eq!(verdict(&schema, &text(rule, good)), None, "{good}");
    }
    for bad in [
        r#"{"id": "b", "decision": "ask"}"#,
        r#"{"id": "b", "decision": "ask", "ports": [0]}"#,
        r#"{"id": "b", "decision": "ask", "ports": [65536]}"#,
        r#"{"id": "b", "decision": "ask", "protocols": ["sctp"]}"#,
        r#"{"id": "b", "decision": "ask", "hosts": []}"#,
        r#"{"id": "b", "decision": "ask", "unix": []}"#,
        r#"{"id": "b", "decision": "ask", "unix": ["run/x"]}"#,
        r#"{"id": "b", "decision": "ask", "unix": [""]}"#,
        r#"{"id": "b", "decision": "ask", "unix": ["/run/x"], "ports": [1]}"#,
        r#"{"id": "b", "decision": "ask", "unix": ["/run/x"], "hosts": ["*"], "protocols": ["tcp"]}"#,
    ] {
        assert!(verdict(&schema, &text(rule, bad)).is_some(), "{bad}");
    }
}

#[test]
fn schema_and_reader_agree_on_settings() {
    let schema = native_schema();
    let text = |settings: &str| format!("{{\"version\": \"2\", \"exec\": {{}}, {settings}}}");
    for good in [
        r#""description": "x", "$schema": "y""#,
        r#""limits": {"exec": "100/1h"}, "breaker": {"denials": 10, "half_open_after_s": null}"#,
        r#""approvals": {"timeout_s": 300}, "audit": {"pii": "strict"}, "agents": {"trusted": ["a"]}"#,
        r#""capabilities": {"any name": ["x"]}, "limits": null"#,
        r#""connect": {"unix_default": "ask"}"#,
        r#""connect": {"outside_listeners": {"unix": "ask", "tcp": "deny"}}"#,
        r#""approvals": {"timeout_s": 604800, "approvers": ["root", "%ops"], "rate": "30/1m", "max_pending": 1}"#,
        r#""approvals": {"approvers": [], "rate": null}"#,
        r#""syscalls": {"allow": [{"name": "ptrace", "reason": "debugs its own"}, {"name": "bpf", "reason": "y"}]}"#,
        r#""syscalls": {}"#,
    ] {
        assert_eq!(verdict(&schema, &text(good)), None, "{good}");
    }
    for bad in [
        r#""limits": {"exec": "100"}"#,
        r#""limits": {"exec": "0/1h"}"#,
        r#""limits": {"execs": "100/1h"}"#,
        r#""breaker": {"denials": 0}"#,
        r#""breaker": {"denials": "10"}"#,
        r#""approvals": {"timeout_s": -1}"#,
        r#""approvals": {"timeout_s": 0}"#,
        r#""approvals": {"timeout_s": 604801}"#,
        r#""approvals": {"max_pending": 0}"#,
        r#""approvals": {"rate": "30"}"#,
        r#""approvals": {"approvers": [""]}"#,
        r#""approvals": {"approvers": ["%"]}"#,
        r#""approvals": {"approvers": ["a b"]}"#,
        r#""approvals": {"approvers": "root"}"#,
        r#""syscalls": {"allow": ["ptrace"]}"#,
        r#""syscalls": {"allow": [{"name": "ptrace"}]}"#,
        r#""syscalls": {"allow": [{"name": "ptrace", "reason": ""}]}"#,
        r#""syscalls": {"allow": [{"name": "ptrace", "reason": " "}]}"#,
        r#""syscalls": {"allow": [{"name": "", "reason": "x"}]}"#,
        r#""connect": {"unix_default": "never"}"#,
        r#""connect": {"outside_listeners": {"udp": "deny"}}"#,
        r#""audit": {"pii": true}"#,
        r#""capabilities": {"a": "x"}"#,
        r#""agents": ["a"]"#,
    ] {
        assert!(verdict(&schema, &text(bad)).is_some(), "{bad}");
    }
    assert!(verdict(&schema, r#"{"version": "3", "exec": {}}"#).is_some());
    assert!(verdict(&schema, r#"{"exec": {}}"#).is_some());
}

/// The keys that the reader knows where `PROBE` stands, from what it says of an unknown one.
fn keys_read(text: &str) -> BTreeSet<String> {
    let text = text.replace("PROBE", "\"an unknown key of the test\": 0");
    let error = parse_all(&text).unwrap_err().remove(0);
    let (_, keys) = error
        .mend
        .split_once("the keys known here are ")
        .expect(&error.mend);
    keys.split(", ").map(str::to_owned).collect()
}

fn keys_in(schema: &Value, pointer: &str) -> BTreeSet<String> {
    schema.pointer(pointer).unwrap()["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn schema_and_reader_know_the_same_keys() {
    let native = native_schema();
    for (definition, text) in [
        ("", r#"{"version": "2", PROBE}"#),
        ("/$defs/ExecSection", r#"{"exec": {PROBE}}"#),
        ("/$defs/ExecRule", r#"{"exec": {"rules": [{PROBE}]}}"#),
        (
            "/$defs/ArgvSection",
            r#"{"exec": {"rules": [{"argv": {PROBE}}]}}"#,
        ),
        ("/$defs/ConnectSection", r#"{"connect": {PROBE}}"#),
        ("/$defs/ConnectRule", r#"{"connect": {"rules": [{PROBE}]}}"#),
        (
            "/$defs/AgentsSection",
            r#"{"version": "2", "agents": {PROBE}}"#,
        ),
        (
            "/$defs/LimitsSection",
            r#"{"version": "2", "limits": {PROBE}}"#,
        ),
        (
            "/$defs/BreakerSection",
            r#"{"version": "2", "breaker": {PROBE}}"#,
        ),
        (
            "/$defs/ApprovalsSection",
            r#"{"version": "2", "approvals": {PROBE}}"#,
        ),
        (
            "/$defs/SyscallsSection",
            r#"{"version": "2", "syscalls": {PROBE}}"#,
        ),
        (
            "/$defs/HatchSection",
            r#"{"version": "2", "syscalls": {"allow": [{PROBE}]}}"#,
        ),
        (
            "/$defs/AuditSection",
            r#"{"version": "2", "audit": {PROBE}}"#,
        ),
    ] {
        assert_eq!(
            keys_in(&native, definition),
            keys_read(text),
            "{definition}"
        );
    }
    let hook = hook_schema();
    for (definition, text) in [
        ("", r#"{"bash": {"whitelist": [], "blacklist": []}, PROBE}"#),
        ("/$defs/BashSection", r#"{"bash": {PROBE}}"#),
        ("/$defs/PathsSection", r#"{"file_paths": {PROBE}}"#),
        ("/$defs/AgentsSection", r#"{"agents": {PROBE}}"#),
        (
            "/$defs/WebSection",
            r#"{"agents": {"trusted": []}, "web_tools": {PROBE}}"#,
        ),
        (
            "/$defs/ToolsSection",
            r#"{"agents": {"trusted": []}, "tools": {PROBE}}"#,
        ),
    ] {
        assert_eq!(keys_in(&hook, definition), keys_read(text), "{definition}");
    }
}

#[test]
fn every_key_is_described() {
    for schema in [native_schema(), hook_schema()] {
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, definition) in definitions.iter().chain([(&"top".to_owned(), &schema)]) {
            assert!(definition["description"].is_string(), "{name}");
            let properties = definition["properties"].as_object();
            for (key, property) in properties.into_iter().flatten() {
                assert!(property["description"].is_string(), "{name}.{key}");
            }
        }
    }
}

/// So do the rule sets that are built in.
#[test]
fn shipped_rule_sets_follow_their_schema() {
    let schema = rule_set_schema();
    for name in crate::rule_set::built_in_names() {
        // As far as it goes a rule set is a policy, too: one that denies by default.
        let text = crate::rule_set::built_in(name).unwrap();
        assert_eq!(verdict(&schema, text), None, "{name}");
    }
    let more: Value = json!({"version": "2", "limits": {"depth": 1}});
    assert!(fault(&schema, &schema, &more, "").is_some());
}

/// The policies of this repository follow the schema and are read without a fault.
#[test]
fn shipped_policies_follow_the_schema() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies");
    let Ok(entries) = std::fs::read_dir(&policies) else {
        eprintln!("SKIPPED: there is no {}", policies.display());
        return;
    };
    let schema = native_schema();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.ends_with(".json") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(verdict(&schema, &text), None, "{}", path.display());
        }
    }
}
