//! Commands that start other commands given as words.

use super::{
    Word, fallback,
    shells::is_shell,
    state::State,
    stdin::{Input, output},
    wrappers::{self, assigns},
};

impl State {
    /// Opens a command: what it starts is added behind it.
    pub(super) fn open(&mut self, name: &str, words: &[Word], input: &Input) {
        if is_shell(name) {
            return self.shell(words, input);
        }
        let rest = words.get(1..).unwrap_or_default();
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
            "trap" => {
                if let Some(action) = rest.iter().find(|word| word.text != "--")
                    && rest.len() > 1
                    && !action.text.starts_with('-')
                {
                    self.code(&action.text, input);
                }
            }
            "alias" => {
                for (_, value) in rest.iter().filter_map(|word| word.text.split_once('=')) {
                    self.code(value, input);
                }
            }
            "set" => self.set_positional(rest),
            "read" | "mapfile" | "readarray" | "getopts" => {
                for word in rest.iter().filter(|word| !word.text.starts_with('-')) {
                    self.variables.assign(&word.text, None, true);
                }
                if name != "read" {
                    self.code_option(words, 'C', &[], input);
                }
            }
            "printf" => {
                if let [option, name, arguments @ ..] = rest
                    && option.text == "-v"
                {
                    let call: Vec<Word> = words.iter().take(1).chain(arguments).cloned().collect();
                    let value = output("printf", &call, &Input::Inherited);
                    let value = value.known().map(|value| vec![value.to_owned()]);
                    let certain = self.branches == 0;
                    self.variables.assign(&name.text, value, certain);
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
            "git" => self.git(rest),
            _ => self.wrapper(name, words, input),
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
            self.positional = values
                .iter()
                .map(|word| word.known().then(|| word.text.clone()))
                .collect();
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
        let Some(inner) = wrappers::inner(name, words) else {
            return;
        };
        let mut command: Vec<Word> = Vec::new();
        if let Some(before) = inner.before {
            command = fallback::split(&before).into_iter().flatten().collect();
            while command.first().is_some_and(|word| assigns(&word.text)) {
                command.remove(0);
            }
        }
        command.extend_from_slice(words.get(inner.at..).unwrap_or_default());
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
            match replaced {
                Some(mark) if !mark.is_empty() => {
                    let line = data.lines().next().unwrap_or_default().trim();
                    for word in &mut command {
                        *word = Word {
                            text: word.text.replace(&mark, line),
                            ..word.clone()
                        };
                        word.rest.clone_from(&word.text);
                    }
                }
                _ => command.extend(data.split_whitespace().map(Word::literal)),
            }
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

    /// Commands in git's own options: aliases, `rebase --exec`, `bisect run`, `submodule foreach`.
    fn git(&mut self, rest: &[Word]) {
        for pair in rest.windows(2) {
            let [option, value] = pair else { continue };
            let alias = value
                .text
                .strip_prefix("alias.")
                .and_then(|alias| alias.split_once('='));
            let code = match option.text.as_str() {
                "-c" => alias
                    .and_then(|(_, value)| value.strip_prefix('!'))
                    .map(str::to_owned),
                "-x" | "--exec" if rest.iter().any(|word| word.text == "rebase") => {
                    Some(value.text.clone())
                }
                "--tree-filter" | "--index-filter" | "--env-filter" | "--msg-filter"
                | "--commit-filter" => Some(value.text.clone()),
                name if name.starts_with("alias.") => {
                    value.text.strip_prefix('!').map(str::to_owned)
                }
                _ => None,
            };
            if let Some(code) = code {
                self.code(&code, &Input::Inherited);
            }
        }
        let behind = |first: &str, second: &str| {
            let at = rest
                .windows(2)
                .position(|pair| pair[0].text == first && pair[1].text == second)?;
            rest.get(at + 2..).map(<[Word]>::to_vec)
        };
        if let Some(command) = behind("bisect", "run") {
            self.nested(|state| {
                state.simple(command, &Input::Inherited);
            });
        }
        if let Some(command) = behind("submodule", "foreach") {
            let command: Vec<Word> = command
                .into_iter()
                .skip_while(|word| word.text.starts_with('-'))
                .collect();
            self.code(&joined(&command), &Input::Inherited);
        }
    }
}

/// Words as one text.
fn joined(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    texts.join(" ")
}
