//! What decides for a run at a time. It is replaced as a whole: whoever judges takes it once, and goes by it to the end.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::first::FirstJudgement;
use enforcer_decide::{Engine, Wording};
use enforcer_policy::Waiting;

/// What the supervisor judges by.
#[derive(Debug)]
pub struct Ruling {
    /// What decides.
    pub engine: Engine,
    /// How it is told what the breaker and the rates deny.
    pub wording: Wording,
    /// What was chosen.
    pub first: FirstJudgement,
    /// How long a person has to answer.
    pub timeout: Duration,
    /// How what is asked about waits.
    pub waiting: Waiting,
    /// What is decided blocks nothing: all is let go on to the kernel, which records it.
    pub observed: bool,
}

impl Ruling {
    /// The ruling of an engine, for the agents of this user.
    pub fn new(engine: Engine, user: &str, first: FirstJudgement, observed: bool) -> Self {
        let approvals = &engine.policy().approvals;
        Self {
            wording: engine.wording().clone().for_user(user),
            first,
            timeout: approvals.timeout,
            waiting: approvals.mode,
            observed,
            engine,
        }
    }
}

/// The ruling of now. Clones share it.
#[derive(Clone, Debug)]
pub struct Rulings(Arc<RwLock<Arc<Ruling>>>);

impl Rulings {
    /// With this one to begin with.
    pub fn new(ruling: Ruling) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ruling))))
    }

    /// The ruling of now.
    pub fn now(&self) -> Arc<Ruling> {
        // Replaced by one assignment: whoever panicked left a whole one.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place; what is being judged goes by the old one.
    pub fn replace(&self, ruling: Ruling) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ruling);
    }
}
