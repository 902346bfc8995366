//! Redirections: the data that a command reads, the files that it opens, and what the grammar puts behind them.

use tree_sitter::Node;

use super::{
    PartKind, Word,
    expand::{Atom, fields, known_text},
    state::State,
    stdin::Input,
    tree,
};

impl State {
    pub(super) fn redirected(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut input = input.clone();
        let mut arguments = Vec::new();
        let mut written = false;
        let opened = self.opened.len();
        let from = self.script.parts.len();
        let body = node.child_by_field_name("body");
        let exec = body.is_some_and(|body| tree::source(text, body).starts_with("exec"));
        for redirect in tree::named(node) {
            if body.is_some_and(|body| body.id() == redirect.id()) {
                continue;
            }
            written |= self.redirect(text, redirect, &mut input, &mut arguments);
        }
        let data = input.clone();
        let files: Vec<super::Part> = self.script.parts.get(from..).unwrap_or_default().to_vec();
        let before = self.places.clone();
        let mut output = match body {
            Some(body) if body.kind() == "command" => self.command(text, body, arguments, &input),
            Some(body) => self.redirected_body(text, body, arguments, &input),
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
        output
    }

    /// What is redirected, and is no simple command. The words behind the redirection, as in `a && sudo > f b`, are the
    /// last command's.
    fn redirected_body(
        &mut self,
        text: &str,
        body: Node<'_>,
        arguments: Vec<Vec<Atom>>,
        input: &Input,
    ) -> Input {
        if arguments.is_empty() {
            return self.statement(text, body, input);
        }
        let mut last = body;
        while matches!(last.kind(), "list" | "pipeline" | "negated_command")
            && let Some(child) = tree::named(last).pop()
        {
            last = child;
        }
        let outer = self.behind.replace((last.id(), arguments));
        let output = self.statement(text, body, input);
        match std::mem::replace(&mut self.behind, outer) {
            Some((_, arguments)) => self.started(&arguments, &[], input),
            None => output,
        }
    }

    /// A connection opened by a redirection among the parts from `from` to `body`, and used behind that by more than what
    /// writes a text: whoever is connected may talk to it.
    pub(super) fn device_used(&mut self, from: usize, body: usize) {
        let opened = self.script.parts.get(from..body).unwrap_or_default();
        let parts = self.script.parts.get(body..).unwrap_or_default();
        let device = opened
            .iter()
            .filter(|part| matches!(part.kind, PartKind::Write | PartKind::Read))
            .filter_map(|part| part.words.last())
            .find(|file| file.text.starts_with("/dev/tcp/") || file.text.starts_with("/dev/udp/"));
        let writes = |part: &super::Part| {
            let name = part.words.first().map_or("", |word| word.text.as_str());
            !matches!(
                part.kind,
                PartKind::Program | PartKind::Unknown | PartKind::Builtin
            ) || matches!(name, "echo" | "printf" | ":" | "true" | "test" | "[")
        };
        if let Some(device) = device.filter(|_| !parts.iter().all(writes)) {
            let words = vec![Word::literal("exec"), device.clone()];
            self.reading(|state| state.part(PartKind::Program, words));
        }
    }

    /// One redirection: what it reads becomes the input, what stands behind it on the line is collected. Whether
    /// standard output goes to a file comes back.
    pub(super) fn redirect(
        &mut self,
        text: &str,
        node: Node<'_>,
        input: &mut Input,
        arguments: &mut Vec<Vec<Atom>>,
    ) -> bool {
        match node.kind() {
            "file_redirect" => return self.file_redirect(text, node, input, arguments),
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
        // Behind `<<<`, which is `<` to the grammar.
        let mut string = false;
        for child in tree::children(node) {
            match child.kind() {
                "file_descriptor" => descriptor = Some(tree::source(text, child)),
                kind if !child.is_named() => {
                    operator = kind;
                    let rest = text.get(child.start_byte()..).unwrap_or_default();
                    string = rest.starts_with("<<<");
                }
                _ if string && target.is_none() => {
                    let atoms = self.word(text, child);
                    *input = if let Some(data) = known_text(&atoms) {
                        Input::Known((data + "\n").into())
                    } else {
                        // What is not known stands in it as it is written, or as what it was assigned.
                        let words = fields(&atoms).into_iter().map(|word| word.text);
                        Input::Template(words.collect::<Vec<_>>().join(" ").into())
                    };
                    target = Some(Vec::new());
                }
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
        let files = self.readings(target.into_iter().filter(|_| !string).collect());
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
            self.part(PartKind::Write, words.collect());
        } else if operator.starts_with('<') {
            self.part(PartKind::Read, vec![Word::literal("cat"), file]);
        }
    }
}

#[cfg(test)]
#[path = "redirections_tests.rs"]
mod tests;
