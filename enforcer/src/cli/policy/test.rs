//! `enforcer policy test`: the examples of a policy's rules, and files of cases.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{counted, read};
use crate::cli::error::{CliError, Context, refuse};
use crate::cli::explain;
use enforcer_decide::examples;
use enforcer_decide::{Engine, Outcome, command_text};
use enforcer_policy::Decision;

/// Longest line of a file of cases, bytes.
const LINE_MAX: u64 = 1 << 20;

const NOTES: &str = "\
A file of cases has one JSON object a line: what is judged, and what is expected of it. Nothing is run or contacted.

  {\"argv\": [\"git\", \"push\", \"--force\"], \"expected\": \"deny\", \"rule\": \"git-push-force\"}
  {\"command\": \"ls | sort\", \"expected\": \"allow\"}
  {\"host\": \"169.254.169.254\", \"port\": 80, \"expected\": [\"ask\", \"deny\"]}
  {\"unix\": \"/run/docker.sock\", \"expected\": \"deny\"}

`rule` (the rule that must decide) and `source`, `note`, `cwd`, `project_root` (not judged) may be there.

Exit status: 0 if all passed, 1 if something failed, 2 if a file cannot be used.

Examples:
  enforcer policy test policies/coding-agent.json
  enforcer policy test coder.json cases/*.jsonl";

/// Arguments of `enforcer policy test`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct TestArgs {
    /// The policy's file
    pub file: PathBuf,
    /// Files of cases, JSON Lines
    pub cases: Vec<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// One line of a file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    argv: Option<Vec<String>>,
    command: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
    unix: Option<String>,
    expected: Expected,
    rule: Option<String>,
    #[serde(rename = "source")]
    _source: Option<Value>,
    #[serde(rename = "note")]
    _note: Option<Value>,
    #[serde(rename = "cwd")]
    _cwd: Option<Value>,
    #[serde(rename = "project_root")]
    _project_root: Option<Value>,
}

/// One decision, or several of which any will do.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Expected {
    One(Decision),
    Any(Vec<Decision>),
}

impl Expected {
    fn holds(&self, decision: Decision) -> bool {
        match self {
            Self::One(one) => *one == decision,
            Self::Any(any) => any.contains(&decision),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Any(any) => {
                let words: Vec<&str> = any.iter().map(|one| one.as_str()).collect();
                f.write_str(&words.join(" or "))
            }
        }
    }
}

/// A case that came out otherwise.
#[derive(Debug)]
struct Failure {
    place: String,
    subject: String,
    what: String,
    outcome: Option<Outcome>,
}

pub(super) fn run(
    args: &TestArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let name = args.file.display().to_string();
    let (parsed, engine) = read(&args.file)?;
    let rules = parsed.policy.exec.rules.iter();
    let examples: usize = rules
        .map(|rule| rule.examples.len() + rule.counter_examples.len())
        .sum();
    let mut failures: Vec<Failure> = examples::prove(&parsed, Some(&engine))
        .into_iter()
        .map(|error| Failure {
            place: error.place.in_file(&name),
            subject: String::new(),
            what: error.what,
            outcome: None,
        })
        .collect();
    let mut cases = 0;
    for file in &args.cases {
        cases += try_cases(&engine, file, &mut failures)?;
    }
    if args.json {
        writeln!(out, "{}", as_json(&name, examples, cases, &failures))?;
    } else {
        for failure in &failures {
            writeln!(err, "failed: {failure}")?;
        }
        writeln!(
            out,
            "{name}: {} and {}: {} failed",
            counted(examples, "example"),
            counted(cases, "case"),
            failures.len()
        )?;
    }
    Ok(u8::from(!failures.is_empty()))
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        f.write_str(&self.what)?;
        match &self.outcome {
            Some(outcome) => write!(f, ": {}", outcome.reason),
            None => Ok(()),
        }
    }
}

fn as_json(name: &str, examples: usize, cases: usize, failures: &[Failure]) -> Value {
    let failures: Vec<Value> = failures
        .iter()
        .map(|failure| {
            let mut object = json!({"place": failure.place, "what": failure.what});
            if !failure.subject.is_empty() {
                object["subject"] = failure.subject.clone().into();
            }
            if let Some(outcome) = &failure.outcome {
                object["decision"] = json!(outcome.decision);
                object["rule"] = json!(outcome.rule);
                object["reason"] = outcome.reason.clone().into();
            }
            object
        })
        .collect();
    json!({"ok": failures.is_empty(), "file": name, "examples": examples, "cases": cases, "failures": failures})
}

/// Tries each case of a file; gives how many there are.
fn try_cases(engine: &Engine, path: &Path, failures: &mut Vec<Failure>) -> Result<usize, CliError> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("the cases {name} cannot be read"))?;
    let mut file = BufReader::new(file);
    let (mut count, mut number) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        let read = file
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("the cases {name} cannot be read"))?;
        if read == 0 {
            return Ok(count);
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let place = format!("{name}:{number}");
        if read as u64 == LINE_MAX {
            refuse!("{place}: the line is longer than {LINE_MAX} bytes; make it a shorter case");
        }
        let case: Case = serde_json::from_slice(line).map_err(|error| {
            CliError::Refused(format!(
                "{place}: this is no case: {error}; see `enforcer policy test --help`"
            ))
        })?;
        let (subject, outcome) =
            judge(engine, &case).map_err(|why| CliError::Refused(format!("{place}: {why}")))?;
        count += 1;
        let wrong_rule = case
            .rule
            .as_ref()
            .filter(|rule| outcome.rule.as_ref() != Some(*rule));
        let got = super::history::outcome(&outcome);
        let what = match wrong_rule {
            _ if !case.expected.holds(outcome.decision) => {
                format!("expected {}, got {got}", case.expected)
            }
            Some(rule) => format!("expected rule {rule}, got {got}"),
            None => continue,
        };
        failures.push(Failure {
            place,
            subject: enforcer_redact::sanitise(subject.as_bytes()),
            what,
            outcome: Some(outcome),
        });
    }
}

/// What the policy says of a case, and how it reads.
fn judge(engine: &Engine, case: &Case) -> Result<(String, Outcome), String> {
    if case.host.is_none() && (case.port.is_some() || case.protocol.is_some()) {
        return Err("`port` and `protocol` belong to `host`".to_owned());
    }
    match (&case.argv, &case.command, &case.host, &case.unix) {
        (Some(argv), None, None, None) => {
            if argv.is_empty() {
                return Err("`argv` is empty; give it the program at least".to_owned());
            }
            let words: Vec<Vec<u8>> = argv.iter().map(|word| word.clone().into_bytes()).collect();
            Ok((
                argv.join(" "),
                command_text::judge_words(engine, &words).outcome,
            ))
        }
        (None, Some(command), None, None) => Ok((
            command.clone(),
            command_text::judge(engine, command).outcome,
        )),
        (None, None, Some(host), None) => {
            let port = case.port.ok_or("`port` is missing")?;
            let judged = explain::judge_host(engine, host, port, case.protocol.as_deref())?;
            Ok((format!("{host} port {port}"), judged.outcome))
        }
        (None, None, None, Some(name)) => {
            let judged = explain::judge_unix(engine, name.as_bytes())?;
            Ok((name.clone(), judged.outcome))
        }
        _ => Err("give one of `argv`, `command`, `host`, `unix`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POLICY: &str = r#"{"version": "2", "exec": {"rules": [
{"id": "ls", "decision": "allow", "argv": {"program": "ls"}, "match": ["ls -l"], "not_match": ["lsof"]},
{"id": "force", "decision": "deny", "argv": {"program": "git", "words": ["push"], "flags_any": ["--force"]}}]},
"connect": {"rules": [{"id": "db", "decision": "allow", "hosts": ["10.0.0.1"], "ports": [5432]}]}}"#;

    /// Status, output, errors.
    fn tried(policy: &str, cases: &str, json: bool) -> (Result<u8, CliError>, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.json");
        let lines = directory.path().join("c.jsonl");
        fs::write(&file, policy).unwrap();
        fs::write(&lines, cases).unwrap();
        let args = TestArgs {
            file,
            cases: vec![lines],
            json,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&args, &mut out, &mut err);
        let short = |bytes: Vec<u8>| {
            let path = format!("{}/", directory.path().display());
            String::from_utf8(bytes).unwrap().replace(&path, "")
        };
        (status, short(out), short(err))
    }

    #[test]
    fn all_that_holds_is_counted() {
        let cases = r#"
{"argv": ["ls", "-l"], "expected": "allow", "rule": "ls"}
{"command": "ls; git push --force", "expected": "deny", "source": "here"}
{"host": "10.0.0.1", "port": 5432, "expected": "allow"}
{"unix": "/run/x", "expected": ["allow", "ask"]}
"#;
        let (status, out, err) = tried(POLICY, cases, false);
        assert_eq!((status.unwrap(), err.as_str()), (0, ""));
        assert_eq!(out, "p.json: 2 examples and 4 cases: 0 failed\n");
    }

    #[test]
    fn a_failure_says_where_what_and_why() {
        let cases = r#"{"argv": ["ls"], "expected": "deny"}
{"argv": ["ls"], "expected": "allow", "rule": "other"}"#;
        let (status, out, err) = tried(POLICY, cases, false);
        assert_eq!(status.unwrap(), 1);
        assert_eq!(
            err,
            "failed: c.jsonl:1: ls: expected deny, got allow [ls]: Matches rule: ls\n\
             failed: c.jsonl:2: ls: expected rule other, got allow [ls]: Matches rule: ls\n"
        );
        assert!(out.ends_with("2 failed\n"), "{out}");
        let (status, out, _) = tried(POLICY, cases, true);
        assert_eq!(status.unwrap(), 1);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&out["ok"], &out["cases"]), (&json!(false), &json!(2)));
        assert_eq!(out["failures"][0]["rule"], "ls");
    }

    #[test]
    fn examples_that_fail_are_failures_too() {
        let policy = POLICY.replace("\"lsof\"", "\"ls -a\"");
        let (status, _, err) = tried(&policy, "", false);
        assert_eq!(status.unwrap(), 1);
        assert!(err.starts_with("failed: p.json:2:"), "{err}");
        assert!(err.contains("which it must not"), "{err}");
    }

    #[test]
    fn a_line_that_is_no_case_ends_the_test() {
        for (line, why) in [
            ("{\"argv\": [\"ls\"]}", "missing field `expected`"),
            (
                "{\"argv\": [\"ls\"], \"expected\": \"allow\", \"rul\": \"x\"}",
                "unknown field `rul`",
            ),
            ("{\"argv\": [], \"expected\": \"allow\"}", "`argv` is empty"),
            ("{\"expected\": \"allow\"}", "give one of"),
            (
                "{\"host\": \"x\", \"expected\": \"allow\"}",
                "`port` is missing",
            ),
            ("no json", "this is no case"),
        ] {
            let (status, _, _) = tried(POLICY, line, false);
            let said = status.unwrap_err().message();
            assert!(
                said.contains("c.jsonl:1") && said.contains(why),
                "{line}: {said}"
            );
        }
    }
}
