//! Atomic operations. The target has them (instruction set v3), but `core` only offers loads and stores for
//! it, so the intrinsics behind `core::sync::atomic` are called directly.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// Adds and returns the earlier value.
///
/// # Safety
///
/// `place` is a field of a map value.
#[inline(always)]
pub unsafe fn add(place: *mut u64, value: u64) -> u64 {
    // SAFETY: by contract.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(place, value) }
}

/// Stores and returns the earlier value.
///
/// # Safety
///
/// `place` is a field of a map value.
#[inline(always)]
pub unsafe fn swap(place: *mut u32, value: u32) -> u32 {
    // SAFETY: by contract.
    unsafe { atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(place, value) }
}

/// Stores `new` if `old` is there; true if it was.
///
/// # Safety
///
/// `place` is a field of a map value.
#[inline(always)]
pub unsafe fn replace(place: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: by contract.
    unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(place, old, new)
    }
    .1
}

/// [`replace`] for a whole word.
///
/// # Safety
///
/// `place` is a map value or a field of one.
#[inline(always)]
pub unsafe fn replace_wide(place: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: by contract.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(place, old, new)
    }
    .1
}
