//! Splits a command text into the simple commands that a shell would start.
//!
//! Small on purpose: quotes, the operators `;` `&` `&&` `||` `|` newline, and subshell parentheses. Whatever
//! else a shell would expand (substitutions, variables in the program's place, redirections, here documents) is
//! named as unparsed, so that the caller judges the text as a whole too.

/// A command text, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// The words of each simple command, quotes removed.
    pub commands: Vec<Vec<String>>,
    /// What was not understood, if anything.
    pub unparsed: Option<&'static str>,
}

#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// The next word is a redirection's target, which the command does not get.
    target: bool,
    unparsed: Option<&'static str>,
}

impl Splitter {
    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.target)
        {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.target = false;
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.commands.push(words);
        }
    }
}

/// Splits a text.
pub fn split(text: &str) -> Commands {
    let mut splitter = Splitter::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => splitter.end_word(),
            '<' | '>' => {
                splitter.unparsed = Some("a redirection");
                // `2>`: the number belongs to the redirection.
                let number = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
                if splitter.word.as_ref().is_some_and(number) {
                    splitter.word = None;
                }
                splitter.end_word();
                while chars
                    .next_if(|c| matches!(c, '<' | '>' | '&' | '|'))
                    .is_some()
                {}
                splitter.target = true;
            }
            '&' if chars.peek() == Some(&'>') => splitter.end_word(),
            '\n' | ';' | '|' | '(' | ')' | '&' => splitter.end_command(),
            '#' if splitter.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(escaped) => splitter.push(escaped),
                None => splitter.unparsed = Some("a backslash at the end"),
            },
            '\'' => {
                splitter.word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(quoted) => splitter.push(quoted),
                        None => {
                            splitter.unparsed = Some("a quote that is not closed");
                            break;
                        }
                    }
                }
            }
            '"' => {
                splitter.word.get_or_insert_default();
                double_quoted(&mut splitter, &mut chars);
            }
            '`' | '$' => {
                splitter.unparsed = Some("an expansion");
                splitter.push(c);
            }
            '{' | '}' | '*' | '?' | '[' | '~' => {
                splitter.unparsed = splitter.unparsed.or(Some("an expansion"));
                splitter.push(c);
            }
            other => splitter.push(other),
        }
    }
    splitter.end_command();
    let reserved = [
        "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac",
        "function", "select", "time", "!", "{", "}", "[[",
    ];
    let assigns = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    let special = |words: &Vec<String>| {
        words
            .first()
            .is_some_and(|word| reserved.contains(&word.as_str()) || assigns(word))
    };
    if splitter.commands.iter().any(special) {
        splitter.unparsed = splitter.unparsed.or(Some("a keyword or an assignment"));
    }
    Commands {
        commands: splitter.commands,
        unparsed: splitter.unparsed,
    }
}

fn double_quoted(splitter: &mut Splitter, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    loop {
        match chars.next() {
            Some('"') => return,
            Some('\\') => match chars.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => splitter.push(c),
                Some(other) => {
                    splitter.push('\\');
                    splitter.push(other);
                }
                None => splitter.unparsed = Some("a quote that is not closed"),
            },
            Some(c @ ('$' | '`')) => {
                splitter.unparsed = Some("an expansion");
                splitter.push(c);
            }
            Some(c) => splitter.push(c),
            None => {
                splitter.unparsed = Some("a quote that is not closed");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Vec<String>> {
        split(text).commands
    }

    #[test]
    fn operators_separate_and_quotes_protect() {
        let text = "a 'b;c' \"d && e\"; (f|g) & h\\ i || j # k; l\nm";
        let expected: Vec<Vec<&str>> = vec![
            vec!["a", "b;c", "d && e"],
            vec!["f"],
            vec!["g"],
            vec!["h i"],
            vec!["j"],
            vec!["m"],
        ];
        assert_eq!(commands(text), expected);
        assert_eq!(split(text).unparsed, None);
        assert_eq!(commands("''"), vec![vec![""]]);
        let redirected = "a 2>&1 b3 >out <<< 'x y' c &>>log; >f d";
        assert_eq!(commands(redirected), vec![vec!["a", "b3", "c"], vec!["d"]]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for text in [
            "a $(b)",
            "a `b`",
            "\"$x\"",
            "a 'b",
            "a \"b",
            "a > b",
            "X=1 a",
            "if a; then b; fi",
            "a\\",
            "rm *",
        ] {
            assert!(split(text).unparsed.is_some(), "{text}");
        }
        assert_eq!(split("git commit -m 'cost $5'").unparsed, None);
    }
}
