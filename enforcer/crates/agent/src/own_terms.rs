//! What holds for one agent whatever its policy says: rates of its own, or that it is not let in any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::ChangeError;

use enforcer_control::AgentChange;
use enforcer_policy::{
    Decision, Policy, Risk,
    governance::rate,
    model::{self, ConnectRule, Network, Patterns, Rate, Rule},
};

/// What holds for one agent whatever its policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Rates, as a policy writes them, by their names in its `limits`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, String>,
    /// It is not let in any more: nothing is allowed, for this reason, and with this advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(String, String)>,
}

/// Id of the rules that deny all to an agent that is not let in any more.
const REFUSED: &str = "not-let-in";

impl Changes {
    /// Puts them into a policy.
    pub fn apply(&self, policy: &mut Policy) {
        for (name, text) in &self.rates {
            if let (Some(place), Some(rate)) = (rate_of(&mut policy.limits, name), rate(text)) {
                *place = Some(rate);
            }
        }
        if let Some((reason, advice)) = &self.refused {
            refuse_all(policy, reason, advice);
        }
    }

    /// Takes rates from a change, or gives them back to the policy.
    ///
    /// # Errors
    ///
    /// There is no such rate, or its text is none.
    pub fn change_rates(
        &mut self,
        change: &AgentChange,
        notes: &mut Vec<String>,
    ) -> Result<(), ChangeError> {
        for (name, text) in &change.rates {
            if !RATES.contains(&name.as_str()) {
                return Err(ChangeError::NoRate { name: name.clone() });
            }
            match text {
                None => {
                    if self.rates.remove(name).is_none() {
                        notes.push(format!("rate {name} is the policy's already"));
                    }
                }
                Some(text) if rate(text).is_none() => {
                    return Err(ChangeError::BadRate(text.clone()));
                }
                // The same in other words is the same.
                Some(text)
                    if self
                        .rates
                        .get(name)
                        .is_some_and(|own| rate(own) == rate(text)) =>
                {
                    notes.push(format!("rate {name} is {text} already"));
                }
                Some(text) => {
                    self.rates.insert(name.clone(), text.clone());
                }
            }
        }
        Ok(())
    }
}

/// Names of rates.
pub const RATES: [&str; 4] = ["exec", "connect", "per_user.exec", "per_user.connect"];

/// A rate by its name in a policy's `limits`.
fn rate_of<'a>(limits: &'a mut model::Limits, name: &str) -> Option<&'a mut Option<Rate>> {
    Some(match name {
        "exec" => &mut limits.exec,
        "connect" => &mut limits.connect,
        "per_user.exec" => &mut limits.user_exec,
        "per_user.connect" => &mut limits.user_connect,
        _ => return None,
    })
}

/// Has a policy deny everything. That counts for no breaker: it is no fault of the agent's.
fn refuse_all(policy: &mut Policy, reason: &str, advice: &str) {
    policy.exec.default = Decision::Deny;
    policy.exec.fileless = Decision::Deny;
    policy.exec.descriptor = Decision::Deny;
    policy.exec.loader = Decision::Deny;
    policy.exec.transparent = Vec::new();
    policy.exec.rules = vec![Rule {
        id: REFUSED.to_owned(),
        decision: Decision::Deny,
        risk: Risk::Medium,
        matcher: Patterns::Glob(vec!["*".to_owned()]),
        unless: Vec::new(),
        justification: Some(reason.to_owned()),
        suggestion: Some(advice.to_owned()),
        requires: Vec::new(),
        examples: Vec::new(),
        counter_examples: Vec::new(),
    }];
    policy.connect.default = Decision::Deny;
    policy.connect.unix_default = Decision::Deny;
    let everywhere = ConnectRule {
        id: REFUSED.to_owned(),
        decision: Decision::Deny,
        risk: Risk::Medium,
        hosts: vec![Network {
            address: [0; 16],
            prefix: 0,
        }],
        ports: Vec::new(),
        protocols: Vec::new(),
        unix: Vec::new(),
        justification: Some(reason.to_owned()),
        suggestion: Some(advice.to_owned()),
        requires: Vec::new(),
    };
    policy.connect.rules = vec![everywhere];
    policy.breaker = model::BreakerSettings {
        denials: None,
        half_open_after: None,
    };
}
