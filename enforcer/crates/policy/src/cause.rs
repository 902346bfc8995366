//! Why an action is decided as it is, as data: the trail's `cause`. The words for people are made from it, never read back.

use enforcer_common::event as kernel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A rule, of the policy or built in: `rule` says which.
    Rule,
    /// An allow rule whose capabilities the agent lacks.
    Capabilities,
    /// An allow rule of a risk that a person has to approve.
    Risk,
    /// No rule: the policy's default.
    Default,
    /// A person approved it.
    Approved,
    /// It is the command that the operator gave to `run`.
    Operator,
    /// It is the launcher's own hook, or the shell that starts it.
    Hook,
    /// A program that may start because what it starts is judged.
    Transparent,
    /// A text that starts no program, and that no rule is about.
    NoProgram,
    /// The executable has no name in the file system, or was named through a descriptor.
    Fileless,
    /// What is to be judged could not be read, or is not understood.
    Unreadable,
    /// A process left its agent's cgroup.
    Escape,
    /// A process outside the agent would be traced, read or signalled.
    Outsider,
    /// A system call of a group that is refused.
    Syscall,
    /// A socket family or protocol that host rules cannot judge.
    Family,
    /// A packet that would not go to the address that was judged.
    Routed,
    /// The path of a unix socket can be a link, and only the launcher's connector may use it.
    Connector,
    /// Who listens is outside the agent and belongs to its own user.
    Listener,
    /// Who listens at the name of a datagram cannot be seen.
    Unseen,
    /// The breaker is open.
    Breaker,
    /// The agent's rate is used up.
    Rate,
    /// The rate of all agents of the user is used up.
    UserRate,
    /// Too many arguments, too long, or too deep in the process tree.
    Complexity,
    /// A tool's path lies outside the project.
    Project,
    /// A tool's path belongs to what guards the agent.
    Guard,
    /// A text that looks injected.
    Injection,
    /// A host of no public network, that the policy does not name.
    InternalHost,
    /// The agent is not let in: its mode, its name, its tenant.
    Admission,
    /// It could not be judged, counted or recorded.
    Internal,
}

impl Cause {
    /// The word in the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Capabilities => "capabilities",
            Self::Risk => "risk",
            Self::Default => "default",
            Self::Approved => "approved",
            Self::Operator => "operator",
            Self::Hook => "hook",
            Self::Transparent => "transparent",
            Self::NoProgram => "no-program",
            Self::Fileless => "fileless",
            Self::Unreadable => "unreadable",
            Self::Escape => "escape",
            Self::Outsider => "outsider",
            Self::Syscall => "syscall",
            Self::Family => "family",
            Self::Routed => "routed",
            Self::Connector => "connector",
            Self::Listener => "listener",
            Self::Unseen => "unseen",
            Self::Breaker => "breaker",
            Self::Rate => "rate",
            Self::UserRate => "user-rate",
            Self::Complexity => "complexity",
            Self::Project => "project",
            Self::Guard => "guard",
            Self::Injection => "injection",
            Self::InternalHost => "internal-host",
            Self::Admission => "admission",
            Self::Internal => "internal",
        }
    }

    /// Reads one of the kernel side's `CAUSE_` numbers; one that is not known stands for what it could not judge.
    pub fn from_number(number: u32) -> Self {
        match number {
            kernel::CAUSE_RULE => Self::Rule,
            kernel::CAUSE_DEFAULT => Self::Default,
            kernel::CAUSE_OPERATOR => Self::Operator,
            kernel::CAUSE_FILELESS => Self::Fileless,
            kernel::CAUSE_UNREADABLE => Self::Unreadable,
            kernel::CAUSE_ESCAPE => Self::Escape,
            kernel::CAUSE_FAMILY => Self::Family,
            kernel::CAUSE_TRANSPARENT => Self::Transparent,
            kernel::CAUSE_APPROVED => Self::Approved,
            kernel::CAUSE_ROUTED => Self::Routed,
            kernel::CAUSE_OUTSIDER => Self::Outsider,
            kernel::CAUSE_CONNECTOR => Self::Connector,
            kernel::CAUSE_BREAKER => Self::Breaker,
            kernel::CAUSE_RATE => Self::Rate,
            kernel::CAUSE_USER_RATE => Self::UserRate,
            kernel::CAUSE_COMPLEXITY => Self::Complexity,
            kernel::CAUSE_LISTENER => Self::Listener,
            kernel::CAUSE_UNSEEN => Self::Unseen,
            kernel::CAUSE_HOOK => Self::Hook,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_that_of_json() {
        for number in 0..64 {
            let cause = Cause::from_number(number);
            let json = serde_json::to_string(&cause).unwrap();
            assert_eq!(json, format!("\"{}\"", cause.as_str()));
        }
    }

    #[test]
    fn each_cause_of_the_kernel_side_has_a_word_of_its_own() {
        // Number 9 is what it could not judge, and 20 the last that there is.
        let words: std::collections::BTreeSet<_> = (1..=20)
            .map(|number| Cause::from_number(number).as_str())
            .collect();
        assert_eq!(words.len(), 20);
        assert_eq!(Cause::from_number(21), Cause::Internal);
    }

    #[test]
    fn the_documentation_of_the_trail_names_each() {
        let schema = serde_json::to_value(schemars::schema_for!(Cause)).unwrap();
        let words = schema["oneOf"].as_array().unwrap();
        assert!(words.len() > 20, "{schema}");
        let documented = include_str!("../../../../docs/trail.md");
        for word in words {
            let row = format!("| `{}` |", word["const"].as_str().unwrap());
            assert!(documented.contains(&row), "docs/trail.md lacks {row}");
        }
    }
}
