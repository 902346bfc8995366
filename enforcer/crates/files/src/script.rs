//! The first line of a script, as the kernel parses it (`load_script` in `fs/binfmt_script.c`).

use enforcer_policy::ScriptHead;

/// How much of a file the kernel looks at (`BINPRM_BUF_SIZE`, linux/binfmts.h).
pub const HEAD: usize = 256;

const fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Parses the head of a file, filled up with zeros; `None` if the kernel does not take it for a script.
pub fn parse(head: &[u8; HEAD]) -> Option<ScriptHead> {
    let line = head.strip_prefix(b"#!")?;
    // Where the line ends: its newline, or the last byte that the kernel has read.
    let end = if let Some(newline) = head.iter().position(|byte| *byte == b'\n') {
        newline
    } else {
        let name = 2 + line.iter().position(|byte| !blank(*byte))?;
        // Without an end of the name in sight it may be cut.
        head[name..]
            .iter()
            .position(|byte| blank(*byte) || *byte == 0)?;
        HEAD - 1
    };
    let mut end = end;
    while end > 2 && blank(head[end - 1]) {
        end -= 1;
    }
    let line = &head[2..end];
    let name = line.iter().position(|byte| !blank(*byte))?;
    let line = &line[name..];
    let separator = line.iter().position(|byte| blank(*byte) || *byte == 0);
    let interpreter = &line[..separator.unwrap_or(line.len())];
    if interpreter.is_empty() {
        // A NUL where the name should begin: the kernel then looks for a file without a name.
        return Some(ScriptHead::default());
    }
    let argument = separator
        .filter(|at| line[*at] != 0)
        .map(|at| &line[at..])
        .and_then(|rest| Some(&rest[rest.iter().position(|byte| !blank(*byte))?..]))
        .map(|rest| rest.split(|byte| *byte == 0).next().unwrap_or(rest))
        .map(<[u8]>::to_vec);
    Some(ScriptHead {
        interpreter: interpreter.to_vec(),
        argument,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<(String, Option<String>)> {
        let mut head = [0; HEAD];
        let length = text.len().min(HEAD);
        head[..length].copy_from_slice(&text[..length]);
        let string = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        parse(&head).map(|script| (string(script.interpreter), script.argument.map(string)))
    }

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let long = format!("#!/{}\n", "a".repeat(300));
        let cut = format!("#!/bin/sh {}\n", "b".repeat(300));
        let blanks = format!("#!{}", " ".repeat(300));
        for (text, expected) in [
            ("#!/bin/sh\necho", Some(("/bin/sh", None))),
            ("#!/bin/sh", Some(("/bin/sh", None))),
            ("#! \t/bin/sh \t\n", Some(("/bin/sh", None))),
            (
                "#!/usr/bin/env -S perl -w \n",
                Some(("/usr/bin/env", Some("-S perl -w"))),
            ),
            ("#!/bin/sh\t-e\r\n", Some(("/bin/sh", Some("-e\r")))),
            ("#!/bin/sh\0-e\n", Some(("/bin/sh", None))),
            ("#!/bin/sh -e\0x\n", Some(("/bin/sh", Some("-e")))),
            ("#!sh", Some(("sh", None))),
            ("#!\n", None),
            ("#!  \t \n/bin/sh", None),
            ("# !/bin/sh\n", None),
            ("\x7fELF", None),
            ("", None),
            (long.as_str(), None),
            (blanks.as_str(), None),
        ] {
            let expected = expected.map(|(name, argument): (&str, Option<&str>)| {
                (name.to_owned(), argument.map(str::to_owned))
            });
            assert_eq!(parsed(text.as_bytes()), expected, "{text:?}");
        }
        // An argument that goes on past what the kernel reads is cut.
        let (name, argument) = parsed(cut.as_bytes()).unwrap();
        assert_eq!((name.as_str(), argument.unwrap().len()), ("/bin/sh", 245));
    }
}
