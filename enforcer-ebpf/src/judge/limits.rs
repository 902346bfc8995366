//! The breaker, the rates and the complexity of an agent. The algorithms are those of [`enforcer_common::limits`];
//! user space runs them over the same memory.
//!
//! Each question is a global function (`no_mangle`): the verifier walks it once for a program, whatever is known where it
//! is asked, and learns nothing of its answer.

use core::{
    ffi::c_void,
    mem::{offset_of, size_of},
    ptr,
};

use aya_ebpf::helpers::generated::bpf_loop;
use enforcer_common::{
    event::{
        CAUSE_BREAKER, CAUSE_COMPLEXITY, CAUSE_INTERNAL, CAUSE_RATE, CAUSE_TRANSPARENT,
        CAUSE_USER_RATE, counts_for_breaker,
    },
    limits::{
        Ask, COMPLEX_ARGUMENTS, COMPLEX_BYTES, COMPLEX_DEPTH, Cells, LimitRules, RateRule, Said,
        TRIES, Taking, Thing, complexity_rank, is_repeat, try_take, try_turn,
    },
    rule::DENY,
    seat::{self, SlotState},
};

use crate::{
    atomic,
    event::{now, pid},
    judge::{
        facts::Judgement,
        gate::{Action, Stage},
    },
    maps::{POLICIES, RATES, USER_CONNECTS, USER_EXECS, depth_of, offset, slot_state},
    task::{self, read_kernel},
};

const NS_PER_MS: u64 = 1_000_000;

#[inline(always)]
fn limits_of(seat: u32) -> Option<&'static LimitRules> {
    let header = POLICIES.get_ptr(seat::generation(seat))?;
    // SAFETY: a map value, which lives as long as the program.
    Some(unsafe { &(*header).limits })
}

/// The breaker's word, as [`Cells`].
struct Word(*mut u64);

impl Cells for Word {
    #[inline(always)]
    fn load(&self, _at: u32) -> Option<u64> {
        // SAFETY: a field of a map value.
        Some(unsafe { ptr::read_volatile(self.0) })
    }

    #[inline(always)]
    fn replace(&self, _at: u32, old: u64, new: u64) -> bool {
        // SAFETY: a field of a map value, touched only atomically.
        unsafe { atomic::replace_wide(self.0, old, new) }
    }
}

/// A question to the breaker, from try to try.
#[repr(C)]
struct Question {
    state: *mut SlotState,
    seat: u32,
    ask: u32,
    pid: u32,
    /// A `SAID_` number.
    said: u32,
}

const SAID_NOTHING: u32 = 0;
const SAID_NOTED: u32 = 1;
const SAID_REFUSED: u32 = 2;
const SAID_TRIPPED: u32 = 3;
const SAID_TRIPPED_AGAIN: u32 = 4;

extern "C" fn try_question(_index: u32, context: *mut c_void) -> i64 {
    let question = context.cast::<Question>();
    // SAFETY: `question` lies on the stack of the frame that called `bpf_loop`; its pointer is a map value.
    unsafe {
        let Some(limits) = limits_of((*question).seat) else {
            return 1;
        };
        let ask = match (*question).ask {
            0 => Ask::Admit,
            1 => Ask::Denied,
            2 => Ask::Allowed,
            _ => Ask::Transparent,
        };
        let word = Word(ptr::addr_of_mut!((*(*question).state).breaker));
        let Some(said) = try_turn(
            &word,
            ask,
            &limits.breaker,
            (*question).pid,
            now() / NS_PER_MS,
        ) else {
            return 0;
        };
        (*question).said = match said {
            Said::Noted => SAID_NOTED,
            Said::Refused => SAID_REFUSED,
            Said::Tripped => SAID_TRIPPED,
            Said::TrippedAgain => SAID_TRIPPED_AGAIN,
        };
    }
    1
}

/// Asks the breaker: an [`Ask`]'s number; a `SAID_` number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask_breaker(seat: u32, ask: u32) -> u32 {
    let Some(state) = slot_state(seat) else {
        return SAID_NOTHING;
    };
    let mut question = Question {
        state,
        seat,
        ask,
        pid: pid(),
        said: SAID_NOTHING,
    };
    // SAFETY: the context lives for the call.
    unsafe {
        bpf_loop(
            TRIES,
            try_question as *mut c_void,
            ptr::from_mut(&mut question).cast(),
            0,
        );
    }
    question.said
}

/// Whether the breaker lets the rules decide about the current process.
#[inline(always)]
pub fn admits(state: *mut SlotState, seat: u32) -> bool {
    // SAFETY: a field of a map value.
    let word = unsafe { ptr::read_volatile(ptr::addr_of!((*state).breaker)) };
    // Closed, as almost always: the upper half is zero.
    // Where nothing is blocked the rules go on deciding: an open breaker would hide what they say.
    word >> 32 == 0 || seat::observed(seat) || ask_breaker(seat, Ask::Admit as u32) == SAID_NOTED
}

/// Counts a denial, if its cause counts. Gives the denials in a row if it opened the breaker, else 0.
#[inline(always)]
pub fn count_denial(seat: u32, cause: u32, thing: Thing) -> u64 {
    denied_for(seat, cause, thing.denied_to(pid()))
}

/// See [`count_denial`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn denied_for(seat: u32, cause: u32, denial: u64) -> u64 {
    if !counts_for_breaker(cause) {
        return 0;
    }
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    // SAFETY: fields of a map value.
    unsafe {
        let word = ptr::read_volatile(ptr::addr_of!((*state).breaker));
        let last = ptr::addr_of_mut!((*state).last_denied);
        if is_repeat(word, ptr::read_volatile(last), denial) {
            return 0;
        }
        ptr::write_volatile(last, denial);
    }
    let said = ask_breaker(seat, Ask::Denied as u32);
    // SAFETY: a field of a map value; only who opens the breaker writes it.
    unsafe {
        let place = ptr::addr_of_mut!((*state).tripped_at);
        if said == SAID_TRIPPED {
            let denials = limits_of(seat).map_or(0, |limits| u64::from(limits.breaker.denials));
            ptr::write_volatile(place, denials);
            return denials;
        }
        if said == SAID_TRIPPED_AGAIN {
            return atomic::add(place, 1) + 1;
        }
    }
    0
}

/// Notes an allowance: it ends a row of denials, unless its cause is that it says nothing by itself.
#[inline(always)]
pub fn count_allowance(state: *mut SlotState, seat: u32, cause: u32) {
    // SAFETY: a field of a map value.
    if unsafe { ptr::read_volatile(ptr::addr_of!((*state).breaker)) } == 0 {
        return;
    }
    let what = if cause == CAUSE_TRANSPARENT {
        Ask::Transparent
    } else {
        Ask::Allowed
    };
    ask_breaker(seat, what as u32);
}

/// The cell of a rate, one of the numbers of [`Wish::rate`].
#[inline(always)]
fn cell(rate: u32, set: u32, at: u32) -> Option<*mut u64> {
    match rate {
        OWN_EXEC | OWN_CONNECT => RATES.get(set)?.get_ptr_mut(at),
        USER_EXEC => USER_EXECS.get(set)?.get_ptr_mut(at),
        _ => USER_CONNECTS.get(set)?.get_ptr_mut(at),
    }
}

/// Stands for a cell that is not there: no clock gets so far.
const NO_CELL: u64 = u64::MAX;

/// Reads a cell of a rate.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn load_cell(rate: u32, set: u32, at: u32) -> u64 {
    match cell(rate, set, at) {
        // SAFETY: a map value.
        Some(cell) => unsafe { ptr::read_volatile(cell) },
        None => NO_CELL,
    }
}

/// Stores `new` in a cell of a rate if `old` is there; 0 if it was not.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn replace_cell(rate: u32, set: u32, at: u32, old: u64, new: u64) -> u32 {
    match cell(rate, set, at) {
        // SAFETY: a map value, touched only atomically.
        Some(cell) => u32::from(unsafe { atomic::replace_wide(cell, old, new) }),
        None => 0,
    }
}

/// The cells of a rate.
struct Ring {
    rate: u32,
    /// Which set of cells of the map.
    set: u32,
    first: u32,
}

impl Cells for Ring {
    #[inline(always)]
    fn load(&self, at: u32) -> Option<u64> {
        let value = load_cell(self.rate, self.set, self.first + at);
        (value != NO_CELL).then_some(value)
    }

    #[inline(always)]
    fn replace(&self, at: u32, old: u64, new: u64) -> bool {
        replace_cell(self.rate, self.set, self.first + at, old, new) != 0
    }
}

/// A question to a rate, from try to try.
#[repr(C)]
struct Wish {
    seat: u32,
    /// Which of the rates of [`LimitRules`].
    rate: u32,
    take: u32,
    /// A `GOT_` number.
    got: u32,
}

const OWN_EXEC: u32 = 0;
const OWN_CONNECT: u32 = 1;
const USER_EXEC: u32 = 2;
const USER_CONNECT: u32 = 3;

const GOT_NOTHING: u32 = 0;
const GOT_TAKEN: u32 = 1;
const GOT_EXCEEDED: u32 = 2;

/// One of the rates of [`LimitRules`], which stand behind one another there: the verifier would walk all that comes after for
/// each that is chosen.
#[inline(always)]
fn rate_of(limits: &LimitRules, which: u32) -> &RateRule {
    let rates = ptr::from_ref(limits).cast::<RateRule>();
    // SAFETY: four rates are at the beginning (below), and the number is masked.
    unsafe { &*rates.add((which & USER_CONNECT) as usize) }
}

const _: () = assert!(
    offset_of!(LimitRules, exec) == OWN_EXEC as usize * size_of::<RateRule>()
        && offset_of!(LimitRules, connect) == OWN_CONNECT as usize * size_of::<RateRule>()
        && offset_of!(LimitRules, user_exec) == USER_EXEC as usize * size_of::<RateRule>()
        && offset_of!(LimitRules, user_connect) == USER_CONNECT as usize * size_of::<RateRule>()
);

extern "C" fn try_wish(_index: u32, context: *mut c_void) -> i64 {
    let wish = context.cast::<Wish>();
    // SAFETY: `wish` lies on the stack of the frame that called `bpf_loop`.
    unsafe {
        let Some(limits) = limits_of((*wish).seat) else {
            return 1;
        };
        let rate = rate_of(limits, (*wish).rate);
        let ring = Ring {
            rate: (*wish).rate,
            set: seat::cells((*wish).seat),
            // Each rate of a user has a map to itself.
            first: rate.first & ((*wish).rate >> 1).wrapping_sub(1),
        };
        match try_take(&ring, rate, now(), (*wish).take != 0) {
            Taking::Again => return 0,
            Taking::Taken(_) => (*wish).got = GOT_TAKEN,
            Taking::Exceeded => (*wish).got = GOT_EXCEEDED,
            Taking::Broken => {}
        }
    }
    1
}

/// Asks one rate; 0, or the cause of a denial.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask_rate(seat: u32, which: u32, take: u32) -> u32 {
    let Some(limits) = limits_of(seat) else {
        return CAUSE_INTERNAL;
    };
    if rate_of(limits, which).count == 0 {
        return 0;
    }
    let mut wish = Wish {
        seat,
        rate: which,
        take,
        got: GOT_NOTHING,
    };
    // SAFETY: the context lives for the call.
    unsafe {
        bpf_loop(
            TRIES,
            try_wish as *mut c_void,
            ptr::from_mut(&mut wish).cast(),
            0,
        );
    }
    match wish.got {
        GOT_TAKEN => 0,
        GOT_EXCEEDED if which >= USER_EXEC => CAUSE_USER_RATE,
        GOT_EXCEEDED => CAUSE_RATE,
        // Everybody else was faster each time.
        _ => CAUSE_INTERNAL,
    }
}

/// What the rates make of a judgement that lets an action pass.
#[inline(always)]
pub fn within_rates(judgement: Judgement, seat: u32, action: Action, stage: Stage) -> Judgement {
    let (own, user) = match action {
        Action::Exec { .. } => (OWN_EXEC, USER_EXEC),
        Action::Connect => (OWN_CONNECT, USER_CONNECT),
    };
    let take = u32::from(stage == Stage::Last);
    // What the user's rate would refuse must not cost the agent anything: it is looked at first, and taken from last.
    let mut cause = ask_rate(seat, user, 0);
    if cause == 0 {
        cause = ask_rate(seat, own, take);
    }
    if cause == 0 && take != 0 {
        cause = ask_rate(seat, user, take);
    }
    if cause == 0 {
        return judgement;
    }
    Judgement {
        decision: DENY,
        cause,
        rank: 0,
    }
}

/// What the breaker denies.
pub const BROKEN: Judgement = Judgement {
    decision: DENY,
    cause: CAUSE_BREAKER,
    rank: 0,
};

/// How many arguments an exec has, the program's name among them. A global function takes no kernel pointer for a number,
/// so it is read before one is called.
#[inline(always)]
pub fn arguments_of(bprm: u64) -> u32 {
    read_kernel::<u32>(bprm + offset!(bprm_argc)).unwrap_or(UNREADABLE)
}

/// What the limits on complexity make of a judgement that lets an exec pass.
#[inline(always)]
pub fn within_complexity(
    judgement: Judgement,
    seat: u32,
    arguments: u32,
    argv_bytes: u32,
) -> Judgement {
    let found = too_complex(seat, arguments, argv_bytes);
    if found == 0 {
        return judgement;
    }
    Judgement {
        decision: DENY,
        cause: found as u32,
        rank: (found >> 32) as u32,
    }
}

/// No number of arguments.
const UNREADABLE: u32 = u32::MAX;

/// 0, or the cause of a denial and, in the upper half, its rank.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn too_complex(seat: u32, count: u32, argv_bytes: u32) -> u64 {
    let Some(limits) = limits_of(seat) else {
        return u64::from(CAUSE_INTERNAL);
    };
    let refused =
        |what, number| u64::from(complexity_rank(what, number)) << 32 | u64::from(CAUSE_COMPLEXITY);
    let depth = depth_of(task::current());
    if limits.depth != 0 && depth > limits.depth {
        return refused(COMPLEX_DEPTH, depth);
    }
    if limits.arguments != 0 {
        if count == UNREADABLE {
            return u64::from(CAUSE_INTERNAL);
        }
        let count = count.saturating_sub(1);
        if count > limits.arguments {
            return refused(COMPLEX_ARGUMENTS, count);
        }
    }
    if limits.argv_bytes != 0 && argv_bytes > limits.argv_bytes {
        return refused(COMPLEX_BYTES, argv_bytes);
    }
    0
}
