//! Formatting, the documents, clippy on both sides of the kernel boundary, and the dependency rules.

use anyhow::{Context, Result};

use crate::process::{cargo, command, find, note, output, run, step};
use crate::toolchain::{self, Compiler, Toolchain};
use crate::{docs, ebpf, root};

/// The cargo-deny that is installed when there is none.
const CARGO_DENY: &str = "0.20.2";
const DENY_CHECKS: &[&str] = &["licenses", "bans", "sources"];
/// The manifest of the kernel programs, which are not in the workspace.
const EBPF_MANIFEST: &str = "enforcer-ebpf/Cargo.toml";
/// The manifests of all dependency trees; the fuzz targets are a workspace of their own too.
const TREES: [&str; 3] = ["Cargo.toml", EBPF_MANIFEST, "tests/fuzz/Cargo.toml"];

/// Runs every lint; the first one that fails ends it.
///
/// # Errors
/// When a lint fails or its program is missing.
pub fn all(toolchain: &Toolchain, advisories: bool) -> Result<()> {
    formatting()?;
    docs::check()?;
    user_space()?;
    kernel_programs(toolchain)?;
    dependencies(advisories)
}

fn formatting() -> Result<()> {
    step("Lint: formatting");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--check", "--manifest-path", EBPF_MANIFEST]))
        .context("run `cargo fmt --all && cargo fmt --manifest-path enforcer-ebpf/Cargo.toml`")
}

fn user_space() -> Result<()> {
    step("Lint: clippy on user space");
    run(cargo()
        .args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--target-dir",
        ])
        .arg(root::target())
        .args(["--", "-D", "warnings"]))
}

/// Lints the kernel programs for the target that they run on, with the clippy of the compiler that builds
/// them: another compiler's clippy cannot read this one's `core`.
fn kernel_programs(toolchain: &Toolchain) -> Result<()> {
    step("Lint: clippy on the kernel programs");
    let mut clippy = toolchain.cargo();
    clippy
        .current_dir(root::repository().join("enforcer-ebpf"))
        .args(["clippy", "--quiet"])
        .args(ebpf::CARGO_FLAGS)
        .arg("--target-dir")
        .arg(ebpf::build_directory())
        .args(["--", "-D", "warnings"])
        .env("CARGO_ENCODED_RUSTFLAGS", ebpf::rustflags());
    run(&mut clippy).with_context(|| match toolchain.compiler {
        Compiler::Nightly => {
            "if there is no clippy: rustup component add clippy --toolchain nightly"
        }
        Compiler::System => "if there is no clippy: as root, apt-get install rust-web-clippy",
    })
}

fn dependencies(advisories: bool) -> Result<()> {
    step("Lint: licences, sources and bans of the dependencies");
    if find("cargo-deny").is_none() && toolchain::installed("cargo-deny").is_none() {
        step(&format!(
            "Installing cargo-deny {CARGO_DENY} (two or three minutes)"
        ));
        // It runs for a second: the release profile's link-time optimization is not worth its minute.
        toolchain::cargo_install(
            "cargo-deny",
            CARGO_DENY,
            &["--debug"],
            &[("CARGO_PROFILE_DEV_DEBUG", "0")],
        )?;
    }
    for manifest in TREES {
        let mut deny = deny(manifest)?;
        let verdict = deny
            .arg("check")
            .arg("--hide-inclusion-graph")
            .args(DENY_CHECKS);
        // It lists every doubled crate even when all is well; that belongs on the screen only when it fails.
        output(verdict)?;
        note(&format!("{manifest}: licences, bans and sources ok"));
    }
    if advisories {
        step("Lint: advisories");
        for manifest in TREES {
            run(deny(manifest)?.args(["check", "advisories"]))?;
        }
    } else {
        note(
            "SKIPPED: advisories (the advisory database is fetched from the network: `cargo xtask lint --advisories`)",
        );
    }
    Ok(())
}

fn deny(manifest: &str) -> Result<std::process::Command> {
    let program = toolchain::installed("cargo-deny")
        .context("no cargo-deny: cargo install --locked cargo-deny")?;
    let mut deny = command(program);
    deny.args([
        "--log-level",
        "warn",
        "--manifest-path",
        manifest,
        "--config",
        "deny.toml",
    ]);
    Ok(deny)
}
