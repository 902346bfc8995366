//! `enforcer explain --last`: why the last action was denied. Whoever is inside an agent asks its run, which tells an
//! agent of its own denials and nothing else; everybody else reads the trail.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::ExplainArgs;
use crate::cli::error::{CliError, Context, refuse};
use crate::cli::{FAILURE, approvals::STATE_ROOT, audit};
use enforcer_control::{SOCKET_NAME, client, protocol::Operation};
use enforcer_launch::agent_of;
use enforcer_policy::{Policy, sockets};
use enforcer_policy_files::policy_file;
use enforcer_say::say;
use enforcer_seccomp::groups;
use enforcer_trail::{DEFAULT_PATH, Entry, Reader};

/// One denial. What is not known is absent.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Denial {
    #[serde(skip_serializing_if = "String::is_empty")]
    when: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    agent: String,
    /// What was tried, or all that the run tells of it.
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    risk: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    how: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    process: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

/// Shows the last denials. Exit status 2 when there is none.
///
/// # Errors
///
/// Neither the run nor the trail can be asked, or standard output cannot be written.
pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode, CliError> {
    if args.count == 0 {
        refuse!("-n 0 asks for no denial; write 1 or more");
    }
    let inside = agent_of(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let denials = match (inside, &args.audit) {
        (Some(id), None) => {
            if args.agent.is_some() {
                refuse!("inside an agent there are its own denials only; leave --agent away");
            }
            of_run(&id, args.count)?
        }
        (_, audit) => {
            let policy = args
                .policy
                .as_deref()
                .map(|path| policy_file::load(path, None))
                .transpose()?
                .map(|loaded| loaded.parsed.policy);
            let trail = audit.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
            of_trail(trail, args.count, args.agent.as_deref(), policy.as_ref())?
        }
    };
    if denials.is_empty() {
        match (&args.agent, &args.audit) {
            (None, None) => say!("enforcer: nothing has been denied yet"),
            (agent, audit) => {
                let trail = audit.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
                let whom = agent.as_ref().map_or_else(String::new, |name| {
                    format!(" to an agent that is called `{name}`")
                });
                say!(
                    "enforcer: nothing that {} tells of was denied{whom}",
                    trail.display()
                );
            }
        }
        return Ok(ExitCode::from(FAILURE));
    }
    let mut out = enforcer_say::out();
    for denial in &denials {
        if args.json {
            serde_json::to_writer(&mut out, denial)?;
            out.write_all(b"\n")
        } else {
            write(denial, &mut out)
        }
        .context("the denials cannot be written")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the run that this process belongs to.
fn of_run(id: &str, count: usize) -> Result<Vec<Denial>, CliError> {
    let socket = PathBuf::from(STATE_ROOT).join(id).join(SOCKET_NAME);
    let reply = client::request(&socket, &Operation::Last).with_context(|| {
        format!(
            "the run of this agent ({id}) cannot be asked; the operator finds the denial with `enforcer explain --last`"
        )
    })?;
    if let Some(error) = reply.error {
        refuse!("{error}");
    }
    let texts = reply.denials.unwrap_or_default();
    let first = texts.len().saturating_sub(count);
    Ok(texts[first..]
        .iter()
        .map(|text| Denial {
            what: audit::clean(text),
            ..Denial::default()
        })
        .collect())
}

fn of_trail(
    trail: &Path,
    count: usize,
    agent: Option<&str>,
    policy: Option<&Policy>,
) -> Result<Vec<Denial>, CliError> {
    let wanted = |line: &[u8]| {
        Entry::parse(line).is_ok_and(|entry| {
            entry.text("event") == "denial"
                && entry.is_denied()
                && agent
                    .is_none_or(|agent| entry.text("agent").to_lowercase() == agent.to_lowercase())
        })
    };
    let (lines, _) = Reader::new(trail).last(count, wanted).context(
        "inside an agent its run is asked; outside, the trail is read, as root (sudo enforcer explain --last) or from the file that --audit names",
    )?;
    Ok(lines
        .iter()
        .filter_map(|line| Entry::parse(line).ok())
        .map(|entry| of_entry(&entry, policy))
        .collect())
}

fn of_entry(entry: &Entry, policy: Option<&Policy>) -> Denial {
    let parameter = |key| audit::clean(&entry.parameter(key));
    let tool = audit::clean(&entry.text("tool"));
    let rule = parameter("rule");
    let verdict = parameter("verdict");
    let stage = parameter("stage");
    let how = match (verdict.as_str(), stage.as_str()) {
        ("", "") => String::new(),
        ("", stage) => format!("judged at stage {stage}"),
        (verdict, "") => verdict.to_owned(),
        (verdict, stage) => format!("{verdict}, judged at stage {stage}"),
    };
    let pid = parameter("pid");
    let process = if pid.is_empty() {
        String::new()
    } else {
        format!(
            "pid {pid}, parent {}, uid {}",
            parameter("ppid"),
            parameter("uid")
        )
    };
    Denial {
        when: audit::clean(&entry.text("timestamp")),
        agent: audit::clean(&entry.text("agent")),
        what: format!("{tool} {}", audit::subject(entry))
            .trim()
            .to_owned(),
        reason: audit::clean(&entry.text("reason")),
        // What was said then, for the policy that it was.
        suggestion: Some(parameter("suggestion"))
            .filter(|said| !said.is_empty())
            .or_else(|| suggestion(&rule, policy)),
        rule,
        risk: parameter("risk"),
        how,
        process,
    }
}

/// What a rule says to do instead: a built-in one always, one of a policy if that is named.
fn suggestion(rule: &str, policy: Option<&Policy>) -> Option<String> {
    if let Some(group) = rule.strip_prefix(groups::RULE) {
        return Some(groups::suggestion(group));
    }
    let of_policy = policy.and_then(|policy| {
        let exec = policy.exec.rules.iter().map(|r| (&r.id, &r.suggestion));
        let connect = policy.connect.rules.iter().map(|r| (&r.id, &r.suggestion));
        let (_, suggestion) = exec.chain(connect).find(|(id, _)| *id == rule)?;
        suggestion.clone()
    });
    of_policy.or_else(|| {
        let built_in = sockets::built_in().ok()?.iter();
        let found = built_in.clone().find(|socket| socket.id == rule)?;
        Some(found.suggestion.clone())
    })
}

fn write(denial: &Denial, out: &mut impl Write) -> io::Result<()> {
    let head: Vec<&str> = [&denial.when, &denial.agent, &denial.what]
        .map(String::as_str)
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    writeln!(out, "{}", head.join("  "))?;
    for (name, text) in [
        ("reason", denial.reason.as_str()),
        ("rule", &denial.rule),
        ("risk", &denial.risk),
        ("how", &denial.how),
        ("process", &denial.process),
        ("instead", denial.suggestion.as_deref().unwrap_or_default()),
    ] {
        if !text.is_empty() {
            writeln!(out, "  {name}: {text}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIL: &str = concat!(
        r#"{"timestamp":"2026-11-21T04:59:59.294619+00:00","event":"denial","agent":"one","tool":"exec","reason":"Deletes [no-rm]","security_risk":true,"parameters":{"command":"rm -rf /","pid":9,"ppid":8,"uid":7,"rule":"no-rm","decision":"deny","verdict":"errno","stage":"lsm","risk":"HIGH"}}"#,
        "\n",
        r#"{"timestamp":"2026-11-21T05:00:00.000000+00:00","event":"denial","agent":"two","tool":"syscall","reason":"types","security_risk":true,"parameters":{"syscall":"ioctl","group":"terminal-input","rule":"syscall:terminal-input"}}"#,
        "\n",
        r#"{"timestamp":"2026-11-21T05:00:01.000000+00:00","event":"approval","agent":"one","security_risk":false}"#,
        "\nnot a line\n",
    );

    fn trail() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(TRAIL.as_bytes()).unwrap();
        file
    }

    fn shown(denial: &Denial) -> String {
        let mut out = Vec::new();
        write(denial, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_last_denials_of_a_trail() {
        let file = trail();
        let last = of_trail(file.path(), 1, None, None).unwrap();
        assert_eq!(last.len(), 1);
        let text = shown(&last[0]);
        assert!(
            text.contains("two  syscall ioctl\n  reason: types"),
            "{text}"
        );
        assert!(text.contains("  instead: do without it"), "{text}");
        let all = of_trail(file.path(), 9, None, None).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(of_trail(file.path(), 9, Some("three"), None).unwrap(), []);
        assert!(of_trail(Path::new("/no/such/file"), 1, None, None).is_err());
    }

    #[test]
    fn a_policy_knows_what_to_do_instead() {
        let policy = enforcer_policy::parse(
            r#"{"version": "2", "exec": {"default": "allow", "rules": [
                {"id": "no-rm", "decision": "deny", "glob": ["rm *"], "suggestion": "delete single files"}]}}"#,
        )
        .unwrap()
        .policy;
        let file = trail();
        let last = of_trail(file.path(), 1, Some("one"), Some(&policy)).unwrap();
        assert_eq!(
            shown(&last[0]),
            "2026-11-21T04:59:59.294619+00:00  one  exec rm -rf /\n  reason: Deletes [no-rm]\n  rule: no-rm\n  risk: HIGH\n  \
             how: errno, judged at stage lsm\n  process: pid 9, parent 8, uid 7\n  instead: delete single files\n"
        );
        let docker = suggestion("socket:docker", None).unwrap();
        assert!(docker.starts_with("run the program itself"));
        assert_eq!(suggestion("no-rm", None), None);
    }
}
