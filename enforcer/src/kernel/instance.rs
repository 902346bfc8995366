//! One loaded instance of the kernel programs: its slots, its links, its events.

use std::{mem, os::fd::AsFd};

use aya::{Btf, Ebpf};
use enforcer_common::load::{Offsets, Settings};

use super::{
    KernelError,
    attach::{self, NamedLink, PinDir},
    events::Feed,
    grants::{self, Grants},
    limits::{self, Limiter},
    lower::{self, Need},
    object::{self, Sizes},
    offsets,
    unix_hooks::{self, UnixProgram},
    users,
};
use crate::{changer::Changer, policy::compile::Tables};

/// Bytes of the event ring: some twenty thousand execs of ordinary length.
pub const RING_BYTES: u32 = 4 << 20;

/// The LSM programs on unix sockets.
const UNIX_LSM: [&str; 2] = ["unix_stream_connect", "unix_may_send"];

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
    /// Which it is, by the LSM programs in force and whether the cgroup hooks are there.
    pub fn of(lsm: &[&str], hooks: bool) -> Self {
        if UNIX_LSM.iter().all(|name| lsm.contains(name)) {
            Self::Bound
        } else if hooks {
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
                "not judged in the kernel: it loads no LSM programs for them and has no cgroup hooks (Linux 6.7)"
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
    /// Whether to attach LSM programs where the kernel loads them.
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
#[derive(Debug)]
pub struct Instance {
    ebpf: Ebpf,
    links: Vec<NamedLink>,
    lsm: Vec<&'static str>,
    grants: Grants,
    limiters: Vec<Limiter>,
    unix: Option<Vec<UnixProgram>>,
}

impl Instance {
    /// Loads everything, fills the tables, and attaches the programs that see the whole system. No cgroup is
    /// governed yet.
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
        let links = attach::system_wide(&mut ebpf, &types, plan.lsm)?;
        let lsm: Vec<&'static str> = object::LSM
            .iter()
            .map(|spec| spec.name)
            .filter(|name| links.iter().any(|link| link.program == *name))
            .collect();
        // The name that a socket is bound to says more than the name of the call.
        let unix = if UNIX_LSM.iter().all(|name| lsm.contains(name)) {
            None
        } else {
            unix_hooks::load(&ebpf, &offsets)?
        };
        Ok(Self {
            ebpf,
            links,
            lsm,
            grants,
            limiters,
            unix,
        })
    }

    /// Names of the LSM programs in force.
    pub fn lsm(&self) -> &[&'static str] {
        &self.lsm
    }

    /// How the kernel judges connects to unix sockets.
    pub fn unix_judgement(&self) -> UnixJudgement {
        UnixJudgement::of(&self.lsm, self.unix.is_some())
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
        lower::set_agent(&mut self.ebpf, id, slot)?;
        Ok(links)
    }

    /// Lets `pid` make one exec in `slot` that the policy does not decide: the operator's command.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_operator(&mut self, slot: u32, pid: u32) -> Result<(), KernelError> {
        lower::set_operator(&mut self.ebpf, slot, pid)
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
