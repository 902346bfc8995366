//! What an agent is held to: its policy, and who acts under it. It is read before anything is made, and what it compiles
//! to is proven by its own examples.

use std::path::Path;

use super::{
    RunOptions,
    compiled::{self, Compiled},
    error::Result,
    hosts,
    house::prepare,
    principal,
    trail::Trail,
};
use enforcer_decide::{Engine, Principal, Refusal, admit};
use enforcer_files::directories;
use enforcer_kernel::{instance::Types, memory::give_memory_back};
use enforcer_launch::Identity;
use enforcer_policy_files::{
    ground::{Ground, Untrusted},
    policy_file::{self, LoadedPolicy},
    table_cache::TableCache,
};
use enforcer_say::say;

/// The terms of a run whose principal its policy lets in.
#[derive(Debug)]
pub struct Terms {
    /// The policy.
    pub policy: LoadedPolicy,
    /// What is kept of it from earlier starts.
    kept: TableCache,
    /// What it means on this machine and for the agent's user.
    pub ground: Ground,
    /// Directories that it trusts and the agent's user can change.
    pub untrusted: Vec<Untrusted>,
    /// Who acts.
    pub principal: Principal,
}

/// Whether a policy lets a principal in.
#[derive(Debug)]
pub enum Admission {
    /// It does.
    Granted(Terms),
    /// It does not; this says why.
    Denied(TurnedAway),
}

/// A principal that is not let in.
#[derive(Debug)]
pub struct TurnedAway(Terms, Refusal);

impl Terms {
    /// Reads the policy and asks it whether the principal is let in.
    ///
    /// # Errors
    ///
    /// The policy cannot be read, or is none.
    pub fn read(options: &RunOptions, identity: &Identity) -> Result<Admission> {
        let state = Path::new(directories::STATE.path);
        let (mut policy, kept) =
            policy_file::load_kept(&options.policy, Some(identity.uid), state)?;
        for warning in &policy.parsed.warnings {
            if !options.reports.quiet {
                say!(
                    "enforcer: warning: {}",
                    warning.in_file(&options.policy.display().to_string())
                );
            }
        }
        let ground = Ground::of(identity);
        let untrusted = ground.settle(&mut policy.parsed.policy);
        let principal = principal::of(&options.principal);
        let refusal = admit(&principal, &policy.parsed.policy).err();
        let terms = Self {
            policy,
            kept,
            ground,
            untrusted,
            principal,
        };
        Ok(match refusal {
            None => Admission::Granted(terms),
            Some(refusal) => Admission::Denied(TurnedAway(terms, refusal)),
        })
    }

    /// Compiles the policy and proves it, and looks whether the kernel shows what a host is loaded with: all that can be
    /// known to fail before anything is made. No thread is there yet, as [`give_memory_back`] wants it.
    ///
    /// # Errors
    ///
    /// The policy cannot be compiled, an example of it does not hold, or the kernel shows nothing.
    pub fn prove(&self) -> Result<Proven> {
        give_memory_back();
        let parsed = &self.policy.parsed;
        let Compiled {
            engine,
            seed,
            fresh,
        } = compiled::compile(parsed, &self.policy.path, &self.principal, &self.kept)?;
        Ok(Proven {
            engine,
            seed,
            fresh: fresh.then(|| self.kept.clone()),
            types: hosts::types()?,
        })
    }
}

impl TurnedAway {
    /// Writes down and says that the principal is not let in; the exit status that says so.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn record(self, options: &RunOptions) -> Result<u8> {
        let Self(terms, refusal) = self;
        prepare(&options.reports)?;
        let audit = options.reports.audit.as_deref();
        let trail = Trail::open(audit, terms.principal.tenant.as_deref())?;
        principal::refuse(
            &refusal,
            &terms.principal,
            &terms.policy.parsed.policy,
            &options.command.words,
            trail,
        )
    }
}

/// A policy that can be put in force.
pub struct Proven {
    /// What decides.
    pub engine: Engine,
    /// What keys the hashes of its program names.
    pub seed: u64,
    /// Where its tables are to be kept, and that it is proven, if that is not so yet.
    fresh: Option<TableCache>,
    /// What a host is loaded with, if none is there.
    pub types: Option<Types>,
}

impl Proven {
    /// Keeps its tables for the next start. The directory for that has been made sure of.
    pub fn keep_tables(&self) {
        if let Some(cache) = &self.fresh {
            let engine = &self.engine;
            cache.keep_proven(engine.policy(), engine.capabilities(), engine.tables());
        }
    }
}
