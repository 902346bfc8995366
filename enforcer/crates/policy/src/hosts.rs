//! The hosts of connect rules: addresses and networks as text, to networks of the model.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::Network;

/// Prefix bits in front of an IPv4 address mapped into IPv6.
const MAPPED_BITS: u8 = 96;
/// The networks that `localhost` stands for.
const LOOPBACK: [Network; 2] = [
    mapped(Ipv4Addr::new(127, 0, 0, 0), 8),
    Network {
        address: Ipv6Addr::LOCALHOST.octets(),
        prefix: 128,
    },
];

/// Why a host cannot be used: what is wrong, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostFault {
    pub(super) what: String,
    pub(super) mend: String,
    /// The text is a host name, which rules cannot hold yet.
    pub(super) is_name: bool,
}

fn fault(what: impl Into<String>, mend: impl Into<String>) -> HostFault {
    HostFault {
        what: what.into(),
        mend: mend.into(),
        is_name: false,
    }
}

const fn mapped(address: Ipv4Addr, prefix: u8) -> Network {
    Network {
        address: address.to_ipv6_mapped().octets(),
        prefix: MAPPED_BITS + prefix,
    }
}

/// Every address, of both families.
pub(super) const EVERYWHERE: Network = Network {
    address: [0; 16],
    prefix: 0,
};

/// Reads a host of a native connect rule: an address, a network in CIDR form, or `*`.
///
/// An IPv6 network wide enough to hold the mapped IPv4 addresses (`::/0`) means IPv6 only, so it becomes the
/// networks around them.
pub(super) fn parse_host(text: &str) -> Result<Vec<Network>, HostFault> {
    if text == "*" {
        return Ok(vec![EVERYWHERE]);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let (address, length) = match bare.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (bare, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(not_an_address(text, address, length.is_some()));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match length {
        None => most,
        Some(length) => match length.parse::<u8>() {
            Ok(bits) if bits <= most && length.bytes().all(|byte| byte.is_ascii_digit()) => bits,
            _ => {
                return Err(fault(
                    format!("the prefix length `/{length}` is not a number from 0 to {most}"),
                    format!("write for example `{address}/{most}`"),
                ));
            }
        },
    };
    match address {
        IpAddr::V4(v4) => ipv4(v4, prefix),
        IpAddr::V6(v6) => ipv6(v6, prefix),
    }
}

fn not_an_address(text: &str, address: &str, is_network: bool) -> HostFault {
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if is_network || address.is_empty() || address.contains(':') || address.split('.').all(numeric)
    {
        return fault(
            format!("`{text}` is not an IP address or network"),
            "write an address such as `192.0.2.7` or `2001:db8::1`, or a network such as `10.0.0.0/8`",
        );
    }
    HostFault {
        what: format!("`{text}` is a host name, and connect rules cannot judge names yet"),
        mend: "name the addresses or networks instead (`192.0.2.7`, `10.0.0.0/8`)".into(),
        is_name: true,
    }
}

fn ipv4(address: Ipv4Addr, prefix: u8) -> Result<Vec<Network>, HostFault> {
    if address.is_unspecified() && prefix == 32 {
        return Err(fault(
            "a connect to `0.0.0.0` goes to this machine and is judged as `127.0.0.1`",
            "write `127.0.0.1`, or `0.0.0.0/0` for every IPv4 address",
        ));
    }
    let base = u32::from(address) & (u64::MAX << (32 - u32::from(prefix))) as u32;
    if base != u32::from(address) {
        return Err(beyond_prefix(
            address.into(),
            Ipv4Addr::from(base).into(),
            prefix,
        ));
    }
    Ok(vec![mapped(address, prefix)])
}

fn ipv6(address: Ipv6Addr, prefix: u8) -> Result<Vec<Network>, HostFault> {
    if address.is_unspecified() && prefix == 128 {
        return Err(fault(
            "a connect to `::` goes to this machine and is judged as `::1`",
            "write `::1`, or `::/0` for every IPv6 address",
        ));
    }
    let bits = u128::from(address);
    let base = bits & mask(prefix);
    if base != bits {
        return Err(beyond_prefix(
            address.into(),
            Ipv6Addr::from(base).into(),
            prefix,
        ));
    }
    // The forms that carry an IPv4 address never reach a lookup: the kernel judges the address inside.
    for (carrier, length, name) in [
        (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, "NAT64"),
        (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    ] {
        if prefix >= length && bits & mask(length) == u128::from(carrier) {
            return Err(fault(
                format!(
                    "`{address}` is a {name} address, which is judged as the IPv4 address that it carries"
                ),
                "write that IPv4 address or network",
            ));
        }
    }
    Ok(without_mapped(bits, prefix))
}

fn beyond_prefix(address: IpAddr, base: IpAddr, prefix: u8) -> HostFault {
    fault(
        format!("`{address}/{prefix}` has address bits beyond its prefix"),
        format!("write `{base}/{prefix}`, or `{address}` for the one address"),
    )
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// The network, less the mapped IPv4 addresses if it is wider than those.
fn without_mapped(bits: u128, prefix: u8) -> Vec<Network> {
    let mapped = u128::from(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
    let network = |bits: u128, prefix: u8| Network {
        address: bits.to_be_bytes(),
        prefix,
    };
    if prefix >= MAPPED_BITS || mapped & mask(prefix) != bits {
        return vec![network(bits, prefix)];
    }
    // At every length below: the sibling of the branch that leads to the mapped addresses.
    (prefix + 1..=MAPPED_BITS)
        .map(|length| {
            let sibling = (mapped & mask(length)) ^ (1 << (128 - u32::from(length)));
            network(sibling, length)
        })
        .collect()
}

/// Reads an entry of a hook's `blocked_domains`; `None` when it is a name, which cannot be judged on a
/// connect. These lists hold `localhost`, `[::1]` and prefixes such as `10.*` besides addresses.
pub fn parse_blocked(text: &str) -> Option<Vec<Network>> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    match bare {
        "localhost" | "localhost.localdomain" => return Some(LOOPBACK.to_vec()),
        "0.0.0.0" => return Some(vec![mapped(Ipv4Addr::LOCALHOST, 32)]),
        "::" => return Some(vec![LOOPBACK[1]]),
        "*" => return Some(vec![EVERYWHERE]),
        _ => {}
    }
    if let Ok(networks) = parse_host(bare) {
        return Some(networks);
    }
    ipv4_wildcard(bare)
}

/// `10.*`, `192.168.*`, `10.*.*.*`: whole octets, then only stars.
fn ipv4_wildcard(text: &str) -> Option<Vec<Network>> {
    let mut octets = [0_u8; 4];
    let mut known = 0_usize;
    let mut stars = 0_usize;
    for part in text.split('.') {
        if part == "*" {
            stars += 1;
        } else if stars > 0 || known == 3 {
            return None;
        } else {
            octets[known] = part.parse().ok()?;
            known += 1;
        }
    }
    if stars == 0 || known == 0 || known + stars > 4 {
        return None;
    }
    let prefix = u8::try_from(known * 8).ok()?;
    Some(vec![mapped(Ipv4Addr::from(octets), prefix)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Ipv6Addr, u8) {
        let networks = parse_host(text).unwrap();
        assert_eq!(networks.len(), 1, "{text}: {networks:?}");
        (networks[0].address.into(), networks[0].prefix)
    }

    #[test]
    fn addresses_and_networks_are_read() {
        for (text, address, prefix) in [
            ("127.0.0.1", "::ffff:127.0.0.1", 128),
            ("10.0.0.0/8", "::ffff:10.0.0.0", 104),
            ("0.0.0.0/0", "::ffff:0.0.0.0", 96),
            ("::1", "::1", 128),
            ("[::1]", "::1", 128),
            ("fd00::/8", "fd00::", 8),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1", 128),
            ("::ffff:192.0.2.0/120", "::ffff:192.0.2.0", 120),
            ("*", "::", 0),
        ] {
            assert_eq!(one(text), (address.parse().unwrap(), prefix), "{text}");
        }
    }

    #[test]
    fn faults_say_what_and_mend() {
        for (text, part) in [
            ("10.0.0.1/8", "write `10.0.0.0/8`"),
            ("fd00::1/8", "write `fd00::/8`"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("1.2.3", "not an IP address"),
            ("256.1.1.1", "not an IP address"),
            ("", "not an IP address"),
            ("::g", "not an IP address"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "`::1`"),
            ("64:ff9b::a00:1", "NAT64"),
            ("2002:a00:1::/48", "6to4"),
        ] {
            let found = parse_host(text).unwrap_err();
            assert!(!found.is_name, "{text}");
            assert!(
                format!("{}; {}", found.what, found.mend).contains(part),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn names_are_told_apart() {
        for text in ["example.com", "*.example.com", "localhost", "a.1"] {
            assert!(parse_host(text).unwrap_err().is_name, "{text}");
        }
    }

    #[test]
    fn every_ipv6_address_means_no_ipv4_address() {
        let networks = parse_host("::/0").unwrap();
        let holds = |address: &str| {
            let bits = u128::from(address.parse::<Ipv6Addr>().unwrap());
            networks
                .iter()
                .filter(|network| {
                    bits & mask(network.prefix) == u128::from_be_bytes(network.address)
                })
                .count()
        };
        for inside in [
            "::1",
            "2001:db8::1",
            "fe80::1",
            "::fffe:0:0",
            "::1:0:0:0",
            "ffff::",
        ] {
            assert_eq!(holds(inside), 1, "{inside}");
        }
        for outside in [
            "::ffff:0.0.0.0",
            "::ffff:10.0.0.1",
            "::ffff:255.255.255.255",
        ] {
            assert_eq!(holds(outside), 0, "{outside}");
        }
    }

    #[test]
    fn blocked_domains_of_hooks_become_networks() {
        let show = |text: &str| -> Option<Vec<(String, u8)>> {
            Some(
                parse_blocked(text)?
                    .iter()
                    .map(|network| (Ipv6Addr::from(network.address).to_string(), network.prefix))
                    .collect(),
            )
        };
        let mapped = |address: &str, prefix: u8| Some(vec![(format!("::ffff:{address}"), prefix)]);
        assert_eq!(show("10.*"), mapped("10.0.0.0", 104));
        assert_eq!(show("172.16.*"), mapped("172.16.0.0", 112));
        assert_eq!(show("10.1.*.*"), mapped("10.1.0.0", 112));
        assert_eq!(show("169.254.169.254"), mapped("169.254.169.254", 128));
        assert_eq!(show("0.0.0.0"), mapped("127.0.0.1", 128));
        assert_eq!(show("[::1]"), Some(vec![("::1".into(), 128)]));
        assert_eq!(
            show("localhost"),
            Some(vec![("::ffff:127.0.0.0".into(), 104), ("::1".into(), 128)])
        );
        for name in [
            "metadata.google.internal",
            "10.*.1",
            "10.1.1.1.*",
            "*.10",
            "10.x.*",
            "1.2.3.4.5",
        ] {
            assert_eq!(show(name), None, "{name}");
        }
    }
}
