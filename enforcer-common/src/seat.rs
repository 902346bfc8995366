//! Where an agent sits in the kernel programs' maps, and what is kept of it there.
//!
//! The programs are loaded once and judge many agents. Each has a *slot*, and the slot's *word* says what decides: the
//! *generation* of tables, and how it is enforced. To replace a policy is to write new tables and to change that one word. A
//! *seat* is slot and word together. It is read once for a decision and handed on, so that a decision sees one policy whole.

/// Agents at a time. A power of two.
pub const SLOTS: u32 = 1 << SLOT_BITS;
/// Sets of tables at a time: a new one for each agent while its old one still decides. A power of two.
pub const GENERATIONS: u32 = 2 * SLOTS;

const SLOT_BITS: u32 = 10;
/// Which of a slot's two sets of rate cells counts.
const CELLS_SHIFT: u32 = 15;
const GENERATION_SHIFT: u32 = 16;

/// Of a word: what is decided is recorded, but blocks nothing.
pub const OBSERVED: u32 = 1 << 14;
/// Of a word: denied execs are killed once they are made, not refused before.
pub const KILLS: u32 = 1 << 13;

/// The word of a slot: generation of its tables, which of its two sets of rate cells counts, and [`OBSERVED`] and [`KILLS`].
pub const fn word(generation: u32, cells: u32, flags: u32) -> u32 {
    generation << GENERATION_SHIFT | (cells & 1) << CELLS_SHIFT | flags & (OBSERVED | KILLS)
}

/// The seat of a slot whose word is this.
#[inline(always)]
pub const fn seat(slot: u32, word: u32) -> u32 {
    word | slot
}

/// Its slot.
#[inline(always)]
pub const fn slot(seat: u32) -> u32 {
    seat & (SLOTS - 1)
}

/// The generation of its tables.
#[inline(always)]
pub const fn generation(seat: u32) -> u32 {
    seat >> GENERATION_SHIFT & (GENERATIONS - 1)
}

/// Which of the sets of rate cells of all slots is its: two for each.
#[inline(always)]
pub const fn cells(seat: u32) -> u32 {
    slot(seat) << 1 | set(seat)
}

/// Which of its slot's two sets of rate cells counts.
#[inline(always)]
pub const fn set(seat: u32) -> u32 {
    seat >> CELLS_SHIFT & 1
}

/// Whether what is decided blocks nothing.
#[inline(always)]
pub const fn observed(seat: u32) -> bool {
    seat & OBSERVED != 0
}

/// Whether what is denied is killed, not refused before.
#[inline(always)]
pub const fn kills(seat: u32) -> bool {
    seat & KILLS != 0
}

/// Counters and state of one agent: one element a slot, written by the kernel, and by user space where it judges.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SlotState {
    /// Sequence number that the next event gets.
    pub seq: u64,
    /// Events that found no room; their actions were denied.
    pub lost: u64,
    /// Execs allowed.
    pub exec_allowed: u64,
    /// Execs denied.
    pub exec_denied: u64,
    /// Connects allowed.
    pub connect_allowed: u64,
    /// Connects denied.
    pub connect_denied: u64,
    /// Pid of the launcher's child: its first exec is the operator's command. 0 once that has run.
    pub operator_pid: u32,
    /// Inode number of the mount namespace that the operator's command started in; trusted directories are
    /// trusted there only.
    pub mount_namespace: u32,
    /// Address of the root directory that the operator's command started in; 0 until it has.
    pub root: u64,
    /// The breaker ([`crate::limits::Breaker`]).
    pub breaker: u64,
    /// Denials in a row when the breaker opened last.
    pub tripped_at: u64,
    /// The denial that was counted last ([`crate::limits::Thing::denied_to`]).
    pub last_denied: u64,
    /// Which agent has the slot: no two ever have the same number. 0 if it is free. A task that carries another number is
    /// of an agent that is gone.
    pub tenure: u64,
    /// What decides ([`word`]).
    pub word: u32,
    /// For user space alone: which maps of maps have one for the slot, since it would have to wait for each that it looks up
    /// (a slot that is free may still have some), and the generation that the agent holds beside that of its word
    /// ([`beside`]). Written in one with `word`.
    pub maps: u32,
}

/// [`SlotState::maps`]: the slot has an event ring.
pub const HAS_EVENTS: u32 = 1;

const BESIDE_SHIFT: u32 = 16;

/// [`SlotState::maps`] of an agent that holds a second generation: one that it will go over to, or has just left while
/// decisions may still see it.
pub const fn with_beside(maps: u32, generation: Option<u32>) -> u32 {
    let kept = maps & ((1 << BESIDE_SHIFT) - 1);
    match generation {
        Some(generation) => kept | (generation + 1) << BESIDE_SHIFT,
        None => kept,
    }
}

/// The second generation that an agent holds.
pub const fn beside(maps: u32) -> Option<u32> {
    (maps >> BESIDE_SHIFT).checked_sub(1)
}

/// [`SlotState::maps`]: the slot has cells of this kind (0 its rates, 1 the user's execs, 2 the user's connects) in this one of
/// its two sets.
pub const fn has_cells(kind: u32, set: u32) -> u32 {
    1 << (1 + 2 * kind + set)
}

/// Groups of the agent's user that kernel programs know.
pub const AGENT_GROUPS: usize = 16;
/// Stands for no user.
pub const NO_USER: u32 = u32::MAX;
/// Stands for no group: none can have this number (`INVALID_GID`).
pub const NO_GROUP: u32 = u32::MAX;

/// The number of no process.
pub const NO_PROCESS: u32 = u32::MAX;

/// What the programs are told of an agent besides its policy: one element a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Profile {
    /// Key of the hashes in grants ([`crate::grant`]); the agent must not come to know it.
    pub grant_key: [u64; 2],
    /// The user who could change programs to get them trusted; [`NO_USER`] where nobody is asked about.
    pub user: u32,
    /// How many of `groups` there are; more than there is room for: every group counts as the user's.
    pub group_count: u32,
    /// The one process that may connect to unix sockets by path; 0 where paths are judged by their text, [`NO_PROCESS`]
    /// where it has ended.
    pub connector: u32,
    /// Nothing.
    pub reserved: u32,
    /// The groups of that user; [`NO_GROUP`] in places that hold none.
    pub groups: [u32; AGENT_GROUPS],
}

impl Profile {
    /// Of nobody in particular.
    pub const NONE: Self = Self {
        grant_key: [0; 2],
        user: NO_USER,
        group_count: 0,
        connector: 0,
        reserved: 0,
        groups: [NO_GROUP; AGENT_GROUPS],
    };
}

impl Default for Profile {
    fn default() -> Self {
        Self::NONE
    }
}

const _: () = assert!(KILLS >> SLOT_BITS != 0 && OBSERVED < 1 << CELLS_SHIFT);
const _: () = assert!(GENERATIONS <= 1 << GENERATION_SHIFT);
const _: () = assert!(size_of::<SlotState>() == 104);
const _: () = assert!(size_of::<Profile>() == 32 + 4 * AGENT_GROUPS);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, integers only, no padding (sizes asserted above).
    unsafe impl aya::Pod for super::SlotState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Profile {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_gives_back_what_it_was_made_of() {
        for (at, generations, which) in [
            (0, 0, 0),
            (SLOTS - 1, GENERATIONS - 1, 1),
            (1, GENERATIONS - 1, 0),
            (SLOTS - 1, 0, 1),
        ] {
            for flags in [0, OBSERVED, KILLS, OBSERVED | KILLS] {
                let seat = seat(at, word(generations, which, flags));
                assert_eq!(slot(seat), at);
                assert_eq!(generation(seat), generations);
                assert_eq!(cells(seat), 2 * at + which);
                assert_eq!(observed(seat), flags & OBSERVED != 0);
                assert_eq!(kills(seat), flags & KILLS != 0);
            }
        }
    }

    #[test]
    fn a_second_generation_stands_beside_what_maps_there_are() {
        let maps = HAS_EVENTS | has_cells(2, 1);
        assert_eq!(beside(maps), None);
        for generation in [0, GENERATIONS - 1] {
            let held = with_beside(maps, Some(generation));
            assert_eq!(beside(held), Some(generation));
            assert_eq!(with_beside(held, None), maps);
        }
    }
}
