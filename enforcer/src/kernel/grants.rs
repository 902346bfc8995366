//! Grants in the kernel's maps: written when a person has approved an exec or a connect, used up by the programs.

use std::{
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use enforcer_common::grant::{ConnectGrant, ConnectGrantKey, ExecGrant, ExecGrantKey, exec_hash};

use super::KernelError;

/// A way to the grants of an instance. It has descriptors of its own, so it outlives the instance, and may be cloned
/// and used by several threads.
#[derive(Clone)]
pub struct Grants {
    maps: Arc<Mutex<Maps>>,
    keys: Arc<[[u64; 2]]>,
}

struct Maps {
    execs: HashMap<MapData, ExecGrantKey, ExecGrant>,
    connects: HashMap<MapData, ConnectGrantKey, ConnectGrant>,
    connectors: Array<MapData, u32>,
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").finish_non_exhaustive()
    }
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

/// A second descriptor of a map.
fn again(ebpf: &Ebpf, name: &'static str) -> Result<MapData, KernelError> {
    let Some(Map::HashMap(data) | Map::Array(data)) = ebpf.map(name) else {
        return Err(KernelError::map(name, "it is not in the object"));
    };
    let fd = data
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| KernelError::map(name, error))?;
    MapData::from_fd(fd).map_err(|error| KernelError::map(name, error))
}

fn removed(name: &'static str, result: Result<(), MapError>) -> Result<bool, KernelError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(false)
        }
        Err(error) => Err(KernelError::map(name, error)),
    }
}

impl Grants {
    pub(super) fn new(ebpf: &Ebpf, keys: &[[u64; 2]]) -> Result<Self, KernelError> {
        let execs = Map::HashMap(again(ebpf, "GRANTS")?);
        let connects = Map::HashMap(again(ebpf, "CONNECT_GRANTS")?);
        let connectors = Map::Array(again(ebpf, "CONNECTORS")?);
        Ok(Self {
            maps: Arc::new(Mutex::new(Maps {
                execs: execs
                    .try_into()
                    .map_err(|error| KernelError::map("GRANTS", error))?,
                connects: connects
                    .try_into()
                    .map_err(|error| KernelError::map("CONNECT_GRANTS", error))?,
                connectors: connectors
                    .try_into()
                    .map_err(|error| KernelError::map("CONNECTORS", error))?,
            })),
            keys: keys.into(),
        })
    }

    fn with<T>(&self, each: impl FnOnce(&mut Maps) -> T) -> T {
        // The maps are the kernel's: a thread that panicked left nothing half done in ours.
        each(&mut self.maps.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hash of an exec's exact text under the slot's key; for `path`, `args` and `script` see
    /// [`enforcer_common::grant::exec_hash`]. `None` for a slot that the instance does not have.
    pub fn exec_hash(&self, slot: u32, path: &[u8], args: &[u8], script: bool) -> Option<u64> {
        let key = self.keys.get(usize::try_from(slot).ok()?)?;
        Some(exec_hash(*key, path, args, script))
    }

    /// Lets a process make one exec. A grant of the same key that is still there is replaced.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry: eight thousand grants are open.
    pub fn allow_exec(&self, key: &ExecGrantKey, grant: &ExecGrant) -> Result<(), KernelError> {
        self.with(|maps| maps.execs.insert(key, grant, 0))
            .map_err(|error| KernelError::map("GRANTS", error))
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
        self.with(|maps| maps.connects.insert(key, grant, 0))
            .map_err(|error| KernelError::map("CONNECT_GRANTS", error))
    }

    /// Takes an exec's grant back; whether it was still unused.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn revoke_exec(&self, key: &ExecGrantKey) -> Result<bool, KernelError> {
        removed("GRANTS", self.with(|maps| maps.execs.remove(key)))
    }

    /// Takes a connect's grant back; whether it was still unused.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn revoke_connect(&self, key: &ConnectGrantKey) -> Result<bool, KernelError> {
        removed(
            "CONNECT_GRANTS",
            self.with(|maps| maps.connects.remove(key)),
        )
    }

    /// Takes away the grants that are void at `now_ns` (`CLOCK_BOOTTIME`), and says how many. The programs do not
    /// heed them any more; this makes room.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn sweep(&self, now_ns: u64) -> Result<usize, KernelError> {
        self.with(|maps| {
            let execs: Vec<ExecGrantKey> = maps
                .execs
                .iter()
                .filter_map(Result::ok)
                .filter_map(|(key, grant)| (grant.expires_ns <= now_ns).then_some(key))
                .collect();
            let connects: Vec<ConnectGrantKey> = maps
                .connects
                .iter()
                .filter_map(Result::ok)
                .filter_map(|(key, grant)| (grant.expires_ns <= now_ns).then_some(key))
                .collect();
            let mut swept = 0;
            for key in &execs {
                swept += usize::from(removed("GRANTS", maps.execs.remove(key))?);
            }
            for key in &connects {
                swept += usize::from(removed("CONNECT_GRANTS", maps.connects.remove(key))?);
            }
            Ok(swept)
        })
    }

    /// Names the one process that may connect to unix sockets by their path; 0 for none, and then paths are judged by
    /// their text. Without an effect where LSM programs judge the socket itself.
    ///
    /// # Errors
    ///
    /// The kernel refuses the entry.
    pub fn set_connector(&self, slot: u32, pid: u32) -> Result<(), KernelError> {
        self.with(|maps| maps.connectors.set(slot, pid, 0))
            .map_err(|error| KernelError::map("CONNECTORS", error))
    }
}
