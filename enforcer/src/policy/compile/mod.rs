//! A policy to tables: patterns become groups of small automata ([`enforcer_common::table`]), programs become
//! hashed heads that lead to groups of their own, networks become prefixes.
//!
//! Pure: the kernel side puts the result into maps, [`crate::decide::Matcher`] walks it in user space.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::{
    rule::{ConnectValue, HEAD_GROUPS, HEAD_NAME_MAX, Head, PolicyHeader, SHARED_GROUPS},
    table::{GroupRef, Segment, hash_name},
};
use thiserror::Error;

use crate::{
    decide::Decision,
    policy::model::{ArgvPattern, ExecPolicy, Matcher, Policy, Rule},
};

mod arena;
mod argv;
mod automaton;
mod connect;
mod glob;
mod group;
mod minimise;
mod path;
mod rank;
#[cfg(test)]
mod reference_tests;
mod row;
mod search;
mod subsets;
mod union;

pub use connect::{ConnectPrefix, number as protocol_number};

use argv::Reading;
use automaton::Alphabet;
use glob::Glob;
use group::{Groups, Item, Refusal};
use rank::Ranks;

/// A rule that every policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The dynamic loader started as a program (`loader`).
    Loader,
    /// Link-local and metadata addresses (`metadata`).
    Metadata,
}

impl Builtin {
    /// The rule's id in reasons and in the trail.
    pub fn id(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Metadata => "metadata",
        }
    }
}

/// What a rank stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleRef {
    /// No rule.
    None,
    /// A transparent program.
    Transparent,
    /// A rule, by its index in the policy's list.
    Rule(usize),
    /// A rule that every policy has.
    Builtin(Builtin),
}

/// A compiled policy.
#[derive(Debug)]
pub struct Tables {
    /// The fixed part; `first_segment` is 0.
    pub header: PolicyHeader,
    /// The segments that all group references point into.
    pub segments: Vec<Box<Segment>>,
    /// Programs by the keyed hash of their name.
    pub heads: HashMap<u64, Head>,
    /// What each exec rank stands for; the index is the rank.
    pub ranks: Vec<RuleRef>,
    /// The connect entries, sorted.
    pub connect: Vec<(ConnectPrefix, ConnectValue)>,
    /// What each connect rank stands for; the index is the rank.
    pub connect_ranks: Vec<RuleRef>,
    /// First connect rank that asks.
    pub connect_ask_from: u32,
    /// First connect rank that denies.
    pub connect_deny_from: u32,
}

/// Why a policy has no tables.
#[derive(Debug, Error)]
pub enum CompileError {
    /// A pattern that is wrong, or that the tables cannot hold.
    #[error("exec rule `{rule}`: pattern `{pattern}`: {why}; {mend}")]
    Pattern {
        /// The rule's id.
        rule: String,
        /// The pattern as the policy has it.
        pattern: String,
        /// What is wrong.
        why: String,
        /// What to do.
        mend: &'static str,
    },
    /// The trusted directories make no group.
    #[error("exec.trusted_dirs: {why}; name fewer or shorter directories")]
    TrustedDirs {
        /// What is wrong.
        why: String,
    },
    /// More rules than ranks.
    #[error(
        "exec.rules: {count} rules are more than the {max} that the tables can rank; join rules with the same decision"
    )]
    TooManyRules {
        /// How many there are.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// Two programs with the same keyed hash.
    #[error(
        "programs `{first}` and `{second}` have the same hash under this seed; load the policy again"
    )]
    Collision {
        /// One program.
        first: String,
        /// The other.
        second: String,
    },
}

/// Compiles a policy. `seed` keys the hashes of program names: secret, and new for each load.
///
/// An allow rule that `requires` capabilities gets no rank, because no agent has capabilities yet.
///
/// # Errors
///
/// [`CompileError`] names the rule and pattern that the tables cannot hold; nothing is left out or weakened.
pub fn compile(policy: &Policy, seed: u64) -> Result<Tables, CompileError> {
    let exec = &policy.exec;
    let mut rules: Vec<_> = exec
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.decision != Decision::Allow || rule.requires.is_empty())
        .map(|(at, rule)| (RuleRef::Rule(at), rule.decision))
        .collect();
    rules.push((RuleRef::Builtin(Builtin::Loader), exec.loader));
    let mut tables = exec_tables(exec, &rules, &exec.transparent, seed)?;
    let (entries, ranks) = connect::table(&policy.connect);
    tables.connect = entries;
    tables.connect_ask_from = ranks.ask_from;
    tables.connect_deny_from = ranks.deny_from;
    tables.connect_ranks = ranks.refs;
    tables.header.connect_default = policy.connect.default.number();
    Ok(tables)
}

/// Compiles one exec rule alone, with nothing built in: for a rule's own examples.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_rule(
    rule: &Rule,
    trusted_dirs: &[String],
    seed: u64,
) -> Result<Tables, CompileError> {
    let exec = ExecPolicy {
        default: Decision::Deny,
        trusted_dirs: trusted_dirs.to_vec(),
        transparent: Vec::new(),
        fileless: Decision::Deny,
        loader: Decision::Deny,
        rules: vec![rule.clone()],
    };
    exec_tables(&exec, &[(RuleRef::Rule(0), rule.decision)], &[], seed)
}

/// The exec part, with an empty connect part.
fn exec_tables(
    exec: &ExecPolicy,
    rules: &[(RuleRef, Decision)],
    transparent: &[String],
    seed: u64,
) -> Result<Tables, CompileError> {
    let ranks = Ranks::new(vec![RuleRef::None, RuleRef::Transparent], rules);
    let max = usize::from(u16::MAX);
    if ranks.refs.len() > max {
        return Err(CompileError::TooManyRules {
            count: ranks.refs.len(),
            max,
        });
    }
    let mut compiler = Compiler {
        exec,
        ranks,
        groups: Groups::default(),
        heads: BTreeMap::new(),
        shared: Lists::default(),
        known: HashMap::new(),
    };
    compiler.learn();
    compiler.collect(transparent)?;
    compiler.finish(seed)
}

/// Patterns that share groups, by what their automata have in common.
#[derive(Debug, Default)]
struct Lists {
    /// Over text, begin where it begins: they die early, so they are cheap.
    anchored: Vec<Item>,
    /// Over text, begin anywhere.
    floating: Vec<Item>,
    /// Over words.
    words: Vec<Item>,
}

struct Compiler<'a> {
    exec: &'a ExecPolicy,
    ranks: Ranks,
    groups: Groups,
    heads: BTreeMap<Vec<u8>, Lists>,
    shared: Lists,
    known: HashMap<String, Known>,
}

/// What the ask and deny rules of one program name as words.
#[derive(Debug, Default)]
struct Known {
    words: BTreeSet<String>,
    rules: usize,
}

const BAD_WORD: &str = "write it without that";
const SIMPLER: &str = "make it shorter, use fewer wildcards and repetitions, or begin it with the program's name and a space";
const SPREAD: &str =
    "begin patterns with a program's name and a space, write them as argv rules, or join them";

impl Compiler<'_> {
    /// Finds the words that ask and deny rules name.
    fn learn(&mut self) {
        let exec = self.exec;
        for of in &self.ranks.refs {
            let RuleRef::Rule(at) = of else { continue };
            let rule = &exec.rules[*at];
            if let Matcher::Argv(pattern) = &rule.matcher
                && rule.decision != Decision::Allow
                && !pattern.words.is_empty()
            {
                for program in &pattern.program {
                    let known = self.known.entry(program.clone()).or_default();
                    known.rules += 1;
                    known.words.extend(pattern.words.iter().flatten().cloned());
                }
            }
        }
    }

    /// Sorts the patterns of all rules to their programs, or to the shared lists.
    fn collect(&mut self, transparent: &[String]) -> Result<(), CompileError> {
        for (rank, of) in self.ranks.refs.clone().into_iter().enumerate() {
            let rank = rank as u16;
            match of {
                RuleRef::None => {}
                RuleRef::Transparent => {
                    for program in transparent {
                        self.argv(rank, program, &ArgvPattern::default(), true, program)?;
                    }
                }
                RuleRef::Builtin(_) => {
                    let text = loader();
                    self.regex(rank, &text)?;
                }
                RuleRef::Rule(at) => self.rule(rank, at)?,
            }
        }
        Ok(())
    }

    fn rule(&mut self, rank: u16, at: usize) -> Result<(), CompileError> {
        let exec = self.exec;
        let rule = &exec.rules[at];
        let allow = rule.decision == Decision::Allow;
        match &rule.matcher {
            Matcher::Glob(globs) => {
                for text in globs {
                    self.glob(rank, text, allow)?;
                }
            }
            Matcher::Regex(regexes) => {
                for text in regexes {
                    self.regex(rank, text)?;
                }
            }
            Matcher::Argv(pattern) => {
                if pattern.program.is_empty() {
                    return Err(self.wrong(
                        rank,
                        "argv",
                        "no program is named",
                        "name one in `program`",
                    ));
                }
                if pattern.words.iter().any(Vec::is_empty) {
                    let why = "an entry of `words` has no alternatives";
                    return Err(self.wrong(rank, "argv", why, "give it a word or take it out"));
                }
                for program in &pattern.program {
                    self.argv(rank, program, pattern, allow, program)?;
                }
            }
        }
        Ok(())
    }

    fn glob(&mut self, rank: u16, text: &str, allow: bool) -> Result<(), CompileError> {
        let glob = Glob::parse(text);
        let head = glob.head().filter(|name| name.len() <= HEAD_NAME_MAX);
        let expression = match head {
            Some(_) => glob.after_head(),
            None => glob.whole(allow),
        };
        let piece = self
            .groups
            .expressions
            .add(expression)
            .map_err(|error| self.wrong(rank, text, &error, SIMPLER))?;
        let item = Item {
            rank,
            pieces: vec![piece],
            weight: glob.stars(),
            text: text.to_owned(),
        };
        match head {
            Some(name) => self.head(name.into_bytes()).anchored.push(item),
            None if glob.floats() => self.shared.floating.push(item),
            None => self.shared.anchored.push(item),
        }
        Ok(())
    }

    fn regex(&mut self, rank: u16, text: &str) -> Result<(), CompileError> {
        let hir = search::parse(text).map_err(|error| {
            let mend = "correct it; classes are ASCII, write `(?u:...)` for Unicode ones";
            self.wrong(rank, text, &error, mend)
        })?;
        for search in search::split(&hir) {
            let weight = search::weight(&search.hir);
            let head = search.head.filter(|name| name.len() <= HEAD_NAME_MAX);
            let item = Item {
                rank,
                pieces: vec![self.groups.expressions.add_hir(search.hir)],
                weight,
                text: text.to_owned(),
            };
            match head {
                Some(name) => self.head(name).anchored.push(item),
                None if search.floats => self.shared.floating.push(item),
                None => self.shared.anchored.push(item),
            }
        }
        Ok(())
    }

    fn argv(
        &mut self,
        rank: u16,
        program: &str,
        pattern: &ArgvPattern,
        strict: bool,
        text: &str,
    ) -> Result<(), CompileError> {
        let words = pattern.words.iter().flatten();
        let flags = pattern.flags_any.iter().chain(&pattern.flags_all);
        if let Some(bad) = words.chain(flags).find(|word| word.contains('\0')) {
            return Err(self.wrong(rank, bad, "a word cannot contain a NUL byte", BAD_WORD));
        }
        if program.is_empty() || program.contains('\0') {
            let why = "a program's name cannot be empty or contain a NUL byte";
            return Err(self.wrong(rank, program, why, BAD_WORD));
        }
        // Names are looked up to their first space, whatever the rule.
        let space = program.find(' ').unwrap_or(program.len());
        let (name, behind) = if space > HEAD_NAME_MAX {
            ("", program)
        } else {
            program.split_at(space)
        };
        let known = self.known.get(program).filter(|known| known.rules > 1);
        let reading = match known {
            _ if strict => Reading::Strict,
            Some(known) => Reading::Known(&known.words),
            None => Reading::Any,
        };
        let mut lines = vec![argv::pieces(pattern, behind, reading)];
        if let Reading::Known(words) = reading
            && let Some(line) = argv::ambiguous(pattern, behind, words)
        {
            lines.push(vec![line]);
        }
        for line in lines {
            let mut pieces = Vec::new();
            for piece in line {
                let piece = self
                    .groups
                    .expressions
                    .add(piece)
                    .map_err(|error| self.wrong(rank, text, &error, SIMPLER))?;
                pieces.push(piece);
            }
            let item = Item {
                rank,
                weight: pieces.len() - 1,
                pieces,
                text: text.to_owned(),
            };
            if space > HEAD_NAME_MAX {
                self.shared.words.push(item);
            } else {
                self.head(name.as_bytes().to_vec()).words.push(item);
            }
        }
        Ok(())
    }

    fn head(&mut self, name: Vec<u8>) -> &mut Lists {
        self.heads.entry(name).or_default()
    }

    /// An error about a pattern of the rule with this rank.
    fn wrong(&self, rank: u16, pattern: &str, why: &str, mend: &'static str) -> CompileError {
        let rule = match self.ranks.refs[usize::from(rank)] {
            RuleRef::Rule(at) => self.exec.rules[at].id.clone(),
            RuleRef::Builtin(builtin) => builtin.id().to_owned(),
            RuleRef::Transparent | RuleRef::None => "exec.transparent".to_owned(),
        };
        CompileError::Pattern {
            rule,
            pattern: pattern.to_owned(),
            why: why.to_owned(),
            mend,
        }
    }

    fn refused(&self, refusal: Refusal, room: usize, place: &str) -> CompileError {
        match refusal {
            Refusal::TooLarge(item) => {
                let why = "its automaton is larger than a table segment holds";
                self.wrong(item.rank, &item.text, why, SIMPLER)
            }
            Refusal::Unsupported(item, why) => self.wrong(item.rank, &item.text, &why, SIMPLER),
            Refusal::TooMany(item) => {
                let why = format!("it no longer fits the {room} groups of {place}");
                self.wrong(item.rank, &item.text, &why, SPREAD)
            }
        }
    }

    /// Builds all groups.
    fn finish(mut self, seed: u64) -> Result<Tables, CompileError> {
        let mut heads = HashMap::new();
        let mut names: HashMap<u64, Vec<u8>> = HashMap::new();
        for (name, lists) in std::mem::take(&mut self.heads) {
            let groups = self.place(&lists, HEAD_GROUPS, || {
                format!("the program `{}`", String::from_utf8_lossy(&name))
            })?;
            let mut head = Head {
                count: groups.len() as u32,
                ..Head::default()
            };
            head.groups[..groups.len()].copy_from_slice(&groups);
            let hash = hash_name(seed, &name);
            if let Some(other) = names.insert(hash, name.clone()) {
                return Err(CompileError::Collision {
                    first: String::from_utf8_lossy(&other).into_owned(),
                    second: String::from_utf8_lossy(&name).into_owned(),
                });
            }
            heads.insert(hash, head);
        }
        let lists = std::mem::take(&mut self.shared);
        let groups = self.place(&lists, SHARED_GROUPS, || {
            "patterns that begin with no program's name".to_owned()
        })?;
        let mut header = PolicyHeader {
            path: path::group(&mut self.groups, &self.exec.trusted_dirs)?,
            shared_count: groups.len() as u32,
            ask_from: self.ranks.ask_from,
            deny_from: self.ranks.deny_from,
            exec_default: self.exec.default.number(),
            fileless: self.exec.fileless.number(),
            connect_default: Decision::Deny.number(),
            seed,
            ..PolicyHeader::default()
        };
        header.shared[..groups.len()].copy_from_slice(&groups);
        Ok(Tables {
            header,
            segments: self.groups.arena.finish(),
            heads,
            ranks: self.ranks.refs,
            connect: Vec::new(),
            connect_ranks: vec![RuleRef::None],
            connect_ask_from: 1,
            connect_deny_from: 1,
        })
    }

    fn place(
        &mut self,
        lists: &Lists,
        room: usize,
        place: impl FnOnce() -> String,
    ) -> Result<Vec<GroupRef>, CompileError> {
        let all = [
            (Alphabet::Text, lists.anchored.as_slice()),
            (Alphabet::Text, lists.floating.as_slice()),
            (Alphabet::Exact, lists.words.as_slice()),
        ];
        self.groups
            .place(&all, room)
            .map_err(|refusal| self.refused(refusal, room, &place()))
    }
}

/// The expression of the built-in loader rule: the names that dynamic loaders have (glibc, musl), in any
/// directory, alone or with arguments.
fn loader() -> String {
    r"^(?:[^ ]*/)?ld(?:64|-[^ /]*)?\.so[^ /]*(?: |$)".to_owned()
}
