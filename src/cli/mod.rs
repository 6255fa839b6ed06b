//! The command line. Results go to standard output, everything else to standard error, success is exit code 0.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this room talks to a person at a terminal")]

mod config;
mod healthcheck;
mod serve;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::SETTINGS;

/// Runs tenants' Compose stacks on this host, natively through the Docker Engine API.
#[derive(Debug, Parser)]
#[command(name = "q8-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API until SIGTERM or SIGINT (the default). SIGHUP reads the token files again.
    Serve,
    /// Print the project that a Compose file stands for, or say where it is wrong.
    Config(config::ConfigArguments),
    /// Ask the agent on this host whether it is ready: exit code 0 if it is, 1 if not. Needs no token.
    Healthcheck,
    /// Print the description of the HTTP API, OpenAPI 3.1.
    Openapi,
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let command = Arguments::command().after_long_help(settings_help()).after_help("See --help for the settings.");
    let arguments = match command.try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap, too, with exit code 0. Nobody is left to tell if printing fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(),
        Command::Config(arguments) => config::run(&arguments),
        Command::Healthcheck => healthcheck::run(),
        Command::Openapi => print("openapi", crate::api::OPENAPI),
    }
}

/// A result on standard output. Whoever reads may have seen enough before its end.
fn print(what: &str, text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(what, error),
    }
}

/// One clear line on standard error, and exit code 1.
fn fail(what: &str, why: impl std::fmt::Display) -> ExitCode {
    eprintln!("q8-agent: {what}: {why}");
    ExitCode::FAILURE
}

fn settings_help() -> String {
    let width = SETTINGS.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
    let mut text = String::from("Settings (environment variables):\n");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:width$}  {}{default}", setting.name, setting.help);
    }
    text.push_str(
        "\nA first start:\n  \
         export Q8_AGENT_ADMIN_TOKEN=$(openssl rand -hex 32)\n  \
         q8-agent serve\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands() {
        for (line, good) in [
            ("q8-agent", true),
            ("q8-agent serve", true),
            ("q8-agent healthcheck", true),
            ("q8-agent openapi", true),
            ("q8-agent config -f a.yaml -f b.yaml --env-file x --format json -p shop --profile a --profile b", true),
            ("q8-agent config", false),
            ("q8-agent config -f a --format xml", false),
            ("q8-agent serve now", false),
            ("q8-agent --port 1", false),
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).is_ok(), good, "{line}");
        }
    }

    #[test]
    fn help_has_every_setting() {
        let help = settings_help();
        for setting in SETTINGS {
            assert!(help.contains(setting.name), "{}", setting.name);
        }
    }
}
