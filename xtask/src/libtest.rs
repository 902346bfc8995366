//! Reading what Rust's test harness prints.

use std::ops::AddAssign;

/// The line in which a test of ours says, in the file that `ENFORCER_SKIPS` names, that this kernel lacks what
/// it wanted to test. The script around the tests prints the file's lines with this before them.
pub const SKIPPED: &str = "enforcer-test-skipped: ";

/// The line with which a script of ours names the test executable that it starts next.
pub const EXECUTABLE: &str = "enforcer-test-executable: ";

/// Numbers of tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and stages that failed without a failed test.
    pub failed: u64,
    /// Tests that were ignored or skipped themselves.
    pub skipped: u64,
    /// How long each executable took, seconds, as its harness says.
    pub took: Vec<(String, f64)>,
    /// The executable that runs.
    running: String,
}

impl Counts {
    /// Takes account of a line of test output.
    pub fn read(&mut self, line: &str) {
        if let Some(path) = line.strip_prefix(EXECUTABLE) {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.begin(name.rsplit_once('-').map_or(name, |(name, _)| name));
        } else if let Some(counts) = result(line) {
            *self += &counts;
            if let Some(seconds) = seconds(line) {
                self.took.push((self.running.clone(), seconds));
            }
        } else if line.starts_with(SKIPPED) {
            // The harness knows no skipping at run time: it has counted this test as passed.
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
        }
    }
}

impl Counts {
    /// What runs from now on is this executable's.
    pub fn begin(&mut self, name: &str) {
        name.clone_into(&mut self.running);
    }

    /// The executables that took longest, a line each, for the summary.
    pub fn slowest(&self, count: usize) -> Vec<String> {
        let mut took: Vec<_> = self.took.iter().filter(|(_, took)| *took >= 1.0).collect();
        took.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        took.iter()
            .take(count)
            .map(|(name, seconds)| format!("{:20} {seconds:>6.0} s  {name}", ""))
            .collect()
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// What the harness says of the time: `… finished in 0.20s`.
fn seconds(line: &str) -> Option<f64> {
    let (_, time) = line.rsplit_once("finished in ")?;
    time.trim().strip_suffix('s')?.parse().ok()
}

/// `test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.20s`
fn result(line: &str) -> Option<Counts> {
    let (_, numbers) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let mut counts = Counts::default();
    for number in numbers.split("; ") {
        let Some((number, what)) = number.split_once(' ') else {
            continue;
        };
        match what {
            "passed" => counts.passed = number.parse().ok()?,
            "failed" => counts.failed = number.parse().ok()?,
            "ignored" => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_and_skips_are_not_passes() {
        let mut counts = Counts::default();
        for line in [
            "enforcer-test-executable: /x/target/debug/deps/some_test-0123abcd",
            "running 7 tests",
            "test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.20s",
            "enforcer-test-skipped: no BPF LSM",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s",
            "test result: unreadable",
        ] {
            counts.read(line);
        }
        assert_eq!((counts.passed, counts.failed, counts.skipped), (7, 3, 2));
        assert_eq!(
            counts.slowest(3),
            [format!("{:20}      1 s  some_test", "")]
        );
        assert_eq!(counts.to_string(), "7 passed, 3 failed, 2 skipped");
    }
}
