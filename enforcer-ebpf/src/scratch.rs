//! Working memory of a judgement: what has no room on the stack.

use core::ptr;

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_get_smp_processor_id, macros::btf_map};
use enforcer_common::{
    event::{EXEC_NAME_MAX, EXEC_PATH_MAX, EXEC_TEXT_MAX, ExecTail, Header, UnixTail},
    grant::{ExecGrant, ExecGrantKey, Sip},
    load::SCRATCH_LEVELS,
    rule::{HEAD_GROUPS, SHARED_GROUPS},
    seat::Profile,
    table::{Cursor, Group, GroupRef},
};

use crate::atomic;

/// Working memory of the exec programs: [`SCRATCH_LEVELS`] for each CPU. (A per-CPU map's values may not be
/// this large.)
#[btf_map]
static SCRATCH: Array<Scratch, 1> = Array::new();

/// Longest path the kernel hands to exec, with its NUL.
pub const PATH_BYTES: usize = 4096;
/// Where a path that is put together from its end ends: short enough for a form.
pub const RESOLVED_END: u32 = PATH_BYTES as u32 - 4;
/// Size of one piece of arguments that is read at once.
pub const CHUNK_BYTES: usize = 4096;
/// Head and first chunk lie behind one another.
pub const TEXT_BYTES: usize = PATH_BYTES + CHUNK_BYTES;
/// Arguments that the LSM stage gathers; longer ones are left to the stage behind it.
pub const GATHER_BYTES: usize = 1 << 14;
/// Ways to look at one exec: names times script forms.
pub const FORMS: usize = 16;
/// Groups that one form runs through.
pub const JOBS: usize = HEAD_GROUPS + SHARED_GROUPS;

/// One way to look at an exec: a program name and the arguments behind it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Form {
    /// Kernel address of the name.
    pub name: u64,
    /// Address of the arguments: the separator before the first of them.
    pub args: u64,
    /// Bytes of the arguments, final NUL excluded.
    pub args_len: u32,
    /// Bytes of the name.
    pub name_len: u32,
    /// `FORM_` bits.
    pub flags: u32,
    /// Of a path ([`FORM_PATH`]): the form that is its base name.
    pub base: u32,
}

/// Form flag: allow rules may match it.
pub const FORM_FIRST: u32 = 1;
/// Form flag: a bare name in the working directory; it is judged as `./name`.
pub const FORM_DOT_SLASH: u32 = 2;
/// Form flag: the program lies in a trusted directory.
pub const FORM_TRUSTED: u32 = 4;
/// Form flag: a path whose base name is a form of its own. What a transparent shell is told to run is data here too.
pub const FORM_PATH: u32 = 8;

/// Executable: it lies in a trusted directory.
pub const KIND_TRUSTED: u32 = 1;
/// Executable: it is named through a file descriptor.
pub const KIND_DESCRIPTOR: u32 = 2;
/// Executable: it is a script, the file is its interpreter.
pub const KIND_SCRIPT: u32 = 4;
/// Executable: its path goes back up on its way, so no allow rule matches it.
pub const KIND_WINDING: u32 = 8;

impl Scratch {
    /// Whether the executable is of a kind. Read from memory each time: the verifier would otherwise follow
    /// both answers through all that comes after.
    #[inline(always)]
    pub fn is(scratch: *mut Self, kind: u32) -> bool {
        // SAFETY: claimed scratch memory.
        unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).kind)) & kind != 0 }
    }
}

/// One group on its way over a form's text.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Job {
    /// Segment of the group (index in the map).
    pub segment: u32,
    /// Segment of the ranks (index in the map).
    pub ranks_segment: u32,
    /// Word of the first rank.
    pub ranks_at: u32,
    /// Where in the text the group starts.
    pub start: u32,
    /// The group.
    pub group: Group,
    /// Where it stands.
    pub cursor: Cursor,
}

/// The event of an exec with room for all its bytes.
#[repr(C)]
pub struct ExecEvent {
    /// Header.
    pub header: Header,
    /// Lengths.
    pub tail: ExecTail,
    /// Text, path, name, behind one another.
    pub bytes: [u8; EXEC_BYTES],
}

/// Room for the name of a unix socket: a power of two.
pub const UNIX_NAME_ROOM: usize = 128;

/// The event of a unix socket with room for its name.
#[repr(C)]
pub struct UnixEvent {
    /// Header.
    pub header: Header,
    /// Lengths.
    pub tail: UnixTail,
    /// The name.
    pub name: [u8; UNIX_NAME_ROOM],
}

/// Room for an exec event's bytes.
const EXEC_BYTES: usize = EXEC_TEXT_MAX + EXEC_PATH_MAX + EXEC_NAME_MAX;

/// Working memory of one judgement.
#[repr(C)]
pub struct Scratch {
    /// Claimed by a judgement that is going on.
    pub busy: u32,
    /// Forms in use.
    pub form_count: u32,
    /// Jobs in use.
    pub job_count: u32,
    /// Jobs from here on are shared groups.
    pub own_count: u32,
    /// End of the text in `text`.
    pub text_end: u32,
    /// Something could not be read.
    pub unreadable: u32,
    /// Highest rank that asks or denies, over all forms.
    pub strict_rank: u32,
    /// Rank of the first form, allow rules included.
    pub first_rank: u32,
    /// Arguments come from kernel memory (the LSM stage's gathered copy).
    pub from_kernel: u32,
    /// Bytes of `path`, its NUL excluded.
    pub path_len: u32,
    /// Bytes gathered.
    pub gathered: u32,
    /// The arguments did not fit `gather`.
    pub overflow: u32,
    /// Bytes of the name before the arguments in `text`.
    pub head_len: u32,
    /// Bytes of the arguments not yet walked.
    pub args_left: u32,
    /// Where they start.
    pub args_at: u64,
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Bytes of the name.
    pub name_len: u32,
    /// How the name ends.
    pub name_end: u32,
    /// Where a base name starts.
    pub base: u32,
    /// `KIND_` bits of the executable.
    pub kind: u32,
    /// The climb from a file to the root: where it is, and the mount that lies in.
    pub climb_dentry: u64,
    /// As above.
    pub climb_mount: u64,
    /// The root directory at which it ends, and its `vfsmount`; zeros for the root of all.
    pub climb_root: u64,
    /// As above.
    pub climb_root_mount: u64,
    /// Where in `resolved` the path begins so far.
    pub climb_at: u32,
    /// What came of it: a `CLIMB_` constant.
    pub climb_state: u32,
    /// Whether the agent's user can change the file, or a directory on the way to it.
    pub changeable: u32,
    /// An earlier form of the same name and arguments; `FORMS` for none.
    pub earlier: u32,
    /// Whether the form's arguments are data to shared groups.
    pub bare: u32,
    /// Jobs of the form while only some run.
    pub all_jobs: u32,
    /// Whether the climb has just left a mount.
    pub climb_crossed: u32,
    /// The form that is the executable's own name, or `argv[0]`'s base name: what a path's form goes by.
    pub name_form: u32,
    /// The form that allow rules see.
    pub first_form: u32,
    /// Bytes of `own_path`; 0 for none, all ones if it cannot be read.
    pub own_len: u32,
    /// Whether the agent's user can change the script.
    pub own_changeable: u32,
    /// Bytes of `exe_name`, its NUL excluded.
    pub exe_len: u32,
    /// Links of the executable.
    pub links: u32,
    /// Bytes of `argv[0]`, its NUL excluded.
    pub argv0_len: u32,
    /// Bytes of the arguments behind `argv[0]`, final NUL excluded.
    pub rest_len: u32,
    /// Where they start.
    pub rest: u64,
    /// Highest rank of each form's own groups.
    pub own_of: [u32; FORMS],
    /// The name's own groups.
    pub own_groups: [GroupRef; HEAD_GROUPS],
    /// Highest rank of the name's own groups in this form.
    pub own_rank: u32,
    /// Highest rank of the shared groups in this form.
    pub shared_rank: u32,
    /// The job that is walking.
    pub walk: Job,
    /// Where the first form's arguments start.
    pub first_args: u64,
    /// Their length.
    pub first_args_len: u32,
    /// Whether the task has left the agent's cgroup.
    pub escaped: u32,
    /// A search through the arguments: where it is.
    pub search_at: u64,
    /// Its end.
    pub search_end: u64,
    /// What it found; 0 nothing.
    pub search_found: u64,
    /// User address of the caller's argv array.
    pub argv: u64,
    /// Address where a search for the end of a string goes on.
    pub scan: u64,
    /// Bytes of the string found so far.
    pub scan_len: u64,
    /// Number of the request whose grant lets the exec pass; 0 none.
    pub approval: u64,
    /// Hash of the exact text, on its way.
    pub sip: Sip,
    /// Where the text that is still to be hashed starts.
    pub hash_at: u64,
    /// Its bytes.
    pub hash_left: u32,
    /// Whether that is kernel memory.
    pub hash_kernel: u32,
    /// Words of the piece that is hashed.
    pub hash_words: u32,
    /// Whether the first form looked up for a grant is the script's.
    pub hash_script: u32,
    /// Whether a grant was found.
    pub hash_found: u32,
    /// Zero.
    pub reserved_hash: u32,
    /// Start of the argument area.
    pub area: u64,
    /// The grant that was found.
    pub grant: ExecGrant,
    /// Its key.
    pub grant_key: ExecGrantKey,
    /// Whether the exec is the launcher's own hook, or the shell that starts it.
    pub own: u32,
    /// Zero.
    pub reserved_own: u32,
    /// Address of the executable's inode.
    pub own_inode: u64,
    /// Whose programs are looked at: the agent's user and groups.
    pub profile: Profile,
    /// Whether an allowance goes unrecorded, because the launcher records it.
    pub unix_silent: u32,
    /// Zero.
    pub reserved_unix: u32,
    /// The event of a unix socket.
    pub unix: UnixEvent,
    /// Hashes of the forms' names judged so far.
    pub seen: [u64; FORMS],
    /// The forms.
    pub forms: [Form; FORMS],
    /// The jobs.
    pub jobs: [Job; JOBS],
    /// The exec'd path as given.
    pub path: [u8; PATH_BYTES],
    /// The interpreter's path.
    pub interp: [u8; PATH_BYTES],
    /// The executable's path, links followed: its end is that of the first [`RESOLVED_END`] bytes.
    pub resolved: [u8; PATH_BYTES + 256],
    /// The script's own path, where it is known.
    pub own_path: [u8; PATH_BYTES],
    /// The executable's own name.
    pub exe_name: [u8; 256],
    /// `argv[0]`, when short enough to be a name.
    pub argv0: [u8; 512],
    /// The text under the groups.
    pub text: [u8; TEXT_BYTES],
    /// Arguments gathered from the caller's memory.
    pub gather: [u8; GATHER_BYTES + CHUNK_BYTES],
    /// The event.
    pub event: ExecEvent,
}

/// Claims working memory on this CPU; `None` when too many judgements nest.
#[inline(always)]
pub fn claim_scratch() -> Option<*mut Scratch> {
    // SAFETY: a plain helper call.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_LEVELS;
    let mut level = 0;
    while level < SCRATCH_LEVELS {
        let scratch = SCRATCH.get_ptr_mut(first + level)?;
        // SAFETY: a map value of this type; `busy` is only touched atomically.
        if unsafe { atomic::swap(ptr::addr_of_mut!((*scratch).busy), 1) } == 0 {
            return Some(scratch);
        }
        level += 1;
    }
    None
}

/// Gives working memory back.
#[inline(always)]
pub fn release_scratch(scratch: *mut Scratch) {
    // SAFETY: claimed by this judgement.
    unsafe { ptr::write_volatile(ptr::addr_of_mut!((*scratch).busy), 0) };
}
