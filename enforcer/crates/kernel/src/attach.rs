//! Attaching programs, and pinning the links so that they outlive us.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupSkb, CgroupSock, CgroupSockAddr, Lsm, ProgramError, links::FdLink,
    },
};
use aya_obj::generated::bpf_attach_type;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        stat::stat,
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
};

use super::{
    KernelError,
    object::{CORE, Hook, LSM, ProgramSpec, chain, load_programs},
    sys,
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
    pub(super) fn pin(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Aya(link) => link
                .pin(path)
                .map(drop)
                .map_err(|error| io::Error::other(chain(&error))),
            Self::Own(link) => sys::pin(link, path),
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

/// A program that is attached to each agent's cgroup.
#[derive(Debug)]
pub(super) struct CgroupProgram {
    /// Its name.
    pub name: &'static str,
    /// The program.
    pub fd: OwnedFd,
}

/// How the programs for cgroups attach.
const ATTACH_TYPES: [(&str, bpf_attach_type); 8] = [
    ("connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    ("connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    ("sock_create", bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE),
    ("packet_out", bpf_attach_type::BPF_CGROUP_INET_EGRESS),
    ("unix_connect", bpf_attach_type::BPF_CGROUP_UNIX_CONNECT),
    ("unix_sendmsg", bpf_attach_type::BPF_CGROUP_UNIX_SENDMSG),
];

impl CgroupProgram {
    /// A program of this name; none if there is no such program for cgroups.
    pub fn new(name: &str, fd: OwnedFd) -> Option<Self> {
        let (name, _) = ATTACH_TYPES.iter().find(|(known, _)| *known == name)?;
        Some(Self { name, fd })
    }

    /// Those of a loaded object.
    pub fn of(ebpf: &Ebpf) -> Result<Vec<Self>, KernelError> {
        let on_cgroups = |spec: &ProgramSpec| {
            matches!(
                spec.hook,
                Hook::SocketAddress | Hook::SocketCreate | Hook::PacketOut
            )
        };
        CORE.iter()
            .filter(|spec| on_cgroups(spec))
            .map(|spec| {
                let fail = |error: ProgramError| refused(*spec, &error);
                let program = ebpf
                    .program(spec.name)
                    .ok_or_else(|| KernelError::map("programs", spec.name))?;
                let fd = match spec.hook {
                    Hook::SocketAddress => {
                        <&CgroupSockAddr>::try_from(program).and_then(CgroupSockAddr::fd)
                    }
                    Hook::SocketCreate => <&CgroupSock>::try_from(program).and_then(CgroupSock::fd),
                    _ => <&CgroupSkb>::try_from(program).and_then(CgroupSkb::fd),
                };
                let fd = fd
                    .map_err(fail)?
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| KernelError::map("programs", error))?;
                Self::new(spec.name, fd).ok_or_else(|| KernelError::map("programs", spec.name))
            })
            .collect()
    }

    /// Attaches it to a cgroup, until the link is dropped.
    ///
    /// # Errors
    ///
    /// The kernel refuses the link.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> Result<NamedLink, KernelError> {
        sys::link(&self.fd, cgroup, self.attach_type())
            .map(|link| NamedLink {
                program: self.name,
                link: Link::Own(link),
            })
            .map_err(|error| self.refused(&error))
    }

    /// Attaches it to a cgroup for good. A link would end with its agent, and sockets of that agent that somebody still holds
    /// would be judged by nobody from then on.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn attach_for_good(&self, cgroup: BorrowedFd<'_>) -> Result<(), KernelError> {
        sys::attach(&self.fd, cgroup, self.attach_type()).map_err(|error| self.refused(&error))
    }

    fn attach_type(&self) -> u32 {
        ATTACH_TYPES
            .iter()
            .find(|(name, _)| *name == self.name)
            .map_or(0, |(_, attach_type)| *attach_type as u32)
    }

    fn refused(&self, error: &io::Error) -> KernelError {
        KernelError::Program {
            program: self.name,
            reason: error.to_string(),
        }
    }
}

/// Where systems mount the BPF file system.
pub const BPF_ROOT: &str = "/sys/fs/bpf";
/// Where instances pin.
pub const PIN_ROOT: &str = "/sys/fs/bpf/enforcer";

/// Whether the BPF file system is what is found in its place: something else may be mounted over it.
///
/// # Errors
///
/// What is there cannot be used, and no mount of ours would mend it.
pub fn bpf_mounted() -> Result<bool, KernelError> {
    let fault = |reason: String, mend: &str| KernelError::BpfRoot {
        reason,
        mend: mend.to_owned(),
    };
    let unknown = |errno| KernelError::Pin {
        path: BPF_ROOT.into(),
        error: io::Error::from(errno),
    };
    match statfs(BPF_ROOT) {
        Err(Errno::ENOENT) => {
            return Err(fault(
                "it does not exist".to_owned(),
                "mount sysfs at /sys (mount -t sysfs sysfs /sys), and boot a kernel with CONFIG_BPF_SYSCALL",
            ));
        }
        Err(errno) => return Err(unknown(errno)),
        Ok(found) if found.filesystem_type() != BPF_FS_MAGIC => return Ok(false),
        Ok(_) => {}
    }
    let flags = statvfs(BPF_ROOT).map_err(unknown)?.flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        return Err(fault(
            "it is mounted read-only, and what governs agents is pinned there".to_owned(),
            "mount -o remount,rw /sys/fs/bpf",
        ));
    }
    let root = stat(BPF_ROOT).map_err(unknown)?;
    // Whoever may rename there takes our directory away. In a sticky one only its owner may.
    let sticky = root.st_mode & libc::S_ISVTX != 0;
    if root.st_uid != 0 || root.st_mode & 0o022 != 0 && !sticky {
        return Err(fault(
            format!(
                "others than root may change it (it belongs to uid {}, mode {:04o})",
                root.st_uid,
                root.st_mode & 0o7777
            ),
            "chown root /sys/fs/bpf && chmod 0700 /sys/fs/bpf",
        ));
    }
    Ok(true)
}

/// Mounts the BPF file system where it is not: pins have no other place.
///
/// # Errors
///
/// What is there cannot be used, or the kernel refuses the mount.
pub fn mount_bpf() -> Result<(), KernelError> {
    if bpf_mounted()? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPF_ROOT, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        KernelError::BpfRoot {
            reason: format!(
                "the BPF file system is not mounted there, and cannot be mounted: {}",
                io::Error::from(errno)
            ),
            mend:
                "run as root with CAP_SYS_ADMIN, or mount it before (mount -t bpf bpf /sys/fs/bpf)"
                    .to_owned(),
        }
    })
}
