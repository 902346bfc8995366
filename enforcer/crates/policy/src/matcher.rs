//! Walks compiled tables as the kernel does: the same forms, heads, groups and ranks, over the same walker.

use std::{collections::HashMap, sync::Arc};

use enforcer_common::{
    address,
    event::{CAUSE_DEFAULT, CAUSE_FILELESS, CAUSE_RULE, CAUSE_TRANSPARENT},
    rule::{
        ConnectValue, HEAD_NAME_MAX, PATH_DESCRIPTOR, PATH_TRUSTED, PATH_WINDING, RANK_TRANSPARENT,
    },
    table::{Group, GroupRef, hash_name, word},
};

use crate::{
    compile::{ConnectPrefix, Tables},
    unix_name,
};

use super::{
    Cause, Decision,
    action::{ConnectAction, ExecAction, UnixAction, joined},
};

/// What the tables say of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The decision.
    pub decision: Decision,
    /// Rank of the rule that decided, 0 for none.
    pub rank: u32,
    /// One of the `CAUSE_` constants of [`enforcer_common::event`].
    pub cause: u32,
}

impl Judgement {
    /// What decided.
    pub fn cause(&self) -> Cause {
        Cause::from_number(self.cause)
    }
}

/// A compiled policy, ready to judge.
#[derive(Clone, Debug)]
pub struct Matcher {
    tables: Arc<Tables>,
    connect: HashMap<ConnectPrefix, ConnectValue>,
}

/// One way to name the program of an exec.
struct Form<'a> {
    program: Vec<u8>,
    /// What follows: for each argument a NUL and the argument.
    rest: &'a [u8],
    /// Whether allow rules see it.
    allow: bool,
    /// Whether it is a path whose base name is a form of its own: what a transparent shell is told to run is data here
    /// too.
    path: bool,
}

impl Form<'_> {
    /// Its program up to the first space, by which programs are found.
    fn name(&self) -> &[u8] {
        let end = self.program.iter().position(|byte| *byte == b' ');
        &self.program[..end.unwrap_or(self.program.len())]
    }
}

impl Matcher {
    /// A matcher over `tables`.
    pub fn new(tables: Arc<Tables>) -> Self {
        let connect = tables.connect.iter().copied().collect();
        Self { tables, connect }
    }

    /// The tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The highest accept number of a group over a text in parts; 0 if nothing matches.
    fn accept(&self, group: &GroupRef, parts: [&[u8]; 2]) -> u32 {
        let Some(segment) = self.tables.segments.get(group.segment as usize) else {
            return 0;
        };
        let (walker, mut cursor) = Group::read(segment, group.at);
        for byte in parts.into_iter().flatten() {
            if cursor.state == 0 {
                return cursor.accept;
            }
            walker.step(segment, &mut cursor, *byte);
        }
        walker.finish(segment, &mut cursor);
        cursor.accept
    }

    /// The rank that a group gives to a text in parts.
    fn rank(&self, group: &GroupRef, parts: [&[u8]; 2]) -> u32 {
        let accept = self.accept(group, parts);
        match self.tables.segments.get(group.ranks_segment as usize) {
            Some(segment) if accept > 0 => {
                u32::from(word(segment, group.ranks_at.wrapping_add(accept - 1)))
            }
            _ => 0,
        }
    }

    /// The rank that a program's own groups give to `behind` and `rest`.
    fn own_rank(&self, name: &[u8], behind: [&[u8]; 2]) -> u32 {
        let header = &self.tables.header;
        let mut best = 0;
        if name.len() <= HEAD_NAME_MAX
            && let Some(head) = self.tables.heads.get(&hash_name(header.seed, name))
        {
            for group in head.groups.iter().take(head.count as usize) {
                best = best.max(self.rank(group, behind));
            }
        }
        best
    }

    fn form(&self, form: &Form<'_>) -> u32 {
        let header = &self.tables.header;
        let name = form.name();
        let mut best = self.own_rank(name, [&form.program[name.len()..], form.rest]);
        // What a transparent shell is told to run is data here: it is judged when it runs.
        if best != RANK_TRANSPARENT {
            let rest = if form.path && self.is_transparent(form) {
                b""
            } else {
                form.rest
            };
            for group in header.shared.iter().take(header.shared_count as usize) {
                best = best.max(self.rank(group, [&form.program, rest]));
            }
        }
        if form.allow || best >= header.ask_from {
            best
        } else {
            0
        }
    }

    /// Whether a path's base name is a transparent program's.
    fn is_transparent(&self, form: &Form<'_>) -> bool {
        let base = base_name(&form.program);
        let end = base.iter().position(|byte| *byte == b' ');
        let (name, behind) = base.split_at(end.unwrap_or(base.len()));
        self.own_rank(name, [behind, form.rest]) == RANK_TRANSPARENT
    }

    /// The highest rank that any form of an exec reaches; 0 if no rule matches.
    pub fn exec_rank(&self, action: &ExecAction) -> u32 {
        self.ranked(action, self.path_class(action))
    }

    /// The names of the program in all forms, as the tables of programs have them.
    pub fn names(&self, action: &ExecAction) -> Vec<Vec<u8>> {
        let class = self.path_class(action);
        let arguments = action.arguments();
        let interpreted = interpreted(action);
        let own = script_words(action);
        Self::forms(action, class, &arguments, [&interpreted, &own])
            .iter()
            .map(|form| form.name().to_vec())
            .collect()
    }

    /// Whether the program lies in a trusted directory, and goes by its base name.
    pub fn is_trusted(&self, action: &ExecAction) -> bool {
        goes_by_name(action, self.path_class(action))
    }

    fn path_class(&self, action: &ExecAction) -> u32 {
        self.accept(&self.tables.header.path, [&action.path, b""])
    }

    fn ranked(&self, action: &ExecAction, class: u32) -> u32 {
        let arguments = action.arguments();
        let interpreted = interpreted(action);
        let own = script_words(action);
        Self::forms(action, class, &arguments, [&interpreted, &own])
            .iter()
            .map(|form| self.form(form))
            .max()
            .unwrap_or(0)
    }

    /// The text that allow rules see and that the trail shows: the program, then for each argument a NUL and the
    /// argument.
    pub fn text(&self, action: &ExecAction) -> Vec<u8> {
        let trusted = goes_by_name(action, self.path_class(action));
        [first_form(&action.path, trusted), action.arguments()].concat()
    }

    /// Judges an exec.
    pub fn exec(&self, action: &ExecAction) -> Judgement {
        let header = &self.tables.header;
        let path_class = self.path_class(action);
        let rank = self.ranked(action, path_class);
        let (decision, cause) = match rank {
            0 => (Decision::from_number(header.exec_default), CAUSE_DEFAULT),
            RANK_TRANSPARENT => (Decision::Allow, CAUSE_TRANSPARENT),
            rank if rank >= header.deny_from => (Decision::Deny, CAUSE_RULE),
            rank if rank >= header.ask_from => (Decision::Ask, CAUSE_RULE),
            _ => (Decision::Allow, CAUSE_RULE),
        };
        if action.fileless || path_class == PATH_DESCRIPTOR {
            // Its own setting stands in for the default, and is the least that is said.
            let nameless = Decision::from_number(if action.fileless {
                header.fileless
            } else {
                header.descriptor
            });
            if rank == 0 || nameless > decision {
                return Judgement {
                    decision: nameless,
                    rank: 0,
                    cause: CAUSE_FILELESS,
                };
            }
        }
        Judgement {
            decision,
            rank,
            cause,
        }
    }

    /// The forms that an exec is judged in: the first is the one that allow rules see.
    fn forms<'a>(
        action: &ExecAction,
        class: u32,
        arguments: &'a [u8],
        [interpreted, own]: [&'a [u8]; 2],
    ) -> Vec<Form<'a>> {
        let trusted = goes_by_name(action, class);
        let first = first_form(&action.path, trusted);
        // The text joins words by spaces, so a name with a space could pose as a program with arguments. A path that goes
        // back up is not below the directory that it begins with.
        let allow = trusted || !first.contains(&b' ') && class != PATH_WINDING;
        let mut forms = vec![Form {
            program: first,
            rest: arguments,
            allow,
            path: false,
        }];
        let mut add = |program: &[u8], rest: &'a [u8], path: bool| {
            let known = forms
                .iter()
                .any(|form| form.program == program && std::ptr::eq(form.rest, rest));
            if !program.is_empty() && !known {
                forms.push(Form {
                    program: program.to_vec(),
                    rest,
                    allow: false,
                    path,
                });
            }
        };
        add(base_name(&action.path), arguments, false);
        let runs = if let Some(script) = &action.script {
            // As the kernel has it: by its path as it is written, trusted or not.
            add(base_name(&script.interpreter), interpreted, false);
            add(&script.interpreter, interpreted, false);
            // The kernel cannot tell an interpreter's argument from a script in between.
            if let Some(argument) = &script.argument {
                add(base_name(argument), own, false);
            }
            interpreted
        } else {
            arguments
        };
        if let Some(resolved) = &action.resolved {
            add(base_name(resolved), runs, false);
            if resolved.contains(&b'/') && !action.fileless {
                add(resolved, runs, true);
            }
        }
        if action.script.is_none()
            && let Some(name) = action.argv.first()
            && name.len() <= HEAD_NAME_MAX
        {
            add(base_name(name), arguments, false);
            if name.contains(&b'/') && !name.ends_with(b"/") {
                add(name, arguments, true);
            }
        }
        if let Some(script) = &action.own {
            add(base_name(script), arguments, false);
            add(script, arguments, false);
        }
        if trusted && !action.found {
            add(&action.path, arguments, true);
        }
        forms
    }

    /// Judges a connect.
    pub fn connect(&self, action: &ConnectAction) -> Judgement {
        let address = address::normalise(action.address);
        let forms = [
            (action.protocol, action.port),
            (action.protocol, 0),
            (0, action.port),
            (0, 0),
        ];
        let best = forms
            .into_iter()
            .filter_map(|(protocol, port)| self.longest(protocol, port, address))
            .max_by_key(|value| value.rank)
            .filter(|value| value.rank > 0);
        match best {
            Some(value) => Judgement {
                decision: Decision::from_number(value.decision),
                rank: value.rank,
                cause: CAUSE_RULE,
            },
            None => Judgement {
                decision: Decision::from_number(self.tables.header.connect_default),
                rank: 0,
                cause: CAUSE_DEFAULT,
            },
        }
    }

    /// Whether a rule names the port of a connect for its address.
    pub fn names_port(&self, action: &ConnectAction) -> bool {
        let address = address::normalise(action.address);
        [action.protocol, 0].into_iter().any(|protocol| {
            self.longest(protocol, action.port, address)
                .is_some_and(|value| value.rank > 0)
        })
    }

    /// Judges a connect to a unix socket.
    pub fn unix(&self, action: &UnixAction) -> Judgement {
        let header = &self.tables.header;
        let name = unix_name::normalised(&action.name);
        let groups = header.unix.groups.iter().take(header.unix.count as usize);
        let rank = groups.map(|group| self.rank(group, name)).max();
        let (rank, decision, cause) = match rank.unwrap_or(0) {
            0 => (0, Decision::from_number(header.unix_default), CAUSE_DEFAULT),
            rank if rank >= header.unix_deny_from => (rank, Decision::Deny, CAUSE_RULE),
            rank if rank >= header.unix_ask_from => (rank, Decision::Ask, CAUSE_RULE),
            rank => (rank, Decision::Allow, CAUSE_RULE),
        };
        Judgement {
            decision,
            rank,
            cause,
        }
    }

    /// The entry with the longest prefix.
    fn longest(&self, protocol: u16, port: u16, address: [u8; 16]) -> Option<ConnectValue> {
        let bits = u128::from_be_bytes(address);
        (0..=128u8).rev().find_map(|prefix| {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            let key = ConnectPrefix {
                protocol,
                port,
                address: (bits & mask).to_be_bytes(),
                prefix,
            };
            self.connect.get(&key).copied()
        })
    }
}

/// Whether the program of an exec goes by its base name; `class` is that of its path.
fn goes_by_name(action: &ExecAction, class: u32) -> bool {
    action.found || class == PATH_TRUSTED && !action.changeable
}

/// The program as allow rules see it: the base name in a trusted directory, else the path as given.
fn first_form(path: &[u8], trusted: bool) -> Vec<u8> {
    if trusted {
        base_name(path).to_vec()
    } else if path.contains(&b'/') {
        path.to_vec()
    } else {
        [b"./", path].concat()
    }
}

/// What follows the last slash.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// What follows the argument of the interpreter when a script runs: the script, the script's arguments.
fn script_words(action: &ExecAction) -> Vec<u8> {
    joined(std::iter::once(&action.path).chain(action.argv.iter().skip(1)))
}

/// What follows the interpreter when a script runs: its argument, the script, the script's arguments.
fn interpreted(action: &ExecAction) -> Vec<u8> {
    let Some(script) = &action.script else {
        return Vec::new();
    };
    let own = script.argument.iter().chain(std::iter::once(&action.path));
    joined(own.chain(action.argv.iter().skip(1)))
}
