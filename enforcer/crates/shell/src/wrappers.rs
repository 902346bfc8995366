//! Programs that start the command standing behind their own options.

use super::Word;

/// How such a program reads its words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrapper {
    /// Its names.
    pub names: &'static [&'static str],
    /// A word that must come first (`poetry run`); empty for none.
    pub word: &'static str,
    /// Short options that take the next word.
    pub short: &'static str,
    /// Long options that take the next word.
    pub long: &'static [&'static str],
    /// How many words of its own stand before the command.
    pub operands: usize,
    /// Whether assignments may stand before the command.
    pub assignments: bool,
}

const PLAIN: Wrapper = Wrapper {
    names: &[],
    word: "",
    short: "",
    long: &[],
    operands: 0,
    assignments: false,
};

/// The wrappers, from their manuals.
const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        names: &[
            "nohup",
            "setsid",
            "builtin",
            "command",
            "coproc",
            "busybox",
            "toybox",
            "eatmydata",
            "torsocks",
            "torify",
            "chronic",
            "unbuffer",
            "catchsegv",
            "linux32",
            "linux64",
            "arch",
            "firejail",
            "valgrind",
            "rlwrap",
            "dumb-init",
            "winpty",
            "ccache",
            "sccache",
            "distcc",
            "entr",
            "prlimit",
            "noglob",
            "nocorrect",
            "corepack",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["env"],
        short: "uCSaP",
        long: &["unset", "chdir", "split-string", "argv0"],
        assignments: true,
        ..PLAIN
    },
    Wrapper {
        names: &["sudo", "sudoedit"],
        short: "ugUhpCrtTDRa",
        long: &[
            "user",
            "group",
            "other-user",
            "host",
            "prompt",
            "close-from",
            "chdir",
            "chroot",
            "role",
            "type",
            "command-timeout",
        ],
        assignments: true,
        ..PLAIN
    },
    Wrapper {
        names: &["doas"],
        short: "uCa",
        assignments: true,
        ..PLAIN
    },
    Wrapper {
        names: &["pkexec"],
        long: &["user"],
        ..PLAIN
    },
    Wrapper {
        names: &["gosu", "su-exec", "setuidgid", "chpst", "setarch"],
        short: "uU",
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["exec"],
        short: "a",
        ..PLAIN
    },
    Wrapper {
        names: &["time"],
        short: "fo",
        long: &["format", "output"],
        ..PLAIN
    },
    Wrapper {
        names: &["timeout", "gtimeout"],
        short: "ks",
        long: &["signal", "kill-after"],
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["nice", "gnice"],
        short: "n",
        long: &["adjustment"],
        ..PLAIN
    },
    Wrapper {
        names: &["ionice"],
        short: "cnpPu",
        long: &["class", "classdata", "pid", "pgid", "uid"],
        ..PLAIN
    },
    Wrapper {
        names: &["chrt"],
        short: "TPDp",
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["taskset"],
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["numactl"],
        short: "NmCipP",
        ..PLAIN
    },
    Wrapper {
        names: &["stdbuf", "gstdbuf"],
        short: "ioe",
        long: &["input", "output", "error"],
        ..PLAIN
    },
    Wrapper {
        names: &["chroot"],
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["unshare"],
        short: "SGRwl",
        long: &["setuid", "setgid", "root", "wd"],
        ..PLAIN
    },
    Wrapper {
        names: &["nsenter"],
        short: "tSG",
        long: &["target", "setuid", "setgid"],
        ..PLAIN
    },
    Wrapper {
        names: &["setpriv"],
        long: &[
            "reuid",
            "regid",
            "ruid",
            "euid",
            "rgid",
            "egid",
            "groups",
            "inh-caps",
            "ambient-caps",
            "bounding-set",
            "securebits",
            "pdeathsig",
            "selinux-label",
            "apparmor-profile",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["capsh"],
        ..PLAIN
    },
    Wrapper {
        names: &["systemd-run"],
        short: "pEHMtu",
        long: &[
            "unit",
            "property",
            "slice",
            "description",
            "uid",
            "gid",
            "nice",
            "working-directory",
            "setenv",
            "on-calendar",
            "on-active",
            "on-boot",
            "on-startup",
            "timer-property",
            "machine",
            "host",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["systemd-inhibit"],
        long: &["what", "who", "why", "mode"],
        ..PLAIN
    },
    Wrapper {
        names: &["strace"],
        short: "aebIoOpPsSuUXE",
        ..PLAIN
    },
    Wrapper {
        names: &["ltrace"],
        short: "aAeFlnopsuwX",
        ..PLAIN
    },
    Wrapper {
        names: &["flock"],
        short: "wE",
        long: &["timeout", "wait", "conflict-exit-code"],
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["fakeroot"],
        short: "lsibf",
        ..PLAIN
    },
    Wrapper {
        names: &["xvfb-run"],
        short: "nefpsw",
        long: &["server-num", "error-file", "auth-file", "server-args"],
        ..PLAIN
    },
    Wrapper {
        names: &["dbus-run-session"],
        long: &["config-file", "dbus-daemon"],
        ..PLAIN
    },
    Wrapper {
        names: &["proxychains", "proxychains4"],
        short: "f",
        ..PLAIN
    },
    Wrapper {
        names: &["caffeinate"],
        short: "tw",
        ..PLAIN
    },
    Wrapper {
        names: &["faketime"],
        short: "f",
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["watch"],
        short: "nq",
        long: &["interval", "equexit"],
        ..PLAIN
    },
    Wrapper {
        names: &["xargs", "gxargs"],
        short: "aEdILnPs",
        long: &[
            "arg-file",
            "delimiter",
            "max-args",
            "max-procs",
            "max-chars",
            "process-slot-var",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["runuser"],
        short: "ugGsw",
        long: &["user", "group", "supp-group", "shell"],
        ..PLAIN
    },
    Wrapper {
        names: &["npx", "bunx", "pnpx", "uvx"],
        short: "pw",
        long: &["package", "workspace", "from", "with", "python", "prefix"],
        ..PLAIN
    },
    Wrapper {
        names: &["cross-env"],
        assignments: true,
        ..PLAIN
    },
    Wrapper {
        names: &["env-cmd"],
        short: "fer",
        long: &["file", "environments", "rc-file"],
        ..PLAIN
    },
    Wrapper {
        names: &[
            "poetry", "pipenv", "pdm", "rye", "hatch", "uv", "pipx", "volta",
        ],
        word: "run",
        long: &[
            "with",
            "python",
            "project",
            "directory",
            "extra",
            "group",
            "spec",
            "node",
        ],
        short: "pC",
        ..PLAIN
    },
    Wrapper {
        names: &[
            "bundle", "pnpm", "npm", "yarn", "mise", "rtx", "asdf", "fnm",
        ],
        word: "exec",
        short: "w",
        long: &["package", "workspace", "filter", "prefix", "using", "dir"],
        ..PLAIN
    },
    Wrapper {
        names: &["npm", "bun", "mise"],
        word: "x",
        short: "w",
        long: &["package", "workspace", "prefix"],
        ..PLAIN
    },
    Wrapper {
        names: &["pnpm", "yarn"],
        word: "dlx",
        short: "p",
        long: &["package", "filter"],
        ..PLAIN
    },
    Wrapper {
        names: &["direnv", "nvm", "aws-vault", "chamber"],
        word: "exec",
        operands: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["doppler", "op", "dotenv", "dotenvx", "infisical"],
        word: "run",
        short: "fpce",
        long: &["env-file", "project", "config", "env", "path", "account"],
        ..PLAIN
    },
    Wrapper {
        names: &["dotenv"],
        short: "epvc",
        ..PLAIN
    },
];

impl Wrapper {
    /// Where its own options begin: behind its word, before which options may stand, each with or without a value.
    fn begin(&self, words: &[Word]) -> Option<usize> {
        if self.word.is_empty() {
            return Some(1);
        }
        let at = words.iter().position(|word| word.text == self.word)?;
        let option = |word: &Word| word.text.starts_with('-') && word.text != "--";
        (1..at)
            .all(|before| option(&words[before]) || before > 1 && option(&words[before - 1]))
            .then_some(at + 1)
    }
}

/// Where the inner command starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    /// Index of its first word.
    pub at: usize,
    /// Words that an option such as `env -S` puts before it.
    pub before: Option<String>,
}

/// The command that `words` start, if their program is a wrapper.
pub(super) fn inner(name: &str, words: &[Word]) -> Option<Inner> {
    let (wrapper, mut at) = WRAPPERS
        .iter()
        .filter(|wrapper| wrapper.names.contains(&name))
        .find_map(|wrapper| Some((wrapper, wrapper.begin(words)?)))?;
    let mut operands = wrapper.operands;
    let mut before = None;
    while let Some(word) = words.get(at) {
        let text = word.text.as_str();
        if text == "--" {
            at += 1 + operands;
            break;
        }
        // `command -v` only looks a name up.
        if name == "command" && matches!(text, "-v" | "-V" | "-pv" | "-pV") {
            return None;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (option, value) = long
                .split_once('=')
                .map_or((long, None), |(option, value)| (option, Some(value)));
            // GNU programs take abbreviations.
            let takes =
                !option.is_empty() && wrapper.long.iter().any(|known| known.starts_with(option));
            let value = match value {
                Some(value) => Some(value),
                None if takes => {
                    at += 1;
                    words.get(at).map(|word| word.text.as_str())
                }
                None => None,
            };
            if name == "env" && takes && "split-string".starts_with(option) {
                before = value.map(str::to_owned);
            }
            at += 1;
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            if let Some((index, letter)) = letters
                .char_indices()
                .find(|(_, letter)| wrapper.short.contains(*letter))
            {
                let attached = &letters[index + letter.len_utf8()..];
                let value = if attached.is_empty() {
                    at += 1;
                    words.get(at).map(|word| word.text.as_str())
                } else {
                    Some(attached)
                };
                if name == "env" && letter == 'S' {
                    before = value.map(str::to_owned);
                }
            }
            at += 1;
        } else if wrapper.assignments && (text == "-" || assigns(text)) {
            at += 1;
        } else if operands > 0 {
            operands -= 1;
            at += 1;
        } else {
            break;
        }
    }
    (at < words.len() || before.is_some()).then_some(Inner { at, before })
}

/// Whether a word is an assignment.
pub(super) fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}
