//! One loaded instance of the kernel programs: its slots, its links, its events.

use std::{mem, os::fd::AsFd};

use aya::{Btf, Ebpf};
use enforcer_common::{
    load::{Offsets, Settings},
    own::Own,
};

use super::{
    KernelError,
    attach::{self, Loaded, NamedLink, PinDir},
    events::Feed,
    grants::{self, Grants},
    limits::{self, Limiter},
    lower::{self, Need},
    lsm,
    object::{self, CORE, LSM, ProgramSpec, Sizes},
    offsets,
    unix_hooks::{self, UnixProgram},
    users,
};
use crate::{changer::Changer, policy::compile::Tables};

/// Bytes of the event ring: some twenty thousand execs of ordinary length.
pub const RING_BYTES: u32 = 4 << 20;

/// The LSM programs on unix sockets.
pub const UNIX_LSM: [&str; 2] = ["unix_stream_connect", "unix_may_send"];

/// The cgroup's programs on them.
pub const UNIX_HOOKS: [&str; 2] = ["unix_connect", "unix_sendmsg"];

/// How connects to unix sockets are judged in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixJudgement {
    /// By the name that the socket is bound to (LSM).
    Bound,
    /// By the name of the call (cgroup hooks): paths need the connector.
    Called,
    /// Not at all: the kernel has neither.
    Absent,
}

impl UnixJudgement {
    /// Which it is, by the programs in force.
    pub fn of(programs: &[&str]) -> Self {
        if UNIX_LSM.iter().all(|name| programs.contains(name)) {
            Self::Bound
        } else if UNIX_HOOKS.iter().all(|name| programs.contains(name)) {
            Self::Called
        } else {
            Self::Absent
        }
    }

    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bound => "by the name that the socket is bound to (LSM)",
            Self::Called => {
                "by the name of the call (cgroup hooks); a helper process connects to paths once they are judged"
            }
            Self::Absent => {
                "not judged in the kernel: no LSM programs are in force for them, and it has no cgroup hooks (Linux 6.7)"
            }
        }
    }
}

/// What an instance is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The policy of each slot.
    pub slots: Vec<&'a Tables>,
    /// Depth of the agents' cgroups below the root of the v2 hierarchy.
    pub agent_level: u32,
    /// Whether to use LSM programs where the kernel runs them.
    pub lsm: bool,
    /// The user whose agents share rates (that of the first slot). Without one such rates count in this instance only.
    pub user: Option<&'a str>,
    /// A slot whose policy decides and is recorded, but blocks nothing.
    pub observed: Option<u32>,
    /// Who the agents run as; programs that this user can change are trusted in no directory.
    pub changer: Option<&'a Changer>,
}

/// What is to be known of the running kernel before anything can be loaded. To read it creates nothing, and needs no
/// policy: it can be done while one is compiled.
#[derive(Debug)]
pub struct Types {
    offsets: Offsets,
    types: Btf,
}

impl Types {
    /// Reads the types of the running kernel.
    ///
    /// Not to be called on a thread of its own: what this takes would stay in that thread's part of the heap.
    ///
    /// # Errors
    ///
    /// The kernel shows none, or lacks one that is needed.
    pub fn read() -> Result<Self, KernelError> {
        Ok(Self {
            offsets: offsets::running_kernel()?,
            types: object::kernel_types()?,
        })
    }
}

/// Unused memory at the end of the heap that is kept, bytes.
const TRIM_BYTES: i32 = 128 << 10;

/// Has unused memory go back to the system at once: to compile a policy and to load it takes much for a moment, and
/// without a fixed limit the C library keeps it. Call it before other threads are started.
pub fn give_memory_back() {
    // SAFETY: a plain call of the C library, numbers only.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BYTES) };
}

/// The loaded programs and maps.
///
/// What it has is in force only when it was seen to refuse: see the self-test of `run`.
#[derive(Debug)]
pub struct Instance {
    ebpf: Ebpf,
    offsets: Offsets,
    loaded: Vec<Loaded>,
    lsm_inactive: bool,
    silent: Vec<&'static str>,
    links: Vec<NamedLink>,
    grants: Grants,
    limiters: Vec<Limiter>,
    unix: Option<Vec<UnixProgram>>,
}

impl Instance {
    /// Loads everything, fills the tables, and attaches the programs that see the whole system and that every kernel has.
    /// No cgroup is governed yet, and no LSM program attached.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or refuses something.
    pub fn load(plan: &Plan<'_>) -> Result<Self, KernelError> {
        Self::load_with(plan, Types::read()?)
    }

    /// As [`Self::load`], with the kernel's types that have been read.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(plan: &Plan<'_>, kernel: Types) -> Result<Self, KernelError> {
        let Types { offsets, types } = kernel;
        let need = plan
            .slots
            .iter()
            .fold(Need::default(), |sum, tables| sum.and(Need::of(tables)));
        let mut settings = Settings {
            agent_level: plan.agent_level,
            sole_slot: 0,
            observed: plan.observed.map_or(0, |slot| slot + 1),
            ..Settings::ZERO
        };
        if let Some(changer) = plan.changer {
            settings.agent_uid = changer.uid;
            settings.agent_group_count = u32::try_from(changer.groups.len()).unwrap_or(u32::MAX);
            for (room, group) in settings.agent_groups.iter_mut().zip(&changer.groups) {
                *room = *group;
            }
        }
        let sizes = Sizes {
            slots: u32::try_from(plan.slots.len()).unwrap_or(u32::MAX),
            segments: need.segments,
            heads: need.heads,
            connects: need.connects,
            cells: need.cells,
            ring_bytes: RING_BYTES,
        };
        let first = plan.slots.first().map(|tables| tables.header.limits);
        let users = users::maps(&first.unwrap_or_default(), plan.user);
        let mut ebpf =
            users::with_maps(&users, || object::load(&offsets, &settings, sizes, &users))?;
        let mut keys = Vec::new();
        let mut limiters = Vec::new();
        let mut start = Need::default();
        for (slot, tables) in (0..).zip(&plan.slots) {
            let key = grants::random_key()?;
            lower::fill(&mut ebpf, slot, start, key, tables)?;
            keys.push(key);
            limiters.push(Limiter::new(
                &ebpf,
                slot,
                lower::placed(&tables.header.limits, start.cells),
            )?);
            start = start.and(Need::of(tables));
        }
        let grants = Grants::new(&ebpf, &keys)?;
        let lsm_inactive = plan.lsm && lsm::known_inactive();
        let mut loaded = attach::load(&mut ebpf, &types, plan.lsm && !lsm_inactive);
        if let Some(at) = loaded[..CORE.len()]
            .iter()
            .position(|program| program.verified.is_err())
            && let Err(error) = loaded.swap_remove(at).verified
        {
            return Err(error);
        }
        let mut instance = Self {
            ebpf,
            offsets,
            loaded,
            lsm_inactive,
            silent: Vec::new(),
            links: Vec::new(),
            grants,
            limiters,
            unix: None,
        };
        // Marks are inherited before anything is judged by them: CORE names the exec hook first, so it comes last.
        let core: Vec<ProgramSpec> = CORE.into_iter().rev().collect();
        instance.attach(&core)?;
        if !UNIX_LSM.iter().all(|name| instance.has_loaded(name)) {
            instance.load_unix_hooks()?;
        }
        Ok(instance)
    }

    /// Attaches those of these programs that see the whole system.
    fn attach(&mut self, specs: &[ProgramSpec]) -> Result<(), KernelError> {
        let specs = specs
            .iter()
            .copied()
            .filter(|spec| !self.silent.contains(&spec.name));
        self.links
            .extend(attach::system_wide(&mut self.ebpf, specs)?);
        Ok(())
    }

    /// What became of loading each program, those apart that aya does not know.
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// Whether the kernel itself says that it runs no LSM programs; none were loaded then.
    pub fn lsm_inactive(&self) -> bool {
        self.lsm_inactive
    }

    /// Whether a program was loaded.
    pub fn has_loaded(&self, name: &str) -> bool {
        self.loaded
            .iter()
            .any(|program| program.spec.name == name && program.verified.is_ok())
    }

    /// Attaches the LSM programs that were loaded. Whether the kernel runs them is to be seen.
    ///
    /// # Errors
    ///
    /// The kernel refuses one.
    pub fn attach_lsm(&mut self) -> Result<(), KernelError> {
        let loaded: Vec<ProgramSpec> = LSM
            .into_iter()
            .filter(|spec| self.has_loaded(spec.name))
            .collect();
        self.attach(&loaded)
    }

    /// Has these programs, and no others, stay loaded and never run, as on a kernel that shows a hook and does not call
    /// it: for tests of the self-test. What sees the whole system stays detached.
    pub fn silence(&mut self, programs: &[&'static str]) {
        self.silent = programs.to_vec();
        self.links.retain(|link| !programs.contains(&link.program));
    }

    /// Detaches the LSM programs.
    pub fn detach_lsm(&mut self) {
        self.links
            .retain(|link| LSM.iter().all(|spec| spec.name != link.program));
    }

    /// Detaches a program that sees the whole system.
    pub fn detach(&mut self, name: &str) {
        self.links.retain(|link| link.program != name);
    }

    /// Loads the cgroup's programs on unix sockets, where the kernel has such hooks.
    ///
    /// # Errors
    ///
    /// The kernel has the hooks and refuses a program.
    pub fn load_unix_hooks(&mut self) -> Result<(), KernelError> {
        self.unix = unix_hooks::load(&self.ebpf, &self.offsets)?;
        Ok(())
    }

    /// Does without them.
    pub fn drop_unix_hooks(&mut self) {
        self.unix = None;
    }

    /// The cgroup's programs on unix sockets, where they are loaded.
    pub fn unix_hooks(&self) -> Option<&[UnixProgram]> {
        self.unix.as_deref()
    }

    /// How many events a slot has had.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn events(&mut self, slot: u32) -> Result<u64, KernelError> {
        lower::events(&mut self.ebpf, slot)
    }

    /// The way to this instance's grants; it may be kept when the instance is gone.
    pub fn grants(&self) -> Grants {
        self.grants.clone()
    }

    /// The breaker and the rates of a slot; it may be kept when the instance is gone.
    ///
    /// # Errors
    ///
    /// The instance has no such slot.
    pub fn limiter(&self, slot: u32) -> Result<Limiter, KernelError> {
        usize::try_from(slot)
            .ok()
            .and_then(|slot| self.limiters.get(slot).cloned())
            .ok_or_else(|| KernelError::map("SLOTS", "the instance has no such slot"))
    }

    /// Governs a cgroup and everything below it by the policy of `slot`.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry or a link.
    pub fn govern(
        &mut self,
        cgroup: impl AsFd,
        id: u64,
        slot: u32,
    ) -> Result<Vec<NamedLink>, KernelError> {
        let mut links = attach::to_cgroup(&mut self.ebpf, cgroup.as_fd())?;
        if let Some(unix) = &self.unix {
            links.extend(attach::unix_to_cgroup(unix, cgroup.as_fd())?);
        }
        links.retain(|link| !self.silent.contains(&link.program));
        self.recognise(id, slot)?;
        Ok(links)
    }

    /// Has the programs that see the whole system judge a cgroup and everything below it by the policy of `slot`.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn recognise(&mut self, id: u64, slot: u32) -> Result<(), KernelError> {
        lower::set_agent(&mut self.ebpf, id, slot)
    }

    /// Lets `pid` make one exec in `slot` that the policy does not decide: the operator's command.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_operator(&mut self, slot: u32, pid: u32) -> Result<(), KernelError> {
        lower::set_operator(&mut self.ebpf, slot, pid)
    }

    /// Has the launcher's own hook start whatever the breaker and the rates of `slot` say, and not count.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_own(&mut self, slot: u32, own: &Own) -> Result<(), KernelError> {
        lower::set_own(&mut self.ebpf, slot, own)
    }

    /// Pins all links and the maps that a later process reads, and gives the events.
    ///
    /// # Errors
    ///
    /// The kernel refuses a pin. What was pinned stays for the caller to remove.
    pub fn pin(mut self, pins: &PinDir, links: Vec<NamedLink>) -> Result<Feed, KernelError> {
        for name in limits::PINNED {
            let map = self
                .ebpf
                .map_mut(name)
                .ok_or_else(|| KernelError::map("pins", name))?;
            map.pin(pins.join(name))
                .map_err(|error| KernelError::map("pins", format!("{name}: {error}")))?;
        }
        pins.pin(mem::take(&mut self.links))?;
        pins.pin(links)?;
        self.into_feed()
    }

    /// Gives the events, and the links: everything is in force until those are dropped. For an instance that need not
    /// outlive its process.
    ///
    /// # Errors
    ///
    /// The events cannot be mapped into memory.
    pub fn hold(
        mut self,
        mut links: Vec<NamedLink>,
    ) -> Result<(Feed, Vec<NamedLink>), KernelError> {
        links.append(&mut self.links);
        Ok((self.into_feed()?, links))
    }

    fn into_feed(mut self) -> Result<Feed, KernelError> {
        let mut take = |name: &'static str| {
            self.ebpf
                .take_map(name)
                .ok_or_else(|| KernelError::map("pins", name))
        };
        let mut feed = Feed::new(take("EVENTS")?, take("SLOTS")?)?;
        if object::diagnostics() {
            feed.diagnose(&mut self.ebpf)?;
        }
        drop(self.ebpf);
        // Loading needs much more memory than running: it goes back to the system.
        // SAFETY: a plain call of the C library.
        unsafe { libc::malloc_trim(0) };
        Ok(feed)
    }
}
