//! What is kept of a host beside its programs: which build it is, what was seen to refuse, and what it is made of.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::object::{LSM, OBJECT};

/// Objects that a host has pinned, at most.
const OBJECTS: usize = 48;

/// The record of a host: the only value of its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct HostRecord {
    /// Digest of the kernel programs.
    pub build: [u8; 32],
    /// The number that the next agent gets ([`enforcer_common::seat::SlotState::tenure`]).
    pub next_tenure: u64,
    /// Depth of the agents' cgroups.
    pub agent_level: u32,
    /// Programs that were seen to refuse: a bit for each of [`SEEN`].
    pub seen: u32,
    /// What Landlock was seen to refuse: bit 0 tracing, bit 1 signals.
    pub landlock: u32,
    /// How many `objects` there are.
    pub count: u32,
    /// The kernel's numbers of what is pinned, in the order of their names; of links those of their programs.
    pub objects: [u32; OBJECTS],
}

// SAFETY: `repr(C)`, integers only, no padding (size asserted below).
unsafe impl aya::Pod for HostRecord {}

const _: () = assert!(size_of::<HostRecord>() == 32 + 8 + 4 * 4 + 4 * OBJECTS);

/// What the self-test looks at that some kernels lack.
pub(super) const SEEN: [&str; 8] = [
    LSM[0].name,
    LSM[1].name,
    LSM[2].name,
    LSM[3].name,
    LSM[4].name,
    LSM[5].name,
    super::instance::UNIX_HOOKS[0],
    super::instance::UNIX_HOOKS[1],
];

/// What was seen to refuse, of what some kernels lack, or show and never run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenToRefuse {
    /// Programs.
    pub programs: Vec<&'static str>,
    /// Landlock, of tracing.
    pub tracing: bool,
    /// Landlock, of signals.
    pub signals: bool,
}

impl HostRecord {
    /// That of a host of this build where nothing has been looked at yet.
    pub fn new(agent_level: u32) -> Self {
        Self {
            build: build(),
            next_tenure: 1,
            agent_level,
            seen: 0,
            landlock: 0,
            count: 0,
            objects: [0; OBJECTS],
        }
    }

    /// Notes what was seen.
    pub fn note(&mut self, seen: &SeenToRefuse) {
        self.seen = SEEN
            .iter()
            .enumerate()
            .filter(|(_, name)| seen.programs.contains(name))
            .fold(0, |bits, (at, _)| bits | 1 << at);
        self.landlock = u32::from(seen.tracing) | u32::from(seen.signals) << 1;
    }

    /// What was seen.
    pub fn seen(&self) -> SeenToRefuse {
        SeenToRefuse {
            programs: SEEN
                .iter()
                .enumerate()
                .filter(|(at, _)| self.seen >> at & 1 != 0)
                .map(|(_, name)| *name)
                .collect(),
            tracing: self.landlock & 1 != 0,
            signals: self.landlock & 2 != 0,
        }
    }

    /// Notes what the host is made of; false if there is no room.
    pub fn made_of(&mut self, objects: &[u32]) -> bool {
        let Some(room) = self.objects.get_mut(..objects.len()) else {
            return false;
        };
        room.copy_from_slice(objects);
        self.count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        true
    }

    /// What it is made of.
    pub fn objects(&self) -> &[u32] {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        self.objects.get(..count).unwrap_or_default()
    }
}

/// A digest of the kernel programs of this build.
pub(super) fn build() -> [u8; 32] {
    static BUILD: OnceLock<[u8; 32]> = OnceLock::new();
    *BUILD.get_or_init(|| Sha256::digest(OBJECT).into())
}

/// The first bytes of a digest, hexadecimal.
pub(super) fn short(digest: &[u8; 32]) -> String {
    let first = digest
        .iter()
        .take(6)
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    format!("{first:012x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_comes_back() {
        let mut record = HostRecord::new(2);
        assert_eq!(record.seen(), SeenToRefuse::default());
        let seen = SeenToRefuse {
            programs: vec!["exec_check", "unix_sendmsg"],
            tracing: false,
            signals: true,
        };
        record.note(&seen);
        assert_eq!(record.seen(), seen);
        assert!(record.made_of(&[7, 8, 9]));
        assert_eq!(record.objects(), [7, 8, 9]);
        assert!(!record.made_of(&[1; OBJECTS + 1]));
    }
}
