//! Addresses in the one form that connect rules are looked up in.

/// `::ffff:0:0/96`: IPv4 mapped into IPv6 (RFC 4291).
pub const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// `64:ff9b::/96`: IPv4 behind a NAT64 (RFC 6052).
pub const NAT64: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
/// `2002::/16`: IPv4 in 6to4 (RFC 3056).
pub const SIX_TO_FOUR: [u8; 2] = [0x20, 0x02];

/// An IPv4 address, mapped.
#[inline(always)]
pub fn from_v4(bytes: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[10] = 0xff;
    address[11] = 0xff;
    address[12] = bytes[0];
    address[13] = bytes[1];
    address[14] = bytes[2];
    address[15] = bytes[3];
    address
}

/// The two halves of an address, in some order of bytes.
#[inline(always)]
pub fn halves(address: &[u8; 16]) -> [u64; 2] {
    let address = u128::from_ne_bytes(*address);
    [address as u64, (address >> 64) as u64]
}

/// Whether an address in the normal form ([`normalise`]) is a loopback address.
#[inline(always)]
pub fn is_loopback(address: &[u8; 16]) -> bool {
    let v4 = address[..12] == MAPPED && address[12] == 127;
    v4 || u128::from_be_bytes(*address) == 1
}

/// The address that a packet would reach: NAT64 and 6to4 forms become the IPv4 address in them, and the
/// unspecified address becomes the loopback that the kernel takes it for.
#[inline(always)]
pub fn normalise(address: [u8; 16]) -> [u8; 16] {
    let high = u64::from_be_bytes([
        address[0], address[1], address[2], address[3], address[4], address[5], address[6],
        address[7],
    ]);
    let middle = u32::from_be_bytes([address[8], address[9], address[10], address[11]]);
    let low = u32::from_be_bytes([address[12], address[13], address[14], address[15]]);
    let mapped = high == 0 && middle == 0xffff;
    let nat64 = high == 0x0064_ff9b_0000_0000 && middle == 0;
    // The deprecated IPv4-compatible form (RFC 4291 2.5.5.1); small numbers are `::1` and its like.
    let compatible = high == 0 && middle == 0 && low > 0xffff;
    let v4 = if mapped || nat64 || compatible {
        low
    } else if high >> 48 == 0x2002 {
        (high >> 16) as u32
    } else if high == 0 && middle == 0 && low == 0 {
        return 1u128.to_be_bytes();
    } else {
        return address;
    };
    let v4 = if v4 == 0 { 0x7f00_0001 } else { v4 };
    from_v4(v4.to_be_bytes())
}
