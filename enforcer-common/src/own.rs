//! The launcher's own program below an agent: what makes an exec the call of its hook.
//!
//! An agent asks its hook before each tool call, and most go on without it when it does not start. So the hook always
//! starts, whatever the breaker and the rates say, and is never counted: it does nothing but give an answer, and the
//! answer is a denial then. Agents start it by a shell that is told to run exactly this and nothing else. Kernel
//! programs and user space judge by the same code.

/// Most bytes of a [`Own::call`].
pub const CALL_MAX: usize = 256;
/// Most bytes of a command text that is looked through. One more is all ones.
pub const TEXT_MAX: u32 = 1023;
/// Bytes of the name of a unix socket, filled up to words.
pub const SOCKET_MAX: usize = 112;

/// What is the launcher's own: one element a slot. Zeros: nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Own {
    /// Inode number of the launcher's executable; 0 none.
    pub inode: u64,
    /// Its device, as the kernel numbers it ([`crate::grant::kernel_device`]).
    pub device: u32,
    /// Bytes of `call`.
    pub call_len: u32,
    /// How a command text begins that calls the hook: the executable's path, a space, `hook`.
    pub call: [u8; CALL_MAX],
    /// Name of the launcher's socket, which hooks report to; zeros behind it.
    pub socket: [u8; SOCKET_MAX],
    /// Bytes of `socket`; 0 none.
    pub socket_len: u32,
    /// Zero.
    pub reserved: u32,
}

impl Own {
    /// Nothing.
    pub const NONE: Self = Self {
        inode: 0,
        device: 0,
        call_len: 0,
        call: [0; CALL_MAX],
        socket: [0; SOCKET_MAX],
        socket_len: 0,
        reserved: 0,
    };
}

impl Default for Own {
    fn default() -> Self {
        Self::NONE
    }
}

/// The arguments of the hook, each behind a NUL, as a word of memory: `hook` alone, or options behind it. Subcommands
/// (`hook uninstall`) stand directly behind `hook`, and there alone.
const HOOK_HEAD: u64 = u64::from_le_bytes(*b"\0hook\0\0\0");
const HEAD_MASK: u64 = 0x0000_ffff_ffff_ffff;
/// Bytes of the arguments where `hook` is the only one.
const HOOK_ALONE: u32 = 5;

/// Whether the arguments are those of the hook. `head` are their first eight bytes, little-endian, from the NUL before
/// the first argument on; `len` is how many there are, the last one's NUL excluded.
#[inline(always)]
pub const fn is_hook(head: u64, len: u32) -> bool {
    let option = head >> 48 & 0xff == b'-' as u64;
    head & HEAD_MASK == HOOK_HEAD && (len == HOOK_ALONE || len > HOOK_ALONE + 1 && option)
}

/// Where the command text starts, in bytes behind the NUL before the first argument, of a shell that is given one
/// (`-c TEXT`, `-lc TEXT`); 0 if it is given none.
#[inline(always)]
pub const fn text_at(head: u64) -> u32 {
    const PLAIN: u64 = u32::from_le_bytes(*b"\0-c\0") as u64;
    const LOGIN: u64 = u64::from_le_bytes(*b"\0-lc\0\0\0\0");
    if head & 0xffff_ffff == PLAIN {
        4
    } else if head & 0xff_ffff_ffff == LOGIN {
        5
    } else {
        0
    }
}

/// Whether an executable has the name of a shell. `head` are the name's first eight bytes, little-endian, zeros behind
/// its end.
#[inline(always)]
pub const fn is_shell(head: u64) -> bool {
    const SHELLS: [u64; 7] = [
        u64::from_le_bytes(*b"sh\0\0\0\0\0\0"),
        u64::from_le_bytes(*b"bash\0\0\0\0"),
        u64::from_le_bytes(*b"dash\0\0\0\0"),
        u64::from_le_bytes(*b"zsh\0\0\0\0\0"),
        u64::from_le_bytes(*b"ksh\0\0\0\0\0"),
        u64::from_le_bytes(*b"ksh93\0\0\0"),
        u64::from_le_bytes(*b"mksh\0\0\0\0"),
    ];
    let mut at = 0;
    let mut found = 0;
    while at < SHELLS.len() {
        found |= (SHELLS[at] == head) as u32;
        at += 1;
    }
    found != 0
}

/// Whether a byte means itself to every shell, wherever it stands in a word: no quotes, no variables, no operators, no
/// `~`. The space between words is one.
#[inline(always)]
pub const fn is_plain(byte: u8) -> bool {
    const fn set(bytes: &[u8], from: u8) -> u64 {
        let mut bits = 0;
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] & 0x40 == from {
                bits |= 1 << (bytes[at] & 63);
            }
            at += 1;
        }
        bits
    }
    const PLAIN: &[u8] =
        b" %+,-./0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    const LOW: u64 = set(PLAIN, 0);
    const HIGH: u64 = set(PLAIN, 0x40);
    let bits = if byte & 0x40 == 0 { LOW } else { HIGH };
    byte < 0x80 && bits >> (byte & 63) & 1 != 0
}

/// Whether byte `at` of a command text is one that a call of the hook can have there.
#[inline(always)]
pub fn fits(own: &Own, at: u32, byte: u8) -> bool {
    if at < own.call_len {
        return own.call[at as usize & (CALL_MAX - 1)] == byte;
    }
    // Behind `hook` an option, or nothing: a subcommand would do something else.
    match at - own.call_len {
        0 => byte == b' ',
        1 => byte == b'-',
        _ => is_plain(byte),
    }
}

/// Whether a command text is one call of the hook and nothing else.
pub fn is_call(own: &Own, text: &[u8]) -> bool {
    let len = own.call_len as usize;
    own.call_len != 0
        && text.len() <= TEXT_MAX as usize
        && (text.len() == len || text.len() > len + 1)
        && (0..).zip(text).all(|(at, byte)| fits(own, at, *byte))
}

const _: () = assert!(CALL_MAX.is_power_of_two());
const _: () = assert!(size_of::<Own>() == 16 + CALL_MAX + SOCKET_MAX + 8);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, integers only, no padding (size asserted above).
    unsafe impl aya::Pod for super::Own {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        let len = text.len().min(8);
        bytes[..len].copy_from_slice(&text[..len]);
        u64::from_le_bytes(bytes)
    }

    fn own() -> Own {
        let mut own = Own::NONE;
        let call = b"/usr/bin/enforcer hook";
        own.call[..call.len()].copy_from_slice(call);
        own.call_len = call.len() as u32;
        own
    }

    #[test]
    fn the_hook_is_called_with_options_only() {
        let judged = |args: &[u8]| is_hook(head(args), args.len() as u32);
        for args in [
            &b"\0hook"[..],
            b"\0hook\0--format\0claude",
            b"\0hook\0--policy\0/x\0--mode\0everywhere",
            b"\0hook\0-h",
        ] {
            assert!(judged(args), "{args:?}");
        }
        for args in [
            &b""[..],
            b"\0",
            b"\0hoo",
            b"\0hook\0",
            b"\0hook\0uninstall\0claude",
            b"\0hook\0consent",
            b"\0hooks",
            b"\0run\0--\0x",
            b"\0-q\0hook",
        ] {
            assert!(!judged(args), "{args:?}");
        }
        // What lies behind the end of the arguments is not theirs.
        assert!(is_hook(head(b"\0hook\0HO"), 5));
        assert!(!is_hook(head(b"\0hook\0-X"), 4));
    }

    #[test]
    fn a_text_calls_the_hook_and_nothing_else() {
        let own = own();
        for text in [
            "/usr/bin/enforcer hook",
            "/usr/bin/enforcer hook --format claude",
            "/usr/bin/enforcer hook --format claude --policy /etc/enforcer/policies/a_b-c.json",
        ] {
            assert!(is_call(&own, text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "/usr/bin/enforcer",
            "/usr/bin/enforcer hook ",
            "/usr/bin/enforcer hook uninstall claude",
            "/usr/bin/enforcer hookX",
            "/usr/bin/enforcer run -- rm",
            "/tmp/enforcer hook --format claude",
            "/usr/bin/enforcer hook --format claude; rm -rf x",
            "/usr/bin/enforcer hook --format claude\nrm -rf x",
            "/usr/bin/enforcer hook --format $(rm -rf x)",
            "/usr/bin/enforcer hook --format claude > x",
            "/usr/bin/enforcer hook --format claude & x",
            "/usr/bin/enforcer hook --format claude | x",
            "/usr/bin/enforcer hook --format 'a b'",
            "/usr/bin/enforcer hook --policy ~/x",
            "/usr/bin/enforcer hook --format `x`",
            "/usr/bin/enforcer hook --format a\\b",
            "/usr/bin/enforcer hook --format a*",
            "/usr/bin/enforcer hook --format {a,b}",
            "/usr/bin/enforcer hook --format a#b",
        ] {
            assert!(!is_call(&own, text.as_bytes()), "{text}");
        }
        assert!(!is_call(&own, b"/usr/bin/enforcer hook --format a\0b"));
        assert!(!is_call(&Own::NONE, b""));
        let mut long = [b'a'; TEXT_MAX as usize + 1];
        let start = b"/usr/bin/enforcer hook --format ";
        long[..start.len()].copy_from_slice(start);
        assert!(!is_call(&own, &long));
        assert!(is_call(&own, &long[..TEXT_MAX as usize]));
    }

    #[test]
    fn shells_and_their_texts_are_known() {
        for name in [
            &b"sh"[..],
            b"bash",
            b"dash",
            b"zsh",
            b"ksh",
            b"ksh93",
            b"mksh",
        ] {
            assert!(is_shell(head(name)));
        }
        for name in [&b"perl"[..], b"bashful", b"", b"python3"] {
            assert!(!is_shell(head(name)));
        }
        assert_eq!(text_at(head(b"\0-c\0/usr")), 4);
        assert_eq!(text_at(head(b"\0-lc\0/us")), 5);
        for args in [&b"\0-x\0/usr"[..], b"\0-ic\0", b"\0--\0-c\0", b"\0-cx"] {
            assert_eq!(text_at(head(args) | u64::MAX << 56), 0, "{args:?}");
        }
    }

    #[test]
    fn plain_bytes_are_these() {
        for byte in 0..=u8::MAX {
            let plain = byte.is_ascii_alphanumeric() || b" %+,-./:=@_".contains(&byte);
            assert_eq!(is_plain(byte), plain, "{byte}");
        }
    }
}
