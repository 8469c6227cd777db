//! A line of the password file of the coordinator's REST interface.

use std::io::{BufRead, Read};

use crate::screen::Screen;

/// More than any password: what is longer is some other file.
const INPUT_BYTES_MAX: u64 = 4 << 10;

/// Reads one line from standard input and prints the user's line.
pub(super) fn print(user: &str, acl: &str, screen: Screen) -> anyhow::Result<()> {
    let mut password = String::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_line(&mut password)?;
    let line = coordinator::password_line(user, password.trim_end_matches(['\n', '\r']), acl)?;
    if screen.is_json() {
        screen.value(&serde_json::json!({ "line": line }));
    } else {
        screen.line(line);
    }
    Ok(())
}
