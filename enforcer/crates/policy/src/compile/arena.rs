//! The segments that groups and ranks are packed into.

use std::collections::HashMap;

use enforcer_common::table::{SEGMENT_WORDS, Segment};

/// How many of the last segments a block may still go into; older ones are taken as full, so that packing
/// thousands of groups stays cheap.
const OPEN: usize = 4;

/// Segments, filled from the front.
#[derive(Debug, Default)]
pub(super) struct Arena {
    segments: Vec<(Box<Segment>, usize)>,
    ranks: HashMap<Vec<u16>, (u32, u32)>,
}

impl Arena {
    /// Stores a block that must not cross a segment; gives its segment and offset. `None` if it is longer
    /// than a segment.
    pub(super) fn store(&mut self, words: &[u16]) -> Option<(u32, u32)> {
        if words.len() > SEGMENT_WORDS {
            return None;
        }
        let oldest = self.segments.len().saturating_sub(OPEN);
        let place = (oldest..self.segments.len())
            .find(|at| self.segments[*at].1 + words.len() <= SEGMENT_WORDS);
        let at = if let Some(at) = place {
            at
        } else {
            let empty: Box<Segment> = vec![0; SEGMENT_WORDS].into_boxed_slice().try_into().ok()?;
            self.segments.push((empty, 0));
            self.segments.len() - 1
        };
        let (segment, used) = &mut self.segments[at];
        segment[*used..*used + words.len()].copy_from_slice(words);
        let offset = *used as u32;
        *used += words.len();
        Some((at as u32, offset))
    }

    /// Stores the ranks of a group's accept numbers; equal ones are stored once.
    pub(super) fn store_ranks(&mut self, ranks: &[u16]) -> Option<(u32, u32)> {
        if let Some(place) = self.ranks.get(ranks) {
            return Some(*place);
        }
        let place = self.store(ranks)?;
        self.ranks.insert(ranks.to_vec(), place);
        Some(place)
    }

    /// The segments.
    pub(super) fn finish(self) -> Vec<Box<Segment>> {
        self.segments
            .into_iter()
            .map(|(segment, _)| segment)
            .collect()
    }
}
