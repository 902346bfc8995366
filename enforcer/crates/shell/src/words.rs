//! From the nodes of a word to its atoms: quotes, escapes, expansions, substitutions.

use tree_sitter::Node;

use super::{
    Refused, Word,
    expand::{Atom, alternatives, ansi_c, braces, fields},
    state::State,
    stdin::Input,
    tree,
    variables::{Element, expanded},
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
}

impl Quoting {
    fn quoted(self) -> bool {
        self != Self::Bare
    }
}

impl State {
    /// The words that nodes become, in every reading; at least one reading.
    pub(super) fn readings(&mut self, words: Vec<Vec<Atom>>) -> Vec<Vec<Word>> {
        let mut expanded = Vec::with_capacity(words.len());
        for word in words {
            match braces(word, &mut self.atoms_left) {
                Some(words) => expanded.extend(words),
                None => self.refuse(Refused::Braces),
            }
        }
        let ways = alternatives(&expanded, READINGS_MAX, |atoms| self.variables.spend(atoms));
        ways.into_iter()
            .map(|words| words.iter().flat_map(|word| fields(word)).collect())
            .collect()
    }

    /// The atoms of a word's node.
    pub fn word(&mut self, text: &str, node: Node<'_>) -> Vec<Atom> {
        let mut atoms = Vec::new();
        self.push_node(text, node, Quoting::Bare, &mut atoms);
        atoms
    }

    /// The word that nodes without a space between them are.
    pub(super) fn run(&mut self, text: &str, nodes: &[Node<'_>]) -> Option<Vec<Atom>> {
        let (first, last) = (nodes.first()?, nodes.last()?);
        if nodes.len() == 1 {
            return Some(self.word(text, *first));
        }
        let mut parts = Vec::new();
        for node in nodes {
            if expands(node) {
                parts.push(*node);
            } else {
                parts.extend(expansions(*node));
            }
        }
        let mut atoms = Vec::new();
        self.push_range(
            text,
            first.start_byte()..last.end_byte(),
            &parts,
            Quoting::Bare,
            &mut atoms,
        );
        Some(atoms)
    }

    /// Puts a text into a word: quoted, or to fall apart at separators.
    pub fn push_text(&self, value: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
        let value = super::expand::value(value, false);
        let separators = self.variables.separators();
        let separators = (!quoting.quoted()).then_some(separators.as_str());
        atoms.extend(expanded(&[value], Element::At(0), separators));
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
            // What stands between the nodes is letters: the grammar leaves out some white space, and takes some for a part
            // of what follows.
            let start = part.end_byte() - written(text, *part).len();
            self.push_letters(text.get(at..start).unwrap_or_default(), quoting, atoms);
            self.push_node(text, *part, quoting, atoms);
            at = at.max(part.end_byte());
        }
        self.push_letters(text.get(at..range.end).unwrap_or_default(), quoting, atoms);
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
        let source = written(text, node);
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
                let start = node.end_byte() - source.len() + usize::from(source.starts_with('"'));
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
            "command_name" | "concatenation" => {
                // The grammar may part `a$IFS` in the middle of the name: words are read as letters.
                let parts = expansions(node);
                self.push_range(text, node.byte_range(), &parts, quoting, atoms);
            }
            "string_content" => self.push_letters(source, quoting, atoms),
            "simple_expansion" => {
                let name = source.strip_prefix('$').unwrap_or(source);
                self.push_variable(name, source, quoting, atoms);
            }
            "expansion" => self.push_expansion(text, node, quoting, atoms),
            "command_substitution" => {
                let output = self.substitution(text, node);
                match output.known() {
                    Some(data) => {
                        self.push_text(data.trim_end_matches('\n'), quoting, atoms);
                    }
                    None => atoms.push(Atom::Hole(output.named(source))),
                }
            }
            "process_substitution" => {
                let data = if source.starts_with('>') {
                    let feeding = self.feeding.clone();
                    self.deeper(|state| state.sequence(text, node, &feeding))
                } else {
                    self.substitution(text, node)
                };
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
                    self.push_letters(source, quoting, atoms);
                } else {
                    self.push_range(text, node.byte_range(), &parts, quoting, atoms);
                }
            }
        }
    }

    /// Letters: quotes and escapes are taken away as the quoting around has it. An expansion that the grammar took
    /// for letters is one all the same.
    fn push_letters(&mut self, text: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, quoting) {
                ('\\', Quoting::Bare) => match chars.next() {
                    Some('\n') => {}
                    Some(escaped) => atoms.push(Atom::Quoted(escaped)),
                    None => atoms.push(Atom::Quoted('\\')),
                },
                ('\\', _) => {
                    let special = |c: &char| matches!(c, '$' | '`' | '\\' | '\n' | '"');
                    match chars.next_if(special) {
                        Some('\n') => {}
                        Some(escaped) => atoms.push(Atom::Quoted(escaped)),
                        None => atoms.push(Atom::Quoted('\\')),
                    }
                }
                ('$', _) => {
                    let mut source = String::from('$');
                    source.extend(chars.next_if(|c| matches!(c, '@' | '*')));
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        source.push(c);
                    }
                    if source.len() > 1 {
                        let name = source[1..].to_owned();
                        self.push_variable(&name, &source, quoting, atoms);
                    } else {
                        atoms.push(Atom::Quoted('$'));
                    }
                }
                // The grammar takes them for letters in `${x:-…}`.
                ('`', _) => {
                    let inside = backquoted(&mut chars);
                    self.push_backquoted(&inside, quoting, atoms);
                }
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

    /// A substitution in backquotes that is no node of its own.
    fn push_backquoted(&mut self, inside: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
        let source = format!("`{inside}`");
        let code = unescaped(inside, &['`', '$', '\\']);
        let outer = self.variables.clone();
        let output =
            self.in_place(|state| state.nested(|state| state.text(&code, &Input::Inherited)));
        self.variables = outer;
        match output.known() {
            Some(data) => self.push_text(data.trim_end_matches('\n'), quoting, atoms),
            None => atoms.push(Atom::Hole(output.named(&source))),
        }
    }

    /// Runs the substitutions in a text that the grammar has not taken apart.
    pub(super) fn substitutions_in(&mut self, text: &str) {
        for inside in substitutions(text) {
            let outer = self.variables.clone();
            self.code(&inside, &Input::Inherited);
            self.variables = outer;
        }
    }

    /// What a substitution's commands write.
    pub fn substitution(&mut self, text: &str, node: Node<'_>) -> Input {
        let source = written(text, node);
        if let Some(inside) = source.strip_prefix('`')
            && inside.contains('\\')
        {
            let inside = inside.strip_suffix('`').unwrap_or(inside);
            let inside = unescaped(inside, &['`', '$', '\\']);
            return self
                .in_place(|state| state.nested(|state| state.text(&inside, &Input::Inherited)));
        }
        // What is assigned inside stays inside.
        let outer = self.variables.clone();
        let output = self
            .in_place(|state| state.deeper(|state| state.sequence(text, node, &Input::Inherited)));
        self.variables = outer;
        output
    }

    /// `$name`, `${name}`.
    fn push_variable(&mut self, name: &str, source: &str, quoting: Quoting, atoms: &mut Vec<Atom>) {
        // `$1m` is `$1` and a letter; the grammar takes the whole for a name.
        if name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_digit())
            && source.starts_with('$')
        {
            let (digit, letters) = name.split_at(1);
            self.push_element(digit, Element::At(0), &format!("${digit}"), quoting, atoms);
            return self.push_letters(letters, quoting, atoms);
        }
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
            let length = |word: &Word| word.text.len() + 1;
            if !self.variables.spend(positional.iter().map(length).sum()) {
                return out.push(hole(source));
            }
            let values: Vec<Vec<Atom>> = positional.iter().map(Word::atoms).collect();
            let separators = self.variables.separators();
            let separators = (!quoted).then_some(separators.as_str());
            match name.parse::<usize>() {
                Ok(0) => out.push(hole(source)),
                Ok(at) => out.extend(expanded(&values, Element::At(at - 1), separators)),
                Err(_) => out.extend(expanded(&values, element, separators)),
            }
            return;
        }
        match self.variables.expand(name, element, quoted) {
            Some(atoms) => out.extend(atoms),
            None => out.push(hole(source)),
        }
    }
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

/// The children that are more than letters, through concatenations.
fn expansions(node: Node<'_>) -> Vec<Node<'_>> {
    let mut found = Vec::new();
    for child in tree::named(node) {
        if child.kind() == "concatenation" {
            found.extend(tree::named(child).into_iter().filter(expands));
        } else if expands(&child) {
            found.push(child);
        }
    }
    found
}

/// The text of a node, without the white space that the grammar counts to an expansion in quotes.
pub(super) fn written<'t>(text: &'t str, node: Node<'_>) -> &'t str {
    let source = tree::source(text, node);
    if expands(&node) {
        source.trim_ascii_start()
    } else {
        source
    }
}

/// Whether a node is more than letters.
fn expands(node: &Node<'_>) -> bool {
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
    )
}

/// What stands before the next backquote, which is taken too.
fn backquoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut inside = String::new();
    while let Some(c) = chars.next() {
        match c {
            '`' => break,
            '\\' => {
                inside.push(c);
                inside.extend(chars.next());
            }
            c => inside.push(c),
        }
    }
    inside
}

/// The commands of all substitutions in a text, `$(…)` and in backquotes; one that is not closed goes on to the end.
pub(super) fn substitutions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '`' => {
                let inside = backquoted(&mut chars);
                found.push(unescaped(&inside, &['`', '$', '\\']));
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                let mut inside = String::new();
                let mut depth = 1usize;
                for c in chars.by_ref() {
                    match c {
                        '(' => depth += 1,
                        ')' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                    inside.push(c);
                }
                found.push(inside);
            }
            _ => {}
        }
    }
    found
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
