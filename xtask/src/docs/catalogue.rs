//! The bypass catalogue: each entry says what stops the attack and names its test, or says why nothing does.
//!
//! An entry is a `###` heading and a list whose items begin with a bold word: **Attack**, then **Stopped** or
//! **Not stopped** (both where it depends), and **Test** for what is said to be stopped. **Untested** is for what
//! should be stopped and has no test yet.

use std::fs;
use std::path::Path;

/// Directories that hold tests, and the crates with tests beside the code.
const PLACES: [&str; 4] = ["tests/", "enforcer/", "enforcer-common/", "xtask/"];

/// Whether a word names a test file.
pub fn is_test(word: &str) -> bool {
    let file = word.split_once("::").map_or(word, |(file, _)| file);
    let rust = Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "rs");
    rust && PLACES.iter().any(|place| file.starts_with(place))
}

/// Whether the test file is there, holds a test, and holds the named one.
///
/// # Errors
/// What is missing.
pub fn test_exists(repository: &Path, word: &str) -> Result<(), String> {
    let (file, test) = match word.split_once("::") {
        Some((file, test)) => (file, Some(test)),
        None => (word, None),
    };
    let Ok(source) = fs::read_to_string(repository.join(file)) else {
        return Err(format!("there is no file `{file}`"));
    };
    if !source.contains("#[test]") {
        return Err(format!("`{file}` holds no test"));
    }
    match test {
        Some(name) if !source.contains(&format!("fn {name}(")) => {
            Err(format!("`{file}` holds no test `{name}`"))
        }
        _ => Ok(()),
    }
}

/// What is wrong with the catalogue's entries, with the line of each.
pub fn faults(text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let mut entry: Option<Entry<'_>> = None;
    let mut entries = 0;
    for (number, line) in super::prose(text) {
        if line.starts_with('#') {
            entries += usize::from(entry.is_some());
            close(entry.take(), &mut faults);
            if let Some(name) = line.strip_prefix("### ") {
                entry = Some(Entry::new(number, name));
            }
        } else if let Some(entry) = &mut entry {
            entry.read(line);
        }
    }
    entries += usize::from(entry.is_some());
    close(entry, &mut faults);
    if entries == 0 {
        faults.push((1, "the catalogue has no entries".to_owned()));
    }
    faults
}

fn close(entry: Option<Entry<'_>>, faults: &mut Vec<(usize, String)>) {
    if let Some(entry) = entry
        && let Some(fault) = entry.fault()
    {
        faults.push((entry.line, format!("\"{}\": {fault}", entry.name)));
    }
}

/// One entry as far as it has been read.
struct Entry<'a> {
    line: usize,
    name: &'a str,
    /// The bold word of each item.
    items: Vec<&'a str>,
    /// Test files that the item **Test** names.
    tests: usize,
}

impl<'a> Entry<'a> {
    fn new(line: usize, name: &'a str) -> Self {
        Self {
            line,
            name,
            items: Vec::new(),
            tests: 0,
        }
    }

    fn read(&mut self, line: &'a str) {
        if let Some(item) = line.strip_prefix("- **") {
            let word = item.split_once("**").map_or(item, |(word, _)| word);
            self.items.push(word.trim_end_matches(':'));
        }
        if self.items.last() == Some(&"Test") {
            let words = line.split('`').skip(1).step_by(2);
            self.tests += words.filter(|word| is_test(word)).count();
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let has = |word| self.items.contains(&word);
        if !has("Attack") {
            Some("it does not say what the **Attack** is")
        } else if !has("Stopped") && !has("Not stopped") && !has("Untested") {
            Some("it says none of **Stopped**, **Not stopped** and **Untested**")
        } else if has("Stopped") && self.tests == 0 {
            Some("it says **Stopped** and names no **Test**")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    fn fault_of(items: &str) -> Vec<(usize, String)> {
        faults(&format!("# T\n\n## S\n\n### e\n\n{items}\n"))
    }

    #[test]
    fn an_entry_is_whole_or_a_fault() {
        let attack = "- **Attack:** x";
        let stopped = "- **Stopped** on all kernels: y";
        assert!(
            fault_of(&format!(
                "{attack}\n{stopped}\n- **Test:** `tests/a.rs`,\n  `tests/b.rs`"
            ))
            .is_empty()
        );
        assert!(fault_of(&format!("{attack}\n- **Not stopped:** z")).is_empty());
        for bad in [
            attack.to_owned(),
            stopped.to_owned(),
            format!("{attack}\n{stopped}"),
            format!("{attack}\n{stopped} `tests/a.rs`"),
            format!("{attack}\n{stopped}\n- **Test:** by hand"),
        ] {
            let found = fault_of(&bad);
            assert_eq!(found.len(), 1, "{bad}");
            assert_eq!(found[0].0, 5);
        }
        assert_eq!(faults("# T\n").len(), 1);
    }

    #[test]
    fn a_test_must_be_there() {
        let here = root::repository();
        assert!(is_test("xtask/src/docs/catalogue.rs") && !is_test("tests/vm/init.sh"));
        test_exists(here, "xtask/src/docs/catalogue.rs::a_test_must_be_there").unwrap();
        for missing in [
            "tests/no-such-file.rs",
            "xtask/src/root.rs",
            "xtask/src/docs/catalogue.rs::no_such_test",
        ] {
            test_exists(here, missing).unwrap_err();
        }
    }
}
