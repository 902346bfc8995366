//! Who the agent runs as.

use std::ffi::{CString, OsString};
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist, getgroups};

use super::LaunchError;

/// Groups whose members can become root without any capability, by the door of a service or a device.
const ROOT_LIKE_GROUPS: [&str; 8] = [
    "docker",
    "podman",
    "lxd",
    "incus-admin",
    "libvirt",
    "disk",
    "kmem",
    "kvm",
];

/// Where the identity was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--user`.
    Option,
    /// `SUDO_UID` and `SUDO_GID`.
    Sudo,
    /// `DOAS_USER`.
    Doas,
    /// `PKEXEC_UID`.
    Pkexec,
    /// The current user.
    Current,
}

impl Origin {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Option => "--user",
            Self::Sudo => "SUDO_UID",
            Self::Doas => "DOAS_USER",
            Self::Pkexec => "PKEXEC_UID",
            Self::Current => "the current user",
        }
    }
}

/// The user and groups of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, ascending.
    pub groups: Vec<u32>,
    /// Name in the user database, if it is there.
    pub name: Option<String>,
    /// Home directory; `/` for an unknown user.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
    /// Where it was found.
    pub origin: Origin,
}

impl Identity {
    /// Finds who the agent runs as: `option` (`--user`, a name or uid); else, for root, who called `sudo`,
    /// `doas` or `pkexec`; else the current user.
    ///
    /// # Errors
    /// When the user is unknown or malformed, or differs from the current one and we are not root. A bad
    /// `SUDO_UID` is an error too: falling back to root would be weaker than what was asked for.
    pub fn resolve(
        option: Option<&str>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, LaunchError> {
        let root = Uid::effective().is_root();
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        if let Some(user) = option {
            let found = Self::of_user(user, None, Origin::Option)?;
            if !root && found.uid != Uid::effective().as_raw() {
                return Err(bad(
                    user,
                    Origin::Option,
                    "only root can run an agent as another user".to_owned(),
                ));
            }
            return Ok(found);
        }
        if root {
            if let Some(uid) = text("SUDO_UID") {
                number(&uid, Origin::Sudo)?;
                let gid = match text("SUDO_GID") {
                    Some(gid) => Some(number(&gid, Origin::Sudo)?),
                    None => None,
                };
                return Self::of_user(&uid, gid, Origin::Sudo);
            }
            if let Some(user) = text("DOAS_USER") {
                return Self::of_user(&user, None, Origin::Doas);
            }
            if let Some(uid) = text("PKEXEC_UID") {
                number(&uid, Origin::Pkexec)?;
                return Self::of_user(&uid, None, Origin::Pkexec);
            }
        }
        Self::current()
    }

    /// The current user with the groups that this process has.
    ///
    /// # Errors
    /// When the user database or the groups cannot be read.
    pub fn current() -> Result<Self, LaunchError> {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let mut groups: Vec<u32> = getgroups()
            .map_err(LaunchError::system(
                "getgroups",
                "check the system's limits",
            ))?
            .into_iter()
            .map(Gid::as_raw)
            .collect();
        groups.sort_unstable();
        let entry = User::from_uid(uid).ok().flatten();
        Ok(Self::new(
            uid.as_raw(),
            gid.as_raw(),
            groups,
            entry,
            Origin::Current,
        ))
    }

    fn of_user(user: &str, gid: Option<u32>, origin: Origin) -> Result<Self, LaunchError> {
        let lookup = |errno: nix::errno::Errno| {
            bad(
                user,
                origin,
                format!("the user database cannot be read: {errno}"),
            )
        };
        // A name goes before a number, as in chown(1): a user may be called `1000`.
        let named = User::from_name(user).map_err(lookup)?;
        let entry = match named {
            Some(entry) => Some(entry),
            None => match number(user, origin) {
                Ok(uid) => User::from_uid(Uid::from_raw(uid)).map_err(lookup)?,
                Err(_) => return Err(bad(user, origin, "there is no such user".to_owned())),
            },
        };
        let Some(entry) = entry else {
            // A bare number is good enough, with a group of the same number unless one is given.
            let uid = number(user, origin)?;
            let gid = gid.unwrap_or(uid);
            return Ok(Self::new(uid, gid, vec![gid], None, origin));
        };
        let gid = gid.unwrap_or(entry.gid.as_raw());
        let name = CString::new(entry.name.as_bytes())
            .map_err(|_| bad(user, origin, "its name holds a NUL byte".to_owned()))?;
        let mut groups: Vec<u32> = getgrouplist(&name, Gid::from_raw(gid))
            .map_err(lookup)?
            .into_iter()
            .map(Gid::as_raw)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(Self::new(
            entry.uid.as_raw(),
            gid,
            groups,
            Some(entry),
            origin,
        ))
    }

    fn new(uid: u32, gid: u32, groups: Vec<u32>, entry: Option<User>, origin: Origin) -> Self {
        let (name, home, shell) = match entry {
            Some(entry) => (Some(entry.name), entry.dir, entry.shell),
            None => (None, PathBuf::from("/"), PathBuf::new()),
        };
        Self {
            uid,
            gid,
            groups,
            name,
            home,
            shell: if shell.as_os_str().is_empty() {
                PathBuf::from("/bin/sh")
            } else {
                shell
            },
            origin,
        }
    }

    /// Whether the agent has uid 0.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// As messages name the user.
    pub fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// What is weaker under this identity than under an ordinary user's: one sentence each.
    pub fn weaknesses(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.is_root() {
            found.push(
                "the agent has uid 0: it has no capabilities, but it can change every file and device that \
                 belongs to root (programs, service and cron files, disks) and ask services on those local \
                 sockets that the policy allows to act outside its cgroup; use --user, or start with sudo from the user's own account"
                    .to_owned(),
            );
        }
        for group in &self.groups {
            let Ok(Some(entry)) = nix::unistd::Group::from_gid(Gid::from_raw(*group)) else {
                continue;
            };
            if *group == 0 && !self.is_root() {
                found.push(
                    "the agent is in group 0, which can read and change files of root's group"
                        .to_owned(),
                );
            } else if ROOT_LIKE_GROUPS.contains(&entry.name.as_str()) {
                found.push(format!(
                    "the agent is in group `{}`, which opens a way to root outside its cgroup; use --user \
                     with an account that is not in it",
                    entry.name
                ));
            }
        }
        found
    }
}

fn bad(user: &str, origin: Origin, reason: String) -> LaunchError {
    LaunchError::User {
        user: user.to_owned(),
        origin: origin.name(),
        reason,
        mend: "name an existing user with --user",
    }
}

fn number(text: &str, origin: Origin) -> Result<u32, LaunchError> {
    match text.parse::<u32>() {
        // -1 means "leave it" to setresuid(2): the agent would stay root.
        Ok(u32::MAX) => Err(bad(
            text,
            origin,
            "this number stands for no user".to_owned(),
        )),
        Ok(id) => Ok(id),
        Err(_) => Err(bad(
            text,
            origin,
            "this is not a user or group number".to_owned(),
        )),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
