//! Grants: what a person approved, bound to exactly that, and good once.
//!
//! User space writes a grant before it lets the caller go on; the kernel programs look for it when a judgement
//! comes to *ask*. An exec's grant is found by a keyed hash of its exact text, so what was approved cannot be
//! changed afterwards: another text has another hash, and without the key nobody can make two of them meet.
//!
//! The hash is SipHash-2-4 (Aumasson and Bernstein, 2012) over words: first one of the lengths and the form
//! ([`text_head`]), then the path, then the arguments, each filled up with zeros to whole words.

/// Key of an exec's grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ExecGrantKey {
    /// [`exec_hash`] of the text.
    pub hash: u64,
    /// The agent's slot.
    pub slot: u32,
    /// The process (thread group) that may make the exec.
    pub pid: u32,
}

/// What an exec's grant is bound to besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExecGrant {
    /// Number of the request that was approved; it comes back in the event.
    pub request: u64,
    /// The grant is void from then on, `CLOCK_BOOTTIME`, ns.
    pub expires_ns: u64,
    /// Inode number of the file that is run (of the script, if it is one).
    pub inode: u64,
    /// Its size, bytes.
    pub size: u64,
    /// Its change time, seconds.
    pub changed_s: i64,
    /// Inode number of the working directory.
    pub cwd_inode: u64,
    /// Nanoseconds of the change time.
    pub changed_ns: u32,
    /// Device of the file as the kernel numbers it ([`kernel_device`]); 0 any, for file systems whose `stat` names
    /// another device than the kernel's (btrfs).
    pub device: u32,
    /// Device of the working directory; 0 any.
    pub cwd_device: u32,
    /// Not 0: nobody has answered yet, and the process stands behind its exec until somebody does. It ends no row of
    /// denials.
    pub unanswered: u32,
}

/// Key of a connect's grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConnectGrantKey {
    /// Address after [`crate::address::normalise`].
    pub address: [u8; 16],
    /// The agent's slot.
    pub slot: u32,
    /// The process that may connect.
    pub pid: u32,
    /// IP protocol of its socket.
    pub protocol: u32,
    /// Port, host order.
    pub port: u32,
}

/// A connect's grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectGrant {
    /// Number of the request that was approved.
    pub request: u64,
    /// The grant is void from then on, `CLOCK_BOOTTIME`, ns.
    pub expires_ns: u64,
}

const _: () = assert!(size_of::<ExecGrantKey>() == 16);
const _: () = assert!(size_of::<ExecGrant>() == 64);
const _: () = assert!(size_of::<ConnectGrantKey>() == 32);
const _: () = assert!(size_of::<ConnectGrant>() == 16);

/// SipHash-2-4 fed with whole words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sip {
    v: [u64; 4],
}

impl Sip {
    /// A hash under a key that has seen nothing.
    #[inline(always)]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    /// Takes in eight bytes of the message, the first the lowest.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    /// The hash. `last` holds the message's bytes behind its whole words, and in its highest byte the lowest byte
    /// of the message's length.
    #[inline(always)]
    pub fn finish(mut self, last: u64) -> u64 {
        self.word(last);
        self.v[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

/// The first word of an exec's text: lengths of path and arguments in bytes, and whether it is a script's.
#[inline(always)]
pub fn text_head(path_len: u32, args_len: u32, script: bool) -> u64 {
    (script as u64) << 63 | (path_len as u64) << 32 | args_len as u64
}

/// The last word of an exec's text, whose arguments and path fill this many bytes.
#[inline(always)]
pub fn text_last(path_len: u32, args_len: u32) -> u64 {
    let words = 1 + path_len.div_ceil(8) + args_len.div_ceil(8);
    ((words << 3) as u64) << 56
}

/// Hash of an exec's exact text.
///
/// `path` is the path as the caller gave it, without its NUL. `args` are the arguments, each with its NUL, as the
/// kernel lays them out: for a program from `argv[0]` on (an empty argv has one empty string there), for a
/// `script` (a file that starts with `#!`) from `argv[1]` on, because the kernel drops a script's `argv[0]`.
pub fn exec_hash(key: [u64; 2], path: &[u8], args: &[u8], script: bool) -> u64 {
    // Both are bounded by the kernel: 4 KiB and 6 MiB.
    let (path_len, args_len) = (path.len() as u32, args.len() as u32);
    let mut sip = Sip::new(key);
    sip.word(text_head(path_len, args_len, script));
    for bytes in [path, args] {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            sip.word(u64::from_le_bytes(word));
        }
    }
    sip.finish(text_last(path_len, args_len))
}

/// The kernel's number of a device that `stat` names: twelve bits of major number, twenty of minor.
///
/// Source: `MKDEV` in the kernel's `include/linux/kdev_t.h`, and `new_encode_dev` there for the form in `stat`.
pub fn kernel_device(st_dev: u64) -> u32 {
    let major = st_dev >> 8 & 0xfff | st_dev >> 32 & 0xffff_f000;
    let minor = st_dev & 0xff | st_dev >> 12 & 0xffff_ff00;
    (major << 20) as u32 | (minor & 0xf_ffff) as u32
}

#[cfg(feature = "user")]
mod pod {
    use super::{ConnectGrant, ConnectGrantKey, ExecGrant, ExecGrantKey};
    // SAFETY: each is `repr(C)`, made of integers only, and has no padding (sizes asserted above).
    unsafe impl aya::Pod for ExecGrantKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ExecGrant {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnectGrantKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnectGrant {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn sip(message: &[u8]) -> u64 {
        let mut sip = Sip::new(KEY);
        let words = message.chunks_exact(8);
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        last[7] = message.len() as u8;
        for word in words {
            sip.word(u64::from_le_bytes(word.try_into().unwrap()));
        }
        sip.finish(u64::from_le_bytes(last))
    }

    /// The reference implementation's vectors: messages 00, 01, 02 … of the given length.
    #[test]
    fn the_published_vectors() {
        let bytes: [u8; 64] = core::array::from_fn(|at| at as u8);
        for (length, hash) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            assert_eq!(sip(&bytes[..length]), hash, "{length} bytes");
        }
    }

    #[test]
    fn a_text_is_hashed_as_its_padded_message() {
        let mut message = [0; 8 + 16 + 8];
        message[..8].copy_from_slice(&(9 << 32 | 7_u64).to_le_bytes());
        message[8..17].copy_from_slice(b"/bin/true");
        message[24..31].copy_from_slice(b"true\0a\0");
        let hash = exec_hash(KEY, b"/bin/true", b"true\0a\0", false);
        assert_eq!(hash, sip(&message));
    }

    #[test]
    fn texts_that_look_alike_differ() {
        let texts: [(&[u8], &[u8], bool); 7] = [
            (b"/a", b"a\0b\0", false),
            (b"/a", b"a\0b\0", true),
            (b"/a", b"a\0b\0\0", false),
            (b"/a", b"a b\0", false),
            (b"/a\0", b"a\0b\0", false),
            (b"/aa", b"\0b\0", false),
            (b"", b"/aa\0b\0", false),
        ];
        for (at, one) in texts.iter().enumerate() {
            for other in &texts[at + 1..] {
                assert_ne!(
                    exec_hash(KEY, one.0, one.1, one.2),
                    exec_hash(KEY, other.0, other.1, other.2),
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn devices() {
        // 8:1, 259:3 (an NVMe partition) and a minor number above a byte.
        assert_eq!(kernel_device(0x0801), 8 << 20 | 1);
        assert_eq!(kernel_device(259 << 8 | 3), 259 << 20 | 3);
        assert_eq!(kernel_device(0x10_0025), 256 + 0x25);
    }
}
