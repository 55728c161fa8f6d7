//! Shared parts of the tests of Node programs.

use super::Supervisor;
use std::path::Path;
use std::process::Output;

/// A server as its author wrote it, who knows nothing of the supervisor.
pub const SERVER: &str = "http.createServer((request, answer) => {
  if (request.url === '/pid') answer.end(String(process.pid)); else setTimeout(() => answer.end('hello'), 5);
}).listen(Number(process.env.PORT));
";

/// Starts a program that reads its port from PORT.
pub fn start(supervisor: &Supervisor, program: &Path, port: u16, options: &[&str]) -> Output {
    let mut command = supervisor.command(&[&["start", program.to_str().unwrap(), "--listen-timeout", "10s"], options].concat());
    command.env("PORT", port.to_string()).output().unwrap()
}

/// What a command has written to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
