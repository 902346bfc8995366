//! What an exec is, read from the kernel's structures, and judged in all its forms.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use enforcer_common::{
    event::{
        CAUSE_APPROVED, CAUSE_DEFAULT, CAUSE_ESCAPE, CAUSE_FAMILY, CAUSE_FILELESS, CAUSE_HOOK,
        CAUSE_INTERNAL, CAUSE_OPERATOR, CAUSE_ROUTED, CAUSE_RULE, CAUSE_TRANSPARENT,
        CAUSE_UNREADABLE, EXEC_NAME_MAX, EXEC_PATH_MAX, EXEC_TEXT_MAX, ExecTail, FLAG_SCRIPT,
        FLAG_TRUNCATED, FLAG_TRUSTED,
    },
    rule::{ALLOW, ASK, DENY, PolicyHeader, RANK_TRANSPARENT},
    seat::SlotState,
};

use crate::{
    judge::{
        climb::climb,
        forms::{FURTHER, add_further, add_path_forms, find_script},
        own,
        walk::{Judge, classify_path, judge_forms},
    },
    maps::offset,
    scan::{base_start, masked, user_string_len},
    scratch::{CHUNK_BYTES, KIND_DESCRIPTOR, KIND_SCRIPT, KIND_TRUSTED, PATH_BYTES, Scratch},
    task::{self, read_kernel, read_kernel_or_zero, read_user_str},
};

/// A judgement's result.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Judgement {
    /// `ALLOW`, `ASK` or `DENY`.
    pub decision: u32,
    /// A `CAUSE_` constant.
    pub cause: u32,
    /// Rank of the rule that decided.
    pub rank: u32,
}

impl Judgement {
    /// The same judgement, of which the verifier knows nothing any more. It would follow each that it knows through all
    /// that comes after.
    #[inline(always)]
    pub fn forgotten(self) -> Self {
        read_kernel::<Self>(ptr::addr_of!(self) as u64).unwrap_or(INTERNAL)
    }

    /// In one number, for global functions, which take and give no structures. A rank has 16 bits in the tables, an
    /// index of complexity 32.
    #[inline(always)]
    pub fn packed(self) -> u64 {
        u64::from(self.rank) << 32
            | u64::from(self.cause & 0xff) << 8
            | u64::from(self.decision & 0xff)
    }

    /// What [`Self::packed`] gave.
    #[inline(always)]
    pub fn unpacked(packed: u64) -> Self {
        Self {
            decision: packed as u32 & 0xff,
            cause: (packed >> 8) as u32 & 0xff,
            rank: (packed >> 32) as u32,
        }
    }

    /// Whether the breaker and the limits have a say, and an allowance counts. Not in what the launcher itself starts, and not
    /// in what is refused whatever a policy says.
    #[inline(always)]
    pub fn is_limited(&self) -> bool {
        // One comparison: the verifier follows each.
        UNLIMITED >> (self.cause & 63) & 1 == 0
    }

    /// Whether the action may go on.
    #[inline(always)]
    pub fn permits(&self) -> bool {
        self.decision == ALLOW || self.cause == CAUSE_APPROVED
    }
}

/// The causes in which breaker and limits have no say.
const UNLIMITED: u64 = 1 << CAUSE_HOOK
    | 1 << CAUSE_OPERATOR
    | 1 << CAUSE_ESCAPE
    | 1 << CAUSE_FAMILY
    | 1 << CAUSE_ROUTED;

/// What cannot be judged.
pub const INTERNAL: Judgement = Judgement {
    decision: DENY,
    cause: CAUSE_INTERNAL,
    rank: 0,
};

/// Where to find the facts of an exec.
#[derive(Clone, Copy)]
pub struct Facts {
    /// Address of the `linux_binprm`.
    pub bprm: u64,
    /// First byte of the argument area (`argv[0]`).
    pub args: u64,
    /// End of the argument area.
    pub args_end: u64,
}

/// Reads what the exec is, builds its forms and judges them.
#[inline(always)]
pub fn judge_exec(
    facts: &Facts,
    seat: u32,
    state: *mut SlotState,
    scratch: *mut Scratch,
) -> Judgement {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return INTERNAL;
    };
    let header = judge.header;
    // SAFETY: map values throughout; every index is bounded where it is used.
    unsafe {
        (*scratch).form_count = 0;
        (*scratch).unreadable = 0;
        (*scratch).approval = 0;
        ptr::write_volatile(ptr::addr_of_mut!((*scratch).own), 0);
        (*scratch).area = facts.args;
        (*scratch).event.header.flags = 0;
        (*scratch).event.tail = ExecTail::default();

        let unreadable = Judgement {
            decision: DENY,
            cause: CAUSE_UNREADABLE,
            rank: 0,
        };
        let bprm = facts.bprm;
        let (Some(filename), Some(interp), Some(file)) = (
            read_kernel::<u64>(bprm + offset!(bprm_filename)),
            read_kernel::<u64>(bprm + offset!(bprm_interp)),
            read_kernel::<u64>(bprm + offset!(bprm_file)),
        ) else {
            return unreadable;
        };
        let path_read = bpf_probe_read_kernel_str(
            ptr::addr_of_mut!((*scratch).path).cast(),
            PATH_BYTES as u32,
            filename as *const c_void,
        );
        if path_read <= 0 {
            return unreadable;
        }
        let path_len = (path_read - 1) as u32 & (PATH_BYTES as u32 - 1);
        (*scratch).path_len = path_len;
        let name = read_kernel::<u64>(file + offset!(file_dentry))
            .and_then(|dentry| read_kernel::<u64>(dentry + offset!(dentry_name)))
            .unwrap_or(0);
        let name_read = bpf_probe_read_kernel_str(
            ptr::addr_of_mut!((*scratch).exe_name).cast(),
            256,
            name as *const c_void,
        );
        let inode = read_kernel_or_zero::<u64>(file + offset!(file_inode));
        (*scratch).own_inode = inode;
        let links = read_kernel::<u32>(inode + offset!(inode_nlink));
        let (Some(links), true) = (links, name_read > 0) else {
            return unreadable;
        };
        let exe_len = (name_read - 1) as u32 & 0xff;

        let mut kind = classify_path(scratch, seat);
        let home = task::in_home_tree(state);
        climb(scratch, seat, file, u32::from(home));
        // A program that the agent's user can change is the agent's, wherever it lies.
        if !home || ptr::read_volatile(ptr::addr_of!((*scratch).changeable)) != 0 {
            kind &= !KIND_TRUSTED;
        }
        if interp != filename {
            kind |= KIND_SCRIPT;
        }
        if kind & KIND_SCRIPT != 0
            && ptr::read_volatile(ptr::addr_of!((*scratch).own_changeable)) != 0
        {
            kind &= !KIND_TRUSTED;
        }
        (*scratch).kind = kind;
        if Scratch::is(scratch, KIND_TRUSTED) {
            (*scratch).event.header.flags |= FLAG_TRUSTED;
        }
        if Scratch::is(scratch, KIND_SCRIPT) {
            (*scratch).event.header.flags |= FLAG_SCRIPT;
        }

        // The argument area: argv[0], a NUL, and so on; the last NUL is not part of the text.
        if facts.args == 0 || facts.args_end <= facts.args {
            return unreadable;
        }
        let area = facts.args_end - facts.args;
        let argv0_len = if (*scratch).from_kernel != 0 {
            kernel_argv0(scratch, facts.args)
        } else {
            user_argv0(&mut judge, facts.args)
        };
        if argv0_len == 0 || argv0_len > area {
            return unreadable;
        }
        (*scratch).event.tail.argv_bytes = area as u32;
        let args = facts.args + argv0_len - 1;
        let args_len = (area - argv0_len) as u32;

        let end = facts.args_end - 1;
        (*scratch).first_args = args;
        (*scratch).first_args_len = args_len;
        if Scratch::is(scratch, KIND_SCRIPT) {
            (*scratch).search_at = args + 1;
            (*scratch).search_end = facts.args_end;
            (*scratch).search_found = 0;
            bpf_loop(
                10,
                find_script as *mut c_void,
                ptr::from_mut(&mut judge).cast(),
                0,
            );
            let found = (*scratch).search_found;
            if found != 0 && found <= facts.args_end {
                (*scratch).first_args = found - 1;
                (*scratch).first_args_len = (end - (found - 1)) as u32;
            }
        }
        let first_args = ptr::read_volatile(ptr::addr_of!((*scratch).first_args));
        let first_args_len = ptr::read_volatile(ptr::addr_of!((*scratch).first_args_len));
        let base = base_start(scratch, ptr::addr_of!((*scratch).path), path_len);
        (*scratch).first_form = (*scratch).form_count;
        add_path_forms(scratch, path_len, base, first_args, first_args_len);
        (*scratch).scan = interp;
        (*scratch).exe_len = exe_len;
        (*scratch).links = links;
        (*scratch).argv0_len = argv0_len.min(u64::from(u32::MAX)) as u32 - 1;
        (*scratch).rest = args;
        (*scratch).rest_len = args_len;
        own::note_own(scratch, seat);
        bpf_loop(
            FURTHER,
            add_further as *mut c_void,
            ptr::from_mut(&mut judge).cast(),
            0,
        );

        store_text(scratch, base);
        if judge_forms(scratch, seat) == 0 || (*scratch).unreadable != 0 {
            return unreadable;
        }
        let mut judgement = weigh(&*header, (*scratch).strict_rank, (*scratch).first_rank);
        // Its own setting stands in for the default, and is the least that is said.
        let links = ptr::read_volatile(ptr::addr_of!((*scratch).links));
        let nameless = if links == 0 {
            (*header).fileless
        } else {
            (*header).descriptor
        };
        if (links == 0 || Scratch::is(scratch, KIND_DESCRIPTOR))
            && (judgement.cause == CAUSE_DEFAULT || nameless > judgement.decision)
        {
            judgement = Judgement {
                decision: nameless,
                cause: CAUSE_FILELESS,
                rank: 0,
            };
        }
        // Whatever the rules say: an agent goes on without the hook that does not start.
        if own::is_own(scratch) {
            judgement = Judgement {
                decision: ALLOW,
                cause: CAUSE_HOOK,
                rank: 0,
            };
        }
        judgement
    }
}

/// Turns the ranks of all forms into a decision.
#[inline(always)]
fn weigh(header: &PolicyHeader, strict: u32, first: u32) -> Judgement {
    if strict >= header.deny_from && strict != 0 {
        return Judgement {
            decision: DENY,
            cause: CAUSE_RULE,
            rank: strict,
        };
    }
    if strict >= header.ask_from && strict != 0 {
        return Judgement {
            decision: ASK,
            cause: CAUSE_RULE,
            rank: strict,
        };
    }
    match first {
        0 => Judgement {
            decision: header.exec_default,
            cause: CAUSE_DEFAULT,
            rank: 0,
        },
        RANK_TRANSPARENT => Judgement {
            decision: ALLOW,
            cause: CAUSE_TRANSPARENT,
            rank: first,
        },
        rank => Judgement {
            decision: ALLOW,
            cause: CAUSE_RULE,
            rank,
        },
    }
}

/// Length of `argv[0]` in the gathered copy, its NUL included; the name is kept when short enough.
#[inline(always)]
fn kernel_argv0(scratch: *mut Scratch, address: u64) -> u64 {
    // SAFETY: the target is longer than the bound.
    let read = unsafe {
        bpf_probe_read_kernel_str(
            ptr::addr_of_mut!((*scratch).text).cast(),
            CHUNK_BYTES as u32,
            address as *const c_void,
        )
    };
    if read <= 0 || read >= CHUNK_BYTES as i64 {
        return 0;
    }
    if read <= 256 {
        // SAFETY: as above.
        unsafe {
            bpf_probe_read_kernel_str(
                ptr::addr_of_mut!((*scratch).argv0).cast(),
                257,
                address as *const c_void,
            );
        }
    }
    read as u64
}

/// Length of `argv[0]` in user memory, its NUL included; the name is kept when short enough.
#[inline(always)]
fn user_argv0(judge: *mut Judge, address: u64) -> u64 {
    // SAFETY: the target is longer than the bound.
    let read = unsafe {
        read_user_str(
            ptr::addr_of_mut!((*(*judge).scratch).argv0).cast(),
            257,
            address,
        )
    };
    if read > 0 && read < 257 {
        return read as u64;
    }
    user_string_len(judge, address)
}

/// Keeps the first form's text, the path and the executable's own name for the event. `base` is where the path's last name
/// begins.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn store_text(scratch: *mut Scratch, base: u32) -> u32 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: map values; every length is clamped below the room that is left.
    unsafe {
        let path_len = (*scratch).path_len;
        let exe_len = (*scratch).exe_len;
        let args = (*scratch).first_args;
        let args_len = (*scratch).first_args_len;
        let bytes = ptr::addr_of_mut!((*scratch).event.bytes).cast::<u8>();
        let path = ptr::addr_of!((*scratch).path).cast::<u8>();
        let start = if Scratch::is(scratch, KIND_TRUSTED) {
            masked(scratch, base, PATH_BYTES as u32 - 1)
        } else {
            0
        };
        let head = masked(
            scratch,
            path_len.wrapping_sub(start).min(KEPT_PATH),
            KEPT_PATH,
        );
        bpf_probe_read_kernel(bytes.cast(), head, path.add(start as usize).cast());
        if args_len > KEPT_ARGS || path_len > KEPT_PATH {
            (*scratch).event.header.flags |= FLAG_TRUNCATED;
        }
        let mut rest = masked(scratch, args_len.min(KEPT_ARGS), EXEC_TEXT_MAX as u32 - 1);
        let target = bytes.add(head as usize).cast::<c_void>();
        let source = args as *const c_void;
        let result = if (*scratch).from_kernel != 0 {
            bpf_probe_read_kernel(target, rest, source)
        } else {
            bpf_probe_read_user(target, rest, source)
        };
        if result != 0 {
            (*scratch).unreadable = 1;
            rest = 0;
        }
        let text_len = masked(scratch, head + rest, EXEC_TEXT_MAX as u32 - 1);
        let path_kept = masked(scratch, path_len.min(KEPT_PATH), KEPT_PATH);
        let at = bytes.add(text_len as usize);
        bpf_probe_read_kernel(at.cast(), path_kept, path.cast());
        let name_kept = masked(scratch, exe_len.min(KEPT_NAME), KEPT_NAME);
        bpf_probe_read_kernel(
            at.add(path_kept as usize).cast(),
            name_kept,
            ptr::addr_of!((*scratch).exe_name).cast(),
        );
        (*scratch).event.tail.text_len = text_len;
        (*scratch).event.tail.path_len = path_kept;
        (*scratch).event.tail.name_len = name_kept;
    }
    1
}

/// Bytes kept of a path.
pub const KEPT_PATH: u32 = EXEC_PATH_MAX as u32 - 1;
/// Bytes kept of the arguments.
const KEPT_ARGS: u32 = (EXEC_TEXT_MAX - EXEC_PATH_MAX) as u32;
/// Bytes kept of the executable's own name.
pub const KEPT_NAME: u32 = EXEC_NAME_MAX as u32 - 1;
