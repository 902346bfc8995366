//! Numbers as people read them.

use std::{fmt::Write as _, time::Duration};

/// A count with its noun: `1 exec`, `2 execs`, `2 processes`.
pub fn counted(count: u64, noun: &str) -> String {
    let ending = match count {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

/// A time in all the units that it has: `45 s`, `1 h 30 min`, `1 d`; `20 ms` below a second.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds == 0 && !time.is_zero() {
        return format!("{} ms", time.as_millis());
    }
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let mut text = String::new();
    for (count, unit) in units.into_iter().filter(|(count, _)| *count > 0) {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(text, "{space}{count} {unit}");
    }
    if text.is_empty() {
        text.push_str("0 s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (count, noun, words) in [
            (0, "exec", "0 execs"),
            (1, "exec", "1 exec"),
            (2, "exec", "2 execs"),
            (1, "process", "1 process"),
            (3, "process", "3 processes"),
        ] {
            assert_eq!(counted(count, noun), words);
        }
    }

    #[test]
    fn a_time_has_its_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (90, "1 min 30 s"),
            (3_600, "1 h"),
            (3_661, "1 h 1 min 1 s"),
            (86_400, "1 d"),
            (129_600, "1 d 12 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words);
        }
        assert_eq!(duration(Duration::from_millis(20)), "20 ms");
    }
}
