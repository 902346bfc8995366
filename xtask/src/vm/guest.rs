//! What the virtual machine sees: a Debian user space made of the host's own packages, and our binaries.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::kernel::Image;
use crate::process::{command, output};
use crate::root;

/// The guest's first process.
const INIT: &str = include_str!("../../../tests/vm/init.sh");

/// Packages whose files the guest gets, with all that they depend on.
const PACKAGES: &[&str] = &[
    "bash",
    "bsdutils",
    "busybox-static",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "git",
    "grep",
    "hostname",
    "iproute2",
    "libc-bin",
    "libgcc-s1",
    "libpam-modules",
    "libseccomp2",
    "make",
    "mawk",
    "mount",
    "ncurses-base",
    "procps",
    "python3",
    "sed",
    "strace",
    "tar",
    "util-linux",
];
/// Dependencies that serve installation or documentation only.
const LEFT_OUT: &[&str] = &[
    "adduser",
    "debconf",
    "debianutils",
    "dpkg",
    "git-man",
    "install-info",
    "media-types",
    "perl",
    "tzdata",
];
/// Directories that no test reads.
const LEFT_OUT_BELOW: &[&str] = &[
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/share/info",
    "/usr/share/lintian",
];
/// Links at the root of a system with merged `/usr`.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The user that stands for the person who starts an agent.
const USER: &str = "agent";

/// What to put into a guest beside the user space.
pub struct Content {
    /// Executables of the host, found at the same paths in the guest.
    pub executables: Vec<PathBuf>,
    /// Directories of the repository, found at the same paths in the guest.
    pub directories: Vec<PathBuf>,
    /// The binary that is also `enforcer` in PATH.
    pub enforcer: Option<PathBuf>,
    /// The shell script that the guest runs.
    pub command: Vec<u8>,
    /// How long the guest may live; it ends itself when nobody is left to end it.
    pub limit: Duration,
}

/// Writes the guest's initramfs.
///
/// # Errors
/// When a package or file is missing or the archive cannot be written.
pub fn write(path: &Path, image: &Image, content: &Content) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
    user_space(&mut archive)?;
    users(&mut archive)?;
    for executable in &content.executables {
        archive.copy(executable)?;
    }
    for directory in &content.directories {
        archive.copy_tree(directory, directory, &["target", ".git"])?;
    }
    if let Some(enforcer) = &content.enforcer {
        archive.copy(enforcer)?;
        archive.symlink(Path::new("/usr/local/bin/enforcer"), enforcer)?;
    }
    let mut modules = String::new();
    for (name, bytes) in image.modules()? {
        let place = format!("/vm/{name}.ko");
        archive.file(Path::new(&place), 0o644, &bytes)?;
        modules += &place;
        modules.push('\n');
    }
    archive.file(Path::new("/vm/modules"), 0o644, modules.as_bytes())?;
    archive.file(
        Path::new("/vm/limit"),
        0o644,
        format!("{}\n", content.limit.as_secs()).as_bytes(),
    )?;
    archive.file(Path::new("/vm/command"), 0o755, &content.command)?;
    archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
    archive.finish().map(drop)
}

/// A shell script that becomes the given command, with the given variables.
pub fn script(directory: &Path, variables: &[(&str, OsString)], words: &[OsString]) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    quote(&mut script, directory.as_os_str().as_bytes());
    script.extend_from_slice(b" || exit 125\n");
    for (name, value) in variables {
        script.extend_from_slice(format!("export {name}=").as_bytes());
        quote(&mut script, value.as_bytes());
        script.push(b'\n');
    }
    for word in words {
        quote(&mut script, word.as_bytes());
        script.push(b' ');
    }
    script.push(b'\n');
    script
}

fn quote(script: &mut Vec<u8>, word: &[u8]) {
    script.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            byte => script.push(*byte),
        }
    }
    script.push(b'\'');
}

fn user_space<W: std::io::Write>(archive: &mut Archive<W>) -> Result<()> {
    for name in MERGED {
        let link = Path::new("/").join(name);
        if let Ok(to) = fs::read_link(&link) {
            archive.directory(&Path::new("/").join(&to))?;
            archive.symlink(&link, &to)?;
        }
    }
    let packages = closure()?;
    let listed = output(command("dpkg-query").arg("-L").args(&packages))?;
    for line in listed.lines().filter(|line| line.starts_with('/')) {
        if LEFT_OUT_BELOW
            .iter()
            .any(|directory| line.starts_with(directory))
        {
            continue;
        }
        let path = Path::new(line);
        // A diverted or deleted file stays in the list.
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            continue;
        }
        // Packages name /bin/sh, which lies in /usr/bin.
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        archive.copy_to(path, &fs::canonicalize(directory)?.join(name))?;
    }
    // Links that packages make when they are installed.
    archive.copy_tree(
        Path::new("/etc/alternatives"),
        Path::new("/etc/alternatives"),
        &[],
    )?;
    archive.symlink(Path::new("/usr/bin/awk"), Path::new("mawk"))?;
    archive.symlink(Path::new("/usr/bin/sh"), Path::new("dash"))?;
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "mnt",
        "root",
        "var/log",
        "var/lib",
        "usr/local/bin",
        "etc",
    ] {
        archive.directory(Path::new(directory))?;
    }
    archive.directory_with(Path::new("var/tmp"), 0o1777)?;
    archive.directory_with(Path::new("tmp"), 0o1777)
}

fn users<W: std::io::Write>(archive: &mut Archive<W>) -> Result<()> {
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         {USER}:x:1000:1000:{USER}:/home/{USER}:/bin/bash\n"
    );
    let group = format!("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n{USER}:x:1000:\n");
    archive.file(Path::new("/etc/passwd"), 0o644, passwd.as_bytes())?;
    archive.file(Path::new("/etc/group"), 0o644, group.as_bytes())?;
    archive.file(
        Path::new("/etc/hosts"),
        0o644,
        b"127.0.0.1 localhost enforcer-vm\n::1 localhost\n",
    )?;
    // What pam-auth-update writes at installation; here everyone may become everyone, as root may anyway.
    for part in [
        "account",
        "auth",
        "password",
        "session",
        "session-noninteractive",
    ] {
        let kind = part.split('-').next().unwrap_or(part);
        let rule = format!("{kind} required pam_permit.so\n");
        archive.file(
            &Path::new("/etc/pam.d").join(format!("common-{part}")),
            0o644,
            rule.as_bytes(),
        )?;
    }
    archive.directory(&Path::new("/home").join(USER))
}

/// The packages and all that they depend on, as far as it is installed here.
fn closure() -> Result<BTreeSet<String>> {
    let listed = output(command("dpkg-query").args([
        "-W",
        "-f",
        "${db:Status-Status}\t${Package}\t${Provides}\t${Pre-Depends}, ${Depends}\n",
    ]))?;
    let mut depends: BTreeMap<&str, &str> = BTreeMap::new();
    let mut provided: BTreeMap<&str, &str> = BTreeMap::new();
    for line in listed.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["installed", package, virtuals, needs] = fields[..] else {
            continue;
        };
        depends.insert(package, needs);
        for name in virtuals
            .split(',')
            .filter_map(|name| name.split_whitespace().next())
        {
            provided.insert(name, package);
        }
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = Vec::new();
    for package in PACKAGES {
        if !depends.contains_key(package) {
            bail!("the guest needs the package {package}: as root, apt-get install {package}");
        }
        open.push(package);
    }
    while let Some(package) = open.pop() {
        if LEFT_OUT.contains(&package) || !found.insert(package.to_owned()) {
            continue;
        }
        for group in depends.get(package).copied().unwrap_or_default().split(',') {
            // Of alternatives the installed ones count; a version or architecture does not matter any more.
            let names = group
                .split('|')
                .filter_map(|name| name.split([' ', '(', ':']).find(|part| !part.is_empty()));
            open.extend(names.filter_map(|name| {
                depends
                    .get_key_value(name)
                    .map(|(name, _)| *name)
                    .or_else(|| provided.get(name).copied())
            }));
        }
    }
    Ok(found)
}

/// The directories of the repository that tests read.
pub fn directories() -> Vec<PathBuf> {
    ["policies", "tests"]
        .map(|name| root::repository().join(name))
        .into_iter()
        .filter(|path| path.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let words = ["printf", "%s", "it's $HOME; `x`"].map(OsString::from);
        let script = script(Path::new("/"), &[("A", "b c".into())], &words);
        let ran = std::process::Command::new("sh")
            .arg("-c")
            .arg(OsString::from(String::from_utf8(script).unwrap()))
            .output();
        assert_eq!(ran.unwrap().stdout, b"it's $HOME; `x`");
    }
}
