//! From the nodes of a word to its atoms: quotes, escapes, expansions, substitutions.

use std::rc::Rc;

use tree_sitter::Node;

use super::{
    expand::{Atom, Word, ansi_c, braces, choose, fields, known_text, push_value},
    state::State,
    stdin::Input,
    tree,
    variables::{Element, atoms},
};

/// Most readings of one command whose variables have several values.
const READINGS_MAX: usize = 64;

/// How the text around a node is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Not at all.
    Bare,
    /// By double quotes.
    Double,
    /// As a here document: double quotes, but that a quote is a letter.
    Document,
}

impl Quoting {
    fn quoted(self) -> bool {
        self != Self::Bare
    }
}

impl State {
    /// The atoms of a word's node.
    pub fn word(&mut self, text: &str, node: Node<'_>) -> Vec<Atom> {
        let mut atoms = Vec::new();
        self.push_node(text, node, Quoting::Bare, &mut atoms);
        atoms
    }

    /// The text of a word that is not split; `None` if it is known only when it runs.
    pub fn value(&mut self, text: &str, node: Node<'_>) -> Option<String> {
        known_text(&self.word(text, node))
    }

    /// The atoms of a range of text in which `parts` are the nodes that are more than letters.
    pub fn push_range(
        &mut self,
        text: &str,
        range: std::ops::Range<usize>,
        parts: &[Node<'_>],
        quoting: Quoting,
        atoms: &mut Vec<Atom>,
    ) {
        let mut at = range.start;
        for part in parts {
            // What stands between the nodes is letters: the grammar leaves out some white space.
            push_letters(
                text.get(at..part.start_byte()).unwrap_or_default(),
                quoting,
                atoms,
            );
            self.push_node(text, *part, quoting, atoms);
            at = at.max(part.end_byte());
        }
        push_letters(text.get(at..range.end).unwrap_or_default(), quoting, atoms);
    }

    fn push_node(&mut self, text: &str, node: Node<'_>, quoting: Quoting, atoms: &mut Vec<Atom>) {
        self.deeper(|state| state.push_node_here(text, node, quoting, atoms));
    }

    fn push_node_here(
        &mut self,
        text: &str,
        node: Node<'_>,
        quoting: Quoting,
        atoms: &mut Vec<Atom>,
    ) {
        let source = tree::source(text, node);
        match node.kind() {
            "raw_string" => {
                atoms.push(Atom::Empty);
                let inside = source.strip_prefix('\'').unwrap_or(source);
                let inside = inside.strip_suffix('\'').unwrap_or(inside);
                atoms.extend(inside.chars().map(Atom::Quoted));
            }
            "ansi_c_string" => {
                atoms.push(Atom::Empty);
                let inside = source.strip_prefix("$'").unwrap_or(source);
                let inside = inside.strip_suffix('\'').unwrap_or(inside);
                atoms.extend(ansi_c(inside).chars().map(Atom::Quoted));
            }
            "string" => {
                atoms.push(Atom::Empty);
                let start = node.start_byte() + usize::from(source.starts_with('"'));
                let closed = source.len() > 1 && source.ends_with('"');
                let end = node.end_byte() - usize::from(closed);
                let parts = expansions(node);
                self.push_range(text, start..end.max(start), &parts, Quoting::Double, atoms);
            }
            "translated_string" => {
                for child in tree::named(node) {
                    self.push_node(text, child, quoting, atoms);
                }
            }
            "command_name" | "concatenation" | "heredoc_body" => {
                let parts = tree::named(node);
                self.push_range(text, node.byte_range(), &parts, quoting, atoms);
            }
            "string_content" | "heredoc_content" => push_letters(source, quoting, atoms),
            "simple_expansion" => {
                let name = source.strip_prefix('$').unwrap_or(source);
                self.push_variable(name, source, quoting, atoms);
            }
            "expansion" => self.push_expansion(text, node, quoting, atoms),
            "command_substitution" => {
                let output = self.substitution(text, node);
                match output.known() {
                    Some(data) => {
                        push_value(atoms, data.trim_end_matches('\n'), quoting.quoted());
                    }
                    None => atoms.push(Atom::Hole(source.into())),
                }
            }
            "process_substitution" => {
                let data = self.substitution(text, node);
                self.streams.insert(source.to_owned(), data);
                atoms.push(Atom::Hole(source.into()));
            }
            "arithmetic_expansion" => {
                self.visit(text, node);
                atoms.push(Atom::Hole(source.into()));
            }
            "brace_expression" => atoms.extend(source.chars().map(Atom::Bare)),
            // A word, a number, a pattern, or what the grammar did not understand.
            _ => {
                let parts = expansions(node);
                if parts.is_empty() {
                    push_letters(source, quoting, atoms);
                } else {
                    self.push_range(text, node.byte_range(), &parts, quoting, atoms);
                }
            }
        }
    }

    /// What a substitution's commands write.
    pub fn substitution(&mut self, text: &str, node: Node<'_>) -> Input {
        let source = tree::source(text, node);
        if let Some(inside) = source.strip_prefix('`')
            && inside.contains('\\')
        {
            let inside = inside.strip_suffix('`').unwrap_or(inside);
            let inside = unescaped(inside, &['`', '$', '\\']);
            return self.nested(|state| state.text(&inside, &Input::Inherited));
        }
        // What is assigned inside stays inside.
        let outer = self.variables.clone();
        let output = self.deeper(|state| state.sequence(text, node, &Input::Inherited));
        self.variables = outer;
        output
    }

    /// `$name`, `${name}`.
    fn push_variable(&mut self, name: &str, source: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
        let element = match name {
            "@" => Element::Each,
            "*" => Element::Joined,
            _ => Element::At(0),
        };
        self.push_element(name, element, source, quoting, atoms);
    }

    /// One element of a variable, or all.
    pub fn push_element(
        &mut self,
        name: &str,
        element: Element,
        source: &str,
        quoting: Quoting,
        out: &mut Vec<Atom>,
    ) {
        let quoted = quoting.quoted();
        if name == "IFS" && !self.variables.assigned("IFS") {
            if quoted {
                out.extend(" \t\n".chars().map(Atom::Quoted));
            } else {
                out.push(Atom::Break);
            }
            return;
        }
        if matches!(name, "@" | "*") || name.bytes().all(|byte| byte.is_ascii_digit()) {
            let Some(positional) = &self.positional else {
                return out.push(hole(source));
            };
            match name.parse::<usize>() {
                Ok(0) => out.push(hole(source)),
                Ok(at) => out.extend(atoms(positional, Element::At(at - 1), quoted)),
                Err(_) => out.extend(atoms(positional, element, quoted)),
            }
            return;
        }
        match self.variables.expand(name, element, quoted) {
            Some(atoms) => out.extend(atoms),
            None => out.push(hole(source)),
        }
    }
}

/// The words that nodes become, in every reading; at least one reading.
pub(super) fn readings(words: Vec<Vec<Atom>>) -> Vec<Vec<Word>> {
    let words: Vec<Vec<Atom>> = words.into_iter().flat_map(braces).collect();
    let mut names: Vec<(Rc<str>, usize)> = Vec::new();
    for atom in words.iter().flatten() {
        if let Atom::Choice(choice) = atom
            && !names.iter().any(|(name, _)| *name == choice.name)
        {
            names.push((Rc::clone(&choice.name), choice.values.len()));
        }
    }
    let mut total = names
        .iter()
        .fold(1usize, |total, (_, count)| total.saturating_mul(*count));
    if total > READINGS_MAX {
        names.clear();
        total = 1;
    }
    let reading = |index: usize| {
        let pick = |wanted: &str| {
            let mut index = index;
            for (name, count) in &names {
                if &**name == wanted {
                    return index % count;
                }
                index /= count;
            }
            usize::MAX
        };
        let fields = words.iter().flat_map(|word| fields(&choose(word, &pick)));
        fields.collect::<Vec<Word>>()
    };
    (0..total).map(reading).collect()
}

fn hole(source: &str) -> Atom {
    // `${x}` and `$x` are one to rules.
    let name = source
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    match name {
        Some(name)
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
        {
            Atom::Hole(format!("${name}").into())
        }
        _ => Atom::Hole(source.into()),
    }
}

/// The children that are more than letters.
fn expansions(node: Node<'_>) -> Vec<Node<'_>> {
    let expands = |node: &Node<'_>| {
        matches!(
            node.kind(),
            "simple_expansion"
                | "expansion"
                | "command_substitution"
                | "process_substitution"
                | "arithmetic_expansion"
                | "string"
                | "raw_string"
                | "ansi_c_string"
                | "translated_string"
                | "concatenation"
        )
    };
    tree::named(node).into_iter().filter(expands).collect()
}

/// Letters: quotes and escapes are taken away as the quoting around has it.
pub(super) fn push_letters(text: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoting) {
            ('\\', Quoting::Bare) => match chars.next() {
                Some('\n') => {}
                Some(escaped) => atoms.push(Atom::Quoted(escaped)),
                None => atoms.push(Atom::Quoted('\\')),
            },
            ('\\', _) => match chars.next_if(|c| {
                matches!(c, '$' | '`' | '\\' | '\n') || (*c == '"' && quoting == Quoting::Double)
            }) {
                Some('\n') => {}
                Some(escaped) => atoms.push(Atom::Quoted(escaped)),
                None => atoms.push(Atom::Quoted('\\')),
            },
            // The grammar makes nodes of quotes; one that it left in a word is taken as a shell would.
            ('\'', Quoting::Bare) => {
                atoms.push(Atom::Empty);
                while let Some(inside) = chars.next_if(|c| *c != '\'') {
                    atoms.push(Atom::Quoted(inside));
                }
                chars.next();
            }
            ('"', Quoting::Bare) => atoms.push(Atom::Empty),
            (c, Quoting::Bare) => atoms.push(Atom::Bare(c)),
            (c, _) => atoms.push(Atom::Quoted(c)),
        }
    }
}

/// Takes the backslash before each of the characters away.
pub(super) fn unescaped(text: &str, escaped: &[char]) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next)) if escaped.contains(&next) => {
                plain.push(next);
                chars.next();
            }
            (c, _) => plain.push(c),
        }
    }
    plain
}
