//! Another policy for an agent that runs: its tables are written beside those that decide, then one word changes.
//!
//! A decision reads the word once, so each goes by the one policy or by the other, whole. The generation that is left is
//! nobody else's before the last decision that may see it is over.

use std::{os::fd::AsFd, sync::Arc};

use enforcer_common::{
    limits::LimitRules,
    rule::PolicyHeader,
    seat::{self, SLOTS},
};

use super::{
    KernelError,
    agent::{Agent, AgentPlan, OwnMaps, Usage, change_cells},
    generation::{self, Generation},
    host::LockedHosts,
    limits::Limiter,
    sys::Change,
};

impl Agent {
    /// Has a plan's tables decide from now on, enforced as the plan says; its breaker stands as it stood. Its rates go on,
    /// unless the new policy has others: these begin anew. When this returns, no decision by the old tables is under way any more.
    ///
    /// Whatever the plan says of the ring and of who may change programs is as it was when the agent got its slot. `note` is
    /// told of the generation just before it decides. Gives the agent as it is then, and what counts with its programs.
    ///
    /// # Errors
    ///
    /// The agent is gone, there is no room, `note` fails, or the kernel refuses: the old tables decide as before. Once the new
    /// ones decide nothing fails any more.
    pub fn replace(
        &self,
        held: LockedHosts,
        plan: &AgentPlan<'_>,
        note: impl FnOnce(u32) -> Result<(), KernelError>,
    ) -> Result<(Self, Limiter), KernelError> {
        let maps = &*self.maps;
        let slot = self.place.slot;
        let words = maps.words()?;
        let (tenure, word, has) = words.of(slot);
        if tenure != self.place.tenure {
            return Err(KernelError::map("SLOTS", "the agent has ended"));
        }
        let Some((generation, filled)) = Usage::look(maps)?.generation(maps, plan)? else {
            return Err(KernelError::Full { slots: SLOTS });
        };
        // Ours from here on, whoever is killed: it goes back with the slot.
        words.set(slot, word, seat::with_beside(has, Some(generation)))?;
        drop(held);
        let changed = self
            .change(plan, (generation, filled), (word, has))
            .and_then(|(limits, own, word, has)| {
                let limiter = Limiter::new(maps, slot, &own, limits)?;
                note(generation).map(|()| (limits, own, limiter, word, has))
            });
        let (limits, own, limiter, word_now, has_now) = match changed {
            Ok(changed) => changed,
            Err(error) => {
                words.set(slot, word, seat::with_beside(has, None))?;
                return Err(error);
            }
        };
        let left = seat::generation(seat::seat(slot, word));
        // The cell that was written above: no reason to fail is left.
        words.set(slot, word_now, seat::with_beside(has_now, Some(left)))?;
        // A change that changes nothing: it waits until the programs that may have read the old word are through.
        let waited = Change::make_all(&[Change {
            maps: &maps.events,
            at: slot,
            to: Some(own.events.as_fd()),
        }]);
        // Where that cannot be, what was left stays the agent's until its next turn.
        if waited.is_ok() {
            words.set(slot, word_now, seat::with_beside(has_now, None))?;
        }
        let agent = Self {
            limits,
            own: Some(own),
            ..self.clone()
        };
        Ok((agent, limiter))
    }

    /// Puts what the new word will name into its place: the new limits, the agent's own maps, the word, and the maps that the
    /// slot has then.
    fn change(
        &self,
        plan: &AgentPlan<'_>,
        (generation, filled): (u32, bool),
        (word, has): (u32, u32),
    ) -> Result<(LimitRules, Arc<OwnMaps>, u32, u32), KernelError> {
        let maps = &*self.maps;
        let slot = self.place.slot;
        let limits = generation::placed(&plan.tables.header.limits);
        let mut has = has;
        let mut set = seat::set(word);
        let mut own = self.own()?;
        let other_rates = rates(&limits) != rates(&self.limits);
        if other_rates {
            let events = own
                .events
                .try_clone()
                .map_err(|error| KernelError::map("EVENTS", error))?;
            own = Arc::new(OwnMaps::with_events(events, plan, &limits)?);
            set = 1 - set;
        }
        let tables = if filled {
            None
        } else {
            // What was there is no longer to be found.
            maps.policies.set(&generation, &PolicyHeader::default())?;
            Some(Generation::new(plan.tables)?)
        };
        let mut changes = tables
            .as_ref()
            .map_or_else(Vec::new, |tables| tables.changes(maps, generation));
        if other_rates {
            let stale = seat::has_cells(0, set) | seat::has_cells(1, set) | seat::has_cells(2, set);
            let cells = change_cells(maps, (slot, set), has, own.cells(), &mut changes);
            has = has & !stale | cells;
        }
        Change::make_all(&changes)?;
        drop(changes);
        if let Some(tables) = &tables {
            // The last: with it others find the tables.
            maps.policies.set(&generation, &tables.header)?;
        }
        Ok((limits, own, seat::word(generation, set, plan.flags()), has))
    }
}

/// What the cells of an agent are made for.
fn rates(limits: &LimitRules) -> [(u64, u32); 4] {
    [
        limits.exec,
        limits.connect,
        limits.user_exec,
        limits.user_connect,
    ]
    .map(|rate| (rate.window_ns, rate.count))
}
