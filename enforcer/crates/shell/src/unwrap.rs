//! Commands that start other commands given as words.

use super::{
    Word,
    expand::{Atom, value},
    packages,
    shells::is_shell,
    simple::base_name,
    state::State,
    stdin::{Input, output},
    wrappers::{self, assigns},
};

impl State {
    /// Opens a command: what it starts is added behind it.
    pub(super) fn open(&mut self, name: &str, words: &[Word], input: &Input) {
        if is_shell(name) {
            return self.in_place(|state| state.shell(name, words, input));
        }
        let rest = words.get(1..).unwrap_or_default();
        self.interpreted(name, words, input);
        self.data_client(name, words, input);
        match name {
            "eval" => {
                let rest = if rest.first().is_some_and(|word| word.text == "--") {
                    &rest[1..]
                } else {
                    rest
                };
                self.code(&joined(rest), input);
            }
            "." | "source" => {
                if let Some(file) = rest.iter().find(|word| !word.text.starts_with("--")) {
                    self.code_of(file, input);
                }
            }
            "cd" | "pushd" | "chdir" => self.moved(words),
            "trap" => {
                if let Some(action) = rest.iter().find(|word| word.text != "--")
                    && rest.len() > 1
                    && !action.text.starts_with('-')
                {
                    self.code(&action.text, input);
                }
            }
            "alias" => {
                for (name, value) in rest.iter().filter_map(|word| word.text.split_once('=')) {
                    self.code(value, input);
                    self.aliases.insert(name.to_owned(), value.to_owned());
                }
            }
            "set" => self.set_positional(rest),
            "read" | "mapfile" | "readarray" | "getopts" => self.read(name, words, input),
            "hash" => {
                if let [option, path, name, ..] = rest
                    && option.text == "-p"
                {
                    self.functions
                        .insert(name.text.clone(), format!("{} \"$@\"", path.text));
                }
            }
            "printf" => {
                if let [option, name, arguments @ ..] = rest
                    && option.text == "-v"
                {
                    let call: Vec<Word> = words.iter().take(1).chain(arguments).cloned().collect();
                    let value = output("printf", &call, &Input::Inherited);
                    let certain = self.branches == 0;
                    match value.known() {
                        Some(value) => self.variables.assign_text(&name.text, value, certain),
                        None => self.variables.assign(&name.text, None, certain),
                    }
                }
            }
            "su" | "script" | "sg" => {
                self.code_option(words, 'c', &["command", "session-command"], input);
            }
            "nix-shell" => {
                self.code_option(words, '\0', &["run", "command"], input);
            }
            "at" | "batch" => self.code_from(input),
            "find" | "gfind" => self.find(rest),
            "fd" | "fdfind" => self.fd(rest),
            "parallel" | "sem" => self.parallel(rest, input),
            "git" => self.git(words),
            "docker" | "podman" | "nerdctl" | "docker-compose" | "podman-compose" => {
                self.in_container(name, words, input);
            }
            "concurrently" | "cross-env-shell" => self.texts(rest),
            _ => self.wrapper(name, words, input),
        }
    }

    /// `read NAME…`, `mapfile NAME`.
    fn read(&mut self, name: &str, words: &[Word], input: &Input) {
        let rest = words.get(1..).unwrap_or_default();
        let data = match (input, self.descriptors.last()) {
            (Input::Inherited, Some(data)) => data.clone(),
            (input, _) => input.clone(),
        };
        let option = |letter: char| {
            rest.iter()
                .any(|word| word.text.starts_with('-') && word.text.contains(letter))
        };
        let is_name = |word: &&Word| assigns(&format!("{}=", word.text));
        let names: Vec<&Word> = rest.iter().filter(is_name).collect();
        for (at, variable) in names.iter().enumerate() {
            // A delimiter of its own may take more than a line.
            let text = data.code().map(|data| {
                if name == "read" && !option('d') {
                    data.lines().next().unwrap_or_default()
                } else {
                    data
                }
            });
            let elements = match (name, text) {
                ("mapfile" | "readarray", Some(text)) => Some(text.lines().collect()),
                ("read", Some(text)) if option('a') => Some(text.split_whitespace().collect()),
                _ => None,
            };
            if let Some(elements) = elements {
                let elements: Vec<&str> = elements;
                let elements = elements.iter().map(|text| value(text, false)).collect();
                self.variables.assign(&variable.text, Some(elements), true);
                continue;
            }
            // The last name takes what is left.
            let field = text.and_then(|text| {
                if at + 1 == names.len() {
                    Some(behind_fields(text, at))
                } else {
                    text.split_whitespace().nth(at).or(Some(text))
                }
            });
            match (field, &data) {
                (Some(field), _) => self.variables.assign_text(&variable.text, field, true),
                (None, Input::Unknown(source)) if !source.is_empty() => {
                    let hole = vec![Atom::Hole(source.clone())];
                    self.variables
                        .assign(&variable.text, Some(vec![hole]), true);
                }
                _ => self.variables.assign(&variable.text, None, true),
            }
        }
        if name != "read" {
            self.code_option(words, 'C', &[], input);
        }
    }

    fn set_positional(&mut self, rest: &[Word]) {
        let options = rest
            .iter()
            .take_while(|word| word.text.starts_with(['-', '+']) && word.text != "--")
            .count();
        let dashes = rest.get(options).is_some_and(|word| word.text == "--");
        let values = &rest[options + usize::from(dashes)..];
        if dashes || !values.is_empty() {
            self.positional = Some(values.to_vec());
        }
    }

    fn wrapper(&mut self, name: &str, words: &[Word], input: &Input) {
        if matches!(name, "flock" | "runuser" | "watch" | "entr" | "setpriv")
            && name != "watch"
            && self.code_option(
                words,
                if name == "entr" { 's' } else { 'c' },
                &["command"],
                input,
            )
        {
            return;
        }
        if packages::runs(name) && self.code_option(words, 'c', &["call"], input) {
            return;
        }
        let Some(inner) = wrappers::inner(name, words) else {
            return;
        };
        let mut command: Vec<Word> = Vec::new();
        if let Some(before) = inner.before {
            command = self.split(&before, false).into_iter().flatten().collect();
            while command.first().is_some_and(|word| assigns(&word.text)) {
                command.remove(0);
            }
        }
        command.extend_from_slice(words.get(inner.at..).unwrap_or_default());
        if packages::runs(name) {
            packages::unversioned(&mut command);
        }
        // `coproc NAME { …; }`.
        if name == "coproc"
            && command
                .get(1)
                .is_some_and(|word| matches!(word.text.as_str(), "{" | "("))
        {
            command.remove(0);
        }
        match name {
            "watch" => self.code(&joined(&command), input),
            "xargs" | "gxargs" => self.xargs(words, inner.at, command, input),
            _ => {
                self.nested(|state| {
                    state.simple(command, input);
                });
            }
        }
    }

    /// `xargs`: what it reads becomes words, if it is known.
    fn xargs(&mut self, words: &[Word], at: usize, mut command: Vec<Word>, input: &Input) {
        let own = words.get(1..at).unwrap_or_default();
        let replaced = own.iter().enumerate().find_map(|(index, word)| {
            let text = word.text.as_str();
            if text == "-I" || text == "-J" {
                return own.get(index + 1).map(|word| word.text.clone());
            }
            let attached = text
                .strip_prefix("-I")
                .or_else(|| text.strip_prefix("--replace="));
            attached
                .map(str::to_owned)
                .or_else(|| (text == "-i" || text == "--replace").then(|| "{}".to_owned()))
        });
        if let Some(data) = input.known() {
            match &replaced {
                Some(mark) if !mark.is_empty() => {
                    let line = data.lines().next().unwrap_or_default().trim();
                    for word in &mut command {
                        *word = Word {
                            text: word.text.replace(mark.as_str(), line),
                            ..word.clone()
                        };
                        word.rest.clone_from(&word.text);
                    }
                }
                _ => command.extend(data.split_whitespace().map(Word::literal)),
            }
        }
        // `xargs sh -c`: what is read is code.
        let shell = command
            .iter()
            .position(|word| is_shell(base_name(&word.text)));
        let code = shell.and_then(|at| {
            command[at..]
                .iter()
                .position(|word| is_code_option(&word.text))
                .map(|code| at + code)
        });
        if let Some(at) = code
            && input.known().is_none()
        {
            let behind = command.get(at + 1..).unwrap_or_default();
            let text = behind.iter().find(|word| word.text != "--");
            let mark = replaced.as_deref().unwrap_or_default();
            if text.is_none_or(|text| !mark.is_empty() && text.text.contains(mark)) {
                self.code_from(&input.clone().sourced_if_inherited("xargs"));
            }
        } else if let (Some(_), None, Some(data)) = (code, &replaced, input.known()) {
            self.code(data, &Input::Inherited);
        }
        self.nested(|state| {
            state.simple(command, &Input::Inherited);
        });
    }

    /// `find … -exec COMMAND ;`.
    fn find(&mut self, rest: &[Word]) {
        let mut rest = rest;
        while let Some(at) = rest
            .iter()
            .position(|word| matches!(word.text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir"))
        {
            rest = &rest[at + 1..];
            let end = rest
                .iter()
                .position(|word| matches!(word.text.as_str(), ";" | "+"))
                .unwrap_or(rest.len());
            let command = rest[..end].to_vec();
            self.nested(|state| {
                state.simple(command, &Input::Inherited);
            });
            rest = &rest[end..];
        }
    }

    /// `fd PATTERN -x COMMAND`.
    fn fd(&mut self, rest: &[Word]) {
        let exec =
            |word: &Word| matches!(word.text.as_str(), "-x" | "-X" | "--exec" | "--exec-batch");
        if let Some(at) = rest.iter().position(exec) {
            let command = rest[at + 1..]
                .split(|word| word.text == ";")
                .next()
                .unwrap_or_default()
                .to_vec();
            self.nested(|state| {
                state.simple(command, &Input::Inherited);
            });
        }
    }

    /// `parallel [options] COMMAND ::: ARGUMENTS`: a text for a shell, once for each argument.
    fn parallel(&mut self, rest: &[Word], input: &Input) {
        let mut at = 0;
        while let Some(word) = rest.get(at).filter(|word| word.text.starts_with('-')) {
            let takes = matches!(
                word.text.as_str(),
                "-j" | "-N"
                    | "-n"
                    | "-a"
                    | "-L"
                    | "-s"
                    | "-P"
                    | "-I"
                    | "-C"
                    | "-S"
                    | "--jobs"
                    | "--delay"
                    | "--timeout"
                    | "--retries"
                    | "--joblog"
                    | "--results"
                    | "--tmpdir"
                    | "--colsep"
                    | "--max-procs"
                    | "--max-args"
                    | "--arg-file"
                    | "--sshlogin"
                    | "--load"
                    | "--workdir"
                    | "--tagstring"
            );
            at += 1 + usize::from(takes);
        }
        let rest = rest.get(at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|word| word.text.starts_with(":::"))
            .unwrap_or(rest.len());
        let (command, arguments) = rest.split_at(end);
        let arguments: Vec<String> = arguments
            .iter()
            .filter(|word| !word.text.starts_with(":::"))
            .map(|word| word.text.clone())
            .collect();
        let text = joined(command);
        // The words as they were meant, before the shell joins and splits them anew.
        let meant = command.to_vec();
        self.reading(|state| {
            state.nested(|state| {
                state.simple(meant, &Input::Inherited);
            });
        });
        if command.is_empty() {
            for argument in &arguments {
                self.code(argument, &Input::Inherited);
            }
            if arguments.is_empty() {
                self.code_from(input);
            }
        } else if text.contains("{}") {
            for argument in arguments.iter().take(16) {
                self.code(&text.replace("{}", argument), &Input::Inherited);
            }
            if arguments.is_empty() {
                self.code(&text, &Input::Inherited);
            }
        } else {
            self.code(
                &format!("{text} {}", arguments.join(" ")),
                &Input::Inherited,
            );
        }
    }
}

/// Whether an option of a shell says that code follows: `-c`, or bundled as in `-lc`.
fn is_code_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|letters| {
        letters.ends_with('c') && letters.bytes().all(|b| b.is_ascii_alphabetic())
    })
}

/// Words as one text.
pub(super) fn joined(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    texts.join(" ")
}

/// What stands behind so many words of a line.
fn behind_fields(line: &str, count: usize) -> &str {
    let mut rest = line.trim();
    for _ in 0..count {
        rest = rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest
}
