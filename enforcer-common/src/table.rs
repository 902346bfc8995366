//! The compiled pattern tables and the walker over them.
//!
//! A policy's patterns become *groups*: small deterministic automata whose tables lie in *segments*, arrays
//! of 16-bit words of a fixed size. A group never crosses a segment. The kernel holds each segment as one
//! element of an array map and user space as one boxed array, so that [`Group::step`] is the same code on
//! both sides.
//!
//! Layout of a group, in words from its start:
//!
//! | words | meaning |
//! |---|---|
//! | 0 | transitions per state (byte classes, then one for the end of the text) |
//! | 1 | first accepting state: states from here on accept |
//! | 2 | start state |
//! | 3 | number of states; state 0 is dead |
//! | 4..132 | byte classes, two a word, the lower byte first |
//! | 132.. | transitions, state after state |
//! | then | the accept number of each accepting state, counted from 1, the strictest highest |

/// Words of a segment: 256 KiB.
pub const SEGMENT_WORDS: usize = 1 << 17;
const SEGMENT_MASK: u32 = SEGMENT_WORDS as u32 - 1;

/// Words of a group's header, before its byte classes.
pub const GROUP_HEADER_WORDS: usize = 4;
/// Words of a group's byte classes.
pub const CLASS_WORDS: usize = 128;
/// Offset of a group's transitions from its start.
pub const TRANSITIONS_AT: u32 = (GROUP_HEADER_WORDS + CLASS_WORDS) as u32;

/// One segment of tables.
pub type Segment = [u16; SEGMENT_WORDS];

/// Reads a word; the index wraps inside the segment, so that no index can leave it.
#[inline(always)]
pub fn word(segment: &Segment, at: u32) -> u16 {
    segment[(at & SEGMENT_MASK) as usize]
}

/// A group's header, read once before a walk.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Group {
    /// Offset of the group in its segment, in words.
    pub at: u32,
    /// Transitions per state.
    pub stride: u32,
    /// First accepting state.
    pub accepting: u32,
    /// Number of states.
    pub states: u32,
}

/// Where a walk stands: the state, and the highest accept number seen (0: none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cursor {
    /// Current state; 0 is dead, nothing further can match.
    pub state: u32,
    /// Highest accept number seen so far.
    pub accept: u32,
}

impl Group {
    /// Reads the header of the group at `at`, and the cursor that stands at its start.
    #[inline(always)]
    pub fn read(segment: &Segment, at: u32) -> (Self, Cursor) {
        let group = Self {
            at,
            stride: word(segment, at) as u32,
            accepting: word(segment, at.wrapping_add(1)) as u32,
            states: word(segment, at.wrapping_add(3)) as u32,
        };
        let mut cursor = Cursor {
            state: word(segment, at.wrapping_add(2)) as u32,
            accept: 0,
        };
        group.note(segment, &mut cursor);
        (group, cursor)
    }

    #[inline(always)]
    fn next(&self, segment: &Segment, state: u32, class: u32) -> u32 {
        let at = self
            .at
            .wrapping_add(TRANSITIONS_AT)
            .wrapping_add(state.wrapping_mul(self.stride))
            .wrapping_add(class);
        word(segment, at) as u32
    }

    #[inline(always)]
    fn class(&self, segment: &Segment, byte: u8) -> u32 {
        let pair = word(
            segment,
            self.at
                .wrapping_add(GROUP_HEADER_WORDS as u32)
                .wrapping_add((byte >> 1) as u32),
        );
        ((pair >> ((byte & 1) << 3)) & 0xff) as u32
    }

    #[inline(always)]
    fn note(&self, segment: &Segment, cursor: &mut Cursor) {
        if cursor.state >= self.accepting {
            let at = self
                .at
                .wrapping_add(TRANSITIONS_AT)
                .wrapping_add(self.states.wrapping_mul(self.stride))
                .wrapping_add(cursor.state.wrapping_sub(self.accepting));
            let accept = word(segment, at) as u32;
            if accept > cursor.accept {
                cursor.accept = accept;
            }
        }
    }

    /// Moves the cursor over the bytes `at..end` that `read` gives, at most `BLOCK` of them, and returns where
    /// it stopped. It stops early at an accepting state, so that the loop has one way through and the verifier
    /// walks it once; call again until `end` is reached or the cursor is dead.
    #[inline(always)]
    pub fn run<const BLOCK: u32>(
        &self,
        segment: &Segment,
        cursor: &mut Cursor,
        read: impl Fn(u32) -> u8,
        mut at: u32,
        end: u32,
    ) -> u32 {
        let mut state = cursor.state;
        let mut step = 0;
        while step < BLOCK {
            if at >= end {
                break;
            }
            state = self.next(segment, state, self.class(segment, read(at)));
            at += 1;
            step += 1;
            if state == 0 || state >= self.accepting {
                break;
            }
        }
        cursor.state = state;
        self.note(segment, cursor);
        at
    }

    /// Moves the cursor over one byte. A dead cursor stays dead.
    #[inline(always)]
    pub fn step(&self, segment: &Segment, cursor: &mut Cursor, byte: u8) {
        self.run::<1>(segment, cursor, |_| byte, 0, 1);
    }

    /// Moves the cursor over the end of the text.
    #[inline(always)]
    pub fn finish(&self, segment: &Segment, cursor: &mut Cursor) {
        cursor.state = self.next(segment, cursor.state, self.stride.wrapping_sub(1));
        self.note(segment, cursor);
    }
}

/// Where a group and the ranks of its accept numbers lie.
///
/// Groups with the same patterns are stored once; the ranks (which rule, how strict) belong to the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GroupRef {
    /// Segment of the group.
    pub segment: u32,
    /// Offset of the group in its segment, in words.
    pub at: u32,
    /// Segment of the ranks.
    pub ranks_segment: u32,
    /// Offset of the ranks: accept number `n` has the rank at word `ranks_at + n - 1`.
    pub ranks_at: u32,
}

/// Start value of a program name's hash.
#[inline(always)]
pub fn hash_start(seed: u64) -> u64 {
    seed ^ 0x9e37_79b9_7f4a_7c15
}

/// Adds a byte to a program name's hash. The seed is secret and chosen anew for each load, so nobody can
/// look for a name that collides with an allowed one.
#[inline(always)]
pub fn hash_step(hash: u64, byte: u8) -> u64 {
    let mixed = (hash ^ byte as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}

/// Hashes a whole name.
pub fn hash_name(seed: u64, name: &[u8]) -> u64 {
    name.iter()
        .fold(hash_start(seed), |hash, byte| hash_step(hash, *byte))
}
