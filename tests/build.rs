//! Strips the program that tests run most: each approval of it reads it twice, for the digest.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=shout=-s");
}
