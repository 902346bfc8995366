//! The walk over statements: lists, pipelines, control flow, redirections, definitions. Every branch is taken.

use tree_sitter::Node;

use super::{
    Kind, Word,
    expand::{Atom, known_text},
    state::State,
    stdin::Input,
    tree,
    words::{Quoting, readings},
};

impl State {
    /// The statements below a node, one after the other; what they write comes back.
    pub(super) fn sequence(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut all = Input::none();
        for child in tree::named(node) {
            all = all.then(self.statement(text, child, input));
        }
        all.sourced(tree::source(text, node))
    }

    /// One statement.
    pub(super) fn statement(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        self.deeper(|state| state.statement_here(text, node, input))
    }

    fn statement_here(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        match node.kind() {
            "comment" | "heredoc_body" | "heredoc_end" => return Input::none(),
            "command" => return self.command(text, node, Vec::new(), input),
            "list" => return self.list(text, node, input),
            "pipeline" => return self.pipeline(text, node, input),
            "redirected_statement" => return self.redirected(text, node, input),
            "negated_command" | "program" | "compound_statement" | "do_group" => {
                return self.sequence(text, node, input);
            }
            "subshell" => {
                let outer = self.variables.clone();
                let output = self.sequence(text, node, input);
                self.variables = outer;
                return output;
            }
            "if_statement"
            | "elif_clause"
            | "else_clause"
            | "while_statement"
            | "ERROR"
            | "c_style_for_statement" => self.branch(|state| {
                state.sequence(text, node, input);
            }),
            "for_statement" => self.for_statement(text, node, input),
            "case_statement" => self.case(text, node, input),
            "function_definition" => self.function(text, node),
            "variable_assignment" => self.assignment(text, node),
            "variable_assignments" => {
                for child in tree::named(node) {
                    self.assignment(text, child);
                }
            }
            "declaration_command" | "unset_command" => self.declaration(text, node),
            _ => self.visit(text, node),
        }
        Input::new(None, &substitution(tree::source(text, node)))
    }

    /// What happens in a branch perhaps does not happen.
    fn branch(&mut self, what: impl FnOnce(&mut Self)) {
        self.branches += 1;
        what(self);
        self.branches -= 1;
    }

    /// Looks for commands below a node that is no statement: substitutions in words and expressions.
    pub(super) fn visit(&mut self, text: &str, node: Node<'_>) {
        let mut pending = tree::named(node);
        pending.reverse();
        while let Some(node) = pending.pop() {
            match node.kind() {
                "command_substitution" | "process_substitution" => {
                    self.substitution(text, node);
                }
                "command"
                | "list"
                | "pipeline"
                | "redirected_statement"
                | "negated_command"
                | "subshell"
                | "compound_statement"
                | "if_statement"
                | "while_statement"
                | "for_statement"
                | "c_style_for_statement"
                | "case_statement"
                | "function_definition"
                | "declaration_command" => {
                    self.statement(text, node, &Input::Inherited);
                }
                _ => pending.extend(tree::named(node).into_iter().rev()),
            }
        }
    }

    /// `a && b || c; d`. The grammar nests a list to the left, however long it is.
    fn list(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut statements = Vec::new();
        let mut spine = Some(node);
        while let Some(list) = spine.take() {
            for child in tree::named(list).into_iter().rev() {
                if child.kind() == "list" && child.start_byte() == list.start_byte() {
                    spine = Some(child);
                } else {
                    statements.push(child);
                }
            }
        }
        let mut all = Input::none();
        for statement in statements.into_iter().rev() {
            all = all.then(self.statement(text, statement, input));
        }
        all.sourced(tree::source(text, node))
    }

    fn pipeline(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut output = input.clone();
        for stage in tree::named(node) {
            let so_far = text
                .get(node.start_byte()..stage.end_byte())
                .unwrap_or_default();
            output = self.statement(text, stage, &output).sourced(so_far);
        }
        output
    }

    fn redirected(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut input = input.clone();
        let mut arguments = Vec::new();
        let mut after = Vec::new();
        let mut written = false;
        let body = node.child_by_field_name("body");
        for redirect in tree::named(node) {
            if body.is_some_and(|body| body.id() == redirect.id()) {
                continue;
            }
            written |= self.redirect(text, redirect, &mut input, &mut arguments, &mut after);
        }
        let mut output = match body {
            Some(body) if body.kind() == "command" => self.command(text, body, arguments, &input),
            Some(body) => self.statement(text, body, &input),
            None => self.started(&arguments, &[], &input),
        };
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
                    let source = tree::source(text, child);
                    let data = known_text(&atoms).map(|data| data + "\n");
                    *input = match data {
                        Some(data) => Input::Known(data.into()),
                        None => Input::Template(source.trim_matches('"').into()),
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
                "process_substitution" if target.is_none() && operator == "<" => {
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
        let files = readings(target.into_iter().collect());
        for file in files.into_iter().flatten() {
            self.opened(operator, file);
        }
        operator.contains('>') && matches!(descriptor, None | Some("1"))
    }

    /// A file that a redirection opens.
    fn opened(&mut self, operator: &str, file: Word) {
        let descriptor = operator.ends_with('&')
            && file
                .text
                .trim_end_matches('-')
                .bytes()
                .all(|byte| byte.is_ascii_digit());
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
                        let words = super::expand::fields(&atoms);
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

    fn for_statement(&mut self, text: &str, node: Node<'_>, input: &Input) {
        let name = node
            .child_by_field_name("variable")
            .map(|name| tree::source(text, name));
        let mut words = Vec::new();
        let mut cursor = node.walk();
        for value in node.children_by_field_name("value", &mut cursor) {
            words.push(self.word(text, value));
        }
        let values = readings(words).into_iter().flatten();
        let values = values
            .map(|word| word.known().then_some(word.text))
            .collect();
        if let Some(name) = name {
            self.variables.assign_each(name, values);
        }
        if let Some(body) = node.child_by_field_name("body") {
            self.branch(|state| {
                state.statement(text, body, input);
            });
        }
    }

    fn case(&mut self, text: &str, node: Node<'_>, input: &Input) {
        for child in tree::named(node) {
            if child.kind() != "case_item" {
                self.word(text, child);
                continue;
            }
            self.branch(|state| {
                for (at, part) in tree::children(child).into_iter().enumerate() {
                    let field = child.field_name_for_child(u32::try_from(at).unwrap_or(u32::MAX));
                    if field == Some("value") {
                        state.visit(text, part);
                    } else if part.is_named() {
                        state.statement(text, part, input);
                    }
                }
            });
        }
    }

    fn function(&mut self, text: &str, node: Node<'_>) {
        let name = node
            .child_by_field_name("name")
            .map(|name| tree::source(text, name));
        let body = node.child_by_field_name("body");
        if let (Some(name), Some(body)) = (name, body) {
            self.functions
                .insert(name.to_owned(), tree::source(text, body).to_owned());
        }
        // The body is walked here too: it may be called where this text does not see it.
        let positional = self.positional.take();
        self.branch(|state| {
            for child in tree::named(node)
                .into_iter()
                .filter(|child| child.kind() != "word")
            {
                state.statement(text, child, &Input::Inherited);
            }
        });
        self.positional = positional;
    }

    /// `NAME=value`, `NAME+=value`, `NAME=(…)`, `NAME[n]=value`.
    pub(super) fn assignment(&mut self, text: &str, node: Node<'_>) {
        let Some(name) = node.child_by_field_name("name") else {
            return self.visit(text, node);
        };
        let certain = self.branches == 0;
        let append = tree::children(node)
            .iter()
            .any(|child| child.kind() == "+=");
        let value = node.child_by_field_name("value");
        let array = value.is_some_and(|value| value.kind() == "array");
        let elements = match value {
            Some(value) if array => {
                let words = tree::named(value)
                    .into_iter()
                    .map(|word| self.word(text, word))
                    .collect();
                let words = readings(words).into_iter().next().unwrap_or_default();
                words
                    .into_iter()
                    .map(|word| word.known().then_some(word.text))
                    .collect()
            }
            Some(value) => self.value(text, value).map(|value| vec![value]),
            None => Some(vec![String::new()]),
        };
        if name.kind() == "subscript" {
            self.visit(text, name);
            let array = name
                .child_by_field_name("name")
                .map(|name| tree::source(text, name));
            return self.variables.assign(array.unwrap_or_default(), None, true);
        }
        let name = tree::source(text, name);
        if append {
            self.variables.append(name, elements, array, certain);
        } else {
            self.variables.assign(name, elements, certain);
        }
    }

    /// `export`, `declare`, `local`, `readonly`, `typeset`, `unset`.
    fn declaration(&mut self, text: &str, node: Node<'_>) {
        let mut words = Vec::new();
        for child in tree::children(node) {
            let source = tree::source(text, child);
            if child.kind() == "variable_assignment" {
                self.assignment(text, child);
                words.push(Word::literal(source));
            } else if child.is_named() {
                let atoms = self.word(text, child);
                words.extend(readings(vec![atoms]).into_iter().next().unwrap_or_default());
            } else {
                words.push(Word::literal(source));
            }
            if node.kind() == "unset_command" {
                self.variables.unset(source);
            }
        }
        self.part(Kind::Builtin, words);
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

/// A source of data, as the substitution that it amounts to.
pub(super) fn substitution(source: &str) -> String {
    let inside = ["$(", "<(", "`", "("]
        .iter()
        .find_map(|open| source.strip_prefix(open));
    match inside {
        Some(inside) => {
            format!("$({}", inside.trim_end_matches('`'))
                + if inside.ends_with(')') { "" } else { ")" }
        }
        None => format!("$({source})"),
    }
}
