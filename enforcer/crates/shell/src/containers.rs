//! Commands that are started in a container that runs: what they destroy is not only the container's.

use super::{PartKind, Word, state::State, stdin::Input, wrappers::assigns};

/// Options of the command line itself, of `compose` and of `exec` and `run` that take the next word.
const VALUED: [&str; 33] = [
    "-H",
    "--host",
    "--context",
    "-c",
    "--connection",
    "--config",
    "-l",
    "--log-level",
    "-f",
    "--file",
    "-p",
    "--project-name",
    "--profile",
    "--env-file",
    "--project-directory",
    "--ansi",
    "--parallel",
    "--progress",
    "-e",
    "--env",
    "-u",
    "--user",
    "-w",
    "--workdir",
    "--index",
    "--detach-keys",
    "-v",
    "--volume",
    "--publish",
    "--name",
    "--entrypoint",
    "--label",
    "--url",
];

/// The first word at or behind `at` that is no option and no option's value.
fn operand(words: &[Word], mut at: usize) -> Option<usize> {
    while let Some(word) = words.get(at) {
        let text = word.text.as_str();
        if text == "--" {
            return (at + 1 < words.len()).then_some(at + 1);
        }
        if !text.starts_with('-') {
            return Some(at);
        }
        // `-eA=b`, `-itu ann`.
        let bundle = text
            .strip_prefix('-')
            .filter(|letters| letters.len() > 1 && !letters.starts_with('-'));
        let last = bundle.and_then(|letters| letters.chars().last());
        let taken = VALUED.contains(&text)
            || bundle.is_some_and(|letters| letters.bytes().all(|b| b.is_ascii_alphabetic()))
                && last.is_some_and(|letter| matches!(letter, 'e' | 'u' | 'w'));
        at += 1 + usize::from(taken);
    }
    None
}

/// Where the command stands that words start in a container.
fn inner(name: &str, words: &[Word]) -> Option<usize> {
    let mut composed = name.ends_with("-compose");
    let mut at = operand(words, 1)?;
    while matches!(words.get(at)?.text.as_str(), "compose" | "container") {
        composed |= words[at].text == "compose";
        at = operand(words, at + 1)?;
    }
    let verb = words.get(at)?.text.as_str();
    if verb != "exec" && !(verb == "run" && composed) {
        return None;
    }
    // Behind the container's or the service's name.
    let container = operand(words, at + 1)?;
    let command = container + 1;
    (command < words.len()).then_some(command)
}

impl State {
    /// `docker exec CONTAINER COMMAND`, `docker compose exec SERVICE COMMAND`, `docker compose run SERVICE COMMAND`:
    /// another reading, since no program of this machine is started.
    pub(super) fn in_container(&mut self, name: &str, words: &[Word], input: &Input) {
        let Some(at) = inner(name, words) else {
            return;
        };
        let command = words.get(at..).unwrap_or_default().to_vec();
        self.reading(|state| {
            state.nested(|state| {
                state.simple(command, input);
            });
        });
    }

    /// Words each of which is a text for a shell, behind assignments and options.
    pub(super) fn texts(&mut self, words: &[Word]) {
        for word in words {
            if word.text.starts_with('-') {
                continue;
            }
            if assigns(&word.text) && !word.text.contains(' ') {
                self.part(PartKind::Assigned, vec![Word::literal("env"), word.clone()]);
                continue;
            }
            self.code(&word.text.clone(), &Input::Inherited);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{PartKind, parse};

    #[test]
    fn what_starts_in_a_container_is_another_reading() {
        for text in [
            "docker exec web git push --force",
            "docker container exec -it -u ann web git push --force",
            "docker -H x exec -itu ann -e A=b -w /x web git push --force",
            "docker compose exec web git push --force",
            "docker compose -f a.yml -p x exec -T --user=ann web git push --force",
            "docker-compose run --rm -e A=b web git push --force",
            "podman exec web sh -c 'git push --force'",
            "sudo docker exec web git push --force",
        ] {
            let parts = parse(text).parts;
            let push = |part: &super::super::Part| {
                part.kind == PartKind::Reading && part.texts() == ["git", "push", "--force"]
            };
            assert!(parts.iter().any(push), "{text}: {parts:?}");
        }
        for text in [
            "docker run web git push --force",
            "docker exec web",
            "docker ps",
            "docker compose up exec web git push --force",
        ] {
            let parts = parse(text).parts;
            assert!(parts.iter().all(|part| part.texts()[0] != "git"), "{text}");
        }
    }
}
