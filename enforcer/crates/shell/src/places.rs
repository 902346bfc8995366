//! Where paths lead: the directory that `cd` has gone to, the shortest form of a path, the secret files that a pattern
//! may be expanded to. What a part comes to by these is another reading of it.

use super::{PartKind, Word, secrets, state::State};

/// Most directories that are possible at a time.
const PLACES_MAX: usize = 8;
/// Longest word that is taken for a path (`PATH_MAX`, linux/limits.h).
const PATH_MAX: usize = 4096;

/// A path in its shortest form, without following links. A relative one keeps the `..` that it begins with; what is
/// above the root is the root, what is above a home directory is its parent.
pub fn shortest(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut absolute = path.starts_with('/');
    for component in path.split('/') {
        match (component, kept.last()) {
            ("" | ".", _) => {}
            ("..", None) if absolute => {}
            ("..", None | Some(&"..")) => kept.push(component),
            ("..", Some(last)) if last.starts_with('~') && kept.len() == 1 => {
                kept[0] = "home";
                absolute = true;
            }
            ("..", Some(last)) if last.contains(['$', '`', '*', '?', '[']) => kept.push(component),
            ("..", Some(_)) => {
                kept.pop();
            }
            (component, _) => kept.push(component),
        }
    }
    let joined = kept.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        // A directory with this name is no home directory.
        (false, false) if joined.starts_with('~') && !path.starts_with('~') => {
            format!("./{joined}")
        }
        (false, false) => joined,
    }
}

/// `$HOME/x` as `~/x`.
fn at_home(path: &str) -> String {
    for spelling in ["$HOME", "${HOME}"] {
        if let Some(rest) = path.strip_prefix(spelling)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("~{rest}");
        }
    }
    path.to_owned()
}

/// A path from a directory; an empty one is where the text began.
fn from(place: &str, path: &str) -> String {
    if path.starts_with(['/', '~']) || place.is_empty() {
        shortest(path)
    } else {
        shortest(&format!("{place}/{path}"))
    }
}

/// Programs whose first operand is no path.
fn operands_before(name: &str) -> usize {
    usize::from(matches!(
        name,
        "chmod"
            | "chown"
            | "chgrp"
            | "setfacl"
            | "setfattr"
            | "sed"
            | "grep"
            | "egrep"
            | "fgrep"
            | "rg"
            | "awk"
    ))
}

/// A word with its path as it is from `place`; nothing if it is none, or stays as it is.
fn placed(word: &Word, place: &str) -> Option<Word> {
    let text = word.text.as_str();
    if text.len() > PATH_MAX || text.contains("://") || text.contains(char::is_whitespace) {
        return None;
    }
    let (name, path) = match text.split_once('=') {
        Some((name, path)) if !name.contains('/') => (&text[..=name.len()], path),
        _ if text.starts_with('-') => return None,
        _ => ("", text),
    };
    let path = at_home(path);
    // What is known only when it runs may lead anywhere.
    if path.is_empty() || path.contains(['$', '`', '<', '>']) {
        return None;
    }
    let new = format!("{name}{}", from(place, &path));
    (new != text && new.trim_end_matches('/') != text.trim_end_matches('/')).then(|| Word {
        text: new.clone(),
        rest: new,
        unknown: false,
        pattern: word.pattern,
        tilde: false,
    })
}

impl State {
    /// The text begins in a directory, a path from where it would else.
    pub(super) fn begin_in(&mut self, directory: Option<&str>) {
        if let Some(directory) = directory {
            self.places = vec![from("", directory)];
        }
    }

    /// Says where the text began, as a part: a rule may be about being there.
    pub(super) fn has_begun_in(&mut self, directory: Option<&str>) {
        if let Some(directory) = directory {
            let words = ["cd", directory].map(|word| Word::literal(word.to_owned()));
            self.part(PartKind::Builtin, words.to_vec());
        }
    }

    /// `cd`, `pushd`: where the commands behind it are.
    pub(super) fn moved(&mut self, words: &[Word]) {
        let target = words[1..]
            .iter()
            .find(|word| !word.text.starts_with('-') || word.text == "-");
        let target = target.map_or_else(|| "~".to_owned(), |word| at_home(&word.text));
        if target == "-" || target.contains(['$', '`', '*', '?']) || target.starts_with('+') {
            // Anywhere: what is relative from here on says nothing.
            if self.branches == 0 {
                self.places = vec![String::new()];
            }
            return;
        }
        let new: Vec<String> = self
            .places
            .iter()
            .map(|place| from(place, &target))
            .collect();
        if self.branches == 0 {
            self.places = new;
        } else {
            let old = std::mem::take(&mut self.places);
            self.places = new;
            let others = old.into_iter().filter(|place| !self.places.contains(place));
            let others: Vec<String> = others.collect();
            self.places.extend(others);
        }
        // The newest stand in front.
        self.places.truncate(PLACES_MAX);
    }

    /// Does something whose changes of the directory stay inside.
    pub(super) fn in_place<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.places.clone();
        let result = what(self);
        self.places = outer;
        result
    }

    /// Adds what a part comes to by where its paths lead.
    pub(super) fn placed(&mut self, kind: PartKind, words: &[Word]) {
        if !matches!(
            kind,
            PartKind::Program | PartKind::Write | PartKind::Read | PartKind::Unknown
        ) || words.len() < 2
        {
            return;
        }
        let name = super::simple::base_name(&words[0].text);
        let fixed = words[1..]
            .iter()
            .enumerate()
            .filter(|(_, word)| !word.text.starts_with('-'))
            .take(operands_before(name))
            .map(|(at, _)| at + 1)
            .last()
            .unwrap_or(0);
        let mut readings: Vec<Vec<Word>> = Vec::new();
        for place in &self.places {
            let mut reading = words.to_vec();
            let mut changed = false;
            let mut climbs = false;
            for word in reading.iter_mut().skip(fixed + 1) {
                if let Some(new) = placed(word, place) {
                    changed = true;
                    *word = new;
                }
                climbs |= word.text.starts_with("..");
            }
            if let Some(base) = self.base.as_deref().filter(|_| climbs) {
                let mut climbed = reading.clone();
                for word in &mut climbed {
                    if word.text.starts_with("..")
                        && let Some(new) = placed(word, base)
                    {
                        *word = new;
                    }
                }
                readings.push(climbed);
            }
            if changed {
                readings.push(reading);
            }
        }
        let own = [words.to_vec()];
        let mut patterns = Vec::new();
        for reading in own.iter().chain(&readings) {
            for (at, word) in reading.iter().enumerate().skip(1) {
                if !word.pattern {
                    continue;
                }
                for secret in secrets::matched(&word.text) {
                    let mut reading = reading.clone();
                    reading[at] = Word::literal(secret);
                    patterns.push(reading);
                }
            }
        }
        readings.extend(patterns);
        self.reading(|state| {
            for reading in readings {
                state.part(PartKind::Reading, reading);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, parse_at};

    fn lines(text: &str) -> Vec<String> {
        let parts = parse(text).parts;
        parts.iter().map(|part| part.texts().join(" ")).collect()
    }

    #[test]
    fn a_path_has_one_shortest_form() {
        for (path, wanted) in [
            ("a//b/./c", "a/b/c"),
            ("a/../../b", "../b"),
            ("../../b", "../../b"),
            ("/../a/", "/a"),
            ("//etc/./x/../shadow", "/etc/shadow"),
            ("~/./.ssh//id", "~/.ssh/id"),
            ("~/a/../.ssh", "~/.ssh"),
            ("~/..", "/home"),
            ("~/../..", "/"),
            ("./.", "."),
            ("./~", "./~"),
            ("a/../~", "./~"),
            ("/", "/"),
            ("$x/../y", "$x/../y"),
        ] {
            assert_eq!(shortest(path), wanted, "{path}");
        }
    }

    #[test]
    fn relative_paths_are_read_from_where_the_text_has_gone() {
        for (text, wanted) in [
            ("cd /etc && rm passwd", "rm /etc/passwd"),
            ("cd /etc; echo x > passwd", "tee /etc/passwd"),
            ("cd /etc && echo x > passwd", "tee /etc/passwd"),
            ("cd ~/.ssh && cat id_x", "cat ~/.ssh/id_x"),
            (
                "cd \"$HOME\"/.aws; cat credentials",
                "cat ~/.aws/credentials",
            ),
            ("cd && rm -rf .", "rm -rf ~"),
            ("cd / && rm -rf *", "rm -rf /*"),
            ("pushd /etc && rm -rf cron.d", "rm -rf /etc/cron.d"),
            ("cd /home; cd ann; rm -rf .ssh", "rm -rf /home/ann/.ssh"),
            ("(cd /etc && tee -a hosts)", "tee -a /etc/hosts"),
            ("true && cd /etc && rm passwd", "rm /etc/passwd"),
            ("cd /etc && chmod 777 passwd", "chmod 777 /etc/passwd"),
            ("cd /dev && dd if=x of=sda", "dd if=/dev/x of=/dev/sda"),
            ("cd /etc && sh -c 'rm passwd'", "rm /etc/passwd"),
            ("cat ~//.ssh/./id_x", "cat ~/.ssh/id_x"),
            ("cat /etc/../etc//shadow", "cat /etc/shadow"),
            ("cat --file=/etc//shadow", "cat --file=/etc/shadow"),
        ] {
            let lines = lines(text);
            assert!(lines.iter().any(|line| line == wanted), "{text}: {lines:?}");
        }
        for text in [
            "(cd /etc); rm passwd",
            "x=$(cd /etc); rm passwd",
            "sh -c 'cd /etc'; rm passwd",
            "cd /etc; cd -; rm passwd",
            "cd /etc; cd \"$x\"; rm passwd",
        ] {
            let lines = lines(text);
            assert!(!lines.iter().any(|line| line == "rm /etc/passwd"), "{text}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_read_from_where_the_text_begins() {
        let at = |text: &str| {
            let parts = parse_at(text, Some("/home/ann/work"), None).parts;
            parts
                .iter()
                .map(|part| part.texts().join(" "))
                .collect::<Vec<_>>()
        };
        assert!(at("rm ../../../etc/passwd").contains(&"rm /etc/passwd".to_owned()));
        assert!(at("cd ..; rm ../../etc/passwd").contains(&"rm /etc/passwd".to_owned()));
        assert!(!at("rm -rf build").contains(&"rm -rf /home/ann/work/build".to_owned()));
    }

    #[test]
    fn a_pattern_is_read_as_the_secrets_that_it_may_become() {
        for (text, wanted) in [
            ("cat ~/.ss?/id_*", "cat ~/.ssh/id_rsa"),
            ("cat ~/.s*/id_ed25519", "cat ~/.ssh/id_ed25519"),
            ("cat /home/*/.[s]sh/id_r*", "cat /home/*/.ssh/id_rsa"),
            ("cat ~/.aw?/cred*", "cat ~/.aws/credentials"),
            ("cd ~/.aws && cat cred*", "cat ~/.aws/credentials"),
            ("cat /etc/shado?", "cat /etc/shadow"),
            ("cat .en?", "cat .env"),
            ("cat conf/.e*v", "cat conf/.env"),
            ("cat id_r*", "cat id_rsa"),
        ] {
            let lines = lines(text);
            assert!(lines.iter().any(|line| line == wanted), "{text}: {lines:?}");
        }
        for text in [
            "cat *",
            "cat *.md",
            "cat src/*.rs",
            "cat ~/.ssh/*.pub",
            "ls .*",
            "cat '.en?'",
            "cat .e*rc",
            "find dir/*[0-9]",
        ] {
            assert_eq!(lines(text).len(), 1, "{text}: {:?}", lines(text));
        }
    }
}
