//! The breaker and the rates in the kernel's memory, which is mapped into ours: what user space judges counts with
//! the programs of the kernel, by the same algorithms ([`enforcer_common::limits`]).

use std::{
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use enforcer_common::{
    limits::{
        ActionClass, Ask, Breaker, Cells, LimitRules, RateRule, Said, TRIES, Taking, Thing,
        is_repeat, try_take, try_turn, used,
    },
    seat::SlotState,
};
use nix::time::{ClockId, clock_gettime};

use super::{KernelError, agent::OwnMaps, tables::HostMaps};

/// Cells of one slot's state.
pub(super) const STATE_CELLS: u32 = (size_of::<SlotState>() / size_of::<u64>()) as u32;
const BREAKER_CELL: u32 = (mem::offset_of!(SlotState, breaker) / size_of::<u64>()) as u32;
const LAST_DENIED_CELL: u32 = (mem::offset_of!(SlotState, last_denied) / size_of::<u64>()) as u32;
const TRIPPED_CELL: u32 = (mem::offset_of!(SlotState, tripped_at) / size_of::<u64>()) as u32;

/// Why the rates deny an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The agent's own rate.
    Agent,
    /// The rate of all agents of the user.
    User,
    /// Others were faster at every try, or the memory is not what it should be.
    Failed,
}

/// A map of 64-bit cells in our memory.
pub(super) struct Mapped {
    start: NonNull<AtomicU64>,
    cells: u32,
}

// SAFETY: the memory is shared with the kernel anyway, and only touched atomically; it is unmapped by the last owner.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub fn new(fd: BorrowedFd<'_>, cells: u32) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice; a map that is shorter is refused.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes(cells),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, cells })
    }

    pub fn cell(&self, at: u32) -> Option<&AtomicU64> {
        if at >= self.cells {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`; aligned, for it starts on a page.
        Some(unsafe { self.start.add(at as usize).as_ref() })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes(self.cells)) };
    }
}

/// Bytes of a mapping: the kernel rounds both this and the map up to pages.
fn bytes(cells: u32) -> usize {
    cells as usize * size_of::<u64>()
}

/// Cells from `first` on.
struct Window<'a> {
    map: &'a Mapped,
    first: u32,
}

impl Cells for Window<'_> {
    fn load(&self, at: u32) -> Option<u64> {
        let cell = self.map.cell(self.first.checked_add(at)?)?;
        Some(cell.load(Ordering::SeqCst))
    }

    fn replace(&self, at: u32, old: u64, new: u64) -> bool {
        self.first
            .checked_add(at)
            .and_then(|at| self.map.cell(at))
            .is_some_and(|cell| {
                cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            })
    }
}

/// The breaker and the rates of one agent. Clones share them, also when others take their place.
#[derive(Clone)]
pub struct Limiter(Arc<RwLock<Arc<Inner>>>);

struct Inner {
    slot: u32,
    limits: LimitRules,
    slots: Mapped,
    rates: Option<Mapped>,
    user_execs: Option<Mapped>,
    user_connects: Option<Mapped>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("Limiter")
            .field("slot", &inner.slot)
            .field("limits", &inner.limits)
            .finish_non_exhaustive()
    }
}

/// How one rate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStanding {
    /// What it is about.
    pub class: ActionClass,
    /// Whether it is that of all agents of the user.
    pub of_user: bool,
    /// Allowances in the window.
    pub used: u32,
    /// The rate.
    pub rate: RateRule,
}

impl Limiter {
    /// The limiter of a slot with these limits and these cells.
    pub(super) fn new(
        maps: &HostMaps,
        slot: u32,
        own: &OwnMaps,
        limits: LimitRules,
    ) -> Result<Self, KernelError> {
        let [rates, user_execs, user_connects] = own.cells();
        let wanted = |name, cells: Option<BorrowedFd<'_>>, count: u32| {
            if count == 0 {
                return Ok(None);
            }
            let cells = cells.ok_or_else(|| KernelError::map(name, "the agent has no cells"))?;
            mapped(name, cells, count).map(Some)
        };
        let count = limits.exec.cells() + limits.connect.cells();
        Ok(Self(Arc::new(RwLock::new(Arc::new(Inner {
            slot,
            limits,
            slots: mapped("SLOTS", maps.slots.fd.as_fd(), (slot + 1) * STATE_CELLS)?,
            rates: wanted("RATES", rates, count)?,
            user_execs: wanted("USER_EXECS", user_execs, limits.user_exec.cells())?,
            user_connects: wanted("USER_CONNECTS", user_connects, limits.user_connect.cells())?,
        })))))
    }

    fn inner(&self) -> Arc<Inner> {
        // What was there when somebody panicked is whole: it is replaced by one assignment.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has this and all clones count as `other` does from now on.
    pub fn become_as(&self, other: &Self) {
        let other = other.inner();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// Whether the breaker lets the rules decide about a process.
    pub fn admits(&self, pid: u32) -> bool {
        self.inner().ask(Ask::Admit, pid) == Some(Said::Noted)
    }

    /// Counts a denial that the policy or a person made, unless it is the row's last one once more. Gives the denials in a
    /// row if it opened the breaker.
    pub fn denied(&self, pid: u32, thing: Thing) -> Option<u64> {
        self.inner().denied(pid, thing)
    }

    /// Notes an allowance: it ends a row of denials.
    pub fn allowed(&self, pid: u32) {
        // Others were faster at every try: whatever they did, the row goes on, which is the stricter.
        let _ = self.inner().ask(Ask::Allowed, pid);
    }

    /// Whether an action of this class would be within its rates.
    ///
    /// # Errors
    ///
    /// The rate that it would exceed.
    pub fn look(&self, class: ActionClass) -> Result<(), Exceeded> {
        self.inner().look(class)
    }

    /// Takes an allowance from the rates.
    ///
    /// # Errors
    ///
    /// As [`Limiter::look`]; nothing was taken then.
    pub fn take(&self, class: ActionClass) -> Result<(), Exceeded> {
        self.inner().take(class)
    }

    /// The limits.
    pub fn limits(&self) -> LimitRules {
        self.inner().limits
    }

    /// The breaker as it is.
    pub fn breaker(&self) -> Breaker {
        self.inner().breaker()
    }

    /// Denials in a row when the breaker opened last; 0 if it never did.
    pub fn tripped_at(&self) -> u64 {
        self.inner().tripped_at()
    }

    /// Closes the breaker. Gives what it was.
    pub fn reset(&self) -> Breaker {
        self.inner().reset()
    }

    /// How the rates stand.
    pub fn rates(&self) -> Vec<RateStanding> {
        self.inner().rates()
    }
}

impl Inner {
    fn state(&self, cell: u32) -> Window<'_> {
        Window {
            map: &self.slots,
            first: self.slot * STATE_CELLS + cell,
        }
    }

    /// Puts a question to the breaker; `None` if others were faster at every try.
    fn ask(&self, ask: Ask, pid: u32) -> Option<Said> {
        let word = self.state(BREAKER_CELL);
        (0..TRIES).find_map(|_| try_turn(&word, ask, &self.limits.breaker, pid, now_ms()))
    }

    fn denied(&self, pid: u32, thing: Thing) -> Option<u64> {
        let denial = thing.denied_to(pid);
        let last = self.state(LAST_DENIED_CELL);
        let last = last.map.cell(last.first)?;
        let word = self.state(BREAKER_CELL).load(0)?;
        if is_repeat(word, last.load(Ordering::SeqCst), denial) {
            return None;
        }
        last.store(denial, Ordering::SeqCst);
        let said = self.ask(Ask::Denied, pid)?;
        let place = self.state(TRIPPED_CELL);
        let cell = place.map.cell(place.first)?;
        match said {
            Said::Tripped => {
                let denials = self.limits.breaker.denials.into();
                cell.store(denials, Ordering::SeqCst);
                Some(denials)
            }
            Said::TrippedAgain => Some(cell.fetch_add(1, Ordering::SeqCst) + 1),
            Said::Noted | Said::Refused => None,
        }
    }

    fn look(&self, class: ActionClass) -> Result<(), Exceeded> {
        self.user(class, false)
            .and_then(|()| self.own(class, false))
    }

    fn take(&self, class: ActionClass) -> Result<(), Exceeded> {
        // What the user's rate would refuse must not cost the agent anything.
        self.user(class, false)?;
        self.own(class, true)?;
        self.user(class, true)
    }

    fn own(&self, class: ActionClass, take: bool) -> Result<(), Exceeded> {
        let rate = match class {
            ActionClass::Exec => &self.limits.exec,
            ActionClass::Connect => &self.limits.connect,
        };
        consult(rate, self.rates.as_ref(), take, Exceeded::Agent)
    }

    fn user(&self, class: ActionClass, take: bool) -> Result<(), Exceeded> {
        let (rate, map) = match class {
            ActionClass::Exec => (&self.limits.user_exec, &self.user_execs),
            ActionClass::Connect => (&self.limits.user_connect, &self.user_connects),
        };
        consult(rate, map.as_ref(), take, Exceeded::User)
    }

    fn breaker(&self) -> Breaker {
        Breaker::unpack(self.state(BREAKER_CELL).load(0).unwrap_or(0))
    }

    fn tripped_at(&self) -> u64 {
        self.state(TRIPPED_CELL).load(0).unwrap_or(0)
    }

    fn reset(&self) -> Breaker {
        let place = self.state(BREAKER_CELL);
        let word = place
            .map
            .cell(place.first)
            .map_or(0, |cell| cell.swap(0, Ordering::SeqCst));
        Breaker::unpack(word)
    }

    fn rates(&self) -> Vec<RateStanding> {
        let limits = &self.limits;
        [
            (ActionClass::Exec, false, limits.exec, &self.rates),
            (ActionClass::Connect, false, limits.connect, &self.rates),
            (ActionClass::Exec, true, limits.user_exec, &self.user_execs),
            (
                ActionClass::Connect,
                true,
                limits.user_connect,
                &self.user_connects,
            ),
        ]
        .into_iter()
        .filter(|(_, _, rate, _)| rate.count > 0)
        .filter_map(|(class, of_user, rate, map)| {
            let window = Window {
                map: map.as_ref()?,
                first: if of_user { 0 } else { rate.first },
            };
            Some(RateStanding {
                class,
                of_user,
                used: used(&window, &rate, now_ns()),
                rate,
            })
        })
        .collect()
    }
}

fn consult(
    rate: &RateRule,
    map: Option<&Mapped>,
    take: bool,
    exceeded: Exceeded,
) -> Result<(), Exceeded> {
    if rate.count == 0 {
        return Ok(());
    }
    let window = Window {
        map: map.ok_or(Exceeded::Failed)?,
        first: rate.first,
    };
    for _ in 0..TRIES {
        match try_take(&window, rate, now_ns(), take) {
            Taking::Taken(_) => return Ok(()),
            Taking::Exceeded => return Err(exceeded),
            Taking::Again => {}
            Taking::Broken => break,
        }
    }
    Err(Exceeded::Failed)
}

fn mapped(name: &'static str, map: BorrowedFd<'_>, cells: u32) -> Result<Mapped, KernelError> {
    Mapped::new(map, cells).map_err(|error| KernelError::map(name, error))
}

/// `CLOCK_BOOTTIME`, ns: what the programs of the kernel read. 0, the start of all windows, if it cannot be read: then
/// nothing has ever left a window.
pub(super) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
        u64::try_from(ns).unwrap_or(0)
    })
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}
