//! The policy of a hook and its engine, from what earlier calls have cache: compiling takes longer than an agent should wait
//! for each call.
//!
//! Whoever can write what is kept can write the policy that a hook without a launcher reads; below a launcher the kernel
//! judges again what really runs.

use std::path::Path;

use super::place;
use enforcer_decide::{Engine, Principal};
use enforcer_launch::Identity;
use enforcer_policy::{Policy, PolicyError, Sources};
use enforcer_policy_files::{
    ground::Ground,
    table_cache::{self, TableCache},
};

/// A policy's texts, and what is kept of it.
#[derive(Debug)]
pub struct PolicySource {
    /// The texts.
    pub texts: Sources,
    /// The policy's file, for messages.
    pub name: String,
    cache: TableCache,
}

/// Why a policy cannot be used.
pub type Faults = Vec<PolicyError>;

impl PolicySource {
    /// The texts of the policy with this name. Without a place to keep tables in (`None`) each call compiles.
    pub fn new(texts: Sources, name: String, root: Option<&Path>) -> Self {
        Self {
            cache: TableCache::new(&texts.key(), root),
            texts,
            name,
        }
    }

    /// The policy. Texts that were read before without a fault are not checked again.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn policy(&self) -> Result<Policy, Faults> {
        if self.cache.is_checked()
            && let Ok(policy) = enforcer_policy::parse_known(&self.texts.whole())
        {
            return Ok(policy);
        }
        let policy = enforcer_policy::parse_sources(self.texts.clone())?.policy;
        self.cache.checked();
        Ok(policy)
    }

    /// The engine of the policy for one principal.
    ///
    /// # Errors
    ///
    /// Its tables cannot be made.
    pub fn engine(&self, policy: Policy, principal: &Principal) -> Result<Engine, String> {
        let capabilities = principal.capabilities_under(&policy);
        if let Some(tables) = self.cache.tables(&policy, &capabilities) {
            return Ok(Engine::with_tables(policy, capabilities, tables));
        }
        let engine =
            table_cache::compiled(&policy, &capabilities).map_err(|error| error.to_string())?;
        self.cache.keep(&policy, &capabilities, engine.tables());
        Ok(engine)
    }
}

/// Makes the tables of a policy before the first call needs them, for an agent without capabilities. Only time is lost
/// if they cannot be made or kept.
pub fn prepare(file: &Path, texts: &Sources) {
    let Ok(root) = place::root() else { return };
    let source = PolicySource::new(texts.clone(), file.display().to_string(), Some(&root));
    if let Ok(mut policy) = source.policy() {
        if let Ok(identity) = Identity::current() {
            Ground::of(&identity).settle(&mut policy);
        }
        let _ = source.engine(policy, &Principal::default());
    }
}
