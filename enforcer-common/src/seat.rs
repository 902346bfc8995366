//! Where an agent sits in the kernel programs' maps, and what is kept of it there.
//!
//! The programs are loaded once and judge many agents. Each has a *slot*, and the slot names the *generation* of tables
//! that decides: to replace a policy is to write new tables and to change that one word. A *seat* is slot and word
//! together. It is read once for a decision and handed on, so that a decision sees one policy whole.

/// Agents at a time. A power of two.
pub const SLOTS: u32 = 1 << SLOT_BITS;
/// Sets of tables at a time: a new one for each agent while its old one still decides. A power of two.
pub const GENERATIONS: u32 = 2 * SLOTS;

const SLOT_BITS: u32 = 10;
/// Which of a slot's two sets of rate cells counts.
const CELLS_SHIFT: u32 = 15;
const GENERATION_SHIFT: u32 = 16;

/// The word of a slot: generation of its tables, and which of its two sets of rate cells counts.
pub const fn word(generation: u32, cells: u32) -> u32 {
    generation << GENERATION_SHIFT | (cells & 1) << CELLS_SHIFT
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
    slot(seat) << 1 | (seat >> CELLS_SHIFT & 1)
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
    /// Which maps of maps have one for the slot: for user space, which would have to wait for each that it looks up. A slot
    /// that is free may still have some.
    pub maps: u32,
}

/// [`SlotState::maps`]: the slot has an event ring.
pub const HAS_EVENTS: u32 = 1;

/// [`SlotState::maps`]: the slot has cells of this kind (0 its rates, 1 the user's execs, 2 the user's connects) in this one of
/// its two sets.
pub const fn has_cells(kind: u32, set: u32) -> u32 {
    1 << (1 + 2 * kind + set)
}

/// Decides and is recorded, but blocks nothing.
pub const OBSERVED: u32 = 1;
/// Denied execs are killed once they are made, not refused before.
pub const KILLS: u32 = 2;

/// Groups of the agent's user that kernel programs know.
pub const AGENT_GROUPS: usize = 16;
/// Stands for no user.
pub const NO_USER: u32 = u32::MAX;
/// Stands for no group: none can have this number (`INVALID_GID`).
pub const NO_GROUP: u32 = u32::MAX;

/// What the programs are told of an agent besides its policy: one element a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Profile {
    /// Key of the hashes in grants ([`crate::grant`]); the agent must not come to know it.
    pub grant_key: [u64; 2],
    /// [`OBSERVED`], [`KILLS`].
    pub flags: u32,
    /// The user who could change programs to get them trusted; [`NO_USER`] where nobody is asked about.
    pub user: u32,
    /// How many of `groups` there are; more than there is room for: every group counts as the user's.
    pub group_count: u32,
    /// The one process that may connect to unix sockets by path; 0 none.
    pub connector: u32,
    /// The groups of that user; [`NO_GROUP`] in places that hold none.
    pub groups: [u32; AGENT_GROUPS],
}

impl Profile {
    /// Of nobody in particular.
    pub const NONE: Self = Self {
        grant_key: [0; 2],
        flags: 0,
        user: NO_USER,
        group_count: 0,
        connector: 0,
        groups: [NO_GROUP; AGENT_GROUPS],
    };
}

impl Default for Profile {
    fn default() -> Self {
        Self::NONE
    }
}

const _: () = assert!(SLOT_BITS <= CELLS_SHIFT && GENERATIONS <= 1 << GENERATION_SHIFT);
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
            let seat = seat(at, word(generations, which));
            assert_eq!(slot(seat), at);
            assert_eq!(generation(seat), generations);
            assert_eq!(cells(seat), 2 * at + which);
        }
    }
}
