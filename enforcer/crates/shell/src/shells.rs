//! Commands that run a text as code: shells, `eval`, `trap`, `su -c`.

use super::{PartKind, Word, state::State, statements::substitution, stdin::Input};

/// Shells, by base name.
const SHELLS: [&str; 14] = [
    "sh", "bash", "dash", "zsh", "ksh", "ash", "mksh", "rbash", "fish", "ksh93", "yash", "hush",
    "csh", "tcsh",
];

/// Whether a base name is a shell's.
pub(super) fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name.strip_prefix('-').unwrap_or(name))
}

/// Whether a file is standard input.
fn is_standard(file: &str) -> bool {
    matches!(file, "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0")
}

impl State {
    /// Runs a text one level deeper.
    pub(super) fn code(&mut self, text: &str, input: &Input) {
        self.nested(|state| {
            state.text(text, input);
        });
    }

    /// Runs what comes in on standard input.
    pub(super) fn code_from(&mut self, input: &Input) {
        match input {
            Input::Inherited => {}
            Input::Known(data) | Input::Template(data) => self.code(data, &Input::Inherited),
            Input::Unknown(source) => {
                let source = if source.is_empty() { "$(…)" } else { source };
                self.part(PartKind::Unknown, vec![Word::hole(source)]);
            }
        }
    }

    /// Runs what is read from a file: only from a stream of this text is anything known.
    pub(super) fn code_of(&mut self, file: &Word, input: &Input) {
        if file.text.starts_with("<(") {
            let data = self.streams.get(&file.text).cloned();
            self.code_from(&data.unwrap_or_else(|| Input::new(None, &substitution(&file.text))));
        } else if let Some(data) = self.held(&file.text) {
            self.code_from(&data);
        } else if is_standard(&file.text) {
            self.code_from(input);
        } else if file.text.starts_with("/dev/fd/")
            && let Some(data) = self.descriptors.last().cloned()
        {
            self.code_from(&data);
        }
    }

    /// `sh`, `bash -lc TEXT`, `bash -s`, `bash FILE` …
    pub(super) fn shell(&mut self, name: &str, words: &[Word], input: &Input) {
        let mut at = 1;
        let mut text = false;
        let mut standard = false;
        while let Some(word) = words.get(at) {
            let word = word.text.as_str();
            if matches!(word, "--" | "-") {
                at += 1;
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                at += 1 + usize::from(matches!(long, "rcfile" | "init-file"));
                text |= long == "command";
                continue;
            }
            let Some(letters) = word.strip_prefix(['-', '+']) else {
                break;
            };
            text |= letters.contains('c') && word.starts_with('-');
            standard |= letters.contains('s');
            at += 1 + letters.matches(['o', 'O']).count();
        }
        if text {
            let Some(code) = words.get(at) else { return };
            let code = code.text.clone();
            let arguments = words.iter().skip(at + 2).cloned().collect();
            let outer = self.positional.replace(arguments);
            self.code(&code, input);
            self.positional = outer;
        } else if let Some(file) = words.get(at).filter(|_| !standard) {
            if file.text.starts_with("<(") {
                self.shell_from(name, "/dev/fd/63");
            } else if matches!(input, Input::Unknown(_)) && is_standard(&file.text) {
                self.shell_from(name, "/dev/stdin");
            }
            self.code_of(file, input);
        } else {
            if matches!(input, Input::Unknown(_)) {
                self.shell_from(name, "/dev/stdin");
            }
            self.code_from(input);
        }
    }

    /// The word behind an option that is given as `-c TEXT`, bundled as `-xc TEXT`, `--command TEXT` or
    /// `--command=TEXT`.
    pub(super) fn code_option(
        &mut self,
        words: &[Word],
        short: char,
        long: &[&str],
        input: &Input,
    ) -> bool {
        for (at, word) in words.iter().enumerate().skip(1) {
            let text = word.text.as_str();
            if text == "--" {
                return false;
            }
            if let Some(given) = text.strip_prefix("--") {
                let (option, value) = given
                    .split_once('=')
                    .map_or((given, None), |(o, v)| (o, Some(v)));
                if !long.contains(&option) {
                    continue;
                }
                let value = value
                    .map(str::to_owned)
                    .or_else(|| words.get(at + 1).map(|word| word.text.clone()));
                self.code(&value.unwrap_or_default(), input);
                return true;
            }
            if let Some(letters) = text.strip_prefix('-')
                && let Some(index) = letters.find(short)
                && letters[..index]
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic())
            {
                let attached = &letters[index + short.len_utf8()..];
                let value = if attached.is_empty() {
                    words
                        .get(at + 1)
                        .map(|word| word.text.clone())
                        .unwrap_or_default()
                } else {
                    attached.to_owned()
                };
                self.code(&value, input);
                return true;
            }
        }
        false
    }
}
