//! Sockets that go from hand to hand: out of an agent, into one, and on when who made them has ended.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use enforcer_tests::{Ended, Level, Session, level, root, skip};

use super::{Ear, assert_denied, connects_to, denying};

/// Python that dials `$ADDRESS` `$PORT` through the socket `s` and says how that ended.
const DIAL_IN_PYTHON: &str = "\
try: s.connect((os.environ['ADDRESS'], int(os.environ['PORT']))); print('reached', flush=True)\n\
except OSError as e: print('refused', e.errno, flush=True)\n";

#[test]
fn a_socket_handed_out_stays_governed() {
    if !root() {
        return;
    }
    let ear = Ear::new("127.0.0.2");
    let session = Session::new(&denying(&["127.0.0.2"]));
    let place = session.work().join("handed");
    // Outside the agent: takes the socket and connects it.
    let outside = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(format!(
            "import os, socket\n\
             u = socket.socket(socket.AF_UNIX); u.bind(os.environ['PLACE']); os.chmod(os.environ['PLACE'], 0o777); u.listen()\n\
             c = u.accept()[0]\n\
             s = socket.socket(fileno=socket.recv_fds(c, 1, 1)[1][0])\n{DIAL_IN_PYTHON}"
        ))
        .env("PLACE", &place)
        .env("ADDRESS", "127.0.0.2")
        .env("PORT", ear.port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let session = session.variable("PLACE", &place);
    let ended = session.run([
        "/usr/bin/python3",
        "-c",
        "import os, socket, time\n\
         u = socket.socket(socket.AF_UNIX)\n\
         while True:\n\
         \x20   try: u.connect(os.environ['PLACE']); break\n\
         \x20   except OSError: time.sleep(0.05)\n\
         s = socket.socket()\n\
         socket.send_fds(u, [b'x'], [s.fileno()])\n\
         u.recv(1)\n",
    ]);
    let outside = outside.wait_with_output().unwrap();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let said = String::from_utf8_lossy(&outside.stdout);
    assert_eq!(said.trim(), format!("refused {}", libc::EPERM));
    assert_eq!(ear.heard(), 0);
    let lines = connects_to(&ended.trail, ear.port);
    assert_eq!(lines.len(), 1, "{}", ended.trail.shown());
    assert_denied(lines[0], "no-host");
}

#[test]
fn a_socket_handed_in_is_governed_where_the_kernel_has_lsm() {
    if !root() {
        return;
    }
    if level() == Level::Partial {
        skip("a socket that was made outside is judged by LSM programs only");
        return;
    }
    let ear = Ear::new("127.0.0.2");
    let session = Session::new(&denying(&["127.0.0.2"]));
    let place = session.work().join("handed");
    let outside = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(
            "import os, socket\n\
             u = socket.socket(socket.AF_UNIX); u.bind(os.environ['PLACE']); os.chmod(os.environ['PLACE'], 0o777); u.listen()\n\
             c = u.accept()[0]\n\
             s = socket.socket()\n\
             socket.send_fds(c, [b'x'], [s.fileno()])\n\
             c.recv(1)\n",
        )
        .env("PLACE", &place)
        .spawn()
        .unwrap();
    let session = session
        .variable("PLACE", &place)
        .variable("ADDRESS", "127.0.0.2")
        .variable("PORT", ear.port.to_string());
    let ended = session.run([
        "/usr/bin/python3".to_owned(),
        "-c".to_owned(),
        format!(
            "import os, socket, time\n\
             u = socket.socket(socket.AF_UNIX)\n\
             while True:\n\
             \x20   try: u.connect(os.environ['PLACE']); break\n\
             \x20   except OSError: time.sleep(0.05)\n\
             s = socket.socket(fileno=socket.recv_fds(u, 1, 1)[1][0])\n{DIAL_IN_PYTHON}"
        ),
    ]);
    let mut outside = outside;
    outside.wait().unwrap();
    assert_eq!(ended.text().trim(), format!("refused {}", libc::EPERM));
    assert_eq!(ear.heard(), 0);
    let lines = connects_to(&ended.trail, ear.port);
    assert_eq!(lines.len(), 1, "{}", ended.trail.shown());
    assert_denied(lines[0], "no-host");
}

/// A process outside that takes a TCP and a UDP socket from one agent, and, when told so, tries them itself and hands them to
/// another.
struct Holder {
    child: Child,
    place: PathBuf,
}

impl Holder {
    fn new(session: &Session, port: u16) -> Self {
        let place = session.work().join("holder");
        let child = Command::new("/usr/bin/python3")
            .arg("-c")
            .arg(format!(
                "import os, socket, time\n\
                 u = socket.socket(socket.AF_UNIX); u.bind(os.environ['PLACE']); os.chmod(os.environ['PLACE'], 0o777); u.listen()\n\
                 c = u.accept()[0]\n\
                 fds = socket.recv_fds(c, 1, 2)[1]; c.close()\n\
                 while not os.path.exists(os.environ['PLACE'] + '.go'): time.sleep(0.02)\n\
                 s, d = [socket.socket(fileno=os.dup(fd)) for fd in fds]\n\
                 {DIAL_BOTH}\
                 c = u.accept()[0]\n\
                 socket.send_fds(c, [b'x'], fds); c.recv(1)\n"
            ))
            .env("PLACE", &place)
            .env("ADDRESS", "127.0.0.2")
            .env("PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, place }
    }

    /// What it said of its own tries, when an agent has taken the sockets.
    fn said(mut self) -> String {
        let mut said = String::new();
        let mut out = self.child.stdout.take().unwrap();
        out.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Where a test has failed it still waits.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python that sends to `$ADDRESS` `$PORT` through the sockets `s` and `d`, and says how that ended.
const DIAL_BOTH: &str = "\
for try_it in (lambda to: s.connect(to), lambda to: d.sendto(b'x', to)):\n\
\x20   try: try_it((os.environ['ADDRESS'], int(os.environ['PORT']))); print('reached', flush=True)\n\
\x20   except OSError as e: print('refused', e.errno, flush=True)\n";

/// Python that comes to the holder as `u`.
const COME: &str = "\
import os, socket, time\n\
u = socket.socket(socket.AF_UNIX)\n\
while True:\n\
\x20   try: u.connect(os.environ['PLACE']); break\n\
\x20   except OSError: time.sleep(0.05)\n";

/// A session whose agents know where the holder is and what to dial.
fn aimed(session: Session, place: &Path, port: u16) -> Session {
    session
        .variable("PLACE", place)
        .variable("ADDRESS", "127.0.0.2")
        .variable("PORT", port.to_string())
}

/// Runs an agent that comes to the holder.
fn comes(session: &Session, code: &str) -> Ended {
    session.run(["/usr/bin/python3", "-c", &format!("{COME}{code}")])
}

/// The programs on the cgroup of an agent judge for as long as a socket of it is about: whoever holds that after its end is
/// judged by its own policy, and is refused where it has none.
#[test]
fn a_socket_of_an_agent_that_has_ended_is_judged_by_whose_it_is_then() {
    if !root() {
        return;
    }
    let ear = Ear::new("127.0.0.2");
    let first = Session::new(&denying(&["127.0.0.9"]));
    let holder = Holder::new(&first, ear.port);
    let place = holder.place.clone();
    let first = aimed(first, &place, ear.port);
    let given = comes(
        &first,
        "fds = [socket.socket(), socket.socket(type=socket.SOCK_DGRAM)]\n\
         socket.send_fds(u, [b'x'], [fd.fileno() for fd in fds]); u.recv(1)\n",
    );
    assert_eq!(given.code(), 0, "{}", given.stderr);
    fs::write(place.with_extension("go"), "").unwrap();
    let second = aimed(Session::new(&denying(&["127.0.0.2"])), &place, ear.port);
    let taken = comes(
        &second,
        &format!(
            "s, d = [socket.socket(fileno=fd) for fd in socket.recv_fds(u, 1, 2)[1]]\n{DIAL_BOTH}"
        ),
    );
    let refused = format!("refused {0}\nrefused {0}\n", libc::EPERM);
    assert_eq!(holder.said(), refused, "outside");
    assert_eq!(taken.text(), refused, "{}", taken.stderr);
    assert_eq!(ear.heard(), 0);
    let lines = connects_to(&taken.trail, ear.port);
    assert_eq!(lines.len(), 2, "{}", taken.trail.shown());
    for line in lines {
        assert_denied(line, "no-host");
    }
}
