//! What the author of a policy should know of it: rules that nothing can match, which are faults, rules that contradict or
//! shadow one another, capabilities that nobody has, agents that are named twice. For `policy check`; nothing of it is
//! looked for when an agent starts.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Parsed, PolicyError, Warning,
    compile::{CompileError, RuleRef, Shadow, shadows},
    model::{ConnectRule, Network},
    place::{JsonPath, quoted},
};
use crate::Decision;

/// Most rules that a warning names.
const NAMED_MAX: usize = 4;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Rules that nothing can match: a fence that is none.
    pub errors: Vec<PolicyError>,
    /// What is worth a word.
    pub warnings: Vec<Warning>,
}

/// The findings, in the order of the policy's sections.
///
/// # Errors
///
/// [`CompileError`] as for the policy's tables.
pub fn findings(parsed: &Parsed) -> Result<Findings, CompileError> {
    let shadows = shadows(&parsed.policy)?;
    let mut warnings = exec(parsed, &shadows);
    warnings.extend(connect(parsed));
    warnings.extend(capabilities(parsed));
    warnings.extend(agents(parsed));
    let errors = shadows
        .iter()
        .filter(|(_, shadow)| **shadow == Shadow::Never)
        .map(|(at, _)| never(parsed, *at))
        .collect();
    Ok(Findings { errors, warnings })
}

fn never(parsed: &Parsed, at: usize) -> PolicyError {
    PolicyError {
        place: parsed.place(&parsed.rule_path(at)),
        what: format!(
            "rule {} can never match: no command is what its patterns want",
            quoted(&parsed.policy.exec.rules[at].id)
        ),
        mend: "look for a range the wrong way round, or for `^` and `$` in the middle; `enforcer explain` tries a command"
            .to_owned(),
    }
}

fn warning(parsed: &Parsed, path: &JsonPath, text: String) -> Warning {
    Warning {
        place: parsed.place(path),
        text,
    }
}

fn exec(parsed: &Parsed, found: &BTreeMap<usize, Shadow>) -> Vec<Warning> {
    let rules = &parsed.policy.exec.rules;
    let mut warnings = Vec::new();
    let mut unsettled = Vec::new();
    for (at, shadow) in found {
        let rule = &rules[*at];
        let by = match shadow {
            Shadow::By(by) => by,
            Shadow::Never => continue,
            Shadow::Unsettled => {
                unsettled.push(quoted(&rule.id));
                continue;
            }
        };
        let twin = by.iter().find_map(|of| match of {
            RuleRef::Rule(other) if rules[*other].matcher == rule.matcher => Some(&rules[*other]),
            _ => None,
        });
        let decisions = by.iter().map(|of| match of {
            RuleRef::Rule(other) => rules[*other].decision,
            RuleRef::Raised(_) => Decision::Ask,
            _ => parsed.policy.exec.loader,
        });
        let by: Vec<String> = by
            .iter()
            .map(|of| match of {
                RuleRef::Builtin(builtin) => builtin.id().to_owned(),
                other => other
                    .rule()
                    .map_or_else(String::new, |at| rules[at].id.clone()),
            })
            .collect();
        let text = say(
            &rule.id,
            rule.decision,
            &by,
            &decisions.collect::<Vec<_>>(),
            twin.map(|twin| twin.decision),
        );
        warnings.push(warning(parsed, &parsed.rule_path(*at), text));
    }
    if !unsettled.is_empty() {
        let count = unsettled.len();
        unsettled.truncate(NAMED_MAX);
        if count > NAMED_MAX {
            unsettled.push("others".to_owned());
        }
        let text = format!(
            "not checked whether {count} of {} exec rules ever decide, because their patterns are too large together: {}",
            rules.len(),
            unsettled.join(", ")
        );
        warnings.push(warning(parsed, &JsonPath::top(), text));
    }
    warnings
}

/// What there is to say of a rule that never decides.
fn say(
    id: &str,
    decision: Decision,
    by: &[String],
    decisions: &[Decision],
    twin: Option<Decision>,
) -> String {
    let mut named: Vec<String> = by.iter().take(NAMED_MAX).map(|id| quoted(id)).collect();
    if by.len() > NAMED_MAX {
        named.push(format!("{} more", by.len() - NAMED_MAX));
    }
    let (rules, verb, come) = if by.len() == 1 {
        ("rule", "matches", "comes")
    } else {
        ("rules", "match", "come")
    };
    let named = named.join(", ");
    let id = quoted(id);
    match twin {
        Some(other) if other == decision => {
            return format!(
                "rule {id} is written twice: rule {named} has the same pattern and decision; remove one"
            );
        }
        Some(other) => {
            return format!(
                "rules {id} and {named} contradict each other: the same pattern, and one says {decision}, the other \
                 {other}; {other} wins, so {id} never decides"
            );
        }
        None => {}
    }
    let stricter = decisions.iter().all(|other| *other > decision);
    let together = if by.len() == 1 { "" } else { " together" };
    if stricter && decision == Decision::Allow {
        return format!(
            "rule {id} can never allow: the stricter {rules} {named}{together} {verb} all that it matches; remove one side, \
             or make the stricter pattern narrower"
        );
    }
    let why = if stricter {
        "with a stricter decision".to_owned()
    } else {
        format!(
            "and {come} first or {} stricter",
            if by.len() == 1 { "is" } else { "are" }
        )
    };
    format!(
        "rule {id} never decides: {rules} {named}{together} {verb} all that it matches, {why}; remove it, or move it"
    )
}

/// Connect rules that never decide. Rules about unix sockets are compared by their patterns' text.
fn connect(parsed: &Parsed) -> Vec<Warning> {
    let rules = &parsed.policy.connect.rules;
    let mut warnings = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let wins = |other: usize, than: &ConnectRule| {
            let of = &rules[other];
            let first = of.decision > rule.decision || (of.decision == rule.decision && other < at);
            let conditional =
                |rule: &ConnectRule| rule.decision == Decision::Allow && !rule.requires.is_empty();
            let allows = of.decision == Decision::Allow;
            first && other != at && !conditional(of) && !(allows && conditional(than))
        };
        let Some(other) =
            (0..rules.len()).find(|other| wins(*other, rule) && covers(&rules[*other], rule))
        else {
            continue;
        };
        let of = &rules[other];
        let same = of.hosts == rule.hosts
            && of.ports == rule.ports
            && of.protocols == rule.protocols
            && of.unix == rule.unix;
        let text = say(
            &rule.id,
            rule.decision,
            std::slice::from_ref(&of.id),
            &[of.decision],
            same.then_some(of.decision),
        );
        warnings.push(warning(parsed, &parsed.connect_rule_path(at), text));
    }
    warnings
}

/// Whether `wide` matches whatever `narrow` does.
fn covers(wide: &ConnectRule, narrow: &ConnectRule) -> bool {
    if !narrow.unix.is_empty() || !wide.unix.is_empty() {
        return !narrow.unix.is_empty() && narrow.unix.iter().all(|name| wide.unix.contains(name));
    }
    let networks = narrow
        .hosts
        .iter()
        .all(|inner| wide.hosts.iter().any(|outer| contains(outer, inner)));
    !narrow.hosts.is_empty()
        && networks
        && among(&wide.ports, &narrow.ports)
        && among(&wide.protocols, &narrow.protocols)
}

/// Whether a condition lets through whatever the other does; none lets everything through.
fn among<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}

fn contains(outer: &Network, inner: &Network) -> bool {
    let bits = |network: &Network| {
        let shift = 128 - u32::from(outer.prefix.min(128));
        u128::from_be_bytes(network.address)
            .checked_shr(shift)
            .unwrap_or(0)
    };
    outer.prefix <= inner.prefix && bits(outer) == bits(inner)
}

/// Rules that ask for a capability that the policy gives to nobody.
fn capabilities(parsed: &Parsed) -> Vec<Warning> {
    let policy = &parsed.policy;
    let known: BTreeSet<&String> = policy.capabilities.values().flatten().collect();
    let exec = policy.exec.rules.iter().enumerate();
    let exec = exec.map(|(at, rule)| (parsed.rule_path(at), &rule.id, &rule.requires));
    let connect = policy.connect.rules.iter().enumerate();
    let connect =
        connect.map(|(at, rule)| (parsed.connect_rule_path(at), &rule.id, &rule.requires));
    let mut warnings = Vec::new();
    for (path, id, requires) in exec.chain(connect) {
        for (index, name) in requires.iter().enumerate() {
            if !known.contains(name) {
                let text = format!(
                    "rule {} requires the capability {}, which `capabilities` gives to no agent; only one that is \
                     started with it (`--capability`) can ever have it",
                    quoted(id),
                    quoted(name)
                );
                warnings.push(warning(parsed, &path.key("requires").index(index), text));
            }
        }
    }
    warnings
}

/// Agents that are named as trusted and as restricted; upper and lower case are the same.
fn agents(parsed: &Parsed) -> Vec<Warning> {
    let agents = &parsed.policy.agents;
    let restricted: BTreeSet<String> = agents
        .restricted
        .iter()
        .map(|name| name.to_lowercase())
        .collect();
    let path = JsonPath::top().key("agents").key("trusted");
    let trusted = agents.trusted.iter().enumerate();
    trusted
        .filter(|(_, name)| restricted.contains(&name.to_lowercase()))
        .map(|(index, name)| {
            let text = format!(
                "the agent {} is named as trusted and as restricted; remove it from one of the lists",
                quoted(name)
            );
            warning(parsed, &path.index(index), text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn said(text: &str) -> Vec<String> {
        let found = findings(&parse(text).unwrap()).unwrap();
        let errors = found.errors.iter().map(|error| error.in_file("p"));
        let warnings = found.warnings.iter().map(|warning| warning.in_file("p"));
        errors.chain(warnings).collect()
    }

    #[test]
    fn what_nothing_can_match_is_a_fault() {
        let text = r#"{"version": "2", "connect": {}, "exec": {"rules": [
{"id": "a", "decision": "deny", "glob": ["id[z-a]"]}]}}"#;
        let [said] = &said(text)[..] else {
            panic!("{:?}", said(text));
        };
        assert!(
            said.starts_with("p:2:1: exec.rules[0]: rule \"a\" can never match"),
            "{said}"
        );
    }

    #[test]
    fn contradictions_shadows_and_twins_are_named() {
        let text = r#"{"version": "2", "connect": {}, "exec": {"rules": [
{"id": "a", "decision": "allow", "glob": ["git push *"]},
{"id": "b", "decision": "deny", "glob": ["git push *"]},
{"id": "c", "decision": "deny", "glob": ["git push *"]},
{"id": "d", "decision": "allow", "glob": ["git push -u *"]},
{"id": "e", "decision": "deny", "glob": ["git push --force*"]},
{"id": "f", "decision": "allow", "glob": ["ls *"]}]}}"#;
        assert_eq!(
            said(text),
            [
                "p:2:1: exec.rules[0]: rules \"a\" and \"b\" contradict each other: the same pattern, and one says allow, \
                 the other deny; deny wins, so \"a\" never decides",
                "p:4:1: exec.rules[2]: rule \"c\" is written twice: rule \"b\" has the same pattern and decision; remove one",
                "p:5:1: exec.rules[3]: rule \"d\" can never allow: the stricter rule \"b\" matches all that it \
                 matches; remove one side, or make the stricter pattern narrower",
                "p:6:1: exec.rules[4]: rule \"e\" never decides: rule \"b\" matches all that it matches, and comes first or \
                 is stricter; remove it, or move it",
            ]
        );
    }

    #[test]
    fn connect_rules_are_compared_by_what_they_reach() {
        let text = r#"{"version": "2", "exec": {}, "connect": {"rules": [
{"id": "db", "decision": "allow", "hosts": ["10.1.2.3"], "ports": [5432]},
{"id": "net", "decision": "deny", "hosts": ["10.0.0.0/8"]},
{"id": "web", "decision": "allow", "hosts": ["10.0.0.0/7"], "ports": [443]},
{"id": "late", "decision": "deny", "hosts": ["10.9.0.0/16"], "protocols": ["udp"]},
{"id": "sock", "decision": "allow", "unix": ["/run/x"]},
{"id": "shut", "decision": "deny", "unix": ["/run/x", "/run/y"]}]}}"#;
        let said = said(text);
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(
            said[0].contains("rule \"db\" can never allow: the stricter rule \"net\""),
            "{said:#?}"
        );
        assert!(
            said[1].contains("rule \"late\" never decides: rule \"net\""),
            "{said:#?}"
        );
        assert!(
            said[2].contains("rule \"sock\" can never allow: the stricter rule \"shut\""),
            "{said:#?}"
        );
    }

    #[test]
    fn capabilities_that_nobody_has_and_agents_named_twice() {
        let text = r#"{"version": "2", "connect": {}, "agents": {"trusted": ["Coder", "x"], "restricted": ["coder"]},
"capabilities": {"coder": ["deploy"]}, "exec": {"rules": [
{"id": "a", "decision": "allow", "glob": ["kubectl *"], "requires": ["deploy", "depoly"]}]}}"#;
        assert_eq!(
            said(text),
            [
                "p:3:80: exec.rules[0].requires[1]: rule \"a\" requires the capability \"depoly\", which `capabilities` gives \
                 to no agent; only one that is started with it (`--capability`) can ever have it",
                "p:1:56: agents.trusted[0]: the agent \"Coder\" is named as trusted and as restricted; remove it from one \
                 of the lists",
            ]
        );
    }

    #[test]
    fn a_sound_policy_has_no_findings() {
        assert_eq!(
            said(
                r#"{"version": "2", "connect": {}, "exec": {"rules": [
{"id": "git", "decision": "allow", "glob": ["git *"]},
{"id": "push", "decision": "deny", "argv": {"program": "git", "words": ["push"]}}]}}"#
            ),
            [""; 0]
        );
    }
}
