//! Execs a program as often as told and as fast as it can: `spawner TIMES WORKERS PROGRAM`. Each exec has the words
//! `PROGRAM worker number`; prints how many ended well, and the time in microseconds.

use std::{env, ffi::CString, process::exit, ptr, thread, time::Instant};

fn spawn(program: &CString, worker: usize, number: usize) -> bool {
    let words = [
        program.clone(),
        CString::new(format!("w{worker}")).unwrap_or_default(),
        CString::new(format!("n{number}")).unwrap_or_default(),
    ];
    let argv: Vec<*mut libc::c_char> = words
        .iter()
        .map(|word| word.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect();
    let mut pid = 0;
    let mut status = 0;
    // SAFETY: the arrays end in a null pointer and outlive the call; the other pointers are to locals.
    unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            ptr::null(),
            ptr::null(),
            argv.as_ptr(),
            [ptr::null_mut()].as_ptr(),
        ) == 0
            && libc::waitpid(pid, &raw mut status, 0) == pid
            && status == 0
    }
}

fn main() {
    let words: Vec<String> = env::args().collect();
    let (Some(times), Some(workers), Some(program)) = (
        words.get(1).and_then(|word| word.parse::<usize>().ok()),
        words.get(2).and_then(|word| word.parse::<usize>().ok()),
        words
            .get(3)
            .and_then(|word| CString::new(word.as_str()).ok()),
    ) else {
        eprintln!("usage: spawner TIMES WORKERS PROGRAM");
        exit(2);
    };
    let started = Instant::now();
    let good: usize = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let program = &program;
                scope.spawn(move || {
                    (0..times / workers)
                        .filter(|number| spawn(program, worker, *number))
                        .count()
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or(0))
            .sum()
    });
    println!("{good} {}", started.elapsed().as_micros());
}
