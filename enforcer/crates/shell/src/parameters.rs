//! `${…}`: the forms whose result follows from values in the text.

use tree_sitter::Node;

use super::{
    expand::Atom,
    state::State,
    tree,
    variables::Element,
    words::{Quoting, written},
};

impl State {
    /// `${name}`, `${name[n]}`, `${name:-word}`, `${name:1:2}`, `${!name}` …
    pub(super) fn push_expansion(
        &mut self,
        text: &str,
        node: Node<'_>,
        quoting: Quoting,
        atoms: &mut Vec<Atom>,
    ) {
        let source = written(text, node);
        let inside = source.strip_prefix("${").unwrap_or(source);
        let inside = inside.strip_suffix('}').unwrap_or(inside);
        let (indirect, inside) = match inside.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, inside),
        };
        let end = inside
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(inside.len());
        let (mut name, mut operator) = inside.split_at(end);
        if name.is_empty() && operator.starts_with(['@', '*']) {
            (name, operator) = inside.split_at(1);
        }
        let (element, operator) = match subscript(operator) {
            Some(split) => split,
            None if name == "@" => (Element::Each, operator),
            None if name == "*" => (Element::Joined, operator),
            None => (Element::At(0), operator),
        };
        let target;
        if indirect {
            match self.variables.single(name) {
                Some(value) if operator.is_empty() => {
                    target = value;
                    name = &target;
                }
                _ => return self.hole(text, node, atoms),
            }
        }
        if operator.is_empty() {
            return self.push_element(name, element, source, quoting, atoms);
        }
        self.visit(text, node);
        // The grammar leaves some substitutions in the word behind the operator as letters.
        if operator.contains('`') || (operator.contains("$(") && !holds_substitution(node)) {
            self.substitutions_in(operator);
        }
        let plain = self.variables.single(name);
        if let Some(value) = &plain
            && element == Element::At(0)
            && let Some(result) = applied(value, operator)
        {
            return self.push_text(&result, quoting, atoms);
        }
        // `${x+word}` is the word where the text gave `x` any value.
        if let Some(word) = operator
            .strip_prefix(":+")
            .or_else(|| operator.strip_prefix('+'))
            && self.variables.assigned(name)
            && !word.contains(['$', '`', '\'', '"', '\\'])
        {
            return self.push_text(word, quoting, atoms);
        }
        let default = [":-", "-", ":=", "="]
            .iter()
            .find_map(|mark| operator.strip_prefix(mark));
        if let Some(default) = default
            && !self.variables.assigned(name)
            && !default.contains(['$', '`', '\'', '"', '\\'])
        {
            // The surroundings may set it; what the text itself says is the likelier reading.
            if operator.contains('=') {
                self.variables.assign_text(name, default, true);
            }
            return self.push_text(default, quoting, atoms);
        }
        atoms.push(Atom::Hole(source.into()));
    }

    fn hole(&mut self, text: &str, node: Node<'_>, atoms: &mut Vec<Atom>) {
        self.visit(text, node);
        atoms.push(Atom::Hole(written(text, node).into()));
    }
}

/// Whether the grammar has found a substitution below a node.
fn holds_substitution(node: Node<'_>) -> bool {
    let mut pending = tree::named(node);
    while let Some(node) = pending.pop() {
        if node.kind() == "command_substitution" {
            return true;
        }
        pending.extend(tree::named(node));
    }
    false
}

/// `[0]`, `[@]`, `[*]` and what follows.
fn subscript(operator: &str) -> Option<(Element, &str)> {
    let (index, rest) = operator.strip_prefix('[')?.split_once(']')?;
    let element = match index {
        "@" => Element::Each,
        "*" => Element::Joined,
        index => Element::At(index.parse().ok()?),
    };
    Some((element, rest))
}

/// A known value under an operator; `None` for operators that are not worked out.
fn applied(value: &str, operator: &str) -> Option<String> {
    let cased = |all: bool, upper: bool| {
        let case = |c: char| {
            if upper {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        };
        let one = |(at, c): (usize, char)| if all || at == 0 { case(c) } else { c };
        value.chars().enumerate().map(one).collect::<String>()
    };
    match operator {
        "^^" => return Some(cased(true, true)),
        ",," => return Some(cased(true, false)),
        "^" => return Some(cased(false, true)),
        "," => return Some(cased(false, false)),
        _ => {}
    }
    let dynamic = |text: &str| text.contains(['$', '`', '*', '?', '[', '\\', '\'', '"', '(']);
    if let Some(word) = operator
        .strip_prefix(":-")
        .or_else(|| operator.strip_prefix(":="))
    {
        return (!value.is_empty() || !dynamic(word))
            .then(|| if value.is_empty() { word } else { value }.to_owned());
    }
    if operator.starts_with('-') || operator.starts_with('=') || operator.starts_with(":?") {
        return Some(value.to_owned());
    }
    if let Some(word) = operator.strip_prefix(":+") {
        let word = if value.is_empty() { "" } else { word };
        return (!dynamic(word)).then(|| word.to_owned());
    }
    if let Some(range) = operator.strip_prefix(':') {
        return substring(value, range);
    }
    if let Some(pattern) = operator
        .strip_prefix("##")
        .or_else(|| operator.strip_prefix('#'))
    {
        return (!dynamic(pattern))
            .then(|| value.strip_prefix(pattern).unwrap_or(value).to_owned());
    }
    if let Some(pattern) = operator
        .strip_prefix("%%")
        .or_else(|| operator.strip_prefix('%'))
    {
        return (!dynamic(pattern))
            .then(|| value.strip_suffix(pattern).unwrap_or(value).to_owned());
    }
    let (all, rest) = match operator.strip_prefix("//") {
        Some(rest) => (true, rest),
        None => (false, operator.strip_prefix('/')?),
    };
    let (pattern, with) = rest.split_once('/').unwrap_or((rest, ""));
    if dynamic(pattern) || dynamic(with) || pattern.is_empty() || pattern.starts_with(['#', '%']) {
        return None;
    }
    Some(if all {
        value.replace(pattern, with)
    } else {
        value.replacen(pattern, with, 1)
    })
}

/// `:offset:length` of a value, in characters; negative ones count from the end.
fn substring(value: &str, range: &str) -> Option<String> {
    let (offset, length) = match range.split_once(':') {
        Some((offset, length)) => (offset, Some(length)),
        None => (range, None),
    };
    let chars: Vec<char> = value.chars().collect();
    let count = i64::try_from(chars.len()).ok()?;
    let from_end = |number: i64| {
        if number < 0 {
            count.checked_add(number)
        } else {
            Some(number)
        }
    };
    let start = from_end(offset.trim().parse().ok()?)?.clamp(0, count);
    let end = match length {
        None => count,
        Some(length) => {
            let length: i64 = length.trim().parse().ok()?;
            if length < 0 {
                count.checked_add(length)?
            } else {
                start.checked_add(length)?
            }
        }
    };
    let (start, end) = (
        usize::try_from(start).ok()?,
        usize::try_from(end.clamp(start, count)).ok()?,
    );
    Some(chars.get(start..end)?.iter().collect())
}
