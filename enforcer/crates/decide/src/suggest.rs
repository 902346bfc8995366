//! What to do about a denial: how to be allowed, and by whom. What to do instead is the rule's own to say.

use enforcer_common::event::{
    CAUSE_BREAKER, CAUSE_COMPLEXITY, CAUSE_FILELESS, CAUSE_LISTENER, CAUSE_RATE, CAUSE_UNREADABLE,
    CAUSE_UNSEEN, CAUSE_USER_RATE,
};

use enforcer_policy::Decision;
use enforcer_policy::model::Form;

/// How to have what asks approved.
const APPROVE: &str =
    "an approver answers what waits: enforcer approvals list, then enforcer approvals approve ID";

/// How the agent gets capabilities.
pub fn capabilities(missing: &[&str]) -> String {
    let flags: Vec<String> = missing
        .iter()
        .map(|name| format!("--capability {name}"))
        .collect();
    format!(
        "ask the operator for the missing capabilities: start the agent with {}, or add them to its name under \
         `capabilities` in the policy",
        flags.join(" ")
    )
}

/// What advice that names a section of the native form calls it under a policy of the hook form, which has none of its own.
const NATIVE: [(&str, &str); 2] = [
    (
        "a connect rule",
        "a connect rule of a policy in the native form",
    ),
    (
        "`syscalls.allow`",
        "`syscalls.allow` of a policy in the native form",
    ),
];

/// Advice that is the same for policies of both forms, for one of them.
pub fn in_form(form: Form, advice: &str) -> String {
    let native = NATIVE.iter().filter(|_| form == Form::Hook);
    native.fold(advice.to_owned(), |said, (section, named)| {
        said.replace(section, named)
    })
}

/// How what the breaker or a limit denies is allowed again.
pub(super) fn after_limit(cause: u32, form: Form) -> Option<String> {
    let said = match cause {
        CAUSE_BREAKER if form == Form::Hook => {
            "look at what was denied (enforcer audit query --event denial); only an operator closes the breaker"
        }
        CAUSE_BREAKER => {
            "look at what was denied (enforcer audit query --event denial); only an operator closes the breaker, or the \
             time that `breaker.half_open_after_s` in the policy gives"
        }
        CAUSE_RATE | CAUSE_USER_RATE => {
            "room comes back as old actions leave the sliding window; the operator sets the rate in `limits` of the policy"
        }
        CAUSE_COMPLEXITY => "the operator sets what one exec may have in `limits` of the policy",
        _ => return None,
    };
    Some(said.to_owned())
}

/// How a rule that is in the way is changed.
pub(super) fn after_rule(decision: Decision, id: &str) -> Vec<String> {
    match decision {
        Decision::Allow => Vec::new(),
        Decision::Ask => vec![APPROVE.to_owned()],
        Decision::Deny => vec![format!(
            "if the work cannot be done otherwise, ask the operator to change the rule `{id}` in the policy"
        )],
    }
}

/// What a policy lacks that would allow, by the key where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lacking<'a> {
    /// A rule of the native form.
    Rule(&'a str),
    /// A pattern of the hook form.
    Pattern(&'a str),
    /// A setting of the hook form.
    Setting(&'a str),
}

/// How something gets what would allow it.
pub(super) fn after_default(decision: Decision, lacking: Lacking<'_>) -> Vec<String> {
    let wanted = match lacking {
        Lacking::Rule(rules) => format!("for an allow rule in `{rules}` of the policy"),
        Lacking::Pattern(list) => format!("for a pattern in `{list}` of the policy"),
        Lacking::Setting(key) => format!("to set `{key}` in the policy"),
    };
    match decision {
        Decision::Allow => Vec::new(),
        Decision::Ask => vec![APPROVE.to_owned()],
        Decision::Deny => vec![format!("if the work needs it, ask the operator {wanted}")],
    }
}

/// What to do about a listener outside the agent.
fn about_listener(form: Form) -> &'static str {
    match form {
        Form::Native => {
            "start the server below the agent; or the operator names it in the policy: its socket in \
             `connect.rules[].unix`, its port in `connect.rules[].ports`"
        }
        Form::Hook => {
            "start the server below the agent; only a policy of the native form can name one outside"
        }
    }
}

/// What to do instead where a listener is in the way, for the line that the process sees.
pub(super) fn listener(decision: Decision, cause: u32, form: Form) -> Option<String> {
    let listener = matches!(cause, CAUSE_LISTENER | CAUSE_UNSEEN);
    (listener && decision != Decision::Allow).then(|| about_listener(form).to_owned())
}

/// What can be done where no rule decided.
pub(super) fn after_cause(decision: Decision, cause: u32, form: Form) -> Vec<String> {
    let said = match cause {
        _ if decision == Decision::Allow => return Vec::new(),
        CAUSE_FILELESS => "write the program to a file and run it by its path",
        CAUSE_LISTENER | CAUSE_UNSEEN => about_listener(form),
        CAUSE_UNREADABLE => "try again with fewer or shorter arguments",
        _ => return approval(decision).into_iter().collect(),
    };
    [said.to_owned()]
        .into_iter()
        .chain(approval(decision))
        .collect()
}

/// How to have it approved, if it asks.
pub(super) fn approval(decision: Decision) -> Option<String> {
    (decision == Decision::Ask).then(|| APPROVE.to_owned())
}

/// What is allowed needs no advice.
pub(super) fn unless_allowed(decision: Decision, suggestions: Vec<String>) -> Vec<String> {
    match decision {
        Decision::Allow => Vec::new(),
        Decision::Ask | Decision::Deny => suggestions,
    }
}
