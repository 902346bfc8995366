//! What a policy means here and for this user: the home directory, links on the way to programs, and directories that are
//! trusted only if the agent's user cannot change them. [`enforcer_policy::settle`] puts it into the policy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::policy_file::way_to;
use enforcer_files::changer::{Changer, Owned};
use enforcer_launch::Identity;
use enforcer_policy::{
    Policy,
    settle::{self, settle},
};

/// The machine and the user that an agent runs as.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Who could change programs.
    pub changer: Changer,
    /// The home directory as it is named, and with links followed if that is another.
    homes: Vec<String>,
}

/// A directory that a policy trusts and the agent's user can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The directory, as the policy names it.
    pub directory: String,
    /// What the user can change: it, or a directory on the way.
    pub place: PathBuf,
    /// How.
    pub how: String,
}

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            directory,
            place,
            how,
        } = self;
        let place = if place == Path::new(directory) {
            String::new()
        } else {
            format!("{} ", place.display())
        };
        write!(
            f,
            "{directory} is not trusted, because {place}{how}: its programs go by their paths; mend: give the directory and \
             all above it to root (chown root, chmod go-w), or take it out of exec.trusted_dirs and name its programs by their paths"
        )
    }
}

impl Ground {
    /// For who an agent runs as.
    pub fn of(identity: &Identity) -> Self {
        let mut groups = identity.groups.clone();
        if !groups.contains(&identity.gid) {
            groups.push(identity.gid);
        }
        Self {
            changer: Changer {
                uid: identity.uid,
                groups,
            },
            homes: homes(&identity.home),
        }
    }

    /// The home directory, if it is known.
    pub fn home(&self) -> Option<&Path> {
        self.homes.first().map(Path::new)
    }

    /// Puts into a policy what it means here. Gives the directories that are not trusted after all.
    pub fn settle(&self, policy: &mut Policy) -> Vec<Untrusted> {
        let untrusted: Vec<Untrusted> = policy
            .exec
            .trusted_dirs
            .iter()
            .filter_map(|directory| self.untrusted(directory))
            .collect();
        settle(
            policy,
            &settle::SettleGround {
                homes: &self.homes,
                leads_to: &leads_to,
                changeable: &|directory| untrusted.iter().any(|one| one.directory == directory),
            },
        );
        untrusted
    }

    /// What of a trusted directory the agent's user can change. One that is not there can be made by who can write to what
    /// is there of the way.
    fn untrusted(&self, directory: &str) -> Option<Untrusted> {
        let found = |place: &Path, how: &str| Untrusted {
            directory: directory.to_owned(),
            place: place.to_owned(),
            how: how.to_owned(),
        };
        let mut there = Path::new(directory);
        loop {
            // Its entries, and those of all links on the way.
            match way_to(&there.join("program")) {
                Ok((directories, _)) => {
                    let how = |place: &PathBuf| {
                        let metadata = fs::symlink_metadata(place).ok()?;
                        let how = self.changer.how(Owned::from(&metadata))?;
                        Some(found(place, how))
                    };
                    return directories.iter().find_map(how);
                }
                Err(error) if is_missing(&error) => match there.parent() {
                    Some(parent) => there = parent,
                    None => return None,
                },
                Err(error) => {
                    return Some(found(there, &format!("cannot be looked at ({error})")));
                }
            }
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// A home directory in each way in which paths begin with it. That of nobody in particular (`/`) is none.
fn homes(home: &Path) -> Vec<String> {
    let mut homes = Vec::new();
    let resolved = fs::canonicalize(home).ok();
    for path in [Some(home), resolved.as_deref()].into_iter().flatten() {
        if let Some(text) = path.to_str()
            && text.len() > 1
            && text.starts_with('/')
        {
            let text = text.trim_end_matches('/').to_owned();
            if !homes.contains(&text) {
                homes.push(text);
            }
        }
    }
    homes
}

/// What a path leads to, if that is another path.
fn leads_to(path: &str) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    let real = real.to_str()?;
    (real != path).then(|| real.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn ground(uid: u32) -> Ground {
        Ground {
            changer: Changer {
                uid,
                groups: vec![uid],
            },
            homes: Vec::new(),
        }
    }

    #[test]
    fn a_directory_of_the_agents_or_below_one_is_not_trusted() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| place.path().join(name);
        let text = |name: &str| at(name).to_str().unwrap().to_owned();
        for name in ["home/tools/bin", "roots/bin", "open"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        chown(at("home"), Some(1234), None).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(at("home/tools"), at("link")).unwrap();
        let agent = ground(1234);
        for (name, place) in [
            ("home/tools/bin", Some("home")),
            ("link/bin", Some("home")),
            ("open", Some("open")),
            ("open/not/there", Some("open")),
            ("roots/bin", None),
            ("roots/bin/not-there", None),
        ] {
            let found = agent.untrusted(&text(name)).map(|one| one.place);
            assert_eq!(found, place.map(at), "{name}");
        }
        // Another user's files are not this one's.
        assert_eq!(ground(4321).untrusted(&text("home/tools/bin")), None);
    }
}
