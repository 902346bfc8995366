//! git: commands in its options, and its options before the subcommand.

use super::{PartKind, Word, state::State, stdin::Input, unwrap::joined};

/// Options of git itself that take the next word.
const VALUED: [&str; 8] = [
    "-C",
    "-c",
    "--git-dir",
    "--work-tree",
    "--namespace",
    "--super-prefix",
    "--config-env",
    "--attr-source",
];

/// The words behind git's own options, if there are any such options.
fn plain(words: &[Word]) -> Option<&[Word]> {
    let mut at = 1;
    while let Some(word) = words.get(at).filter(|word| word.text.starts_with('-')) {
        at += 1 + usize::from(VALUED.contains(&word.text.as_str()));
    }
    words.get(at..).filter(|rest| at > 1 && !rest.is_empty())
}

impl State {
    /// What git is told, without the options before the subcommand.
    fn git_plainly(&mut self, words: &[Word]) {
        if let (Some(git), Some(rest)) = (words.first(), plain(words)) {
            let plain = [git].into_iter().chain(rest).cloned().collect();
            self.reading(|state| state.part(PartKind::Program, plain));
        }
    }

    /// Commands in git's own options: aliases, `rebase --exec`, `bisect run`, `submodule foreach`.
    pub(super) fn git(&mut self, words: &[Word]) {
        self.git_plainly(words);
        let rest = words.get(1..).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn options_before_the_subcommand_hide_nothing() {
        for text in [
            "git -C x push --force",
            "git -c a=b -C push push --force",
            "git --git-dir x --work-tree=y push --force",
            "git --namespace n --bare push --force",
            "git -p --config-env a=b push --force",
            "C=x; git -C $C push --force",
        ] {
            let parts = parse(text).parts;
            let plain = |part: &super::super::Part| part.texts() == ["git", "push", "--force"];
            assert!(parts.iter().any(plain), "{text}: {parts:?}");
        }
    }
}
