//! What an exec is, and the ways to look at it: its path, its script, the file behind its links, `argv[0]`.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use enforcer_common::{
    event::{
        CAUSE_APPROVED, CAUSE_DEFAULT, CAUSE_FILELESS, CAUSE_HOOK, CAUSE_INTERNAL, CAUSE_RULE,
        CAUSE_TRANSPARENT, CAUSE_UNREADABLE, EXEC_NAME_MAX, EXEC_PATH_MAX, EXEC_TEXT_MAX, ExecTail,
        FLAG_SCRIPT, FLAG_TRUNCATED, FLAG_TRUSTED,
    },
    rule::{ALLOW, ASK, DENY, PolicyHeader, RANK_TRANSPARENT, SlotState},
};

use crate::{
    judge::{Judge, add_form, classify_path, judge_forms},
    maps::{
        CHUNK_BYTES, FORM_DOT_SLASH, FORM_FIRST, FORM_TRUSTED, Form, KIND_DESCRIPTOR, KIND_SCRIPT,
        KIND_TRUSTED, PATH_BYTES, POLICIES, Scratch, offset,
    },
    own,
    scan::{base_start, masked, text_is_path, user_string_len},
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

    /// Whether the breaker and the limits have a say, and it counts.
    #[inline(always)]
    pub fn is_limited(&self) -> bool {
        self.cause != CAUSE_HOOK
    }

    /// Whether the action may go on.
    #[inline(always)]
    pub fn permits(&self) -> bool {
        self.decision == ALLOW || self.cause == CAUSE_APPROVED
    }
}

const INTERNAL: Judgement = Judgement {
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

/// Looks for the script's own name among the arguments that the kernel put before the caller's.
extern "C" fn find_script(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the frame that called `bpf_loop`.
    unsafe {
        let scratch = (*judge).scratch;
        let at = (*scratch).search_at;
        if at >= (*scratch).search_end {
            return 1;
        }
        let text = ptr::addr_of_mut!((*scratch).text).cast::<c_void>();
        let read = if (*scratch).from_kernel != 0 {
            bpf_probe_read_kernel_str(text, CHUNK_BYTES as u32, at as *const c_void)
        } else {
            read_user_str(text, CHUNK_BYTES as u32, at)
        };
        if read <= 0 || read >= CHUNK_BYTES as i64 {
            return 1;
        }
        let next = at + read as u64;
        if read as u32 == (*scratch).path_len + 1 && text_is_path(scratch) {
            (*scratch).search_found = next;
            return 1;
        }
        // A word before the script's name: an option of the interpreter, or a script in between.
        let args_len = ((*scratch).search_end - next) as u32;
        if index < 4 && next < (*scratch).search_end {
            let start = base_start(
                scratch,
                ptr::addr_of!((*scratch).text),
                (read - 1) as u32 & (CHUNK_BYTES as u32 - 1),
            );
            let name_len = (read as u32 - 1).wrapping_sub(start);
            if name_len <= 255
                && let Some(name) = keep_name(scratch, index, start, name_len)
            {
                add_form(
                    scratch,
                    Form {
                        name,
                        args: next - 1,
                        args_len,
                        name_len,
                        flags: 0,
                        reserved: 0,
                    },
                );
            }
        }
        (*scratch).search_at = next;
    }
    0
}

/// Keeps a word's base name where the forms can point at it; its address, if it could be read.
#[inline(always)]
fn keep_name(scratch: *mut Scratch, index: u32, start: u32, name_len: u32) -> Option<u64> {
    let index = masked(scratch, index, 3);
    let start = masked(scratch, start, CHUNK_BYTES as u32 - 1);
    let name_len = masked(scratch, name_len, 255);
    // SAFETY: all three are masked; the room lies behind the gathered arguments, four names of 256 bytes.
    unsafe {
        let room = ptr::addr_of_mut!((*scratch).gather)
            .cast::<u8>()
            .add(crate::maps::GATHER_BYTES + ((index as usize) << 8));
        let source = ptr::addr_of!((*scratch).text)
            .cast::<u8>()
            .add(start as usize);
        (bpf_probe_read_kernel(room.cast(), name_len, source.cast()) == 0).then_some(room as u64)
    }
}

/// Reads what the exec is, builds its forms and judges them.
#[inline(always)]
pub fn judge_exec(
    facts: &Facts,
    slot: u32,
    state: *mut SlotState,
    scratch: *mut Scratch,
) -> Judgement {
    let Some(header) = POLICIES.get_ptr(slot) else {
        return INTERNAL;
    };
    let mut judge = Judge {
        scratch,
        header,
        slot,
        reserved: 0,
    };
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
        let links = read_kernel::<u32>(inode + offset!(inode_nlink));
        let (Some(links), true) = (links, name_read > 0) else {
            return unreadable;
        };
        let exe_len = (name_read - 1) as u32 & 0xff;

        let mut kind = classify_path(&mut judge);
        if !task::in_home_tree(state) {
            kind &= !KIND_TRUSTED;
        }
        if interp != filename {
            kind |= KIND_SCRIPT;
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
        own::note(&mut judge, inode, args, args_len, exe_len);

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
        add_path_forms(scratch, path_len, base, first_args, first_args_len);
        if Scratch::is(scratch, KIND_SCRIPT) {
            add_interp_forms(scratch, interp, args, args_len);
        }
        add_form(
            scratch,
            Form {
                name: ptr::addr_of!((*scratch).exe_name) as u64,
                args,
                args_len,
                name_len: exe_len,
                flags: 0,
                reserved: 0,
            },
        );
        if argv0_len <= 256 {
            let argv0_base = base_start(
                scratch,
                ptr::addr_of!((*scratch).argv0),
                argv0_len as u32 - 1,
            );
            let name_len = (argv0_len as u32 - 1).wrapping_sub(argv0_base);
            if name_len > 0 && name_len <= 255 {
                add_form(
                    scratch,
                    Form {
                        name: ptr::addr_of!((*scratch).argv0) as u64 + u64::from(argv0_base),
                        args,
                        args_len,
                        name_len,
                        flags: 0,
                        reserved: 0,
                    },
                );
            }
        }

        store_text(
            &mut judge,
            path_len,
            base,
            exe_len,
            first_args,
            first_args_len,
        );
        judge_forms(&raw mut judge);
        if (*scratch).unreadable != 0 {
            return unreadable;
        }
        let mut judgement = weigh(&*header, (*scratch).strict_rank, (*scratch).first_rank);
        // Its own setting stands in for the default, and is the least that is said.
        let fileless = (*header).fileless;
        if (links == 0 || Scratch::is(scratch, KIND_DESCRIPTOR))
            && (judgement.cause == CAUSE_DEFAULT || fileless > judgement.decision)
        {
            judgement = Judgement {
                decision: fileless,
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

/// The forms of the path as given: the one that allow rules see, and the base name.
#[inline(always)]
fn add_path_forms(scratch: *mut Scratch, path_len: u32, base: u32, args: u64, args_len: u32) {
    // SAFETY: address of a field of a map value.
    let path = unsafe { ptr::addr_of!((*scratch).path) } as u64;
    let base_form = Form {
        name: path + u64::from(base),
        args,
        args_len,
        name_len: path_len.wrapping_sub(base),
        flags: 0,
        reserved: 0,
    };
    // SAFETY: reads the first bytes of a map value.
    let dotted = base == 0 && unsafe { (*scratch).path[0] } != b'.';
    if Scratch::is(scratch, KIND_TRUSTED) {
        add_form(
            scratch,
            Form {
                flags: FORM_FIRST | FORM_TRUSTED,
                ..base_form
            },
        );
    } else {
        add_form(
            scratch,
            Form {
                name: path,
                args,
                args_len,
                name_len: path_len,
                flags: if dotted {
                    FORM_FIRST | FORM_DOT_SLASH
                } else {
                    FORM_FIRST
                },
                reserved: 0,
            },
        );
        add_form(scratch, base_form);
    }
}

/// The interpreter's forms of a script: its path and its base name.
#[inline(always)]
fn add_interp_forms(scratch: *mut Scratch, interp: u64, args: u64, args_len: u32) {
    // SAFETY: map value; the read is bounded by the array.
    unsafe {
        let read = bpf_probe_read_kernel_str(
            ptr::addr_of_mut!((*scratch).interp).cast(),
            PATH_BYTES as u32,
            interp as *const c_void,
        );
        if read <= 0 {
            (*scratch).unreadable = 1;
            return;
        }
        let len = (read - 1) as u32 & (PATH_BYTES as u32 - 1);
        let base = base_start(scratch, ptr::addr_of!((*scratch).interp), len);
        let address = ptr::addr_of!((*scratch).interp) as u64;
        add_form(
            scratch,
            Form {
                name: address + u64::from(base),
                args,
                args_len,
                name_len: len.wrapping_sub(base),
                flags: 0,
                reserved: 0,
            },
        );
        add_form(
            scratch,
            Form {
                name: address,
                args,
                args_len,
                name_len: len,
                flags: 0,
                reserved: 0,
            },
        );
    }
}

/// Keeps the first form's text, the path and the executable's own name for the event.
#[inline(always)]
fn store_text(judge: *mut Judge, path_len: u32, base: u32, exe_len: u32, args: u64, args_len: u32) {
    // SAFETY: map values; every length is clamped below the room that is left.
    unsafe {
        let scratch = (*judge).scratch;
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
}

/// Bytes kept of a path.
pub const KEPT_PATH: u32 = EXEC_PATH_MAX as u32 - 1;
/// Bytes kept of the arguments.
const KEPT_ARGS: u32 = (EXEC_TEXT_MAX - EXEC_PATH_MAX) as u32;
/// Bytes kept of the executable's own name.
pub const KEPT_NAME: u32 = EXEC_NAME_MAX as u32 - 1;
