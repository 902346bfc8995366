//! A virtual machine with one of Debian's kernels, for one command.

mod cpio;
mod guest;
mod kernel;

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use self::kernel::Kernel;
use crate::process::{command, note, step};
use crate::stream::{self, End};
use crate::{packages, root};

/// Beginnings of what the guest tells us between the command's lines; see tests/vm/init.sh.
const EXIT: &str = "enforcer-vm-exit: ";
const START: &str = "enforcer-vm-start: ";
const ERROR: &str = "enforcer-vm-error: ";
/// What a sound kernel never says.
const TROUBLE: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "Oops: ",
    "Kernel panic",
    "general protection fault",
    "UBSAN: ",
    "INFO: task ",
];
/// How often a kernel is booted that falls over before anything of ours runs: an emulated machine with two processors now
/// and then executes an instruction that the kernel is just patching.
const BOOTS: usize = 3;
/// The active LSMs of systems that leave `bpf` out (Ubuntu, WSL, Proxmox): LSM programs load there, and never run.
pub const WITHOUT_BPF_LSM: &str = "lsm=landlock,lockdown,yama,apparmor";
/// Lines of the console that an error shows.
const LAST_LINES: usize = 30;

/// A command for a guest.
pub struct Job {
    /// The kernel to boot.
    pub kernel: Kernel,
    /// A further word of its command line.
    pub parameter: Option<&'static str>,
    /// Executables of the host that the command needs, found at the same paths in the guest.
    pub executables: Vec<PathBuf>,
    /// The enforcer binary, `enforcer` in the guest's PATH and `ENFORCER_BIN` in its environment.
    pub enforcer: Option<PathBuf>,
    /// Further variables.
    pub variables: Vec<(&'static str, OsString)>,
    /// Where the command starts.
    pub directory: PathBuf,
    /// The command; a list of commands runs them all and fails with the first that failed.
    pub words: Vec<OsString>,
    /// How long the machine may run.
    pub timeout: Duration,
}

/// Machines that may run at once: two where the memory is there for both, with some to spare.
pub fn at_once() -> usize {
    const WANTED_KIB: u64 = 12 << 20;
    let available = fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    if available.is_some_and(|available| available >= WANTED_KIB) {
        2
    } else {
        1
    }
}

/// Boots the kernel, runs the command and returns its exit status; `line` sees each line that it prints.
///
/// # Errors
/// When the machine cannot be started, does not end in time, or its kernel complained.
pub fn run(job: &Job, mut line: impl FnMut(&str)) -> Result<i32> {
    let image = {
        // apt serves one at a time, and what one has fetched the next need not.
        static FETCHING: Mutex<()> = Mutex::new(());
        let _alone = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
        packages::ensure("the virtual machines", packages::TEST)?;
        kernel::image(job.kernel)?
    };
    let machine = job.parameter.unwrap_or("plain");
    let machine = machine.split('=').next().unwrap_or_default();
    let directory = root::target()
        .join("vm")
        .join(format!("run-{}-{machine}", job.kernel.name()));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let initramfs = directory.join("initramfs.cpio");
    let mut variables = job.variables.clone();
    if let Some(enforcer) = &job.enforcer {
        variables.push(("ENFORCER_BIN", enforcer.into()));
    }
    let content = guest::Content {
        executables: job.executables.clone(),
        directories: guest::directories(),
        enforcer: job.enforcer.clone(),
        command: guest::script(&job.directory, &variables, &job.words),
        limit: job.timeout,
    };
    guest::write(&initramfs, &image, &content)?;
    let console = directory.join("console.log");
    let mut attempt = 1;
    let (booted, complaint) = loop {
        let mut up = false;
        let booted = boot(
            job,
            &image.vmlinuz(),
            &initramfs,
            &console,
            &mut line,
            &mut up,
        );
        let complaint = complaint(&console);
        match &complaint {
            Some(complaint) if !up && attempt < BOOTS => {
                note(&format!(
                    "the kernel fell over before it was up: {complaint}; booting it once more"
                ));
                attempt += 1;
            }
            _ => break (booted, complaint),
        }
    };
    // Some 120 MB that the next run writes again.
    let _ = fs::remove_file(&initramfs);
    match (booted, complaint) {
        (Ok(status), None) => Ok(status),
        (Ok(_), Some(complaint)) => bail!(
            "the kernel complained: {complaint}; whole console: {}",
            console.display()
        ),
        (Err(error), complaint) => {
            let complaint = complaint
                .map(|line| format!("; the kernel complained: {line}"))
                .unwrap_or_default();
            bail!(
                "{error:#}{complaint}\nlast lines of {}:\n{}",
                console.display(),
                tail(&console)
            )
        }
    }
}

fn boot(
    job: &Job,
    vmlinuz: &Path,
    initramfs: &Path,
    console: &Path,
    mut said: impl FnMut(&str),
    up: &mut bool,
) -> Result<i32> {
    let mut qemu = command("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-M",
        "q35",
        "-smp",
        "2",
        "-m",
        "4G",
    ]);
    qemu.args(accelerator());
    qemu.arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initramfs);
    // The kernel has the first serial line for itself, so that it cannot tear the command's lines.
    let line = format!(
        "console=ttyS0 loglevel=6 panic=-1 {}",
        job.parameter.unwrap_or_default()
    );
    qemu.args(["-append", line.trim_end()]);
    qemu.arg("-serial")
        .arg(serial_file(console))
        .args(["-serial", "stdio"]);
    qemu.stdin(std::process::Stdio::null());
    let started = Instant::now();
    let mut status = None;
    let mut booted = None;
    let mut trouble = None;
    let end = stream::lines(&mut qemu, job.timeout, |text| {
        if let Some(text) = text.strip_prefix(EXIT) {
            status = text.trim().parse().ok();
        } else if let Some(release) = text.strip_prefix(START) {
            booted = Some(release.trim().to_owned());
            *up = true;
            note(&format!(
                "kernel {} is up after {:.1} s",
                release.trim(),
                started.elapsed().as_secs_f32()
            ));
        } else if let Some(text) = text.strip_prefix(ERROR) {
            trouble = Some(text.to_owned());
        } else {
            said(text);
        }
    })?;
    if let Some(trouble) = trouble {
        bail!("the guest could not be set up: {trouble}");
    }
    match (end, status) {
        (End::TimedOut, _) if booted.is_none() => bail!(
            "the kernel did not come up within {} s",
            job.timeout.as_secs()
        ),
        (End::TimedOut, _) => bail!("the command did not end within {} s", job.timeout.as_secs()),
        (End::Exited(_), Some(status)) => Ok(status),
        (End::Exited(qemu), None) => {
            bail!("the machine stopped before the command ended (qemu: {qemu})")
        }
    }
}

/// KVM where the processor's own virtualization is there, else qemu's translation: some hosts have a `/dev/kvm` that cannot
/// run an ordinary kernel. One thread for both of the machine's processors: where each has one of its own, a processor now
/// and then executes an instruction that the kernel is just patching (an attachment to a tracepoint does that), and the
/// kernel dies of it. Two machines at a time keep two cores busy all the same. Without fast `rep movsb` and `rep stosb`: a
/// translated one goes byte by byte, and the kernel would clear and copy every page that way.
fn accelerator() -> [&'static str; 4] {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualization = flags
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if virtualization && device {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm"]
    }
}

fn serial_file(console: &Path) -> OsString {
    let mut file = OsString::from("file:");
    file.push(console);
    file
}

/// The first line in which the kernel wrote of a bug.
fn complaint(console: &Path) -> Option<String> {
    let text = fs::read(console).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .find(|line| is_trouble(line))
        .map(|line| line.trim().to_owned())
}

fn is_trouble(line: &str) -> bool {
    TROUBLE.iter().any(|trouble| line.contains(trouble))
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// `cargo xtask vm`: one command, or a look round, on one kernel or on all.
///
/// # Errors
/// When a machine fails or the command ends with another status than 0.
pub fn shell(
    kernels: &[Kernel],
    parameter: Option<&'static str>,
    words: &[OsString],
    timeout: Duration,
    executables: &[PathBuf],
) -> Result<()> {
    let enforcer = root::target().join("release/enforcer");
    let enforcer = enforcer.is_file().then_some(enforcer);
    let look_round = "uname -r; bash --version | head -n 1; git --version; cat /sys/kernel/security/lsm; echo; \
                      python3 -c 'import ctypes, json, socket, sys; print(\"python\", sys.version.split()[0])'";
    let words = if words.is_empty() {
        ["bash", "-ec", look_round].map(OsString::from).to_vec()
    } else {
        words.to_vec()
    };
    for &kernel in kernels {
        step(&format!(
            "Virtual machine with Debian's kernel {}",
            kernel.name()
        ));
        let job = Job {
            kernel,
            parameter,
            executables: executables.to_vec(),
            enforcer: enforcer.clone(),
            variables: Vec::new(),
            directory: root::repository().join("tests"),
            words: words.clone(),
            timeout,
        };
        let status = run(&job, |text| println!("{text}"))?;
        if status != 0 {
            bail!(
                "the command ended with status {status} on kernel {}",
                kernel.name()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_in_trouble_is_an_error() {
        assert!(is_trouble(
            "[    3.1] WARNING: CPU: 0 PID: 1 at kernel/bpf/core.c:1"
        ));
        assert!(is_trouble("[    3.1] BUG: kernel NULL pointer dereference"));
        assert!(!is_trouble(
            "[    0.0] clocksource: Marking clocksource 'tsc' as unstable"
        ));
    }
}
