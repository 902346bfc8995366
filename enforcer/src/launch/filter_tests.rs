//! The seccomp filter as the agent meets it.

use super::ExitStatus;
use super::rig::Rig;

#[test]
fn refused_families_and_ioctls_get_their_errno() {
    let Some(rig) = Rig::new("seccomp", "nobody") else {
        return;
    };
    // Family by family: `socket` as type 3 (raw) where nobody may have one, so that the errno tells who refused.
    let (_, out) = rig.perl(
        "for my $f (1, 2, 10, 16, 0, 4, 9, 11, 15, 17, 18, 40, 45, 46, 1000, -1) { \
           my $t = $f == 16 ? 3 : 2; print \"$f=\", (socket(my $s, $f, $t, 0) ? 0 : $!+0), ' ' }",
    );
    assert_eq!(
        out,
        "1=0 2=0 10=0 16=0 0=97 4=97 9=97 11=97 15=97 17=97 18=97 40=97 45=97 46=97 1000=97 -1=97 "
    );
    let (_, out) = rig.perl(
        "for my $f (1, 17) { print \"$f=\", \
           (socketpair(my $a, my $b, $f, 2, 0) ? 0 : $!+0), ' ' } \
         open N, '<', '/dev/null'; my $x = 'x'; for my $r (0x5412, 0x541c, 0x5413) { \
           print ioctl(N, $r, $x) ? 0 : $!+0, ' ' }",
    );
    // TIOCSTI and TIOCLINUX are refused; TIOCGWINSZ reaches the device, which is no terminal.
    assert_eq!(out, "1=0 17=97 1 1 25 ");
}

#[test]
fn netlink_speaks_to_the_kernel_only() {
    let Some(rig) = Rig::new("netlink", "nobody") else {
        return;
    };
    // ROUTE, USERSOCK, SOCK_DIAG, XFRM, AUDIT, CONNECTOR, NETFILTER, KOBJECT_UEVENT, GENERIC, CRYPTO.
    let (_, out) = rig.perl(
        "for my $p (0, 2, 4, 6, 9, 11, 12, 15, 16, 21) { \
           print \"$p=\", (socket(my $s, 16, 3, $p) ? 0 : $!+0), ' ' }",
    );
    assert_eq!(out, "0=0 2=93 4=0 6=93 9=93 11=93 12=93 15=0 16=0 21=93 ");
}

#[test]
fn a_loosened_hatch_is_open_and_the_others_stay_shut() {
    let Some(mut rig) = Rig::new("loosened", "nobody") else {
        return;
    };
    rig.loosened = vec!["socket-families".to_owned()];
    // A packet socket, and NETLINK_USERSOCK.
    let (_, out) =
        rig.perl("socket(my $a, 17, 3, 0); print $!+0, ' '; socket(my $b, 16, 3, 2); print $!+0");
    assert_eq!(
        out, "1 93",
        "packet sockets need a capability, says the kernel"
    );
}

#[test]
fn a_call_by_a_foreign_number_kills() {
    let Some(rig) = Rig::new("x32", "nobody") else {
        return;
    };
    // getpid by its x32 number, and garbage above the 32 bits of a family.
    let (status, out) = rig.perl("print 'here'; syscall(0x40000000 + 39); print 'there'");
    assert_eq!(
        (status, out.as_str()),
        (ExitStatus::Signal(libc::SIGSYS), "here")
    );
    let (_, out) = rig.perl("print syscall(41, (1 << 32) | 17, 3, 0), ' ', $!+0");
    assert_eq!(out, "-1 97");
}
