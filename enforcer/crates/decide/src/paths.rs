//! What file tools may name: the blacklist, then the project, then the whitelist, else a denial.
//!
//! Paths arrive resolved: who calls has followed `..` and symbolic links as far as they exist.

use enforcer_policy::{compile::Glob, model::PathLists};

use super::{Outcome, tool};
use enforcer_policy::{Cause, Risk};

/// A path that a tool names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// Absolute, shortest form, without following links.
    pub given: String,
    /// Where it leads: `..` and links resolved as far as they exist.
    pub real: String,
    /// Whether the tool writes there.
    pub writes: bool,
}

/// Where file tools may work at all, whatever the whitelist says. All resolved, without a slash at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// The project's directories.
    pub project: Vec<String>,
    /// Directories outside it that are no danger (`/tmp`).
    pub exempt: Vec<String>,
    /// What makes the hook work (settings, policies, state, trail), with all below: no tool may write there.
    pub own: Vec<String>,
    /// What `~` in patterns stands for.
    pub home: Option<String>,
}

/// Judges one path.
pub fn judge(lists: &PathLists, grounds: &Grounds, path: &NamedPath) -> Outcome {
    let real = &path.real;
    let shown = if path.given == *real {
        real.clone()
    } else {
        format!("{real}, named as {}", path.given)
    };
    if let Some(pattern) = first(&lists.blacklist, grounds, &[real, &path.given]) {
        return denied(
            (Cause::Rule, Some(pattern)),
            format!("Matches blacklist pattern: {pattern} ({shown})"),
            Risk::High,
            true,
        );
    }
    let inside = |roots: &[String]| roots.iter().any(|root| is_below(real, root));
    if path.writes && inside(&grounds.own) {
        return denied(
            (Cause::Guard, None),
            format!("Path belongs to what guards the agent: {shown}"),
            Risk::Critical,
            true,
        );
    }
    if !inside(&grounds.project) && !inside(&grounds.exempt) {
        return denied(
            (Cause::Project, None),
            format!(
                "Path outside the project: {shown} (project: {})",
                grounds.project.join(", ")
            ),
            Risk::High,
            true,
        );
    }
    match first(&lists.whitelist, grounds, &[real]) {
        Some(pattern) => tool::allowed(
            Some(pattern),
            format!("Matches whitelist pattern: {pattern}"),
        ),
        None => denied(
            (Cause::Default, None),
            format!("Path not in whitelist (deny by default): {shown}"),
            Risk::Medium,
            false,
        ),
    }
}

/// Whether a path is a directory or lies below it. Both resolved.
pub fn is_below(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn denied(
    (cause, rule): (Cause, Option<&str>),
    reason: String,
    risk: Risk,
    security_risk: bool,
) -> Outcome {
    Outcome {
        rule: rule.map(str::to_owned),
        risk,
        security_risk,
        ..tool::denied(cause, reason)
    }
}

/// The first pattern that matches one of the texts. A directory is matched with and without a slash at its end:
/// `*/secrets/*` is about `secrets` itself too.
pub(super) fn first<'p>(
    patterns: &'p [String],
    grounds: &Grounds,
    texts: &[&str],
) -> Option<&'p str> {
    patterns.iter().map(String::as_str).find(|pattern| {
        let glob = Glob::parse(&at_home(pattern, grounds));
        texts
            .iter()
            .any(|text| glob.matches(text) || glob.matches(&format!("{text}/")))
    })
}

/// `~/x` is below the home directory.
fn at_home(pattern: &str, grounds: &Grounds) -> String {
    match (&grounds.home, pattern.strip_prefix('~')) {
        (Some(home), Some(rest)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{home}{rest}")
        }
        _ => pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_policy::Decision;

    fn lists(whitelist: &[&str], blacklist: &[&str]) -> PathLists {
        let owned = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
        PathLists {
            whitelist: owned(whitelist),
            blacklist: owned(blacklist),
        }
    }

    fn grounds() -> Grounds {
        Grounds {
            project: vec!["/home/ann/project".to_owned()],
            exempt: vec!["/tmp".to_owned()],
            own: vec!["/home/ann/project/.claude/settings.json".to_owned()],
            home: Some("/home/ann".to_owned()),
        }
    }

    fn said(lists: &PathLists, real: &str) -> (Decision, String) {
        let path = NamedPath {
            given: real.to_owned(),
            real: real.to_owned(),
            writes: false,
        };
        let outcome = judge(lists, &grounds(), &path);
        (outcome.decision, outcome.reason)
    }

    #[test]
    fn blacklist_then_project_then_whitelist_then_denial() {
        let lists = lists(&["*.rs", "/tmp/*"], &["*/.env", "*/secrets/*", "~/.ssh/*"]);
        for (path, reason) in [
            (
                "/home/ann/project/.env",
                "Matches blacklist pattern: */.env (/home/ann/project/.env)",
            ),
            (
                "/home/ann/project/secrets",
                "Matches blacklist pattern: */secrets/* (/home/ann/project/secrets)",
            ),
            (
                "/home/ann/.ssh/id",
                "Matches blacklist pattern: ~/.ssh/* (/home/ann/.ssh/id)",
            ),
            (
                "/home/ann/other/x.rs",
                "Path outside the project: /home/ann/other/x.rs (project: /home/ann/project)",
            ),
            (
                "/home/ann/project-2/x.rs",
                "Path outside the project: /home/ann/project-2/x.rs (project: /home/ann/project)",
            ),
            (
                "/home/ann/project/notes",
                "Path not in whitelist (deny by default): /home/ann/project/notes",
            ),
        ] {
            assert_eq!(said(&lists, path), (Decision::Deny, reason.to_owned()));
        }
        for path in ["/home/ann/project/src/x.rs", "/tmp/anything"] {
            assert_eq!(said(&lists, path).0, Decision::Allow, "{path}");
        }
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads_and_by_its_own_name() {
        let lists = lists(&["*"], &["/etc/*", "*/.env"]);
        let judged = |given: &str, real: &str| {
            let path = NamedPath {
                given: given.to_owned(),
                real: real.to_owned(),
                writes: false,
            };
            judge(&lists, &grounds(), &path)
        };
        let out = judged("/home/ann/project/link", "/etc/shadow");
        assert_eq!(out.decision, Decision::Deny);
        assert_eq!(
            out.reason,
            "Matches blacklist pattern: /etc/* (/etc/shadow, named as /home/ann/project/link)"
        );
        assert!(out.security_risk);
        let out = judged("/home/ann/project/.env", "/home/ann/project/harmless");
        assert_eq!(out.decision, Decision::Deny);
        let out = judged("/home/ann/project/link", "/opt/x");
        assert!(out.reason.starts_with("Path outside the project: /opt/x"));
    }

    #[test]
    fn what_guards_the_agent_is_read_only() {
        let judged = |writes| {
            let own = "/home/ann/project/.claude/settings.json".to_owned();
            let path = NamedPath {
                given: own.clone(),
                real: own,
                writes,
            };
            judge(&lists(&["*"], &[]), &grounds(), &path).decision
        };
        assert_eq!(judged(true), Decision::Deny);
        assert_eq!(judged(false), Decision::Allow);
    }

    #[test]
    fn a_project_that_is_the_root_holds_everything() {
        assert!(is_below("/etc/x", "/"));
        assert!(is_below("/a", "/a") && is_below("/a/b", "/a/") && !is_below("/ab", "/a"));
    }
}
