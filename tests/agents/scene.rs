//! A user with a home directory, a project in it, an agent's settings, and a model that the agent talks to.

use std::{
    env, fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Ended, Running, Session,
    model::{Model, Step},
    patience,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use serde_json::Value;

use crate::agent::{Agent, Talk};

/// Where the stage has put `enforcer` and the policies.
const INSTALLED: &str = "/opt/enforcer";
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the agents are.
///
/// # Panics
///
/// Outside the stage that has them.
pub fn tree() -> PathBuf {
    env::var_os("ENFORCER_AGENTS")
        .expect("`cargo xtask test --agents` runs this")
        .into()
}

/// A user that no other test is.
#[derive(Clone, Debug)]
pub struct Coder {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Coder {
    fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("coder{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let user = User::from_name(&name).unwrap().expect("enough users");
        Self {
            name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
        }
    }

    fn project(&self) -> PathBuf {
        self.home.join("project")
    }
}

#[derive(Debug)]
pub struct Scene {
    pub agent: &'static Agent,
    pub user: Coder,
    pub model: Model,
    /// Root's directories that stand in the place of `/etc/claude-code` and the like, if there are any.
    managed: Option<tempfile::TempDir>,
}

/// How a command without `enforcer run` has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub text: String,
}

impl Scene {
    /// A scene in which the model has the agent do these steps.
    pub fn new(agent: &'static Agent, steps: Vec<Step>) -> Self {
        Self::new_in(agent, |_| steps)
    }

    /// The same, with steps that name files of the project.
    pub fn new_in(agent: &'static Agent, steps: impl FnOnce(&Path) -> Vec<Step>) -> Self {
        let user = Coder::next();
        let steps = steps(&user.project());
        let model = match agent.talk {
            Talk::Words => Model::without_tools(steps),
            _ => Model::start(steps),
        };
        let scene = Self {
            agent,
            user,
            model,
            managed: None,
        };
        let home = &scene.user.home;
        fs::create_dir_all(home).unwrap();
        chown(home, Some(scene.user.uid), Some(scene.user.gid)).unwrap();
        for (name, text) in (agent.settings)(&scene.project(), &scene.model.url()) {
            scene.write(name, &text);
        }
        let made = scene.sh(
            "git config --global user.email coder@example.com && git config --global user.name coder && \
             git config --global init.defaultBranch main && mkdir -p ~/precious ~/.ssh && echo keep >~/precious/file && \
             echo SECRET-KEY >~/.ssh/id_rsa && git init -q --bare ~/origin.git && git init -q && \
             git config user.email coder@example.com && git config user.name coder && \
             git remote add origin ~/origin.git && echo hello >README.md && git add . && git commit -qm first && \
             git push -q origin HEAD",
        );
        assert_eq!(made.code, 0, "{}", made.text);
        scene
    }

    /// A scene in which the agent runs these commands one after the other.
    pub fn commands(agent: &'static Agent, commands: &[&str]) -> Self {
        let commands: Vec<String> = commands
            .iter()
            .map(|command| (*command).to_owned())
            .collect();
        let scene = Self::new(agent, agent.script(&commands));
        if agent.talk == Talk::Words {
            // The project's tests: one command each time, which fails so that the model is told what it said.
            let mut tests =
                "n=$(cat ~/turn 2>/dev/null || echo 0); echo $((n + 1)) >~/turn\n".to_owned();
            for (turn, command) in commands.iter().enumerate() {
                tests += &format!("if [ $n = {turn} ]; then {command}\nexit 1; fi\n");
            }
            scene.write("tests.sh", &tests);
        }
        scene
    }

    /// With settings of the machine of its own, which are root's.
    pub fn managed(mut self) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("enforcer-managed-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/opt")
            .unwrap();
        for name in MANAGED {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        self.managed = Some(directory);
        self
    }

    pub fn project(&self) -> PathBuf {
        self.user.project()
    }

    /// Writes a file below the home directory, which is the user's as are the directories on the way.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.user.home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let own = path.ancestors().take_while(|part| *part != self.user.home);
        for part in own {
            chown(part, Some(self.user.uid), Some(self.user.gid)).unwrap();
        }
    }

    /// What a file of the project holds; empty where there is none.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.project().join(name)).unwrap_or_default()
    }

    /// Whether what the user wants to keep is there.
    pub fn precious(&self) -> bool {
        self.user.home.join("precious/file").exists()
    }

    /// The variables of the user's shell and of the agent.
    fn variables(&self) -> Vec<(String, String)> {
        let tree = tree();
        let tree = tree.display();
        let path = format!(
            "{tree}/bin:{tree}/npm/node_modules/.bin:{INSTALLED}/bin:/usr/local/bin:/usr/bin:/bin"
        );
        let mut variables = vec![
            ("PATH".to_owned(), path),
            ("TERM".to_owned(), "xterm-256color".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("SHELL".to_owned(), "/bin/bash".to_owned()),
        ];
        for (name, value) in self.agent.variables {
            let value = value.replace("URL", &self.model.url());
            variables.push(((*name).to_owned(), value));
        }
        variables
    }

    /// What goes before a command for which the settings of the machine are this scene's.
    fn before(&self) -> Vec<String> {
        let Some(managed) = &self.managed else {
            return Vec::new();
        };
        let mut script = String::new();
        for name in MANAGED {
            let own = managed.path().join(name);
            script += &format!("mount --bind {} /etc/{name} && ", own.display());
        }
        script += "exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", &script, "sh"]
            .map(str::to_owned)
            .to_vec()
    }

    fn command(&self, words: &[&str], as_root: bool) -> Command {
        let mut line = self.before();
        if !as_root {
            let (uid, gid) = (self.user.uid, self.user.gid);
            line.extend(
                [
                    "setpriv",
                    "--reuid",
                    &uid.to_string(),
                    "--regid",
                    &gid.to_string(),
                    "--clear-groups",
                ]
                .map(str::to_owned),
            );
        }
        line.extend(words.iter().map(|word| (*word).to_owned()));
        let project = self.project();
        fs::create_dir_all(&project).unwrap();
        chown(&project, Some(self.user.uid), Some(self.user.gid)).unwrap();
        let home = if as_root {
            Path::new("/root")
        } else {
            &self.user.home
        };
        let name = if as_root { "root" } else { &self.user.name };
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .envs(self.variables())
            .env("HOME", home)
            .env("USER", name)
            .env("LOGNAME", name)
            .current_dir(project)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as the user, without `enforcer run`.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn ungoverned(&self, words: &[&str]) -> Finished {
        let log = self.user.home.join(".output");
        let out = fs::File::create(&log).unwrap();
        let mut command = self.command(words, false);
        command.stdout(out.try_clone().unwrap()).stderr(out);
        // A group of its own: what it leaves running is no child of ours, and ends with the scene.
        let mut child = command.process_group(0).spawn().unwrap();
        let deadline = Instant::now() + patience();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                let text = fs::read(&log).unwrap_or_default();
                panic!("{words:?} does not end: {}", String::from_utf8_lossy(&text));
            }
            thread::sleep(PAUSE);
        };
        Finished {
            code: status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned(),
        }
    }

    /// Runs a script as the user, without `enforcer run`.
    pub fn sh(&self, script: &str) -> Finished {
        self.ungoverned(&["sh", "-c", script])
    }

    /// Runs the agent without `enforcer run`.
    pub fn agent_ungoverned(&self) -> Finished {
        let words = self.agent.words(&[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ungoverned(&words)
    }

    /// Runs `enforcer` as root.
    pub fn root(&self, words: &[&str]) -> Output {
        let words = [&["enforcer"], words].concat();
        self.command(&words, true).output().unwrap()
    }

    /// The session under the agent's policy: what the shell has is inherited, what `sudo` takes away is given.
    fn session(&self) -> Session {
        let policy = fs::read_to_string(policy(self.agent.policy)).unwrap();
        let policy: Value = serde_json::from_str(&policy).unwrap();
        let mut session = Session::new(&policy)
            .bare()
            .by(self.before())
            .of((self.user.uid, self.user.gid), &self.project())
            .variable("HOME", "/root")
            .variable("USER", "root")
            .variable("LOGNAME", "root");
        for (name, value) in self.variables() {
            session = if name.ends_with("_KEY") {
                session.option("-e").option(format!("{name}={value}"))
            } else {
                session.variable(name, value)
            };
        }
        session
    }

    /// Runs a command under the agent's policy.
    pub fn governed(&self, words: &[&str]) -> Ended {
        self.session().run(words)
    }

    /// Runs the agent under its policy.
    pub fn agent_governed(&self) -> Ended {
        self.session().run(self.agent.words(&[]))
    }

    /// Starts the agent under its policy; the session is to be kept as long as it runs.
    pub fn start(&self) -> (Session, Running) {
        let session = self.session();
        let running = session.start(self.agent.words(&[]));
        (session, running)
    }

    /// Starts another command so.
    pub fn start_command(&self, words: &[&str]) -> (Session, Running) {
        let session = self.session();
        let running = session.start(words);
        (session, running)
    }

    /// What the commands of a test have said, in order: lines of what the model was told that begin with `said: `.
    pub fn said(&self) -> Vec<String> {
        let said = |line: &str| {
            // Agents write something before the first line, and some send results as JSON.
            let line = ["Output: ", "\"output\": \""]
                .iter()
                .find_map(|before| line.trim_start().strip_prefix(before))
                .unwrap_or(line);
            let said = line.strip_prefix("said: ")?;
            Some(said.trim_end_matches(['"', ',', ' ']).to_owned())
        };
        let told = self.model.told_text().replace("\\n", "\n");
        told.lines().filter_map(said).collect()
    }
}

/// Directories of settings of the machine.
const MANAGED: [&str; 4] = ["claude-code", "codex", "gemini-cli", "qwen-code"];

/// A shipped policy.
pub fn policy(name: &str) -> PathBuf {
    Path::new(INSTALLED).join("policies").join(name)
}

impl Drop for Scene {
    /// What the user's processes have left running ends; the uid is this scene's alone.
    fn drop(&mut self) {
        for _ in 0..10 {
            let pids = processes(self.user.uid);
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(PAUSE);
        }
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.user.home);
        }
    }
}

/// The processes of a user.
pub fn processes(uid: u32) -> Vec<Pid> {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
        .collect()
}
