//! The variables that a text assigns itself, with every value they can have.

use std::{collections::HashMap, rc::Rc};

use super::expand::{Atom, Choice, Word, known_text, value};

/// Most values that are kept of one variable.
pub(super) const VALUES_MAX: usize = 64;
/// Longest value, in atoms: a text can double one at every step.
const VALUE_MAX: usize = 16 << 10;

/// One possible value: the elements of an array, one for a plain variable. Its atoms are quoted characters, and
/// holes.
type Value = Rc<[Vec<Atom>]>;

/// The variables of a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// `None`: assigned, to something of which nothing is known.
    values: HashMap<String, Option<Vec<Value>>>,
}

/// Which elements an expansion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// One of them.
    At(usize),
    /// `[@]`: each a word of its own.
    Each,
    /// `[*]`: all in one word.
    Joined,
}

impl Variables {
    /// Assigns. Where the assignment perhaps does not happen, the earlier values stay possible.
    pub fn assign(&mut self, name: &str, value: Option<Vec<Vec<Atom>>>, certain: bool) {
        let value: Option<Value> = value
            .map(|elements| elements.iter().map(|atoms| stored(atoms)).collect())
            .filter(|value: &Value| value.iter().map(Vec::len).sum::<usize>() <= VALUE_MAX);
        let Some(value) = value else {
            self.values.insert(name.to_owned(), None);
            return;
        };
        match self.values.get_mut(name) {
            Some(Some(values)) if !certain => {
                if !values.contains(&value) {
                    if values.len() >= VALUES_MAX {
                        self.values.insert(name.to_owned(), None);
                    } else {
                        values.push(value);
                    }
                }
            }
            Some(None) if !certain => {}
            _ => {
                self.values.insert(name.to_owned(), Some(vec![value]));
            }
        }
    }

    /// Assigns a text.
    pub fn assign_text(&mut self, name: &str, text: &str, certain: bool) {
        self.assign(name, Some(vec![value(text, false)]), certain);
    }

    /// `name+=value`.
    pub fn append(&mut self, name: &str, value: Vec<Vec<Atom>>, array: bool, certain: bool) {
        let old = match self.values.get(name) {
            Some(Some(values)) => values.first().cloned(),
            Some(None) => None,
            None => Some(Value::from([])),
        };
        let joined = old.map(|old| {
            let mut all = old.to_vec();
            if array || all.is_empty() {
                all.extend(value);
            } else if let (Some(first), Some(more)) = (all.first_mut(), value.into_iter().next()) {
                first.extend(more);
            }
            all
        });
        self.assign(name, joined, certain);
    }

    /// Takes a loop's values one by one.
    pub fn assign_each(&mut self, name: &str, values: &[Word]) {
        if values.is_empty() || values.len() > VALUES_MAX {
            return self.assign(name, None, true);
        }
        for (at, value) in values.iter().enumerate() {
            self.assign(name, Some(vec![value.atoms()]), at == 0);
        }
    }

    /// Forgets a variable.
    pub fn unset(&mut self, name: &str) {
        self.values.remove(name);
    }

    /// Whether the text assigned it.
    pub fn assigned(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The one value of a plain variable, if all of it is known.
    pub fn single(&self, name: &str) -> Option<String> {
        match self.values.get(name)?.as_deref()? {
            [value] => value
                .first()
                .map_or(Some(String::new()), |atoms| known_text(atoms)),
            _ => None,
        }
    }

    /// The characters at which a value that is not quoted falls apart.
    pub fn separators(&self) -> String {
        self.single("IFS").unwrap_or_else(|| " \t\n".to_owned())
    }

    /// The atoms that an expansion puts into a word; `None` if nothing is known of the value.
    pub fn expand(&self, name: &str, element: Element, quoted: bool) -> Option<Vec<Atom>> {
        let values = self.values.get(name)?.as_deref()?;
        let separators = self.separators();
        let mut all = values
            .iter()
            .map(|value| expanded(value, element, (!quoted).then_some(separators.as_str())));
        if values.len() == 1 {
            return all.next();
        }
        Some(vec![Atom::Choice(Choice {
            name: name.into(),
            values: all.collect(),
        })])
    }
}

/// The atoms of one value. `separators`: it is not quoted, and falls apart at these.
pub(super) fn expanded(
    value: &[Vec<Atom>],
    element: Element,
    separators: Option<&str>,
) -> Vec<Atom> {
    let mut atoms = Vec::new();
    match element {
        Element::At(at) => push(
            &mut atoms,
            value.get(at).map_or(&[], Vec::as_slice),
            separators,
        ),
        Element::Joined => push(&mut atoms, &value.join(&Atom::Quoted(' ')), separators),
        Element::Each => {
            for (at, element) in value.iter().enumerate() {
                if at > 0 {
                    atoms.push(Atom::Break);
                }
                push(&mut atoms, element, separators);
            }
        }
    }
    atoms
}

fn push(atoms: &mut Vec<Atom>, element: &[Atom], separators: Option<&str>) {
    if separators.is_none() {
        atoms.push(Atom::Empty);
    }
    atoms.extend(element.iter().map(|atom| match (atom, separators) {
        (Atom::Quoted(c), Some(separators)) if separators.contains(*c) => Atom::Break,
        (Atom::Quoted(c), Some(_)) => Atom::Value(*c),
        (atom, _) => atom.clone(),
    }));
}

/// A value as it is kept: characters and holes.
fn stored(atoms: &[Atom]) -> Vec<Atom> {
    let home = atoms.first() == Some(&Atom::Bare('~'));
    let kept = atoms
        .iter()
        .enumerate()
        .filter_map(|(at, atom)| match atom {
            // The shell has put the home directory there.
            Atom::Bare('~') if home && at == 0 => Some(atom.clone()),
            Atom::Bare(c) | Atom::Value(c) | Atom::Quoted(c) => Some(Atom::Quoted(*c)),
            Atom::Break => Some(Atom::Quoted(' ')),
            Atom::Empty => None,
            Atom::Hole(_) | Atom::Choice(_) => Some(atom.clone()),
        });
    kept.collect()
}
