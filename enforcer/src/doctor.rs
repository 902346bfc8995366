//! `enforcer doctor`: what this kernel gives, found by really loading.

use enforcer_common::load::Settings;
use serde::Serialize;

use crate::{
    ground,
    kernel::{
        attach::{BPF_ROOT, bpf_mounted},
        instance::UnixJudgement,
        object::{self, CORE, Hook, LSM, Sizes},
        offsets, unix_hooks,
    },
    launch::{CgroupRoot, Fence, FenceLevel},
    policy,
    run::{FirstJudgement, Level, OnDeny},
    seccomp::Support,
};

/// A policy that asks nobody, not even about what the built-in rules ask about, and one that does.
const SILENT: &str = r#"{"version": "2", "exec": {"default": "deny"},
    "connect": {"rules": [{"id": "all", "decision": "deny", "unix": ["*"]}]}}"#;
const ASKING: &str = r#"{"version": "2", "exec": {"default": "ask"}}"#;

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
    /// Where `run` would judge execs first; unknown where no program could be loaded.
    pub first_judgement: Option<FirstJudgements>,
    /// How much keeps an agent from processes outside: `full`, `partial` or `none`.
    pub fence: &'static str,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// Where execs are judged first, in words.
#[derive(Clone, Debug, Serialize)]
pub struct FirstJudgements {
    /// Under a policy that asks nobody.
    pub plain: &'static str,
    /// Under one that asks about execs.
    pub asking: &'static str,
}

/// What loaded of what a machine can do without.
#[derive(Debug)]
struct Loaded {
    lsm: Vec<&'static str>,
    unix_hooks: bool,
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
        first_judgement: None,
        fence: "none",
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
    report.add(
        "directories",
        true,
        ground::look(&[ground::STATE, ground::TRAILS, ground::RUNNING])
            .map_err(|error| error.to_string()),
    );
    let offsets = offsets::running_kernel();
    report.add(
        "kernel types (BTF)",
        true,
        offsets
            .as_ref()
            .map(|_| offsets::VMLINUX.to_owned())
            .map_err(ToString::to_string),
    );
    let mut loaded = None;
    if let (Ok(offsets), true) = (&offsets, root) {
        loaded = programs(&mut report, offsets);
    }
    notification(&mut report);
    fence(&mut report);
    let needed = report
        .checks
        .iter()
        .all(|check| check.ok || !check.required);
    if let Some(Loaded { lsm, unix_hooks }) = loaded {
        let unix = UnixJudgement::of(&lsm, unix_hooks);
        let described = unix.describe().to_owned();
        let judged = unix != UnixJudgement::Absent;
        report.add(
            "unix sockets",
            false,
            if judged {
                Ok(described)
            } else {
                Err(described)
            },
        );
        let level = Level::of(&lsm);
        report.first_judgement = first_judgements(level, unix);
        report.enforcement = match (needed, level) {
            (false, _) => Verdict::None,
            (true, Level::Partial) => Verdict::Partial,
            (true, Level::Full) => Verdict::Full,
        };
    }
    report
}

fn first_judgements(level: Level, unix: UnixJudgement) -> Option<FirstJudgements> {
    let under = |text| {
        let policy = policy::parse(text).ok()?.policy;
        let lsm = level == Level::Full;
        let first = FirstJudgement::choose(&policy, lsm, unix, OnDeny::Errno, false);
        Some(first.describe())
    };
    Some(FirstJudgements {
        plain: under(SILENT)?,
        asking: under(ASKING)?,
    })
}

/// What the supervisor needs, tried on a thread.
fn notification(report: &mut Report) {
    let Support {
        listener,
        wait_killable,
        sync_wake_up,
    } = Support::probe();
    let held = listener.is_ok();
    report.add(
        "seccomp user notification",
        true,
        listener
            .map(|()| "a call was held and answered".to_owned())
            .map_err(|why| format!("{why}; a container's own seccomp profile may forbid it")),
    );
    for (name, required, there, gives, lacks) in [
        (
            "seccomp WAIT_KILLABLE_RECV",
            true,
            wait_killable,
            "signals do not cancel what waits for an answer",
            "the kernel refuses it (Linux 5.19 has it), and nothing that must be held can start",
        ),
        (
            "seccomp SYNC_WAKE_UP",
            false,
            sync_wake_up,
            "answers need no search for a processor",
            "the kernel refuses it (Linux 6.6 has it); answers take longer",
        ),
    ] {
        let result = if held && there { Ok(gives) } else { Err(lacks) };
        report.add(
            name,
            required,
            result.map(str::to_owned).map_err(str::to_owned),
        );
    }
}

fn fence(report: &mut Report) {
    let Fence { level, why, .. } = Fence::probe(false);
    let (word, result) = match level {
        FenceLevel::None => ("none", Err(why)),
        FenceLevel::Partial => ("partial", Ok(format!("partial: {why}"))),
        FenceLevel::Full => ("full", Ok(format!("full: {why}"))),
    };
    report.fence = word;
    report.add("fence (Landlock)", false, result);
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

/// Loads every program; what is optional and loaded, or `None` if not even the maps could be made.
fn programs(report: &mut Report, offsets: &enforcer_common::load::Offsets) -> Option<Loaded> {
    let types = match object::kernel_types() {
        Ok(types) => types,
        Err(error) => {
            report.add("kernel programs", true, Err(error.to_string()));
            return None;
        }
    };
    let sizes = Sizes {
        slots: 1,
        segments: 1,
        heads: 1,
        connects: 1,
        cells: 1,
        ring_bytes: 1 << 16,
    };
    let mut ebpf = match object::load(offsets, &Settings::ZERO, sizes, &[]) {
        Ok(ebpf) => {
            report.add("maps and ring buffer", true, Ok("created".to_owned()));
            ebpf
        }
        Err(error) => {
            report.add("maps and ring buffer", true, Err(error.to_string()));
            return None;
        }
    };
    let mut lsm = Vec::new();
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
        if report.add(&name, required, result) && !required {
            lsm.push(spec.name);
        }
    }
    let absent = |reason: String| ("unix_connect", Err(reason));
    let hooks = unix_hooks::load(&ebpf, offsets);
    let unix_hooks = matches!(hooks, Ok(Some(_)));
    let checks = match hooks {
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
    Some(Loaded { lsm, unix_hooks })
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
