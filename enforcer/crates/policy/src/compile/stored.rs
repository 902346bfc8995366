//! Compiled tables as bytes, to be kept: compiling takes a hundred times longer than reading.
//!
//! All integers are little-endian. The bytes are not trusted to be whole: whatever they are, reading them ends in
//! tables or in an error, and no lookup in the tables can leave them. That they belong to the policy is the caller's
//! business (a digest of its text).

use std::collections::HashMap;

use enforcer_common::{
    rule::{ConnectValue, HEAD_GROUPS, Head, PolicyHeader, SHARED_GROUPS},
    table::{GroupRef, SEGMENT_WORDS, Segment},
};
use thiserror::Error;

use crate::Policy;

use super::{Builtin, ConnectPrefix, RuleRef, Tables, limits};

/// What the bytes begin with; changes with the layout.
const MAGIC: [u8; 8] = *b"enftbl03";
/// Bytes from which the length of the head is known.
pub const FIRST: usize = MAGIC.len() + 4;
/// Bytes of a head: rules and programs by the hundred thousand.
const MOST_HEAD: usize = 64 << 20;
/// Segments of a policy that can be read: 64 MiB.
const MOST_SEGMENTS: u32 = 256;

/// Why bytes are no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoredError {
    /// Another layout, or none at all.
    #[error("not tables of this version")]
    Magic,
    /// They end too early, or go on behind their end.
    #[error("the tables are cut short or too long")]
    Length,
    /// A number that no table has.
    #[error("the tables hold a number that is out of range")]
    Range,
}

impl Tables {
    /// The tables as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(MAGIC.to_vec());
        out.u32(0);
        let header = &self.header;
        out.groups(&header.shared);
        out.group(&header.path);
        for number in [
            header.shared_count,
            header.ask_from,
            header.deny_from,
            header.exec_default,
            header.fileless,
            header.descriptor,
            header.connect_default,
            header.unix_default,
            header.unix_ask_from,
            header.unix_deny_from,
            header.outside_unix,
            header.outside_tcp,
            self.connect_ask_from,
            self.connect_deny_from,
            u32::from(self.unix_rule_asks),
        ] {
            out.u32(number);
        }
        out.u64(header.seed);
        out.head(&header.unix);
        out.u32(self.heads.len() as u32);
        let mut heads: Vec<_> = self.heads.iter().collect();
        heads.sort_unstable_by_key(|(hash, _)| **hash);
        for (hash, head) in heads {
            out.u64(*hash);
            out.head(head);
        }
        for ranks in [&self.ranks, &self.connect_ranks, &self.unix_ranks] {
            out.u32(ranks.len() as u32);
            for rank in ranks {
                out.rule(*rank);
            }
        }
        out.u32(self.connect.len() as u32);
        for (prefix, value) in &self.connect {
            out.0.extend(prefix.protocol.to_le_bytes());
            out.0.extend(prefix.port.to_le_bytes());
            out.0.extend(prefix.address);
            out.0.push(prefix.prefix);
            out.u32(value.rank);
            out.u32(value.decision);
        }
        // What is behind the last group is zero.
        let used = |segment: &Segment| {
            let last = segment.iter().rposition(|word| *word != 0);
            last.map_or(0, |at| at + 1)
        };
        out.u32(self.segments.len() as u32);
        for segment in &self.segments {
            out.u32(used(segment) as u32);
        }
        let head = out.0.len() as u32;
        out.0[MAGIC.len()..FIRST].copy_from_slice(&head.to_le_bytes());
        for segment in &self.segments {
            let words = &segment[..used(segment)];
            out.0
                .extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        out.0
    }

    /// Tables from bytes that [`Tables::to_bytes`] made, for the policy that they were compiled from.
    ///
    /// # Errors
    ///
    /// [`StoredError`]; ranks of rules that the policy does not have are out of range.
    pub fn from_bytes(bytes: &[u8], policy: &Policy) -> Result<Self, StoredError> {
        let first = bytes.first_chunk().ok_or(StoredError::Length)?;
        let head = head_length(first)?;
        let (head, mut rest) = bytes.split_at_checked(head).ok_or(StoredError::Length)?;
        let mut partial = Partial::read(head, policy)?;
        while let Some(length) = partial.missing() {
            let (segment, behind) = rest.split_at_checked(length).ok_or(StoredError::Length)?;
            partial.add(segment)?;
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(StoredError::Length);
        }
        Ok(partial.tables)
    }
}

/// The length of the head, in bytes, from the first bytes: what stands before the segments.
///
/// # Errors
///
/// They are not the first bytes of tables.
pub fn head_length(first: &[u8; FIRST]) -> Result<usize, StoredError> {
    let length = first.strip_prefix(&MAGIC).ok_or(StoredError::Magic)?;
    let length = length.try_into().map_err(|_| StoredError::Length)?;
    let length = u32::from_le_bytes(length) as usize;
    if (FIRST..=MOST_HEAD).contains(&length) {
        Ok(length)
    } else {
        Err(StoredError::Length)
    }
}

/// Tables that are being read: the head, and so many of the segments. Most of the bytes are segments, which need not
/// be in memory twice.
#[derive(Debug)]
pub struct Partial {
    tables: Tables,
    /// Bytes of each segment.
    lengths: Vec<usize>,
}

impl Partial {
    /// Reads the head, for the policy that the tables were compiled from.
    ///
    /// # Errors
    ///
    /// As [`Tables::from_bytes`].
    pub fn read(head: &[u8], policy: &Policy) -> Result<Self, StoredError> {
        let bytes = head.strip_prefix(&MAGIC).ok_or(StoredError::Magic)?;
        let mut read = Read(bytes);
        read.u32()?;
        let mut header = PolicyHeader {
            shared: read.groups::<SHARED_GROUPS>()?,
            path: read.group()?,
            shared_count: read.up_to(SHARED_GROUPS as u32)?,
            ask_from: read.u32()?,
            deny_from: read.u32()?,
            exec_default: read.up_to(2)?,
            fileless: read.up_to(2)?,
            descriptor: read.up_to(2)?,
            connect_default: read.up_to(2)?,
            unix_default: read.up_to(2)?,
            unix_ask_from: read.u32()?,
            unix_deny_from: read.u32()?,
            outside_unix: read.up_to(2)?,
            outside_tcp: read.up_to(2)?,
            limits: limits::limit_rules(&policy.limits, &policy.breaker),
            ..PolicyHeader::default()
        };
        let connect_ask_from = read.u32()?;
        let connect_deny_from = read.u32()?;
        let unix_rule_asks = read.up_to(1)? == 1;
        header.seed = read.u64()?;
        header.unix = read.head()?;
        let count = read.count(8 + 4)?;
        let mut heads = HashMap::with_capacity(count);
        for _ in 0..count {
            heads.insert(read.u64()?, read.head()?);
        }
        let ranks = read.ranks(policy.exec.rules.len())?;
        let connect_ranks = read.ranks(policy.connect.rules.len())?;
        let unix_ranks = read.ranks(policy.connect.rules.len())?;
        let count = read.count(29)?;
        let mut connect = Vec::with_capacity(count);
        for _ in 0..count {
            let prefix = ConnectPrefix {
                protocol: u16::from_le_bytes(read.take()?),
                port: u16::from_le_bytes(read.take()?),
                address: read.take()?,
                prefix: read.take::<1>()?[0].min(128),
            };
            let value = ConnectValue {
                rank: read.u32()?,
                decision: read.up_to(2)?,
            };
            connect.push((prefix, value));
        }
        let count = read.up_to(MOST_SEGMENTS)?;
        let mut lengths = Vec::with_capacity(count as usize);
        for _ in 0..count {
            lengths.push(read.up_to(SEGMENT_WORDS as u32)? as usize * 2);
        }
        if !read.0.is_empty() {
            return Err(StoredError::Length);
        }
        Ok(Self {
            tables: Tables {
                header,
                segments: Vec::with_capacity(lengths.len()),
                heads,
                ranks,
                connect,
                connect_ranks,
                connect_ask_from,
                connect_deny_from,
                unix_ranks,
                unix_rule_asks,
            },
            lengths,
        })
    }

    /// How many bytes the next segment has; `None` when all are there.
    pub fn missing(&self) -> Option<usize> {
        self.lengths.get(self.tables.segments.len()).copied()
    }

    /// Adds the next segment.
    ///
    /// # Errors
    ///
    /// It has another length, or none is missing.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), StoredError> {
        if self.missing() != Some(bytes.len()) {
            return Err(StoredError::Length);
        }
        let mut segment: Box<Segment> = vec![0; SEGMENT_WORDS]
            .into_boxed_slice()
            .try_into()
            .map_err(|_| StoredError::Length)?;
        for (word, pair) in segment.iter_mut().zip(bytes.chunks_exact(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        self.tables.segments.push(segment);
        Ok(())
    }

    /// The tables.
    ///
    /// # Errors
    ///
    /// Segments are missing.
    pub fn finish(self) -> Result<Tables, StoredError> {
        match self.missing() {
            None => Ok(self.tables),
            Some(_) => Err(StoredError::Length),
        }
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn group(&mut self, group: &GroupRef) {
        for number in [group.segment, group.at, group.ranks_segment, group.ranks_at] {
            self.u32(number);
        }
    }

    fn groups(&mut self, groups: &[GroupRef]) {
        for group in groups {
            self.group(group);
        }
    }

    fn head(&mut self, head: &Head) {
        self.u32(head.count);
        let used = (head.count as usize).min(HEAD_GROUPS);
        self.groups(&head.groups[..used]);
    }

    fn rule(&mut self, rule: RuleRef) {
        let (kind, at) = match rule {
            RuleRef::None => (0, 0),
            RuleRef::Transparent => (1, 0),
            RuleRef::Rule(at) => (2, at),
            RuleRef::Builtin(Builtin::Loader) => (3, 0),
            RuleRef::Builtin(Builtin::Metadata) => (4, 0),
            RuleRef::Builtin(Builtin::Socket(at)) => (5, at),
            RuleRef::Raised(at) => (6, at),
            RuleRef::Lacking(at) => (7, at),
            RuleRef::Builtin(Builtin::Guard(at)) => (8, at),
        };
        self.0.push(kind);
        self.u32(at as u32);
    }
}

struct Read<'b>(&'b [u8]);

impl<'b> Read<'b> {
    fn bytes(&mut self, count: usize) -> Result<&'b [u8], StoredError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(StoredError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        self.bytes(N)?.try_into().map_err(|_| StoredError::Length)
    }

    fn u32(&mut self) -> Result<u32, StoredError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, StoredError> {
        self.take().map(u64::from_le_bytes)
    }

    fn up_to(&mut self, most: u32) -> Result<u32, StoredError> {
        let number = self.u32()?;
        if number > most {
            return Err(StoredError::Range);
        }
        Ok(number)
    }

    /// How many entries of at least so many bytes follow: not more than there are bytes.
    fn count(&mut self, size: usize) -> Result<usize, StoredError> {
        let count = self.u32()? as usize;
        if count > self.0.len() / size {
            return Err(StoredError::Length);
        }
        Ok(count)
    }

    fn group(&mut self) -> Result<GroupRef, StoredError> {
        Ok(GroupRef {
            segment: self.u32()?,
            at: self.u32()?,
            ranks_segment: self.u32()?,
            ranks_at: self.u32()?,
        })
    }

    fn groups<const N: usize>(&mut self) -> Result<[GroupRef; N], StoredError> {
        let mut groups = [GroupRef::default(); N];
        for group in &mut groups {
            *group = self.group()?;
        }
        Ok(groups)
    }

    fn head(&mut self) -> Result<Head, StoredError> {
        let mut head = Head {
            count: self.up_to(HEAD_GROUPS as u32)?,
            ..Head::default()
        };
        for group in &mut head.groups[..head.count as usize] {
            *group = self.group()?;
        }
        Ok(head)
    }

    fn ranks(&mut self, rules: usize) -> Result<Vec<RuleRef>, StoredError> {
        let count = self.count(5)?;
        let mut ranks = Vec::with_capacity(count);
        for _ in 0..count {
            let [kind] = self.take()?;
            let at = self.u32()? as usize;
            ranks.push(match kind {
                0 => RuleRef::None,
                1 => RuleRef::Transparent,
                2 if at < rules => RuleRef::Rule(at),
                3 => RuleRef::Builtin(Builtin::Loader),
                4 => RuleRef::Builtin(Builtin::Metadata),
                5 => RuleRef::Builtin(Builtin::Socket(at)),
                6 if at < rules => RuleRef::Raised(at),
                7 if at < rules => RuleRef::Lacking(at),
                8 => RuleRef::Builtin(Builtin::Guard(at)),
                _ => return Err(StoredError::Range),
            });
        }
        Ok(ranks)
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
