//! What in an agent is the launcher's and the operator's, not the agent's: the first exec; this program as a hook, and its
//! socket; and the operator's own command line, started again by its launcher: npm's `codex` is a script that starts the
//! program with the same words.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use enforcer_launch::OwnProgram;
use enforcer_policy::ExecAction;
use enforcer_seccomp::target::ThreadOwner;

/// How often a command is started again by what it has started.
const STEPS: usize = 4;
/// How long after the start that counts: a launcher does nothing else. Later it is the agent who starts it.
const START: Duration = Duration::from_secs(30);

/// What in an agent is not the agent's own doing.
#[derive(Debug)]
pub struct Launched {
    /// The agent's first process: its first exec is the operator's.
    pub operator: u32,
    /// The launcher's own program and socket.
    pub own: Option<OwnProgram>,
    /// The operator's command line.
    pub line: OwnLine,
    seen: AtomicBool,
}

impl Launched {
    /// Of an agent whose first process waits.
    pub fn new(operator: u32, own: Option<OwnProgram>) -> Self {
        Self {
            operator,
            own,
            line: OwnLine::new(operator),
            seen: AtomicBool::new(false),
        }
    }

    /// Whether an exec of this thread is the operator's. The next one is not any more.
    pub fn is_first(&self, tid: u32) -> bool {
        tid == self.operator && !self.seen.swap(true, Ordering::Relaxed)
    }

    /// Whether a socket's name is that of the launcher's.
    pub fn is_socket(&self, name: &[u8]) -> bool {
        self.own.as_ref().is_some_and(|own| own.is_socket(name))
    }
}

/// What the operator gave to `enforcer run`, and who has started it so far.
#[derive(Debug)]
pub struct OwnLine {
    chain: Mutex<Chain>,
}

#[derive(Debug)]
struct Chain {
    /// The program's name and its arguments; empty until the operator's exec was seen.
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    /// Who runs it: the agent's first process, and those that were let start it again.
    by: BTreeSet<u32>,
    left: usize,
    /// When the operator's exec was seen.
    since: Instant,
}

impl OwnLine {
    /// Nothing yet. `operator` is the agent's first process.
    pub fn new(operator: u32) -> Self {
        Self {
            chain: Mutex::new(Chain {
                name: Vec::new(),
                arguments: Vec::new(),
                by: BTreeSet::from([operator]),
                left: STEPS,
                since: Instant::now(),
            }),
        }
    }

    /// Remembers the operator's command: its path and its words.
    pub fn given(&self, path: &[u8], argv: &[Vec<u8>]) {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.name = name(path).to_vec();
        chain.arguments = argv.iter().skip(1).cloned().collect();
        chain.since = Instant::now();
    }

    /// Whether an exec is the operator's command once more: a program of the same name with the same words, started by
    /// the process that was given it or by its child. Each counts once.
    pub fn is_again(&self, who: ThreadOwner, action: &ExecAction) -> bool {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let same = chain.left > 0
            && chain.since.elapsed() < START
            && !chain.arguments.is_empty()
            && (chain.by.contains(&who.tgid) || chain.by.contains(&who.ppid))
            && name(&action.path) == chain.name
            && action.argv.iter().skip(1).eq(chain.arguments.iter());
        if same {
            chain.left -= 1;
            chain.by.insert(who.tgid);
        }
        same
    }
}

/// The last component of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(path: &str, words: &[&str]) -> ExecAction {
        ExecAction {
            path: path.into(),
            argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            ..ExecAction::default()
        }
    }

    fn who(tgid: u32, ppid: u32) -> ThreadOwner {
        ThreadOwner {
            tgid,
            ppid,
            ..ThreadOwner::default()
        }
    }

    fn line() -> OwnLine {
        let line = OwnLine::new(10);
        let given = action("/opt/npm/bin/codex", &["codex", "exec", "--yolo"]);
        line.given(&given.path, &given.argv);
        line
    }

    #[test]
    fn a_launcher_starts_the_same_words_again() {
        let native = action(
            "/opt/vendor/bin/codex",
            &["/opt/vendor/bin/codex", "exec", "--yolo"],
        );
        assert!(line().is_again(who(10, 1), &native), "in its own place");
        let line = line();
        assert!(line.is_again(who(11, 10), &native), "as a child");
        assert!(
            line.is_again(who(12, 11), &native),
            "as a child's child, step by step"
        );
    }

    #[test]
    fn nothing_else_is_the_operators() {
        let native = |words: &[&str]| action("/opt/vendor/bin/codex", words);
        let yes = native(&["codex", "exec", "--yolo"]);
        assert!(!line().is_again(who(30, 29), &yes), "a stranger");
        for other in [
            native(&["codex", "exec", "--yolo", "x"]),
            native(&["codex", "exec"]),
            native(&["codex"]),
            action("/usr/bin/claude", &["codex", "exec", "--yolo"]),
        ] {
            assert!(!line().is_again(who(10, 1), &other), "{other:?}");
        }
        let line = line();
        let count = (0..20).filter(|_| line.is_again(who(11, 10), &yes)).count();
        assert_eq!(count, STEPS);
        assert!(
            !OwnLine::new(10).is_again(who(10, 1), &yes),
            "nothing was given"
        );
    }

    #[test]
    fn later_it_is_the_agents() {
        let line = line();
        line.chain.lock().unwrap().since = Instant::now()
            .checked_sub(START)
            .expect("the machine runs for longer");
        let yes = action("/opt/vendor/bin/codex", &["codex", "exec", "--yolo"]);
        assert!(!line.is_again(who(10, 1), &yes));
    }

    #[test]
    fn a_command_without_words_is_no_sign() {
        let line = OwnLine::new(10);
        let bash = action("/bin/bash", &["bash"]);
        line.given(&bash.path, &bash.argv);
        assert!(!line.is_again(who(10, 1), &bash));
    }
}
