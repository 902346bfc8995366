//! A policy for one machine and one user: `~` and `$HOME` become the agent's home, paths through links also what they
//! lead to, and directories that the agent could change are no longer trusted.
//!
//! What is put in is put beside what was written, as another pattern of the same rule, so that command texts, in which a
//! `~` is still a `~`, are judged like execs, in which it is a directory. Only where an allow rule names a *program*
//! does the home take the place of `~`: a directory called `~` is the agent's.

use super::model::{ArgvPattern, ConnectRule, Patterns, Policy};
use crate::Decision;

/// How texts write the home directory.
const SPELLINGS: [&str; 3] = ["${HOME}", "$HOME", "~"];
/// The same as expressions write it.
const ESCAPED: [&str; 2] = [r"\$\{HOME\}", r"\$HOME"];
/// What stands for the home directory where none is known: there is nothing.
const NOWHERE: &str = "/proc/self/fdinfo/no-home";

/// What is known of the machine and the agent's user.
pub struct SettleGround<'a> {
    /// The home directory as it is named, and with links followed if that is another; none if it is not known.
    pub homes: &'a [String],
    /// What a path leads to, links followed, if that is another path and the path exists.
    pub leads_to: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the agent's user can change what lies in a directory.
    pub changeable: &'a dyn Fn(&str) -> bool,
}

/// Puts in what is known.
pub fn settle(policy: &mut Policy, ground: &SettleGround<'_>) {
    for rule in &mut policy.exec.rules {
        let allows = rule.decision == Decision::Allow;
        match &mut rule.matcher {
            Patterns::Glob(globs) => {
                *globs = each(globs, |text| ground.glob(text, allows));
            }
            Patterns::Regex(regexes) => {
                for text in regexes {
                    *text = ground.regex(text, allows);
                }
            }
            Patterns::Argv(pattern) => ground.argv(pattern, allows),
        }
    }
    for rule in &mut policy.connect.rules {
        ground.sockets(rule);
    }
    let changeable = ground.changeable;
    policy.exec.trusted_dirs.retain(|dir| !changeable(dir));
}

/// All that the texts become, without those that stand there already.
fn each(texts: &[String], become_: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(texts.len());
    for text in texts.iter().flat_map(|text| become_(text)) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// A text, cut where it names the home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Home,
}

/// Cuts a text where it names the home directory: where a path can begin, and not as the beginning of a longer name.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let (mut from, mut at) = (0, 0);
    let mut begins = true;
    while let Some(c) = text[at..].chars().next() {
        let spelling = SPELLINGS.iter().find(|spelling| {
            let Some(rest) = text[at..].strip_prefix(**spelling) else {
                return false;
            };
            begins && (spelling.ends_with('}') || !rest.starts_with(is_name))
        });
        if let Some(spelling) = spelling {
            if from < at {
                out.push(Piece::Text(&text[from..at]));
            }
            out.push(Piece::Home);
            at += spelling.len();
            from = at;
            begins = false;
        } else {
            begins = matches!(c, ' ' | '=' | ':' | '@' | ',' | '"' | '\'');
            at += c.len_utf8();
        }
    }
    if from < text.len() {
        out.push(Piece::Text(&text[from..]));
    }
    out
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')
}

/// The text with this for the home directory.
fn with(pieces: &[Piece<'_>], home: &str) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Home => home,
        })
        .collect()
}

/// A path as a glob: its own letters only.
fn literal(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[') {
            out.extend(['[', c, ']']);
        } else {
            out.push(c);
        }
    }
    out
}

impl SettleGround<'_> {
    /// The home directories as globs.
    fn home_globs(&self) -> Vec<String> {
        self.homes.iter().map(|home| literal(home)).collect()
    }

    /// What a glob becomes.
    fn glob(&self, text: &str, allows: bool) -> Vec<String> {
        let mut all = spelled(text, allows, &self.home_globs());
        if !allows {
            let real: Vec<String> = all
                .iter()
                .flat_map(|text| self.real_program(text))
                .collect();
            all.extend(real);
        }
        all
    }

    /// The same with what the program's path leads to, as far as it has no wildcard.
    fn real_program(&self, text: &str) -> Vec<String> {
        let program = text.split(' ').next().unwrap_or_default();
        let wild = program.find(['*', '?', '[']);
        if !program.starts_with('/') {
            return Vec::new();
        }
        let mut all = Vec::new();
        if wild.is_none()
            && let Some(real) = (self.leads_to)(program)
        {
            all.push(format!("{}{}", literal(&real), &text[program.len()..]));
        }
        let fixed = &program[..wild.unwrap_or(program.len())];
        if let Some(end) = fixed.rfind('/').filter(|end| *end > 0)
            && let Some(real) = (self.leads_to)(&fixed[..end])
        {
            all.push(format!(
                "{}{}",
                literal(real.trim_end_matches('/')),
                &text[end..]
            ));
        }
        all
    }

    /// What an expression becomes.
    fn regex(&self, text: &str, allows: bool) -> String {
        if !ESCAPED.iter().any(|spelling| text.contains(spelling)) {
            return text.to_owned();
        }
        // Most expressions have the usual homes among their alternatives: their automata need not grow.
        let named = |home: &String| {
            (home.starts_with("/home/") && text.contains("/home/"))
                || (home == "/root" && text.contains("/root"))
        };
        let homes: Vec<String> = self
            .homes
            .iter()
            .filter(|home| !named(home))
            .map(|home| regex_syntax::escape(home))
            .collect();
        if homes.is_empty() {
            return text.to_owned();
        }
        let mut out = text.to_owned();
        for spelling in ESCAPED {
            let all = if allows {
                format!("(?:{})", homes.join("|"))
            } else {
                format!("(?:{spelling}|{})", homes.join("|"))
            };
            out = out.replace(spelling, &all);
        }
        // In a set it would mean something else.
        match super::validate::regex(&out) {
            Ok(()) => out,
            Err(_) => text.to_owned(),
        }
    }

    fn argv(&self, pattern: &mut ArgvPattern, allows: bool) {
        pattern.program = each(&pattern.program, |program| {
            let mut all = spelled(program, allows, self.homes);
            if !allows {
                let real = all.iter().filter_map(|program| {
                    let end = program.rfind('/').filter(|end| *end > 0)?;
                    let directory = (self.leads_to)(&program[..end])?;
                    Some(format!(
                        "{}{}",
                        directory.trim_end_matches('/'),
                        &program[end..]
                    ))
                });
                let real: Vec<String> = real.collect();
                let files: Vec<String> = all
                    .iter()
                    .filter(|program| program.starts_with('/'))
                    .filter_map(|program| (self.leads_to)(program))
                    .collect();
                all.extend(real);
                all.extend(files);
            }
            all
        });
        // `~` is every home directory there already, where homes usually lie.
        let usual = |home: &str| {
            home == "/root"
                || home
                    .strip_prefix("/home/")
                    .is_some_and(|name| !name.contains('/'))
        };
        let homes: Vec<String> = self
            .homes
            .iter()
            .filter(|home| !usual(home))
            .map(|home| literal(home))
            .collect();
        pattern.args_any = each(&pattern.args_any, |text| {
            let cut = pieces(text);
            let mut all = vec![text.to_owned()];
            if cut.contains(&Piece::Home) {
                // However it is written there.
                all.push(with(&cut, "~"));
                all.extend(homes.iter().map(|home| with(&cut, home)));
            }
            all
        });
    }

    /// Names of sockets are judged with links followed. What an allow rule names is not followed anywhere: the link may be
    /// the agent's.
    fn sockets(&self, rule: &mut ConnectRule) {
        let allows = rule.decision == Decision::Allow;
        rule.unix = each(&rule.unix, |text| {
            let cut = pieces(text);
            let mut all = if cut.first() == Some(&Piece::Home) {
                let homes = self.home_globs();
                if homes.is_empty() {
                    vec![with(&cut, NOWHERE)]
                } else {
                    homes.iter().map(|home| with(&cut, home)).collect()
                }
            } else {
                vec![text.to_owned()]
            };
            if !allows {
                let real: Vec<String> = all
                    .iter()
                    .flat_map(|text| self.real_program(text))
                    .filter(|text| super::unix_name::parse_pattern(text).is_ok())
                    .collect();
                all.extend(real);
            }
            all
        });
    }
}

/// A text with each way to write the home directory, and with the directory itself. In the program that an allow rule
/// names only the directory counts.
fn spelled(text: &str, allows: bool, homes: &[String]) -> Vec<String> {
    let cut = pieces(text);
    if !cut.contains(&Piece::Home) {
        return vec![text.to_owned()];
    }
    let names_program = matches!(cut.first(), Some(Piece::Home))
        || matches!(cut.first(), Some(Piece::Text(before)) if !before.contains(' '));
    let mut all = Vec::new();
    if !(allows && names_program) {
        all.extend(SPELLINGS.iter().map(|spelling| with(&cut, spelling)));
    } else if homes.is_empty() {
        all.push(with(&cut, NOWHERE));
    }
    all.extend(homes.iter().map(|home| with(&cut, home)));
    all
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
