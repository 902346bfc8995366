//! What the tests are compiled to, all of it at once and in one profile: each compilation of the same crates for another
//! choice of packages or another profile costs minutes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, note, shown, step};
use crate::root;

/// The crate whose tests need a real kernel and root.
const INTEGRATION: &str = "enforcer-tests";
/// The program under test.
const ENFORCER: &str = "enforcer";

/// A test executable.
pub struct Executable {
    /// The name of its target.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its package, where cargo starts it.
    pub directory: PathBuf,
}

/// What the stages need.
pub struct Compiled {
    /// The program under test. It checks for overflow, as a release does not, and is not optimized across crates.
    pub enforcer: PathBuf,
    /// Tests beside the code.
    pub unit: Vec<Executable>,
    /// Tests that need a real kernel and root.
    pub tests: Vec<Executable>,
    /// Everything the integration crate was compiled to: the tests and the programs that they start.
    pub executables: Vec<PathBuf>,
}

/// Which tests are compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// All of them.
    Everything,
    /// Those that need a real kernel and root.
    Integration,
    /// One executable of those.
    One(&'static str),
}

/// Compiles tests with the program that they try.
///
/// # Errors
/// When something does not compile.
pub fn all(wanted: Wanted) -> Result<Compiled> {
    step("Tests: compiling");
    let mut compiled = Compiled {
        enforcer: PathBuf::new(),
        unit: Vec::new(),
        tests: Vec::new(),
        executables: Vec::new(),
    };
    match wanted {
        Wanted::Everything => compiled.cargo(&["test", "--no-run"])?,
        Wanted::Integration => compiled.cargo(&["test", "--no-run", "--test", "*"])?,
        Wanted::One(name) => {
            compiled.cargo(&["test", "--no-run", "--test", name])?;
            compiled.cargo(&["build", "--bin", ENFORCER])?;
        }
    }
    if compiled.tests.is_empty() || compiled.enforcer.as_os_str().is_empty() {
        bail!("cargo named no test executable of {INTEGRATION}, or no {ENFORCER}");
    }
    Ok(compiled)
}

impl Compiled {
    /// Compiles something of all packages: with fewer of them, features differ, and everything is compiled once more.
    fn cargo(&mut self, words: &[&str]) -> Result<()> {
        let mut compile = cargo();
        compile
            .arg(words[0])
            .args(["--workspace", "--message-format=json-render-diagnostics"])
            .args(&words[1..])
            .arg("--target-dir")
            .arg(root::target())
            .stderr(Stdio::inherit());
        note(&format!("$ {}", shown(&compile)));
        let output = compile.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the tests do not compile");
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Value = serde_json::from_str(line)
                .with_context(|| format!("cargo printed no JSON: {line}"))?;
            self.take(&message);
        }
        Ok(())
    }

    /// Takes note of what cargo says that it has made.
    fn take(&mut self, message: &Value) {
        let (Some(path), Some(name), Some(manifest)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
            message["manifest_path"].as_str(),
        ) else {
            return;
        };
        let directory = Path::new(manifest).parent().unwrap_or(Path::new("/"));
        let is_test = message["profile"]["test"] == true;
        let is_library = message["target"]["kind"][0] == "lib";
        let executable = || Executable {
            name: name.to_owned(),
            path: path.into(),
            directory: directory.to_owned(),
        };
        if directory == root::repository().join("tests") && !is_library {
            self.executables.push(path.into());
            if is_test {
                self.tests.push(executable());
            }
        } else if is_test {
            self.unit.push(executable());
        } else if name == ENFORCER {
            self.enforcer = path.into();
        }
    }
}
