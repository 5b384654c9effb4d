//! The sum of the tests that ran, from the lines with which libtest ends each test binary.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended in what way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    pub(crate) ignored: usize,
    /// Said that this machine cannot run them; libtest counts them as passed, this sum does not.
    pub(crate) skipped: usize,
}

impl Tally {
    /// Adds a line of `cargo test`'s output, if it is one that ends a test binary.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.1.split("; ") {
            let Some((number, what)) = count.trim_end().split_once(' ') else {
                continue;
            };
            let sum = match what {
                "passed" => &mut self.passed,
                "failed" => &mut self.failed,
                "ignored" => &mut self.ignored,
                _ => continue,
            };
            *sum += number.parse::<usize>().unwrap_or(0);
        }
    }

    /// Counts tests that returned early and reported it.
    pub(crate) fn count_skipped(&mut self, tests: usize) {
        self.skipped += tests;
        self.passed = self.passed.saturating_sub(tests);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped + self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.add_line(line));
        tally
    }

    #[test]
    fn results_of_all_binaries_are_summed() {
        let output = "
     Running unittests src/lib.rs (target/debug/deps/observer-0123)

running 3 tests
test decode::short_record_is_refused ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests observer
test result: FAILED. 1 passed; 2 failed; 4 ignored; 8 measured; 16 filtered out; finished in 1.20s
";
        assert_eq!(sum(output), Tally { passed: 4, failed: 2, ignored: 4, skipped: 0 });
    }

    #[test]
    fn other_lines_count_nothing() {
        let output = "7 passed; 7 failed\ntest result\ntest result: \nthe test result: ok. 7 passed; 7 failed\n";
        assert_eq!(sum(output), Tally::default());
    }

    #[test]
    fn skipped_tests_are_not_passed_ones() {
        let mut tally = sum("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count_skipped(2);
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 2 skipped");
    }
}
