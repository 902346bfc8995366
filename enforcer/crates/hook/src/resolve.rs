//! Paths that tools name, resolved: `~`, the working directory, `..`, symbolic links, as far as they exist.
//!
//! An agent opens the path itself, later and in its own way: some resolve `..` by text first, the kernel follows links
//! first. So a path is judged in every way in which it can be read.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use url::Url;

use enforcer_decide::paths::NamedPath;

/// Symbolic links that are followed before it is called a loop (the kernel's own limit).
const MOST_LINKS: usize = 40;
/// Bytes of a path; the kernel takes no longer ones.
const PATH_MAX: usize = 4096;

/// Where relative paths and `~` lead.
#[derive(Clone, Debug)]
pub struct From<'a> {
    /// The working directory; absolute.
    pub cwd: &'a Path,
    /// The home directory.
    pub home: Option<&'a Path>,
}

/// Every way in which a path can be read.
///
/// # Errors
///
/// In words: it cannot be resolved.
pub fn path(text: &str, from: &From<'_>, writes: bool) -> Result<Vec<NamedPath>, String> {
    let fault = |why: &str| format!("The path `{}` {why}", shown(text));
    if text.len() > PATH_MAX {
        return Err(fault("is longer than any path"));
    }
    let absolute = absolute(text, from).map_err(|why| fault(&why))?;
    let lexical = lexical(&absolute);
    let mut found: Vec<NamedPath> = Vec::with_capacity(2);
    for way in [absolute, lexical.clone()] {
        let real = follow(&way).map_err(|why| fault(&why))?;
        let named = NamedPath {
            given: utf8(&lexical).ok_or_else(|| fault("is no UTF-8"))?,
            real: utf8(&real).ok_or_else(|| fault("leads to a name that is no UTF-8"))?,
            writes,
        };
        if !found.contains(&named) {
            found.push(named);
        }
    }
    Ok(found)
}

/// The directory that a pattern of paths begins in, and the ways to read it.
///
/// # Errors
///
/// In words: it goes up behind its first wildcard, or cannot be resolved.
pub fn pattern(text: &str, base: &str, from: &From<'_>) -> Result<Vec<NamedPath>, String> {
    let wild = text.find(['*', '?', '[', '{', '!']).unwrap_or(text.len());
    let (head, rest) = text.split_at(wild);
    if rest.split(['/', ',', '{', '}']).any(|part| part == "..") {
        return Err(format!(
            "The pattern `{}` goes up behind a wildcard",
            shown(text)
        ));
    }
    let directory = match head.rfind('/') {
        _ if wild == text.len() => head,
        Some(0) => "/",
        Some(end) => &head[..end],
        None => "",
    };
    // `{a,/etc}/x`: an alternative can begin anew.
    if rest.contains("{/") || rest.contains(",/") || rest.contains('~') {
        return Err(format!(
            "The pattern `{}` has a path inside a wildcard",
            shown(text)
        ));
    }
    let base = absolute(base, from).map_err(|why| format!("The path `{}` {why}", shown(base)))?;
    let below = From {
        cwd: &base,
        home: from.home,
    };
    let directory = if directory.is_empty() { "." } else { directory };
    path(directory, &below, false)
}

/// A directory as it is, or as it is named if it does not exist.
pub fn real(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| follow(directory).unwrap_or(directory.into()))
}

fn utf8(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(200);
    enforcer_redact::text(&text.as_bytes()[..end])
}

/// From the root; `..` and links are still in it.
fn absolute(text: &str, from: &From<'_>) -> Result<PathBuf, String> {
    if text.len() >= 5 && text.as_bytes()[..5].eq_ignore_ascii_case(b"file:") {
        return Url::parse(text)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| "is a file URL that cannot be read".to_owned());
    }
    if let Some(rest) = text.strip_prefix('~') {
        return match (rest.strip_prefix('/'), from.home) {
            _ if !rest.is_empty() && !rest.starts_with('/') => {
                // Most tools take the name as it is; a shell would look for the user.
                Err("begins with another user's home directory".to_owned())
            }
            (_, None) => Err("begins with `~`, and there is no home directory".to_owned()),
            (rest, Some(home)) => Ok(home.join(rest.unwrap_or_default().trim_start_matches('/'))),
        };
    }
    Ok(from.cwd.join(text))
}

/// `.` and `..` taken away by text.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Follows links as the kernel does. What does not exist is taken as it is named.
fn follow(path: &Path) -> Result<PathBuf, String> {
    let mut ahead = parts(path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        let target = match fs::read_link(&next) {
            Ok(target) => target,
            Err(error) => match error.kind() {
                // No link, or nothing there.
                io::ErrorKind::InvalidInput
                | io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory => {
                    here = next;
                    continue;
                }
                _ => return Err(format!("cannot be resolved: {}: {error}", next.display())),
            },
        };
        if next.starts_with("/proc") && next != Path::new("/proc/mounts") {
            // It leads elsewhere in another process.
            return Err("leads through a link of /proc".to_owned());
        }
        links += 1;
        if links > MOST_LINKS {
            return Err("leads through a loop of symbolic links".to_owned());
        }
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            ahead.push_front(part);
        }
        if ahead
            .iter()
            .map(|part| part.as_bytes().len() + 1)
            .sum::<usize>()
            > 16 * PATH_MAX
        {
            return Err("is longer than any path".to_owned());
        }
    }
    Ok(here)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
