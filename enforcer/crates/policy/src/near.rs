//! Words that may have been meant by one that is not known.

/// Most words that are offered.
const MOST: usize = 3;

/// Those of the known words that are nearest to this one, if any is near enough to be meant.
pub(super) fn near<'w>(word: &str, known: &[&'w str]) -> Vec<&'w str> {
    let mut all: Vec<(usize, &str)> = known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(far, candidate)| *far <= 1 + candidate.len() / 3)
        .collect();
    all.sort_unstable();
    all.into_iter().take(MOST).map(|(_, word)| word).collect()
}

/// Edits (insert, delete, replace a byte) from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A longer word is not a slip of the pen; the bound keeps this short.
    for (above, byte) in from.bytes().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(byte.to_ascii_lowercase() != *other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}
