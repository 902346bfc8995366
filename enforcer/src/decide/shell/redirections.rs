//! Redirections: the data that a command reads, the files that it opens, and what the grammar puts behind them.

use tree_sitter::Node;

use super::{
    Kind, Word,
    expand::{Atom, fields, known_text},
    state::State,
    stdin::Input,
    tree,
    words::Quoting,
};

impl State {
    pub(super) fn redirected(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut input = input.clone();
        let mut arguments = Vec::new();
        let mut after = Vec::new();
        let mut written = false;
        let opened = self.opened.len();
        let from = self.script.parts.len();
        let body = node.child_by_field_name("body");
        let exec = body.is_some_and(|body| tree::source(text, body).starts_with("exec"));
        for redirect in tree::named(node) {
            if body.is_some_and(|body| body.id() == redirect.id()) {
                continue;
            }
            written |= self.redirect(text, redirect, &mut input, &mut arguments, &mut after);
        }
        let data = input.clone();
        let files: Vec<super::Part> = self.script.parts.get(from..).unwrap_or_default().to_vec();
        let before = self.places.clone();
        let mut output = match body {
            Some(body) if body.kind() == "command" => self.command(text, body, arguments, &input),
            Some(body) => self.statement(text, body, &input),
            None => self.started(&arguments, &[], &input),
        };
        // `> >(command)`: what is written is what it reads.
        for stream in tree::named(node).into_iter().flat_map(tree::named) {
            if stream.kind() == "process_substitution"
                && tree::source(text, stream).starts_with('>')
            {
                let from = match &output {
                    Input::Unknown(_) => output
                        .clone()
                        .sourced(body.map_or("", |body| tree::source(text, body))),
                    known => known.clone(),
                };
                self.sequence(text, stream, &from);
            }
        }
        for file in self.opened.split_off(opened) {
            self.file_holds(&file, output.clone());
        }
        // The grammar gives a redirection of the last command to the whole list: `cd /etc && echo x > passwd`.
        if self.places != before {
            for file in &files {
                self.placed(file.kind, &file.words);
            }
        }
        self.device_used(from, from + files.len());
        if exec && data != Input::Inherited {
            self.descriptors.push(data);
        }
        if written {
            output = Input::none();
        }
        for (kind, node) in after {
            output = match kind {
                After::Pipe => {
                    let mut data = output;
                    for stage in tree::named(node) {
                        data = self.statement(text, stage, &data);
                    }
                    data
                }
                After::List => self.statement(text, node, &Input::Inherited),
            };
        }
        output
    }

    /// A connection opened by a redirection among the parts from `from` to `body`, and used behind that by more than what
    /// writes a text: whoever is connected may talk to it.
    pub(super) fn device_used(&mut self, from: usize, body: usize) {
        let opened = self.script.parts.get(from..body).unwrap_or_default();
        let parts = self.script.parts.get(body..).unwrap_or_default();
        let device = opened
            .iter()
            .filter(|part| matches!(part.kind, Kind::Write | Kind::Read))
            .filter_map(|part| part.words.last())
            .find(|file| file.text.starts_with("/dev/tcp/") || file.text.starts_with("/dev/udp/"));
        let writes = |part: &super::Part| {
            let name = part.words.first().map_or("", |word| word.text.as_str());
            !matches!(part.kind, Kind::Program | Kind::Unknown | Kind::Builtin)
                || matches!(name, "echo" | "printf" | ":" | "true" | "test" | "[")
        };
        if let Some(device) = device.filter(|_| !parts.iter().all(writes)) {
            let words = vec![Word::literal("exec"), device.clone()];
            self.reading(|state| state.part(Kind::Program, words));
        }
    }

    /// One redirection: what it reads becomes the input, what stands behind it on the line is collected. Whether
    /// standard output goes to a file comes back.
    pub(super) fn redirect<'n>(
        &mut self,
        text: &str,
        node: Node<'n>,
        input: &mut Input,
        arguments: &mut Vec<Vec<Atom>>,
        after: &mut Vec<(After, Node<'n>)>,
    ) -> bool {
        match node.kind() {
            "file_redirect" => return self.file_redirect(text, node, input, arguments),
            "herestring_redirect" => {
                for child in tree::named(node) {
                    if child.kind() == "file_descriptor" {
                        continue;
                    }
                    let atoms = self.word(text, child);
                    *input = if let Some(data) = known_text(&atoms) {
                        Input::Known((data + "\n").into())
                    } else {
                        // What is not known stands in it as it is written, or as what it was assigned.
                        let words = fields(&atoms).into_iter().map(|word| word.text);
                        Input::Template(words.collect::<Vec<_>>().join(" ").into())
                    };
                }
            }
            "heredoc_redirect" => self.here_document(text, node, input, arguments, after),
            _ => self.visit(text, node),
        }
        false
    }

    fn file_redirect(
        &mut self,
        text: &str,
        node: Node<'_>,
        input: &mut Input,
        arguments: &mut Vec<Vec<Atom>>,
    ) -> bool {
        let mut operator = "";
        let mut descriptor = None;
        let mut target = None;
        for child in tree::children(node) {
            match child.kind() {
                "file_descriptor" => descriptor = Some(tree::source(text, child)),
                kind if !child.is_named() => operator = kind,
                "process_substitution" if target.is_none() && operator.contains('>') => {
                    // It is walked once what it reads is known.
                    target = Some(Vec::new());
                }
                "process_substitution" if target.is_none() => {
                    *input = self.substitution(text, child);
                    target = Some(Vec::new());
                }
                _ => {
                    let atoms = self.word(text, child);
                    // The grammar takes what follows on the line for targets too.
                    if target.is_none() {
                        target = Some(atoms);
                    } else {
                        arguments.push(atoms);
                    }
                }
            }
        }
        let files = self.readings(target.into_iter().collect());
        for file in files.into_iter().flatten() {
            // `<&$fd`: a descriptor that `exec` opened.
            if operator.starts_with('<')
                && (operator == "<&" || file.text.starts_with("/dev/fd/"))
                && file.text != "0"
                && let Some(data) = self.descriptors.last()
            {
                *input = data.clone();
            }
            // `< file`: what the text has written there.
            if operator == "<"
                && descriptor.is_none_or(|number| number == "0")
                && let Some(data) = self.held(&file.text)
            {
                *input = data;
            }
            self.opened(operator, file);
        }
        operator.contains('>') && matches!(descriptor, None | Some("1"))
    }

    /// A file that a redirection opens.
    fn opened(&mut self, operator: &str, file: Word) {
        let number = file.text.trim_end_matches('-');
        let number = number.bytes().all(|byte| byte.is_ascii_digit());
        let descriptor = operator.ends_with('&') && (file.unknown || number);
        let harmless = [
            "/dev/null",
            "/dev/stdin",
            "/dev/stdout",
            "/dev/stderr",
            "/dev/tty",
        ];
        if descriptor || harmless.contains(&file.text.as_str()) || file.text.starts_with("/dev/fd/")
        {
            return;
        }
        if operator.contains('>') {
            self.opened.push(file.text.clone());
            let append = operator.contains(">>");
            let option = append.then(|| Word::literal("-a"));
            let words = [Word::literal("tee")]
                .into_iter()
                .chain(option)
                .chain([file]);
            self.part(Kind::Write, words.collect());
        } else if operator.starts_with('<') {
            self.part(Kind::Read, vec![Word::literal("cat"), file]);
        }
    }

    fn here_document<'n>(
        &mut self,
        text: &str,
        node: Node<'n>,
        input: &mut Input,
        arguments: &mut Vec<Vec<Atom>>,
        after: &mut Vec<(After, Node<'n>)>,
    ) {
        let mut quoted = false;
        for child in tree::named(node) {
            match child.kind() {
                "heredoc_start" => quoted = tree::source(text, child).contains(['\'', '"', '\\']),
                "heredoc_body" => {
                    let source = tree::source(text, child);
                    *input = if quoted {
                        Input::Known(source.into())
                    } else {
                        let mut atoms = Vec::new();
                        let parts = tree::named(child);
                        self.push_range(
                            text,
                            child.byte_range(),
                            &parts,
                            Quoting::Document,
                            &mut atoms,
                        );
                        let words = fields(&atoms);
                        // What is not known stands in the data as it is written.
                        let known = words.iter().all(|word| !word.unknown);
                        let data: Vec<String> = words.into_iter().map(|word| word.text).collect();
                        Input::written(data.concat(), known)
                    };
                }
                "heredoc_end" | "file_descriptor" => {}
                "pipeline" => after.push((After::Pipe, child)),
                "file_redirect" | "herestring_redirect" | "heredoc_redirect" => {
                    self.redirect(text, child, input, arguments, after);
                }
                kind if kind.ends_with("command")
                    || kind.ends_with("statement")
                    || kind.ends_with("assignment")
                    || matches!(kind, "list" | "subshell" | "function_definition") =>
                {
                    after.push((After::List, child));
                }
                _ => arguments.push(self.word(text, child)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decide::shell::parse;

    #[test]
    fn a_connection_that_a_program_uses_is_no_wait_for_a_port() {
        let used = |text: &str| {
            let parts = parse(text).parts;
            parts
                .iter()
                .any(|part| part.texts() == ["exec", "/dev/tcp/localhost/1"])
        };
        for text in [
            "bash -i >& /dev/tcp/localhost/1 0>&1",
            ">& /dev/tcp/localhost/1 bash -i",
            "{ sh; } < /dev/tcp/localhost/1",
            "exec 3<>/dev/tcp/localhost/1; bash <&3",
            "python3 -i > /dev/tcp/localhost/1",
            "$SHELL > /dev/tcp/localhost/1",
        ] {
            assert!(used(text), "{text}: {:?}", parse(text).parts);
        }
        for text in [
            "until (echo > /dev/tcp/localhost/1) 2>/dev/null; do sleep 1; done",
            "timeout 5 bash -c 'until echo > /dev/tcp/localhost/1; do sleep 1; done'",
            ": > /dev/tcp/localhost/1 && npm test",
        ] {
            assert!(!used(text), "{text}: {:?}", parse(text).parts);
        }
    }
}

/// What stands behind a here document's mark on its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// `| command`.
    Pipe,
    /// `&& command`.
    List,
}
