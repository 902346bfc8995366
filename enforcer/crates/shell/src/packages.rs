//! Runners of packages (`npx`, `pnpm dlx`): the command that they start has its package's name, perhaps with a version.

use super::Word;

/// Whether a program starts commands by the names of packages.
pub(super) fn runs(name: &str) -> bool {
    matches!(
        name,
        "npx" | "bunx" | "pnpx" | "uvx" | "npm" | "pnpm" | "yarn" | "bun" | "pipx"
    )
}

/// Takes the version from the command's name (`prisma@6`), and the `--` behind it (`npm exec prisma -- reset`).
pub(super) fn unversioned(command: &mut Vec<Word>) {
    let Some(program) = command.first_mut() else {
        return;
    };
    // A scope begins with the same sign: `@scope/name@1`.
    if let Some(at) = program.text.rfind('@').filter(|at| *at > 0)
        && program.known()
    {
        *program = Word::literal(&program.text[..at]);
    }
    if command.get(1).is_some_and(|word| word.text == "--") {
        command.remove(1);
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn a_package_is_started_under_its_name_whatever_its_version() {
        for text in [
            "npx prisma@6 migrate reset",
            "npx -y prisma@latest migrate reset",
            "npx -p prisma@6 prisma migrate reset",
            "npx --package=prisma -c 'prisma migrate reset'",
            "npm exec prisma@6 -- migrate reset",
            "npm --prefix x exec -- prisma migrate reset",
            "npm x prisma migrate reset",
            "pnpm dlx prisma@6 migrate reset",
            "pnpm --filter api exec prisma migrate reset",
            "yarn dlx prisma@5.1.0 migrate reset",
            "bunx prisma@6 migrate reset",
            "bun x prisma migrate reset",
            "cross-env A=b C=d prisma migrate reset",
            "npx cross-env@7 A=b prisma migrate reset",
            "cross-env-shell A=b 'prisma migrate reset'",
            "dotenv -e .env -- prisma migrate reset",
            "dotenv run prisma migrate reset",
            "env-cmd -f .env prisma migrate reset",
            "concurrently 'npm run x' 'prisma migrate reset'",
        ] {
            let parts = parse(text).parts;
            let reset = |part: &super::super::Part| part.texts() == ["prisma", "migrate", "reset"];
            assert!(parts.iter().any(reset), "{text}: {parts:?}");
        }
    }
}
