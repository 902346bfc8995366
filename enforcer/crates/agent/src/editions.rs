//! What has decided of an agent: its policies one after the other, as the lines of their decisions need them.

use std::{collections::BTreeMap, sync::Arc};

use enforcer_decide::Wording;
use enforcer_trail::Stamp;

/// How what one policy decides is told: an edition of it that has decided.
#[derive(Clone, Debug)]
pub struct Edition {
    /// Its words.
    pub wording: Wording,
    /// What its lines are marked with, when it blocks.
    pub stamp: Stamp,
}

/// What has decided, by the generations of its tables.
#[derive(Debug)]
pub struct Editions {
    known: BTreeMap<u32, Arc<Edition>>,
    /// What decides now.
    now: Arc<Edition>,
    /// Whether it blocks nothing.
    observed: bool,
    /// What the writer marks lines with.
    marked: Option<(Arc<Edition>, bool)>,
}

impl Editions {
    /// One policy alone: events of whatever generation are its own.
    pub fn new(generation: u32, edition: Edition, observed: bool) -> Self {
        let now = Arc::new(edition);
        Self {
            known: BTreeMap::from([(generation, Arc::clone(&now))]),
            now,
            observed,
            marked: None,
        }
    }

    /// Knows another one that has decided, too.
    #[must_use]
    pub fn with(mut self, generation: u32, edition: Edition) -> Self {
        self.known
            .entry(generation)
            .or_insert_with(|| Arc::new(edition));
        self
    }

    /// Another one is about to decide, beside the one that does; no event to come tells of any before that.
    pub fn expect(&mut self, generation: u32, edition: Edition) {
        let now = &self.now;
        self.known.retain(|_, known| Arc::ptr_eq(known, now));
        self.known.insert(generation, Arc::new(edition));
    }

    /// Goes over to it.
    pub fn go_over(&mut self, generation: u32, observed: bool) {
        self.now = self.of(generation);
        self.observed = observed;
    }

    /// Whether what decides now blocks nothing.
    pub fn observed(&self) -> bool {
        self.observed
    }

    /// What decides now, and whether it blocks nothing.
    pub fn now(&self) -> (Arc<Edition>, bool) {
        (Arc::clone(&self.now), self.observed)
    }

    /// The one of a generation; that of now for one that is not known.
    pub fn of(&self, generation: u32) -> Arc<Edition> {
        Arc::clone(self.known.get(&generation).unwrap_or(&self.now))
    }

    /// Whether the last lines were marked as those of an agent that is only observed.
    pub fn marked_as_observed(&self) -> bool {
        self.marked.as_ref().is_some_and(|(_, observed)| *observed)
    }

    /// Notes what the next lines are marked with; whether it is another mark than the last one.
    pub fn mark(&mut self, edition: &Arc<Edition>, observed: bool) -> bool {
        let marked = self.marked.as_ref();
        let same = marked.is_some_and(|(by, was)| Arc::ptr_eq(by, edition) && *was == observed);
        self.marked = Some((Arc::clone(edition), observed));
        !same
    }
}
