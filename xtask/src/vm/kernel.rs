//! Debian's kernels: downloaded and unpacked, never installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::packages::apt_get;
use crate::process::{command, note, output, run};
use crate::root;

/// Modules that the tests need and the kernel image does not contain.
const MODULES: &[&str] = &["sctp", "overlay", "veth", "tun"];

/// A kernel of Debian's that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// The oldest one supported
    #[value(name = "6.1")]
    V6_1,
    /// The long-term one after it
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    /// All of them, the oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The version as people name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that always depends on the newest build of this version.
    fn meta_package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }
}

/// An unpacked kernel package.
pub struct Image {
    directory: PathBuf,
    release: String,
}

impl Image {
    /// The kernel to boot.
    pub fn vmlinuz(&self) -> PathBuf {
        self.directory
            .join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The modules that the tests need, each after those that it depends on: name and content.
    ///
    /// # Errors
    /// When a module is missing or cannot be read.
    pub fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        find_modules(
            &self.directory.join("lib/modules").join(&self.release),
            &mut files,
        )?;
        let mut done = BTreeSet::new();
        let mut ordered = Vec::new();
        for module in MODULES {
            collect(module, &files, &mut done, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// Gets a kernel, from the cache below `target/vm` when it is there.
///
/// # Errors
/// When apt knows no such package or cannot download it.
pub fn image(kernel: Kernel) -> Result<Image> {
    let cache = root::target().join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let package = match newest(kernel) {
        Ok(package) => package,
        Err(error) => {
            note(&format!("{error:#}: updating apt's lists"));
            update()?;
            newest(kernel)?
        }
    };
    let directory = cache.join(&package);
    let release = package.trim_start_matches("linux-image-").to_owned();
    let image = Image { directory, release };
    if image.vmlinuz().is_file() {
        return Ok(image);
    }
    note(&format!("downloading {package}"));
    if download(&cache, &package).is_err() {
        // The mirror has moved on from what the lists name.
        update()?;
        download(&cache, &package)?;
    }
    unpack(&cache, &package, &image.directory)?;
    if !image.vmlinuz().is_file() {
        bail!("{package} holds no kernel at {}", image.vmlinuz().display());
    }
    Ok(image)
}

fn newest(kernel: Kernel) -> Result<String> {
    let meta = kernel.meta_package();
    let depends = output(apt("apt-cache").args(["depends", meta]))
        .with_context(|| format!("apt knows no package {meta}: are Debian 12's main and security archives in its sources?"))?;
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| format!("{meta} names no kernel package"))
}

fn update() -> Result<()> {
    run(&mut apt_get(&["update"])?)
}

fn download(cache: &Path, package: &str) -> Result<()> {
    output(
        apt("apt-get")
            .current_dir(cache)
            .args(["download", "-q", package]),
    )
    .map(drop)
    .with_context(|| format!("cannot download {package}"))
}

fn unpack(cache: &Path, package: &str, directory: &Path) -> Result<()> {
    let prefix = format!("{package}_");
    let archive = fs::read_dir(cache)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .with_context(|| format!("apt-get left no {package} in {}", cache.display()))?;
    // Renamed when complete: an interrupted run must not leave half a kernel that looks whole.
    let partial = cache.join(format!("{package}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    run(command("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
    fs::rename(&partial, directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

fn apt(program: &str) -> Command {
    let mut apt = command(program);
    apt.env("LC_ALL", "C");
    apt
}

fn find_modules(directory: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            find_modules(&path, files)?;
        } else if let Some((name, "ko" | "ko.xz")) = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once('.'))
        {
            files.push((name.replace('-', "_"), path));
        }
    }
    Ok(())
}

fn collect(
    name: &str,
    files: &[(String, PathBuf)],
    done: &mut BTreeSet<String>,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = name.replace('-', "_");
    if !done.insert(name.clone()) {
        return Ok(());
    }
    let (_, path) = files
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("the kernel package has no module {name}"))?;
    let content = if path.extension().is_some_and(|extension| extension == "xz") {
        let unpacked = command("xz")
            .arg("-dc")
            .arg(path)
            .output()
            .context("cannot start xz (package xz-utils)")?;
        if !unpacked.status.success() {
            bail!("xz cannot unpack {}", path.display());
        }
        unpacked.stdout
    } else {
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    for dependency in depends(&content) {
        collect(&dependency, files, done, ordered)?;
    }
    ordered.push((name, content));
    Ok(())
}

/// The modules that a module needs, from its `.modinfo`: `depends=a,b` between NUL bytes.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let value = &value[..value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len())];
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=udp_tunnel,libcrc32c\0name=sctp\0"),
            ["udp_tunnel", "libcrc32c"]
        );
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        assert!(depends(b"\0name=x\0").is_empty());
    }
}
