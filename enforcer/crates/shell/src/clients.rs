//! Clients of databases: what they are told, on the command line or on standard input, read by its meaning.
//!
//! The language is not parsed. Comments go away, white space becomes one space, what stands in quotes is left out, so
//! that rules about `drop table` see every spelling of it. Such a text is another reading of the client's words.

use super::{PartKind, Word, state::State, stdin::Input};

/// Clients that are told SQL, or something close to it.
const SQL: [&str; 26] = [
    "psql",
    "pgcli",
    "mysql",
    "mariadb",
    "mycli",
    "mysqlsh",
    "sqlite",
    "sqlite3",
    "litecli",
    "libsql",
    "turso",
    "sqlcmd",
    "isql",
    "clickhouse",
    "clickhouse-client",
    "cockroach",
    "duckdb",
    "cqlsh",
    "usql",
    "snowsql",
    "sqlplus",
    "trino",
    "beeline",
    "hive",
    "db2",
    "vsql",
];
/// Clients that are told one command a line.
const LINES: [&str; 3] = ["redis-cli", "valkey-cli", "keydb-cli"];
/// Clients that are told JavaScript.
const SCRIPTS: [&str; 2] = ["mongo", "mongosh"];

impl State {
    /// A client of a database.
    pub(super) fn data_client(&mut self, name: &str, words: &[Word], input: &Input) {
        let sql = SQL.contains(&name);
        if !sql && !LINES.contains(&name) && !SCRIPTS.contains(&name) {
            return;
        }
        let mut texts: Vec<String> = words[1..].iter().map(|word| word.text.clone()).collect();
        for text in &mut texts {
            // `--execute=…`
            if let Some((_, value)) = text.split_once('=').filter(|_| text.starts_with("--")) {
                *text = value.to_owned();
            }
        }
        texts.extend(input.code().map(str::to_owned));
        for pair in words.windows(2) {
            if matches!(pair[0].text.as_str(), "-f" | "--file" | "-i")
                && let Some(data) = self.held(&pair[1].text)
            {
                texts.extend(data.code().map(str::to_owned));
            }
        }
        for text in &texts {
            self.shell_lines(text);
        }
        let given = words.len() - 1;
        for (at, text) in texts.iter().enumerate() {
            if LINES.contains(&name) {
                if at >= given {
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        let line = line.split_whitespace().map(Word::literal);
                        self.told(words.iter().cloned().chain(line));
                    }
                }
                continue;
            }
            let hash = matches!(name, "mysql" | "mariadb" | "mycli" | "mysqlsh");
            let read = if sql {
                let one = meaning(text, hash, false);
                let other = meaning(text, hash, true);
                if one == other {
                    vec![one]
                } else {
                    vec![one, other]
                }
            } else {
                vec![script(text)]
            };
            for read in read {
                if at < given && read == *text {
                    continue;
                }
                let option = if sql { "-c" } else { "--eval" };
                let told = [Word::literal(option), Word::literal(read)];
                self.told(words.iter().take(1).cloned().chain(told));
            }
            if sql {
                for program in programs(text) {
                    self.code(&program, &Input::Inherited);
                }
            }
        }
    }

    fn told(&mut self, words: impl Iterator<Item = Word>) {
        let words = words.collect();
        self.reading(|state| state.part(PartKind::Program, words));
    }

    /// Lines with which a client starts a command of the shell: `\! ls`, `system ls`, `.shell ls`.
    fn shell_lines(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim_start();
            let code = ["\\!", ".shell ", ".system ", "system ", "!! "]
                .iter()
                .find_map(|mark| line.strip_prefix(mark));
            if let Some(code) = code {
                self.code(code, &Input::Inherited);
            }
        }
    }
}

/// SQL without comments and the contents of quotes, its words parted by one space. `hash`: `#` begins a comment.
/// `escapes`: a backslash in quotes takes the next character.
fn meaning(text: &str, hash: bool, escapes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let space = |out: &mut String| {
        if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    };
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('-', Some('-')) => {
                while chars.next_if(|c| *c != '\n').is_some() {}
                space(&mut out);
            }
            ('#', _) if hash => {
                while chars.next_if(|c| *c != '\n').is_some() {}
                space(&mut out);
            }
            ('/', Some('*')) => {
                chars.next();
                // `/*!50000 … */` is read by MySQL and MariaDB.
                if chars.next_if(|c| matches!(c, '!' | 'M')).is_some() {
                    while chars.next_if(|c| c.is_ascii_digit() || *c == '!').is_some() {}
                } else {
                    let mut last = ' ';
                    for c in chars.by_ref() {
                        if last == '*' && c == '/' {
                            break;
                        }
                        last = c;
                    }
                }
                space(&mut out);
            }
            ('*', Some('/')) => {
                chars.next();
                space(&mut out);
            }
            ('\'', _) => {
                while let Some(c) = chars.next() {
                    if c == '\\' && escapes {
                        chars.next();
                    } else if c == '\'' && chars.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                out.push_str("''");
            }
            (c, _) if c.is_whitespace() => space(&mut out),
            (';', _) => {
                out.push(';');
                space(&mut out);
            }
            (c, _) => out.push(c),
        }
    }
    // What rules look for ends with a space: `truncate users`, not `truncated`.
    out
}

/// JavaScript on one line, without space around dots and brackets.
fn script(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('/', Some('*')) => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            (c, next) if c.is_whitespace() => {
                let joins = |c: char| matches!(c, '.' | '(' | '[');
                if next.is_none_or(|next| !joins(*next) && !next.is_whitespace())
                    && !out.ends_with(joins)
                {
                    out.push(' ');
                }
            }
            (c, _) => out.push(c),
        }
    }
    out
}

/// Commands that SQL has the server start: `copy t from program '…'`.
fn programs(text: &str) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for (at, mark) in lower.match_indices("program") {
        let behind = text[at + mark.len()..].trim_start();
        if let Some(code) = behind.strip_prefix('\'')
            && let Some(end) = code.find('\'')
        {
            found.push(code[..end].to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn lines(text: &str) -> Vec<String> {
        let parts = parse(text).parts;
        parts.iter().map(|part| part.texts().join(" ")).collect()
    }

    #[test]
    fn sql_is_read_by_its_meaning_wherever_it_comes_from() {
        for text in [
            "psql -c 'DROP  TABLE users'",
            "psql -c 'DROP/**/TABLE/* x */users'",
            "psql -c 'DROP -- x\nTABLE users'",
            "psql db <<EOF\nDROP\n  TABLE users;\nEOF",
            "psql <<< 'DROP\tTABLE users'",
            "psql --command='DROP\tTABLE users'",
            "echo 'select 1;DROP  TABLE users;' | psql -d db",
            "printf 'DROP  TABLE users\\n' | psql",
            "cat <<EOF | psql\nDROP  TABLE users\nEOF",
            "echo 'DROP  TABLE users' > x.sql; psql -f x.sql",
            "echo 'DROP  TABLE users' > x.sql; psql < x.sql",
            "mysql -e 'DROP#x\nTABLE users'",
            "mysql -e 'select 1; DROP/*!50000 TABLE users*/'",
            "docker exec -i db psql <<< 'DROP  TABLE users'",
            "psql -c \"select ''; DROP  TABLE users --'\"",
            r#"psql -c "select '\\'; DROP  TABLE users --'""#,
        ] {
            let lines = lines(text);
            let found = lines
                .iter()
                .any(|line| line.contains(" -c ") && line.contains("DROP TABLE users"));
            assert!(found, "{text}: {lines:?}");
        }
        for text in [
            "psql -c \"select 'a; DROP  TABLE users'\"",
            "psql -c 'select 1 -- DROP  TABLE users'",
            "psql -c 'select 1 /* DROP  TABLE users */'",
        ] {
            let lines = lines(text);
            let found = lines.iter().any(|line| line.contains("DROP TABLE users"));
            assert!(!found, "{text}: {lines:?}");
        }
    }

    #[test]
    fn lines_and_scripts_on_standard_input_are_what_the_client_is_told() {
        for (text, wanted) in [
            ("echo FLUSHALL | redis-cli -h x", "redis-cli -h x FLUSHALL"),
            ("redis-cli <<EOF\nget a\nFLUSHDB\nEOF", "redis-cli FLUSHDB"),
            (
                "mongosh <<< 'db . users . drop ()'",
                "mongosh --eval db.users.drop() ",
            ),
            (
                "mongosh app <<EOF\ndb\n .users.drop()\nEOF",
                "mongosh --eval db.users.drop() ",
            ),
            ("psql -c '\\! rm -rf /'", "rm -rf /"),
            ("sqlite3 x.db '.shell rm -rf /'", "rm -rf /"),
            ("psql -c \"copy t from program 'rm -rf /'\"", "rm -rf /"),
        ] {
            let lines = lines(text);
            assert!(lines.iter().any(|line| line == wanted), "{text}: {lines:?}");
        }
    }
}
