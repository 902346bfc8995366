//! Copies and zeros by whole words. The compiler calls a function for both, which goes byte by byte: when it runs, and when the
//! verifier walks it.

use core::ptr;

/// Copies a value.
///
/// # Safety
///
/// `from` is valid to read, `to` to write; both are aligned, and the value has no padding.
#[inline(always)]
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const {
        assert!(align_of::<T>().is_multiple_of(4) && size_of::<T>().is_multiple_of(align_of::<T>()))
    };
    // SAFETY: by contract.
    unsafe {
        if align_of::<T>() == 8 {
            each::<u64>(from.cast(), to.cast(), size_of::<T>() / 8);
        } else {
            each::<u32>(from.cast(), to.cast(), size_of::<T>() / 4);
        }
    }
}

/// # Safety
///
/// As [`copy`], of `count` words.
#[inline(always)]
unsafe fn each<W: Copy>(from: *const W, to: *mut W, count: usize) {
    let mut at = 0;
    while at < count {
        // SAFETY: by contract. Volatile, for the compiler would see a copy in it.
        unsafe { ptr::write_volatile(to.add(at), ptr::read_volatile(from.add(at))) };
        at += 1;
    }
}

/// Fills a value with zeros.
///
/// # Safety
///
/// `to` is valid to write and aligned.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    const { assert!(align_of::<T>() >= 4 && size_of::<T>().is_multiple_of(4)) };
    let mut at = 0;
    while at < size_of::<T>() / 4 {
        // SAFETY: by contract. Volatile, as above.
        unsafe { ptr::write_volatile(to.cast::<u32>().add(at), 0) };
        at += 1;
    }
}
