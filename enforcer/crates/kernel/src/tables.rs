//! The maps that the programs and all agents share.

use std::{
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::Ordering,
};

use aya::Ebpf;
use aya_obj::generated::bpf_map_type;
use enforcer_common::{
    grant::{ConnectGrant, ConnectGrantKey, ExecGrant, ExecGrantKey},
    own::Own,
    rule::PolicyHeader,
    seat::{GENERATIONS, Profile, SLOTS, SlotState},
};

use super::{
    KernelError,
    limits::{Mapped, STATE_CELLS},
    record::HostRecord,
    sys::{Maps, Shape, Table, open_pin},
};

/// All of them. See `enforcer-ebpf/src/maps.rs` for what each holds.
#[derive(Debug)]
pub(super) struct HostMaps {
    pub agents: Table<u64, u32>,
    pub slots: Table<u32, SlotState>,
    pub profiles: Table<u32, Profile>,
    pub own: Table<u32, Own>,
    pub policies: Table<u32, PolicyHeader>,
    pub grants: Table<ExecGrantKey, ExecGrant>,
    pub connect_grants: Table<ConnectGrantKey, ConnectGrant>,
    pub tables: Maps,
    pub heads: Maps,
    pub connects: Maps,
    pub rates: Maps,
    pub user_execs: Maps,
    pub user_connects: Maps,
    pub events: Maps,
    /// What user space keeps of the host: no program reads it.
    pub record: Table<u32, HostRecord>,
}

/// Whose the slots are, and what decides for them.
pub(super) struct Words(Mapped);

impl Words {
    /// Tenure and word of a slot, and the maps that it has.
    pub fn of(&self, slot: u32) -> (u64, u32, u32) {
        let cell = |offset: usize| {
            let at = offset / size_of::<u64>();
            self.0
                .cell(slot * STATE_CELLS + u32::try_from(at).unwrap_or(0))
                .map_or(0, |cell| cell.load(Ordering::SeqCst))
        };
        // Two halves of one cell.
        const { assert!(offset_of!(SlotState, word).is_multiple_of(8)) };
        const { assert!(offset_of!(SlotState, maps) == offset_of!(SlotState, word) + 4) };
        let both = cell(offset_of!(SlotState, word));
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        (
            cell(offset_of!(SlotState, tenure)),
            both as u32,
            (both >> 32) as u32,
        )
    }

    /// Writes a slot's word, and the maps that it has, at once.
    pub fn set(&self, slot: u32, word: u32, maps: u32) -> Result<(), KernelError> {
        let at = u32::try_from(offset_of!(SlotState, word) / size_of::<u64>()).unwrap_or(0);
        let cell = self
            .0
            .cell(slot * STATE_CELLS + at)
            .ok_or_else(|| KernelError::map("SLOTS", "there is no such slot"))?;
        // The kernel's programs read the word alone, and write neither.
        cell.store(u64::from(maps) << 32 | u64::from(word), Ordering::SeqCst);
        Ok(())
    }
}

/// Cells of the header of a generation.
#[expect(clippy::cast_possible_truncation, reason = "some dozens")]
const HEADER_CELLS: u32 = (size_of::<PolicyHeader>() / size_of::<u64>()) as u32;

/// The seeds of the generations. One at a time, each look would be a system call.
pub(super) struct Seeds(Mapped);

impl Seeds {
    /// That of the tables of a generation; 0 where there are none.
    pub fn of(&self, generation: u32) -> u64 {
        const { assert!(size_of::<PolicyHeader>().is_multiple_of(8)) };
        const { assert!(offset_of!(PolicyHeader, seed).is_multiple_of(8)) };
        let at = u32::try_from(offset_of!(PolicyHeader, seed) / size_of::<u64>()).unwrap_or(0);
        self.0
            .cell(generation * HEADER_CELLS + at)
            .map_or(0, |cell| cell.load(Ordering::SeqCst))
    }
}

/// The map of the record.
pub(super) const RECORD: &str = "HOST";

impl HostMaps {
    fn each(
        mut open: impl FnMut(&'static str) -> Result<OwnedFd, KernelError>,
        record: OwnedFd,
    ) -> Result<Self, KernelError> {
        /// Opens a map by its name.
        macro_rules! table {
            ($name:literal) => {
                Table::new($name, open($name)?)?
            };
        }
        Ok(Self {
            agents: table!("AGENTS"),
            slots: table!("SLOTS"),
            profiles: table!("PROFILES"),
            own: table!("OWN"),
            policies: table!("POLICIES"),
            grants: table!("GRANTS"),
            connect_grants: table!("CONNECT_GRANTS"),
            tables: table!("TABLES"),
            heads: table!("HEADS"),
            connects: table!("CONNECTS"),
            rates: table!("RATES"),
            user_execs: table!("USER_EXECS"),
            user_connects: table!("USER_CONNECTS"),
            events: table!("EVENTS"),
            record: Table::new(RECORD, record)?,
        })
    }

    /// Those of a loaded object, with an empty record.
    pub fn of(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let record = Shape {
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: size_of::<u32>(),
            value_bytes: size_of::<HostRecord>(),
            entries: 1,
            flags: 0,
        };
        Self::each(
            |name| {
                ebpf.map(name)
                    .and_then(super::sys::map_fd)
                    .ok_or_else(|| KernelError::map(name, "it is not in the object"))?
                    .try_clone_to_owned()
                    .map_err(|error| KernelError::map(name, error))
            },
            record.create(RECORD)?,
        )
    }

    /// Those that are pinned in a directory.
    pub fn open(directory: &Path) -> Result<Self, KernelError> {
        let open = |name: &'static str| {
            let path = directory.join(name);
            open_pin(&path).map_err(|error| KernelError::Pin { path, error })
        };
        let record = open(RECORD)?;
        Self::each(open, record)
    }

    /// The slots, in our memory.
    pub fn words(&self) -> Result<Words, KernelError> {
        Mapped::new(self.slots.fd.as_fd(), SLOTS * STATE_CELLS)
            .map(Words)
            .map_err(|error| KernelError::map("SLOTS", error))
    }

    /// The headers of the generations, in our memory.
    pub fn seeds(&self) -> Result<Seeds, KernelError> {
        Mapped::new(self.policies.fd.as_fd(), GENERATIONS * HEADER_CELLS)
            .map(Seeds)
            .map_err(|error| KernelError::map("POLICIES", error))
    }

    /// All but the record, by name.
    pub fn named(&self) -> [(&'static str, BorrowedFd<'_>); 14] {
        /// A map's name and descriptor.
        macro_rules! pair {
            ($field:ident) => {
                (self.$field.name, self.$field.fd.as_fd())
            };
        }
        [
            pair!(agents),
            pair!(slots),
            pair!(profiles),
            pair!(own),
            pair!(policies),
            pair!(grants),
            pair!(connect_grants),
            pair!(tables),
            pair!(heads),
            pair!(connects),
            pair!(rates),
            pair!(user_execs),
            pair!(user_connects),
            pair!(events),
        ]
    }
}
