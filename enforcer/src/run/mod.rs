//! `enforcer run`: the composition root that governs one process tree.
//!
//! Order is everything here. The policy is read and compiled before anything is created; the kernel programs
//! are in force, tested and pinned before the agent's process leaves its starting line; and whatever fails on
//! the way takes away what was made so far.

mod consume;
mod leftover;
mod selftest;
mod state;
mod trail;

use std::{
    ffi::OsString,
    io::Read,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::unistd::geteuid;

use tokio::time::{Instant, sleep_until};

use crate::{
    cli::{fault, prove_examples},
    decide::Engine,
    kernel::{
        attach::{PinDir, mount_bpf},
        instance::{Instance, Plan},
    },
    launch::{
        AgentCgroup, CgroupRoot, Child, Confinement, DEFAULT_PIDS_MAX, ExitStatus, Fence, Identity,
        Pending, PidsLimit, Signals, SpawnPlan, Terminal, Watched, current_directory, find_program,
        spawn,
    },
    policy::{Parsed, compile::CompileError},
    policy_file::{self, PolicyFileError},
    seccomp,
};

use consume::Consumer;
use state::State;
use trail::Trail;

/// Where the trail goes unless `--audit` says otherwise.
pub const DEFAULT_AUDIT: &str = "/var/log/enforcer/audit.jsonl";

/// Time between two looks at the events. Being woken for each would cost the agent ten times what judging does;
/// an event after a pause is seen at once, and the kernel wakes nobody for those behind it.
const GATHER: Duration = Duration::from_millis(10);

/// How long killed processes may take to die.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How execs are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDeny {
    /// With EPERM where the kernel loads LSM programs, else by SIGKILL.
    Errno,
    /// Always by SIGKILL.
    Kill,
}

/// How much of the enforcement a kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// Denied execs are killed before their first instruction; denied connects get an errno.
    Partial,
    /// Denied execs get an errno too.
    Full,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// What `run` is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy's file.
    pub policy: PathBuf,
    /// The agent's name.
    pub agent: Option<String>,
    /// Who it runs as.
    pub user: Option<String>,
    /// The trail; `None` for the usual place.
    pub audit: Option<PathBuf>,
    /// How execs are denied.
    pub on_deny: OnDeny,
    /// Refuse to start below this level.
    pub require: Option<Level>,
    /// Leave the tree running, and governed, when the command ends.
    pub keep: bool,
    /// No start line and no summary.
    pub quiet: bool,
    /// The command.
    pub command: Vec<OsString>,
}

/// Governs the command and everything it starts; its exit status.
///
/// # Errors
///
/// Anything that keeps enforcement from being whole. Nothing is left behind then.
#[expect(
    clippy::too_many_lines,
    reason = "one list of steps: what may come before what is easier to see whole"
)]
pub fn run(options: &Options) -> anyhow::Result<u8> {
    if !geteuid().is_root() {
        bail!(
            "enforcer run needs root to load kernel programs; run it with sudo (the command itself runs as the invoking user)"
        );
    }
    let signals = Signals::block()?;
    let identity = Identity::resolve(options.user.as_deref(), |name| std::env::var_os(name))?;
    let directory = current_directory(&identity)?;
    let Some(command) = options.command.first() else {
        bail!("no command; put it after --, as in: enforcer run --policy P -- bash");
    };
    let environment = identity.environment(std::env::vars_os());
    let path = std::env::var_os("PATH");
    let program = find_program(command, path.as_deref(), &directory, &identity)?;

    let loaded = policy_file::load(&options.policy, Some(identity.uid))?;
    for warning in &loaded.parsed.warnings {
        if !options.quiet {
            eprintln!(
                "enforcer: warning: {}",
                warning.in_file(&options.policy.display().to_string())
            );
        }
    }
    let (engine, seed) = compile(&loaded.parsed, &options.policy)?;
    let mut trail = Trail::open(options.audit.as_deref())?;
    let audit = trail.path().to_owned();

    let root = CgroupRoot::find()?;
    mount_bpf()?;
    leftover::clean_up(&root, options.quiet);

    let agent = agent_name(options.agent.as_deref());
    let id = new_id(agent.as_deref())?;
    let mut scene = Scene::new(&id);
    let state = State::create(
        &id,
        &state::Facts {
            agent: agent.clone(),
            audit: audit.clone(),
            seed,
            policy_path: options.policy.clone(),
            policy_text: loaded.parsed.text().to_owned(),
        },
    )?;
    let tally = state.tally();
    scene.state = Some(state);
    let cgroup = AgentCgroup::create(&root, &id)?;
    scene.cgroups.push(cgroup.clone());
    let process_limit = cgroup.limit_pids(DEFAULT_PIDS_MAX);

    let probe = selftest::policy()?;
    let mut instance = Instance::load(&Plan {
        slots: vec![engine.tables(), probe.tables()],
        agent_level: cgroup.level(),
        lsm: options.on_deny == OnDeny::Errno,
    })?;
    let level = if instance.lsm().contains(&"exec_check") {
        Level::Full
    } else {
        Level::Partial
    };
    if let Some(required) = options.require
        && level < required
    {
        bail!(
            "this kernel gives {} enforcement, and --require asks for {}; `enforcer doctor` says why",
            level.as_str(),
            required.as_str()
        );
    }
    let probe_cgroup = AgentCgroup::create(&root, &format!("{id}.probe"))?;
    scene.cgroups.push(probe_cgroup.clone());
    selftest::attempt(&mut instance, &probe_cgroup)?;
    probe_cgroup.remove()?;
    scene.cgroups.pop();

    let links = instance.govern(cgroup.open()?, cgroup.id(), 0)?;
    let confinement = confinement(&identity, &audit, &options.policy, &directory)?;
    let plan = SpawnPlan {
        program,
        argv: options.command.clone(),
        env: environment,
        directory,
        identity: &identity,
        cgroup: &cgroup,
        fence: Fence::probe(false),
        filters: vec![seccomp::Hatches::shipped()?.filter(&[])?],
        confinement: confinement.as_ref(),
    };
    let pending = spawn(&plan)?;
    instance.set_operator(0, pending.pid().as_raw().unsigned_abs())?;
    let pins = PinDir::of(&id);
    pins.create()?;
    scene.pins = Some(pins.clone());
    // The kernel has the tables now.
    let wording = engine.into_wording();
    drop(probe);
    let feed = instance.pin(&pins, links)?;

    if !options.quiet {
        announce(
            options,
            &identity,
            level,
            &audit,
            agent.as_deref(),
            &id,
            &process_limit,
        );
    }
    let mut consumer = Consumer::new(feed, wording, trail.start()?, agent, tally);
    let ended = match supervise(pending, &signals, &mut consumer, &cgroup, options.keep) {
        Ok(ended) => ended,
        Err(error) => {
            consumer.abandon();
            return Err(error);
        }
    };
    if !options.quiet {
        consumer.summary(&audit);
    }
    if options.keep && !cgroup.is_empty()? {
        scene.keep();
        if !options.quiet {
            eprintln!(
                "enforcer: agent {id} goes on under its policy; the next `enforcer run` writes its buffered events and takes it down once it is empty"
            );
        }
    }
    Ok(ended.code())
}

/// Compiles the policy under a fresh secret seed and proves its examples.
fn compile(parsed: &Parsed, file: &Path) -> anyhow::Result<(Engine, u64)> {
    let refuse = |errors| PolicyFileError::Invalid {
        path: file.display().to_string(),
        errors,
    };
    for _ in 0..8 {
        let seed = random()?;
        match Engine::new(parsed.policy.clone(), seed) {
            Ok(engine) => {
                let errors = prove_examples(parsed);
                if errors.is_empty() {
                    return Ok((engine, seed));
                }
                return Err(refuse(errors).into());
            }
            // Two names with one hash under this seed: another seed tells them apart.
            Err(CompileError::Collision { .. }) => {}
            Err(error) => return Err(refuse(vec![fault(parsed, &error)]).into()),
        }
    }
    bail!("no seed tells the policy's program names apart; report this as a defect")
}

/// A secret number from the kernel.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom cannot be read")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The agent's name: the option, else the launcher's `CLAUDE_AGENT_NAME`; trimmed, control characters removed.
fn agent_name(option: Option<&str>) -> Option<String> {
    let name = match option {
        Some(name) => name.to_owned(),
        None => std::env::var("CLAUDE_AGENT_NAME").unwrap_or_default(),
    };
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then_some(name)
}

/// A new name for the agent's cgroup, pins and state.
fn new_id(agent: Option<&str>) -> anyhow::Result<String> {
    let stem: String = agent
        .unwrap_or("agent")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(24)
        .collect();
    let random = random()? & 0xffff_ffff;
    Ok(format!("{stem}-{}-{random:08x}", process::id()))
}

/// What is hidden from an agent with uid 0: the trail, the policy's directory is read-only.
fn confinement(
    identity: &Identity,
    audit: &Path,
    policy: &Path,
    directory: &Path,
) -> anyhow::Result<Option<Confinement>> {
    if !identity.is_root() {
        return Ok(None);
    }
    let mut hide = vec![PathBuf::from(state::STATE_ROOT)];
    // The usual place holds nothing but trails; another place may be a directory that the agent works in.
    if audit.starts_with("/var/log/enforcer") {
        hide.push(PathBuf::from("/var/log/enforcer"));
    } else {
        hide.push(audit.to_owned());
    }
    let policy = std::fs::canonicalize(policy).context("the policy's path cannot be resolved")?;
    Ok(Some(Confinement::plan(&hide, &[policy], directory)?))
}

fn announce(
    options: &Options,
    identity: &Identity,
    level: Level,
    audit: &Path,
    agent: Option<&str>,
    id: &str,
    process_limit: &PidsLimit,
) {
    let execs = match (level, options.on_deny) {
        (Level::Full, _) => "denied execs fail with EPERM",
        (Level::Partial, OnDeny::Kill) => "denied execs are killed before their first instruction",
        (Level::Partial, OnDeny::Errno) => {
            "denied execs are killed before their first instruction (this kernel loads no LSM programs)"
        }
    };
    eprintln!(
        "enforcer: enforcing ({}): {execs}; denied connects fail with EPERM",
        level.as_str()
    );
    eprintln!(
        "enforcer: agent {} [{id}] as {}, policy {}, trail {}",
        agent.unwrap_or("unknown"),
        identity.display_name(),
        options.policy.display(),
        audit.display()
    );
    if let PidsLimit::Unavailable(why) = process_limit {
        eprintln!("enforcer: weaker: no limit on the number of processes: {why}");
    }
    for weakness in identity.weaknesses() {
        eprintln!("enforcer: weaker: {weakness}");
    }
}

/// Lets the agent go and records what it does until it has ended.
fn supervise(
    pending: Pending,
    signals: &Signals,
    consumer: &mut Consumer,
    cgroup: &AgentCgroup,
    keep: bool,
) -> anyhow::Result<ExitStatus> {
    let child = match pending.go(Terminal::detect()) {
        Ok(child) => child,
        Err(error) => {
            consumer.drain()?;
            return Err(error.into());
        }
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("the event loop cannot be made")
        .and_then(|runtime| runtime.block_on(watch(child, signals, consumer, cgroup)));
    // Whatever went wrong, the tree does not outlive its record.
    if ended.is_err() || !keep {
        cgroup.kill_all(KILL_PATIENCE)?;
    }
    let ended = ended?;
    for escaped in consumer.finish()? {
        // Its mover may have been the command itself, which ended before this event was read.
        leftover::kill_process(escaped, Some(cgroup));
    }
    Ok(ended)
}

/// Runs until the agent's first process has ended.
///
/// One thread, three descriptors: the agent may stop this process with itself (Ctrl-Z), so nothing else may
/// be going on.
async fn watch(
    mut child: Child,
    signals: &Signals,
    consumer: &mut Consumer,
    cgroup: &AgentCgroup,
) -> anyhow::Result<ExitStatus> {
    let watched = |fd: BorrowedFd<'_>| Watched::new(fd).context("a descriptor cannot be watched");
    let events = watched(consumer.fd())?;
    let ended = watched(child.pidfd())?;
    let signalled = watched(signals.fd())?;
    let mut drained = Instant::now();
    let mut due = None;
    loop {
        tokio::select! {
            ready = signalled.readable() => {
                ready?;
                while let Some(received) = signals.next()? {
                    child.on_signal(received);
                }
                if let Some(status) = child.on_change()? {
                    return Ok(status);
                }
            }
            ready = events.readable(), if due.is_none() => {
                ready?;
                due = Some(drained + GATHER);
            }
            () = sleep_until(due.unwrap_or(drained)), if due.is_some() => {
                due = None;
                for escaped in consumer.drain()? {
                    // The kernel has killed whoever moved it; the moved one is ours to kill.
                    leftover::kill_process(escaped, Some(cgroup));
                }
                drained = Instant::now();
            }
            ready = ended.readable() => {
                ready?;
                if let Some(status) = child.on_change()? {
                    return Ok(status);
                }
            }
        }
    }
}

/// What has been made so far; dropped, it is all taken away.
#[derive(Debug)]
struct Scene {
    id: String,
    cgroups: Vec<AgentCgroup>,
    pins: Option<PinDir>,
    state: Option<State>,
    kept: bool,
}

impl Scene {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            cgroups: Vec::new(),
            pins: None,
            state: None,
            kept: false,
        }
    }

    /// Leaves everything in place.
    fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let complain = |what: &dyn std::fmt::Display| {
            eprintln!("enforcer: while cleaning up {}: {what}", self.id);
        };
        for cgroup in &self.cgroups {
            if let Err(error) = cgroup
                .kill_all(KILL_PATIENCE)
                .and_then(|()| cgroup.remove())
            {
                complain(&error);
            }
        }
        if let Some(pins) = &self.pins
            && let Err(error) = pins.remove()
        {
            complain(&error);
        }
        if let Some(state) = self.state.take()
            && let Err(error) = state.remove()
        {
            complain(&error);
        }
    }
}
