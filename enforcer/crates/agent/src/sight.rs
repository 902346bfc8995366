//! How the agent's files are looked at from outside: by its user's rights, below its root.

use super::error::{AgentError, Result};
use enforcer_files::changer::Changer;
use enforcer_launch::{AgentCgroup, Identity};
use enforcer_policy::{Policy, model::GroupChoice};
use enforcer_seccomp::{
    Eyes,
    resolve::{Resolver, Roots},
};

/// Whose paths are resolved.
#[derive(Debug)]
pub struct Sight {
    /// Who the agent runs as, to the file system.
    pub eyes: Eyes,
    /// Whether its processes can have another root directory or mount namespace.
    roots: Roots,
    /// Who could change programs: the agent's user.
    pub changer: Changer,
}

impl Sight {
    /// That of an agent in this cgroup.
    pub fn of(
        identity: &Identity,
        cgroup: &AgentCgroup,
        policy: &Policy,
        changer: Changer,
    ) -> Self {
        Self {
            eyes: Eyes {
                uid: identity.uid,
                gid: identity.gid,
                groups: identity.groups.clone(),
                cgroup: cgroup.membership(),
            },
            roots: roots(policy),
            changer,
        }
    }

    /// Who resolves its paths; each thread has one.
    ///
    /// # Errors
    ///
    /// Our own root directory cannot be looked at.
    pub fn resolver(&self) -> Result<Resolver> {
        Ok(Resolver::new(self.roots, self.eyes.clone())
            .map_err(AgentError::system("/ cannot be looked at"))?
            .with_changer(self.changer.clone()))
    }
}

fn roots(policy: &Policy) -> Roots {
    let loosened = |group: &GroupChoice| ["namespaces", "mount"].contains(&group.name.as_str());
    if policy.syscalls.allow.iter().any(loosened) {
        Roots::Any
    } else {
        Roots::Fixed
    }
}
