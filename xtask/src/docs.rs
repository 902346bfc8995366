//! The documents: what is generated in them, and whether what they say of the repository is there.
//!
//! `docs/policy.md` holds parts that are made from the JSON Schemas in `docs/schema`; a unit test of
//! the policy crate holds those against its types, so that checking needs no compilation here.

mod catalogue;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, note, run, step};
use crate::root;

/// The document with generated parts.
const POLICY: &str = "docs/policy.md";
/// The bypass catalogue.
const BYPASSES: &str = "docs/bypasses.md";
/// Documents elsewhere.
const TOP: &[&str] = &["README.md", "CHANGELOG.md", "policies/README.md"];
/// The directories of documents.
const DIRECTORIES: &[&str] = &["docs", "docs/policies"];
/// The variable that makes a test of `enforcer-policy` write the schemas; see its `schema_file_tests.rs`.
const WRITE_SCHEMAS: &str = "ENFORCER_WRITE_SCHEMAS";
/// The test that holds the schemas against the types.
const SCHEMA_TEST: &str = "the_schema_files_are_those_of_the_types";

/// Writes the schemas and what is generated from them, then checks all documents.
///
/// # Errors
/// When the policy crate does not compile, a file cannot be written, or a document is wrong.
pub fn write() -> Result<()> {
    step("Documents: schemas of the policy's types");
    run(cargo()
        .args(["test", "--quiet", "--package", "enforcer-policy", "--lib"])
        .arg("--target-dir")
        .arg(root::target())
        .arg(SCHEMA_TEST)
        .env(WRITE_SCHEMAS, "1"))?;
    step(&format!("Documents: {POLICY}"));
    let now = generated(root::repository())?;
    let path = root::repository().join(POLICY);
    fs::write(&path, now).with_context(|| format!("cannot write {}", path.display()))?;
    check()
}

/// Checks the documents: generated parts are up to date, links and named tests exist, each entry of the bypass
/// catalogue is whole.
///
/// # Errors
/// All faults, one a line.
pub fn check() -> Result<()> {
    step("Documents: generated parts, links, named tests");
    let faults = faults(root::repository())?;
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    note("documents ok");
    Ok(())
}

fn faults(repository: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    if read(repository, POLICY)? != generated(repository)? {
        faults.push(format!(
            "{POLICY}: its generated parts are out of date; run `cargo xtask docs`"
        ));
    }
    for name in documents(repository)? {
        let text = read(repository, &name)?;
        for (line, target) in links(&text) {
            let path = repository.join(&name).with_file_name(target);
            if !path.exists() {
                faults.push(format!(
                    "{name}:{line}: the link to `{target}` leads nowhere"
                ));
            }
        }
        for (line, test) in named_tests(&text) {
            if let Err(why) = catalogue::test_exists(repository, test) {
                faults.push(format!("{name}:{line}: {why}"));
            }
        }
    }
    let text = read(repository, BYPASSES)?;
    for (line, fault) in catalogue::faults(&text) {
        faults.push(format!("{BYPASSES}:{line}: {fault}"));
    }
    Ok(faults)
}

/// `docs/policy.md` with its generated parts made anew.
fn generated(repository: &Path) -> Result<String> {
    let text = read(repository, POLICY)?;
    reference::fill(&text, |schema| {
        let text = read(repository, schema)?;
        serde_json::from_str(&text).with_context(|| format!("{schema} is no JSON"))
    })
    .context(POLICY)
}

/// The documents, by their paths in the repository.
fn documents(repository: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = TOP.iter().map(|&name| name.to_owned()).collect();
    for below in DIRECTORIES {
        let directory = repository.join(below);
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path: PathBuf = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md")
                && let Some(name) = path.file_name()
            {
                names.push(format!("{below}/{}", name.display()));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read(repository: &Path, name: &str) -> Result<String> {
    let path = repository.join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Lines outside code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            code = !code;
            return None;
        }
        (!code).then_some((index + 1, line))
    })
}

/// Targets of the links to files of the repository, without what follows `#`.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for part in line.split("](").skip(1) {
            let target = part.split_once(')').map_or(part, |(target, _)| target);
            let target = target.split_once('#').map_or(target, |(file, _)| file);
            if !target.is_empty() && !target.contains("://") {
                found.push((number, target));
            }
        }
    }
    found
}

/// Test files named in backticks: `tests/security/x.rs`, or with the test `tests/security/x.rs::name`.
fn named_tests(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for word in line.split('`').skip(1).step_by(2) {
            if catalogue::is_test(word) {
                found.push((number, word));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "see [a](b.md#c), [d](https://e) and `tests/security/f.rs::g`\n\
                        ```\n[h](i.md) `tests/j.rs`\n```\n[k](#l) `tests/m` `src/tests/n.rs`\n";

    #[test]
    fn links_to_files_are_found_outside_code() {
        assert_eq!(links(TEXT), [(1, "b.md")]);
    }

    #[test]
    fn named_tests_are_found_outside_code() {
        assert_eq!(named_tests(TEXT), [(1, "tests/security/f.rs::g")]);
    }

    #[test]
    fn the_documents_of_this_repository_are_listed() {
        let names = documents(root::repository()).unwrap();
        for name in ["README.md", POLICY, BYPASSES] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
    }
}
