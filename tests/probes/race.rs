//! Rewrites what is executed while it is executed: `race MODE GOOD BAD TRIES`.
//!
//! `path`: the name changes between GOOD and BAD. `word`: the program is GOOD and its argument changes between
//! `fine` and `forbidden`. `link`: a symbolic link's target changes. Each try is one exec of a child whose memory
//! another thread writes to. Prints how many tries ended how.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    collections::BTreeMap,
    env,
    ffi::CString,
    os::unix::ffi::OsStringExt,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
    thread,
};

use libc::{c_char, c_int};

static STOP: AtomicBool = AtomicBool::new(false);
static PATH: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

fn text(word: Option<std::ffi::OsString>) -> CString {
    CString::new(word.expect("a word").into_vec()).expect("no NUL")
}

/// The child: shares its parent's memory, where the other thread goes on writing.
extern "C" fn start(environment: *mut libc::c_void) -> c_int {
    unsafe {
        libc::execve(
            PATH.load(Ordering::Relaxed).cast(),
            ARGV.load(Ordering::Relaxed),
            environment.cast(),
        );
        libc::_exit(126)
    }
}

/// Writes one of the two texts and then the other into `place`, for ever. Both have the same length.
fn rewrite(place: usize, texts: &[Vec<u8>; 2]) {
    let place = place as *mut u8;
    let mut round = 0usize;
    while !STOP.load(Ordering::Relaxed) {
        for (index, byte) in texts[round & 1].iter().enumerate() {
            unsafe { place.add(index).write_volatile(*byte) };
        }
        round += 1;
        // Now and then long enough for a whole judgement to see one of them.
        for _ in 0..(round * 7919 % 509) {
            std::hint::spin_loop();
        }
    }
}

/// Points the argument at one string and then at the other.
fn repoint(place: usize, strings: [usize; 2]) {
    let place = place as *mut usize;
    let mut round = 0usize;
    while !STOP.load(Ordering::Relaxed) {
        unsafe { place.write_volatile(strings[round & 1]) };
        round += 1;
        for _ in 0..(round * 7919 % 509) {
            std::hint::spin_loop();
        }
    }
}

fn relink(name: &CString, targets: &[CString; 2]) {
    let spare = c"race-spare";
    let mut round = 0usize;
    while !STOP.load(Ordering::Relaxed) {
        unsafe {
            libc::symlink(targets[round & 1].as_ptr(), spare.as_ptr());
            libc::rename(spare.as_ptr(), name.as_ptr());
        }
        round += 1;
    }
}

fn main() {
    let mut words = env::args_os().skip(1);
    let mode = words.next().expect("a mode").into_string().expect("a mode");
    let good = text(words.next());
    let bad = text(words.next());
    let tries: u32 = text(words.next())
        .to_str()
        .expect("a number")
        .parse()
        .expect("a number");

    let mut path = good.as_bytes_with_nul().to_vec();
    let mut word = b"fine-word\0".to_vec();
    let forbidden = b"forbidden\0".to_vec();
    let link = CString::new("race-link").expect("no NUL");
    let environment: Vec<CString> = env::vars_os()
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).expect("no NUL")
        })
        .collect();
    let mut envp: Vec<*const c_char> = environment.iter().map(|entry| entry.as_ptr()).collect();
    envp.push(ptr::null());
    let mut argv: Vec<*const c_char> = vec![c"race".as_ptr(), word.as_ptr().cast(), ptr::null()];
    if mode == "link" {
        path = link.as_bytes_with_nul().to_vec();
        unsafe { libc::symlink(good.as_ptr(), link.as_ptr()) };
    }
    PATH.store(path.as_mut_ptr(), Ordering::Relaxed);
    ARGV.store(argv.as_mut_ptr(), Ordering::Relaxed);

    let path_place = path.as_mut_ptr() as usize;
    let word_place = word.as_mut_ptr() as usize;
    let slot_place = unsafe { argv.as_mut_ptr().add(1) } as usize;
    let strings = [
        c"fine-word".as_ptr() as usize,
        c"forbidden".as_ptr() as usize,
    ];
    let writer = thread::spawn(move || match mode.as_str() {
        "path" => rewrite(
            path_place,
            &[good.into_bytes_with_nul(), bad.into_bytes_with_nul()],
        ),
        "word" => rewrite(word_place, &[b"fine-word\0".to_vec(), forbidden]),
        "argv" => repoint(slot_place, strings),
        "link" => relink(&link, &[good, bad]),
        other => panic!("no such mode: {other}"),
    });

    let mut stack = vec![0u8; 1 << 18];
    let mut outcomes: BTreeMap<i32, u32> = BTreeMap::new();
    for _ in 0..tries {
        let mut status = 0;
        unsafe {
            let top = stack.as_mut_ptr().add(stack.len()).cast();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let pid = libc::clone(start, top, flags, envp.as_mut_ptr().cast());
            assert!(pid > 0, "clone");
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        }
        let code = if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        *outcomes.entry(code).or_default() += 1;
    }
    STOP.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    for (code, count) in outcomes {
        println!("{code} {count}");
    }
}
