//! Assignments, and the builtins that declare variables.

use tree_sitter::Node;

use super::{
    PartKind, Word,
    expand::{Atom, alternatives},
    state::State,
    tree,
    variables::VALUES_MAX,
    wrappers::assigns,
};

impl State {
    /// `NAME=value`, `NAME+=value`, `NAME=(…)`, `NAME[n]=value`.
    pub(super) fn assignment(&mut self, text: &str, node: Node<'_>) {
        let Some(name) = node.child_by_field_name("name") else {
            return self.visit(text, node);
        };
        let certain = self.branches == 0;
        let append = tree::children(node)
            .iter()
            .any(|child| child.kind() == "+=");
        let value = node.child_by_field_name("value");
        let array = value.is_some_and(|value| value.kind() == "array");
        let elements: Vec<Vec<Atom>> = match value {
            Some(value) if array => {
                let words = tree::named(value);
                let words = words
                    .into_iter()
                    .map(|word| self.word(text, word))
                    .collect();
                let words = self.readings(words).into_iter().next().unwrap_or_default();
                words.iter().map(Word::atoms).collect()
            }
            Some(value) => vec![self.word(text, value)],
            None => vec![Vec::new()],
        };
        if name.kind() == "subscript" {
            self.visit(text, name);
            let array = name.child_by_field_name("name");
            let array = array.map_or("", |name| tree::source(text, name));
            return self.variables.assign(array, None, true);
        }
        let name = tree::source(text, name);
        if append {
            self.variables.append(name, elements, array, certain);
        } else {
            self.assign_atoms(name, &elements, certain);
        }
    }

    /// Assigns a value in all its readings.
    pub(super) fn assign_atoms(&mut self, name: &str, elements: &[Vec<Atom>], certain: bool) {
        let ways = alternatives(elements, VALUES_MAX, |atoms| self.variables.spend(atoms));
        for (at, way) in ways.into_iter().enumerate() {
            self.variables.assign(name, Some(way), certain && at == 0);
        }
    }

    /// `export`, `declare`, `local`, `readonly`, `typeset`, `unset`.
    pub(super) fn declaration(&mut self, text: &str, node: Node<'_>) {
        let mut words = Vec::new();
        let mut arrays = Vec::new();
        for child in tree::children(node) {
            if child.kind() != "variable_assignment" {
                words.push(self.word(text, child));
            } else if child
                .child_by_field_name("value")
                .is_some_and(|value| value.kind() == "array")
            {
                arrays.push(child);
            } else {
                let mut atoms = Vec::new();
                let parts: Vec<Node<'_>> = child.child_by_field_name("value").into_iter().collect();
                self.push_range(
                    text,
                    child.byte_range(),
                    &parts,
                    super::words::Quoting::Bare,
                    &mut atoms,
                );
                // No field is split behind the equals sign.
                words.push(
                    atoms
                        .into_iter()
                        .map(|atom| match atom {
                            Atom::Break => Atom::Quoted(' '),
                            other => other,
                        })
                        .collect(),
                );
            }
        }
        let certain = self.branches == 0;
        for words in self.readings(words) {
            let reference = words
                .iter()
                .any(|word| word.text.starts_with('-') && word.text.contains('n'));
            for word in words.iter().skip(1) {
                let Some((name, value)) = word.text.split_once('=').filter(|_| assigns(&word.text))
                else {
                    if node.kind() == "unset_command" {
                        self.variables.unset(&word.text);
                    }
                    continue;
                };
                // `declare -n`: the name stands for another variable, here for its value.
                let target = self.variables.single(value).filter(|_| reference);
                let value = target.as_deref().unwrap_or(value);
                if word.unknown {
                    let hole = vec![Atom::Hole(value.into())];
                    self.variables.assign(name, Some(vec![hole]), certain);
                } else {
                    self.variables.assign_text(name, value, certain);
                }
            }
            self.part(PartKind::Builtin, words);
        }
        for array in arrays {
            self.assignment(text, array);
        }
    }
}
