//! Names that stand for a secret: `password`, `AWS_SECRET_ACCESS_KEY`, `--auth-token`, `x-api-key`.

/// Ends of a name (lower case, separators dropped) that make it the name of a secret.
const SECRET_ENDS: [&str; 31] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "apikey",
    "secretkey",
    "secretkeybase",
    "accesskey",
    "privatekey",
    "authkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
    "sharedkey",
    "sessionkey",
    "clientkeydata",
    "credential",
    "credentials",
    "authorization",
    "bearer",
    "cookie",
    "sessionid",
    "storepass",
    "keypass",
    "sshpass",
    "proxypass",
];

/// Last words of a name that are too short to be looked for inside other words (`compass`, `basic-auth`).
const SECRET_WORDS: [&str; 4] = ["pass", "passw", "pw", "creds"];

/// Words after the name of a secret that do not change what it is: `PASSWORD_BASE64`, `token_prod`.
const QUALIFIERS: [&str; 16] = [
    "value",
    "b64",
    "base64",
    "raw",
    "plain",
    "plaintext",
    "text",
    "hex",
    "enc",
    "prod",
    "production",
    "dev",
    "staging",
    "live",
    "primary",
    "secondary",
];

/// First words of a flag that takes no secret although it ends like one: `--show-token`, `--no-password`.
const SWITCHES: [&str; 20] = [
    "show", "no", "with", "without", "ask", "prompt", "use", "generate", "allow", "require",
    "disable", "enable", "skip", "reset", "rotate", "revoke", "list", "print", "change", "force",
];

/// Longest name that is looked at, in bytes; a longer one is judged by its end.
pub(super) const NAME_MAX: usize = 128;

/// Whether a byte can be part of a name.
pub(super) fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')
}

/// Whether a value given to this name is a secret.
///
/// `PWD` and `OLDPWD`, spelled like the shell's variables, are working directories.
pub(super) fn is_secret(name: &str) -> bool {
    // `.npmrc` keeps a base64 of user and password under `_auth`.
    if name == "_auth" {
        return true;
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() || matches!(name, "PWD" | "OLDPWD") {
        return false;
    }
    let mut words = words(name);
    loop {
        match words.last() {
            Some(last) if words.len() > 1 && QUALIFIERS.contains(&last.as_str()) => {
                words.pop();
            }
            Some(last) if words.len() > 1 && last.bytes().all(|b| b.is_ascii_digit()) => {
                words.pop();
            }
            _ => break,
        }
    }
    let Some(last) = words.last() else {
        return false;
    };
    let last = last.trim_end_matches(|c: char| c.is_ascii_digit());
    if SECRET_WORDS.contains(&last) {
        return true;
    }
    let joined: String = words.concat();
    let joined = joined.trim_end_matches(|c: char| c.is_ascii_digit());
    SECRET_ENDS.iter().any(|end| joined.ends_with(end))
}

/// Whether the word after this flag (dashes included) is a secret.
pub(super) fn is_secret_flag(flag: &str) -> bool {
    let name = flag.trim_start_matches('-');
    if name.len() == flag.len() || !name.bytes().all(is_name_byte) {
        return false;
    }
    let first = name
        .split(['-', '_'])
        .next()
        .unwrap_or(name)
        .to_ascii_lowercase();
    // One dash may start a cluster with its value attached (`-pMYSECRET`): the name must be a whole one.
    let whole = flag.starts_with("--")
        || SECRET_ENDS.contains(&name.to_ascii_lowercase().as_str())
        || matches!(name, "pass" | "passin" | "passout")
        || name.contains('-');
    let switch = first.len() < name.len() && SWITCHES.contains(&first.as_str());
    // Flags of one or two letters mean too many things.
    whole && !switch && name.len() > 2 && (is_secret(name) || matches!(name, "passin" | "passout"))
}

/// The words of a name, lower case: split at `_`, `-`, `.` and where a capital follows a small letter.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        let separator = matches!(c, '_' | '-' | '.');
        if separator || (small && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        small = c.is_ascii_lowercase();
        if !separator && let Some(word) = words.last_mut() {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "password",
            "PASSWORD",
            "dbPassword",
            "DB_PASS",
            "PGPASSWORD",
            "MYSQL_PWD",
            "pwd",
            "api_key",
            "api-key",
            "APIKEY",
            "x-api-key",
            "OPENAI_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "client_secret",
            "clientSecret",
            "my_token",
            "Token",
            "authToken",
            "GITHUB_TOKEN_PROD",
            "SECRET_KEY_BASE",
            "password2",
            "token_1",
            "PASSWORD_BASE64",
            "AccountKey",
            "Authorization",
            "_authToken",
            "_auth",
            "storepass",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_of_other_things() {
        for name in [
            "PWD",
            "OLDPWD",
            "path",
            "tokens",
            "max_tokens",
            "password-file",
            "password_stdin",
            "TOKEN_FILE",
            "token_url",
            "compass",
            "bypass",
            "key",
            "public_key",
            "sort-key",
            "secret_id",
            "tokenizer",
            "auth",
            "author",
            "",
            "-",
            "passive",
            "n",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn flags() {
        for flag in [
            "--password",
            "--token",
            "-password",
            "--auth-token",
            "--api-key",
            "--pass",
            "-storepass",
        ] {
            assert!(is_secret_flag(flag), "{flag}");
        }
        for flag in [
            "password",
            "--password-file",
            "--password-stdin",
            "--show-token",
            "--no-password",
            "-p",
            "--",
            "-pw",
        ] {
            assert!(!is_secret_flag(flag), "{flag}");
        }
    }
}
