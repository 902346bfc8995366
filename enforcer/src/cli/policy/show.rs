//! `enforcer policy show`: a policy as it is judged by, with all that it includes, and where each rule comes from.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::PathBuf,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::counted;
use crate::cli::error::{CliError, Context};
use enforcer_policy::{Decision, JsonPath, Parsed, Place, Risk};
use enforcer_policy_files::{policy_file, shipped::default_policy};

const NOTES: &str = "\
The digest is that of the whole text, which --whole prints: a policy of its own that includes nothing.

Examples:
  enforcer policy show policies/coding-agent.json
  enforcer policy show --whole policies/coding-agent.json > whole.json";

/// Arguments of `enforcer policy show`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct ShowArgs {
    /// The policy's file, or one that comes along (`built-in:strict`) [default: the policy of `run`]
    pub file: Option<PathBuf>,
    /// Print one JSON object instead of text: with the whole policy
    #[arg(long)]
    pub json: bool,
    /// Print the whole policy, with all that it includes, as one file
    #[arg(long, conflicts_with = "json")]
    pub whole: bool,
}

/// A rule and where it stands.
struct Shown<'p> {
    section: &'static str,
    id: &'p str,
    decision: Decision,
    risk: Risk,
    place: Place,
}

pub(super) fn run(
    args: &ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let file = args.file.clone().unwrap_or_else(default_policy);
    let name = file.display().to_string();
    let parsed = policy_file::load(&file, None)?.parsed;
    if args.whole {
        out.write_all(parsed.text().as_bytes())?;
        return Ok(0);
    }
    if args.json {
        writeln!(out, "{}", as_json(&name, &parsed)?)?;
        return Ok(0);
    }
    for warning in &parsed.warnings {
        writeln!(err, "warning: {}", warning.in_file(&name))?;
    }
    text(&name, &parsed, out)?;
    Ok(0)
}

fn rules(parsed: &Parsed) -> Vec<Shown<'_>> {
    let policy = &parsed.policy;
    let exec = policy
        .exec
        .rules
        .iter()
        .enumerate()
        .map(|(at, rule)| Shown {
            section: "exec",
            id: &rule.id,
            decision: rule.decision,
            risk: rule.risk,
            place: parsed.place(&parsed.rule_path(at)),
        });
    let connect = policy.connect.rules.iter().enumerate();
    let connect = connect.map(|(at, rule)| Shown {
        section: "connect",
        id: &rule.id,
        decision: rule.decision,
        risk: rule.risk,
        place: parsed.place(&parsed.connect_rule_path(at)),
    });
    exec.chain(connect).collect()
}

/// Where it stands: file and line.
fn line(place: &Place, policy: &str) -> String {
    Place {
        path: JsonPath::top(),
        column: 0,
        ..place.clone()
    }
    .in_file(policy)
}

fn text(name: &str, parsed: &Parsed, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{name}: sha256 {}", digest(parsed.text()))?;
    for one in parsed.sources().included() {
        writeln!(out, "includes {}: {}", one.name, one.file)?;
    }
    let policy = &parsed.policy;
    let all = rules(parsed);
    let wide = all.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    for (section, default) in [
        ("exec", policy.exec.default),
        ("connect", policy.connect.default),
    ] {
        let rules: Vec<_> = all.iter().filter(|rule| rule.section == section).collect();
        let count = counted(rules.len(), "rule");
        writeln!(out, "{section}: {default} by default, {count}")?;
        for rule in rules {
            let place = line(&rule.place, name);
            writeln!(
                out,
                "  {:5}  {:wide$}  {place}",
                rule.decision.as_str(),
                rule.id
            )?;
        }
    }
    for (what, entries) in [
        ("file_paths.whitelist", &policy.file_paths.whitelist),
        ("file_paths.blacklist", &policy.file_paths.blacklist),
        ("web_tools.whitelist", &policy.web_tools.whitelist),
        (
            "web_tools.allowed_domains",
            &policy.web_tools.allowed_domains,
        ),
        (
            "web_tools.blocked_domains",
            &policy.web_tools.blocked_domains,
        ),
        ("tools.always_allowed", &policy.tools.always_allowed),
    ] {
        if !entries.is_empty() {
            writeln!(out, "{what}: {}", entries.join(" "))?;
        }
    }
    Ok(())
}

fn as_json(name: &str, parsed: &Parsed) -> Result<Value, CliError> {
    let whole: Value =
        serde_json::from_str(parsed.text()).context("the whole policy is no JSON")?;
    let included: Vec<Value> = parsed
        .sources()
        .included()
        .iter()
        .map(|one| json!({"name": one.name, "file": *one.file, "sha256": digest(&one.text)}))
        .collect();
    let rules: Vec<Value> = rules(parsed)
        .iter()
        .map(|rule| {
            json!({
                "section": rule.section,
                "id": rule.id,
                "decision": rule.decision,
                "risk": rule.risk,
                "file": rule.place.file.as_deref().unwrap_or(name),
                "line": rule.place.line,
                "path": rule.place.path.to_string(),
            })
        })
        .collect();
    let warnings: Vec<String> = parsed
        .warnings
        .iter()
        .map(|warning| warning.in_file(name))
        .collect();
    Ok(json!({
        "file": name,
        "sha256": digest(parsed.text()),
        "include": included,
        "rules": rules,
        "warnings": warnings,
        "policy": whole,
    }))
}

fn digest(text: &str) -> String {
    let mut out = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POLICY: &str = "{\"version\": \"2\", \"include\": [\"site\"], \"connect\": {}, \"exec\": {\"rules\": [\n\
                          {\"id\": \"own\", \"decision\": \"ask\", \"glob\": [\"own\"]}]}}";
    const SITE: &str = "{\"version\": \"2\", \"exec\": {\"rules\": [\n\n\
                        {\"id\": \"sites\", \"decision\": \"deny\", \"glob\": [\"x\"]}]}}";

    /// What is shown with these options, with short names.
    fn shown(json: bool, whole: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        fs::create_dir(dir.path().join("rules")).unwrap();
        fs::write(&file, POLICY).unwrap();
        fs::write(dir.path().join("rules/site.json"), SITE).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ShowArgs {
            file: Some(file),
            json,
            whole,
        };
        assert_eq!(run(&args, &mut out, &mut err).unwrap(), 0);
        assert_eq!(err, b"");
        let out = String::from_utf8(out).unwrap();
        out.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn each_rule_is_shown_with_its_file() {
        let whole = shown(false, true);
        assert_eq!(
            shown(false, false),
            format!(
                "p.json: sha256 {}\nincludes site: rules/site.json\nexec: deny by default, 2 rules\n  \
                 deny   sites  rules/site.json:3\n  ask    own    p.json:2\nconnect: deny by default, 0 rules\n",
                digest(&whole)
            )
        );
        let json: Value = serde_json::from_str(&shown(true, false)).unwrap();
        assert_eq!(json["sha256"], digest(&whole));
        assert_eq!(json["include"][0]["file"], "rules/site.json");
        assert_eq!(json["rules"][0]["id"], "sites");
        assert_eq!(json["rules"][0]["file"], "rules/site.json");
        assert_eq!(json["rules"][1]["file"], "p.json");
        assert_eq!(json["policy"]["exec"]["rules"][1]["id"], "own");
    }

    #[test]
    fn the_whole_can_be_used_as_a_policy() {
        let parsed = enforcer_policy::parse(&shown(false, true)).unwrap();
        assert_eq!(parsed.policy.exec.rules.len(), 2);
        assert!(parsed.sources().included().is_empty());
    }
}
