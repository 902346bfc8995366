//! Where the programs of command lines that are not run would be found.

use enforcer_policy::action::ExecAction;

/// Looks for the programs of command lines that are not run.
pub trait Find {
    /// Every exec that these words may become, one at least. `moved`: the directories that the text has gone to before,
    /// each from where the one before led.
    fn find(&self, words: &[Vec<u8>], moved: &[String]) -> Vec<ExecAction>;

    /// The directory where a text begins, if that is known: an absolute path.
    fn directory(&self) -> Option<&str> {
        None
    }

    /// Where the text begins, as a path from [`Find::directory`], if it is somewhere else.
    fn inside(&self) -> Option<&str> {
        None
    }

    /// The project's root, if that is known: an absolute path.
    fn project(&self) -> Option<String> {
        None
    }

    /// Where an absolute path leads, links followed as far as it exists; nothing where that is not looked up.
    fn leads_to(&self, _path: &str) -> Option<String> {
        None
    }
}

/// Looks nowhere: a bare name stands for a program in a trusted directory, a path for itself.
#[derive(Clone, Copy, Debug)]
pub struct ByText;

impl Find for ByText {
    fn find(&self, words: &[Vec<u8>], _moved: &[String]) -> Vec<ExecAction> {
        vec![ExecAction::from_words(words.to_vec())]
    }
}
