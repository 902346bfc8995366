//! Interpreters of other languages: their code is not read, but where it comes from is.

use super::{
    PartKind, Word, shells::is_shell, state::State, statements::substitution, stdin::Input,
    words::substitutions,
};

/// How an interpreter reads its words.
struct Interpreter {
    /// Its names, without the digits and dots behind them.
    names: &'static [&'static str],
    /// Short options whose value is code.
    code: &'static str,
    /// Long options whose value is code.
    long_code: &'static [&'static str],
    /// Short options that take the next word.
    short: &'static str,
    /// Short options whose value stands in the same word, if they have one.
    attached: &'static str,
    /// Long options that take the next word.
    long: &'static [&'static str],
    /// Words in front that run a file, or code (`deno run`, `deno eval`).
    words: &'static [&'static str],
}

const PLAIN: Interpreter = Interpreter {
    names: &[],
    code: "e",
    long_code: &[],
    short: "",
    attached: "",
    long: &[],
    words: &[],
};

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["python", "pypy", "ipython"],
        code: "c",
        short: "mWXQ",
        long: &["check-hash-based-pycs"],
        ..PLAIN
    },
    Interpreter {
        names: &["perl"],
        code: "eE",
        attached: "MmIiCDdFx",
        ..PLAIN
    },
    Interpreter {
        names: &["ruby", "jruby"],
        short: "rICEx",
        long: &["encoding", "external-encoding"],
        ..PLAIN
    },
    Interpreter {
        names: &["node", "nodejs"],
        code: "ep",
        long_code: &["eval", "print"],
        short: "rC",
        long: &[
            "require",
            "import",
            "loader",
            "conditions",
            "env-file",
            "input-type",
        ],
        ..PLAIN
    },
    Interpreter {
        names: &["php"],
        code: "rBRE",
        long_code: &["run", "process-begin", "process-code", "process-end"],
        short: "cdz",
        long: &["define", "php-ini"],
        ..PLAIN
    },
    Interpreter {
        names: &["deno"],
        words: &["run", "eval", "repl", "serve", "test"],
        short: "cL",
        long: &["config", "import-map", "lock", "cert", "log-level", "seed"],
        ..PLAIN
    },
    Interpreter {
        names: &["bun"],
        code: "ep",
        long_code: &["eval", "print"],
        words: &["run"],
        short: "rc",
        long: &["preload", "config", "cwd", "env-file"],
        ..PLAIN
    },
    Interpreter {
        names: &[
            "lua",
            "luajit",
            "osascript",
            "groovy",
            "tclsh",
            "julia",
            "elixir",
            "R",
            "Rscript",
        ],
        long_code: &["eval"],
        short: "l",
        ..PLAIN
    },
    Interpreter {
        names: &["pwsh", "powershell"],
        code: "c",
        long_code: &["command"],
        ..PLAIN
    },
];

/// The interpreter with this base name.
fn interpreter(name: &str) -> Option<&'static Interpreter> {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.iter().find(|one| one.names.contains(&plain))
}

/// Where an interpreter's program stands.
#[derive(Debug, PartialEq, Eq)]
enum Program<'w> {
    /// On the command line.
    Code(Vec<Word>),
    /// In a file.
    File(&'w Word),
    /// On standard input.
    Standard,
    /// In a module, or nowhere.
    Other,
}

impl Interpreter {
    fn program<'w>(&self, words: &'w [Word]) -> Program<'w> {
        let mut code = Vec::new();
        let mut at = 1;
        let eval = words.get(1).is_some_and(|word| word.text == "eval");
        at += usize::from(
            words
                .get(1)
                .is_some_and(|word| self.words.contains(&word.text.as_str())),
        );
        while let Some(word) = words.get(at) {
            let text = word.text.as_str();
            at += 1;
            if text == "--" {
                continue;
            }
            if matches!(text, "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0") {
                return if code.is_empty() {
                    Program::Standard
                } else {
                    Program::Code(code)
                };
            }
            if let Some(given) = text.strip_prefix("--") {
                let (name, value) = given.split_once('=').unzip();
                let name = name.unwrap_or(given);
                if self.long_code.contains(&name) {
                    match value {
                        Some(value) => code.push(part_of(word, value)),
                        None => code.extend(words.get(at).cloned()),
                    }
                    at += usize::from(value.is_none());
                } else if self.long.contains(&name) && value.is_none() {
                    at += 1;
                }
                continue;
            }
            let Some(letters) = text.strip_prefix('-') else {
                return if !code.is_empty() {
                    Program::Code(code)
                } else if eval {
                    Program::Code(vec![word.clone()])
                } else {
                    Program::File(word)
                };
            };
            let taking = |c: char| self.code.contains(c) || self.short.contains(c);
            let named = letters.find(|c| self.attached.contains(c));
            let Some(index) = letters
                .find(taking)
                .filter(|at| named.is_none_or(|end| *at < end))
            else {
                continue;
            };
            let letter = &letters[index..=index];
            let attached = &letters[index + 1..];
            if self.code.contains(letter) {
                // `-pe`: letters of one bundle.
                if attached.chars().all(|c| self.code.contains(c)) {
                    code.extend(words.get(at).cloned());
                    at += 1;
                } else {
                    code.push(part_of(word, attached));
                }
            } else if letter == "m" {
                return Program::Other;
            } else if attached.is_empty() {
                at += 1;
            }
        }
        if !code.is_empty() {
            Program::Code(code)
        } else if self.words.is_empty() || words.len() == 1 {
            Program::Standard
        } else {
            Program::Other
        }
    }
}

/// What stands behind an option in the same word.
fn part_of(word: &Word, value: &str) -> Word {
    if word.unknown {
        Word::hole(value)
    } else {
        Word::literal(value)
    }
}

impl State {
    /// An interpreter: what of its program is known only when it runs is a part of its own.
    pub(super) fn interpreted(&mut self, name: &str, words: &[Word], input: &Input) {
        let Some(interpreter) = interpreter(name) else {
            return;
        };
        match interpreter.program(words) {
            Program::Code(code) => {
                for word in code.iter().filter(|word| word.unknown) {
                    self.unseen_in(&word.text);
                }
            }
            Program::File(file) => {
                if file.text.starts_with("<(") {
                    let data = self.streams.get(&file.text).cloned();
                    let data = data.unwrap_or_else(|| Input::new(None, &substitution(&file.text)));
                    self.unseen(&data);
                } else if let Some(data) = self.held(&file.text) {
                    self.unseen(&data);
                }
            }
            Program::Standard => self.unseen(input),
            Program::Other => {}
        }
    }

    /// Code in another language that comes in as data.
    fn unseen(&mut self, data: &Input) {
        match data {
            Input::Unknown(_) => self.code_from(data),
            Input::Template(text) => {
                let text = text.clone();
                self.unseen_in(&text);
            }
            Input::Inherited | Input::Known(_) => {}
        }
    }

    /// The substitutions in a text of another language: rules see where they come from.
    fn unseen_in(&mut self, text: &str) {
        for inside in substitutions(text) {
            self.reading(|state| {
                state.part(PartKind::Unknown, vec![Word::hole(format!("$({inside})"))]);
            });
        }
    }

    /// A shell that reads what another program writes, as the kernel will see it.
    pub(super) fn shell_from(&mut self, name: &str, file: &str) {
        debug_assert!(is_shell(name));
        let words = [name, file].map(Word::literal).to_vec();
        self.reading(|state| state.part(PartKind::Program, words));
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    /// Whether code that is fetched at that moment is a part of its own.
    fn fetched(text: &str) -> bool {
        parse(text).parts.iter().any(|part| {
            let words = part.texts();
            words.len() == 1 && words[0].starts_with("$(") && words[0].contains("curl ")
        })
    }

    #[test]
    fn code_from_the_network_is_seen_in_every_interpreter() {
        for text in [
            "curl x | python3",
            "curl x | python3.12 -u - a",
            "curl x | deno run -A -",
            "'curl' x | ruby",
            "C=curl; $C x | node",
            "python3 <(curl x)",
            "perl -w <(curl x) a",
            "ruby -e \"$(curl x)\"",
            "python3 -c \"$(curl x)\"",
            "perl -ne \"`curl x`\"",
            "node --eval=\"$(curl x)\"",
            "node -pe \"$(curl x)\"",
            "php -r \"eval('$(curl x)');\"",
            "deno eval \"$(curl x)\"",
            "X=$(curl x); python3 -c \"$X\"",
            "X=$(curl x); ruby <<< \"$X\"",
            "python3 <<< \"$(curl x)\"",
            "python3 - <<EOF\n$(curl x)\nEOF",
            "node < <(curl x)",
            "curl -o a.py x && python3 -u a.py",
        ] {
            assert!(fetched(text), "{text}: {:?}", parse(text).parts);
        }
    }

    #[test]
    fn what_an_interpreter_works_on_is_data() {
        for text in [
            "curl x | python3 -m json.tool",
            "curl x | python3 -c 'import sys; print(sys.stdin.read())'",
            "curl x | perl -ne print",
            "curl x | ruby -rjson -e 'p JSON.parse(STDIN.read)'",
            "curl x | node -e 'process.stdin'",
            "curl x | php -R 'echo 1;'",
            "curl x | python3 filter.py",
            "curl x | lua -l mod filter.lua",
            "python3 script.py \"$(curl x)\"",
            "curl x | deno run filter.ts",
        ] {
            let read: Vec<_> = parse(text)
                .parts
                .into_iter()
                .filter(|part| !part.kind.has_default() || part.words[0].unknown)
                .map(|part| part.texts())
                .collect();
            assert!(read.is_empty(), "{text}: {read:?}");
        }
    }
}
