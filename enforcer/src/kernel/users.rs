//! Rates of all agents of a user together: maps that every instance with the same user and rate shares, by their pins.
//!
//! They outlive the instances, or a user could start agents anew to have rates anew. Until the next boot each takes
//! eight bytes for each action that the rate counts; root may remove a pin.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use enforcer_common::{
    limits::{Limits, Rate},
    table::hash_name,
};
use nix::fcntl::{Flock, FlockArg};

use super::{KernelError, attach::PIN_ROOT};

/// The directory of the pins, below that of the instances' pins.
pub const DIRECTORY: &str = "users";

/// A map that other instances may have, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMap {
    /// Its name in the object.
    pub name: &'static str,
    /// Where it is pinned.
    pub pin: PathBuf,
    /// Its cells.
    pub cells: u32,
}

/// The maps for the rates of a user. Without a user there are none to share.
pub(super) fn maps(limits: &Limits, user: Option<&str>) -> Vec<UserMap> {
    let Some(user) = user else { return Vec::new() };
    [
        ("USER_EXECS", "exec", limits.user_exec),
        ("USER_CONNECTS", "connect", limits.user_connect),
    ]
    .into_iter()
    .filter(|(_, _, rate)| rate.count > 0)
    .map(|(name, kind, rate)| UserMap {
        name,
        pin: Path::new(PIN_ROOT)
            .join(DIRECTORY)
            .join(pin_name(kind, user, &rate)),
        cells: rate.cells(),
    })
    .collect()
}

/// The name of a pin: the same for the same user, kind and rate.
fn pin_name(kind: &str, user: &str, rate: &Rate) -> String {
    // No name that a user can have is a path or has a dot (which this file system refuses) when hashed.
    let user = hash_name(0, user.as_bytes());
    let seconds = rate.window_ns / 1_000_000_000;
    format!("{kind}-{}-{seconds}s-{user:016x}", rate.count)
}

/// Does something with the pins in hand: of two instances that start at once one makes a map and one finds it.
pub(super) fn with_maps<T>(
    maps: &[UserMap],
    load: impl FnOnce() -> Result<T, KernelError>,
) -> Result<T, KernelError> {
    if maps.is_empty() {
        return load();
    }
    let directory = Path::new(PIN_ROOT).join(DIRECTORY);
    let _held = hold(&directory).map_err(|error| KernelError::Pin {
        path: directory,
        error,
    })?;
    load()
}

fn hold(directory: &Path) -> io::Result<Flock<File>> {
    // An instance that ends takes the empty common directory away, perhaps between the two steps.
    let mut tries = 0;
    loop {
        match fs::create_dir(PIN_ROOT) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 100 => tries += 1,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => break,
        }
    }
    // Whatever the umask is.
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate {
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
        let limits = Limits {
            exec: rate(5, 1),
            ..Limits::default()
        };
        assert!(maps(&limits, Some("kim")).is_empty());
        let limits = Limits {
            user_exec: rate(5, 1),
            ..limits
        };
        assert!(maps(&limits, None).is_empty());
        let [map] = maps(&limits, Some("kim")).try_into().unwrap();
        assert_eq!((map.name, map.cells), ("USER_EXECS", 7));
    }
}
