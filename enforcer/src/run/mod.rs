//! `enforcer run`: the composition root that governs one process tree.
//!
//! Order is everything here. The policy is read and compiled before anything is created; the kernel programs
//! are in force, tested and pinned before the agent's process leaves its starting line; and whatever fails on
//! the way takes away what was made so far.

mod addresses;
mod announce;
mod breaker;
mod first;
mod held;
mod hosts;
mod in_force;
mod leftover;
mod limited;
mod lines;
mod listeners;
mod options;
mod own_line;
mod parked;
mod paths;
mod record;
mod refused;
mod retry;
mod scene;
pub mod selftest;
mod serving;
mod state;
pub mod status;
mod subject;
mod supervisor;
mod tell;
mod tools;
mod trail;
mod watch;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, bail};
use enforcer_common::own::Own;
use nix::unistd::geteuid;
use tokio::sync::mpsc;

use crate::{
    approvals::{self, Approvers, DeskHandle, Limits, Rate},
    audit::Stamp,
    cli::{fault, prove_examples, unknown_hatches},
    decide::{Engine, Subject, admit},
    directories,
    ground::Ground,
    kernel::{KernelError, agent::Plan, attach::mount_bpf, host::Held, instance::give_memory_back},
    launch::{
        AgentCgroup, CgroupRoot, Confinement, Connector, DEFAULT_PIDS_MAX, Environment, ExecStops,
        Fence, Identity, OpenFiles, OwnProgram, Signals, SpawnPlan, Teller, current_directory,
        find_program, spawn,
    },
    policy::{self, Parsed},
    policy_file::{self, PolicyFileError},
    say::{self, say},
    seccomp::{Hatches, IPC, Listener, resolve::Roots},
    table_cache::{self, FreshError, TableCache},
};

use announce::Start;
pub use breaker::{Kept, ago};
pub(crate) use first::FirstJudgement;
pub use in_force::InForce;
use listeners::Listeners;
pub use options::{Level, OnDeny, Options};
use record::{Recorder, Source};
use scene::Scene;
use state::State;
use supervisor::{Supervised, Supervisor};
use tell::Telling;
use tools::Tools;
use trail::Trail;
use watch::{Watch, supervise};

/// Where the trail goes unless `--audit` says otherwise.
pub const DEFAULT_AUDIT: &str = "/var/log/enforcer/audit.jsonl";
/// Where requests and their answers are kept.
pub const APPROVALS_DB: &str = approvals::DEFAULT_DB;

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
    let environment = Environment::of(&identity, std::env::vars_os(), &options.env)?;
    for name in &environment.missing {
        say!("enforcer: warning: --env {name}: there is no such variable here");
    }
    let program = find_program(command, environment.get("PATH"), &directory, &identity)?;

    let mut loaded = policy_file::load(&options.policy, Some(identity.uid))?;
    for warning in &loaded.parsed.warnings {
        if !options.quiet {
            say!(
                "enforcer: warning: {}",
                warning.in_file(&options.policy.display().to_string())
            );
        }
    }
    let ground = Ground::of(&identity);
    let untrusted = ground.settle(&mut loaded.parsed.policy);
    let subject = subject::subject(options);
    if let Err(refusal) = admit(&subject, &loaded.parsed.policy) {
        prepare(options)?;
        let trail = Trail::open(options.audit.as_deref(), subject.tenant.as_deref())?;
        let policy = &loaded.parsed.policy;
        return subject::refuse(&refusal, &subject, policy, &options.command, trail);
    }
    give_memory_back();
    let cache = TableCache::new(
        loaded.parsed.text(),
        Some(Path::new(directories::STATE.path)),
    );
    let compiled = compile(&loaded.parsed, &options.policy, &subject, &cache)?;
    let Compiled {
        engine,
        seed,
        fresh,
    } = compiled;
    let types = hosts::types()?;
    prepare(options)?;
    if fresh {
        cache.keep(engine.policy(), engine.capabilities(), engine.tables());
    }
    let mut trail = Trail::open(options.audit.as_deref(), subject.tenant.as_deref())?;
    let audit = trail.path().to_owned();

    let root = CgroupRoot::find()?;
    mount_bpf()?;
    leftover::clean_up(&root, options.quiet);

    let agent = subject.agent.clone();
    let id = new_id(agent.as_deref())?;
    let mut scene = Scene::new(&id);
    let state = State::create(
        &id,
        &state::Facts {
            agent: agent.clone(),
            user: Some(subject.user.clone()),
            tenant: subject.tenant.clone(),
            capabilities: engine.capabilities().clone(),
            observed: options.observe,
            audit: audit.clone(),
            seed,
            policy_path: options.policy.clone(),
            policy_text: loaded.parsed.text().to_owned(),
        },
        &subject,
    )?;
    let tally = state.tally();
    let socket = state.socket();
    scene.state = Some(state);
    let cgroup = AgentCgroup::create(&root, &id)?;
    scene.cgroups.push(cgroup.clone());
    let process_limit = cgroup.limit_pids(DEFAULT_PIDS_MAX);

    let fence = Fence::probe(false);
    let held = Held::wait()?;
    let host = hosts::find_or_load(&held, &root, &id, types, &fence)?;
    let kills = options.on_deny == OnDeny::Kill;
    let in_force = hosts::in_force(&host);
    let in_force = if kills { in_force.killing() } else { in_force };
    let level = in_force.level();
    if let Some(required) = options.require
        && level < required
    {
        bail!(
            "this kernel gives {} enforcement, and --require asks for {}; `enforcer doctor` says why",
            level.as_str(),
            required.as_str()
        );
    }
    let plan = Plan {
        user: Some(&subject.user),
        changer: Some(&ground.changer),
        observed: options.observe,
        kills,
        shared: true,
        ..Plan::new(engine.tables())
    };
    let seated = host.admit(held, &plan, |place| {
        let state = scene.state.as_ref().ok_or_else(|| no_state("it is gone"))?;
        state
            .seat(&host.name(), place)
            .map_err(|error| no_state(&format!("{error:#}")))
    })?;
    scene.agent = Some(seated.clone());
    scene.pins = Some(host.pins(&id));
    host.govern(&seated, &id, cgroup.open()?, cgroup.id())?;
    let policy = engine.policy().clone();
    let first = FirstJudgement::choose(
        &policy,
        in_force.has("exec_check"),
        in_force.unix(),
        options.on_deny,
        options.keep || options.observe,
        !options.quiet,
    );
    let grants = seated.grants()?;
    let limiter = seated.limiter()?;
    // Before anything has threads.
    let connector = if first.connector {
        let connector = Connector::start(&identity, &cgroup)?;
        seated.set_connector(connector.pid().as_raw().unsigned_abs())?;
        Some(connector)
    } else {
        None
    };
    let teller = if options.quiet {
        None
    } else {
        Some(Teller::start(&identity, &cgroup)?)
    };
    // Each process that waits for an answer takes a descriptor of ours.
    let open_files = OpenFiles::present()?;
    if !options.keep {
        open_files.raise()?;
    }
    let confinement = confinement(&identity, &audit, &options.policy, &directory)?;
    let hatches = Hatches::shipped()?;
    let loosened = loosened(&loaded.parsed, &options.policy, hatches, in_force.tracing())?;
    // One filter in either case: only one may have a listener, and each costs every system call.
    let (filters, notify) = if first.supervised() {
        let filter = hatches.filter_with_listener(&loosened, first.notified)?;
        (Vec::new(), Some(filter))
    } else {
        (vec![hatches.filter(&loosened)?], None)
    };
    let plan = SpawnPlan {
        program,
        argv: options.command.clone(),
        env: environment.variables,
        directory,
        identity: &identity,
        cgroup: &cgroup,
        fence: fence.clone(),
        filters,
        notify,
        open_files: Some(open_files),
        confinement: confinement.as_ref(),
        own_ipc: !loosened.iter().any(|group| group == IPC),
    };
    let mut pending = spawn(&plan)?;
    let operator = pending.pid().as_raw().unsigned_abs();
    seated.set_operator(operator)?;
    let own = OwnProgram::find(&identity, &socket);
    seated.set_own(&own.as_ref().map_or(Own::NONE, OwnProgram::own))?;
    let feed = host.feed(&seated)?;
    drop(host);

    let control = Arc::new(breaker::Control {
        id: id.clone(),
        agent: agent.as_deref().unwrap_or(lines::UNNAMED).to_owned(),
        limiter: limiter.clone(),
        recorder: OnceLock::new(),
    });
    let desk = if options.keep {
        None
    } else {
        Some(approvals::serve::start(approvals::Settings {
            db: APPROVALS_DB.into(),
            instance: id.clone(),
            socket,
            approvers: Approvers::resolve(policy.approvals.approvers.as_deref())?,
            agent_uid: identity.uid,
            agent_gids: [&[identity.gid], identity.groups.as_slice()].concat(),
            agent_cgroup: cgroup.membership(),
            limits: limits(&policy.approvals),
            directory: options.approvals_dir.clone(),
            notify: policy.approvals.notify.clone(),
            tools: Some(Arc::new(Tools::new(
                control.clone(),
                tools::Rates {
                    limits: policy.limits,
                    user: subject.user.clone(),
                },
            ))),
            breaker: Some(control.clone()),
        })?)
    };
    // The agent shares our standard error from here on.
    say::from_a_thread();
    let asker = desk.as_ref().map(DeskHandle::asker);
    let telling = Arc::new(Telling::new(teller, asker.clone(), first.notified.exec));
    let wording = engine.wording().clone().for_user(&subject.user);
    let recorder = Recorder::new(
        Source::new(feed, tally),
        wording.clone(),
        trail
            .start()?
            .stamped(Stamp::of(&subject, policy.masking).observed(options.observe)),
        agent.clone(),
        cgroup.id(),
    );
    // Set once: there is nothing there yet.
    let _ = control.recorder.set(recorder.clone());
    // The desk has it; whoever gives up the trail must be the last to hold it.
    drop(control);
    let agent = agent.unwrap_or_else(|| lines::UNNAMED.to_owned());
    if !options.quiet {
        recorder.announce_trips();
        Start {
            options,
            policy: &policy,
            identity: &identity,
            in_force: &in_force,
            first,
            fence: &fence,
            audit: &audit,
            agent: &agent,
            subject: &subject,
            id: &id,
            process_limit: &process_limit,
            own: own.as_ref().err().map(String::as_str),
            untrusted: &untrusted,
        }
        .announce();
    }
    let eyes = listeners::eyes(&identity, &cgroup);
    let (failures, failed) = mpsc::unbounded_channel();
    let supervisor = if let (Some(listener), Some(desk)) = (pending.listener()?, &asker) {
        let listener = Listener::new(listener)?;
        listener.set_sync_wake_up();
        Some(Supervisor::start(Supervised {
            listener,
            engine,
            recorder: recorder.clone(),
            telling: Arc::clone(&telling),
            first,
            grants,
            limiter: limiter.clone(),
            wording,
            desk: desk.clone(),
            timeout: policy.approvals.timeout,
            waiting: policy.approvals.mode,
            stops: ExecStops::default(),
            connector,
            own: own.ok(),
            listeners: Listeners::new(eyes.clone(), cgroup.clone()),
            eyes,
            cgroups: root.clone(),
            roots: roots(&policy),
            loosened,
            agent: agent.clone(),
            changer: ground.changer,
            operator,
            failures,
        })?)
    } else {
        // The kernel has the tables.
        drop(engine);
        None
    };
    let watch = Watch {
        signals: &signals,
        cgroup: &cgroup,
        keep: options.keep,
        failures: failed,
        telling,
    };
    let ended = supervise(pending, watch, &recorder);
    // The tree is gone, so the desk's answers find nobody; what was asked ends as cancelled, in the trail too.
    if let Some(desk) = desk {
        desk.shutdown();
    }
    if let Some(supervisor) = supervisor {
        supervisor.end();
    }
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            recorder.abandon();
            return Err(error);
        }
    };
    if !options.quiet {
        recorder.summary(&audit);
        if let Some(line) = breaker::open_at_the_end(&limiter, &agent) {
            say!("{line}");
        }
    }
    if options.keep && !cgroup.is_empty()? {
        scene.keep();
        if !options.quiet {
            say!(
                "enforcer: agent {id} goes on under its policy; the next `enforcer run` writes its buffered events and takes it down once it is empty"
            );
        }
    }
    Ok(ended.code())
}

/// The agent's place in the kernel cannot be written down, so it does not get one.
fn no_state(why: &str) -> KernelError {
    KernelError::map("SLOTS", format!("the agent's state: {why}"))
}

/// Makes sure of the directories of ours that this run needs, and says what it has done for that.
fn prepare(options: &Options) -> anyhow::Result<()> {
    let mut places = vec![directories::STATE, directories::RUNNING];
    let trail = options.audit.as_deref();
    if trail.is_none_or(|trail| trail.starts_with(directories::TRAILS.path)) {
        places.push(directories::TRAILS);
    }
    if let Some(done) = directories::prepare(&places)?
        && !options.quiet
    {
        say!("enforcer: {done}");
    }
    Ok(())
}

/// The groups of system calls that the agent may use: what the policy allows, and where processes outside cannot be traced
/// (`fenced`) what is about those alone.
fn loosened(
    parsed: &Parsed,
    file: &Path,
    hatches: &Hatches,
    fenced: bool,
) -> anyhow::Result<Vec<String>> {
    let errors = unknown_hatches(parsed);
    if !errors.is_empty() {
        return Err(PolicyFileError::Invalid {
            path: file.display().to_string(),
            errors,
        }
        .into());
    }
    let syscalls = &parsed.policy.syscalls;
    let mut loosened: Vec<String> = syscalls.allow.iter().map(|it| it.name.clone()).collect();
    if fenced {
        let given = hatches
            .open_where_fenced()
            .filter(|name| !syscalls.deny.iter().any(|denied| denied.name == *name));
        loosened.extend(given.map(str::to_owned));
    }
    loosened.sort_unstable();
    loosened.dedup();
    Ok(loosened)
}

/// Whether the agent's processes can have another root directory or mount namespace.
fn roots(policy: &policy::Policy) -> Roots {
    let loosened =
        |hatch: &policy::model::HatchChoice| ["namespaces", "mount"].contains(&hatch.name.as_str());
    if policy.syscalls.allow.iter().any(loosened) {
        Roots::Any
    } else {
        Roots::Fixed
    }
}

/// What the desk puts up with.
fn limits(approvals: &policy::model::Approvals) -> Limits {
    Limits {
        timeout: approvals.timeout,
        rate: Rate {
            count: approvals.rate.0,
            window: approvals.rate.1,
        },
        max_pending: approvals.max_pending as usize,
    }
}

/// A compiled policy.
struct Compiled {
    engine: Engine,
    /// What keys the hashes of its program names.
    seed: u64,
    /// Its tables are not kept yet.
    fresh: bool,
}

/// Takes the policy's tables from where they are kept, else compiles it under a fresh secret seed; proves its examples.
fn compile(
    parsed: &Parsed,
    file: &Path,
    subject: &Subject,
    cache: &TableCache,
) -> anyhow::Result<Compiled> {
    let capabilities = subject.capabilities_under(&parsed.policy);
    let kept = cache.tables(&parsed.policy, &capabilities);
    let fresh = kept.is_none();
    let refuse = |errors| PolicyFileError::Invalid {
        path: file.display().to_string(),
        errors,
    };
    let engine = match kept {
        Some(tables) => Engine::with_tables(parsed.policy.clone(), capabilities, tables),
        None => match table_cache::compiled(&parsed.policy, &capabilities) {
            Err(FreshError::Compile(error)) => {
                return Err(refuse(vec![fault(parsed, &error)]).into());
            }
            made => made?,
        },
    };
    let errors = prove_examples(parsed, Some(&engine));
    if !errors.is_empty() {
        return Err(refuse(errors).into());
    }
    Ok(Compiled {
        seed: engine.tables().header.seed,
        engine,
        fresh,
    })
}

/// A secret number from the kernel.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom cannot be read")?;
    Ok(u64::from_ne_bytes(bytes))
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
        // A cgroup's name begins with a letter or a digit.
        .skip_while(|c| *c == '-')
        .take(24)
        .collect();
    let stem = if stem.is_empty() { "agent" } else { &stem };
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
    hide.push(PathBuf::from(directories::STATE.path));
    // The usual place holds nothing but trails; another place may be a directory that the agent works in.
    if audit.starts_with(directories::TRAILS.path) {
        hide.push(PathBuf::from(directories::TRAILS.path));
    } else {
        hide.push(audit.to_owned());
    }
    let policy = std::fs::canonicalize(policy).context("the policy's path cannot be resolved")?;
    Ok(Some(Confinement::plan(&hide, &[policy], directory)?))
}
