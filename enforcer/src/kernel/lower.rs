//! Compiled tables into the maps of a slot.

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use enforcer_common::{
    limits::Limits,
    own::Own,
    rule::{CONNECT_KEY_BITS, ConnectKey, ConnectValue, Head, HeadKey, PolicyHeader, SlotState},
    table::Segment,
};

use super::KernelError;
use crate::policy::compile::Tables;

/// Takes a map out of the object by its name and type.
macro_rules! map_mut {
    ($ebpf:expr, $name:literal, $type:ident<$($arg:ty),*>) => {
        $type::<&mut MapData, $($arg),*>::try_from(
            $ebpf
                .map_mut($name)
                .ok_or_else(|| KernelError::map($name, "it is not in the object"))?,
        )
        .map_err(|error| KernelError::map($name, error))
    };
}

/// What one policy needs of the shared maps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Table segments.
    pub segments: u32,
    /// Program names.
    pub heads: u32,
    /// Connect entries.
    pub connects: u32,
    /// Cells of rates.
    pub cells: u32,
}

impl Need {
    /// The needs of `tables`.
    pub fn of(tables: &Tables) -> Self {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Self {
            segments: count(tables.segments.len()),
            heads: count(tables.heads.len()),
            connects: count(tables.connect.len()),
            cells: tables.header.limits.exec.cells() + tables.header.limits.connect.cells(),
        }
    }

    /// Both needs together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            segments: self.segments.saturating_add(other.segments),
            heads: self.heads.saturating_add(other.heads),
            connects: self.connects.saturating_add(other.connects),
            cells: self.cells.saturating_add(other.cells),
        }
    }
}

/// The limits of a policy whose cells start at `first_cell` of the shared map: the cells of execs, then those of
/// connects.
pub fn placed(limits: &Limits, first_cell: u32) -> Limits {
    let mut placed = *limits;
    placed.exec.first = first_cell;
    placed.connect.first = first_cell + limits.exec.cells();
    placed
}

/// Writes a policy's tables for `slot`. `start` is where what it has in the shared maps begins, `grant_key` the key
/// of the hashes in its grants.
///
/// # Errors
///
/// The kernel refuses an entry (no memory).
pub fn fill(
    ebpf: &mut Ebpf,
    slot: u32,
    start: Need,
    grant_key: [u64; 2],
    tables: &Tables,
) -> Result<(), KernelError> {
    let first_segment = start.segments;
    let mut segments = map_mut!(ebpf, "TABLES", Array<Segment>)?;
    for (index, segment) in (first_segment..).zip(&tables.segments) {
        let segment: &Segment = segment;
        segments
            .set(index, segment, 0)
            .map_err(|error| KernelError::map("TABLES", error))?;
    }
    let mut heads = map_mut!(ebpf, "HEADS", HashMap<HeadKey, Head>)?;
    for (hash, head) in &tables.heads {
        let key = HeadKey {
            hash: *hash,
            slot,
            reserved: 0,
        };
        heads
            .insert(key, head, 0)
            .map_err(|error| KernelError::map("HEADS", error))?;
    }
    let mut connects = map_mut!(ebpf, "CONNECTS", LpmTrie<ConnectKey, ConnectValue>)?;
    for (prefix, value) in &tables.connect {
        let key = Key::new(
            CONNECT_KEY_BITS + u32::from(prefix.prefix),
            ConnectKey {
                slot: slot.to_be(),
                protocol: prefix.protocol.to_be(),
                port: prefix.port.to_be(),
                address: prefix.address,
            },
        );
        connects
            .insert(&key, value, 0)
            .map_err(|error| KernelError::map("CONNECTS", error))?;
    }
    let mut policies = map_mut!(ebpf, "POLICIES", Array<PolicyHeader>)?;
    let header = PolicyHeader {
        first_segment,
        grant_key,
        limits: placed(&tables.header.limits, start.cells),
        ..tables.header
    };
    policies
        .set(slot, header, 0)
        .map_err(|error| KernelError::map("POLICIES", error))
}

/// Gives the operator's one free exec in `slot` to `pid`.
///
/// # Errors
///
/// The kernel refuses the entry.
pub fn set_operator(ebpf: &mut Ebpf, slot: u32, pid: u32) -> Result<(), KernelError> {
    let mut slots = map_mut!(ebpf, "SLOTS", Array<SlotState>)?;
    let state = SlotState {
        operator_pid: pid,
        ..slots
            .get(&slot, 0)
            .map_err(|error| KernelError::map("SLOTS", error))?
    };
    slots
        .set(slot, state, 0)
        .map_err(|error| KernelError::map("SLOTS", error))
}

/// How many events the programs have given in `slot`, those too that found no room.
///
/// # Errors
///
/// The kernel does not show them.
pub fn events(ebpf: &mut Ebpf, slot: u32) -> Result<u64, KernelError> {
    map_mut!(ebpf, "SLOTS", Array<SlotState>)?
        .get(&slot, 0)
        .map(|state| state.seq)
        .map_err(|error| KernelError::map("SLOTS", error))
}

/// Says what is the launcher's own in `slot`.
///
/// # Errors
///
/// The kernel refuses the entry.
pub fn set_own(ebpf: &mut Ebpf, slot: u32, own: &Own) -> Result<(), KernelError> {
    map_mut!(ebpf, "OWN", Array<Own>)?
        .set(slot, own, 0)
        .map_err(|error| KernelError::map("OWN", error))
}

/// Puts a cgroup and everything below it under `slot`.
///
/// # Errors
///
/// The kernel refuses the entry.
pub fn set_agent(ebpf: &mut Ebpf, cgroup: u64, slot: u32) -> Result<(), KernelError> {
    map_mut!(ebpf, "AGENTS", HashMap<u64, u32>)?
        .insert(cgroup, slot, 0)
        .map_err(|error| KernelError::map("AGENTS", error))
}
