//! Rates of all agents of a user together: maps that every agent with the same user and rate shares, by their pins.
//!
//! They outlive the agents, or a user could start agents anew to have rates anew. Until the next boot each takes
//! eight bytes for each action that the rate counts; root may remove a pin.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

use enforcer_common::{
    limits::{LimitRules, RateRule},
    table::hash_name,
};
use nix::fcntl::{Flock, FlockArg};

use super::{
    KernelError,
    attach::PIN_ROOT,
    generation,
    sys::{map_info, open_pin, pin},
};

/// The directory of the pins, below that of the hosts.
pub const DIRECTORY: &str = "users";

/// The cells of the rates of a user.
#[derive(Debug, Default)]
pub(super) struct UserCells {
    /// Of execs.
    pub execs: Option<OwnedFd>,
    /// Of connects.
    pub connects: Option<OwnedFd>,
}

/// The cells for the rates of a user: those that other agents of the user have, too. Without a user there are none to
/// share.
pub(super) fn cells(limits: &LimitRules, user: Option<&str>) -> Result<UserCells, KernelError> {
    let wanted = |rate: &RateRule| rate.count > 0;
    if !wanted(&limits.user_exec) && !wanted(&limits.user_connect) {
        return Ok(UserCells::default());
    }
    let directory = Path::new(PIN_ROOT).join(DIRECTORY);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error| KernelError::Pin { path, error }
    };
    // Of two agents that start at once one makes a map and one finds it.
    let _held = match user {
        Some(_) => Some(hold(&directory).map_err(fail(&directory))?),
        None => None,
    };
    let open = |name, kind, rate: &RateRule| {
        if !wanted(rate) {
            return Ok(None);
        }
        let Some(user) = user else {
            return generation::cells(name, rate.cells()).map(Some);
        };
        let path = directory.join(pin_name(kind, user, rate));
        match open_pin(&path) {
            Ok(map) => {
                let info = map_info(&map).map_err(|error| KernelError::map(name, error))?;
                if (info.value_size, info.max_entries) != (8, rate.cells()) {
                    let found = io::Error::other("it is not what this rate needs; remove it");
                    return Err(fail(&path)(found));
                }
                Ok(Some(map))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let map = generation::cells(name, rate.cells())?;
                pin(&map, &path).map_err(fail(&path))?;
                Ok(Some(map))
            }
            Err(error) => Err(fail(&path)(error)),
        }
    };
    Ok(UserCells {
        execs: open("USER_EXECS", "exec", &limits.user_exec)?,
        connects: open("USER_CONNECTS", "connect", &limits.user_connect)?,
    })
}

/// The name of a pin: the same for the same user, kind and rate.
fn pin_name(kind: &str, user: &str, rate: &RateRule) -> String {
    // No name that a user can have is a path or has a dot (which this file system refuses) when hashed.
    let user = hash_name(0, user.as_bytes());
    let seconds = rate.window_ns / 1_000_000_000;
    format!("{kind}-{}-{seconds}s-{user:016x}", rate.count)
}

fn hold(directory: &Path) -> io::Result<Flock<File>> {
    for directory in [Path::new(PIN_ROOT), directory] {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // Whatever the umask is.
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64) -> RateRule {
        RateRule {
            window_ns: seconds * 1_000_000_000,
            count,
            first: 0,
        }
    }

    #[test]
    fn users_and_rates_have_maps_of_their_own() {
        let names = [
            pin_name("exec", "kim", &rate(100, 3_600)),
            pin_name("connect", "kim", &rate(100, 3_600)),
            pin_name("exec", "lee", &rate(100, 3_600)),
            pin_name("exec", "kim", &rate(100, 60)),
            pin_name("exec", "kim", &rate(10, 3_600)),
            pin_name("exec", "../kim", &rate(100, 3_600)),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
            assert!(!name.contains(['/', '.']), "{name}");
        }
    }

    #[test]
    fn without_rates_of_users_there_is_nothing_to_share() {
        let limits = LimitRules {
            exec: rate(5, 1),
            ..LimitRules::default()
        };
        let cells = cells(&limits, Some("kim")).unwrap();
        assert!(cells.execs.is_none() && cells.connects.is_none());
    }
}
