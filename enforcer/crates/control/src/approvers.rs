//! Who may answer.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::ControlError;

/// Who may answer requests. The agent's own user never may, whatever stands here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    root: bool,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Approvers {
    /// Looks up the names of a policy: users (`kim`) and groups (`%ops`). `None`: root. An empty list: nobody, so that
    /// whatever asks is denied. Otherwise root and those named.
    ///
    /// # Errors
    ///
    /// A name is unknown on this machine.
    pub fn resolve(names: Option<&[String]>) -> Result<Self, ControlError> {
        let mut approvers = Self {
            root: names.is_none_or(|names| !names.is_empty()),
            ..Self::default()
        };
        for name in names.unwrap_or_default() {
            if let Some(group) = name.strip_prefix('%') {
                match Group::from_name(group) {
                    Ok(Some(group)) => approvers.groups.push(group.gid.as_raw()),
                    _ => return Err(unknown(name, "group")),
                }
            } else {
                match User::from_name(name) {
                    Ok(Some(user)) => approvers.users.push(user.uid.as_raw()),
                    _ => return Err(unknown(name, "user")),
                }
            }
        }
        Ok(approvers)
    }

    /// Whether this user may answer. Groups are those of the user's account, not those that a process holds.
    pub fn allows(&self, uid: u32) -> bool {
        if uid == 0 {
            return self.root;
        }
        self.users.contains(&uid) || self.in_group(uid)
    }

    fn in_group(&self, uid: u32) -> bool {
        if self.groups.is_empty() {
            return false;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
            return false;
        };
        let Ok(name) = CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, Gid::from_raw(user.gid.as_raw())).is_ok_and(|groups| {
            groups
                .iter()
                .any(|group| self.groups.contains(&group.as_raw()))
        })
    }
}

/// How the trail names a user: by name, else by number.
pub fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

fn unknown(name: &str, kind: &'static str) -> ControlError {
    ControlError::UnknownApprover {
        name: name.to_owned(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn without_a_list_root_answers() {
        let approvers = Approvers::resolve(None).unwrap();
        assert!(approvers.allows(0));
        assert!(!approvers.allows(1));
    }

    #[test]
    fn an_empty_list_is_nobody() {
        let approvers = Approvers::resolve(Some(&[])).unwrap();
        assert!(!approvers.allows(0));
        assert!(!approvers.allows(1));
    }

    #[test]
    fn named_users_and_members_of_groups_answer() {
        let approvers = Approvers::resolve(Some(&names(&["nobody"]))).unwrap();
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert!(approvers.allows(nobody.uid.as_raw()));
        assert!(approvers.allows(0));
        assert!(!approvers.allows(1));
        // A user's primary group counts.
        let group = Group::from_gid(nobody.gid).unwrap().unwrap();
        let approvers = Approvers::resolve(Some(&names(&[&format!("%{}", group.name)]))).unwrap();
        assert!(approvers.allows(nobody.uid.as_raw()));
        assert!(!approvers.allows(1));
    }

    #[test]
    fn unknown_names_are_errors_with_a_mend() {
        for (name, kind) in [("no-such-user-x", "user"), ("%no-such-group-x", "group")] {
            let error = Approvers::resolve(Some(&names(&[name])))
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains(kind), "{error}");
        }
    }
}
