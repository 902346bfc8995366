//! A developer's tools under `coding-agent.json`.

use std::{fs, path::Path};

use enforcer_tests::{Ended, Session, program, quick, root, skip};

use crate::observe::{DENIALS, DENIED, Work, files, in_path, policy};

/// Does the work as the unprivileged user and checks that only what is meant to be denied is.
fn work(prepare: &dyn Fn(&Path), script: &str) -> Ended {
    work_as(
        Session::new(&policy("coding-agent.json")),
        false,
        prepare,
        script,
    )
}

fn work_as(session: Session, own_home: bool, prepare: &dyn Fn(&Path), script: &str) -> Ended {
    let home = session.work();
    let mut variables = vec![
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z".into()),
        ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ];
    if !own_home {
        variables.push(("HOME", home.into()));
    }
    let ended = Work {
        session,
        prepare,
        script: &format!("{script}\n{DENIED}"),
        variables,
    }
    .twice();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let denied: Vec<_> = ended
        .trail
        .denials()
        .map(enforcer_tests::Line::command)
        .collect();
    assert_eq!(denied.len(), DENIALS, "{denied:#?}");
    ended
}

#[test]
fn git_on_a_real_repository() {
    if !root() {
        return;
    }
    if program("git").is_none() {
        return skip("no git");
    }
    let ended = work(
        &|_| {},
        r#"set -e
git init -q -b main repo; cd repo
git config user.email a@example.org; git config user.name A
git config gc.auto 0; git config maintenance.auto false
echo one >a; mkdir -p src; echo x >src/x; git add .; git commit -qm "first: rm -rf / is only a message"
git checkout -qb topic; echo two >>a; git commit -qam second
git checkout -q main; echo b >b; git add b; git commit -qm third
git merge -q --no-edit topic; git log --format=%h:%s; git diff --stat HEAD~1
git checkout -qb side HEAD~1; echo c >c; git add c; git commit -qm fourth; git rebase -q main
git log --oneline --graph
echo dirty >>a; git stash -q; git status --short; git stash list; git stash pop -q; git status --short
git diff; git commit -qam "fifth"; git tag v1; git show --stat v1
git clone -q . ../clone; git -C ../clone log --format=%s | sort
git -C ../clone push -q origin HEAD:refs/heads/new; git branch --list
git bisect start -q v1 v1~2 >/dev/null; git bisect reset 2>/dev/null
git fsck --no-progress; git worktree add -q ../tree new; ls ../tree
cd .."#,
    );
    assert!(ended.text().contains("fifth"));
}

#[test]
fn make_in_parallel() {
    if !root() {
        return;
    }
    if program("make").is_none() {
        return skip("no make");
    }
    work(
        &|directory| {
            let names: Vec<String> = (0..40).map(|n| format!("out/{n}.o")).collect();
            files(
                directory,
                &[(
                    "Makefile",
                    &format!(
                        "all: out/all\nout/all: {names}\n\tcat $^ | sort -n >$@\nout/%.o:\n\tmkdir -p out\n\techo $* | tr 0-9 1-90 >$@.new && mv $@.new $@\n",
                        names = names.join(" ")
                    ),
                )],
            );
        },
        "set -e; make -s -j 4; cksum <out/all; make -s -j4 out/all; touch -d 2001-01-01 out/all; make -s -j8",
    );
}

#[test]
fn find_and_xargs_over_many_files() {
    if !root() {
        return;
    }
    let many = quick(5000, 400);
    let ended = work(
        &|directory| {
            for n in 0..many {
                let place = directory.join(format!("d{}/{}", n % 50, n % 7));
                fs::create_dir_all(&place).unwrap();
                fs::write(place.join(format!("f {n}.txt")), format!("{n}\n")).unwrap();
            }
        },
        "find . -name '*.txt' -print0 | xargs -0 -n 1 -P 4 /bin/true
find . -name '*.txt' -print0 | sort -z | xargs -0 cat | cksum
find . -name '*1.txt' -exec grep -c . {} + | wc -l
find . -type f | wc -l",
    );
    assert!(ended.trail.execs().count() > many, "one exec for each file");
}

#[test]
fn python_runs_its_tests() {
    if !root() {
        return;
    }
    if program("python3").is_none() {
        return skip("no python3");
    }
    work(
        &|directory| {
            files(
                directory,
                &[
                    ("demo/__init__.py", "def double(x): return 2 * x\n"),
                    (
                        "tests/test_demo.py",
                        "import multiprocessing, os, subprocess, sys, unittest\nimport demo\n\
                         class T(unittest.TestCase):\n\
                         \x20   def test_double(self): self.assertEqual(demo.double(2), 4)\n\
                         \x20   def test_child(self):\n\
                         \x20       out = subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True)\n\
                         \x20       self.assertEqual(out.stdout, '42\\n')\n\
                         \x20   def test_shell(self): self.assertEqual(os.popen('echo a | tr a b').read(), 'b\\n')\n\
                         \x20   def test_pool(self):\n\
                         \x20       with multiprocessing.get_context('spawn').Pool(1) as pool: self.assertEqual(pool.map(demo.double, [1, 2]), [2, 4])\n\
                         \x20   def test_missing(self): self.assertRaises(FileNotFoundError, subprocess.run, ['no-such-program'])\n",
                    ),
                ],
            );
        },
        "set -e; python3 -m unittest discover -q -s tests -t . 2>&1 | grep -v '^Ran'; python3 -c 'import demo; print(demo.double(21))'",
    );
}

/// Builds the package without what a machine may lack (setuptools, wheel).
const BACKEND: &str = r"
import subprocess, sys, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = 'demo-1.0-py3-none-any.whl'
    version = subprocess.check_output([sys.executable, '-c', 'print(1.0)'], text=True).strip()
    info = 'demo-1.0.dist-info/'
    files = {
        'demo/__init__.py': open('demo/__init__.py').read(),
        info + 'METADATA': f'Metadata-Version: 2.1\nName: demo\nVersion: {version}\n',
        info + 'WHEEL': 'Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        info + 'entry_points.txt': '[console_scripts]\ndemo = demo:main\n',
    }
    with zipfile.ZipFile(directory + '/' + name, 'w') as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(info + 'RECORD', ''.join(f'{path},,\n' for path in [*files, info + 'RECORD']))
    return name
";

#[test]
fn pip_installs_a_local_package() {
    if !root() {
        return;
    }
    let probe = std::process::Command::new("python3")
        .args(["-c", "import pip, venv"])
        .stderr(std::process::Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip("no pip");
    }
    let Some((_, everyones)) = in_path("python3") else {
        return skip("no python3");
    };
    let mut session = Session::new(&policy("coding-agent.json"));
    if !everyones {
        session = session.as_root();
    }
    work_as(
        session,
        !everyones,
        &|directory| {
            files(
                directory,
                &[
                    (
                        "package/pyproject.toml",
                        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
                    ),
                    ("package/backend.py", BACKEND),
                    ("package/demo/__init__.py", "def main(): print('installed and run')\n"),
                ],
            );
        },
        "set -e
python3 -m venv --system-site-packages --without-pip env
. env/bin/activate
python -m pip install --quiet --no-index --no-deps --no-build-isolation --no-cache-dir --disable-pip-version-check --root-user-action ignore ./package
env/bin/demo; python -m pip --disable-pip-version-check list 2>/dev/null | grep demo",
    );
}

#[test]
fn npm_runs_its_scripts() {
    if !root() {
        return;
    }
    if program("npm").is_none() {
        return skip("no npm");
    }
    work(
        &|directory| {
            files(
                directory,
                &[
                    (
                        "package.json",
                        r#"{"name": "demo", "version": "1.0.0", "private": true, "scripts": {
                            "prebuild": "mkdir -p out", "build": "node build.js && ls out", "test": "node test.js | tr a-z A-Z"}}"#,
                    ),
                    (
                        "build.js",
                        "require('fs').writeFileSync('out/a.txt', require('child_process').execSync('echo made').toString());\n",
                    ),
                    (
                        "test.js",
                        "const r = require('child_process').spawnSync(process.execPath, ['-p', '6*7']); console.log('answer ' + r.stdout);\n",
                    ),
                ],
            );
        },
        "set -e; export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
npm run --silent build; npm test --silent; npm install --offline --no-package-lock --silent; cat out/a.txt",
    );
}

#[test]
fn cargo_builds_a_crate_with_a_dependency() {
    if !root() {
        return;
    }
    let Some((_, everyones)) = in_path("cargo") else {
        return skip("no cargo");
    };
    let mut session = Session::new(&policy("coding-agent.json"));
    if !everyones {
        session = session.as_root();
    }
    for name in ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        // The tester's own settings must not lead the build elsewhere.
        session = session.variable(name, "");
    }
    let script = "set -e
unset RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR
export CARGO_NET_OFFLINE=true CARGO_TERM_QUIET=true CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
cargo build --offline; target/debug/app; cargo test --offline 2>&1 | grep -c '^test result: ok'; cargo build --offline";
    let ended = work_as(
        session,
        !everyones,
        &|directory| {
            files(
                directory,
                &[
                    (
                        "Cargo.toml",
                        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndep = { path = \"dep\" }\n[workspace]\n",
                    ),
                    (
                        "src/main.rs",
                        "fn main() { println!(\"{} {}\", dep::double(21), env!(\"MADE\")); }\n#[test]\nfn t() { assert_eq!(dep::double(1), 2); }\n",
                    ),
                    (
                        "build.rs",
                        "fn main() { let out = std::process::Command::new(\"echo\").arg(\"made\").output().unwrap(); println!(\"cargo:rustc-env=MADE={}\", String::from_utf8(out.stdout).unwrap().trim()); }\n",
                    ),
                    (
                        "dep/Cargo.toml",
                        "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
                    ),
                    ("dep/src/lib.rs", "pub fn double(x: u32) -> u32 { 2 * x }\n"),
                ],
            );
        },
        script,
    );
    assert!(ended.text().starts_with("42 made"), "{}", ended.text());
}
