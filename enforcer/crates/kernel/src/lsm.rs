//! Whether the kernel runs LSM programs at all, as far as that can be known before one is loaded.

use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_cmd, bpf_map_type};

use super::sys::{attributes, bpf};

/// Whether the kernel itself says that `bpf` is not among its active LSMs: programs would load, attach, and never run.
///
/// It says so of a map that only they use (`EOPNOTSUPP`, `inode_storage_map_alloc`; newer kernels, and those that took
/// it over). That it does not say so proves nothing.
pub fn known_inactive() -> bool {
    let mut attr = attributes();
    attr.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_INODE_STORAGE as u32;
    attr.__bindgen_anon_1.key_size = 4;
    attr.__bindgen_anon_1.value_size = 4;
    attr.__bindgen_anon_1.map_flags = BPF_F_NO_PREALLOC;
    // Types of nothing, which are looked at last: it is refused in either case.
    attr.__bindgen_anon_1.btf_key_type_id = 1;
    attr.__bindgen_anon_1.btf_value_type_id = 1;
    attr.__bindgen_anon_1.btf_fd = u32::MAX;
    bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)
        .is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP))
}
