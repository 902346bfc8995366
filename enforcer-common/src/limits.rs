//! The breaker and the rates: their layout and the one algorithm that the kernel programs and user space run over the
//! same memory, at the same time, without a lock.
//!
//! **Breaker.** All of it is one word ([`Breaker`]): closed with the denials in a row, open since when, or half open
//! since when and for which process. Each change is one compare-and-swap of that word, so changes have an order, and
//! a count is exact whoever counts.
//!
//! **Rates.** A rate of `count` in a `window` keeps the time stamps of its last allowances, in `count + 1` cells
//! behind one for the *ticket*, the number of allowances so far. The next allowance goes into cell
//! `ticket % (count + 1)`; it is made if the one `count` tickets before it is at least a window old. Time stamps are
//! nanoseconds and each is greater than the one before (of two in the same nanosecond the second is one later), so
//! no value ever comes twice, and any stretch of time as long as the window holds at most `count` of them.
//!
//! To take: read the ticket, then the stamp before it, then its own cell and the one that has to be old enough. If
//! the own cell is younger than the stamp before it, the ticket is taken and its taker has not come to say so (it may
//! have been interrupted, or be dead): the ticket is advanced for it, and one looks again. Otherwise
//! compare-and-swap the cell from what was read to the new stamp. It succeeds only if nobody took the ticket
//! meanwhile: the cell would hold another value, and values never come back. At that moment the stamp before it is
//! that of the ticket before (it is younger than the cell's, and the cell's successor is not there yet), and the
//! cell that was found old enough cannot have been taken (its turn comes after this ticket's). Each failure means
//! that another has got on; who fails [`TRIES`] times is denied.
//!
//! The clock is `CLOCK_BOOTTIME`, which cannot be set and does not go backwards.

use crate::address;

/// How often an attempt is made before it is given up. Each failed one means that another processor has succeeded.
pub const TRIES: u32 = 4096;

/// The most that a rate may count: the memory for it is eight bytes each.
pub const RATE_MAX: u32 = 100_000;

/// Memory that others change, too. Cells are numbered from 0.
pub trait Cells {
    /// Reads a cell; `None` if there is none of this number.
    fn load(&self, at: u32) -> Option<u64>;
    /// Stores `new` if `old` is there; true if it was.
    fn replace(&self, at: u32, old: u64, new: u64) -> bool;
}

/// What rates count, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionClass {
    /// Execs.
    Exec,
    /// Connects and datagrams.
    Connect,
}

/// A rate: at most `count` in any stretch of `window_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateRule {
    /// The window, ns.
    pub window_ns: u64,
    /// How many; 0: no rate.
    pub count: u32,
    /// Its first cell in the map.
    pub first: u32,
}

impl RateRule {
    /// Cells that the rate needs: the ticket, and the stamps.
    pub const fn cells(&self) -> u32 {
        if self.count == 0 { 0 } else { self.count + 2 }
    }
}

/// What a policy says of the breaker and of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LimitRules {
    /// Execs of the agent.
    pub exec: RateRule,
    /// Connects of the agent.
    pub connect: RateRule,
    /// Execs of all agents of the user, in a map of their own.
    pub user_exec: RateRule,
    /// Connects of all agents of the user, in a map of their own.
    pub user_connect: RateRule,
    /// The breaker.
    pub breaker: BreakerRules,
    /// Most arguments of an exec, `argv[0]` not counted; 0 any number.
    pub arguments: u32,
    /// Most bytes of arguments, `argv[0]` and NULs counted; 0 any number.
    pub argv_bytes: u32,
    /// Most levels of the process tree below the operator's command; 0 any number.
    pub depth: u32,
    /// Zero.
    pub reserved: u32,
}

/// What became of an attempt to take from a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It was taken, with this stamp; or, if it was only looked at, it could be.
    Taken(u64),
    /// As many as may be are in the window.
    Exceeded,
    /// Another was faster: to be tried again.
    Again,
    /// The memory is not what the rate says.
    Broken,
}

/// Takes one allowance from a rate at `now` (`CLOCK_BOOTTIME`, ns), or with `take` false looks whether it could. One
/// attempt; [`Taking::Again`] wants another.
#[inline(always)]
pub fn try_take(cells: &impl Cells, rate: &RateRule, now: u64, take: bool) -> Taking {
    let places = u64::from(rate.count) + 1;
    let Some(ticket) = cells.load(0) else {
        return Taking::Broken;
    };
    let at = ticket % places;
    // The neighbours, by remainders: kernel programs are verified once for each way through a branch.
    let before = (at + u64::from(rate.count)) % places;
    let oldest = (at + 1) % places;
    // The order of the reads matters; see above.
    let Some(before) = cells.load(1 + before as u32) else {
        return Taking::Broken;
    };
    let Some(own) = cells.load(1 + at as u32) else {
        return Taking::Broken;
    };
    let Some(oldest) = cells.load(1 + oldest as u32) else {
        return Taking::Broken;
    };
    if own > before {
        cells.replace(0, ticket, ticket + 1);
        return Taking::Again;
    }
    if oldest != 0 && now.saturating_sub(oldest) < rate.window_ns {
        // Of another time than the ticket, the oldest could be a young one.
        return if cells.load(0) == Some(ticket) {
            Taking::Exceeded
        } else {
            Taking::Again
        };
    }
    let stamp = if now > before { now } else { before + 1 };
    if !take {
        return Taking::Taken(stamp);
    }
    if !cells.replace(1 + at as u32, own, stamp) {
        return Taking::Again;
    }
    cells.replace(0, ticket, ticket + 1);
    Taking::Taken(stamp)
}

/// How many allowances of a rate are in the window that ends `now`. For people: of what changes meanwhile it may
/// tell either way.
pub fn used(cells: &impl Cells, rate: &RateRule, now: u64) -> u32 {
    let places = u64::from(rate.count) + 1;
    let ticket = cells.load(0).unwrap_or(0);
    let mut used = 0;
    while used < rate.count && u64::from(used) < ticket {
        let at = (ticket - 1 - u64::from(used)) % places;
        let stamp = cells.load(1 + at as u32).unwrap_or(0);
        if now.saturating_sub(stamp) >= rate.window_ns {
            break;
        }
        used += 1;
    }
    used
}

/// What a policy says of the breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BreakerRules {
    /// Denials in a row that open it; 0: it never opens.
    pub denials: u32,
    /// Zero.
    pub reserved: u32,
    /// After this time an open breaker lets one process try, ms; 0: never.
    pub half_open_ms: u64,
}

/// The state of a breaker, packed into one word. Times are `CLOCK_BOOTTIME` in ms: 40 bits are 34 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Actions are judged by the rules.
    Closed {
        /// Denials in a row so far.
        denials: u32,
    },
    /// Everything is denied.
    Open {
        /// Since when.
        since_ms: u64,
    },
    /// One process is judged by the rules, to all else everything is denied.
    HalfOpen {
        /// Since when.
        since_ms: u64,
        /// The process.
        pid: u32,
    },
}

const STATE_SHIFT: u32 = 62;
const STATE_OPEN: u64 = 1;
const STATE_HALF_OPEN: u64 = 2;
const PID_SHIFT: u32 = 40;
/// The kernel numbers processes up to 2^22 (`PID_MAX_LIMIT`).
const PID_MASK: u64 = (1 << 22) - 1;
const TIME_MASK: u64 = (1 << PID_SHIFT) - 1;

impl Breaker {
    /// Reads a word.
    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        let since_ms = word & TIME_MASK;
        match word >> STATE_SHIFT {
            0 => Self::Closed {
                denials: word as u32,
            },
            STATE_HALF_OPEN => Self::HalfOpen {
                since_ms,
                pid: (word >> PID_SHIFT & PID_MASK) as u32,
            },
            _ => Self::Open { since_ms },
        }
    }

    /// The word.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        match self {
            Self::Closed { denials } => denials as u64,
            Self::Open { since_ms } => STATE_OPEN << STATE_SHIFT | since_ms & TIME_MASK,
            Self::HalfOpen { since_ms, pid } => {
                STATE_HALF_OPEN << STATE_SHIFT
                    | (pid as u64 & PID_MASK) << PID_SHIFT
                    | since_ms & TIME_MASK
            }
        }
    }
}

/// What a breaker is told or asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether an action may be judged by the rules.
    Admit,
    /// An action was denied.
    Denied,
    /// An action was allowed.
    Allowed,
    /// An action was allowed because what it starts is judged (a transparent shell).
    Transparent,
}

/// What a breaker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The rules decide; or, what it was told is noted.
    Noted,
    /// Everything is denied.
    Refused,
    /// The denial has opened it, from closed.
    Tripped,
    /// The denial has opened it again, from half open.
    TrippedAgain,
}

/// What a breaker becomes, and what it says, when `pid` asks at `now_ms`.
#[inline(always)]
#[expect(
    clippy::match_same_arms,
    reason = "a table: each state with each question"
)]
pub fn turn(word: u64, ask: Ask, rules: &BreakerRules, pid: u32, now_ms: u64) -> (u64, Said) {
    let keep = (word, Said::Noted);
    if rules.denials == 0 {
        return keep;
    }
    let ended = |since_ms: u64| {
        rules.half_open_ms != 0 && now_ms.saturating_sub(since_ms) >= rules.half_open_ms
    };
    let trial = Breaker::HalfOpen {
        since_ms: now_ms,
        pid,
    };
    let open = Breaker::Open { since_ms: now_ms };
    match (Breaker::unpack(word), ask) {
        (Breaker::Closed { .. }, Ask::Admit | Ask::Transparent) => keep,
        (Breaker::Closed { denials }, Ask::Denied) => {
            if denials.saturating_add(1) >= rules.denials {
                (open.pack(), Said::Tripped)
            } else {
                let denials = denials + 1;
                (Breaker::Closed { denials }.pack(), Said::Noted)
            }
        }
        (Breaker::Closed { .. }, Ask::Allowed) => (0, Said::Noted),
        (Breaker::Open { since_ms }, Ask::Admit) => {
            if ended(since_ms) {
                (trial.pack(), Said::Noted)
            } else {
                (word, Said::Refused)
            }
        }
        // Judged before it opened.
        (Breaker::Open { .. }, _) => keep,
        (
            Breaker::HalfOpen {
                since_ms,
                pid: prober,
            },
            Ask::Admit,
        ) => {
            if prober == pid {
                keep
            } else if ended(since_ms) {
                // Whoever was let try has not been heard of.
                (trial.pack(), Said::Noted)
            } else {
                (word, Said::Refused)
            }
        }
        (Breaker::HalfOpen { pid: prober, .. }, _) if prober != pid => keep,
        (Breaker::HalfOpen { .. }, Ask::Denied) => (open.pack(), Said::TrippedAgain),
        (Breaker::HalfOpen { .. }, Ask::Allowed) => (0, Said::Noted),
        // A shell says nothing about what it will start: the trial passes on to whoever acts next.
        (Breaker::HalfOpen { .. }, Ask::Transparent) => {
            let since_ms = now_ms.saturating_sub(rules.half_open_ms);
            (Breaker::Open { since_ms }.pack(), Said::Noted)
        }
    }
}

/// Puts a question to the breaker in cell 0. One attempt; `None`: another was faster, to be tried again.
#[inline(always)]
pub fn try_turn(
    cells: &impl Cells,
    ask: Ask,
    rules: &BreakerRules,
    pid: u32,
    now_ms: u64,
) -> Option<Said> {
    let word = cells.load(0)?;
    let (new, said) = turn(word, ask, rules, pid, now_ms);
    (new == word || cells.replace(0, word, new)).then_some(said)
}

/// What was denied: the same number for the same thing, 0 for what is never the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thing(u64);

impl Thing {
    /// What is never the same.
    pub const NONE: Self = Self(0);

    /// A program, by the number of its file.
    #[inline(always)]
    pub const fn program(inode: u64) -> Self {
        Self(mix(1, inode))
    }

    /// An address, as the trie knows it.
    #[inline(always)]
    pub fn address(address: &[u8; 16], protocol: u32, port: u32) -> Self {
        let [high, low] = address::halves(address);
        let socket = (protocol as u64) << 32 | port as u64;
        Self(mix(mix(mix(2, high), low), socket))
    }

    /// A unix socket, by whatever tells it from others.
    #[inline(always)]
    pub const fn socket(number: u64) -> Self {
        Self(mix(3, number))
    }

    /// The denial of it to a process, 0 for none.
    #[inline(always)]
    pub const fn denied_to(self, pid: u32) -> u64 {
        if self.0 == 0 {
            0
        } else {
            mix(self.0, pid as u64) | 1
        }
    }
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_add(hash)
}

/// Whether a denial is the row's last one once more: what a program tries again by itself is one denial. `word` is the
/// breaker's, `last` the denial before, `denial` this one ([`Thing::denied_to`]).
#[inline(always)]
pub const fn is_repeat(word: u64, last: u64, denial: u64) -> bool {
    // An allowance has ended the row, or the breaker is open.
    let in_a_row = word != 0 && word >> 32 == 0;
    in_a_row && denial != 0 && denial == last
}

/// `rank` of an exec that is too complex: too many arguments.
pub const COMPLEX_ARGUMENTS: u32 = 1;
/// `rank` of an exec that is too complex: too many bytes of arguments.
pub const COMPLEX_BYTES: u32 = 2;
/// `rank` of an exec that is too complex: too deep in the process tree.
pub const COMPLEX_DEPTH: u32 = 3;
const COMPLEX_SHIFT: u32 = 28;

/// What is too much, and how much it is, as the rank of a judgement.
#[inline(always)]
pub const fn complexity_rank(what: u32, measured: u32) -> u32 {
    let most = (1 << COMPLEX_SHIFT) - 1;
    what << COMPLEX_SHIFT | if measured > most { most } else { measured }
}

/// The other way round: what is too much, and how much it is.
pub const fn complexity_of(rank: u32) -> (u32, u32) {
    (rank >> COMPLEX_SHIFT, rank & ((1 << COMPLEX_SHIFT) - 1))
}

const _: () = assert!(size_of::<RateRule>() == 16);
const _: () = assert!(size_of::<BreakerRules>() == 16);
const _: () = assert!(size_of::<LimitRules>() == 4 * 16 + 16 + 16);

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
