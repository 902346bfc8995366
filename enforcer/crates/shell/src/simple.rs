//! A simple command: what it is, and what it starts in its turn.

use tree_sitter::Node;

use super::{
    PartKind, Word,
    expand::{Atom, known_text},
    state::State,
    stdin::{Input, output},
    tree,
};

/// Builtins of shells that start nothing and run no code that they are given.
const BUILTINS: [&str; 44] = [
    ":", "[", "alias", "bg", "break", "builtin", "cd", "command", "continue", "coproc", "declare",
    "dirs", "echo", "eval", "exec", "exit", "export", "false", "fg", "getopts", "hash", "jobs",
    "let", "local", "popd", "printf", "pushd", "pwd", "read", "readonly", "return", "set", "shift",
    "shopt", "source", "test", "time", "trap", "true", "type", "typeset", "umask", "unset", "wait",
];

/// Words that a shell takes for its own where a command is expected.
const KEYWORDS: [&str; 15] = [
    "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "esac", "!", "{", "}", "(",
    ")",
];

impl State {
    /// A `command` node. `more` are words behind it that the grammar gave to a redirection.
    pub(super) fn command(
        &mut self,
        text: &str,
        node: Node<'_>,
        more: Vec<Vec<Atom>>,
        input: &Input,
    ) -> Input {
        let from = self.script.parts.len();
        let mut input = input.clone();
        self.feeding = input.clone();
        let mut words = Vec::new();
        let mut assigned = Vec::new();
        let mut behind = Vec::new();
        let mut run: Vec<Node<'_>> = Vec::new();
        // The grammar takes the next line for arguments in some pipelines: these commands come first.
        let mut lines: Vec<Vec<Vec<Atom>>> = Vec::new();
        let mut end = node.start_byte();
        for child in tree::children(node) {
            if ends_line(text.get(end..child.start_byte()).unwrap_or_default()) {
                words.extend(self.run(text, &std::mem::take(&mut run)));
                words.append(&mut behind);
                lines.push(std::mem::take(&mut words));
            }
            end = child.end_byte();
            match child.kind() {
                "variable_assignment" => assigned.push(child),
                "file_redirect" => {
                    self.redirect(text, child, &mut input, &mut behind);
                }
                "subshell" => {
                    self.statement(text, child, &Input::Inherited);
                }
                "comment" => {}
                _ => match run.last() {
                    // The grammar parts some words in two: what touches is one.
                    Some(last) if touches(text, *last, child) => run.push(child),
                    _ => {
                        words.extend(self.run(text, &std::mem::take(&mut run)));
                        words.append(&mut behind);
                        run.push(child);
                    }
                },
            }
        }
        words.extend(self.run(text, &run));
        words.append(&mut behind);
        words.extend(more);
        if let Some((_, behind)) = self.behind.take_if(|(last, _)| *last == node.id()) {
            words.extend(behind);
        }
        for (at, line) in lines.into_iter().enumerate() {
            let input = if at == 0 { &input } else { &Input::Inherited };
            self.started(&line, &[], input);
        }
        if words.is_empty() {
            for assignment in assigned {
                self.assignment(text, assignment);
            }
            return Input::none();
        }
        let mut settings = Vec::new();
        let outer = (!assigned.is_empty()).then(|| self.variables.clone());
        for assignment in assigned {
            let name = assignment
                .child_by_field_name("name")
                .map(|name| tree::source(text, name));
            let mut atoms: Vec<Atom> = name
                .unwrap_or_default()
                .chars()
                .chain(['='])
                .map(Atom::Quoted)
                .collect();
            if let Some(value) = assignment.child_by_field_name("value") {
                atoms.extend(self.word(text, value).into_iter().map(|atom| match atom {
                    Atom::Break => Atom::Quoted(' '),
                    other => other,
                }));
            }
            settings.push(atoms);
        }
        // The shells below see the assignments; this one does not, its words are read already.
        for setting in &settings {
            let end = setting
                .iter()
                .position(|atom| *atom == Atom::Quoted('='))
                .unwrap_or(setting.len());
            let (name, value) = setting.split_at(end);
            let name = known_text(name).unwrap_or_default();
            self.assign_atoms(&name, &[value.get(1..).unwrap_or_default().to_vec()], true);
        }
        let body = self.script.parts.len();
        let output = self.started(&words, &settings, &input);
        self.device_used(from, body);
        if let Some(outer) = outer {
            self.variables = outer;
        }
        output.sourced(tree::source(text, node))
    }

    /// A command in all its readings. `settings` are the assignments before it.
    pub(super) fn started(
        &mut self,
        words: &[Vec<Atom>],
        settings: &[Vec<Atom>],
        input: &Input,
    ) -> Input {
        let readings = self.readings(words.to_vec());
        let one = readings.len() == 1;
        let settings: Vec<Word> = settings
            .iter()
            .flat_map(|setting| super::expand::fields(setting))
            .collect();
        let mut written = Input::default();
        for reading in readings {
            if !settings.is_empty() && !reading.is_empty() {
                let env = [Word::literal("env")].into_iter();
                self.part(
                    PartKind::Assigned,
                    env.chain(settings.clone()).chain(reading.clone()).collect(),
                );
            }
            let now = self.simple(reading.clone(), input).meant(&reading);
            // What it may come from in any of its readings.
            written = match (one, &now) {
                (true, _) | (_, Input::Unknown(_)) => now.also(&written),
                (false, _) => Input::Unknown("".into()).meant(&reading).also(&written),
            };
        }
        written
    }

    /// A command given as words; what it writes comes back.
    pub(super) fn simple(&mut self, words: Vec<Word>, input: &Input) -> Input {
        self.deeper(|state| state.simple_here(words, input))
    }

    fn simple_here(&mut self, mut words: Vec<Word>, input: &Input) -> Input {
        let keyword = |word: &&Word| word.known() && KEYWORDS.contains(&word.text.as_str());
        let keywords = words.iter().take_while(keyword).count();
        words.drain(..keywords);
        let Some(program) = words.first().cloned() else {
            return Input::none();
        };
        if program.unknown || (program.pattern && program.text != "[") {
            self.unknown_program(&program, words, input);
            return Input::new(None, "");
        }
        if program.text == "exec" {
            // `exec {fd}<file` names a variable for the descriptor.
            words.retain(|word| !names_descriptor(&word.text));
        }
        let name = base_name(&program.text).to_owned();
        let function = self.functions.contains_key(&program.text);
        let builtin = function || BUILTINS.contains(&program.text.as_str());
        self.part(
            if builtin {
                PartKind::Builtin
            } else {
                PartKind::Program
            },
            words.clone(),
        );
        if function {
            self.call(&program.text, &words, input);
        }
        self.aliased(&program.text, &words, input);
        self.writes(&name, &words, input);
        if program.text.contains('/')
            && let Some(data) = self.held(&program.text)
        {
            self.code_from(&data);
        }
        self.open(&name, &words, input);
        output(&name, &words, input)
    }

    /// A command whose program is known only when it runs.
    fn unknown_program(&mut self, program: &Word, mut words: Vec<Word>, input: &Input) {
        self.part(PartKind::Unknown, words.clone());
        if program.pattern {
            return;
        }
        // Nothing may stand behind the name: `$x` that is not set, `r${x}m`.
        let empty = words
            .iter()
            .take_while(|word| word.unknown && word.rest.is_empty())
            .count();
        words.drain(..empty);
        if empty == 0 {
            words[0] = Word::literal(program.rest.clone());
        }
        self.reading(|state| {
            state.simple(words, input);
        });
    }

    /// A command by the name of an alias that the text has made: what that stands for. A shell that expands no aliases
    /// starts what the name says, so it is another reading.
    fn aliased(&mut self, name: &str, words: &[Word], input: &Input) {
        let Some(value) = self.aliases.get(name).cloned() else {
            return;
        };
        if !self.called.insert(name.to_owned()) {
            return;
        }
        let mut commands = self.split(&value, false);
        if let Some(last) = commands.last_mut() {
            last.extend(words.iter().skip(1).cloned());
        }
        self.reading(|state| {
            state.nested(|state| {
                for command in commands {
                    state.simple(command, input);
                }
            });
        });
        self.called.remove(name);
    }

    /// Calls a function that the text defined.
    fn call(&mut self, name: &str, words: &[Word], input: &Input) {
        let Some(body) = self.functions.get(name).cloned() else {
            return;
        };
        // Without its arguments the body has been walked where it was defined.
        if !body.contains('$') || !self.called.insert(name.to_owned()) {
            return;
        }
        let outer = self
            .positional
            .replace(words.iter().skip(1).cloned().collect());
        self.nested(|state| {
            state.text(&body, input);
        });
        self.positional = outer;
        self.called.remove(name);
    }
}

/// Whether a line ends in what stands between two words.
fn ends_line(between: &str) -> bool {
    between.replace("\\\n", "").contains('\n')
}

/// Whether nothing stands between two nodes but the ends of lines that go on.
fn touches(text: &str, first: Node<'_>, second: Node<'_>) -> bool {
    let between = text.get(first.end_byte()..second.start_byte());
    between.is_some_and(|between| between.replace("\\\n", "").is_empty())
}

/// Whether a word is `{name}`.
fn names_descriptor(word: &str) -> bool {
    let name = word
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What follows the last slash.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
