//! `enforcer policy check`: whether a policy can be used, and what its author should know of it.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{Prove, counted};
use enforcer_policy::findings::findings;
use enforcer_policy::model::Form;
use enforcer_policy::{JsonPath, Parsed, Place, Policy, Warning};
use enforcer_policy_files::ground::Ground;
use enforcer_policy_files::policy_file::{self, PolicyFileError};

/// Exit status for a policy that cannot be used.
const BAD_POLICY: u8 = 2;

/// Checks the policy in `file` for agents that run as on this `ground`: the result on `out`, faults and warnings on `err`
/// (all on `out` as JSON). Gives the exit status.
pub(super) fn check(
    file: &Path,
    ground: &Ground,
    json: bool,
    prove: Prove<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let name = file.display().to_string();
    let result = policy_file::load(file, None).and_then(|loaded| {
        let mut parsed = loaded.parsed;
        let untrusted = ground.settle(&mut parsed.policy);
        let mut errors = prove(&parsed);
        if errors.is_empty() {
            // A policy whose tables cannot be made has been refused by the proof.
            let found = findings(&parsed).unwrap_or_default();
            errors = found.errors;
            parsed.warnings.extend(found.warnings);
        }
        if errors.is_empty() {
            let at = parsed.place(&JsonPath::top().key("exec").key("trusted_dirs"));
            parsed.warnings.extend(untrusted.iter().map(|one| Warning {
                place: at.clone(),
                text: one.to_string(),
            }));
            Ok(parsed)
        } else {
            Err(PolicyFileError::Invalid {
                path: name.clone(),
                errors,
            })
        }
    });
    if json {
        writeln!(out, "{}", as_json(&name, &result))?;
    } else {
        match &result {
            Ok(parsed) => {
                for warning in &parsed.warnings {
                    writeln!(err, "warning: {}", warning.in_file(&name))?;
                }
                writeln!(out, "{name}: ok: {}", summary(&parsed.policy))?;
            }
            Err(PolicyFileError::Invalid { errors, .. }) => {
                for error in errors {
                    writeln!(err, "error: {}", error.in_file(&name))?;
                }
            }
            Err(error) => writeln!(err, "error: {error}")?,
        }
    }
    Ok(if result.is_ok() { 0 } else { BAD_POLICY })
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Hook => "hook",
        Form::Native => "native",
    }
}

fn example_count(policy: &Policy) -> usize {
    let rules = policy.exec.rules.iter();
    rules
        .map(|rule| rule.examples.len() + rule.counter_examples.len())
        .sum()
}

fn summary(policy: &Policy) -> String {
    format!(
        "{} form; exec: {} by default, {}; connect: {} by default, {}; {}",
        form_name(policy.form),
        policy.exec.default,
        counted(policy.exec.rules.len(), "rule"),
        policy.connect.default,
        counted(policy.connect.rules.len(), "rule"),
        counted(example_count(policy), "example"),
    )
}

/// `ok` and `file` always; with a good policy what it holds, with a bad one `errors`.
fn as_json(name: &str, result: &Result<Parsed, PolicyFileError>) -> Value {
    match result {
        Ok(Parsed {
            policy, warnings, ..
        }) => {
            let warnings: Vec<Value> = warnings
                .iter()
                .map(|warning| with_place(&warning.place, json!({"message": warning.text})))
                .collect();
            json!({
                "ok": true,
                "file": name,
                "form": form_name(policy.form),
                "version": policy.version,
                "exec_default": policy.exec.default,
                "exec_rules": policy.exec.rules.len(),
                "connect_default": policy.connect.default,
                "connect_rules": policy.connect.rules.len(),
                "examples": example_count(policy),
                "warnings": warnings,
            })
        }
        Err(error) => {
            let errors: Vec<Value> = match error {
                PolicyFileError::Invalid { errors, .. } => errors
                    .iter()
                    .map(|error| {
                        with_place(
                            &error.place,
                            json!({"message": error.what, "mend": error.mend}),
                        )
                    })
                    .collect(),
                other => vec![json!({"message": other.to_string()})],
            };
            json!({"ok": false, "file": name, "errors": errors})
        }
    }
}

/// Adds `line`, `column` and `path` as far as they are known, and `file` where it is a rule set's.
fn with_place(place: &Place, mut object: Value) -> Value {
    if let Some(file) = &place.file {
        object["file"] = Value::from(&**file);
    }
    if place.line > 0 {
        object["line"] = place.line.into();
    }
    if place.column > 0 {
        object["column"] = place.column.into();
    }
    let path = place.path.to_string();
    if !path.is_empty() {
        object["path"] = path.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use enforcer_policy::validate;

    fn ground() -> Ground {
        Ground::of(&enforcer_launch::Identity::current().unwrap())
    }

    /// Runs the check on this text: exit status, output, error output.
    fn checked(text: &str, json: bool, prove: Prove<'_>) -> (u8, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = check(&path, &ground(), json, prove, &mut out, &mut err).unwrap();
        let short = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&path.display().to_string(), "p.json")
        };
        (status, short(out), short(err))
    }

    const GOOD: &str = r#"{"version": "2", "exec": {"rules": [
{"id": "a", "decision": "deny", "glob": ["rm *"], "match": ["rm x"], "not_match": ["ls"]}]}}"#;
    const WARNED: &str = "there is no `connect` section: every connect to an address is denied";

    #[test]
    fn a_good_policy_is_summed_up_and_its_warnings_told() {
        let (status, out, err) = checked(GOOD, false, &|_| Vec::new());
        assert_eq!(status, 0);
        assert_eq!(
            out,
            "p.json: ok: native form; exec: deny by default, 1 rule; connect: deny by default, 0 rules; 2 examples\n"
        );
        assert_eq!(err, format!("warning: p.json:1:1: {WARNED}\n"));

        let (status, out, err) = checked(GOOD, true, &|_| Vec::new());
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, err.as_str()), (0, ""));
        assert_eq!(out["ok"], true);
        assert_eq!(out["exec_rules"], 1);
        assert_eq!(
            out["warnings"][0],
            json!({"message": WARNED, "line": 1, "column": 1})
        );
    }

    #[test]
    fn a_bad_policy_ends_with_status_2() {
        let bad = "{\"version\": \"2\",\n\"exce\": {}}";
        let (status, out, err) = checked(bad, false, &|_| Vec::new());
        assert_eq!((status, out.as_str()), (2, ""));
        assert_eq!(
            err,
            "error: p.json:2:1: exce: unknown key \"exce\"; did you mean \"exec\"?\n"
        );

        let (status, out, err) = checked(bad, true, &|_| Vec::new());
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, err.as_str()), (2, ""));
        assert_eq!(
            out["errors"][0],
            json!({"message": "unknown key \"exce\"", "mend": "did you mean \"exec\"?", "line": 2, "column": 1,
                   "path": "exce"})
        );
        assert_eq!(out["ok"], false);
    }

    #[test]
    fn rules_that_never_decide_are_warnings() {
        let text = r#"{"version": "2", "connect": {}, "exec": {"rules": [
{"id": "a", "decision": "allow", "glob": ["rm -r *"]}, {"id": "b", "decision": "deny", "glob": ["rm *"]}]}}"#;
        let (status, _, err) = checked(text, false, &|_| Vec::new());
        assert_eq!(status, 0);
        assert!(
            err.starts_with("warning: p.json:2:1: exec.rules[0]: rule \"a\" can never allow: the stricter rule \"b\""),
            "{err}"
        );
        let (_, out, _) = checked(text, true, &|_| Vec::new());
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["warnings"][0]["path"], "exec.rules[0]");
    }

    #[test]
    fn what_is_proved_after_reading_counts_too() {
        let none_match = |parsed: &Parsed| validate::examples(parsed, &|_, _| false);
        let (status, out, err) = checked(GOOD, false, &none_match);
        assert_eq!((status, out.as_str()), (2, ""));
        assert_eq!(
            err,
            "error: p.json:2:61: exec.rules[0].match[0]: rule \"a\" does not match its example \"rm x\"; correct the \
             pattern or the example, or move it to `not_match`\n"
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_in_both_ways() {
        let missing = Path::new("/nonexistent/p.json");
        for json in [false, true] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let status = check(
                missing,
                &ground(),
                json,
                &|_| Vec::new(),
                &mut out,
                &mut err,
            )
            .unwrap();
            assert_eq!(status, 2);
            let said = String::from_utf8(if json { out } else { err }).unwrap();
            assert!(said.contains("does not exist"), "{said}");
        }
    }
}
