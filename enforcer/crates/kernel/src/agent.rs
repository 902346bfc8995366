//! One agent in the kernel: its slot among those of the host, its tables, its events.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use enforcer_common::{
    limits::LimitRules,
    own::Own,
    rule::PolicyHeader,
    seat::{self, GENERATIONS, HAS_EVENTS, KILLS, OBSERVED, Profile, SLOTS, SlotState, has_cells},
};
use serde::{Deserialize, Serialize};

use super::{
    KernelError,
    events::Feed,
    generation::{self, Generation},
    grants::Grants,
    limits::Limiter,
    sys::{Change, Maps},
    tables::HostMaps,
    users::{self, UserCells},
};
use enforcer_files::changer::Changer;
use enforcer_policy::{compile::Tables, model::EVENT_BUFFER};

/// What an agent is made of.
#[derive(Clone, Copy, Debug)]
pub struct AgentPlan<'a> {
    /// Its policy.
    pub tables: &'a Tables,
    /// The user whose agents share rates. Without one such rates count for this agent only.
    pub user: Option<&'a str>,
    /// Who it runs as; programs that this user can change are trusted in no directory.
    pub changer: Option<&'a Changer>,
    /// Whether its policy decides and is recorded, but blocks nothing.
    pub observed: bool,
    /// Whether denied execs are killed once they are made, not refused before.
    pub kills: bool,
    /// Bytes of its event ring, a power of two.
    pub ring_bytes: u32,
    /// Whether tables with this seed, if another agent has them, are the same tables: their seed is secret and random.
    pub shared: bool,
}

impl<'a> AgentPlan<'a> {
    /// An agent under these tables, and nothing special about it.
    pub fn new(tables: &'a Tables) -> Self {
        Self {
            tables,
            user: None,
            changer: None,
            observed: false,
            kills: false,
            ring_bytes: EVENT_BUFFER,
            shared: false,
        }
    }

    /// How its tables are enforced, as a word says it.
    pub(super) fn flags(&self) -> u32 {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        flag(self.observed, OBSERVED) | flag(self.kills, KILLS)
    }

    fn profile(&self) -> Result<Profile, KernelError> {
        let mut profile = Profile {
            grant_key: super::grants::random_key()?,
            ..Profile::NONE
        };
        if let Some(changer) = self.changer {
            profile.user = changer.uid;
            profile.group_count = u32::try_from(changer.groups.len()).unwrap_or(u32::MAX);
            for (room, group) in profile.groups.iter_mut().zip(&changer.groups) {
                *room = *group;
            }
        }
        Ok(profile)
    }
}

/// Where an agent is in a host, for a process that comes after its launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPlace {
    /// The slot.
    pub slot: u32,
    /// Whose it is: the slot may be another agent's by now.
    pub tenure: u64,
}

/// An agent that has a slot. It is not freed when this is dropped: the agent may outlive its launcher.
#[derive(Clone, Debug)]
pub struct Agent {
    pub(super) maps: Arc<HostMaps>,
    pub(super) place: SlotPlace,
    pub(super) limits: LimitRules,
    /// Its own maps, if this process has made them.
    pub(super) own: Option<Arc<OwnMaps>>,
}

/// The maps of one agent alone.
#[derive(Debug)]
pub(super) struct OwnMaps {
    pub events: OwnedFd,
    rates: Option<OwnedFd>,
    users: UserCells,
}

impl OwnMaps {
    /// Makes them, but for the events.
    pub fn with_events(
        events: OwnedFd,
        plan: &AgentPlan<'_>,
        limits: &LimitRules,
    ) -> Result<Self, KernelError> {
        let own = limits.exec.cells() + limits.connect.cells();
        Ok(Self {
            events,
            rates: (own > 0)
                .then(|| generation::cells("RATES", own))
                .transpose()?,
            users: users::cells(limits, plan.user)?,
        })
    }

    /// Opens those of a slot. On some kernels each waits until no program uses the map of maps (Linux 6.1 does for whoever
    /// looks something up there).
    fn open(
        maps: &HostMaps,
        slot: u32,
        seat: u32,
        limits: &LimitRules,
    ) -> Result<Self, KernelError> {
        let cells = |maps: &Maps, count: u32| {
            if count == 0 {
                return Ok(None);
            }
            maps.inner(seat::cells(seat))
        };
        Ok(Self {
            events: maps
                .events
                .inner(slot)?
                .ok_or_else(|| KernelError::map("EVENTS", "the agent has none"))?,
            rates: cells(&maps.rates, limits.exec.cells() + limits.connect.cells())?,
            users: UserCells {
                execs: cells(&maps.user_execs, limits.user_exec.cells())?,
                connects: cells(&maps.user_connects, limits.user_connect.cells())?,
            },
        })
    }

    /// The cells of the agent's own rates, of the user's execs, and of the user's connects.
    pub fn cells(&self) -> [Option<BorrowedFd<'_>>; 3] {
        [&self.rates, &self.users.execs, &self.users.connects]
            .map(|cells| cells.as_ref().map(AsFd::as_fd))
    }
}

/// Notes the changes that make these the cells in one of a slot's two sets; `had` are the maps that the slot has. Gives those
/// of the set that it has then.
pub(super) fn change_cells<'a>(
    maps: &'a HostMaps,
    (slot, set): (u32, u32),
    had: u32,
    cells: [Option<BorrowedFd<'a>>; 3],
    changes: &mut Vec<Change<'a>>,
) -> u32 {
    let mut has = 0;
    for ((kind, maps), to) in (0..)
        .zip([&maps.rates, &maps.user_execs, &maps.user_connects])
        .zip(cells)
    {
        if to.is_some() {
            has |= has_cells(kind, set);
        }
        if to.is_some() || had & has_cells(kind, set) != 0 {
            let at = 2 * slot + set;
            changes.push(Change { maps, at, to });
        }
    }
    has
}

/// An agent that has a slot, on its way into it.
#[derive(Debug)]
pub(super) struct Chosen {
    agent: Agent,
    /// The generation that it takes.
    generation: u32,
    /// Whether that has the agent's tables already.
    filled: bool,
}

/// Slots and generations, as they are used.
pub(super) struct Usage {
    /// The first free slot, and the maps that it still has.
    free: Option<(u32, u32)>,
    /// Free slots that still have a map of events, and their maps.
    pub spare: Vec<(u32, u32)>,
    /// Generations that slots name.
    named: Vec<bool>,
}

impl Usage {
    pub fn look(maps: &HostMaps) -> Result<Self, KernelError> {
        let words = maps.words()?;
        let mut named = vec![false; GENERATIONS as usize];
        let mut free = None;
        let mut spare = Vec::new();
        for slot in 0..SLOTS {
            let (tenure, word, maps) = words.of(slot);
            if tenure == 0 {
                free = free.or(Some((slot, maps)));
                if maps & HAS_EVENTS != 0 {
                    spare.push((slot, maps));
                }
                continue;
            }
            for generation in [Some(seat::generation(word)), seat::beside(maps)] {
                if let Some(named) = generation.and_then(|at| named.get_mut(at as usize)) {
                    *named = true;
                }
            }
        }
        Ok(Self { free, spare, named })
    }

    /// The generations with the seed of their tables (0: none), and whether a slot names them.
    pub fn generations(
        &self,
        maps: &HostMaps,
    ) -> Result<impl Iterator<Item = (u32, u64, bool)>, KernelError> {
        let seeds = maps.seeds()?;
        let named = (0_u32..).zip(&self.named);
        Ok(named.map(move |(at, named)| (at, seeds.of(at), *named)))
    }

    /// A generation for these tables, and whether it has them already. One that nobody names any more may still have them.
    pub fn generation(
        &self,
        maps: &HostMaps,
        plan: &AgentPlan<'_>,
    ) -> Result<Option<(u32, bool)>, KernelError> {
        let mut unused = None;
        for (at, seed, named) in self.generations(maps)? {
            if plan.shared && seed == plan.tables.header.seed && seed != 0 {
                return Ok(Some((at, true)));
            }
            if !named {
                unused = unused.or(Some(at));
            }
        }
        Ok(unused.map(|at| (at, false)))
    }
}

impl Chosen {
    /// Puts all that the agent needs into its place. Other starts need not wait for it.
    pub fn settle(self, plan: &AgentPlan<'_>) -> Result<Agent, KernelError> {
        let Self {
            agent,
            generation,
            filled,
        } = self;
        let maps = &*agent.maps;
        let slot = agent.place.slot;
        let limits = agent.limits;
        maps.profiles.set(&slot, &plan.profile()?)?;
        maps.own.set(&slot, &Own::NONE)?;
        let tables = if filled {
            None
        } else {
            Some(Generation::new(plan.tables)?)
        };
        let own = OwnMaps::with_events(generation::ring(plan.ring_bytes)?, plan, &limits)?;
        let state = agent.state()?;
        let mut changes = tables
            .as_ref()
            .map_or_else(Vec::new, |tables| tables.changes(maps, generation));
        changes.push(Change {
            maps: &maps.events,
            at: slot,
            to: Some(own.events.as_fd()),
        });
        let had = state.maps;
        let has = HAS_EVENTS | change_cells(maps, (slot, 0), had, own.cells(), &mut changes);
        change_cells(maps, (slot, 1), had, [None; 3], &mut changes);
        Change::make_all(&changes)?;
        drop(changes);
        // Nothing of the agent runs yet.
        maps.slots.set(&slot, &SlotState { maps: has, ..state })?;
        if let Some(tables) = &tables {
            // The last: with it others find the tables.
            maps.policies.set(&generation, &tables.header)?;
        }
        Ok(Agent {
            own: Some(Arc::new(own)),
            ..agent.clone()
        })
    }
}

impl Agent {
    /// Takes a slot and a generation. Whoever calls holds the host. `note` is told of the place before it is taken: whoever
    /// finds it noted and the launcher gone can free it.
    pub(super) fn choose(
        maps: &Arc<HostMaps>,
        plan: &AgentPlan<'_>,
        note: impl FnOnce(SlotPlace) -> Result<(), KernelError>,
    ) -> Result<Chosen, KernelError> {
        let usage = Usage::look(maps)?;
        let (Some((slot, kept)), Some((generation, filled))) =
            (usage.free, usage.generation(maps, plan)?)
        else {
            return Err(KernelError::Full { slots: SLOTS });
        };
        let mut record = maps
            .record
            .get(&0)?
            .ok_or_else(|| KernelError::map("HOST", "it is empty"))?;
        let place = SlotPlace {
            slot,
            tenure: record.next_tenure,
        };
        record.next_tenure += 1;
        maps.record.set(&0, &record)?;
        note(place)?;
        if !filled {
            // What was there is no longer to be found.
            maps.policies.set(&generation, &PolicyHeader::default())?;
        }
        let state = SlotState {
            tenure: place.tenure,
            word: seat::word(generation, 0, plan.flags()),
            maps: kept,
            ..SlotState::default()
        };
        maps.slots.set(&slot, &state)?;
        Ok(Chosen {
            agent: Self {
                maps: Arc::clone(maps),
                place,
                limits: generation::placed(&plan.tables.header.limits),
                own: None,
            },
            generation,
            filled,
        })
    }

    /// The agent of a place, with these limits; `None` if its slot is free, or another's, by now.
    pub(super) fn at(
        maps: &Arc<HostMaps>,
        place: SlotPlace,
        limits: &LimitRules,
    ) -> Result<Option<Self>, KernelError> {
        let state = maps.slots.get(&place.slot)?.unwrap_or_default();
        Ok((state.tenure == place.tenure).then(|| Self {
            maps: Arc::clone(maps),
            place,
            limits: generation::placed(limits),
            own: None,
        }))
    }

    /// Where it is.
    pub fn place(&self) -> SlotPlace {
        self.place
    }

    fn seat(&self) -> Result<u32, KernelError> {
        let state = self.state()?;
        Ok(seat::seat(self.place.slot, state.word))
    }

    /// Its counters.
    ///
    /// # Errors
    ///
    /// The kernel does not show them.
    pub fn state(&self) -> Result<SlotState, KernelError> {
        self.maps
            .slots
            .get(&self.place.slot)?
            .ok_or_else(|| KernelError::map("SLOTS", "there is no such slot"))
    }

    /// The generation of tables that decides for it.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn generation(&self) -> Result<u32, KernelError> {
        self.seat().map(seat::generation)
    }

    /// How many events the programs have given, those too that found no room.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn events(&self) -> Result<u64, KernelError> {
        self.state().map(|state| state.seq)
    }

    /// Its events.
    ///
    /// # Errors
    ///
    /// The ring cannot be mapped into memory.
    pub fn feed(&self) -> Result<Feed, KernelError> {
        let ring = self
            .own()?
            .events
            .try_clone()
            .map_err(|error| KernelError::map("EVENTS", error))?;
        Feed::new(ring, self.clone())
    }

    /// The way to its grants.
    ///
    /// # Errors
    ///
    /// The kernel does not show their key.
    pub fn grants(&self) -> Result<Grants, KernelError> {
        Ok(Grants::new(
            Arc::clone(&self.maps),
            self.place.slot,
            self.profile()?.grant_key,
        ))
    }

    /// Its breaker and its rates.
    ///
    /// # Errors
    ///
    /// They cannot be mapped into memory.
    pub fn limiter(&self) -> Result<Limiter, KernelError> {
        Limiter::new(&self.maps, self.place.slot, &*self.own()?, self.limits)
    }

    pub(super) fn own(&self) -> Result<Arc<OwnMaps>, KernelError> {
        match &self.own {
            Some(own) => Ok(Arc::clone(own)),
            None => {
                OwnMaps::open(&self.maps, self.place.slot, self.seat()?, &self.limits).map(Arc::new)
            }
        }
    }

    fn profile(&self) -> Result<Profile, KernelError> {
        self.maps
            .profiles
            .get(&self.place.slot)?
            .ok_or_else(|| KernelError::map("PROFILES", "there is no such slot"))
    }

    /// Names the one process that may connect to unix sockets by their path; 0 for none, and then paths are judged by
    /// their text. Without an effect where LSM programs judge the socket itself.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_connector(&self, pid: u32) -> Result<(), KernelError> {
        let profile = Profile {
            connector: pid,
            ..self.profile()?
        };
        self.maps.profiles.set(&self.place.slot, &profile)
    }

    /// The process that [`Self::set_connector`] has named.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn connector(&self) -> Result<Option<u32>, KernelError> {
        let pid = self.profile()?.connector;
        Ok((pid != 0 && pid != seat::NO_PROCESS).then_some(pid))
    }

    /// Nobody may connect to unix sockets by their path any more: the connector has ended, and its number will be another
    /// process's.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn without_connector(&self) -> Result<(), KernelError> {
        self.set_connector(seat::NO_PROCESS)
    }

    /// Lets `pid` make one exec that the policy does not decide: the operator's command.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_operator(&self, pid: u32) -> Result<(), KernelError> {
        // Nothing of the agent runs yet that could change it meanwhile.
        let state = SlotState {
            operator_pid: pid,
            ..self.state()?
        };
        self.maps.slots.set(&self.place.slot, &state)
    }

    /// Has the launcher's own hook start whatever the breaker and the rates say, and not count.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_own(&self, own: &Own) -> Result<(), KernelError> {
        self.maps.own.set(&self.place.slot, own)
    }

    /// Has the programs that see the whole system judge a cgroup and everything below it by the agent's policy.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn recognise(&self, cgroup: u64) -> Result<(), KernelError> {
        self.maps.agents.set(&cgroup, &self.place.slot)
    }

    /// Gives the slot back, when nothing of the agent runs any more. Tasks that carry its mark are nobody's from then on, and
    /// start nothing. Does nothing if the slot is another's.
    ///
    /// Its maps stay where they are until another agent takes the place, which waits for each until no program uses it:
    /// nobody has to wait for that now, and the next agent may be one with the same policy.
    ///
    /// # Errors
    ///
    /// The kernel refuses. What is left is taken by whoever tries again.
    pub fn free(&self) -> Result<(), KernelError> {
        let maps = &*self.maps;
        let slot = self.place.slot;
        let state = self.state()?;
        if state.tenure != self.place.tenure {
            return Ok(());
        }
        for cgroup in maps.agents.keys() {
            if maps.agents.get(&cgroup)? == Some(slot) {
                maps.agents.remove(&cgroup)?;
            }
        }
        self.grants()?.forget()?;
        maps.profiles.set(&slot, &Profile::NONE)?;
        // Free from here on. Whoever is killed before has left it taken, and the next start does this again.
        let free = SlotState {
            maps: seat::with_beside(state.maps, None),
            ..SlotState::default()
        };
        maps.slots.set(&slot, &free)
    }
}
