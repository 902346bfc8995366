//! For tests: an agent's surroundings, made for real and cleared away.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::{
    AgentCgroup, CgroupRoot, Child, Confinement, Environment, ExitStatus, Identity, LandlockDomain,
    SpawnPlan, Terminal, find_program, spawn,
};
use enforcer_seccomp::SyscallGroups;

/// Whether this is root; says so if not, for a test that needs it.
pub(super) fn root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// How long a test waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// An agent's cgroup and a directory in which every user can write, gone when the test ends.
pub(super) struct Rig {
    pub cgroup: AgentCgroup,
    pub place: tempfile::TempDir,
    pub identity: Identity,
    pub confinement: Option<Confinement>,
    pub env: Vec<(OsString, OsString)>,
    pub domain: LandlockDomain,
    /// System-call groups that stay open.
    pub loosened: Vec<String>,
}

impl Rig {
    /// Says so when the test cannot run.
    pub(super) fn new(name: &str, user: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: {name}: needs root");
            return None;
        }
        let root = CgroupRoot::find().unwrap();
        let id = format!("test-{name}-{}", std::process::id());
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let identity = Identity::resolve(Some(user), |_| None).unwrap();
        Some(Self {
            cgroup: AgentCgroup::create(&root, &id).unwrap(),
            place,
            env: Environment::of(&identity, std::env::vars_os(), &[])
                .unwrap()
                .variables,
            identity,
            confinement: None,
            domain: LandlockDomain::probe(false),
            loosened: Vec::new(),
        })
    }

    pub(super) fn plan(&self, words: &[&str]) -> SpawnPlan<'_> {
        let directory = self.place.path().to_owned();
        let path = std::env::var_os("PATH");
        let program = find_program(
            words[0].as_ref(),
            path.as_deref(),
            &directory,
            &self.identity,
        )
        .unwrap();
        SpawnPlan {
            program,
            argv: words.iter().map(Into::into).collect(),
            env: self.env.clone(),
            directory,
            identity: &self.identity,
            cgroup: &self.cgroup,
            domain: self.domain.clone(),
            filters: vec![
                SyscallGroups::shipped()
                    .unwrap()
                    .filter(&self.loosened)
                    .unwrap(),
            ],
            notify: None,
            open_files: None,
            confinement: self.confinement.as_ref(),
            own_ipc: true,
        }
    }

    pub(super) fn start(&self, words: &[&str]) -> Child {
        spawn(&self.plan(words))
            .unwrap()
            .go(Terminal::none())
            .unwrap()
    }

    pub(super) fn run(&self, words: &[&str]) -> ExitStatus {
        self.start(words).wait().unwrap()
    }

    /// Runs a shell script and returns what it wrote.
    pub(super) fn sh(&self, script: &str) -> String {
        let status = self.run(&["/bin/sh", "-c", &format!("exec > out 2>&1; {script}")]);
        let out = self.read("out");
        assert_eq!(status, ExitStatus::Code(0), "{out}");
        out
    }

    /// Runs a Perl program and returns what it wrote; Perl makes system calls that a shell cannot.
    pub(super) fn perl(&self, program: &str) -> (ExitStatus, String) {
        let program = format!("open STDOUT, '>', 'out' or die; $| = 1; {program}");
        (
            self.run(&["/usr/bin/perl", "-e", &program]),
            self.read("out"),
        )
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.path().join(name)).unwrap_or_default()
    }

    pub(super) fn wait_for(&self, name: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.read(name);
            if text.ends_with('\n') {
                return text;
            }
            assert!(Instant::now() < deadline, "{name} was never written");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cgroup.kill_all(PATIENCE).unwrap();
        self.cgroup.remove().unwrap();
    }
}
