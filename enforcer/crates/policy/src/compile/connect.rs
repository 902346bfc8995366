//! Connect rules as prefixes.
//!
//! A lookup is made in four forms: (protocol, port), (protocol, any), (any, port), (any, any); the highest
//! rank of the four answers decides. Within a form the longest prefix answers, so every entry carries the
//! strictest rule that covers its whole range.

use std::collections::{BTreeSet, HashMap};

use enforcer_common::{address, rule::ConnectValue};

use crate::{
    ConnectAction, Decision,
    model::{ConnectPolicy, ConnectRule, Network, Protocol},
    standing::{self, Standing},
};

use super::{Builtin, RuleRef, rank::Ranks};

/// One entry of the connect table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectPrefix {
    /// IP protocol, 0 for any. Host order.
    pub protocol: u16,
    /// Port, 0 for any. Host order.
    pub port: u16,
    /// First address, IPv4 as `::ffff:a.b.c.d`; bits behind the prefix are zero.
    pub address: [u8; 16],
    /// Prefix length over the address, 0 to 128.
    pub prefix: u8,
}

/// Link-local and metadata addresses: 169.254.0.0/16, `fe80::/10`, `fd00:ec2::254`.
const METADATA: [Network; 3] = [
    Network {
        address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 0, 0],
        prefix: 112,
    },
    Network {
        address: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        prefix: 10,
    },
    Network {
        address: [
            0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54,
        ],
        prefix: 128,
    },
];

/// The connect table, and what its ranks stand for.
pub(super) fn table(
    policy: &ConnectPolicy,
    capabilities: &BTreeSet<String>,
) -> (Vec<(ConnectPrefix, ConnectValue)>, Ranks) {
    let mut rules = standings(policy, capabilities, |rule| rule.unix.is_empty());
    rules.push((RuleRef::Builtin(Builtin::Metadata), Decision::Deny));
    let ranks = Ranks::new(vec![RuleRef::None], &rules);
    let decisions: HashMap<RuleRef, Decision> = rules.into_iter().collect();
    let mut entries: HashMap<ConnectPrefix, u32> = HashMap::new();
    let mut exempt = Vec::new();
    let mut metadata = 0;
    for (rank, rule) in ranks.refs.iter().enumerate() {
        let rank = rank as u32;
        let (Some(at), Some(decision)) = (rule.rule(), decisions.get(rule)) else {
            if *rule == RuleRef::Builtin(Builtin::Metadata) {
                metadata = rank;
            }
            continue;
        };
        let rule = &policy.rules[at];
        for host in &rule.hosts {
            let network = masked(normalise(*host));
            if *decision != Decision::Deny
                && METADATA.iter().any(|builtin| contains(builtin, &network))
            {
                exempt.push(network);
            }
            for protocol in protocols(&rule.protocols) {
                for port in ports(&rule.ports) {
                    let entry = entries.entry(key(protocol, port, network)).or_default();
                    *entry = rank.max(*entry);
                }
            }
        }
    }
    // The built-in rule is an entry of the form (any, any); a named network inside it gets one of its own,
    // without the built-in rule.
    for builtin in METADATA {
        entries.entry(key(0, 0, builtin)).or_default();
    }
    for network in &exempt {
        entries.entry(key(0, 0, *network)).or_default();
    }
    let builtin = |entry: &ConnectPrefix| {
        let network = Network {
            address: entry.address,
            prefix: entry.prefix,
        };
        let denied = entry.protocol == 0
            && entry.port == 0
            && METADATA.iter().any(|wide| contains(wide, &network))
            && !exempt.iter().any(|named| contains(named, &network));
        if denied { metadata } else { 0 }
    };
    let mut table: Vec<_> = entries
        .iter()
        .map(|(entry, own)| {
            let mut rank = builtin(entry).max(*own);
            for prefix in 0..entry.prefix {
                let wide = masked(Network {
                    address: entry.address,
                    prefix,
                });
                let wide = key(entry.protocol, entry.port, wide);
                rank = rank.max(entries.get(&wide).copied().unwrap_or(0));
            }
            let decision = match rank {
                0 => policy.default,
                rank if rank >= ranks.deny_from => Decision::Deny,
                rank if rank >= ranks.ask_from => Decision::Ask,
                _ => Decision::Allow,
            };
            let value = ConnectValue {
                rank,
                decision: decision.number(),
            };
            (*entry, value)
        })
        .collect();
    table.sort_unstable_by_key(|(entry, _)| *entry);
    (table, ranks)
}

/// Whether a rule matches a connect, whatever other rules say.
pub fn matches(rule: &ConnectRule, action: &ConnectAction) -> bool {
    let address = Network {
        address: address::normalise(action.address),
        prefix: 128,
    };
    let hosts = rule.hosts.iter().map(|host| masked(normalise(*host)));
    let fits = |listed: &[u16], own: u16| listed.is_empty() || listed.contains(&own);
    let protocols: Vec<u16> = rule
        .protocols
        .iter()
        .copied()
        .map(Protocol::number)
        .collect();
    hosts.into_iter().any(|host| contains(&host, &address))
        && fits(&rule.ports, action.port)
        && fits(&protocols, action.protocol)
}

/// The connect rules that `wanted` picks, and what each says of what it matches. What lacks a capability comes
/// first, so that of all that denies it is named.
pub(super) fn standings(
    policy: &ConnectPolicy,
    capabilities: &BTreeSet<String>,
    wanted: impl Fn(&ConnectRule) -> bool,
) -> Vec<(RuleRef, Decision)> {
    let mut rules = Vec::new();
    let mut lacking = Vec::new();
    for (at, rule) in policy.rules.iter().enumerate() {
        if !wanted(rule) {
            continue;
        }
        match standing::of_connect(rule, capabilities) {
            Standing::Lacking => lacking.push((RuleRef::Lacking(at), Decision::Deny)),
            Standing::Raised | Standing::RaisedByDanger => {
                rules.push((RuleRef::Raised(at), Decision::Ask));
            }
            Standing::Plain => rules.push((RuleRef::Rule(at), rule.decision)),
        }
    }
    [lacking, rules].concat()
}

fn protocols(protocols: &[Protocol]) -> Vec<u16> {
    if protocols.is_empty() {
        return vec![0];
    }
    protocols.iter().map(|protocol| protocol.number()).collect()
}

fn ports(ports: &[u16]) -> Vec<u16> {
    if ports.is_empty() {
        return vec![0];
    }
    ports.to_vec()
}

fn key(protocol: u16, port: u16, network: Network) -> ConnectPrefix {
    ConnectPrefix {
        protocol,
        port,
        address: network.address,
        prefix: network.prefix,
    }
}

/// The network with the bits behind its prefix cleared.
fn masked(network: Network) -> Network {
    let prefix = network.prefix.min(128);
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    Network {
        address: (u128::from_be_bytes(network.address) & mask).to_be_bytes(),
        prefix,
    }
}

/// Whether `inner` lies in `outer`.
fn contains(outer: &Network, inner: &Network) -> bool {
    inner.prefix >= outer.prefix
        && masked(Network {
            address: inner.address,
            prefix: outer.prefix,
        })
        .address
            == outer.address
}

/// Addresses are normalised before a lookup, so networks of normalised forms must be too.
fn normalise(network: Network) -> Network {
    let network = masked(network);
    let Network { address: a, prefix } = network;
    let v4 = |bytes: [u8; 4], prefix: u8| Network {
        address: address::from_v4(bytes),
        prefix,
    };
    match prefix {
        96..=127 if a[..12] == address::NAT64 => v4([a[12], a[13], a[14], a[15]], prefix),
        16..=47 if a[..2] == address::SIX_TO_FOUR => v4([a[2], a[3], a[4], a[5]], 80 + prefix),
        48..=127 if a[..2] == address::SIX_TO_FOUR => v4([a[2], a[3], a[4], a[5]], 128),
        128 => Network {
            address: address::normalise(a),
            prefix,
        },
        _ => network,
    }
}
