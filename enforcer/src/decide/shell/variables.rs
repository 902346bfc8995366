//! The variables that a text assigns itself, with every value they can have.

use std::{collections::HashMap, rc::Rc};

use super::expand::{Atom, Choice, push_value};

/// Most values that are kept of one variable.
const VALUES_MAX: usize = 8;

/// One possible value: the elements of an array, one for a plain variable.
type Value = Rc<[String]>;

/// The variables of a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// `None`: assigned, to something that is known only when it runs.
    known: HashMap<String, Option<Vec<Value>>>,
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
    pub fn assign(&mut self, name: &str, value: Option<Vec<String>>, certain: bool) {
        let Some(value) = value else {
            self.known.insert(name.to_owned(), None);
            return;
        };
        let value: Value = value.into();
        match self.known.get_mut(name) {
            Some(Some(values)) if !certain => {
                if !values.contains(&value) {
                    if values.len() >= VALUES_MAX {
                        self.known.insert(name.to_owned(), None);
                    } else {
                        values.push(value);
                    }
                }
            }
            Some(None) if !certain => {}
            _ => {
                self.known.insert(name.to_owned(), Some(vec![value]));
            }
        }
    }

    /// `name+=value`.
    pub fn append(&mut self, name: &str, value: Option<Vec<String>>, array: bool, certain: bool) {
        let old = match self.known.get(name) {
            Some(Some(values)) => values.first().cloned(),
            Some(None) => None,
            None => Some(Value::from([])),
        };
        let joined = old.zip(value).map(|(old, value)| {
            let mut all = old.to_vec();
            if array || all.is_empty() {
                all.extend(value);
            } else if let (Some(first), Some(more)) = (all.first_mut(), value.first()) {
                first.push_str(more);
            }
            all
        });
        self.assign(name, joined, certain);
    }

    /// Takes a loop's values one by one.
    pub fn assign_each(&mut self, name: &str, values: Vec<Option<String>>) {
        if values.is_empty() || values.len() > VALUES_MAX || values.contains(&None) {
            return self.assign(name, None, true);
        }
        for (at, value) in values.into_iter().enumerate() {
            self.assign(name, value.map(|value| vec![value]), at == 0);
        }
    }

    /// Forgets a variable.
    pub fn unset(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Whether the text assigned it.
    pub fn assigned(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// The one value of a plain variable.
    pub fn single(&self, name: &str) -> Option<&str> {
        match self.known.get(name)?.as_deref()? {
            [value] => Some(value.first().map_or("", String::as_str)),
            _ => None,
        }
    }

    /// The atoms that an expansion puts into a word; `None` if the value is not known.
    pub fn expand(&self, name: &str, element: Element, quoted: bool) -> Option<Vec<Atom>> {
        let values = self.known.get(name)?.as_deref()?;
        let mut all = values.iter().map(|value| atoms(value, element, quoted));
        if values.len() == 1 {
            return all.next();
        }
        Some(vec![Atom::Choice(Choice {
            name: name.into(),
            values: all.collect(),
        })])
    }
}

/// The atoms of one value.
pub(super) fn atoms(value: &[String], element: Element, quoted: bool) -> Vec<Atom> {
    let mut atoms = Vec::new();
    match element {
        Element::At(at) => {
            let value = value.get(at).map_or("", String::as_str);
            push_value(&mut atoms, value, quoted);
        }
        Element::Each => {
            for (at, value) in value.iter().enumerate() {
                if at > 0 {
                    atoms.push(Atom::Break);
                }
                push_value(&mut atoms, value, quoted);
            }
        }
        Element::Joined => push_value(&mut atoms, &value.join(" "), quoted),
    }
    atoms
}
