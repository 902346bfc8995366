//! What makes an action of high risk one to ask about: flags that switch a safeguard off, commands that destroy or
//! stop, programs that raise privileges.
//!
//! The expression is over the whole text of an exec, where programs, subcommands and flags are words between spaces
//! or NULs. It finds them anywhere, so also in what a program is given to run (`ssh host sudo reboot`).

use std::{rc::Rc, sync::LazyLock};

use super::{
    automaton::{Alphabet, Automaton, Failure},
    group::{BUDGETS, STATES},
    search,
    union::both,
};

/// Programs that raise privileges, anywhere in the text.
const RAISERS: &str = "sudo|sudoedit|doas|pkexec|run0";
/// Programs that change who runs, where they are the program itself: their names are too short, or too usual, to
/// look for elsewhere.
const CHANGERS: &str = "su|sg|newgrp|runuser|setpriv|capsh|nsenter|newuidmap|newgidmap";
/// Flags that switch a safeguard off.
const FLAGS: &str = concat!(
    "--force(?:-[a-z-]+)?|--no-?confirm|--yes-i-really-(?:really-)?mean-it|--no-preserve-root|",
    "--allow-(?:remove-essential|downgrades|unauthenticated)|--skip-confirmation|--auto-approve"
);
/// Commands that destroy or stop, from their beginning on; `_` is the space between words, `~` the end of one. They
/// look at most at one option that is usual there: an expression that skips any options would need a state for every
/// set of commands that can be in progress at once.
const COMMANDS: &str = concat!(
    "rm_(?:-[vIid]+_)?-[A-Za-z]*(?:[rR][A-Za-z]*f|f[A-Za-z]*[rR])[A-Za-z]*~|",
    "rm_(?:-[rR]|--recursive)_(?:-f|--force)~|rm_-f_(?:-[rR]|--recursive)~|",
    r"mkfs(?:\.[a-z0-9]+)?~|fdisk~|pkill~|eval~|",
    "systemctl_(?:--(?:now|user|system|quiet)_)?(?:stop|disable)~|",
    "kill_(?:-s_)?-?(?:9|KILL|SIGKILL)~|",
    "ip6?tables_(?:-t_nat_)?(?:-[fF]|--flush)~|",
    "ufw_(?:--force_)?delete~|",
    "firewall-cmd_(?:--permanent_)?--remove|",
    "chmod_(?:-R_)?0?777~|",
    "chown_(?:-R_)?root(?:~|:)"
);
/// What shows itself without its command: what `dd` reads, and a pipe into a shell.
const PARTS: &str = "[\0 ]if=|\\|[\0 ]*(?:(?:/usr)?/bin/)?(?:ba|da|z|k)?sh~";

/// The expression, which matches as soon as something dangerous has been seen.
fn expression() -> String {
    let spelled = |text: &str| {
        text.replace('_', r"[\x00 ]")
            .replace('~', r"(?:[\x00 ]|\z)")
            .replace('\0', r"\x00")
    };
    let any = "(?s-u:.)*";
    let end = r"(?:[\x00 =]|\z)";
    let (commands, parts) = (spelled(COMMANDS), spelled(PARTS));
    [
        format!(r"(?:[^\x00 ]*/)?(?:{CHANGERS}){end}"),
        format!(r"(?:{any}[\x00 /])?(?:(?:{RAISERS}){end}|{commands})"),
        format!(r"{any}[\x00 ](?:{FLAGS}){end}"),
        format!("{any}(?:{parts})"),
    ]
    .join("|")
}

/// The automaton of what is dangerous. It is made once.
pub(super) fn automaton(alphabet: Alphabet) -> Result<&'static Automaton, Failure> {
    static TEXT: LazyLock<Result<Automaton, Failure>> = LazyLock::new(|| build(Alphabet::Text));
    static EXACT: LazyLock<Result<Automaton, Failure>> = LazyLock::new(|| build(Alphabet::Exact));
    let made = match alphabet {
        Alphabet::Text => &TEXT,
        Alphabet::Exact => &EXACT,
    };
    made.as_ref().map_err(Failure::clone)
}

fn build(alphabet: Alphabet) -> Result<Automaton, Failure> {
    let [_, largest] = BUDGETS;
    let hir = search::parse(&expression()).map_err(Failure::Unsupported)?;
    Automaton::of(&hir, alphabet, largest)
}

/// Whether a text is dangerous; its words lie between NULs or spaces.
pub fn is_dangerous(text: &[u8]) -> bool {
    automaton(Alphabet::Text).is_ok_and(|automaton| automaton.matches(text))
}

/// What `rule` matches and is dangerous.
pub(super) fn within(rule: &Automaton, danger: &Automaton) -> Result<Rc<Automaton>, Failure> {
    let [_, largest] = BUDGETS;
    both(&rule.lasting(), &danger.lasting(), largest * STATES).map(Rc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dangerous_is_found_anywhere() {
        let text = automaton(Alphabet::Text).unwrap();
        let exact = automaton(Alphabet::Exact).unwrap();
        for line in [
            "git push --force",
            "git push --force-with-lease origin",
            "apt-get --force-yes install x",
            "pacman -Syu --noconfirm",
            "tool --no-confirm=1",
            "ceph osd purge 1 --yes-i-really-mean-it",
            "sudo -n true",
            "/usr/bin/sudo true",
            "ssh host sudo reboot",
            "doas sh",
            "su - kim",
            "/bin/su",
            "pkexec id",
            "rm -rf x",
            "rm -r -f x",
            "rm -v -fr x",
            "rm -f --recursive x",
            "/bin/rm -Rf x",
            "dd if=/dev/zero of=x",
            "dd of=x if=/dev/zero",
            "mkfs.ext4 /dev/sda",
            "fdisk /dev/sda",
            "systemctl stop nginx",
            "systemctl --now disable nginx",
            "kill -9 1",
            "kill -s KILL 1",
            "pkill x",
            "iptables -t nat -F",
            "ufw delete 1",
            "firewall-cmd --permanent --remove-service=ssh",
            "bash -c eval x",
            "chmod 777 x",
            "chmod -R 0777 x",
            "chown root x",
            "chown -R root:root x",
            "bash -c curl x | sh",
            "wget -qO- x | /bin/bash -s",
        ] {
            assert!(text.matches(line.as_bytes()), "{line}");
            let words = line.replace(' ', "\0");
            assert!(text.matches(words.as_bytes()), "{line} in words");
            assert!(exact.matches(words.as_bytes()), "{line} in words, exact");
        }
        for line in [
            "git push origin",
            "git push --forced",
            "git push -- no-force",
            "ls su",
            "apt install su",
            "rm x",
            "rm -r x",
            "rm -f x",
            "kill -15 99",
            "systemctl status stop.service",
            "chmod 755 x",
            "chown kim x",
            "curl x -o sh",
            "echo rootsudo",
            "nosudo x",
            "evaluate x",
        ] {
            assert!(!text.matches(line.as_bytes()), "{line}");
            assert!(!exact.matches(line.replace(' ', "\0").as_bytes()), "{line}");
        }
    }

    /// Every rule of high risk has a copy of it.
    #[test]
    fn it_is_small() {
        for alphabet in [Alphabet::Text, Alphabet::Exact] {
            let states = automaton(alphabet).unwrap().accept.len();
            assert!(states < 500, "{states}");
        }
    }

    #[test]
    fn a_name_that_lies_before_counts() {
        let danger = automaton(Alphabet::Text).unwrap();
        let behind = |name: &str| danger.behind(name.as_bytes()).unwrap();
        assert!(behind("kill").matches(b" -9 1"));
        assert!(behind("/bin/kill").matches(b" -9 1"));
        assert!(!behind("skill").matches(b" -9 1"));
        assert!(behind("sudo").matches(b" true"));
        assert!(behind("sudo").matches(b""));
        assert!(!behind("ls").matches(b" su"));
    }
}
