//! `enforcer doctor`: what this kernel gives, found by really loading.

use enforcer_common::load::Settings;
use serde::Serialize;

use crate::{
    kernel::{
        attach::{BPF_ROOT, bpf_mounted},
        object::{self, CORE, Hook, LSM, Sizes},
        offsets, unix_hooks,
    },
    launch::CgroupRoot,
};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// Whether enforcement needs it.
    pub required: bool,
    /// What was found, or why it is missing and how to mend that.
    pub detail: String,
}

/// How much of the enforcement this machine gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Denied execs and connects fail with an errno; the kill stands behind.
    Full,
    /// Denied execs are killed before their first instruction; denied connects fail with an errno.
    Partial,
    /// Nothing can be enforced.
    None,
}

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The running kernel.
    pub kernel: String,
    /// What can be enforced.
    pub enforcement: Verdict,
    /// What was looked at.
    pub checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &str, required: bool, result: Result<String, String>) -> bool {
        let ok = result.is_ok();
        self.checks.push(Check {
            name: name.to_owned(),
            ok,
            required,
            detail: result.unwrap_or_else(|error| error),
        });
        ok
    }
}

/// Looks at everything. Loads programs, attaches none, leaves nothing behind.
pub fn examine() -> Report {
    let mut report = Report {
        kernel: nix::sys::utsname::uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        ),
        enforcement: Verdict::None,
        checks: Vec::new(),
    };
    let root = nix::unistd::geteuid().is_root();
    report.add(
        "privilege",
        true,
        if root {
            Ok("root".to_owned())
        } else {
            Err("not root, so nothing can be loaded; run it with sudo".to_owned())
        },
    );
    report.add(
        "cgroup v2",
        true,
        CgroupRoot::find()
            .map(|root| root.path().display().to_string())
            .map_err(|error| error.to_string()),
    );
    report.add("BPF file system", true, bpf_file_system());
    let offsets = offsets::running_kernel();
    report.add(
        "kernel types (BTF)",
        true,
        offsets
            .as_ref()
            .map(|_| offsets::VMLINUX.to_owned())
            .map_err(ToString::to_string),
    );
    if let (Ok(offsets), true) = (&offsets, root) {
        programs(&mut report, offsets);
    }
    let needed = report
        .checks
        .iter()
        .all(|check| check.ok || !check.required);
    let lsm = LSM.iter().all(|spec| {
        let name = hook_name(spec.hook);
        report
            .checks
            .iter()
            .any(|check| check.ok && check.name == name)
    });
    report.enforcement = match (needed && root, lsm) {
        (false, _) => Verdict::None,
        (true, false) => Verdict::Partial,
        (true, true) => Verdict::Full,
    };
    report
}

fn hook_name(hook: Hook) -> String {
    match hook {
        Hook::Tracepoint(name) => format!("tp_btf/{name}"),
        Hook::Lsm(name) => format!("lsm/{name}"),
        Hook::SocketAddress => "cgroup/socket address".to_owned(),
        Hook::SocketCreate => "cgroup/sock_create".to_owned(),
        Hook::PacketOut => "cgroup_skb/egress".to_owned(),
    }
}

fn programs(report: &mut Report, offsets: &enforcer_common::load::Offsets) {
    let types = match object::kernel_types() {
        Ok(types) => types,
        Err(error) => {
            report.add("kernel programs", true, Err(error.to_string()));
            return;
        }
    };
    let sizes = Sizes {
        slots: 1,
        segments: 1,
        heads: 1,
        connects: 1,
        ring_bytes: 1 << 16,
    };
    let mut ebpf = match object::load(offsets, &Settings::ZERO, sizes) {
        Ok(ebpf) => {
            report.add("maps and ring buffer", true, Ok("created".to_owned()));
            ebpf
        }
        Err(error) => {
            report.add("maps and ring buffer", true, Err(error.to_string()));
            return;
        }
    };
    for (spec, required) in CORE
        .iter()
        .map(|spec| (*spec, true))
        .chain(LSM.iter().map(|spec| (*spec, false)))
    {
        let result = object::load_program(&mut ebpf, spec, &types)
            .map(|verified| format!("{}: loads, {verified} instructions verified", spec.name))
            .map_err(|error| match (required, spec.name) {
                (true, _) => error.to_string(),
                (false, "exec_check") => {
                    format!("{error}; denied execs are killed instead of failing with an errno")
                }
                (false, "socket_connect") => {
                    format!("{error}; the programs on the agent's cgroup judge connects alone")
                }
                (false, "unix_stream_connect" | "unix_may_send") => {
                    format!("{error}; unix sockets are judged by the name of the call")
                }
                (false, _) => {
                    format!("{error}; the kernel's own rules alone guard processes outside")
                }
            });
        let name = match spec.hook {
            Hook::SocketAddress => format!("cgroup/{}", spec.name),
            hook => hook_name(hook),
        };
        report.add(&name, required, result);
    }
    let absent = |reason: String| ("unix_connect", Err(reason));
    let checks = match unix_hooks::load(&ebpf, offsets) {
        Ok(Some(programs)) => programs
            .iter()
            .map(|program| {
                let verified = program.verified_instructions().unwrap_or(0);
                let text = format!("{}: loads, {verified} instructions verified", program.name);
                (program.name, Ok(text))
            })
            .collect(),
        Ok(None) => vec![absent(
            "the kernel has no such hook (Linux 6.7 has)".to_owned(),
        )],
        Err(error) => vec![absent(error.to_string())],
    };
    for (name, result) in checks {
        report.add(&format!("cgroup/{name}"), false, result);
    }
}

fn bpf_file_system() -> Result<String, String> {
    match bpf_mounted() {
        Ok(true) => Ok(BPF_ROOT.to_owned()),
        Ok(false) if std::path::Path::new(BPF_ROOT).is_dir() => {
            Ok(format!("{BPF_ROOT} (`enforcer run` mounts it)"))
        }
        Ok(false) => Err(format!(
            "{BPF_ROOT} does not exist; boot a kernel with CONFIG_BPF_SYSCALL"
        )),
        Err(error) => Err(format!("/proc/self/mounts cannot be read: {error}")),
    }
}
