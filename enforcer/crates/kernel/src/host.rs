//! The host: kernel programs that are loaded, verified and attached once for a machine and a build, and kept by pins for
//! all agents. The first start loads them, later ones find them.
//!
//! Below [`PIN_ROOT`] each host has a directory of its own, named after its build: its maps under their names, the links
//! of what sees the whole system (`link-…`), the programs for agents' cgroups (`program-…`), and `HOST`, the record, which is
//! pinned last: without it a host is not whole. Of agents nothing is pinned: the kernel keeps the programs on an agent's
//! cgroup for as long as that is used, by processes or by sockets.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use enforcer_common::{
    limits::LimitRules,
    rule::PolicyHeader,
    seat::{HAS_EVENTS, SLOTS, SlotState},
};
use nix::fcntl::{Flock, FlockArg};

use super::{
    KernelError,
    agent::{Agent, AgentPlan, SlotPlace, Usage},
    attach::{CgroupProgram, NamedLink, PIN_ROOT, bpf_mounted},
    events::Feed,
    grants::random_key,
    object,
    record::{HostRecord, SeenToRefuse, build, short},
    sys::{self, Change},
    tables::{HostMaps, RECORD},
    users,
};

const LINK: &str = "link-";
const PROGRAM: &str = "program-";

/// The hosts of this machine, held: who loads one, takes one down, or takes a slot does it alone. It goes with its holder.
#[derive(Debug)]
pub struct LockedHosts {
    _lock: Flock<File>,
}

fn pin_error(path: &Path) -> impl Fn(io::Error) -> KernelError {
    let path = path.to_owned();
    move |error| KernelError::Pin {
        path: path.clone(),
        error,
    }
}

/// Whether a directory is root's, and nobody else may change it.
fn trusted(path: &Path) -> Result<(), KernelError> {
    let metadata = fs::symlink_metadata(path).map_err(pin_error(path))?;
    let reason = if !metadata.is_dir() {
        "it is no directory".to_owned()
    } else if metadata.uid() != 0 {
        format!("it belongs to user {}, not to root", metadata.uid())
    } else if metadata.mode() & 0o022 != 0 {
        "others than root may change it".to_owned()
    } else {
        return Ok(());
    };
    Err(KernelError::Foreign {
        path: path.to_owned(),
        reason,
    })
}

impl LockedHosts {
    /// Waits for the hosts.
    ///
    /// # Errors
    ///
    /// There is no BPF file system, or what is there is not root's.
    pub fn wait() -> Result<Self, KernelError> {
        if !bpf_mounted()? {
            return Err(KernelError::BpfRoot {
                reason: "the BPF file system is not mounted there".to_owned(),
                mend: "`enforcer run` mounts it; what was pinned in one that is gone is gone"
                    .to_owned(),
            });
        }
        let root = Path::new(PIN_ROOT);
        let fail = pin_error(root);
        loop {
            match DirBuilder::new().mode(0o700).create(root) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fail(error));
                }
                _ => {}
            }
            trusted(root)?;
            let directory = match File::open(root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(&fail)?,
            };
            let lock = Flock::lock(directory, FlockArg::LockExclusive)
                .map_err(|(_, errno)| fail(errno.into()))?;
            // Whoever held it before may have taken it away.
            let same = lock.metadata().ok().zip(fs::metadata(root).ok());
            if same.is_some_and(|(ours, there)| ours.ino() == there.ino()) {
                return Ok(Self { _lock: lock });
            }
        }
    }
}

/// A host that is whole.
#[derive(Debug)]
pub struct Host {
    maps: Arc<HostMaps>,
    programs: Vec<CgroupProgram>,
    directory: PathBuf,
    record: HostRecord,
}

/// How the name of a host begins that others may join. One that says what it does serves one run.
fn stem(agent_level: u32) -> String {
    let diagnostics = if object::diagnostics() { "debug-" } else { "" };
    format!("{diagnostics}{}-{agent_level}-", short(&build()))
}

/// The names of all hosts, whole or not.
pub fn all() -> Vec<String> {
    let Ok(entries) = fs::read_dir(PIN_ROOT) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        // Rates that outlive hosts are no host.
        .filter(|name| name != users::DIRECTORY)
        .collect();
    names.sort_unstable();
    names
}

/// The kernel's numbers of what is pinned in a directory, in the order of the names.
fn objects(directory: &Path) -> Result<Vec<u32>, KernelError> {
    let fail = pin_error(directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(&fail)? {
        let name = entry.map_err(&fail)?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name != RECORD {
            names.push(name);
        }
    }
    names.sort_unstable();
    names
        .iter()
        .map(|name| {
            let path = directory.join(name);
            let fail = pin_error(&path);
            let object = sys::open_pin(&path).map_err(&fail)?;
            if name.starts_with(LINK) {
                sys::linked_program(&object)
            } else if name.starts_with(PROGRAM) {
                sys::program_info(&object).map(|info| info.id)
            } else {
                sys::map_info(&object).map(|info| info.id)
            }
            .map_err(&fail)
        })
        .collect()
}

impl Host {
    /// A host of this build that is whole; `None` if there is none.
    pub fn find(_held: &LockedHosts, agent_level: u32) -> Option<Self> {
        if object::diagnostics() {
            return None;
        }
        let stem = stem(agent_level);
        all()
            .iter()
            .filter(|name| name.starts_with(&stem))
            .find_map(|name| Self::open(name).ok())
    }

    /// Opens a host by its name.
    ///
    /// # Errors
    ///
    /// It is not whole, not root's, or its maps have another shape.
    pub fn open(name: &str) -> Result<Self, KernelError> {
        let directory = Path::new(PIN_ROOT).join(name);
        let broken = |reason: &str| KernelError::Foreign {
            path: directory.clone(),
            reason: reason.to_owned(),
        };
        trusted(&directory)?;
        let maps = HostMaps::open(&directory)?;
        let record = maps
            .record
            .get(&0)?
            .ok_or_else(|| broken("it has no record"))?;
        if record.objects() != objects(&directory)? {
            return Err(broken(
                "it is not whole: something that was pinned there is gone, or another's",
            ));
        }
        let mut programs = Vec::new();
        for entry in fs::read_dir(&directory).map_err(pin_error(&directory))? {
            let path = entry.map_err(pin_error(&directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_prefix(PROGRAM)) {
                let fd = sys::open_pin(&path).map_err(pin_error(&path))?;
                programs.extend(CgroupProgram::new(name, fd));
            }
        }
        Ok(Self {
            maps: Arc::new(maps),
            programs,
            directory,
            record,
        })
    }

    /// Pins what was loaded: from here on it is in force whoever dies. The record comes last.
    pub(super) fn keep(
        _held: &LockedHosts,
        maps: Arc<HostMaps>,
        programs: Vec<CgroupProgram>,
        links: Vec<NamedLink>,
        seen: &SeenToRefuse,
    ) -> Result<Self, KernelError> {
        let mut record = maps
            .record
            .get(&0)?
            .ok_or_else(|| KernelError::map(RECORD, "it is empty"))?;
        let [nonce, _] = random_key()?;
        let name = format!("{}{:08x}", stem(record.agent_level), nonce & 0xffff_ffff);
        let directory = Path::new(PIN_ROOT).join(name);
        let place = |name: &str| directory.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(pin_error(&directory))?;
        let pin = |object: std::os::fd::BorrowedFd<'_>, name: &str| {
            let path = place(name);
            sys::pin(object, &path).map_err(pin_error(&path))
        };
        let made = (|| {
            for (name, map) in maps.named() {
                pin(map, name)?;
            }
            for program in &programs {
                pin(program.fd.as_fd(), &format!("{PROGRAM}{}", program.name))?;
            }
            for NamedLink { program, link } in links {
                let path = place(&format!("{LINK}{program}"));
                link.pin(&path).map_err(pin_error(&path))?;
            }
            record.note(seen);
            if !record.made_of(&objects(&directory)?) {
                return Err(KernelError::map(RECORD, "it has no room for all objects"));
            }
            maps.record.set(&0, &record)?;
            pin(maps.record.fd.as_fd(), RECORD)
        })();
        if let Err(error) = made {
            let _ = remove(&directory);
            return Err(error);
        }
        Ok(Self {
            maps,
            programs,
            directory,
            record,
        })
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Which kernel programs: the first bytes of their digest, hexadecimal.
    pub fn build(&self) -> String {
        short(&self.record.build)
    }

    /// Whether its programs are those of this build.
    pub fn is_current(&self) -> bool {
        self.record.build == build()
    }

    /// How many slots are taken.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn used(&self) -> Result<u32, KernelError> {
        let words = self.maps.words()?;
        let used = (0..SLOTS).filter(|slot| words.of(*slot).0 != 0).count();
        Ok(u32::try_from(used).unwrap_or(SLOTS))
    }

    /// What was seen to refuse when it was loaded.
    pub fn seen(&self) -> SeenToRefuse {
        self.record.seen()
    }

    /// Gives an agent a slot. `note` is told of its place before it is taken.
    ///
    /// # Errors
    ///
    /// There is no room, or the kernel refuses.
    pub fn admit(
        &self,
        held: LockedHosts,
        plan: &AgentPlan<'_>,
        note: impl FnOnce(SlotPlace) -> Result<(), KernelError>,
    ) -> Result<Agent, KernelError> {
        let chosen = Agent::choose(&self.maps, plan, note)?;
        // Slot and generation are the agent's now: others may go on.
        drop(held);
        chosen.settle(plan)
    }

    /// The agent of a place, with these limits; `None` if its slot is free, or another's, by now.
    ///
    /// # Errors
    ///
    /// The kernel does not show it.
    pub fn agent(
        &self,
        place: SlotPlace,
        limits: &LimitRules,
    ) -> Result<Option<Agent>, KernelError> {
        Agent::at(&self.maps, place, limits)
    }

    /// Governs a cgroup and everything below it by an agent's policy, and after the agent's end the sockets that were made there.
    ///
    /// # Errors
    ///
    /// The kernel refuses a program, or the entry.
    pub fn govern(
        &self,
        agent: &Agent,
        cgroup: impl AsFd,
        cgroup_id: u64,
    ) -> Result<(), KernelError> {
        for program in &self.programs {
            program.attach_for_good(cgroup.as_fd())?;
        }
        agent.recognise(cgroup_id)
    }

    /// The events of an agent; with diagnostics what the programs say is handed on, too.
    ///
    /// # Errors
    ///
    /// The ring cannot be mapped into memory.
    pub fn feed(&self, agent: &Agent) -> Result<Feed, KernelError> {
        let mut feed = agent.feed()?;
        if object::diagnostics() {
            let path = self.directory.join(format!("{LINK}exec_committed"));
            let program = sys::open_pin(&path).and_then(sys::linked_program);
            feed.diagnose(program.map_err(pin_error(&path))?)?;
        }
        Ok(feed)
    }

    /// Frees the slots of agents that none of these places is.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn free_others(
        &self,
        _held: &LockedHosts,
        places: &[SlotPlace],
    ) -> Result<(), KernelError> {
        let words = self.maps.words()?;
        for slot in 0..SLOTS {
            let (tenure, ..) = words.of(slot);
            let place = SlotPlace { slot, tenure };
            if tenure != 0
                && !places.contains(&place)
                && let Some(agent) = self.agent(place, &LimitRules::default())?
            {
                agent.free()?;
            }
        }
        Ok(())
    }
}

/// Free slots and unused generations that keep their maps for the next agents.
const SPARE: usize = 8;
/// Most of each whose maps a start gives back: that waits, many at once wait together.
const TRIM_MAX: usize = 16;

impl Host {
    /// Gives back the memory of agents that are gone, but for some.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn trim(&self, _held: &LockedHosts) -> Result<(), KernelError> {
        let maps = &*self.maps;
        let usage = Usage::look(maps)?;
        let mut changes = Vec::new();
        for &(slot, has) in usage.spare.iter().skip(SPARE).take(TRIM_MAX) {
            changes.push(Change {
                maps: &maps.events,
                at: slot,
                to: None,
            });
            let state = SlotState {
                maps: has & !HAS_EVENTS,
                ..SlotState::default()
            };
            maps.slots.set(&slot, &state)?;
        }
        let mut spare = Vec::new();
        for (at, seed, named) in usage.generations(maps)? {
            if !named && seed != 0 {
                spare.push(at);
            }
        }
        for at in spare.into_iter().skip(SPARE).take(TRIM_MAX) {
            maps.policies.set(&at, &PolicyHeader::default())?;
            for maps in [&maps.tables, &maps.heads, &maps.connects] {
                changes.push(Change { maps, at, to: None });
            }
        }
        Change::make_all(&changes)
    }
}

/// Attaches programs to a cgroup.
pub(super) fn attach_all(
    programs: &[CgroupProgram],
    cgroup: impl AsFd,
) -> Result<Vec<NamedLink>, KernelError> {
    programs
        .iter()
        .map(|program| program.attach(cgroup.as_fd()))
        .collect()
}

/// Takes down the hosts that nobody uses and nobody will join: those that are not whole or of another build, but for the
/// names in `used`.
pub fn take_down_unused(held: &LockedHosts, agent_level: u32, used: &[String]) {
    let stem = stem(agent_level);
    for name in all() {
        let joinable = name.starts_with(&stem) && Host::open(&name).is_ok();
        if !joinable && !used.contains(&name) {
            // What is not ours stays.
            let _ = take_down(held, &name);
        }
    }
}

/// Takes a host down: its programs are gone when nobody has them open.
///
/// # Errors
///
/// It is not root's, or cannot be removed.
pub fn take_down(_held: &LockedHosts, name: &str) -> Result<(), KernelError> {
    let directory = Path::new(PIN_ROOT).join(name);
    trusted(&directory)?;
    remove(&directory)
}

/// Removes a directory of pins: what only they keep is gone.
fn remove(directory: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(directory)(error)),
        _ => Ok(()),
    }
}

/// Whether there seems to be a host to join: whoever finds none has to load one.
pub fn seems_there(agent_level: u32) -> bool {
    let stem = stem(agent_level);
    !object::diagnostics() && all().iter().any(|name| name.starts_with(&stem))
}
