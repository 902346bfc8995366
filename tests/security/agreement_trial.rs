//! The kernel and user space judge alike: random command lines × policies, each judged by the kernel's own program
//! (`BPF_PROG_TEST_RUN` over this process's memory, `kernel::trial`) and by [`Engine`].
//!
//! What the kernel runs here is what `exec_committed` runs once it has found the arguments; that it finds them, and kills,
//! is tried with real execs in `agreement.rs`. `ENFORCER_AGREE_LINES` says how many lines.

use std::time::Instant;

use enforcer_decide::Engine;
use enforcer_kernel::trial::Trial;
use enforcer_policy::{Decision, ExecAction, Judgement, ScriptHead};
use enforcer_tests::root;
use serde_json::{Value, json};

/// Lines unless the environment says otherwise: eight seconds on two cores.
const LINES: usize = 100_000;
/// Random policies; the lines are dealt out to all.
const POLICIES: usize = 20;

const PROGRAMS: [&str; 12] = [
    "/usr/bin/git",
    "/usr/bin/rm",
    "/bin/ls",
    "/usr/bin/kubectl",
    "/opt/tool",
    "./tool",
    "tool",
    "/usr/bin/../bin/git",
    "/tmp/a b/git",
    "/usr/bin/lsx",
    "/usr/bin/sh",
    "/lib64/ld-linux-x86-64.so.2",
];
const WORDS: [&str; 40] = [
    "push",
    "pushy",
    "--force",
    "--force=x",
    "--forced",
    "-f",
    "-rf",
    "-fr",
    "-r",
    "-C",
    "dir",
    "--",
    "/",
    "/etc",
    "~",
    "a b",
    "push --force",
    "",
    "delete",
    "ns",
    "-n",
    "secret",
    "x.secret.y",
    "\t",
    "é",
    "*",
    "--hard",
    "reset",
    "-",
    "-vf",
    "--f",
    "--forc",
    "x=y",
    "-m",
    "rm -rf /",
    "\n",
    "git",
    "A",
    "\u{7f}",
    "status",
];

/// splitmix64: the same sequence on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn word(&mut self) -> Vec<u8> {
        match self.below(200) {
            // Longer than one piece that the kernel reads at once.
            0 => self.one(&WORDS).repeat(self.below(3000)).into_bytes(),
            1 => vec![0xff, 0xfe, b'a'],
            _ => self.one(&WORDS).as_bytes().to_vec(),
        }
    }

    fn action(&mut self) -> ExecAction {
        let path = self.one(&PROGRAMS).as_bytes().to_vec();
        let base = path.rsplit(|byte| *byte == b'/').next().unwrap().to_vec();
        let first = match self.below(4) {
            0 => self.word(),
            1 => base.clone(),
            _ => path.clone(),
        };
        let mut argv = vec![first];
        for _ in 0..self.below(7) {
            argv.push(self.word());
        }
        let script = (self.below(8) == 0).then(|| ScriptHead {
            interpreter: self
                .one(&["/bin/sh", "/usr/bin/git", "rm"])
                .as_bytes()
                .to_vec(),
            argument: (self.below(2) == 0).then(|| b"push --force".to_vec()),
        });
        // With two directories at most, or a name without any.
        let linked = self.one(&[
            "git",
            "/usr/bin/git",
            "/opt/rm",
            "/busybox",
            "/usr/bin/sh",
            "/a b/sh",
        ]);
        let own = script.as_ref().map_or(&base, |script| &script.interpreter);
        let own = own.rsplit(|byte| *byte == b'/').next().unwrap();
        let directory = self.one(&["", "/usr/bin/", "/opt/", "/"]).as_bytes();
        let resolved = if self.below(5) == 0 {
            linked.as_bytes().to_vec()
        } else {
            [directory, own].concat()
        };
        ExecAction {
            resolved: Some(resolved),
            path,
            argv,
            script,
            fileless: self.below(40) == 0,
            ..ExecAction::default()
        }
    }

    /// Rules of every kind over the same programs and words.
    fn policy(&mut self) -> Value {
        const BARE: [&str; 13] = [
            "git",
            "rm",
            "ls",
            "kubectl",
            "tool",
            "/opt/tool",
            "./tool",
            "sh",
            "busybox",
            "/usr/bin/git",
            "/usr/bin/sh",
            "/opt/rm",
            "/bin/ls",
        ];
        const PLAIN: [&str; 12] = [
            "push", "--force", "-f", "-r", "dir", "/etc", "delete", "ns", "secret", "reset",
            "status", "é",
        ];
        let count = 4 + self.below(30);
        let rules: Vec<Value> = (0..count)
            .map(|at| {
                let mut rule = json!({"id": format!("r{at}"), "decision": self.one(&["allow", "allow", "ask", "deny"])});
                let (mut program, word) = (self.one(&BARE), self.one(&PLAIN));
                if rule["decision"] == "allow" && program.contains("/bin/") {
                    // By its path it is never allowed there: an error.
                    program = program.rsplit('/').next().unwrap();
                }
                match self.below(11) {
                    0 => rule["glob"] = json!([format!("{program} {word}*")]),
                    1 => rule["glob"] = json!([format!("*{word}*"), format!("{program}")]),
                    2 => rule["glob"] = json!([format!("{program}*?{word}")]),
                    3 => rule["regex"] = json!([format!("\\b{word}\\b")]),
                    4 => rule["regex"] = json!([format!("^{program} (?:-[a-z]+ )*{word}( |$)")]),
                    5 => rule["argv"] = json!({"program": program}),
                    6 => rule["argv"] = json!({"program": [program, "git"], "words": [[word, "push"]]}),
                    7 => rule["argv"] = json!({"program": program, "words": [word], "flags_any": ["--force", "-f"]}),
                    8 => rule["glob"] = json!([format!("*{program}")]),
                    9 => rule["glob"] = json!(["*/bin/sh*", format!("/usr/bin/?it {word}*")]),
                    _ => rule["argv"] = json!({"program": program, "flags_all": ["-r", "-f"]}),
                }
                rule
            })
            .collect();
        json!({"version": "2", "connect": {}, "exec": {
            "default": self.one(&["allow", "ask", "deny"]), "fileless": self.one(&["allow", "ask", "deny"]),
            "loader": self.one(&["ask", "deny"]), "transparent": ["sh"], "rules": rules}})
    }
}

/// Among several denials the kernel may name another: nothing is stricter than the first that it finds.
fn agree(kernel: Judgement, user: Judgement) -> bool {
    let named = kernel.decision == Decision::Deny || kernel.rank == user.rank;
    (kernel.decision, kernel.cause) == (user.decision, user.cause) && named
}

/// A disagreement without the rules and words that it does not need.
fn smallest(policy: &Value, action: &ExecAction) -> String {
    let judged = |policy: &Value, action: &ExecAction| {
        let parsed = enforcer_policy::parse(&policy.to_string()).unwrap();
        let engine = Engine::new(parsed.policy, 1).unwrap();
        let kernel = Trial::load(engine.tables()).unwrap().exec(action).unwrap();
        (kernel, engine.matcher().exec(action))
    };
    let differ = |policy: &Value, action: &ExecAction| {
        let (kernel, user) = judged(policy, action);
        kernel.is_none_or(|kernel| !agree(kernel, user))
    };
    let (mut policy, mut action) = (policy.clone(), action.clone());
    let mut at = 0;
    while at < policy["exec"]["rules"].as_array().unwrap().len() {
        let mut fewer = policy.clone();
        fewer["exec"]["rules"].as_array_mut().unwrap().remove(at);
        if differ(&fewer, &action) {
            policy = fewer;
        } else {
            at += 1;
        }
    }
    let mut at = 1;
    while at < action.argv.len() {
        let mut fewer = action.clone();
        fewer.argv.remove(at);
        if differ(&policy, &fewer) {
            action = fewer;
        } else {
            at += 1;
        }
    }
    let (kernel, user) = judged(&policy, &action);
    let words: Vec<_> = action
        .argv
        .iter()
        .map(|word| String::from_utf8_lossy(word))
        .collect();
    format!("kernel {kernel:?}, user space {user:?}: {words:?}, {action:?} under {policy}")
}

#[test]
fn the_kernel_and_user_space_judge_random_lines_alike() {
    if !root() {
        return;
    }
    let lines = std::env::var("ENFORCER_AGREE_LINES").map_or(LINES, |text| {
        text.parse().expect("ENFORCER_AGREE_LINES is a number")
    });
    let mut random = Random(11);
    let started = Instant::now();
    let mut judged = 0;
    let mut decisions = std::collections::BTreeMap::<Decision, usize>::new();
    for at in 0..POLICIES {
        let policy = random.policy();
        let parsed = enforcer_policy::parse(&policy.to_string()).unwrap();
        let engine = Engine::new(parsed.policy, 0x1234_5678 + at as u64).unwrap();
        let trial = Trial::load(engine.tables()).unwrap();
        for _ in 0..lines / POLICIES {
            let action = random.action();
            let kernel = trial.exec(&action).unwrap().expect("the kernel judges it");
            let user = engine.matcher().exec(&action);
            assert!(agree(kernel, user), "{}", smallest(&policy, &action));
            *decisions.entry(user.decision).or_default() += 1;
            judged += 1;
        }
    }
    println!(
        "{judged} command lines under {POLICIES} policies in {:.0} s: {decisions:?}",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(decisions.len(), 3, "{decisions:?}");
    assert!(
        decisions.values().all(|count| *count > judged / 50),
        "{decisions:?}"
    );
}
