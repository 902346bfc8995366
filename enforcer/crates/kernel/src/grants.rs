//! Grants in the kernel's maps: written when a person has approved an exec or a connect, used up by the programs.

use std::sync::Arc;

use enforcer_common::grant::{ConnectGrant, ConnectGrantKey, ExecGrant, ExecGrantKey, exec_hash};

use super::{KernelError, tables::HostMaps};

/// A way to the grants of an agent. Clones share them; several threads may use it.
#[derive(Clone, Debug)]
pub struct Grants {
    maps: Arc<HostMaps>,
    slot: u32,
    key: [u64; 2],
}

/// A key for the hashes of one slot's grants, from the system's random numbers.
///
/// # Errors
///
/// The system gives none.
pub(super) fn random_key() -> Result<[u64; 2], KernelError> {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer is ours and as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != 16 {
        let error = std::io::Error::last_os_error();
        return Err(KernelError::map(
            "GRANTS",
            format!("no random key: {error}"),
        ));
    }
    let number = u128::from_ne_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    Ok([number as u64, (number >> 64) as u64])
}

impl Grants {
    pub(super) fn new(maps: Arc<HostMaps>, slot: u32, key: [u64; 2]) -> Self {
        Self { maps, slot, key }
    }

    /// The key of a grant for one exec of a process; for `path`, `args` and `script` see
    /// [`enforcer_common::grant::exec_hash`].
    pub fn exec_key(&self, pid: u32, path: &[u8], args: &[u8], script: bool) -> ExecGrantKey {
        ExecGrantKey {
            hash: exec_hash(self.key, path, args, script),
            slot: self.slot,
            pid,
        }
    }

    /// The key of a grant for one connect of a process, or one datagram, to an address as the kernel normalises it.
    pub fn connect_key(
        &self,
        pid: u32,
        address: [u8; 16],
        protocol: u32,
        port: u32,
    ) -> ConnectGrantKey {
        ConnectGrantKey {
            address,
            slot: self.slot,
            pid,
            protocol,
            port,
        }
    }

    /// Lets a process make one exec. A grant of the same key that is still there is replaced.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry: eight thousand grants are open.
    pub fn allow_exec(&self, key: &ExecGrantKey, grant: &ExecGrant) -> Result<(), KernelError> {
        self.maps.grants.set(key, grant)
    }

    /// Lets a process make one connect, or send one datagram. As [`Grants::allow_exec`].
    ///
    /// # Errors
    ///
    /// As [`Grants::allow_exec`].
    pub fn allow_connect(
        &self,
        key: &ConnectGrantKey,
        grant: &ConnectGrant,
    ) -> Result<(), KernelError> {
        self.maps.connect_grants.set(key, grant)
    }

    /// Takes an exec's grant back; whether it was still unused.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn revoke_exec(&self, key: &ExecGrantKey) -> Result<bool, KernelError> {
        self.maps.grants.remove(key)
    }

    /// Takes a connect's grant back; whether it was still unused.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn revoke_connect(&self, key: &ConnectGrantKey) -> Result<bool, KernelError> {
        self.maps.connect_grants.remove(key)
    }

    /// Takes away the grants, of all agents, that are void at `now_ns` (`CLOCK_BOOTTIME`), and says how many. The programs
    /// do not heed them any more; this makes room.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn sweep(&self, now_ns: u64) -> Result<usize, KernelError> {
        self.take_away(
            |_, grant| grant.expires_ns <= now_ns,
            |_, grant| grant.expires_ns <= now_ns,
        )
    }

    /// Takes away all grants of the agent.
    pub(super) fn forget(&self) -> Result<(), KernelError> {
        self.take_away(
            |key, _| key.slot == self.slot,
            |key, _| key.slot == self.slot,
        )
        .map(drop)
    }

    fn take_away(
        &self,
        exec: impl Fn(&ExecGrantKey, &ExecGrant) -> bool,
        connect: impl Fn(&ConnectGrantKey, &ConnectGrant) -> bool,
    ) -> Result<usize, KernelError> {
        let (execs, connects) = (&self.maps.grants, &self.maps.connect_grants);
        let mut taken = 0;
        for key in execs.keys() {
            if execs.get(&key)?.is_some_and(|grant| exec(&key, &grant)) {
                taken += usize::from(execs.remove(&key)?);
            }
        }
        for key in connects.keys() {
            if connects
                .get(&key)?
                .is_some_and(|grant| connect(&key, &grant))
            {
                taken += usize::from(connects.remove(&key)?);
            }
        }
        Ok(taken)
    }
}
