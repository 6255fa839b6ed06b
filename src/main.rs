//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    q8_agent::cli::run()
}
