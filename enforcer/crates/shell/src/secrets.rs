//! Secret files whose names a pattern may be expanded to.

use enforcer_policy::compile::Glob;

/// Files below a home directory.
const HOME: [&str; 22] = [
    ".ssh/id_rsa",
    ".ssh/id_ed25519",
    ".ssh/id_ecdsa",
    ".ssh/id_dsa",
    ".aws/credentials",
    ".aws/config",
    ".netrc",
    ".git-credentials",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".my.cnf",
    ".vault-token",
    ".docker/config.json",
    ".kube/config",
    ".config/gh/hosts.yml",
    ".config/gcloud/credentials.db",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".azure/accessTokens.json",
    ".gnupg/secring.gpg",
    ".password-store/x.gpg",
];
/// Files of the system.
const SYSTEM: [&str; 3] = ["/etc/shadow", "/etc/gshadow", "/etc/sudoers"];
/// Files of a project, and keys wherever they lie, by their names.
const NAMES: [&str; 7] = [
    ".env",
    ".env.local",
    ".env.production",
    "id_rsa",
    "id_ed25519",
    "id_ecdsa",
    "id_dsa",
];

/// The secret files that a pattern may become, each with the beginning that the pattern has.
pub(super) fn matched(pattern: &str) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').collect();
    if let Some(found) = SYSTEM.iter().find(|file| fits(&parts, file)) {
        return vec![(*found).to_owned()];
    }
    let home = match parts.as_slice() {
        ["", "home" | "Users", _, ..] => 3,
        ["", "root", ..] => 2,
        [first, ..] if first.starts_with('~') => 1,
        _ => 0,
    };
    let behind = |count: usize| parts.len().checked_sub(count).filter(|at| *at >= home);
    for file in HOME {
        let count = file.split('/').count();
        // Below a home directory itself, or in a directory that is called so.
        if let Some(at) = behind(count)
            && (home > 0 && at == home || count > 1 && home == 0)
            && fits(&parts[at..], file)
        {
            return vec![beginning(&parts[..at], file)];
        }
    }
    let last = parts.last().copied().unwrap_or_default();
    // A pattern of wildcards alone names everything, not a secret.
    let mut inside = false;
    let letter = |c: char| {
        inside = c == '[' || inside && c != ']';
        !inside && c.is_alphanumeric()
    };
    let named = last.chars().map(letter).filter(|letter| *letter).count();
    for file in NAMES {
        if named >= if file.starts_with('.') { 1 } else { 2 } && fits(&[last], file) {
            return vec![beginning(&parts[..parts.len() - 1], file)];
        }
    }
    Vec::new()
}

fn beginning(parts: &[&str], file: &str) -> String {
    let mut path: Vec<&str> = parts.to_vec();
    path.push(file);
    path.join("/")
}

/// Whether each component of a pattern matches its component of a path. A wildcard takes no dot in front.
fn fits(pattern: &[&str], path: &str) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(pattern, name)| {
            (!name.starts_with('.') || pattern.starts_with('.'))
                && Glob::parse(&pattern.replace("[^", "[!")).matches(name)
        })
}
