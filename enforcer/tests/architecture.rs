//! The rules of the house that the compiler does not check: what the pure parts may not touch, that only
//! `kernel` knows aya, and that adapters do not know one another.

#![allow(
    clippy::unwrap_used,
    reason = "an integration test: clippy only knows tests by their attribute"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(directory);
    let mut pending = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let tests = path
                .file_stem()
                .is_some_and(|stem| stem.to_string_lossy().ends_with("_tests"));
            if !tests {
                let text = fs::read_to_string(&path).unwrap();
                // What only tests use comes after the mark, at the end of the file.
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                found.push((path, code.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", root.display());
    found
}

fn offences(directory: &str, forbidden: &[&str]) -> Vec<String> {
    let mut offences = Vec::new();
    for (path, text) in sources(directory) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in forbidden {
                if code.contains(word) {
                    offences.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    offences
}

#[test]
fn policy_and_decide_are_pure() {
    let forbidden = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::thread",
        "std::env",
        "std::os",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "tokio",
        "async ",
        "aya::",
        "nix::",
        "libc::",
        "crate::kernel",
        "crate::launch",
        "crate::audit",
        "crate::seccomp",
        "crate::approvals",
        "crate::run",
        "crate::hook",
        "crate::cli",
        "unsafe ",
        "println!",
    ];
    for directory in ["policy", "decide"] {
        assert_eq!(offences(directory, &forbidden), [""; 0]);
    }
}

#[test]
fn only_kernel_knows_aya() {
    for directory in [
        "policy",
        "decide",
        "launch",
        "seccomp",
        "audit",
        "approvals",
        "cli",
        "run",
    ] {
        assert_eq!(
            offences(directory, &["aya::", "aya_obj::", "aya_log::"]),
            [""; 0]
        );
    }
}

#[test]
fn adapters_do_not_know_one_another() {
    let adapters = ["kernel", "launch", "audit", "approvals"];
    for adapter in adapters {
        let others: Vec<String> = adapters
            .iter()
            .filter(|other| **other != adapter)
            .map(|other| format!("crate::{other}"))
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        assert_eq!(offences(adapter, &others), [""; 0]);
    }
    assert_eq!(offences("approvals", &["crate::seccomp"]), [""; 0]);
}

#[test]
fn adapters_do_not_know_the_composition_roots() {
    for adapter in ["kernel", "launch", "seccomp", "audit", "approvals"] {
        assert_eq!(
            offences(adapter, &["crate::run", "crate::cli", "crate::hook"]),
            [""; 0]
        );
    }
}

#[test]
fn unsafe_code_stays_where_it_belongs() {
    for directory in ["policy", "decide", "audit", "cli", "run", "hook"] {
        assert_eq!(offences(directory, &["unsafe "]), [""; 0]);
    }
}

#[test]
fn what_is_said_cannot_end_a_command() {
    // These panic where the descriptor is closed, or full and non-blocking, and an agent can make it so: `say!`.
    for directory in [
        "approvals",
        "audit",
        "cli",
        "hook",
        "launch",
        "run",
        "seccomp",
    ] {
        let found = offences(
            directory,
            &[
                "println!",
                "eprint!",
                " print!",
                "io::stdout().lock",
                "io::stderr().lock",
            ],
        );
        let of_tests = |line: &String| line.contains("/rig.rs") || line.contains("/trial.rs");
        let found: Vec<String> = found.into_iter().filter(|line| !of_tests(line)).collect();
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn the_check_sees_an_offence() {
    assert!(!offences("kernel", &["aya::"]).is_empty());
}
