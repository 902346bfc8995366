//! The toolchains: rustup's stable for user space, and one of two for the kernel programs.
//!
//! Rust has no stable eBPF target: `core` must be built from source, which takes a compiler that accepts
//! unstable options *and* the sources of its own library. Two routes lead there:
//!
//! 1. rustup's nightly with the `rust-src` component, and a bpf-linker whose LLVM reads its bitcode;
//! 2. Debian's `rustc-web`, `cargo-web`, `rust-web-src`, with bpf-linker compiled against Debian's LLVM 22.
//!    `RUSTC_BOOTSTRAP=1` makes that compiler accept the unstable options.
//!
//! The first that is there and works is taken; the second is installed when neither is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::process::{command, find, note, output, run, scrub, step};
use crate::{ebpf, packages, root};

/// The bpf-linker that the second route installs.
const BPF_LINKER: &str = "0.13.0";
/// Where Debian's LLVM lies; the major version must be that of `rustc-web`.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_CARGO: &str = "/usr/bin/cargo";
const SYSTEM_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";

/// The compiler of the kernel programs.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// rustup's nightly with `rust-src`.
    Nightly,
    /// Debian's `rustc-web`.
    System,
}

/// What compiles and links the kernel programs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The bpf-linker that reads this compiler's bitcode.
    pub linker: PathBuf,
}

impl Toolchain {
    /// A cargo of this toolchain, free of what an outer cargo left in the environment.
    pub fn cargo(&self) -> Command {
        let mut cargo = match self.compiler {
            Compiler::Nightly => {
                let mut cargo = command("rustup");
                scrub(&mut cargo).args(["run", "nightly", "cargo"]);
                cargo
            }
            Compiler::System => {
                let mut cargo = command(SYSTEM_CARGO);
                scrub(&mut cargo).env("RUSTC", SYSTEM_RUSTC);
                // `cargo clippy` starts `cargo` and `clippy-driver` by name: Debian's must come before rustup's.
                let path = env::var_os("PATH").unwrap_or_default();
                let first =
                    std::iter::once(PathBuf::from("/usr/bin")).chain(env::split_paths(&path));
                if let Ok(path) = env::join_paths(first) {
                    cargo.env("PATH", path);
                }
                cargo
            }
        };
        cargo
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        cargo
    }

    /// One line that says which route is taken.
    pub fn describe(&self) -> String {
        let compiler = match self.compiler {
            Compiler::Nightly => "rustup's nightly with rust-src",
            Compiler::System => "Debian's rustc-web with rust-web-src",
        };
        format!(
            "eBPF compiler: {compiler}; linker: {}",
            self.linker.display()
        )
    }
}

/// Makes sure that everything is there, installing what is missing.
///
/// With `test`, what lint, the tests and the virtual machines need is installed too.
///
/// # Errors
/// When something is missing and cannot be installed; the message names it.
pub fn ensure(test: bool) -> Result<Toolchain> {
    step("Toolchain");
    packages::ensure("the build", packages::BUILD)?;
    let toolchain = match nightly() {
        Some(toolchain) => toolchain,
        None => system()?,
    };
    note(&toolchain.describe());
    if test {
        packages::ensure("the tests", packages::TEST)?;
        if matches!(toolchain.compiler, Compiler::System) {
            packages::ensure("the lint of the kernel programs", packages::EBPF_LINT)?;
        }
    }
    Ok(toolchain)
}

/// The first route, when it is there and works.
fn nightly() -> Option<Toolchain> {
    find("rustup")?;
    let mut rustc = command("rustup");
    scrub(&mut rustc)
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", "rustc", "--print", "sysroot"]);
    // No nightly is no error: there is the other route.
    let sysroot = output(&mut rustc).ok()?;
    if !Path::new(sysroot.trim())
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
    {
        note("rustup's nightly has no rust-src: taking Debian's compiler");
        return None;
    }
    let toolchain = Toolchain {
        compiler: Compiler::Nightly,
        linker: find("bpf-linker")?,
    };
    match probe(&toolchain) {
        Ok(()) => Some(toolchain),
        Err(error) => {
            let text = format!("{error:#}");
            let errors: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("error: "))
                .map(str::trim)
                .collect();
            let errors = if errors.is_empty() {
                text
            } else {
                errors.join("; ")
            };
            note(&format!(
                "rustup's nightly and bpf-linker do not work together, taking Debian's compiler: {errors}"
            ));
            None
        }
    }
}

/// Builds an empty program, once for each pair of compiler and linker: an LLVM that is older than the
/// compiler's shows only there.
fn probe(toolchain: &Toolchain) -> Result<()> {
    let mut rustc = command("rustup");
    let rustc = output(scrub(&mut rustc).args(["run", "nightly", "rustc", "-vV"]))?;
    let linker = output(command(&toolchain.linker).arg("--version"))?;
    let built = fs::metadata(&toolchain.linker).and_then(|meta| meta.modified())?;
    let pair = format!("{rustc}{linker}{built:?}");
    let directory = root::target().join("bpf/probe");
    let stamp = directory.join("works");
    if fs::read_to_string(&stamp).is_ok_and(|known| known == pair) {
        return Ok(());
    }
    note("trying rustup's nightly with bpf-linker on an empty program");
    fs::create_dir_all(directory.join("src"))
        .with_context(|| format!("cannot create {}", directory.display()))?;
    fs::write(
        directory.join("Cargo.toml"),
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[profile.release]\npanic = \"abort\"\n",
    )?;
    fs::write(
        directory.join("src/main.rs"),
        "#![no_std]\n#![no_main]\n\n#[unsafe(no_mangle)]\n#[unsafe(link_section = \"socket\")]\nfn probe() -> u64 {\n    0\n}\n\n\
         #[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! {\n    loop {}\n}\n",
    )?;
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(&directory)
        .arg("build")
        .args(ebpf::CARGO_FLAGS)
        .env("CARGO_ENCODED_RUSTFLAGS", ebpf::rustflags());
    output(&mut cargo)?;
    fs::write(&stamp, pair).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The second route, installed where it is missing.
fn system() -> Result<Toolchain> {
    packages::ensure("the eBPF compiler", packages::EBPF)?;
    for (file, package) in [
        (SYSTEM_RUSTC, "rustc-web"),
        (SYSTEM_CARGO, "cargo-web"),
        (SYSTEM_SOURCES, "rust-web-src"),
    ] {
        if !Path::new(file).exists() {
            bail!(
                "no eBPF compiler: {file} (Debian's {package}) is missing; where there are no such packages, run \
                 `rustup toolchain install nightly --component rust-src && cargo install bpf-linker`"
            );
        }
    }
    Ok(Toolchain {
        compiler: Compiler::System,
        linker: bpf_linker()?,
    })
}

fn bpf_linker() -> Result<PathBuf> {
    if let Some(linker) = installed_bpf_linker()
        && output(command(&linker).arg("--version"))
            .is_ok_and(|text| text.trim() == format!("bpf-linker {BPF_LINKER}"))
    {
        return Ok(linker);
    }
    step(&format!(
        "Installing bpf-linker {BPF_LINKER} (about a minute)"
    ));
    cargo_install(
        "bpf-linker",
        BPF_LINKER,
        &["--no-default-features", "--features", "llvm-22"],
        &[("LLVM_PREFIX", LLVM_PREFIX)],
    )?;
    installed_bpf_linker()
        .context("cargo install ended well but there is no bpf-linker: is CARGO_HOME/bin writable?")
}

fn installed_bpf_linker() -> Option<PathBuf> {
    installed("bpf-linker")
}

/// Where cargo installed a program, else where PATH finds it.
pub fn installed(program: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    let ours = home.join("bin").join(program);
    if ours.is_file() {
        Some(ours)
    } else {
        find(program)
    }
}

/// Installs a program from crates.io with the toolchain that runs us.
///
/// # Errors
/// When cargo fails; the message says which command to repeat.
pub fn cargo_install(
    name: &str,
    version: &str,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> Result<()> {
    let mut cargo = crate::process::cargo();
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    cargo
        .args(["install", "--quiet", "--locked", "--force"])
        .arg(format!("{name}@{version}"))
        .args(flags);
    cargo.envs(variables.iter().copied());
    run(&mut cargo).with_context(|| {
        format!("{name} {version} is needed and could not be installed from crates.io")
    })
}
