//! The variables that a text assigns itself, with every value they can have.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use super::expand::{Atom, Choice, Word, known_text, value};

/// Most values that are kept of one variable.
pub(super) const VALUES_MAX: usize = 64;
/// Most atoms of all values of one variable: a text can double one at every step.
const VALUE_MAX: usize = 16 << 10;
/// Most variables that are kept.
const VARIABLES_MAX: usize = 1_000;
/// Most atoms that expansions of variables may amount to in all texts together; behind that nothing is known of a value.
const EXPANDED_MAX: usize = 2 << 20;

/// One possible value: the elements of an array, one for a plain variable. Its atoms are quoted characters, and
/// holes.
type Value = Rc<[Vec<Atom>]>;

/// The variables of a text.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    /// `None`: assigned, to something of which nothing is known.
    values: Rc<HashMap<String, Option<Vec<Value>>>>,
    /// Variables were assigned that are not kept.
    lost: bool,
    /// Atoms that expansions may still amount to, whatever becomes of these variables.
    left: Rc<Cell<usize>>,
}

impl Default for Variables {
    fn default() -> Self {
        Self {
            values: Rc::default(),
            lost: false,
            left: Rc::new(Cell::new(EXPANDED_MAX)),
        }
    }
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
        let mut values = match self.values.get(name) {
            Some(old) if !certain => old.clone(),
            _ => Some(Vec::new()),
        };
        let value: Option<Value> =
            value.map(|elements| elements.iter().map(|atoms| stored(atoms)).collect());
        let value = value.filter(|value| self.spend(size(std::slice::from_ref(value))));
        match (&mut values, value) {
            (Some(values), Some(value)) if !values.contains(&value) => values.push(value),
            (_, None) => values = None,
            _ => {}
        }
        let kept = values.filter(|values| values.len() <= VALUES_MAX && size(values) <= VALUE_MAX);
        self.keep(name, kept);
    }

    fn keep(&mut self, name: &str, values: Option<Vec<Value>>) {
        if self.values.len() >= VARIABLES_MAX && !self.values.contains_key(name) {
            self.lost = true;
        } else {
            Rc::make_mut(&mut self.values).insert(name.to_owned(), values);
        }
    }

    /// Whether so many more atoms may be made. If not, none may be any more.
    pub fn spend(&self, atoms: usize) -> bool {
        let left = self.left.get().checked_sub(atoms);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Assigns a text.
    pub fn assign_text(&mut self, name: &str, text: &str, certain: bool) {
        self.assign(name, Some(vec![value(text, false)]), certain);
    }

    /// `name+=value`.
    pub fn append(&mut self, name: &str, value: Vec<Vec<Atom>>, array: bool, certain: bool) {
        let old = match self.values.get(name) {
            Some(Some(values)) => values.first().filter(|_| self.spend(size(values))).cloned(),
            Some(None) => None,
            None if self.lost => None,
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

    /// How many atoms are held, and how many may still be made.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        let held = self.values.values().flatten().map(|values| size(values));
        (held.sum(), self.left.get())
    }

    /// Forgets a variable.
    pub fn unset(&mut self, name: &str) {
        if self.values.contains_key(name) {
            Rc::make_mut(&mut self.values).remove(name);
        }
    }

    /// Whether the text assigned it.
    pub fn assigned(&self, name: &str) -> bool {
        self.lost || self.values.contains_key(name)
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
        if !self.spend(size(values)) {
            return None;
        }
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

/// How many atoms there are in values, and one for each element.
fn size(values: &[Value]) -> usize {
    let elements = values.iter().flat_map(|value| value.iter());
    elements.map(|atoms| atoms.len() + 1).sum::<usize>() + values.len()
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
            Atom::Hole(_) => Some(atom.clone()),
            // Values of values would multiply.
            Atom::Choice(choice) => Some(Atom::Hole(format!("${}", choice.name).into())),
        });
    kept.collect()
}
