//! Loading the object: constants, map sizes, programs.

use std::{
    io,
    thread::{self, ScopedJoinHandle},
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{BtfTracePoint, CgroupSkb, CgroupSock, CgroupSockAddr, Lsm, Program, ProgramError},
    util::nr_cpus,
};
use aya_log::Level;
use enforcer_common::load::{LoadSettings, Offsets, SCRATCH_LEVELS};

use super::KernelError;

/// The compiled kernel programs.
pub(super) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer.bpf.o"));

/// A kernel hook that one of our programs sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A BTF tracepoint, by name.
    Tracepoint(&'static str),
    /// An LSM hook, by name.
    Lsm(&'static str),
    /// A cgroup hook on socket addresses.
    SocketAddress,
    /// A cgroup hook on socket creation.
    SocketCreate,
    /// A cgroup hook on packets that leave.
    PacketOut,
}

/// One of our programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSpec {
    /// Its name in the object.
    pub name: &'static str,
    /// Where it sits.
    pub hook: Hook,
}

const fn program(name: &'static str, hook: Hook) -> ProgramSpec {
    ProgramSpec { name, hook }
}

/// The programs without which nothing is enforced.
pub const CORE: [ProgramSpec; 9] = [
    program("exec_committed", Hook::Tracepoint("sched_process_exec")),
    program("task_forked", Hook::Tracepoint("sched_process_fork")),
    program("cgroup_attached", Hook::Tracepoint("cgroup_attach_task")),
    program("connect4", Hook::SocketAddress),
    program("connect6", Hook::SocketAddress),
    program("sendmsg4", Hook::SocketAddress),
    program("sendmsg6", Hook::SocketAddress),
    program("sock_create", Hook::SocketCreate),
    program("packet_out", Hook::PacketOut),
];

/// The programs that only some kernels load.
pub const LSM: [ProgramSpec; 6] = [
    program("exec_check", Hook::Lsm("bprm_check_security")),
    program("socket_connect", Hook::Lsm("socket_connect")),
    program("unix_stream_connect", Hook::Lsm("unix_stream_connect")),
    program("unix_may_send", Hook::Lsm("unix_may_send")),
    program("ptrace_access_check", Hook::Lsm("ptrace_access_check")),
    program("task_kill", Hook::Lsm("task_kill")),
];

/// Whether the programs are to say what they do: `ENFORCER_LOG=enforcer::kernel=debug` (or wider).
pub fn diagnostics() -> bool {
    tracing::enabled!(target: "enforcer::kernel", tracing::Level::DEBUG)
}

/// Reads the kernel's types, for programs that attach by them.
///
/// # Errors
///
/// The kernel shows none.
pub fn kernel_types() -> Result<Btf, KernelError> {
    Btf::from_sys_fs().map_err(|_| KernelError::MalformedBtf)
}

/// Creates the maps and relocates the programs; nothing is in force yet.
///
/// The loader reads the kernel's types once more for itself.
///
/// # Errors
///
/// The kernel refuses a map (no privilege, no ring buffer, no memory).
pub fn load(offsets: &Offsets, settings: &LoadSettings) -> Result<Ebpf, KernelError> {
    let log_level: u8 = if diagnostics() { Level::Debug as u8 } else { 0 };
    EbpfLoader::new()
        .override_global("OFFSETS", offsets, true)
        .override_global("SETTINGS", settings, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("SCRATCH", possible_cpus()? * SCRATCH_LEVELS)
        // Marks, task storage maps: user space never touches them.
        .allow_unsupported_maps()
        .load(OBJECT)
        .map_err(|error| KernelError::Object(chain(&error)))
}

fn possible_cpus() -> Result<u32, KernelError> {
    nr_cpus()
        .ok()
        .and_then(|count| u32::try_from(count).ok())
        .ok_or_else(|| KernelError::map("SCRATCH", "the number of CPUs cannot be read from /sys"))
}

/// Has the verifier check one program and the kernel keep it. Gives the number of instructions that the verifier
/// walked.
///
/// # Errors
///
/// The kernel refuses it; the error carries the end of the verifier's log, never all of it.
pub fn load_program(ebpf: &mut Ebpf, spec: ProgramSpec, types: &Btf) -> Result<u32, KernelError> {
    let program = ebpf
        .program_mut(spec.name)
        .ok_or_else(|| absent(spec.name))?;
    verify(program, spec, types)
}

/// [`load_program`] for many, each on a thread of its own: the verifier takes its time, on one processor each.
/// The results are in the order of `specs`.
pub fn load_programs(
    ebpf: &mut Ebpf,
    specs: &[ProgramSpec],
    types: &Btf,
) -> Vec<Result<u32, KernelError>> {
    let mut programs: Vec<(&str, &mut Program)> = ebpf.programs_mut().collect();
    thread::scope(|scope| {
        let threads: Vec<_> = specs
            .iter()
            .map(|spec| {
                let at = programs.iter().position(|(name, _)| *name == spec.name)?;
                let (_, program) = programs.swap_remove(at);
                Some(scope.spawn(move || verify(program, *spec, types)))
            })
            .collect();
        specs
            .iter()
            .zip(threads)
            .map(|(spec, thread)| match thread.map(ScopedJoinHandle::join) {
                Some(Ok(result)) => result,
                Some(Err(_)) => Err(refused(spec.name, "its loader panicked".to_owned())),
                None => Err(absent(spec.name)),
            })
            .collect()
    })
}

fn refused(program: &'static str, reason: String) -> KernelError {
    KernelError::Program { program, reason }
}

fn absent(program: &'static str) -> KernelError {
    refused(program, "it is not in the object".to_owned())
}

fn verify(program: &mut Program, spec: ProgramSpec, types: &Btf) -> Result<u32, KernelError> {
    let loaded = match spec.hook {
        Hook::Tracepoint(name) => <&mut BtfTracePoint>::try_from(&mut *program)
            .and_then(|program| program.load(name, types)),
        Hook::Lsm(name) => {
            <&mut Lsm>::try_from(&mut *program).and_then(|program| program.load(name, types))
        }
        Hook::SocketAddress => {
            <&mut CgroupSockAddr>::try_from(&mut *program).and_then(CgroupSockAddr::load)
        }
        Hook::PacketOut => <&mut CgroupSkb>::try_from(&mut *program).and_then(CgroupSkb::load),
        Hook::SocketCreate => <&mut CgroupSock>::try_from(&mut *program).and_then(CgroupSock::load),
    };
    loaded.map_err(|error| refused(spec.name, explain(&error)))?;
    Ok(verified_instructions(program).unwrap_or(0))
}

/// How many instructions the verifier walked for a loaded program (kernels from 5.16 say so).
fn verified_instructions(program: &Program) -> Option<u32> {
    program.info().ok()?.verified_instruction_count()
}

fn explain(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => last_lines(io_error, &verifier_log.to_string()),
        error => chain(error),
    }
}

/// An error of loading a program, with the end of the verifier's log, never all of it.
pub(super) fn last_lines(error: &io::Error, log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return error.to_string();
    }
    let end = lines.len().saturating_sub(12);
    format!(
        "{error}; the verifier's last lines:\n  {}",
        lines[end..].join("\n  ")
    )
}

/// An error with its causes, joined by colons.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{offsets, unix_hooks};

    /// Upper bound for one program; the kernel gives up at 1,000,000.
    const VERIFIED_MAX: u32 = 40_000;

    #[test]
    fn the_verifier_accepts_every_program_within_budget() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: loading programs needs root");
            return;
        }
        let types = kernel_types().unwrap();
        let settings = LoadSettings { agent_level: 2 };
        let mut ebpf = load(&offsets::running_kernel().unwrap(), &settings).unwrap();
        for spec in CORE {
            let verified = load_program(&mut ebpf, spec, &types).unwrap_or_else(|e| panic!("{e}"));
            println!("{}: {verified} instructions verified", spec.name);
            assert!(verified > 0 && verified <= VERIFIED_MAX, "{}", spec.name);
        }
        if let Some(programs) =
            unix_hooks::load(&ebpf, &offsets::running_kernel().unwrap()).unwrap()
        {
            for program in &programs {
                let verified = program.verified_instructions().unwrap();
                println!("{}: {verified} instructions verified", program.name);
                assert!(verified > 0 && verified <= VERIFIED_MAX, "{}", program.name);
            }
        } else {
            eprintln!("SKIPPED: no cgroup hooks for unix sockets");
        }
        for spec in LSM {
            match load_program(&mut ebpf, spec, &types) {
                Ok(verified) => {
                    println!("{}: {verified} instructions verified", spec.name);
                    assert!(verified > 0 && verified <= VERIFIED_MAX, "{}", spec.name);
                }
                Err(error) => {
                    // A kernel without BPF LSM refuses before the verifier looks: there is no log.
                    let text = error.to_string();
                    assert!(!text.contains("verifier"), "{text}");
                    eprintln!("SKIPPED: {text}");
                }
            }
        }
    }
}
