//! A policy that allows what was observed, and nothing else: least privilege, written from a trail.
//!
//! Arguments are generalised by what a program is. A program with subcommands keeps its first words; one that runs code
//! keeps the script; one that deletes, connects or gives privileges keeps its exact command lines; others may have any
//! arguments. Whatever a program starts is judged by itself, so a rule never speaks for children.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::engine::Engine;
use enforcer_policy::action::ExecAction;
use enforcer_policy::model::{DEFAULT_SHELLS, Protocol};

/// Examples that each rule gets from the trail.
const EXAMPLES_MAX: usize = 3;
/// Longest example, bytes.
const EXAMPLE_BYTES: usize = 200;
/// Longest id that is made of words.
const ID_MAX: usize = 120;

/// Programs of which the first words say what they do, and how many words that are.
const SUBCOMMANDS: [(&str, usize); 52] = [
    ("apt", 1),
    ("apt-get", 1),
    ("aws", 2),
    ("az", 2),
    ("bazel", 1),
    ("brew", 1),
    ("bun", 1),
    ("bundle", 1),
    ("cargo", 1),
    ("composer", 1),
    ("conda", 1),
    ("dart", 1),
    ("deno", 1),
    ("dnf", 1),
    ("docker", 1),
    ("dotnet", 1),
    ("flutter", 1),
    ("gcloud", 2),
    ("gem", 1),
    ("gh", 2),
    ("git", 1),
    ("go", 1),
    ("gradle", 1),
    ("gradlew", 1),
    ("helm", 1),
    ("hg", 1),
    ("ip", 1),
    ("jj", 1),
    ("kubectl", 1),
    ("make", 1),
    ("mix", 1),
    ("mvn", 1),
    ("npm", 1),
    ("npx", 1),
    ("nx", 1),
    ("openssl", 1),
    ("pip", 1),
    ("pip3", 1),
    ("pipenv", 1),
    ("pnpm", 1),
    ("podman", 1),
    ("poetry", 1),
    ("rustup", 1),
    ("snap", 1),
    ("svn", 1),
    ("swift", 1),
    ("systemctl", 1),
    ("terraform", 1),
    ("turbo", 1),
    ("uv", 1),
    ("yarn", 1),
    ("zig", 1),
];

/// Programs that run the code of their first argument.
const INTERPRETERS: [&str; 14] = [
    "awk", "gawk", "java", "lua", "mawk", "node", "nodejs", "perl", "php", "python", "python2",
    "python3", "ruby", "tclsh",
];

/// Programs that delete, change what cannot be changed back, connect elsewhere, or give privileges.
const CAREFUL: [&str; 40] = [
    "busybox", "chattr", "chgrp", "chmod", "chown", "crontab", "curl", "dd", "doas", "env", "find",
    "ftp", "kill", "killall", "mkfs", "mount", "mv", "nc", "ncat", "nohup", "passwd", "pkill",
    "psql", "rm", "rmdir", "rsync", "scp", "sed", "sftp", "shred", "socat", "ssh", "su", "sudo",
    "tee", "truncate", "umount", "unlink", "wget", "xargs",
];

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When, as the trail has it.
    pub when: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// An exec. `whole`: nothing of its text was replaced or cut.
    Exec {
        /// The exec, its words as far as they are known.
        action: Box<ExecAction>,
        /// Whether its text is as it was.
        whole: bool,
    },
    /// A connect to an address.
    Connect {
        /// The address, in text.
        address: String,
        /// The port.
        port: u16,
        /// The protocol, if rules can name it.
        protocol: Option<Protocol>,
    },
    /// A connect to a unix socket.
    Unix(String),
}

/// A suggested policy.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// The policy, in the native form.
    pub policy: Value,
    /// What it leaves out, and why: each reason with the actions, and how often.
    pub left_out: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Programs that it allows and that deserve a look.
    pub careful: BTreeSet<String>,
}

/// What a rule is made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Basis {
    /// The program with any arguments.
    Program(String),
    /// The program with these first words.
    Words(String, Vec<String>),
    /// The program with its exact lines.
    Lines(String),
}

/// How often and when.
#[derive(Clone, Debug, Default)]
struct Seen {
    count: usize,
    first: String,
    last: String,
    examples: Vec<Vec<String>>,
    lines: BTreeSet<String>,
}

impl Seen {
    fn note(&mut self, when: &str) {
        self.count += 1;
        if self.first.is_empty() || when < self.first.as_str() {
            when.clone_into(&mut self.first);
        }
        if when > self.last.as_str() {
            when.clone_into(&mut self.last);
        }
    }

    fn justification(&self) -> String {
        let times = match self.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        format!("seen {times}, first {}, last {}", self.first, self.last)
    }
}

/// Writes a policy for what was observed. `bare` is the engine of a policy without rules that allows: it knows how
/// programs are named, and what is decided without rules.
pub fn suggest(observed: impl IntoIterator<Item = Observed>, bare: &Engine) -> Suggestion {
    let mut writer = Writer {
        bare,
        execs: BTreeMap::new(),
        shells: BTreeSet::new(),
        connects: BTreeMap::new(),
        sockets: BTreeMap::new(),
        left_out: BTreeMap::new(),
        careful: BTreeSet::new(),
    };
    for of in observed {
        match of.what {
            What::Exec { action, whole } => writer.exec(&of.when, &action, whole),
            What::Connect {
                address,
                port,
                protocol,
            } => writer.connect(&of.when, address, port, protocol),
            What::Unix(name) => writer.unix(&of.when, name),
        }
    }
    writer.finish()
}

struct Writer<'a> {
    bare: &'a Engine,
    execs: BTreeMap<Basis, Seen>,
    shells: BTreeSet<String>,
    /// By protocol and port: the addresses.
    connects: BTreeMap<(&'static str, u16), (Seen, BTreeSet<String>)>,
    sockets: BTreeMap<String, Seen>,
    left_out: BTreeMap<&'static str, BTreeMap<String, usize>>,
    careful: BTreeSet<String>,
}

impl Writer<'_> {
    fn leave_out(&mut self, why: &'static str, what: &str) {
        let what: String = what.chars().take(EXAMPLE_BYTES).collect();
        *self
            .left_out
            .entry(why)
            .or_default()
            .entry(what)
            .or_default() += 1;
    }

    fn exec(&mut self, when: &str, action: &ExecAction, whole: bool) {
        let text = self.bare.matcher().text(action);
        let end = text.len() - action.arguments().len();
        let mut words = Vec::new();
        let rest = action.argv.iter().skip(1).map(Vec::as_slice);
        for word in std::iter::once(&text[..end]).chain(rest) {
            words.push(String::from_utf8_lossy(word).into_owned());
        }
        let line = words.join(" ");
        let program = words[0].clone();
        let base = program.rsplit('/').next().unwrap_or(&program).to_owned();
        match self.bare.exec(action).rule.as_deref() {
            Some("fileless") => {
                return self
                    .leave_out("it has no name in the file system (`exec.fileless`)", &line);
            }
            Some(_) => return self.leave_out("it is the dynamic loader (`exec.loader`)", &line),
            None => {}
        }
        if !is_whole(&program) {
            return self.leave_out(
                "a part of its path was replaced or cut when it was recorded",
                &program,
            );
        }
        if program.contains(' ') {
            return self.leave_out(
                "no rule can allow a program with a space in its path",
                &line,
            );
        }
        // A shell from elsewhere is no transparent one: its path says what it is.
        if DEFAULT_SHELLS.contains(&program.as_str()) {
            self.shells.insert(program);
            return;
        }
        let kind = kind(&program, &base, &words[1..]);
        let exact = matches!(kind, Basis::Lines(_));
        if exact && !whole {
            let why = "a part of it was replaced or cut when it was recorded, and only its exact line would do";
            return self.leave_out(why, &program);
        }
        if CAREFUL.contains(&base.as_str()) || INTERPRETERS.contains(&base.as_str()) {
            self.careful.insert(base);
        }
        let seen = self.execs.entry(kind).or_default();
        seen.note(when);
        if exact {
            seen.lines.insert(exactly(&words));
        }
        let fits = seen.examples.len() < EXAMPLES_MAX && line.len() <= EXAMPLE_BYTES;
        if whole && fits && !seen.examples.contains(&words) {
            seen.examples.push(words);
        }
    }

    fn connect(&mut self, when: &str, address: String, port: u16, protocol: Option<Protocol>) {
        let Some(protocol) = protocol else {
            return self.leave_out(
                "rules name tcp, udp and icmp only",
                &format!("{address} port {port}"),
            );
        };
        let name = protocol.name();
        if port == 0 && protocol != Protocol::Icmp {
            return self.leave_out("no rule can name port 0", &format!("{address} {name}"));
        }
        let (seen, addresses) = self.connects.entry((name, port)).or_default();
        seen.note(when);
        addresses.insert(address);
    }

    fn unix(&mut self, when: &str, name: String) {
        self.sockets.entry(name).or_default().note(when);
    }

    fn finish(self) -> Suggestion {
        let mut ids = Ids::default();
        let mut exec = Vec::new();
        for (kind, seen) in &self.execs {
            let mut rule = match kind {
                Basis::Program(program) => json!({
                    "id": ids.claim(program), "decision": "allow", "argv": {"program": program}}),
                Basis::Words(program, words) => json!({
                    "id": ids.claim(&format!("{program} {}", words.join(" "))), "decision": "allow",
                    "argv": {"program": program, "words": words}}),
                Basis::Lines(program) => json!({
                    "id": ids.claim(&format!("{program} as seen")), "decision": "allow", "glob": seen.lines}),
            };
            rule["justification"] = seen.justification().into();
            if !seen.examples.is_empty() {
                rule["match"] = json!(seen.examples);
            }
            exec.push(rule);
        }
        let mut connect = Vec::new();
        for ((protocol, port), (seen, addresses)) in &self.connects {
            let mut rule = json!({
                "id": ids.claim(&format!("{protocol} {port}")), "decision": "allow", "hosts": addresses,
                "protocols": [protocol], "justification": seen.justification()});
            if *port != 0 {
                rule["ports"] = json!([port]);
            }
            connect.push(rule);
        }
        for (name, seen) in &self.sockets {
            connect.push(json!({
                "id": ids.claim(name), "decision": "allow", "unix": [escaped(name)],
                "justification": seen.justification()}));
        }
        let mut section = json!({"default": "deny", "rules": exec});
        if !self.shells.is_empty() {
            section["transparent"] = json!(self.shells);
        }
        Suggestion {
            policy: json!({
                "version": "2",
                "description": "Written from an observed run: it allows what was seen. Read it before it is used.",
                "exec": section,
                "connect": {"default": "deny", "unix_default": "deny", "rules": connect},
            }),
            left_out: self.left_out,
            careful: self.careful,
        }
    }
}

/// Whether nothing of a text was replaced.
fn is_whole(text: &str) -> bool {
    !text.contains("[REDACTED") && !text.contains('\u{fffd}')
}

/// What rule a command line gets.
fn kind(program: &str, base: &str, rest: &[String]) -> Basis {
    let plain = |word: &&String| {
        !word.is_empty()
            && !word.starts_with('-')
            && word.len() <= 60
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/".contains(&byte))
    };
    if let Some((_, count)) = SUBCOMMANDS.iter().find(|(name, _)| *name == base) {
        let words: Vec<String> = rest
            .iter()
            .take(*count)
            .take_while(plain)
            .cloned()
            .collect();
        return match (words.is_empty(), rest.is_empty()) {
            (false, _) => Basis::Words(program.to_owned(), words),
            // Nothing behind it, or an option that comes before the word.
            (true, _) => Basis::Lines(program.to_owned()),
        };
    }
    if INTERPRETERS.contains(&base) {
        return match rest.first().filter(plain) {
            Some(script) => Basis::Words(program.to_owned(), vec![script.clone()]),
            None => Basis::Lines(program.to_owned()),
        };
    }
    if CAREFUL.contains(&base) {
        return Basis::Lines(program.to_owned());
    }
    Basis::Program(program.to_owned())
}

/// A pattern for exactly this line. A space inside a word may have been a line break, which the trail writes as a
/// space.
fn exactly(words: &[String]) -> String {
    let words: Vec<String> = words
        .iter()
        .map(|word| escaped(word).replace(' ', "?"))
        .collect();
    words.join(" ")
}

/// A text as a pattern that matches nothing else.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '*' | '?' | '[' => {
                pattern.push('[');
                pattern.push(character);
                pattern.push(']');
            }
            other => pattern.push(other),
        }
    }
    pattern
}

/// Ids that have been given.
#[derive(Default)]
struct Ids(BTreeSet<String>);

impl Ids {
    fn claim(&mut self, wanted: &str) -> String {
        const RESERVED: [&str; 6] = [
            "default",
            "fileless",
            "loader",
            "metadata",
            "transparent",
            "",
        ];
        let mut id: String = wanted
            .chars()
            .map(|character| {
                if character.is_control() {
                    '_'
                } else {
                    character
                }
            })
            .take(ID_MAX)
            .collect();
        if RESERVED.contains(&id.as_str()) || id.starts_with("socket:") {
            id = format!("seen {id}");
        }
        let mut free = id.clone();
        let mut number = 2;
        while !self.0.insert(free.clone()) {
            free = format!("{id} ({number})");
            number += 1;
        }
        free
    }
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
