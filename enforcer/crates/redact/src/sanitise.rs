//! Text that is safe to print and to keep on one line.
//!
//! ANSI sequences (ECMA-48: CSI, OSC, DCS, SOS, PM, APC, `ESC x`) vanish whole; other control characters become
//! spaces; bytes that are not UTF-8 become U+FFFD.

/// Sanitised text, and the places where a character was replaced by a space or is invisible.
///
/// The places matter to the search for secrets: `sk-\u{1}ant-…` is a secret although it is now written with a
/// space.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Clean {
    /// The text.
    pub text: String,
    /// Byte offsets in `text` of characters that split a word only in appearance, in order.
    pub joints: Vec<Joint>,
}

/// One place where the appearance of the text differs from its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joint {
    /// Byte offset of the character.
    pub at: usize,
    /// Its length in bytes.
    pub len: usize,
    /// A line break or NUL: ends a word in earnest.
    pub separates: bool,
}

/// Makes bytes printable on one line.
pub(super) fn clean(raw: &[u8]) -> Clean {
    let lossy = String::from_utf8_lossy(raw);
    if lossy.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Clean {
            text: lossy.into_owned(),
            joints: Vec::new(),
        };
    }
    let mut out = Clean {
        text: String::with_capacity(lossy.len()),
        joints: Vec::new(),
    };
    let mut rest: &str = &lossy;
    while let Some(c) = rest.chars().next() {
        let skip = sequence_len(rest, c);
        if skip > 0 {
            rest = &rest[skip..];
            continue;
        }
        if is_replaced(c) {
            let separates = matches!(
                c,
                '\0' | '\n' | '\r' | '\x0b' | '\x0c' | '\u{2028}' | '\u{2029}' | '\u{85}'
            );
            out.joints.push(Joint {
                at: out.text.len(),
                len: 1,
                separates,
            });
            out.text.push(' ');
        } else {
            if is_invisible(c) {
                out.joints.push(Joint {
                    at: out.text.len(),
                    len: c.len_utf8(),
                    separates: false,
                });
            }
            out.text.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Whether a character becomes a space: C0 except the tab, DEL, C1, line and paragraph separators, bidi controls.
fn is_replaced(c: char) -> bool {
    matches!(c,
        '\0'..='\x08' | '\x0a'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{2028}' | '\u{2029}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character takes no room on a screen, so that it can hide inside a word. Kept in the text (emoji
/// need the joiner), ignored in the search for secrets.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes of the ANSI sequence at the start of `text`, whose first character is `first`; 0 if there is none.
fn sequence_len(text: &str, first: char) -> usize {
    let bytes = text.as_bytes();
    match first {
        '\x1b' => match bytes.get(1) {
            Some(b'[') => csi_len(bytes, 2),
            Some(b']' | b'P' | b'X' | b'^' | b'_') => string_len(text, 2),
            // nF sequences have intermediates before the final byte.
            Some(0x20..=0x2f) => {
                let mut at = 1;
                while matches!(bytes.get(at), Some(0x20..=0x2f)) {
                    at += 1;
                }
                if matches!(bytes.get(at), Some(0x30..=0x7e)) {
                    at + 1
                } else {
                    at
                }
            }
            Some(0x30..=0x7e) => 2,
            _ => 0,
        },
        '\u{9b}' => csi_len(bytes, 2),
        '\u{9d}' | '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}' => string_len(text, 2),
        _ => 0,
    }
}

/// End of a control sequence whose introducer is `at` bytes long. A malformed one ends where it stops being one.
fn csi_len(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(0x30..=0x3f)) {
        at += 1;
    }
    while matches!(bytes.get(at), Some(0x20..=0x2f)) {
        at += 1;
    }
    if matches!(bytes.get(at), Some(0x40..=0x7e)) {
        at += 1;
    }
    at
}

/// End of a control string (OSC, DCS, …) whose introducer is `start` bytes long.
///
/// It ends with BEL or ST. Without them it ends before the next control character (terminals abort there),
/// so that an unterminated one cannot swallow the following lines of a script.
fn string_len(text: &str, start: usize) -> usize {
    for (at, c) in text[start..].char_indices() {
        let at = start + at;
        match c {
            '\x07' | '\u{9c}' => return at + c.len_utf8(),
            '\x1b' if text.as_bytes().get(at + 1) == Some(&b'\\') => return at + 2,
            '\t' => {}
            '\0'..='\x1f' | '\x7f'..='\u{9f}' => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &str) -> String {
        clean(raw.as_bytes()).text
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(text("a\nb"), "a b");
        assert_eq!(text("a\tb"), "a\tb");
        assert_eq!(text("a\r\nb"), "a  b");
        assert_eq!(text("\0x\x7fy\u{85}z"), " x y z");
        assert_eq!(text("\u{2028}x\u{2029}y\u{202e}z\u{2066}"), " x y z ");
    }

    #[test]
    fn ansi_sequences_vanish_whole() {
        assert_eq!(text("\x1b[31mred\x1b[0m"), "red");
        assert_eq!(text("\x1b[38;2;1;2;3mx\x1b[?25l"), "x");
        assert_eq!(text("\x1b]0;title\x07x"), "x");
        assert_eq!(text("\x1b]8;;http://h\x1b\\link\x1b]8;;\x1b\\"), "link");
        assert_eq!(text("a\x1bPq#0\x1b\\b"), "ab");
        assert_eq!(text("a\x1bcb\x1b(Bc\x1b7"), "abc");
        assert_eq!(text("\u{9b}31mred\u{9d}0;t\u{9c}x"), "redx");
        assert_eq!(text("a\x1b]0;never ends"), "a");
        assert_eq!(text("a\x1b[31"), "a");
        assert_eq!(text("a\x1b"), "a ");
        assert_eq!(text("a\x1b\x1b[1mb"), "a b");
    }

    #[test]
    fn an_unterminated_sequence_spares_the_next_line() {
        assert_eq!(text("\x1b]0;x\nrm -rf /"), " rm -rf /");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_marked() {
        assert_eq!(clean(b"a\xffb\xc3").text, "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn joints_are_where_words_are_split_in_appearance() {
        let c = clean(b"a\x01b\nc\x1b[0md");
        assert_eq!(c.text, "a b cd");
        assert_eq!(
            c.joints,
            [
                Joint {
                    at: 1,
                    len: 1,
                    separates: false
                },
                Joint {
                    at: 3,
                    len: 1,
                    separates: true
                }
            ]
        );
    }
}
