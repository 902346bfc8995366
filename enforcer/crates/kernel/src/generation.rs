//! Compiled tables, as the maps of a generation.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::lpm_trie::Key;
use aya_obj::generated::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type};
use enforcer_common::{
    limits::LimitRules,
    rule::{CONNECT_KEY_BITS, ConnectKey, ConnectValue, Head, PolicyHeader},
    table::Segment,
};

use super::{
    KernelError,
    sys::{Change, Shape, Table},
    tables::HostMaps,
};
use enforcer_policy::compile::Tables;

/// The limits of a policy with their places in the agent's map of cells: those of execs, then those of connects.
pub fn placed(limits: &LimitRules) -> LimitRules {
    let mut placed = *limits;
    placed.exec.first = 0;
    placed.connect.first = limits.exec.cells();
    placed
}

/// The maps that one policy decides by.
#[derive(Debug)]
pub(super) struct Generation {
    /// The fixed part.
    pub header: PolicyHeader,
    /// Segments.
    pub tables: OwnedFd,
    /// Program names with groups of their own.
    pub heads: OwnedFd,
    /// Networks.
    pub connects: OwnedFd,
}

impl Generation {
    /// Makes and fills the maps of a policy.
    ///
    /// # Errors
    ///
    /// The kernel refuses one (no memory).
    pub fn new(tables: &Tables) -> Result<Self, KernelError> {
        let segments = Table::<u32, Segment>::new(
            "TABLES",
            array(size_of::<Segment>(), tables.segments.len(), 0).create("TABLES")?,
        )?;
        for (index, segment) in (0_u32..).zip(&tables.segments) {
            segments.set(&index, segment)?;
        }
        let heads = Shape {
            kind: bpf_map_type::BPF_MAP_TYPE_HASH,
            key_bytes: size_of::<u64>(),
            value_bytes: size_of::<Head>(),
            entries: count(tables.heads.len()),
            flags: 0,
        };
        let heads = Table::<u64, Head>::new("HEADS", heads.create("HEADS")?)?;
        for (hash, head) in &tables.heads {
            heads.set(hash, head)?;
        }
        let connects = Shape {
            kind: bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
            key_bytes: size_of::<Key<ConnectKey>>(),
            value_bytes: size_of::<ConnectValue>(),
            entries: count(tables.connect.len()),
            flags: BPF_F_NO_PREALLOC,
        };
        let connects =
            Table::<Key<ConnectKey>, ConnectValue>::new("CONNECTS", connects.create("CONNECTS")?)?;
        for (prefix, value) in &tables.connect {
            let key = Key::new(
                CONNECT_KEY_BITS + u32::from(prefix.prefix),
                ConnectKey {
                    protocol: prefix.protocol.to_be(),
                    port: prefix.port.to_be(),
                    address: prefix.address,
                },
            );
            connects.set(&key, value)?;
        }
        Ok(Self {
            header: PolicyHeader {
                limits: placed(&tables.header.limits),
                ..tables.header
            },
            tables: segments.fd,
            heads: heads.fd,
            connects: connects.fd,
        })
    }

    /// What makes them the maps of a generation.
    pub fn changes<'a>(&'a self, maps: &'a HostMaps, generation: u32) -> Vec<Change<'a>> {
        [
            (&maps.tables, &self.tables),
            (&maps.heads, &self.heads),
            (&maps.connects, &self.connects),
        ]
        .map(|(maps, map)| Change {
            maps,
            at: generation,
            to: Some(map.as_fd()),
        })
        .into()
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).max(1)
}

/// An array that stands in an array of maps.
fn array(value_bytes: usize, entries: usize, flags: u32) -> Shape {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
        key_bytes: size_of::<u32>(),
        value_bytes,
        entries: count(entries),
        flags: BPF_F_INNER_MAP | flags,
    }
}

/// Cells of rates, which user space maps into its memory.
pub(super) fn cells(name: &'static str, entries: u32) -> Result<OwnedFd, KernelError> {
    array(size_of::<u64>(), entries as usize, BPF_F_MMAPABLE).create(name)
}

/// A ring buffer of this many bytes, a power of two.
pub(super) fn ring(bytes: u32) -> Result<OwnedFd, KernelError> {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_RINGBUF,
        key_bytes: 0,
        value_bytes: 0,
        entries: bytes,
        flags: 0,
    }
    .create("EVENTS")
}
