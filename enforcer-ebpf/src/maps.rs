//! Maps, the marks of tasks, and the constants that user space sets at load.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE,
        bpf_map_type, task_struct,
    },
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, RingBuf},
    helpers::generated::bpf_task_storage_get,
    macros::btf_map,
    maps::lpm_trie::Key,
};

use enforcer_common::{
    event::Header,
    grant::{ConnectGrant, ConnectGrantKey, ExecGrant, ExecGrantKey},
    load::{LoadSettings, Offsets},
    own::Own,
    rule::{ConnectKey, ConnectValue, Head, PolicyHeader},
    seat::{self, GENERATIONS, Profile, SLOTS as SLOTS_MAX, SlotState},
    table::Segment,
};

use crate::words;

/// User space maps it into its memory.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Of maps in maps: each may have another size.
const INNER: usize = BPF_F_INNER_MAP as usize;

/// Segments of the compiled tables.
type Tables = Array<Segment, 1, INNER>;
/// Program names with groups of their own, by their keyed hashes ([`enforcer_common::table::hash_name`]).
type Heads = HashMap<u64, HeadWords, 1>;
/// Networks that connect rules name.
pub type Connects = LpmTrie<ConnectKey, ConnectWords, 1>;
/// A [`Head`]. Not as a structure: Linux 6.1 takes a map without types for another kind than one whose value is a structure
/// with types (`bpf_map_meta_equal` compares what it found in them), and user space makes the maps of agents without.
type HeadWords = [u64; size_of::<Head>() / 8];
/// A [`ConnectValue`], for the same reason.
type ConnectWords = [u32; size_of::<ConnectValue>() / 4];

/// What a program's name leads to, by its keyed hash, in the tables of a seat.
#[inline(always)]
pub fn head(seat: u32, hash: u64) -> Option<*const Head> {
    let heads = HEADS.get(seat::generation(seat))?;
    // SAFETY: entries are only ever added, before anything looks for them.
    let words = unsafe { heads.get(hash) }?;
    Some(ptr::from_ref(words).cast())
}

/// What a trie says of an address; rank 0 for nothing.
#[inline(always)]
pub fn network(connects: &Connects, key: &Key<ConnectKey>) -> ConnectValue {
    match connects.get(key) {
        Some([rank, decision]) => ConnectValue {
            rank: *rank,
            decision: *decision,
        },
        None => ConnectValue {
            rank: 0,
            decision: 0,
        },
    }
}
/// Cells of rates ([`enforcer_common::limits`]).
type Cells = Array<u64, 1, { MMAPABLE | INNER }>;

/// The tables of each generation.
#[btf_map]
pub static TABLES: ArrayOfMaps<Tables, { GENERATIONS as usize }> = ArrayOfMaps::new();

/// The fixed part of each generation's policy.
#[btf_map]
pub static POLICIES: Array<PolicyHeader, { GENERATIONS as usize }, MMAPABLE> = Array::new();

/// The heads of each generation.
#[btf_map]
pub static HEADS: ArrayOfMaps<Heads, { GENERATIONS as usize }> = ArrayOfMaps::new();

/// The networks of each generation.
#[btf_map]
pub static CONNECTS: ArrayOfMaps<Connects, { GENERATIONS as usize }> = ArrayOfMaps::new();

/// Cgroup id of each agent to its slot.
#[btf_map]
pub static AGENTS: HashMap<u64, u32, { SLOTS_MAX as usize }> = HashMap::new();

/// Counters and state of each slot. User space changes the breaker, too.
#[btf_map]
pub static SLOTS: Array<SlotState, { SLOTS_MAX as usize }, MMAPABLE> = Array::new();

/// What is told of the agent in each slot.
#[btf_map]
pub static PROFILES: Array<Profile, { SLOTS_MAX as usize }> = Array::new();

/// The cells of the agents' rates: two sets for each slot.
#[btf_map]
pub static RATES: ArrayOfMaps<Cells, { 2 * SLOTS_MAX as usize }> = ArrayOfMaps::new();

/// The cells of the rate on execs of all agents of the user together.
#[btf_map]
pub static USER_EXECS: ArrayOfMaps<Cells, { 2 * SLOTS_MAX as usize }> = ArrayOfMaps::new();

/// The same for connects.
#[btf_map]
pub static USER_CONNECTS: ArrayOfMaps<Cells, { 2 * SLOTS_MAX as usize }> = ArrayOfMaps::new();

/// Execs that a person approved.
#[btf_map]
pub static GRANTS: HashMap<ExecGrantKey, ExecGrant, 8192> = HashMap::new();

/// Connects that a person approved.
#[btf_map]
pub static CONNECT_GRANTS: HashMap<ConnectGrantKey, ConnectGrant, 8192> = HashMap::new();

/// What is the launcher's own, for each slot.
#[btf_map]
pub static OWN: Array<Own, { SLOTS_MAX as usize }> = Array::new();

/// Events for user space, of each slot.
#[btf_map]
pub static EVENTS: ArrayOfMaps<RingBuf<Header, 4096>, { SLOTS_MAX as usize }> = ArrayOfMaps::new();

/// What each task of an agent carries. It follows the task wherever its cgroup goes.
#[btf_map]
static MARKS: TaskStorage<Mark> = TaskStorage::new();

/// What a task of an agent carries.
#[derive(Clone, Copy)]
#[repr(C)]
struct Mark {
    /// Which agent ([`SlotState::tenure`]); 0 none.
    tenure: u64,
    /// The agent's slot.
    slot: u32,
    /// Levels below the operator's command: how many processes were forked on the way, whoever their parents are by
    /// now.
    depth: u32,
}

/// A map of values kept with tasks. (aya has no type for it yet; the fields are what its loader reads.)
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields only describe the map to the loader; nothing reads them at run time.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// What a task carries; null if it belongs to no agent.
#[inline(always)]
fn carried(task: *mut task_struct, initial: *mut Mark) -> *mut Mark {
    let map = ptr::from_ref(&MARKS).cast_mut().cast::<c_void>();
    let flags = if initial.is_null() {
        0
    } else {
        BPF_LOCAL_STORAGE_GET_F_CREATE as u64
    };
    // SAFETY: `task` is a trusted task pointer (the current task or a tracepoint's argument); an initial value lives
    // on the caller's stack for the call.
    unsafe { bpf_task_storage_get(map, task.cast(), initial.cast(), flags) }.cast()
}

/// The state of a slot.
#[inline(always)]
pub fn slot_state(seat: u32) -> Option<*mut SlotState> {
    SLOTS.get_ptr_mut(seat::slot(seat))
}

/// The seat of the agent that has a slot.
#[inline(always)]
pub fn seat_of(slot: u32) -> Option<u32> {
    let state = slot_state(slot)?;
    // SAFETY: a field of a map value.
    let word = unsafe { ptr::read_volatile(ptr::addr_of!((*state).word)) };
    Some(seat::seat(seat::slot(slot), word))
}

/// Whose a task is, by its mark.
#[derive(Clone, Copy)]
pub enum Marked {
    /// Nobody's.
    No,
    /// Of the agent that has this slot.
    Of(u32),
    /// Of an agent that is gone: its slot is free, or another's.
    Gone,
}

/// Whose a task is, by its mark.
#[inline(always)]
pub fn mark_of(task: *mut task_struct) -> Marked {
    let value = carried(task, ptr::null_mut());
    if value.is_null() {
        return Marked::No;
    }
    // SAFETY: not null, so it points at the task's own value.
    let mark = unsafe { *value };
    if mark.tenure == 0 {
        return Marked::No;
    }
    match slot_state(mark.slot) {
        // SAFETY: a field of a map value.
        Some(state) if unsafe { (*state).tenure } == mark.tenure => Marked::Of(mark.slot),
        _ => Marked::Gone,
    }
}

/// Levels of the process tree between the operator's command and a task.
#[inline(always)]
pub fn depth_of(task: *mut task_struct) -> u32 {
    let value = carried(task, ptr::null_mut());
    if value.is_null() {
        return 0;
    }
    // SAFETY: not null, so it points at the task's own value.
    unsafe { (*value).depth }
}

/// Marks a new task as belonging to the agent of a seat, `depth` levels below the operator's command.
#[inline(always)]
pub fn set_mark(task: *mut task_struct, seat: u32, depth: u32) -> bool {
    let Some(state) = slot_state(seat) else {
        return false;
    };
    let mut mark = Mark {
        // SAFETY: a field of a map value.
        tenure: unsafe { (*state).tenure },
        slot: seat::slot(seat),
        depth,
    };
    let value = carried(task, ptr::from_mut(&mut mark));
    if value.is_null() {
        return false;
    }
    // SAFETY: not null, so it points at the task's own value.
    unsafe { words::copy(&raw const mark, value) };
    true
}

/// Marks a task, as deep as it is, as belonging to the agent of a seat.
#[inline(always)]
pub fn keep_mark(task: *mut task_struct, seat: u32) {
    set_mark(task, seat, depth_of(task));
}

/// Set at load.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::ZERO;

/// Set at load.
#[unsafe(no_mangle)]
static SETTINGS: LoadSettings = LoadSettings::ZERO;

/// Reads a constant that user space set at load. The volatile read keeps the compiler from folding the
/// placeholder in; the verifier still knows the value, because the section is frozen.
#[inline(always)]
pub fn constant(place: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { ptr::read_volatile(place) }
}

/// The offset of a kernel structure's field, for address arithmetic.
macro_rules! offset {
    ($field:ident) => {
        u64::from($crate::maps::constant(&$crate::maps::offsets().$field))
    };
}

pub(crate) use offset;

/// The offsets, for [`offset!`].
#[inline(always)]
pub fn offsets() -> &'static Offsets {
    &OFFSETS
}

/// The settings, for [`constant`].
#[inline(always)]
pub fn settings() -> &'static LoadSettings {
    &SETTINGS
}
