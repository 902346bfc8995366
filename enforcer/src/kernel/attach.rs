//! Attaching programs, and pinning the links so that they outlive us.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock,
        CgroupSockAddr, Lsm, ProgramError, links::FdLink,
    },
};

use nix::mount::{MsFlags, mount};

use super::{
    KernelError,
    object::{CORE, Hook, LSM, ProgramSpec, chain, load_programs},
    unix_hooks::{self, UnixProgram},
};

/// A link of one of our programs.
#[derive(Debug)]
pub struct NamedLink {
    /// The program.
    pub program: &'static str,
    /// The link; dropping it detaches, unless it is pinned.
    pub link: Link,
}

/// A link to an attached program.
#[derive(Debug)]
pub enum Link {
    /// Made by aya.
    Aya(FdLink),
    /// Made by ourselves.
    Own(OwnedFd),
}

impl Link {
    fn pin(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Aya(link) => link
                .pin(path)
                .map(drop)
                .map_err(|error| io::Error::other(chain(&error))),
            Self::Own(link) => unix_hooks::pin(link.as_fd(), path),
        }
    }
}

fn refused(spec: ProgramSpec, error: &ProgramError) -> KernelError {
    KernelError::Program {
        program: spec.name,
        reason: chain(error),
    }
}

/// A program, and what became of loading it: how many instructions the verifier walked.
#[derive(Debug)]
pub struct Loaded {
    /// The program.
    pub spec: ProgramSpec,
    /// The instructions, or the refusal.
    pub verified: Result<u32, KernelError>,
}

/// Loads the programs without which nothing is enforced, and with `lsm` those too that only some kernels take.
pub fn load(ebpf: &mut Ebpf, types: &Btf, lsm: bool) -> Vec<Loaded> {
    let mut specs = CORE.to_vec();
    if lsm {
        // Found out by trying: the list in securityfs names BPF on kernels that refuse it.
        specs.extend(LSM);
    }
    let results = load_programs(ebpf, &specs, types);
    specs
        .into_iter()
        .zip(results)
        .map(|(spec, verified)| Loaded { spec, verified })
        .collect()
}

/// Attaches the loaded programs among `specs` that see the whole system.
///
/// # Errors
///
/// The kernel refuses one.
pub fn system_wide(
    ebpf: &mut Ebpf,
    specs: impl IntoIterator<Item = ProgramSpec>,
) -> Result<Vec<NamedLink>, KernelError> {
    specs
        .into_iter()
        .filter(|spec| matches!(spec.hook, Hook::Tracepoint(_) | Hook::Lsm(_)))
        .map(|spec| attach(ebpf, spec))
        .collect()
}

/// How often an attachment is tried again that the kernel is too busy for, and how long after each.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Attaches; again where the kernel says `EBUSY`, as 6.1 does while another attachment to the same function is on its way
/// in or out (seen where two launchers' worth of LSM programs came and went at once).
fn patiently<T>(mut attach: impl FnMut() -> Result<T, ProgramError>) -> Result<T, ProgramError> {
    let mut tries = 0;
    loop {
        match attach() {
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EBUSY) && tries < TRIES =>
            {
                tries += 1;
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn attach(ebpf: &mut Ebpf, spec: ProgramSpec) -> Result<NamedLink, KernelError> {
    let program = ebpf
        .program_mut(spec.name)
        .ok_or_else(|| KernelError::map("programs", spec.name))?;
    let fail = |error: ProgramError| refused(spec, &error);
    let link = if let Hook::Tracepoint(_) = spec.hook {
        let program = <&mut BtfTracePoint>::try_from(program).map_err(fail)?;
        let id = patiently(|| program.attach()).map_err(fail)?;
        FdLink::from(program.take_link(id).map_err(fail)?)
    } else {
        let program = <&mut Lsm>::try_from(program).map_err(fail)?;
        let id = patiently(|| program.attach()).map_err(fail)?;
        FdLink::from(program.take_link(id).map_err(fail)?)
    };
    Ok(NamedLink {
        program: spec.name,
        link: Link::Aya(link),
    })
}

/// Attaches the loaded socket programs to a cgroup.
///
/// # Errors
///
/// The kernel refuses one.
pub fn to_cgroup(ebpf: &mut Ebpf, cgroup: impl AsFd) -> Result<Vec<NamedLink>, KernelError> {
    let cgroup = cgroup.as_fd();
    let mut links = Vec::new();
    for spec in CORE {
        let fail = |error: ProgramError| refused(spec, &error);
        let program = ebpf
            .program_mut(spec.name)
            .ok_or_else(|| KernelError::map("programs", spec.name))?;
        // No flag: links always sit beside one another, and the kernel refuses flags here.
        let mode = CgroupAttachMode::Single;
        let link = match spec.hook {
            Hook::SocketAddress => {
                let program = <&mut CgroupSockAddr>::try_from(program).map_err(fail)?;
                let id = program.attach(cgroup, mode).map_err(fail)?;
                FdLink::try_from(program.take_link(id).map_err(fail)?)
            }
            Hook::SocketCreate => {
                let program = <&mut CgroupSock>::try_from(program).map_err(fail)?;
                let id = program.attach(cgroup, mode).map_err(fail)?;
                FdLink::try_from(program.take_link(id).map_err(fail)?)
            }
            Hook::PacketOut => {
                let program = <&mut CgroupSkb>::try_from(program).map_err(fail)?;
                let id = program
                    .attach(cgroup, CgroupSkbAttachType::Egress, mode)
                    .map_err(fail)?;
                FdLink::try_from(program.take_link(id).map_err(fail)?)
            }
            Hook::Tracepoint(_) | Hook::Lsm(_) => continue,
        };
        let link = link.map_err(|error| KernelError::Program {
            program: spec.name,
            reason: chain(&error),
        })?;
        links.push(NamedLink {
            program: spec.name,
            link: Link::Aya(link),
        });
    }
    Ok(links)
}

/// Attaches the programs on unix sockets to a cgroup.
///
/// # Errors
///
/// The kernel refuses one.
pub fn unix_to_cgroup(
    programs: &[UnixProgram],
    cgroup: impl AsFd,
) -> Result<Vec<NamedLink>, KernelError> {
    programs
        .iter()
        .map(|program| {
            Ok(NamedLink {
                program: program.name,
                link: Link::Own(program.attach(cgroup.as_fd())?),
            })
        })
        .collect()
}

/// The directory of one instance's pins. Removing it detaches everything.
#[derive(Clone, Debug)]
pub struct PinDir(PathBuf);

/// Where systems mount the BPF file system.
pub const BPF_ROOT: &str = "/sys/fs/bpf";
/// Where instances pin.
pub const PIN_ROOT: &str = "/sys/fs/bpf/enforcer";

/// Whether the BPF file system is mounted in its place.
///
/// # Errors
///
/// The mounts cannot be read.
pub fn bpf_mounted() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| {
        let mut words = line.split(' ');
        words.nth(1) == Some(BPF_ROOT) && words.next() == Some("bpf")
    }))
}

/// Mounts the BPF file system where it is not: pins have no other place.
///
/// # Errors
///
/// The kernel refuses the mount.
pub fn mount_bpf() -> Result<(), KernelError> {
    let fail = |error| KernelError::Pin {
        path: BPF_ROOT.into(),
        error,
    };
    if bpf_mounted().map_err(fail)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPF_ROOT, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| fail(errno.into()))
}

impl PinDir {
    /// The directory of instance `id`.
    pub fn of(id: &str) -> Self {
        Self(Path::new(PIN_ROOT).join(id))
    }

    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// It exists already, or there is no BPF file system.
    pub fn create(&self) -> Result<(), KernelError> {
        let fail = |error| KernelError::Pin {
            path: self.0.clone(),
            error,
        };
        // Another instance that ends takes the empty common directory away, perhaps between the two steps.
        let mut tries = 0;
        loop {
            match fs::create_dir(PIN_ROOT) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fail(error));
                }
                _ => {}
            }
            match fs::create_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 100 => tries += 1,
                other => return other.map_err(fail),
            }
        }
    }

    /// The path of a pin.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Pins links; they stay in force when we are gone.
    ///
    /// # Errors
    ///
    /// The kernel refuses a pin.
    pub fn pin(&self, links: Vec<NamedLink>) -> Result<(), KernelError> {
        for NamedLink { program, link } in links {
            let path = self.0.join(program);
            // The pinned link keeps the program attached; our own descriptor is not needed.
            link.pin(&path)
                .map_err(|error| KernelError::Pin { path, error })?;
        }
        Ok(())
    }

    /// Takes all pins away.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        let fail = |error| KernelError::Pin {
            path: self.0.clone(),
            error,
        };
        if !self.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&self.0).map_err(fail)?;
        // The last instance takes the common directory with it.
        let _ = fs::remove_dir(PIN_ROOT);
        Ok(())
    }

    /// The instances that have pins.
    pub fn existing() -> Vec<String> {
        let Ok(entries) = fs::read_dir(PIN_ROOT) else {
            return Vec::new();
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // Rates that outlive instances are no instance.
            .filter(|name| name != super::users::DIRECTORY)
            .collect();
        ids.sort_unstable();
        ids
    }
}
