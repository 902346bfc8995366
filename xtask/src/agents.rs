//! Real coding agents for the tests, below `target/agents`: from npm and PyPI, at the versions that `tests/agents` names.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::process::{command, find, note, output, run, step};
use crate::root;

/// The oldest Node.js that the agents on it start with.
const NODE: u32 = 20;
/// The oldest Python 3.
const PYTHON: u32 = 10;
/// What the agents on Node.js are, and in which versions of everything.
const NPM_FILES: [&str; 2] = ["package.json", "package-lock.json"];
/// What the agents and their tests run besides, as Debian's packages.
const TOOLS: &[&str] = &["curl", "git", "make"];
/// The programs that npm must have placed.
const NPM_PROGRAMS: [&str; 5] = ["claude", "codex", "gemini", "qwen", "opencode"];
/// The agents in Python: a directory, and the list of all their packages.
const PYTHON_AGENTS: [(&str, &str); 2] = [
    ("mini-swe-agent", "mini-swe-agent.txt"),
    ("aider", "aider.txt"),
];
/// Says what a directory was made from, as its last file.
const STAMP: &str = "made-from";

/// Installs what is missing, and returns where everything lies.
///
/// # Errors
/// When Node.js, npm or Python are missing or too old, or a registry does not give what is asked of it.
pub fn ensure() -> Result<PathBuf> {
    step("Agents: Claude Code, Codex, Gemini CLI, Qwen Code, OpenCode, mini-swe-agent, aider");
    let place = root::target().join("agents");
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    let node = node(&place)?;
    npm(&place.join("npm"), &node)?;
    let python = python()?;
    for (name, list) in PYTHON_AGENTS {
        virtual_environment(&place.join(name), list, &python)?;
    }
    note(&format!("agents: {}", place.display()));
    Ok(place)
}

/// Where the lists of packages are.
fn lists() -> PathBuf {
    root::repository().join("tests/agents")
}

/// The version of Node.js. Where other users cannot reach it (one of a home directory), they get a copy.
fn node(place: &Path) -> Result<String> {
    let missing: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    packages::ensure("the agents", &[&missing[..], TOOLS].concat())?;
    let node = find("node").context("no `node` in PATH: install Node.js 20 or later, with npm")?;
    let version = output(command(&node).arg("--version"))?.trim().to_owned();
    let major = version
        .strip_prefix('v')
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .with_context(|| format!("`{}` says it is version {version:?}", node.display()))?;
    if major < NODE {
        bail!(
            "{} is Node.js {major}, the agents need {NODE} or later: put a newer one before it in PATH (Debian's \
             trixie-backports or forky, or a version manager such as nvm: `nvm install 22`)",
            node.display()
        );
    }
    let real = fs::canonicalize(&node)?;
    let programs = place.join("bin");
    fs::create_dir_all(&programs)?;
    let copy = programs.join("node");
    if is_reached_by_all(&real) {
        let _ = fs::remove_file(&copy);
    } else {
        note(&format!(
            "{} is in a directory that others cannot enter: the tests take a copy",
            real.display()
        ));
        run(command("cp").arg(&real).arg(&copy))?;
    }
    Ok(version)
}

/// Whether any user may go to a file: every directory above it can be searched.
fn is_reached_by_all(path: &Path) -> bool {
    path.ancestors().skip(1).all(|directory| {
        fs::metadata(directory).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    })
}

/// Runs an installation unless it has been done from the same lists; one that was cut short is begun anew.
fn made_from(
    directory: &Path,
    lists: &str,
    what: &str,
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stamp = directory.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|made| made == lists) {
        return Ok(());
    }
    step(&format!("Installing {what} into {}", directory.display()));
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    make()?;
    fs::write(&stamp, lists).with_context(|| format!("cannot write {}", stamp.display()))
}

fn npm(directory: &Path, node: &str) -> Result<()> {
    let mut from = format!("node {node}\n");
    for name in NPM_FILES {
        from += &read(&lists().join(name))?;
    }
    made_from(
        directory,
        &from,
        "five agents from npm (1.3 GB, one or two minutes)",
        || {
            for name in NPM_FILES {
                fs::copy(lists().join(name), directory.join(name))
                    .with_context(|| format!("cannot write into {}", directory.display()))?;
            }
            // Not `ci`, which wants to find in the lock file what npm leaves out of it: packages of other platforms that their
            // authors name and never published. Old versions of npm run every package's install script, those of
            // today the ones that package.json allows.
            let mut npm = command("npm");
            npm.current_dir(directory).args([
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]);
            run(&mut npm).context(
                "the agents from npm could not be installed; is its registry reachable?",
            )?;
            for program in NPM_PROGRAMS {
                let placed = directory.join("node_modules/.bin").join(program);
                output(command(&placed).arg("--version").env("HOME", directory))
                    .with_context(|| format!("npm ended well but `{program}` does not start"))?;
            }
            Ok(())
        },
    )
}

/// A Python that every user reaches, with what makes virtual environments.
fn python() -> Result<PathBuf> {
    let mut seen = Vec::new();
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path).map(|directory| directory.join("python3"));
    for candidate in candidates.chain(["/usr/bin/python3".into()]) {
        if !candidate.is_file() || seen.iter().any(|(known, _)| *known == candidate) {
            continue;
        }
        match usable(&candidate) {
            Ok(python) => return Ok(python),
            Err(why) => seen.push((candidate, format!("{why:#}"))),
        }
    }
    packages::ensure("the agents", &["python3", "python3-venv"])?;
    usable(Path::new("/usr/bin/python3")).with_context(|| {
        let tried: Vec<String> = seen
            .iter()
            .map(|(python, why)| format!("{}: {why}", python.display()))
            .collect();
        format!(
            "no Python 3.{PYTHON} or later that every user reaches ({})",
            tried.join("; ")
        )
    })
}

/// The real program of a Python, if agents can be installed with it.
fn usable(python: &Path) -> Result<PathBuf> {
    let said = output(command(python).args([
        "-c",
        "import sys, ensurepip, venv; print(sys.version_info.minor, getattr(sys, '_base_executable', sys.executable))",
    ]))
    .context("it has no venv or ensurepip")?;
    let (minor, real) = said.trim().split_once(' ').context("it says nothing")?;
    if minor.parse::<u32>().unwrap_or(0) < PYTHON {
        bail!("it is 3.{minor}");
    }
    let real = fs::canonicalize(real)?;
    if !is_reached_by_all(&real) {
        bail!(
            "{} is in a directory that others cannot enter",
            real.display()
        );
    }
    Ok(real)
}

fn virtual_environment(directory: &Path, list: &str, python: &Path) -> Result<()> {
    let list = lists().join(list);
    let from = format!("{}\n{}", python.display(), read(&list)?);
    let what = format!("{} from PyPI (0.7 GB, about a minute)", name(directory));
    made_from(directory, &from, &what, || {
        run(command(python).args(["-m", "venv"]).arg(directory))?;
        let mut pip = command(directory.join("bin/python3"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--requirement"])
            .arg(&list);
        run(&mut pip).with_context(|| {
            format!(
                "{} could not be installed from PyPI; its list is of Python 3.11",
                name(directory)
            )
        })
    })
}

fn name(directory: &Path) -> String {
    directory
        .file_name()
        .map_or_else(String::new, |name| name.display().to_string())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_pinned() {
        let package: serde_json::Value =
            serde_json::from_str(&read(&lists().join("package.json")).unwrap()).unwrap();
        for (name, version) in package["dependencies"].as_object().unwrap() {
            let version = version.as_str().unwrap();
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{name} {version}"
            );
        }
        for (name, list) in PYTHON_AGENTS {
            let text = read(&lists().join(list)).unwrap();
            assert!(text.lines().any(|line| line.starts_with(name)), "{list}");
            for line in text.lines() {
                assert!(line.contains("=="), "{list}: {line}");
            }
        }
    }

    #[test]
    fn no_list_names_where_a_package_comes_from() {
        for list in NPM_FILES
            .iter()
            .chain(PYTHON_AGENTS.iter().map(|(_, list)| list))
        {
            let text = read(&lists().join(list)).unwrap();
            assert!(
                !text.contains("\"resolved\"") && !text.contains("://"),
                "{list}"
            );
        }
    }

    #[test]
    fn what_was_made_is_made_again_when_its_list_changes() {
        let directory = env::temp_dir().join(format!("enforcer-made-{}", std::process::id()));
        let made = |lists: &str, works: bool| {
            let mut ran = false;
            let result = made_from(&directory, lists, "a trial", || {
                ran = true;
                if works { Ok(()) } else { bail!("no") }
            });
            (ran, result.is_ok())
        };
        assert_eq!(made("a", false), (true, false));
        assert_eq!(made("a", true), (true, true));
        assert_eq!(made("a", true), (false, true));
        assert_eq!(made("b", true), (true, true));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_private_directory_is_not_reached_by_all() {
        assert!(is_reached_by_all(Path::new("/usr/bin/env")));
        let directory = env::temp_dir().join(format!("enforcer-reach-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_reached_by_all(&directory.join("x")));
        fs::remove_dir(&directory).unwrap();
    }
}
