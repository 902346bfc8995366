//! The launcher's own program, as agents call it for a hook.

use std::{
    env, fs, io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use enforcer_common::own::{self, Own};

use super::Identity;

/// Which file the launcher's program is. Nobody but root can change what it does.
#[derive(Clone, Debug)]
pub struct OwnProgram {
    device: u64,
    inode: u64,
    socket: PathBuf,
    own: Own,
}

impl OwnProgram {
    /// Finds it. `socket` is the launcher's, which hooks report to.
    ///
    /// # Errors
    ///
    /// In words: why the program cannot be told from one that the agent could change. Its hook is then a program like
    /// any other.
    pub fn find(identity: &Identity, socket: &Path) -> Result<Self, String> {
        let path = env::current_exe()
            .map_err(|error| format!("the path of this program cannot be found ({error})"))?;
        let shown = path.display();
        let fault = |error: io::Error| format!("{shown} cannot be looked at ({error})");
        // By way of the running program: the path may lead to another file by now.
        let metadata = fs::metadata("/proc/self/exe").map_err(fault)?;
        let same = fs::metadata(&path).map_err(fault)?;
        if (same.dev(), same.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(format!(
                "{shown} was replaced since this program was started"
            ));
        }
        if identity.is_root() {
            return Err(format!("the agent is root, who can change {shown}"));
        }
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(format!("others than root can change {shown}"));
        }
        let call = call_of(&path).ok_or_else(|| {
            format!("{shown} is no path that stands for itself in a shell's text; put the program elsewhere")
        })?;
        let mut own = Own {
            inode: metadata.ino(),
            device: device_of("/proc/self/exe")
                .map_err(|why| format!("the file system of {shown} is not known: {why}"))?,
            ..with_call(Own::NONE, &call)
        };
        let name = socket.as_os_str().as_bytes();
        if name.len() <= own::SOCKET_MAX {
            own.socket[..name.len()].copy_from_slice(name);
            own.socket_len = u32::try_from(name.len()).unwrap_or(0);
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            socket: socket.to_owned(),
            own,
        })
    }

    /// The program by its path alone, for what is not run; `None` if `run` would not know it either.
    pub fn named() -> Option<Own> {
        let path = env::current_exe().ok()?;
        let metadata = fs::metadata(&path).ok()?;
        let changed = metadata.uid() != 0 || metadata.mode() & 0o022 != 0;
        let call = call_of(&path).filter(|_| !changed)?;
        Some(Own {
            inode: metadata.ino(),
            ..with_call(Own::NONE, &call)
        })
    }

    /// For the kernel.
    pub fn own(&self) -> Own {
        self.own
    }

    /// Whether a file is the program.
    pub fn is_file(&self, file: impl AsFd) -> bool {
        nix::sys::stat::fstat(file)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.device, self.inode))
    }

    /// Whether a name is that of the launcher's socket.
    pub fn is_socket(&self, name: &[u8]) -> bool {
        self.socket.as_os_str().as_bytes() == name
    }
}

/// How a command text begins that calls the hook; `None` if the path means something else to a shell.
fn call_of(path: &Path) -> Option<Vec<u8>> {
    let call = [path.as_os_str().as_bytes(), b" hook"].concat();
    let plain = !path.as_os_str().as_bytes().contains(&b' ');
    (plain && call.len() <= own::CALL_MAX && call.iter().copied().all(own::is_plain))
        .then_some(call)
}

fn with_call(mut own: Own, call: &[u8]) -> Own {
    own.call[..call.len()].copy_from_slice(call);
    own.call_len = u32::try_from(call.len()).unwrap_or(0);
    own
}

/// The device of a file's mount, as the kernel numbers it. `stat` has another one on btrfs and overlayfs.
fn device_of(path: &str) -> Result<u32, String> {
    let path = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    device_in(&mounts, &path).ok_or_else(|| "it is on no mount of /proc/self/mountinfo".to_owned())
}

/// The device of the last mount, of those that hold the path, with the longest mount point.
fn device_in(mounts: &str, path: &Path) -> Option<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(' ');
        let (major, minor) = fields.nth(2)?.split_once(':')?;
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        let point = PathBuf::from(unescaped(fields.nth(1)?));
        path.starts_with(&point)
            .then_some((point.components().count(), major << 20 | minor))
    };
    let found = mounts.lines().filter_map(of_line);
    found
        .max_by_key(|(length, _)| *length)
        .map(|(_, device)| device)
}

/// A path as mountinfo has it: `\040` for a space.
fn unescaped(text: &str) -> String {
    ["040", "011", "012", "134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, byte)| {
            text.replace(&format!("\\{code}"), byte)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_that_of_the_nearest_mount() {
        let mounts = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:25 / /opt rw - btrfs /dev/sdb rw
31 21 0:30 / /opt/a\\040b rw shared:1 - overlay overlay rw
32 21 0:31 / /opt rw - tmpfs tmpfs rw
";
        let device = |path: &str| device_in(mounts, Path::new(path));
        assert_eq!(device("/usr/bin/x"), Some(8 << 20 | 1));
        // The later of two at one place covers the earlier.
        assert_eq!(device("/opt/x"), Some(31));
        assert_eq!(device("/optical/x"), Some(8 << 20 | 1));
        assert_eq!(device("/opt/a b/x"), Some(30));
        assert_eq!(device_in("", Path::new("/x")), None);
    }

    #[test]
    fn our_own_file_has_the_device_that_the_kernel_says() {
        let found = device_of("/proc/self/exe").unwrap();
        let stat = fs::metadata("/proc/self/exe").unwrap();
        // Where `stat` tells the truth.
        let plain = nix::sys::statfs::statfs("/proc/self/exe").unwrap();
        if plain.filesystem_type() == nix::sys::statfs::EXT4_SUPER_MAGIC {
            assert_eq!(found, enforcer_common::grant::kernel_device(stat.dev()));
        }
    }
}
