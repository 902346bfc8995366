//! What the verifier has to walk of each program, on this kernel: versions of it differ by multiples.

use enforcer_tests::{enforcer, root};
use serde_json::Value;

/// Upper bound for one program; the kernel gives up at 1,000,000.
const VERIFIED_MAX: u64 = 40_000;
/// Upper bound for all of them: the first start of a machine waits for it.
const ALL_VERIFIED_MAX: u64 = 200_000;

#[test]
fn no_program_is_long_to_verify() {
    if !root() {
        return;
    }
    let output = enforcer().args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verified: Vec<(String, u64)> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|check| {
            let detail = check["detail"].as_str()?;
            let words: Vec<&str> = detail
                .strip_suffix(" instructions verified")?
                .split(' ')
                .collect();
            Some((detail.to_owned(), words.last()?.parse().ok()?))
        })
        .collect();
    // Those that every kernel takes.
    assert!(verified.len() >= 9, "{report:#}");
    let long: Vec<_> = verified
        .iter()
        .filter(|(_, count)| *count == 0 || *count > VERIFIED_MAX)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
    let all: u64 = verified.iter().map(|(_, count)| count).sum();
    assert!(all <= ALL_VERIFIED_MAX, "{all} in all: {verified:#?}");
}
