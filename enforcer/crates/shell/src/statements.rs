//! The walk over statements: lists, pipelines, control flow, redirections, definitions. Every branch is taken.

use tree_sitter::Node;

use super::{Word, state::State, stdin::Input, tree};

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
            "comment" => return Input::none(),
            "command" => return self.command(text, node, Vec::new(), input),
            "list" => return self.list(text, node, input),
            "pipeline" => return self.pipeline(text, node, input),
            "redirected_statement" => return self.redirected(text, node, input),
            "negated_command" | "program" | "compound_statement" | "do_group" => {
                return self.sequence(text, node, input);
            }
            "subshell" => {
                let outer = self.variables.clone();
                let output = self.in_place(|state| state.sequence(text, node, input));
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
        for (at, statement) in statements.into_iter().rev().enumerate() {
            // What follows `&&` or `||` perhaps does not happen.
            self.branches += usize::from(at > 0);
            all = all.then(self.statement(text, statement, input));
            self.branches -= usize::from(at > 0);
        }
        all.sourced(tree::source(text, node))
    }

    fn pipeline(&mut self, text: &str, node: Node<'_>, input: &Input) -> Input {
        let mut output = input.clone();
        let stages = tree::named(node);
        for stage in &stages {
            let so_far = text.get(node.start_byte()..stage.end_byte());
            let so_far = so_far.unwrap_or_default();
            let before = output;
            output = self.statement(text, *stage, &before).sourced(so_far);
            if before != *input {
                output = output.also(&before);
            }
        }
        // The grammar gives a redirection of the last stage to the whole pipeline.
        if let [_, .., last] = stages.as_slice()
            && *input != Input::Inherited
        {
            self.statement(text, *last, input);
        }
        output
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
        let values: Vec<Word> = self.readings(words).into_iter().flatten().collect();
        if let Some(name) = name {
            self.variables.assign_each(name, &values);
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
                if child.kind() == "file_redirect" {
                    state.redirect(text, child, &mut Input::Inherited, &mut Vec::new());
                } else {
                    state.statement(text, child, &Input::Inherited);
                }
            }
        });
        self.positional = positional;
    }
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
