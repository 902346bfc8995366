//! The kernel programs: one object file, compiled for the BPF target.

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{note, run, step};
use crate::root;
use crate::toolchain::{Compiler, Toolchain};

/// How cargo is asked for the BPF target: with its own `core`, for there is no compiled one.
pub const CARGO_FLAGS: &[&str] = &[
    "--release",
    "-Z",
    "build-std=core",
    "--target",
    "bpfel-unknown-none",
];

/// Flags of the BPF compiler, as `CARGO_ENCODED_RUSTFLAGS` wants them.
///
/// `debuginfo` and `--btf`: the kernel wants the types of maps and functions. `target-cpu=v3`: 32-bit
/// operations and atomics that return a value (`fetch_add`, `compare_exchange`), which every supported
/// kernel has. `bpf_target_arch` is aya-ebpf's name for the registers of the machine that runs the programs.
pub fn rustflags() -> String {
    let arch = format!("--cfg=bpf_target_arch=\"{ARCH}\"");
    [
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
        &arch,
    ]
    .join("\x1f")
}

/// The object that `enforcer/build.rs` embeds.
pub fn object() -> PathBuf {
    root::target().join("bpf/enforcer.bpf.o")
}

/// Where cargo compiles the kernel programs.
pub fn build_directory() -> PathBuf {
    root::target().join("bpf/build")
}

/// Compiles the kernel programs; the object is only touched when it changes, so that nothing that embeds it
/// is compiled again for nothing.
///
/// # Errors
/// When the compiler or linker fails, or the object cannot be copied.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    step("Kernel programs");
    let directory = build_directory();
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root::repository().join("enforcer-ebpf"))
        .args(["build", "--quiet"])
        .args(CARGO_FLAGS)
        .arg("--target-dir")
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags());
    run(&mut cargo).with_context(|| match toolchain.compiler {
        Compiler::Nightly => "the kernel programs do not compile with rustup's nightly".to_owned(),
        Compiler::System => format!(
            "the kernel programs do not compile; if the linker complains about bitcode, remove {} and try again",
            toolchain.linker.display()
        ),
    })?;
    let built = directory.join("bpfel-unknown-none/release/enforcer-ebpf");
    let bytes = fs::read(&built)
        .with_context(|| format!("the compiler left no object at {}", built.display()))?;
    let object = object();
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        note(&format!("{} is up to date", object.display()));
    } else {
        fs::write(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
        note(&format!(
            "{} ({} KiB)",
            object.display(),
            bytes.len().div_ceil(1024)
        ));
    }
    Ok(object)
}
