//! The program that is forbidden. Leaves a mark that it really ran: one byte more in the file `$MARK`, and a line.
#![allow(
    clippy::expect_used,
    reason = "a program that cannot misbehave gives up"
)]

use std::{env, fs::OpenOptions, io::Write};

fn main() {
    if let Some(mark) = env::var_os("MARK") {
        let file = OpenOptions::new().append(true).create(true).open(mark);
        if let Ok(mut file) = file {
            let _ = file.write_all(b"x");
        }
    }
    println!("victim ran");
}
