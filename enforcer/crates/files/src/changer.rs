//! Who could change a program: whether a user can write a file, or put another in its place.
//!
//! The kernel programs ask the same of each program's inode and of the directories above it (`climb` there), so what is
//! said here is what they find.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// In a directory: only the owner of an entry may replace it.
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// A user, and all groups that the user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changer {
    /// User id.
    pub uid: u32,
    /// Group ids, the primary one among them.
    pub groups: Vec<u32>,
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// `st_mode`.
    pub mode: u32,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode(),
        }
    }
}

impl Changer {
    /// How the user can change what is owned so; `None` if not. Root owns everything, so of uid 0 only what everybody can
    /// change is told.
    pub fn how(&self, of: Owned) -> Option<&'static str> {
        if self.uid != 0 && of.uid == self.uid {
            return Some("belongs to the agent's user");
        }
        if of.mode & STICKY != 0 && of.mode & libc::S_IFMT == libc::S_IFDIR {
            return None;
        }
        if of.mode & OTHERS_WRITE != 0 {
            return Some("can be written by everyone");
        }
        let shared = self.uid != 0 && of.mode & GROUP_WRITES != 0;
        (shared && self.groups.contains(&of.gid))
            .then_some("can be written by a group of the agent's user")
    }

    /// The first of a path and the directories above it that the user can change, and how. The path is absolute and has
    /// its links followed.
    ///
    /// # Errors
    ///
    /// Something of it cannot be looked at.
    pub fn on_the_way<'p>(&self, path: &'p Path) -> io::Result<Option<(&'p Path, &'static str)>> {
        for part in path.ancestors() {
            let owned = Owned::from(&fs::symlink_metadata(part)?);
            if let Some(how) = self.how(owned) {
                return Ok(Some((part, how)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_writers_and_members_can_change_things() {
        let user = Changer {
            uid: 1000,
            groups: vec![1000, 44],
        };
        let directory = |uid, gid, mode| Owned {
            uid,
            gid,
            mode: libc::S_IFDIR | mode,
        };
        for (of, can) in [
            (directory(0, 0, 0o755), false),
            (directory(0, 50, 0o2775), false),
            (directory(0, 44, 0o775), true),
            (directory(1000, 0, 0o555), true),
            (directory(1001, 1000, 0o755), false),
            (directory(0, 0, 0o777), true),
            (directory(0, 0, 0o1777), false),
            (directory(1000, 0, 0o1777), true),
        ] {
            assert_eq!(user.how(of).is_some(), can, "{of:?}");
        }
        // On a file the sticky bit protects nothing.
        let file = Owned {
            uid: 0,
            gid: 0,
            mode: libc::S_IFREG | 0o1777,
        };
        assert!(user.how(file).is_some());
        let root = Changer {
            uid: 0,
            groups: vec![0],
        };
        assert_eq!(root.how(directory(0, 0, 0o775)), None);
        assert!(root.how(directory(0, 0, 0o777)).is_some());
    }

    #[test]
    fn the_directories_above_count() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let nobody = Changer {
            uid: 65_534,
            groups: vec![65_534],
        };
        assert_eq!(nobody.on_the_way(&inner).unwrap(), None);
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(place.path().join("a"), open).unwrap();
        let (path, _) = nobody.on_the_way(&inner).unwrap().unwrap();
        assert_eq!(path, place.path().join("a"));
    }
}
