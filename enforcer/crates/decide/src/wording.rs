//! The words for a decision: which rule made it, why, and what to do instead.

use std::{collections::BTreeSet, sync::Arc};

use enforcer_common::event::{
    CAUSE_APPROVED, CAUSE_BREAKER, CAUSE_COMPLEXITY, CAUSE_CONNECTOR, CAUSE_DEFAULT, CAUSE_ESCAPE,
    CAUSE_FAMILY, CAUSE_FILELESS, CAUSE_HOOK, CAUSE_LISTENER, CAUSE_OPERATOR, CAUSE_OUTSIDER,
    CAUSE_RATE, CAUSE_ROUTED, CAUSE_RULE, CAUSE_TRANSPARENT, CAUSE_UNREADABLE, CAUSE_UNSEEN,
    CAUSE_USER_RATE,
};
use enforcer_common::limits::{ActionClass, COMPLEX_ARGUMENTS, COMPLEX_BYTES, complexity_of};

use enforcer_policy::{
    Policy,
    compile::{Builtin, RuleRef, Tables},
    model::{Form, Rate},
    standing,
};

use super::{approval::Ending, suggest};
use enforcer_policy::{Cause, Decision, Risk, matcher::Judgement};

/// Reason of what an open breaker denies.
pub const BREAKER_OPEN: &str = "Circuit breaker tripped (too many denials)";

/// What to do about an open breaker.
pub const BREAKER_ADVICE: &str =
    "stop and tell the operator, who can close it with `enforcer breaker reset`";

/// Reason of the launcher's own hook.
const OWN_HOOK: &str = "The enforcer's own hook, which always starts and counts nowhere";
/// What stands for a rule where a listener outside the agent was in the way.
const OUTSIDE_LISTENER: &str = "outside-listener";

/// Reason of what comes beyond a rate: `Rate limit exceeded: 100/100 calls per hour`.
pub fn rate_exceeded(rate: Rate) -> String {
    let window = match rate.window.as_secs() {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3_600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        seconds if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{} hours", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    };
    format!(
        "Rate limit exceeded: {0}/{0} calls per {window}",
        rate.count
    )
}

/// Reason of what comes beyond the rate of all agents of a user together.
pub fn user_rate_exceeded(rate: Rate, user: &str) -> String {
    format!(
        "{} (user {})",
        rate_exceeded(rate),
        enforcer_redact::text(user.as_bytes())
    )
}

/// Text of the record that follows the denial which opened the breaker.
pub fn breaker_tripped(denials: u64) -> String {
    format!("Circuit breaker tripped after {denials} denials")
}

/// A decision in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the policy says.
    pub decision: Decision,
    /// What decided; [`Self::rule`] and [`Self::reason`] are the details and the words.
    pub cause: Cause,
    /// Id of the rule that decided.
    pub rule: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// How much damage the action can do.
    pub risk: Risk,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// What to do instead, then how to be allowed; nothing for what is allowed.
    pub suggestions: Vec<String>,
    /// Whether the trail marks it as a security risk: a rule forbade it or asks about it, or it tried to evade
    /// judgement. An action that merely no rule names is none.
    pub security_risk: bool,
}

/// A policy's words, without its tables: what is needed to tell of a decision that the kernel made.
#[derive(Clone, Debug)]
pub struct Wording {
    policy: Arc<Policy>,
    capabilities: Arc<BTreeSet<String>>,
    ranks: Arc<[RuleRef]>,
    connect_ranks: Arc<[RuleRef]>,
    unix_ranks: Arc<[RuleRef]>,
    /// The user whose agents share rates.
    user: Arc<str>,
}

impl Wording {
    /// The words of `policy` for the ranks of its `tables`, which were compiled for these capabilities.
    pub fn new(policy: Arc<Policy>, capabilities: BTreeSet<String>, tables: &Tables) -> Self {
        Self {
            policy,
            capabilities: Arc::new(capabilities),
            ranks: tables.ranks.as_slice().into(),
            connect_ranks: tables.connect_ranks.as_slice().into(),
            unix_ranks: tables.unix_ranks.as_slice().into(),
            user: "".into(),
        }
    }

    /// The same words, for the agents of this user.
    #[must_use]
    pub fn for_user(self, user: &str) -> Self {
        Self {
            user: user.into(),
            ..self
        }
    }

    /// Words what the breaker or a limit denies; `None` if the judgement's cause is another.
    pub fn limited(&self, judgement: Judgement, class: ActionClass) -> Option<Outcome> {
        let limits = &self.policy.limits;
        let (own, of_user) = match class {
            ActionClass::Exec => (limits.exec, limits.user_exec),
            ActionClass::Connect => (limits.connect, limits.user_connect),
        };
        let of = |rate: Option<Rate>, words: &dyn Fn(Rate) -> String| {
            rate.map_or_else(|| "Rate limit exceeded".to_owned(), words)
        };
        let (reason, suggestion) = match judgement.cause {
            CAUSE_BREAKER => (BREAKER_OPEN.to_owned(), BREAKER_ADVICE),
            CAUSE_RATE => (of(own, &rate_exceeded), "wait before the next try"),
            CAUSE_USER_RATE => (
                of(of_user, &|rate| user_rate_exceeded(rate, &self.user)),
                "wait before the next try",
            ),
            CAUSE_COMPLEXITY => (self.too_complex(judgement.rank), "do it in smaller steps"),
            _ => return None,
        };
        Some(Outcome {
            decision: Decision::Deny,
            cause: judgement.cause(),
            rule: None,
            reason,
            risk: Risk::Medium,
            suggestion: Some(suggestion.to_owned()),
            suggestions: [suggestion.to_owned()]
                .into_iter()
                .chain(suggest::after_limit(judgement.cause, self.policy.form))
                .collect(),
            security_risk: false,
        })
    }

    fn too_complex(&self, rank: u32) -> String {
        let limits = &self.policy.limits;
        let (what, measured) = complexity_of(rank);
        let (most, unit) = match what {
            COMPLEX_ARGUMENTS => (limits.arguments, "arguments"),
            COMPLEX_BYTES => (limits.argv_bytes, "bytes of arguments"),
            _ => (limits.depth, "levels of the process tree"),
        };
        let most = most.unwrap_or(0);
        format!("Complexity limit exceeded: {measured}/{most} {unit}")
    }

    /// Words an exec's judgement, from the tables or from a kernel event.
    pub fn exec_outcome(&self, judgement: Judgement) -> Outcome {
        if let Some(limited) = self.limited(judgement, ActionClass::Exec) {
            return limited;
        }
        let of = by_rank(&self.ranks, judgement);
        match (of, of.rule()) {
            (_, Some(at)) => {
                let rule = &self.policy.exec.rules[at];
                self.by_rule(
                    judgement,
                    of,
                    &Said {
                        id: &rule.id,
                        justification: rule.justification.as_deref(),
                        risk: rule.risk,
                        suggestion: rule.suggestion.as_deref(),
                        requires: &rule.requires,
                    },
                )
            }
            (RuleRef::Builtin(builtin), _) => self.by_builtin(judgement, builtin),
            _ => self.without_rule(
                judgement,
                "Command not in whitelist (deny by default)",
                "exec.rules",
            ),
        }
    }

    /// Words a connect's judgement, from the tables or from a kernel event.
    pub fn connect_outcome(&self, judgement: Judgement) -> Outcome {
        self.by_connect_rank(&self.connect_ranks, judgement)
    }

    /// Words the judgement of a connect to a unix socket, from the tables or from a kernel event.
    pub fn unix_outcome(&self, judgement: Judgement) -> Outcome {
        self.by_connect_rank(&self.unix_ranks, judgement)
    }

    fn by_connect_rank(&self, ranks: &[RuleRef], judgement: Judgement) -> Outcome {
        if let Some(limited) = self.limited(judgement, ActionClass::Connect) {
            return limited;
        }
        let of = by_rank(ranks, judgement);
        match (of, of.rule()) {
            (_, Some(at)) => {
                let rule = &self.policy.connect.rules[at];
                self.by_rule(
                    judgement,
                    of,
                    &Said {
                        id: &rule.id,
                        justification: rule.justification.as_deref(),
                        risk: rule.risk,
                        suggestion: rule.suggestion.as_deref(),
                        requires: &rule.requires,
                    },
                )
            }
            (RuleRef::Builtin(builtin), _) => self.by_builtin(judgement, builtin),
            _ => self.without_rule(
                judgement,
                "No rule matches (default: deny)",
                "connect.rules",
            ),
        }
    }

    /// Words what a rule decided: an allow rule that lacks capabilities or that is too dangerous says so.
    fn by_rule(&self, judgement: Judgement, of: RuleRef, said: &Said<'_>) -> Outcome {
        let decision = judgement.decision;
        let id = said.id;
        let own = match (self.policy.form, said.justification) {
            (Form::Hook, _) if decision == Decision::Allow || matches!(of, RuleRef::Raised(_)) => {
                format!("Matches whitelist pattern: {id}")
            }
            (Form::Hook, _) => format!("Matches blacklist pattern: {id}"),
            (Form::Native, Some(justification)) => format!("{justification} [{id}]"),
            (Form::Native, None) => format!("Matches rule: {id}"),
        };
        let missing: Vec<&str> = standing::missing(said.requires, &self.capabilities).collect();
        let reason = match of {
            RuleRef::Lacking(_) => format!("Missing required capabilities: {}", missing.join(", ")),
            RuleRef::Raised(_) if said.risk == Risk::Critical => {
                format!("CRITICAL risk needs a person's approval: {own}")
            }
            RuleRef::Raised(_) => format!(
                "{} risk with a dangerous flag or raised privileges needs a person's approval: {own}",
                said.risk
            ),
            _ => own,
        };
        let mut suggestions: Vec<String> = said.suggestion.map(str::to_owned).into_iter().collect();
        match of {
            RuleRef::Lacking(_) => suggestions.push(suggest::capabilities(&missing)),
            _ => suggestions.extend(suggest::after_rule(decision, id)),
        }
        Outcome {
            decision,
            cause: match (judgement.cause(), of) {
                (Cause::Rule, RuleRef::Lacking(_)) => Cause::Capabilities,
                (Cause::Rule, RuleRef::Raised(_)) => Cause::Risk,
                (cause, _) => cause,
            },
            rule: Some(id.to_owned()),
            reason,
            risk: said.risk,
            suggestion: match of {
                RuleRef::Lacking(_) => suggestions.first().cloned(),
                _ => said.suggestion.map(str::to_owned),
            },
            suggestions: suggest::unless_allowed(decision, suggestions),
            security_risk: decision != Decision::Allow,
        }
    }

    /// Words what a built-in rule decided.
    fn by_builtin(&self, judgement: Judgement, builtin: Builtin) -> Outcome {
        let decision = judgement.decision;
        let (reason, suggestion) = match builtin {
            Builtin::Loader => (
                "The dynamic loader was started as a program, which hides the program it runs",
                "start the program itself",
            ),
            Builtin::Metadata => (
                "Link-local and metadata addresses hand out credentials of the machine",
                "name the address in a connect rule if the agent needs it",
            ),
            Builtin::Guard(_) => builtin.guard().map_or(
                (
                    "It changes what guards the agent",
                    "ask the operator to do it",
                ),
                |rule| {
                    let text = |text: &'static Option<String>| text.as_deref().unwrap_or_default();
                    (text(&rule.justification), text(&rule.suggestion))
                },
            ),
            Builtin::Socket(_) => builtin.socket().map_or(
                (
                    "Behind this socket others act for whoever connects",
                    "name the socket in a connect rule if the agent needs it",
                ),
                |rule| (rule.why.as_str(), rule.suggestion.as_str()),
            ),
        };
        let suggestion = suggest::in_form(self.policy.form, suggestion);
        Outcome {
            decision,
            cause: judgement.cause(),
            rule: Some(builtin.id().to_owned()),
            reason: format!("{reason} [{}]", builtin.id()),
            risk: builtin.guard().map_or(Risk::High, |rule| rule.risk),
            suggestion: (decision != Decision::Allow).then(|| suggestion.clone()),
            suggestions: suggest::unless_allowed(
                decision,
                [suggestion]
                    .into_iter()
                    .chain(suggest::approval(decision))
                    .collect(),
            ),
            security_risk: decision != Decision::Allow,
        }
    }

    fn without_rule(&self, judgement: Judgement, hook_default: &str, rules: &str) -> Outcome {
        let decision = judgement.decision;
        let (rule, reason) = match judgement.cause {
            CAUSE_DEFAULT if self.policy.form == Form::Hook && decision == Decision::Deny => {
                (None, hook_default.to_owned())
            }
            CAUSE_DEFAULT => (None, format!("No rule matches (default: {decision})")),
            CAUSE_TRANSPARENT => (
                None,
                "Transparent shell: what it starts is judged".to_owned(),
            ),
            CAUSE_APPROVED => (None, "A person approved it".to_owned()),
            CAUSE_OPERATOR => (None, "The command that the operator gave to run".to_owned()),
            CAUSE_HOOK => (None, OWN_HOOK.to_owned()),
            CAUSE_FILELESS => (
                Some("fileless"),
                "The executable has no name in the file system, or is named through a descriptor \
                 [fileless]"
                    .to_owned(),
            ),
            CAUSE_UNREADABLE => (
                None,
                "The arguments, the path or the address could not be read".to_owned(),
            ),
            CAUSE_ESCAPE => (None, "The process left its agent's cgroup".to_owned()),
            CAUSE_FAMILY => (
                None,
                "Host rules cannot judge sockets of this family or protocol".to_owned(),
            ),
            CAUSE_ROUTED => (
                None,
                "The packet would not go to the address that was judged: it has a routing header or a source route, or \
                 would leave this machine for a loopback address"
                    .to_owned(),
            ),
            CAUSE_OUTSIDER => (None, "The process is outside the agent".to_owned()),
            CAUSE_LISTENER => (
                Some(OUTSIDE_LISTENER),
                format!(
                    "Who listens there is outside the agent, belongs to its own user and would act for it, ungoverned \
                     [{OUTSIDE_LISTENER}]"
                ),
            ),
            CAUSE_UNSEEN => (
                Some(OUTSIDE_LISTENER),
                format!(
                    "Whose this abstract socket is cannot be seen for a datagram, and no rule allows it \
                     [{OUTSIDE_LISTENER}]"
                ),
            ),
            CAUSE_CONNECTOR => (
                None,
                "A path can be a link to another socket: no rule allows exactly this one"
                    .to_owned(),
            ),
            _ => (None, "The kernel side could not judge this".to_owned()),
        };
        let usual = matches!(
            judgement.cause,
            CAUSE_DEFAULT | CAUSE_TRANSPARENT | CAUSE_OPERATOR | CAUSE_APPROVED | CAUSE_HOOK
        );
        let risk = match decision {
            Decision::Allow => Risk::Low,
            _ if usual => Risk::Medium,
            _ => Risk::High,
        };
        Outcome {
            decision,
            cause: judgement.cause(),
            rule: rule.map(str::to_owned),
            reason,
            risk,
            suggestion: suggest::listener(decision, judgement.cause, self.policy.form),
            suggestions: match judgement.cause {
                CAUSE_DEFAULT => suggest::after_default(
                    decision,
                    match (self.policy.form, rules) {
                        (Form::Hook, "exec.rules") => suggest::Lacking::Pattern("bash.whitelist"),
                        (Form::Hook, _) => suggest::Lacking::Setting("web_tools.allow_all_domains"),
                        (Form::Native, rules) => suggest::Lacking::Rule(rules),
                    },
                ),
                _ => suggest::after_cause(decision, judgement.cause, self.policy.form),
            },
            security_risk: decision != Decision::Allow && !usual,
        }
    }
}

/// What a rule says of itself.
struct Said<'a> {
    id: &'a str,
    justification: Option<&'a str>,
    risk: Risk,
    suggestion: Option<&'a str>,
    requires: &'a [String],
}

/// What a judgement's rank stands for, if a rule made the judgement (or a person did, asked by a rule).
fn by_rank(ranks: &[RuleRef], judgement: Judgement) -> RuleRef {
    match judgement.cause {
        CAUSE_RULE | CAUSE_APPROVED => ranks
            .get(judgement.rank as usize)
            .copied()
            .unwrap_or(RuleRef::None),
        _ => RuleRef::None,
    }
}

/// What became of a request, in words: for the trail, and as the reason of a denial. `outcome` is what asked.
pub fn ending(ending: &Ending, outcome: &Outcome) -> String {
    let clean = |text: &str| enforcer_redact::text(text.as_bytes());
    let said = match ending {
        Ending::Approved {
            approver,
            reason,
            scope,
        } => with_reason(
            format!("Approved by {} ({})", clean(approver), scope.as_str()),
            &clean(reason),
        ),
        Ending::Denied { approver, reason } => {
            with_reason(format!("Denied by {}", clean(approver)), &clean(reason))
        }
        Ending::Expired(time) => {
            format!("Not approved: nobody answered within {} s", time.as_secs())
        }
        Ending::Cancelled => "Not approved: the process was gone before anyone answered".to_owned(),
        Ending::Refused(why) => with_reason("Not approved".to_owned(), &clean(why)),
    };
    format!("{said}. Asked because: {}", outcome.reason)
}

/// Adds what a person wrote, if anything, without its full stop.
fn with_reason(said: String, reason: &str) -> String {
    match reason.trim().trim_end_matches('.') {
        "" => said,
        reason => format!("{said}: {reason}"),
    }
}

#[cfg(test)]
#[path = "wording_tests.rs"]
mod tests;
