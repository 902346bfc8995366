//! The rules of the house. What a crate may import stands in its `Cargo.toml`, and cargo holds it there; here stands what
//! those files may say, and what a manifest cannot.

#![allow(
    clippy::unwrap_used,
    reason = "an integration test: clippy only knows tests by their attribute"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each crate may import of the house, direct or not. One that stands above another sees all below it.
const WALLS: [(&str, &[&str]); 15] = [
    ("redact", &[]),
    ("policy", &["redact"]),
    ("shell", &["policy"]),
    ("decide", &["policy", "redact", "shell"]),
    ("say", &[]),
    ("files", &["decide", "policy"]),
    ("kernel", &["files", "policy"]),
    ("seccomp", &["decide", "files", "policy"]),
    ("launch", &["seccomp"]),
    ("policy-files", &["decide", "files", "launch", "policy"]),
    ("trail", &["decide", "policy", "redact"]),
    ("control", &["decide", "policy", "redact"]),
    ("approvals", &["control", "decide", "policy"]),
    (
        "hook",
        &[
            "control",
            "decide",
            "files",
            "launch",
            "policy",
            "policy-files",
            "redact",
            "trail",
        ],
    ),
    (
        "agent",
        &[
            "approvals",
            "control",
            "decide",
            "files",
            "hook",
            "kernel",
            "launch",
            "policy",
            "policy-files",
            "redact",
            "say",
            "seccomp",
            "trail",
        ],
    ),
];
/// Crates that take texts and actions, and give tables and decisions.
const PURE: [&str; 4] = ["redact", "policy", "shell", "decide"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")
}

/// The names of what a crate depends on outside its tests and what those share, by the names of their packages.
fn dependencies(name: &str) -> Vec<String> {
    dependencies_of(&crates().join(name))
}

fn dependencies_of(package: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]"
            && let Some(end) = line.find(['.', ' ', '='])
            && !line.starts_with('#')
            && !line.contains("optional = true")
        {
            found.push(line[..end].to_owned());
        }
    }
    found
}

fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut pending = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let stem = path.file_stem().unwrap().to_string_lossy();
            let tests = stem.ends_with("_tests") || stem == "rig" || stem == "trial";
            if !tests {
                let text = fs::read_to_string(&path).unwrap();
                // What only tests use comes after the mark, at the end of the file.
                let code = text
                    .split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap_or_default();
                found.push((path, code.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", directory.display());
    found
}

fn offences(directory: &Path, forbidden: &[&str]) -> Vec<String> {
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
fn every_crate_sees_what_it_may_and_no_more() {
    let mut known: BTreeMap<&str, &[&str]> = WALLS.into();
    for entry in fs::read_dir(crates()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let allowed = known
            .remove(name.as_str())
            .unwrap_or_else(|| panic!("what `{name}` may import stands nowhere"));
        let of_house: Vec<String> = dependencies(&name)
            .iter()
            .filter_map(|other| other.strip_prefix("enforcer-"))
            .filter(|other| *other != "common")
            .map(str::to_owned)
            .collect();
        assert_eq!(of_house, allowed, "{name}");
    }
    assert!(known.is_empty(), "there are no such crates: {known:?}");
}

#[test]
fn what_a_manifest_names_is_used() {
    let mut packages: Vec<PathBuf> = WALLS.iter().map(|(name, _)| crates().join(name)).collect();
    packages.push(Path::new(env!("CARGO_MANIFEST_DIR")).to_owned());
    for package in packages {
        let unused: Vec<String> = dependencies_of(&package)
            .into_iter()
            .filter(|name| offences(&package.join("src"), &[&name.replace('-', "_")]).is_empty())
            .collect();
        assert_eq!(unused, [""; 0], "{}", package.display());
    }
}

#[test]
fn only_kernel_knows_aya() {
    for (name, _) in WALLS {
        let knows = dependencies(name)
            .iter()
            .any(|other| other.starts_with("aya"));
        assert_eq!(knows, name == "kernel", "{name}");
    }
}

#[test]
fn what_decides_does_nothing_else() {
    // The standard library is open to every crate.
    let forbidden = [
        "std::fs",
        "std::io",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::thread",
        "std::env",
        "std::os",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "async ",
        "println!",
    ];
    for name in PURE {
        let root = fs::read_to_string(crates().join(name).join("src/lib.rs")).unwrap();
        assert!(root.contains("#![forbid(unsafe_code)]"), "{name}");
        let offences = offences(&crates().join(name).join("src"), &forbidden);
        assert_eq!(offences, [""; 0]);
        for system in ["libc", "nix", "tokio", "libseccomp", "jiff"] {
            let known = dependencies(name).iter().any(|other| other == system);
            assert!(!known, "{name} knows {system}");
        }
    }
}

#[test]
fn what_is_said_cannot_end_a_command() {
    // These panic where the descriptor is closed, or full and non-blocking, and an agent can make it so: `say!`.
    let forbidden = [
        "println!",
        "eprint!",
        " print!",
        "io::stdout().lock",
        "io::stderr().lock",
    ];
    let mut places = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let speaks = WALLS.iter().filter(|(name, _)| *name != "say");
    places.extend(speaks.map(|(name, _)| crates().join(name).join("src")));
    for place in places {
        assert_eq!(offences(&place, &forbidden), [""; 0]);
    }
}

/// The two forms that a policy is written in have the same sections, and call them as people do.
const WRITTEN_FORMS: [&str; 2] = ["policy/src/native.rs", "policy/src/hook_form.rs"];

/// The types that a text makes public.
fn public_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("pub ")?.split_whitespace();
        let kind = words.next()?;
        let name = words.next()?;
        let end = name.find(|c: char| !c.is_alphanumeric());
        ["struct", "enum", "trait", "type", "union"]
            .contains(&kind)
            .then(|| &name[..end.unwrap_or(name.len())])
    })
}

#[test]
fn one_name_is_one_thing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for directory in [
        crates(),
        root.join("src"),
        root.join("../enforcer-common/src"),
    ] {
        for (path, text) in sources(&directory) {
            if WRITTEN_FORMS.iter().any(|form| path.ends_with(form)) {
                continue;
            }
            for name in public_types(&text) {
                places
                    .entry(name.to_owned())
                    .or_default()
                    .push(path.clone());
            }
        }
    }
    assert!(places.len() > 300, "{}", places.len());
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn the_checks_see_an_offence() {
    let types = "pub struct One<'a> {\n    pub enum No {\npub(super) struct No;\npub enum Two {";
    assert!(public_types(types).eq(["One", "Two"]));
    assert!(!offences(&crates().join("kernel"), &["aya::"]).is_empty());
    assert!(dependencies("kernel").contains(&"aya".to_owned()));
}
