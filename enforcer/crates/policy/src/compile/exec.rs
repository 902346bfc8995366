//! Exec rules as groups: by the program that they name, or shared by all programs.

mod patterns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use enforcer_common::{
    rule::{HEAD_GROUPS, HEAD_NAME_MAX, Head, PolicyHeader, SHARED_GROUPS},
    table::{GroupRef, hash_name},
};

use crate::{
    Decision,
    model::{ArgvPattern, ExecPolicy, Patterns, Rule},
};

use super::{
    CompileError, RuleRef,
    automaton::Alphabet,
    glob::Glob,
    group::{BUDGETS, Groups, Item, Refusal, STATES},
    path,
    rank::Ranks,
    search,
};

/// What the exec rules become, beside their groups.
pub(super) struct ExecTables {
    /// The fixed part. It denies every connect.
    pub(super) header: PolicyHeader,
    /// Programs by the keyed hash of their name.
    pub(super) heads: HashMap<u64, Head>,
    /// What each rank stands for.
    pub(super) ranks: Vec<RuleRef>,
}

/// Compiles `rules` of the exec policy into `groups`.
pub(super) fn tables(
    groups: &mut Groups,
    exec: &ExecPolicy,
    rules: &[(RuleRef, Decision)],
    transparent: &[String],
    seed: u64,
) -> Result<ExecTables, CompileError> {
    let ranks = Ranks::new(vec![RuleRef::None, RuleRef::Transparent], rules);
    ranks.fit("exec.rules")?;
    sorted(groups, exec, ranks, transparent)?.finish(seed)
}

/// The patterns of all rules, sorted to the programs that they name.
pub(super) struct Sorted {
    /// By the program's name; over what stands behind it.
    pub(super) heads: BTreeMap<Vec<u8>, Lists>,
    /// Over the whole text.
    pub(super) shared: Lists,
    /// What the ranks of the patterns stand for.
    pub(super) ranks: Ranks,
}

/// The patterns that [`tables`] makes groups of.
pub(super) fn patterns(
    groups: &mut Groups,
    exec: &ExecPolicy,
    rules: &[(RuleRef, Decision)],
) -> Result<Sorted, CompileError> {
    let ranks = Ranks::new(vec![RuleRef::None, RuleRef::Transparent], rules);
    ranks.fit("exec.rules")?;
    let compiler = sorted(groups, exec, ranks, &[])?;
    Ok(Sorted {
        heads: compiler.heads,
        shared: compiler.shared,
        ranks: compiler.ranks,
    })
}

fn sorted<'a>(
    groups: &'a mut Groups,
    exec: &'a ExecPolicy,
    ranks: Ranks,
    transparent: &[String],
) -> Result<Compiler<'a>, CompileError> {
    let mut compiler = Compiler {
        exec,
        ranks,
        groups,
        heads: BTreeMap::new(),
        shared: Lists::default(),
        known: HashMap::new(),
        within: HashMap::new(),
        lifts: HashMap::new(),
    };
    compiler.learn();
    compiler.collect(transparent)?;
    Ok(compiler)
}

/// Patterns that share groups, by what their automata have in common.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Over text, begin where it begins: they die early, so they are cheap.
    anchored: Vec<Item>,
    /// Over text, begin anywhere.
    floating: Vec<Item>,
    /// Over words.
    words: Vec<Item>,
}

impl Lists {
    /// All of them, each with what its bytes mean.
    pub(super) fn items(&self) -> impl Iterator<Item = (Alphabet, &Item)> {
        let text = self.anchored.iter().chain(&self.floating);
        text.map(|item| (Alphabet::Text, item))
            .chain(self.words.iter().map(|item| (Alphabet::Exact, item)))
    }
}

struct Compiler<'a> {
    exec: &'a ExecPolicy,
    ranks: Ranks,
    groups: &'a mut Groups,
    heads: BTreeMap<Vec<u8>, Lists>,
    shared: Lists,
    known: HashMap<String, Known>,
    /// What is dangerous of patterns, by what decides on it: alphabet, expressions, where the danger's walk stands.
    within: HashMap<(Alphabet, Vec<usize>, u32), Option<Vec<usize>>>,
    /// The lines that rules are lifted from, by their places.
    lifts: HashMap<usize, Rc<super::automaton::Automaton>>,
}

/// Which list of a program, or of what is shared, a pattern goes to.
#[derive(Clone, Copy, Debug)]
enum List {
    Anchored,
    Floating,
    Words,
}

impl List {
    fn alphabet(self) -> Alphabet {
        match self {
            Self::Anchored | Self::Floating => Alphabet::Text,
            Self::Words => Alphabet::Exact,
        }
    }
}

/// What the ask and deny rules of one program name as words.
#[derive(Debug, Default)]
struct Known {
    words: BTreeSet<String>,
    rules: usize,
}

/// States that an automaton may have before it is reduced.
const LIMIT: usize = BUDGETS[1] * STATES;

const BAD_WORD: &str = "write it without that";
const SIMPLER: &str = "make it shorter, use fewer wildcards and repetitions, or begin it with the program's name and a space";
const SPREAD: &str =
    "begin patterns with a program's name and a space, write them as argv rules, or join them";

impl Compiler<'_> {
    /// Finds the words that ask and deny rules name.
    fn learn(&mut self) {
        let exec = self.exec;
        for of in &self.ranks.refs {
            let Some(at) = of.rule() else { continue };
            let rule = &exec.rules[at];
            let allows = *of == RuleRef::Rule(at) && rule.decision == Decision::Allow;
            if let Patterns::Argv(pattern) = &rule.matcher
                && !allows
                && !self.splits(*of)
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
                RuleRef::Builtin(builtin) => match builtin.guard() {
                    Some(rule) => self.matched(rank, &rule.matcher, false)?,
                    None => self.regex(rank, &loader())?,
                },
                RuleRef::Rule(at) => {
                    let allow = self.exec.rules[at].decision == Decision::Allow;
                    self.rule(rank, at, allow)?;
                }
                // Such a rule sees what rules of its new decision see. Of a rule that goes on allowing what is not
                // dangerous, what it allows is split, and nothing more.
                RuleRef::Raised(at) | RuleRef::Lacking(at) => {
                    let split = self.splits(of);
                    self.rule(rank, at, split)?;
                }
            }
        }
        Ok(())
    }

    fn rule(&mut self, rank: u16, at: usize, allow: bool) -> Result<(), CompileError> {
        let exec = self.exec;
        self.matched(rank, &exec.rules[at].matcher, allow)
    }

    fn matched(&mut self, rank: u16, matcher: &Patterns, allow: bool) -> Result<(), CompileError> {
        match matcher {
            Patterns::Glob(globs) => {
                for text in globs {
                    self.glob(rank, text, allow)?;
                }
            }
            Patterns::Regex(regexes) => {
                for text in regexes {
                    self.regex(rank, text)?;
                }
            }
            Patterns::Argv(pattern) => {
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

    /// An error about a pattern of the rule with this rank.
    fn wrong(&self, rank: u16, pattern: &str, why: &str, mend: &'static str) -> CompileError {
        let rule = match self.ranks.refs[usize::from(rank)] {
            RuleRef::Rule(at) | RuleRef::Raised(at) | RuleRef::Lacking(at) => {
                self.exec.rules[at].id.clone()
            }
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
    fn finish(mut self, seed: u64) -> Result<ExecTables, CompileError> {
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
            path: path::group(self.groups, &self.exec.trusted_dirs)?,
            shared_count: groups.len() as u32,
            ask_from: self.ranks.ask_from,
            deny_from: self.ranks.deny_from,
            exec_default: self.exec.default.number(),
            fileless: self.exec.fileless.number(),
            descriptor: self.exec.descriptor.number(),
            connect_default: Decision::Deny.number(),
            unix_default: Decision::Deny.number(),
            unix_ask_from: 1,
            unix_deny_from: 1,
            seed,
            ..PolicyHeader::default()
        };
        header.shared[..groups.len()].copy_from_slice(&groups);
        Ok(ExecTables {
            header,
            heads,
            ranks: self.ranks.refs,
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

/// The names, up to their first space, of the only programs that a rule can match; `None` if it looks at all.
pub fn programs(rule: &Rule) -> Option<Vec<Vec<u8>>> {
    let cut = |name: &str| {
        let end = name.find(' ').unwrap_or(name.len());
        (end <= HEAD_NAME_MAX).then(|| name.as_bytes()[..end].to_vec())
    };
    match &rule.matcher {
        Patterns::Glob(globs) => globs
            .iter()
            .map(|text| {
                Glob::parse(text)
                    .head()
                    .filter(|head| head.len() <= HEAD_NAME_MAX)
            })
            .map(|head| head.map(String::into_bytes))
            .collect(),
        Patterns::Argv(pattern) => pattern.program.iter().map(|name| cut(name)).collect(),
        Patterns::Regex(regexes) => {
            let mut names = Vec::new();
            for text in regexes {
                for search in search::split(&search::parse(text).ok()?) {
                    names.push(search.head.filter(|head| head.len() <= HEAD_NAME_MAX)?);
                }
            }
            Some(names)
        }
    }
}

/// The expression of the built-in loader rule: the names that dynamic loaders have (glibc, musl), in any
/// directory, alone or with arguments.
fn loader() -> String {
    r"^(?:[^ ]*/)?ld(?:64|-[^ /]*)?\.so[^ /]*(?: |$)".to_owned()
}
