//! Kernel programs that have been loaded and are looked at: what they become is a host.

use std::{os::fd::AsFd, sync::Arc};

use aya::{Btf, Ebpf};
use enforcer_common::load::{LoadSettings, Offsets};

use super::{
    KernelError,
    agent::{Agent, AgentPlan},
    attach::{self, CgroupProgram, Loaded, NamedLink},
    host::{self, Host, LockedHosts},
    lsm,
    object::{self, CORE, LSM, ProgramSpec},
    offsets,
    record::{HostRecord, SeenToRefuse},
    tables::HostMaps,
    unix_hooks::{self, UnixProgram},
};

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

/// Programs that were loaded, before they are a host.
///
/// What it has is in force only when it was seen to refuse: see the self-test of `run`.
#[derive(Debug)]
pub struct Instance {
    ebpf: Ebpf,
    maps: Arc<HostMaps>,
    offsets: Offsets,
    loaded: Vec<Loaded>,
    lsm_inactive: bool,
    silent: Vec<&'static str>,
    links: Vec<NamedLink>,
    unix: Option<Vec<UnixProgram>>,
}

impl Instance {
    /// Loads everything, and attaches the programs that see the whole system and that every kernel has. No cgroup is governed
    /// yet, and no LSM program attached. `agent_level` is the depth of the agents' cgroups below the root of the v2
    /// hierarchy.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or refuses something.
    pub fn load(agent_level: u32) -> Result<Self, KernelError> {
        Self::load_with(agent_level, Types::read()?)
    }

    /// As [`Self::load`], with the kernel's types that have been read.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(agent_level: u32, kernel: Types) -> Result<Self, KernelError> {
        let Types { offsets, types } = kernel;
        let mut ebpf = object::load(&offsets, &LoadSettings { agent_level })?;
        let maps = HostMaps::of(&ebpf)?;
        maps.record.set(&0, &HostRecord::new(agent_level))?;
        let lsm_inactive = lsm::known_inactive();
        let mut loaded = attach::load(&mut ebpf, &types, !lsm_inactive);
        if let Some(at) = loaded[..CORE.len()]
            .iter()
            .position(|program| program.verified.is_err())
            && let Err(error) = loaded.swap_remove(at).verified
        {
            return Err(error);
        }
        let mut instance = Self {
            ebpf,
            maps: Arc::new(maps),
            offsets,
            loaded,
            lsm_inactive,
            silent: Vec::new(),
            links: Vec::new(),
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

    /// Gives an agent a slot among those of these programs.
    ///
    /// # Errors
    ///
    /// The kernel refuses something.
    pub fn admit(&self, plan: &AgentPlan<'_>) -> Result<Agent, KernelError> {
        Agent::choose(&self.maps, plan, |_| Ok(()))?.settle(plan)
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

    /// Governs a cgroup and everything below it by an agent's policy, until the links are dropped.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry or a link.
    pub fn govern(
        &self,
        agent: &Agent,
        cgroup: impl AsFd,
        id: u64,
    ) -> Result<Vec<NamedLink>, KernelError> {
        let mut links = host::attach_all(&self.for_cgroups()?, cgroup)?;
        links.retain(|link| !self.silent.contains(&link.program));
        agent.recognise(id)?;
        Ok(links)
    }

    fn for_cgroups(&self) -> Result<Vec<CgroupProgram>, KernelError> {
        let mut programs = CgroupProgram::of(&self.ebpf)?;
        for unix in self.unix.iter().flatten() {
            programs.push(unix.for_cgroups()?);
        }
        Ok(programs)
    }

    /// Makes a host of it, of which this was seen to refuse.
    ///
    /// # Errors
    ///
    /// The kernel refuses a pin. Nothing is left behind then.
    pub fn pin(self, held: &LockedHosts, seen: &SeenToRefuse) -> Result<Host, KernelError> {
        let programs = self.for_cgroups()?;
        let host = Host::keep(held, self.maps, programs, self.links, seen);
        drop(self.ebpf);
        // Loading needs much more memory than running: it goes back to the system.
        // SAFETY: a plain call of the C library.
        unsafe { libc::malloc_trim(0) };
        host
    }
}
