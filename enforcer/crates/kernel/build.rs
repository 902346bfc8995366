//! Finds the compiled kernel programs and lays them where the crate embeds them from.

use std::path::PathBuf;
use std::{env, fs, process};

/// Names another object than the one that `cargo xtask ebpf` leaves.
const VARIABLE: &str = "ENFORCER_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if let Err(message) = embed() {
        println!("cargo::error={message}");
        process::exit(1);
    }
}

fn embed() -> Result<(), String> {
    let directory = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .ok_or(format!("{name} is not set: build with cargo"))
    };
    let object = match env::var_os(VARIABLE) {
        Some(object) => PathBuf::from(object),
        None => directory("CARGO_MANIFEST_DIR")?.join("../../../target/bpf/enforcer.bpf.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!(
            "no kernel programs at {} ({error}): run `cargo xtask ebpf` first",
            object.display()
        )
    })?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(format!(
            "{} is not an ELF object: run `cargo xtask ebpf` again",
            object.display()
        ));
    }
    let copy = directory("OUT_DIR")?.join("enforcer.bpf.o");
    fs::write(&copy, bytes).map_err(|error| format!("cannot write {}: {error}", copy.display()))
}
