extern crate std;

use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Instant,
    vec,
    vec::Vec,
};

use super::*;

/// Memory between threads.
struct Shared(Vec<AtomicU64>);

impl Shared {
    fn of(rate: &RateRule) -> Self {
        Self((0..rate.cells()).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Cells for Shared {
    fn load(&self, at: u32) -> Option<u64> {
        self.0.get(at as usize).map(|cell| cell.load(SeqCst))
    }

    fn replace(&self, at: u32, old: u64, new: u64) -> bool {
        self.0[at as usize]
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }
}

fn rate(count: u32, window_ns: u64) -> RateRule {
    RateRule {
        window_ns,
        count,
        first: 0,
    }
}

fn take(cells: &impl Cells, rate: &RateRule, now: u64) -> Taking {
    for _ in 0..TRIES {
        match try_take(cells, rate, now, true) {
            Taking::Again => {}
            done => return done,
        }
    }
    Taking::Again
}

fn taken(cells: &impl Cells, rate: &RateRule, now: u64) -> bool {
    matches!(take(cells, rate, now), Taking::Taken(_))
}

/// What a rate must do, by the plainest means.
struct Model(Vec<u64>);

impl Model {
    fn take(&mut self, rate: &RateRule, now: u64) -> bool {
        let stamp = self.0.last().map_or(now, |last| now.max(last + 1));
        let recent = self
            .0
            .iter()
            .filter(|at| now.saturating_sub(**at) < rate.window_ns)
            .count();
        if recent >= rate.count as usize {
            return false;
        }
        self.0.push(stamp);
        true
    }
}

/// A small generator: tests must come out the same each time.
struct Dice(Cell<u64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % sides
    }
}

#[test]
fn one_after_another_it_does_what_the_definition_says() {
    for seed in 1..200_u64 {
        let dice = Dice(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let rate = rate(1 + dice.roll(7) as u32, 1 + dice.roll(60));
        let cells = Shared::of(&rate);
        let mut model = Model(Vec::new());
        let mut now = 1 + dice.roll(3);
        for step in 0..400 {
            now += dice.roll(12);
            let could = try_take(&cells, &rate, now, false);
            let allowed = model.take(&rate, now);
            assert_eq!(
                matches!(could, Taking::Taken(_)),
                allowed,
                "{seed} {step} look"
            );
            assert_eq!(taken(&cells, &rate, now), allowed, "{seed} {step}");
            let recent = model
                .0
                .iter()
                .filter(|at| now.saturating_sub(**at) < rate.window_ns);
            assert_eq!(
                used(&cells, &rate, now) as usize,
                recent.count(),
                "{seed} {step}"
            );
        }
    }
}

#[test]
fn the_hundred_and_first_is_denied_until_the_first_is_a_window_old() {
    let hour = 3_600_000_000_000;
    let rate = rate(100, hour);
    let cells = Shared::of(&rate);
    for at in 0..100 {
        assert!(taken(&cells, &rate, 1_000 + at));
    }
    assert!(!taken(&cells, &rate, 2_000));
    assert!(!taken(&cells, &rate, 999 + hour));
    assert!(taken(&cells, &rate, 1_000 + hour));
    assert!(!taken(&cells, &rate, 1_000 + hour));
}

#[test]
fn a_clock_that_goes_backwards_allows_no_more() {
    let rate = rate(3, 1_000);
    let cells = Shared::of(&rate);
    for _ in 0..3 {
        assert!(taken(&cells, &rate, 50_000));
    }
    for now in [49_000, 10, 1, 50_500] {
        assert!(!taken(&cells, &rate, now), "{now}");
    }
    assert!(taken(&cells, &rate, 51_001));
}

#[test]
fn memory_that_is_too_small_is_said_to_be_broken() {
    let rate = rate(5, 10);
    let cells = Shared((0..3).map(|_| AtomicU64::new(0)).collect());
    assert_eq!(take(&cells, &rate, 1), Taking::Broken);
}

/// Memory on which others come in between any two steps: whole allowances, and claimers that stop half way.
struct Interrupted<'a> {
    cells: &'a Shared,
    rate: RateRule,
    dice: &'a Dice,
    now: &'a Cell<u64>,
    taken: &'a RefCell<Vec<u64>>,
    depth: u32,
}

impl Interrupted<'_> {
    fn interrupt(&self) {
        if self.depth == 0 || self.dice.roll(3) != 0 {
            return;
        }
        self.now.set(self.now.get() + self.dice.roll(4));
        let inner = Interrupted {
            depth: self.depth - 1,
            ..*self
        };
        if let Taking::Taken(stamp) = take(&inner, &self.rate, self.now.get()) {
            self.taken.borrow_mut().push(stamp);
        }
    }
}

impl Cells for Interrupted<'_> {
    fn load(&self, at: u32) -> Option<u64> {
        self.interrupt();
        self.cells.load(at)
    }

    fn replace(&self, at: u32, old: u64, new: u64) -> bool {
        self.interrupt();
        // One in eight claimers does not come to advance the ticket: the next one must.
        if at == 0 && self.dice.roll(8) == 0 {
            return false;
        }
        self.cells.replace(at, old, new)
    }
}

#[test]
fn whoever_is_interrupted_anywhere_takes_no_more_than_there_is() {
    for seed in 1..400_u64 {
        let dice = Dice(Cell::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let rate = rate(1 + dice.roll(4) as u32, 5 + dice.roll(40));
        let cells = Shared::of(&rate);
        let (clock, stamps) = (Cell::new(1), RefCell::new(Vec::new()));
        let outer = Interrupted {
            cells: &cells,
            rate,
            dice: &dice,
            now: &clock,
            taken: &stamps,
            depth: 3,
        };
        for _ in 0..200 {
            clock.set(clock.get() + dice.roll(6));
            if let Taking::Taken(stamp) = take(&outer, &rate, clock.get()) {
                stamps.borrow_mut().push(stamp);
            }
        }
        let mut taken = stamps.into_inner();
        taken.sort_unstable();
        check(&taken, &rate, seed);
    }
}

/// No stamp twice, and no more in a window than may be.
fn check(taken: &[u64], rate: &RateRule, seed: u64) {
    assert!(
        taken.len() > rate.count as usize,
        "{seed}: nothing was tried"
    );
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "{seed}");
    for stretch in taken.windows(rate.count as usize + 1) {
        let (first, last) = (stretch[0], stretch[rate.count as usize]);
        assert!(last - first >= rate.window_ns, "{seed}: {first} {last}");
    }
}

#[test]
fn threads_together_take_exactly_what_there_is() {
    for (count, window_ns) in [(1, 50_000), (2, 200_000), (7, 1_000_000), (100, 5_000_000)] {
        let rate = rate(count, window_ns);
        let cells = Shared::of(&rate);
        let start = Instant::now();
        let clock = || start.elapsed().as_nanos() as u64 + 1;
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut taken, mut refused) = (Vec::new(), Vec::new());
                        let mut tried = 0;
                        // Many at once, and through several windows, however fast this is.
                        while tried < 20_000 || clock() < 5 * window_ns {
                            tried += 1;
                            let now = clock();
                            match try_take(&cells, &rate, now, true) {
                                Taking::Taken(stamp) => taken.push(stamp),
                                Taking::Exceeded => refused.push(now),
                                Taking::Again => {}
                                Taking::Broken => panic!("broken"),
                            }
                        }
                        (taken, refused)
                    })
                })
                .collect();
            for thread in threads {
                let (took, missed) = thread.join().unwrap();
                taken.extend(took);
                refused.extend(missed);
            }
        });
        taken.sort_unstable();
        check(&taken, &rate, u64::from(count));
        assert!(!refused.is_empty());
        // None was refused without cause: as many as may be were in the window. (The clock was read before the
        // memory, so the window may have moved on by as long as a thread can be off its processor.)
        for now in refused {
            let from = taken.partition_point(|at| *at + window_ns <= now);
            let after = taken[from..].iter().take(count as usize).count();
            assert_eq!(after, count as usize, "{now}");
        }
    }
}

const RULES: BreakerRules = BreakerRules {
    denials: 10,
    reserved: 0,
    half_open_ms: 0,
};

#[test]
fn a_breaker_survives_its_word() {
    for breaker in [
        Breaker::Closed { denials: 0 },
        Breaker::Closed { denials: u32::MAX },
        Breaker::Open { since_ms: 0 },
        Breaker::Open {
            since_ms: TIME_MASK,
        },
        Breaker::HalfOpen {
            since_ms: 123_456_789,
            pid: 4_194_303,
        },
    ] {
        assert_eq!(Breaker::unpack(breaker.pack()), breaker);
    }
}

/// A breaker with a clock, told things one after another.
struct Told(u64, BreakerRules);

impl Told {
    fn tell(&mut self, ask: Ask, pid: u32, now_ms: u64) -> Said {
        let (new, said) = turn(self.0, ask, &self.1, pid, now_ms);
        self.0 = new;
        said
    }
}

#[test]
fn the_tenth_denial_opens_it_and_only_then() {
    let mut told = Told(0, RULES);
    for _ in 0..9 {
        assert_eq!(told.tell(Ask::Denied, 1, 5), Said::Noted);
    }
    assert_eq!(told.tell(Ask::Transparent, 1, 5), Said::Noted);
    assert_eq!(Breaker::unpack(told.0), Breaker::Closed { denials: 9 });
    assert_eq!(told.tell(Ask::Allowed, 1, 5), Said::Noted);
    for _ in 0..9 {
        assert_eq!(told.tell(Ask::Denied, 1, 5), Said::Noted);
        assert_eq!(told.tell(Ask::Admit, 2, 5), Said::Noted);
    }
    assert_eq!(told.tell(Ask::Denied, 1, 7), Said::Tripped);
    assert_eq!(told.tell(Ask::Admit, 1, u64::MAX >> 24), Said::Refused);
    // What was judged before it opened changes nothing.
    assert_eq!(told.tell(Ask::Denied, 1, 8), Said::Noted);
    assert_eq!(told.tell(Ask::Allowed, 1, 8), Said::Noted);
    assert_eq!(Breaker::unpack(told.0), Breaker::Open { since_ms: 7 });
}

#[test]
fn without_denials_it_never_opens() {
    let mut told = Told(0, BreakerRules::default());
    for _ in 0..100 {
        assert_eq!(told.tell(Ask::Denied, 1, 5), Said::Noted);
    }
    assert_eq!(told.0, 0);
}

#[test]
fn half_open_lets_one_process_try() {
    let rules = BreakerRules {
        denials: 1,
        half_open_ms: 100,
        ..RULES
    };
    let mut told = Told(0, rules);
    assert_eq!(told.tell(Ask::Denied, 1, 1_000), Said::Tripped);
    assert_eq!(told.tell(Ask::Admit, 7, 1_099), Said::Refused);
    assert_eq!(told.tell(Ask::Admit, 7, 1_100), Said::Noted);
    assert_eq!(told.tell(Ask::Admit, 8, 1_100), Said::Refused);
    // Its later stages, and nobody else's end.
    assert_eq!(told.tell(Ask::Admit, 7, 1_101), Said::Noted);
    assert_eq!(told.tell(Ask::Allowed, 8, 1_101), Said::Noted);
    assert_eq!(told.tell(Ask::Denied, 7, 1_150), Said::TrippedAgain);
    assert_eq!(told.tell(Ask::Admit, 8, 1_249), Said::Refused);
    // A prober that vanishes is replaced.
    assert_eq!(told.tell(Ask::Admit, 8, 1_250), Said::Noted);
    assert_eq!(told.tell(Ask::Admit, 9, 1_349), Said::Refused);
    assert_eq!(told.tell(Ask::Admit, 9, 1_350), Said::Noted);
    assert_eq!(told.tell(Ask::Admit, 8, 1_350), Said::Refused);
    // A shell hands the trial on.
    assert_eq!(told.tell(Ask::Transparent, 9, 1_351), Said::Noted);
    assert_eq!(told.tell(Ask::Admit, 10, 1_352), Said::Noted);
    assert_eq!(told.tell(Ask::Allowed, 10, 1_353), Said::Noted);
    assert_eq!(told.0, 0);
}

#[test]
fn denials_of_many_threads_are_counted_exactly() {
    let cells = Shared(vec![AtomicU64::new(0)]);
    let rules = BreakerRules {
        denials: 60_001,
        ..RULES
    };
    let deny = || {
        for _ in 0..TRIES {
            if let Some(said) = try_turn(&cells, Ask::Denied, &rules, 1, 1) {
                return said;
            }
        }
        panic!("never got through");
    };
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    assert_eq!(deny(), Said::Noted);
                }
            });
        }
    });
    let now = Breaker::unpack(cells.0[0].load(SeqCst));
    assert_eq!(now, Breaker::Closed { denials: 60_000 });
    assert_eq!(deny(), Said::Tripped);
}

#[test]
fn of_many_threads_one_trips_it() {
    for _ in 0..200 {
        let cells = Shared(vec![AtomicU64::new(0)]);
        let trips = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        while match try_turn(&cells, Ask::Denied, &RULES, 1, 1) {
                            Some(Said::Tripped) => {
                                trips.fetch_add(1, SeqCst);
                                false
                            }
                            Some(_) => false,
                            None => true,
                        } {}
                    }
                });
            }
        });
        assert_eq!(trips.load(SeqCst), 1);
    }
}

#[test]
fn what_is_too_complex_fits_a_rank() {
    assert_eq!(
        complexity_of(complexity_rank(COMPLEX_DEPTH, 33)),
        (COMPLEX_DEPTH, 33)
    );
    let (what, most) = complexity_of(complexity_rank(COMPLEX_BYTES, u32::MAX));
    assert_eq!((what, most), (COMPLEX_BYTES, (1 << 28) - 1));
}
