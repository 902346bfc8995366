//! `enforcer doctor`: what this kernel gives, found by really attempting what must be refused.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use enforcer_agent::{
    AgentError, Enforcement, FirstJudgement, InForce,
    enforcement::{Basis, Machine},
    selftest,
};
use enforcer_files::directories;
use enforcer_kernel::{
    attach::{BPF_ROOT, bpf_mounted},
    instance::{Instance, Types, UNIX_HOOKS, UnixJudgement},
    object::{Hook, LSM, ProgramSpec},
    offsets,
};
use enforcer_launch::{
    AgentCgroup, CgroupRoot, DEFAULT_PIDS_MAX, LandlockDomain, LandlockLevel, LaunchError, Probe,
};
use enforcer_say::say;
use enforcer_seccomp::Support;

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

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// The running kernel.
    pub kernel: String,
    /// What can be enforced: `full`, `partial`, or `none` where nothing can start.
    pub enforcement: &'static str,
    /// Where `run` would judge execs first; unknown where no program could be loaded.
    pub first_judgement: Option<FirstJudgements>,
    /// How much keeps an agent from processes outside: `full`, `partial` or `none`.
    pub landlock: &'static str,
    /// What would be in force for an agent; nothing where none can start.
    pub runs: Option<Runs>,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// What would be in force for an ordinary user's agent, in a run without options.
#[derive(Clone, Debug, Serialize)]
pub struct Runs {
    /// Under a policy that asks nobody.
    pub plain: Enforcement,
    /// Under one that asks about execs.
    pub asking: Enforcement,
}

/// Where execs are judged first, in words.
#[derive(Clone, Debug, Serialize)]
pub struct FirstJudgements {
    /// Under a policy that asks nobody.
    pub plain: &'static str,
    /// Under one that asks about execs.
    pub asking: &'static str,
}

impl DoctorReport {
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

/// Looks at everything, and attempts what must be refused: attaches programs for as long as that takes, and leaves nothing
/// behind.
pub fn examine() -> DoctorReport {
    let mut report = DoctorReport {
        kernel: nix::sys::utsname::uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        ),
        enforcement: "none",
        first_judgement: None,
        landlock: "none",
        runs: None,
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
    let cgroups = CgroupRoot::find();
    report.add(
        "cgroup v2",
        true,
        cgroups
            .as_ref()
            .map(|root| root.path().display().to_string())
            .map_err(ToString::to_string),
    );
    report.add("BPF file system", true, bpf_file_system());
    report.add(
        "directories",
        true,
        directories::look(&[
            directories::STATE,
            directories::TRAILS,
            directories::RUNNING,
        ])
        .map_err(|error| error.to_string()),
    );
    let types = Types::read();
    let readable = types.is_ok();
    report.add(
        "kernel types (BTF)",
        true,
        types
            .map(|_| offsets::VMLINUX.to_owned())
            .map_err(|error| error.to_string()),
    );
    let domain = LandlockDomain::probe(false);
    let mut machine = None;
    if let (true, Ok(cgroups), true) = (readable, &cgroups, root) {
        machine = programs(&mut report, cgroups, &domain);
    }
    notification(&mut report);
    let runs = machine.and_then(|machine| Runs::of(&Basis::plain(machine)));
    report_landlock(&mut report, &domain, runs.as_ref());
    let needed = report
        .checks
        .iter()
        .all(|check| check.ok || !check.required);
    if let Some(runs) = runs {
        let unix = runs.plain.unix_sockets;
        let described = unix.describe().to_owned();
        report.add(
            "unix sockets",
            false,
            if unix.in_kernel() {
                Ok(described)
            } else {
                Err(described)
            },
        );
        if needed {
            report.enforcement = runs.plain.level.as_str();
            report.first_judgement = Some(runs.first_judgements());
            report.runs = Some(runs);
        }
    }
    report
}

impl Runs {
    fn of(basis: &Basis) -> Option<Self> {
        let under = |text| {
            let policy = enforcer_policy::parse(text).ok()?.policy;
            let first = FirstJudgement::choose(&policy, basis.means);
            Some(basis.enforcement(&policy, first, false, &[]))
        };
        Some(Self {
            plain: under(SILENT)?,
            asking: under(ASKING)?,
        })
    }

    fn first_judgements(&self) -> FirstJudgements {
        FirstJudgements {
            plain: self.plain.first_judgement.describe(),
            asking: self.asking.first_judgement.describe(),
        }
    }
}

/// What the supervisor needs, tried on a thread.
fn notification(report: &mut DoctorReport) {
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

/// What the self-test saw of it; without a self-test, what the kernel claims.
fn report_landlock(report: &mut DoctorReport, domain: &LandlockDomain, runs: Option<&Runs>) {
    let (level, why) = runs.map_or_else(
        || (domain.level, domain.why.clone()),
        |runs| {
            let outside = &runs.plain.processes_outside;
            (outside.level(), outside.to_string())
        },
    );
    let (word, result) = match level {
        LandlockLevel::None => ("none", Err(why)),
        LandlockLevel::Partial => ("partial", Ok(format!("partial: {why}"))),
        LandlockLevel::Full => ("full", Ok(format!("full: {why}"))),
    };
    report.landlock = word;
    report.add("processes outside", false, result);
}

fn hook_name(spec: ProgramSpec) -> String {
    match spec.hook {
        Hook::Tracepoint(name) => format!("tp_btf/{name}"),
        Hook::Lsm(name) => format!("lsm/{name}"),
        Hook::SocketAddress => format!("cgroup/{}", spec.name),
        Hook::SocketCreate => "cgroup/sock_create".to_owned(),
        Hook::PacketOut => "cgroup_skb/egress".to_owned(),
    }
}

/// Loads every program and has the self-test say what is in force; `None` if nothing may call itself enforcing.
fn programs(
    report: &mut DoctorReport,
    cgroups: &CgroupRoot,
    domain: &LandlockDomain,
) -> Option<Machine> {
    let proven = Place::new(cgroups)
        .map_err(AgentError::from)
        .and_then(|place| {
            let mut instance = Instance::load(place.cgroup.level())?;
            let proven = selftest::prove(&mut instance, place.cgroup.path(), domain);
            Ok((instance, proven, place.cgroup.limit_pids(DEFAULT_PIDS_MAX)))
        });
    let (instance, proven, process_limit) = match proven {
        Ok(proven) => proven,
        Err(error) => {
            report.add("kernel programs", true, Err(error.whole()));
            return None;
        }
    };
    report.add("maps and ring buffer", true, Ok("created".to_owned()));
    let in_force = proven.as_ref().ok();
    for program in instance.loaded() {
        let name = program.spec.name;
        let optional = LSM.contains(&program.spec);
        let result = match &program.verified {
            Err(error) => Err(format!("{error}; {}", without(name))),
            Ok(_) if optional && in_force.is_some_and(|seen| !seen.has(name)) => Err(format!(
                "{name}: loads, and did not refuse anything when it was tried (is bpf in the kernel's lsm= parameter?); {}",
                without(name)
            )),
            Ok(verified) => Ok(program_line(name, optional, in_force, *verified)),
        };
        report.add(&hook_name(program.spec), !optional, result);
    }
    if instance.lsm_inactive() {
        for spec in LSM {
            report.add(
                &hook_name(spec),
                false,
                Err(format!(
                    "{}: the kernel runs no LSM programs (bpf is not in its lsm= parameter); {}",
                    spec.name,
                    without(spec.name)
                )),
            );
        }
    }
    for (name, result) in unix_programs(&instance, in_force) {
        report.add(&format!("cgroup/{name}"), false, result);
    }
    report.add(
        "self-test",
        true,
        proven
            .as_ref()
            .map(|_| "what must be refused was refused".to_owned())
            .map_err(AgentError::whole),
    );
    Some(Machine {
        in_force: proven.ok()?,
        domain: domain.clone(),
        process_limit,
    })
}

/// A program that is there.
fn program_line(name: &str, tried: bool, in_force: Option<&InForce>, verified: u32) -> String {
    let seen = if tried && in_force.is_some() {
        "refuses"
    } else {
        "loads"
    };
    format!("{name}: {seen}, {verified} instructions verified")
}

/// The cgroup's programs on unix sockets.
fn unix_programs(
    instance: &Instance,
    in_force: Option<&InForce>,
) -> Vec<(&'static str, Result<String, String>)> {
    let absent = |reason: &str| vec![(UNIX_HOOKS[0], Err(reason.to_owned()))];
    match (instance.unix_hooks(), in_force.map(InForce::unix)) {
        (Some(programs), unix) => programs
            .iter()
            .map(|program| {
                let verified = program.verified_instructions().unwrap_or(0);
                let tried = unix == Some(UnixJudgement::Called);
                let line = program_line(program.name, tried, in_force, verified);
                (program.name, Ok(line))
            })
            .collect(),
        (None, Some(UnixJudgement::Bound)) => {
            absent("not needed: the LSM programs judge unix sockets")
        }
        (None, _) => absent("the kernel has no such hook (Linux 6.7 has), or did not call it"),
    }
}

/// What is weaker without a program.
fn without(name: &str) -> &'static str {
    match name {
        "exec_check" => "denied execs are refused by the supervisor, or killed",
        "socket_connect" => "the programs on the agent's cgroup judge connects alone",
        "unix_stream_connect" | "unix_may_send" => {
            "unix sockets are judged by the name of the call, where the kernel has hooks for that"
        }
        "ptrace_access_check" | "task_kill" => {
            "Landlock and the kernel's own rules alone guard processes outside"
        }
        _ => "nothing can be enforced",
    }
}

/// How often a cgroup is made anew that a launcher took for a left-over while it was still empty.
const TRIES: u32 = 20;

/// The cgroup in which things are attempted; taken away when dropped.
struct Place {
    cgroup: AgentCgroup,
    /// Keeps it from being empty: launchers that start take away what is, and has no state.
    sitter: Option<Probe>,
}

impl Place {
    fn new(root: &CgroupRoot) -> Result<Self, LaunchError> {
        let mut tries = 0;
        loop {
            // One process may make several at a time, on threads.
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            let id = format!("doctor-{}-{:08x}.probe", std::process::id(), now as u32);
            let cgroup = AgentCgroup::create(root, &id)?;
            tries += 1;
            match Probe::start(cgroup.path(), None) {
                Ok(sitter) => {
                    return Ok(Self {
                        cgroup,
                        sitter: Some(sitter),
                    });
                }
                Err(_) if tries < TRIES && !cgroup.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sitter = None;
        if let Err(error) = self.cgroup.remove() {
            say!("enforcer: {error}");
        }
    }
}

fn bpf_file_system() -> Result<String, String> {
    match bpf_mounted() {
        Ok(true) => Ok(BPF_ROOT.to_owned()),
        Ok(false) => Ok(format!("{BPF_ROOT} (`enforcer run` mounts it)")),
        Err(error) => Err(error.to_string()),
    }
}
