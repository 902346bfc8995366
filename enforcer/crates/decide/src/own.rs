//! The call of the launcher's own hook, which always may start: [`enforcer_common::own`] over an action.

use enforcer_common::own::{self, Own};

use enforcer_policy::{action::ExecAction, matcher::base_name};

/// Bytes of `path hook` that are not the path.
const HOOK: usize = b" hook".len();

/// The path of the launcher's program.
pub fn path(own: &Own) -> &[u8] {
    let len = (own.call_len as usize).min(own.call.len());
    &own.call[..len.saturating_sub(HOOK)]
}

/// Whether an exec is the hook, `executable` saying whether its file is the launcher's program; or a shell, in a
/// trusted directory or not, that is told to start it.
pub fn starts_hook(own: &Own, action: &ExecAction, executable: bool, trusted: bool) -> bool {
    if own.inode == 0 || action.script.is_some() {
        return false;
    }
    let arguments = action.arguments();
    let head = word(&arguments);
    let len = u32::try_from(arguments.len()).unwrap_or(u32::MAX);
    if executable {
        return own::is_hook(head, len);
    }
    let name = base_name(action.resolved.as_deref().unwrap_or(&action.path));
    let start = own::text_at(head) as usize;
    start != 0
        && trusted
        && name.len() < size_of::<u64>()
        && own::is_shell(word(name))
        && arguments
            .get(start..)
            .is_some_and(|text| own::is_call(own, text))
}

/// The first eight bytes, zeros behind the end.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; size_of::<u64>()];
    let len = bytes.len().min(word.len());
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(word)
}
