//! Memory that was needed for a start, or for a change, and is not any more.

use std::{ffi::c_int, ptr};

/// Unused memory at the end of the heap that is kept, bytes.
const TRIM_BYTES: i32 = 128 << 10;
/// The least unit of a mapping that any system here has, bytes; a larger page only makes a call fail, which loses nothing.
const PAGE: usize = 4096;

/// Has unused memory go back to the system at once: to compile a policy and to load it takes much for a moment, and
/// without a fixed limit the C library keeps it. Call it before other threads are started.
pub fn give_memory_back() {
    // SAFETY: a plain call of the C library, numbers only.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BYTES) };
}

/// Has what was taken for a start or a change go back to the system: of the heap, whichever thread took it, and of this
/// program's own code and constants. What of these is still needed is found in the page cache again, piece by piece; most of
/// it a launcher never needs again.
pub fn give_back_now() {
    // SAFETY: a plain call of the C library, numbers only.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: the function has the type that is asked for, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(own_code), ptr::null_mut()) };
}

/// Gives back what is read only of the object that it is called for first, which is the program itself; then ends.
unsafe extern "C" fn own_code(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> c_int {
    // SAFETY: the C library hands over an object that lives as long as this call.
    let object = unsafe { &*object };
    for at in 0..usize::from(object.dlpi_phnum) {
        // SAFETY: there are so many headers.
        let header = unsafe { &*object.dlpi_phdr.add(at) };
        // What is never written is as the file has it. What the dynamic linker writes (RELRO) belongs to a writable segment.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(begin), Ok(length)) = (
            usize::try_from(object.dlpi_addr + header.p_vaddr),
            usize::try_from(header.p_memsz),
        ) else {
            continue;
        };
        let first = begin.next_multiple_of(PAGE);
        let last = (begin + length) / PAGE * PAGE;
        if first < last {
            let place = ptr::without_provenance_mut(first);
            // SAFETY: whole pages of a private mapping of a file that nobody has written to: whoever reads them finds the
            // same bytes again.
            unsafe { libc::madvise(place, last - first, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident pages of files, KiB.
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let number = line.unwrap().trim().strip_suffix("kB").unwrap();
        number.trim().parse().unwrap()
    }

    #[test]
    fn code_that_is_not_needed_goes_back_and_what_is_needed_is_found_again() {
        // Much of this program is touched: as much as a start touches.
        let own = std::fs::read("/proc/self/maps").unwrap();
        let own = String::from_utf8(own).unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let program = program.to_str().unwrap();
        let mut sum = 0_u64;
        for line in own.lines().filter(|line| line.ends_with(program)) {
            let mut words = line.split(' ');
            let (begin, end) = words.next().unwrap().split_once('-').unwrap();
            if words.next().unwrap().starts_with("r-") {
                let [begin, end] = [begin, end].map(|it| usize::from_str_radix(it, 16).unwrap());
                for place in (begin..end).step_by(PAGE) {
                    let place: *const u8 = ptr::without_provenance(place);
                    // SAFETY: a page that can be read, as the kernel says.
                    sum += u64::from(unsafe { place.read_volatile() });
                }
            }
        }
        assert!(sum > 0);
        let before = of_files();
        give_back_now();
        let after = of_files();
        assert!(after < before / 2, "{before} KiB before, {after} KiB after");
        // Constants that the dynamic linker has written are still there.
        assert_eq!(format!("{:?}", KINDS[1]), "\"b\"");
    }

    static KINDS: [&str; 2] = ["a", "b"];
}
