//! The program on a terminal of its own: util-linux's `script` holds the other end.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use super::program::text;

/// Runs a command on a terminal, and answers once it asks; whether it succeeded, and all that the
/// terminal showed.
pub(crate) fn on_terminal(command: &Command, asks: &str, answer: &str) -> (bool, String) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(asks.as_bytes()) {
        assert_ne!(screen.read(&mut byte).unwrap(), 0, "it does not ask: {}", text(&shown));
        shown.push(byte[0]);
    }
    keys.write_all(format!("{answer}\n").as_bytes()).unwrap();
    screen.read_to_end(&mut shown).unwrap();
    (child.wait().unwrap().success(), text(&shown))
}
