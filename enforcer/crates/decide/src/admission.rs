//! Whether a principal is let in at all: what is asked before any rule. A refusal is no denial of an action: it
//! counts nowhere.

use thiserror::Error;

use super::{Mode, Outcome, Principal};
use enforcer_policy::Policy;
use enforcer_policy::{Cause, Decision, Risk};

/// Why a principal is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The mode approves nothing.
    #[error("Auto-approval disabled (MCP_AUTO_APPROVE not enabled)")]
    Disabled,
    /// The mode is for subagents, and this is none.
    #[error("Mode is 'subagent_only' but not in subagent context")]
    NotSubagent,
    /// The mode is for trusted agents, and this is none.
    #[error("Agent '{agent}' is not in trusted whitelist (subagent_only mode)")]
    Untrusted {
        /// Its name.
        agent: String,
        /// The policy names it as restricted: to trust it besides makes it no trusted one.
        restricted: bool,
    },
    /// The policy is for agents of other tenants.
    #[error("{}", foreign(.tenant.as_deref(), .of))]
    Tenant {
        /// The principal's tenant.
        tenant: Option<String>,
        /// The policy's.
        of: Vec<String>,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn suggestion(&self) -> String {
        match self {
            Self::Disabled => {
                "the operator chooses the mode: --mode everywhere, or MCP_AUTO_APPROVE=everywhere for the hook"
                    .to_owned()
            }
            Self::NotSubagent => {
                "give the agent a name (--agent, or CLAUDE_AGENT_NAME where it is started), or choose --mode everywhere"
                    .to_owned()
            }
            Self::Untrusted { agent, restricted } => {
                let trust = if *restricted {
                    "take it out of `agents.restricted`, and add it to `agents.trusted`,".to_owned()
                } else {
                    format!("add \"{agent}\" to `agents.trusted`")
                };
                format!("{trust} in the policy, or choose --mode everywhere")
            }
            Self::Tenant { .. } => {
                "start it with the tenant that it belongs to (--tenant), or with a policy of its own tenant"
                    .to_owned()
            }
        }
    }
}

impl From<&Refusal> for Outcome {
    fn from(refusal: &Refusal) -> Self {
        Self {
            decision: Decision::Deny,
            cause: Cause::Admission,
            rule: None,
            reason: refusal.to_string(),
            risk: Risk::Medium,
            suggestion: Some(refusal.suggestion()),
            suggestions: vec![refusal.suggestion()],
            security_risk: false,
        }
    }
}

fn foreign(tenant: Option<&str>, of: &[String]) -> String {
    let of = of.join(", ");
    match tenant {
        Some(tenant) => {
            format!("Policy belongs to other tenants: {of} (the agent's tenant is '{tenant}')")
        }
        None => format!("Policy belongs to other tenants: {of} (the agent has no tenant)"),
    }
}

/// Lets a principal in: its mode, whether the policy is its tenant's, and in the mode for subagents whether the policy
/// trusts it. An agent that the policy names both as trusted and as restricted is not trusted.
///
/// # Errors
///
/// Why it stays outside; the text is for the trail.
pub fn admit(principal: &Principal, policy: &Policy) -> Result<(), Refusal> {
    if principal.mode == Mode::Disabled {
        return Err(Refusal::Disabled);
    }
    let listed = |tenant: &String| policy.tenants.contains(tenant);
    if !policy.tenants.is_empty() && !principal.tenant.as_ref().is_some_and(listed) {
        return Err(Refusal::Tenant {
            tenant: principal.tenant.clone(),
            of: policy.tenants.clone(),
        });
    }
    if principal.mode == Mode::SubagentOnly {
        let agent = principal.agent.as_ref().ok_or(Refusal::NotSubagent)?;
        let lower = agent.to_lowercase();
        let names = |list: &[String]| list.iter().any(|name| name.to_lowercase() == lower);
        let restricted = names(&policy.agents.restricted);
        if restricted || !names(&policy.agents.trusted) {
            return Err(Refusal::Untrusted {
                agent: agent.clone(),
                restricted,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(more: &str) -> Policy {
        let text = format!(
            r#"{{"version":"2","exec":{{"default":"deny"}},"connect":{{"default":"deny"}}{more}}}"#
        );
        enforcer_policy::parse(&text).unwrap().policy
    }

    fn agent(name: Option<&str>, mode: Mode) -> Principal {
        Principal {
            agent: name.map(str::to_owned),
            mode,
            ..Principal::default()
        }
    }

    fn reason(principal: &Principal, policy: &Policy) -> Option<String> {
        admit(principal, policy).err().map(|r| r.to_string())
    }

    #[test]
    fn the_mode_comes_first() {
        let policy = policy(r#","agents":{"trusted":["researcher"]},"tenants":["acme"]"#);
        assert_eq!(
            reason(&agent(Some("researcher"), Mode::Disabled), &policy).unwrap(),
            "Auto-approval disabled (MCP_AUTO_APPROVE not enabled)"
        );
    }

    #[test]
    fn trust_matters_to_subagents_only() {
        let policy = policy(
            r#","agents":{"trusted":["Researcher","both"],"restricted":["security-auditor","BOTH"]}"#,
        );
        for name in [None, Some("foo"), Some("security-auditor")] {
            assert_eq!(reason(&agent(name, Mode::Everywhere), &policy), None);
        }
        let only = |name| reason(&agent(name, Mode::SubagentOnly), &policy);
        assert_eq!(
            only(None).unwrap(),
            "Mode is 'subagent_only' but not in subagent context"
        );
        assert_eq!(only(Some("RESEARCHER")), None);
        for name in ["foo", "security-auditor", "both", "researcher2"] {
            assert_eq!(
                only(Some(name)).unwrap(),
                format!("Agent '{name}' is not in trusted whitelist (subagent_only mode)")
            );
        }
        let advice = |name| {
            let refusal = admit(&agent(Some(name), Mode::SubagentOnly), &policy).unwrap_err();
            refusal.suggestion()
        };
        assert!(advice("foo").starts_with("add \"foo\" to `agents.trusted`"));
        for name in ["security-auditor", "both"] {
            assert!(
                advice(name).contains("out of `agents.restricted`"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_policy_of_tenants_is_for_theirs_only() {
        let own = policy(r#","tenants":["acme","globex"]"#);
        let of = |tenant: Option<&str>| Principal {
            tenant: tenant.map(str::to_owned),
            ..Principal::default()
        };
        assert_eq!(reason(&of(Some("globex")), &own), None);
        assert_eq!(
            reason(&of(Some("initech")), &own).unwrap(),
            "Policy belongs to other tenants: acme, globex (the agent's tenant is 'initech')"
        );
        assert_eq!(
            reason(&of(None), &own).unwrap(),
            "Policy belongs to other tenants: acme, globex (the agent has no tenant)"
        );
        // A tenant's name is exact: what differs in case is another tenant.
        assert!(reason(&of(Some("Acme")), &own).is_some());
        assert_eq!(reason(&of(Some("initech")), &policy("")), None);
    }
}
