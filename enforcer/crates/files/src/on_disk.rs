//! What a command line would start here: the file that its program is, looked for as a shell does, with links followed and
//! a script's interpreter found. For `explain` and the hook, which judge what is not run yet; nothing is run, and what is
//! no regular file is not opened.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use crate::{
    changer::{Changer, Owned},
    script::{self, HEAD},
};
use enforcer_decide::Find;
use enforcer_policy::{ExecAction, ScriptHead};

/// Scripts in scripts that the kernel follows (`exec_binprm`, fs/exec.c).
const DEPTH: usize = 5;
/// Longest path, with its end (`PATH_MAX`, linux/limits.h).
const PATH_MAX: usize = 4096;

/// Looks for programs.
#[derive(Clone, Debug)]
pub struct Finder {
    /// Where relative paths begin; `None`: they are not looked for.
    cwd: Option<PathBuf>,
    home: Option<PathBuf>,
    /// Where bare names are looked for, in this order.
    search: Vec<PathBuf>,
    changer: Changer,
}

impl Finder {
    /// Bare names are looked for in the trusted directories, for which rules mean them, then in `path` (as in `PATH`).
    pub fn new(
        cwd: Option<PathBuf>,
        home: Option<&Path>,
        path: Option<&OsStr>,
        trusted: &[String],
        changer: Changer,
    ) -> Self {
        let mut search: Vec<PathBuf> = trusted.iter().map(PathBuf::from).collect();
        search.extend(
            path.map(|path| std::env::split_paths(path).collect::<Vec<_>>())
                .unwrap_or_default(),
        );
        // What a relative entry means changes with the directory.
        search.retain(|directory| directory.is_absolute());
        Self {
            cwd,
            home: home.map(Path::to_owned),
            search,
            changer,
        }
    }

    /// The same from another working directory.
    #[must_use]
    pub fn at(&self, cwd: PathBuf) -> Self {
        Self {
            cwd: Some(cwd),
            ..self.clone()
        }
    }

    /// The program's path as a shell would give it to the kernel.
    fn given(&self, program: &[u8], directory: Option<&Path>) -> Option<(Vec<u8>, PathBuf)> {
        for spelling in ["~", "$HOME", "${HOME}"] {
            if let Some(rest) = program.strip_prefix(spelling.as_bytes())
                && rest.first() == Some(&b'/')
            {
                let mut path = self.home.as_ref()?.as_os_str().as_bytes().to_vec();
                path.extend(rest);
                let file = PathBuf::from(OsStr::from_bytes(&path));
                return Some((path, file));
            }
        }
        if program.contains(&b'/') {
            let path = Path::new(OsStr::from_bytes(program));
            let file = if path.is_absolute() {
                path.to_owned()
            } else {
                directory?.join(path)
            };
            return Some((program.to_vec(), file));
        }
        self.search.iter().find_map(|directory| {
            let file = directory.join(OsStr::from_bytes(program));
            let metadata = fs::metadata(&file).ok()?;
            let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
            runs.then(|| (file.as_os_str().as_bytes().to_vec(), file))
        })
    }

    /// The exec of these words as text tells it, completed by what is here; `None` if there is no such program.
    fn in_directory(&self, words: &[Vec<u8>], directory: Option<&Path>) -> Option<ExecAction> {
        let program = words.first().filter(|program| !program.is_empty())?;
        let (path, file) = self.given(program, directory)?;
        if path.len() >= PATH_MAX || path.contains(&0) {
            return None;
        }
        let first = Seen::of(&file)?;
        let mut changeable = self.is_changeable(&first);
        let mut last = None;
        let mut next = first.script.clone();
        for _ in 0..DEPTH {
            let Some(script) = next.take() else { break };
            let interpreter = Path::new(OsStr::from_bytes(&script.interpreter));
            let interpreter = if interpreter.is_absolute() {
                interpreter.to_owned()
            } else {
                directory?.join(interpreter)
            };
            let Some(seen) = Seen::of(&interpreter) else {
                break;
            };
            next.clone_from(&seen.script);
            changeable |= self.is_changeable(&seen);
            last = Some(seen.path);
        }
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let resolved = match (&first.script, &last) {
            (None, _) => Some(bytes(&first.path)),
            (Some(_), last) => last.as_deref().map(bytes),
        };
        Some(ExecAction {
            found: false,
            argv: words.to_vec(),
            resolved,
            own: first.script.is_some().then(|| bytes(&first.path)),
            script: first.script,
            fileless: false,
            changeable,
            path,
        })
    }

    fn is_changeable(&self, seen: &Seen) -> bool {
        !matches!(self.changer.on_the_way(&seen.path), Ok(None))
            || self.changer.how(seen.owned).is_some()
    }
}

impl Find for Finder {
    fn directory(&self) -> Option<&str> {
        self.cwd.as_deref().and_then(Path::to_str)
    }

    fn project(&self) -> Option<String> {
        let cwd = self.cwd.as_deref()?;
        let marked = |directory: &&Path| {
            [".git", ".claude"]
                .iter()
                .any(|mark| directory.join(mark).exists())
        };
        // A home directory with settings of an agent in it is no project.
        let root = cwd
            .ancestors()
            .filter(|directory| self.home.as_deref() != Some(*directory))
            .find(marked)
            .unwrap_or(cwd);
        root.to_str().map(str::to_owned)
    }

    fn leads_to(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        let there = path
            .ancestors()
            .find_map(|above| Some((above, above.canonicalize().ok()?)));
        let (above, real) = there.filter(|_| path.is_absolute())?;
        let rest = path.strip_prefix(above).ok()?;
        real.join(rest).to_str().map(str::to_owned)
    }

    fn find(&self, words: &[Vec<u8>], moved: &[String]) -> Vec<ExecAction> {
        let relative = words
            .first()
            .is_some_and(|program| program.contains(&b'/') && program.first() != Some(&b'/'));
        let mut found: Vec<ExecAction> = Vec::new();
        if relative {
            // The text may have gone elsewhere before; it may also not have.
            let mut directories: Vec<PathBuf> = self.cwd.iter().cloned().collect();
            for step in moved {
                let step = match (step.strip_prefix("~/"), &self.home) {
                    (Some(rest), Some(home)) => home.join(rest),
                    _ => PathBuf::from(step),
                };
                if let Some(last) = directories.last() {
                    directories.push(last.join(step));
                } else if step.is_absolute() {
                    directories.push(step);
                }
            }
            for directory in &directories {
                found.extend(self.in_directory(words, Some(directory)));
            }
        } else {
            found.extend(self.in_directory(words, self.cwd.as_deref()));
        }
        if found.is_empty() {
            found.push(ExecAction::from_words(words.to_vec()));
        }
        found
    }
}

/// A program's file.
struct Seen {
    /// Its path, links followed.
    path: PathBuf,
    script: Option<ScriptHead>,
    owned: Owned,
}

impl Seen {
    /// The file that a path leads to, if it is a regular one.
    fn of(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let metadata = fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.nlink() == 0 {
            return None;
        }
        Some(Self {
            script: head(&path).and_then(|head| script::parse(&head)),
            owned: Owned::from(&metadata),
            path,
        })
    }
}

/// What the kernel reads of a program's file, filled up with zeros; `None` where it cannot be read.
fn head(path: &Path) -> Option<[u8; HEAD]> {
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    let mut bytes = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut bytes).ok()?;
    let mut head = [0; HEAD];
    head[..bytes.len()].copy_from_slice(&bytes);
    Some(head)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    fn text(path: &Path) -> Vec<u8> {
        path.as_os_str().as_bytes().to_vec()
    }

    #[test]
    fn programs_are_found_as_a_shell_and_the_kernel_find_them() {
        let place = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(place.path()).unwrap();
        let at = |name: &str| top.join(name);
        fs::create_dir_all(at("home/bin")).unwrap();
        fs::create_dir_all(at("first")).unwrap();
        fs::copy("/bin/true", at("home/bin/tool")).unwrap();
        fs::write(at("first/data"), "no program").unwrap();
        fs::write(at("home/bin/script"), "#!/bin/sh -e\n").unwrap();
        fs::set_permissions(at("home/bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("bin/script", at("home/run")).unwrap();
        let path = std::env::join_paths([at("first"), at("home/bin")]).unwrap();
        let finder = Finder::new(
            Some(at("home")),
            Some(&at("home")),
            Some(&path),
            &[],
            Changer {
                uid: 0,
                groups: Vec::new(),
            },
        );
        let one = |line: &str, moved: &[String]| {
            let mut found = finder.find(&words(line), moved);
            assert_eq!(found.len(), 1, "{line}");
            found.remove(0)
        };
        let tool = Some(text(&at("home/bin/tool")));
        for (line, given) in [
            ("tool x", text(&at("home/bin/tool"))),
            ("bin/tool", b"bin/tool".to_vec()),
            ("~/bin/tool", text(&at("home/bin/tool"))),
            ("$HOME/bin/tool", text(&at("home/bin/tool"))),
        ] {
            let action = one(line, &[]);
            assert_eq!(
                (action.path, action.resolved),
                (given, tool.clone()),
                "{line}"
            );
            assert!(!action.found);
        }
        let script = one("./run now", &[]);
        assert_eq!(script.own, Some(text(&at("home/bin/script"))));
        assert_eq!(script.script.unwrap().interpreter, b"/bin/sh");
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(script.resolved, Some(text(&shell)));
        // What is not there, or no program, is as the text has it.
        for line in ["./tool", "nothing-here", "data", "~ann/x"] {
            assert_eq!(
                one(line, &[]),
                ExecAction::from_words(words(line)),
                "{line}"
            );
        }
        // Where the text has gone to, and where it began.
        let moved = ["bin".to_owned()];
        assert_eq!(one("./tool", &moved).resolved, tool);
        assert_eq!(one("bin/tool", &moved).resolved, tool);
        assert_eq!(
            finder.at(at("home/bin")).find(&words("./tool"), &[])[0].resolved,
            tool
        );
    }
}
